"""Every command that the chart gives a container is one that the program in the image accepts."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.kube_checks import pod_specs

BIN = Path(sys.executable).parent
Command = tuple[str, ...]
#: how many words name the (sub)command, before its options begin
WORDS = {"prefect": 3, "kopf": 2, "macroscope": 2, "python": 3}
PARTS = ("server", "worker", "operator", "register", "cleanup", "samples", "test")


def commands(objects: list[dict[str, Any]]) -> dict[str, list[Command]]:
    """Each part's commands, those inside ``sh -c`` included."""
    found: dict[str, list[Command]] = {}
    for manifest in objects:
        for _, pod in pod_specs(manifest):
            for container in pod["containers"]:
                args = container["args"]
                if args[:2] == ["sh", "-c"]:
                    lines = [
                        re.sub(r"^(exec|timeout \d+) ", "", x.strip()) for x in args[2].split(";")
                    ]
                    found.setdefault(container["name"], []).extend(tuple(x.split()) for x in lines)
                else:
                    found.setdefault(container["name"], []).append(tuple(args))
    return found


@cache
def help_of(command: Command) -> str:
    program = shutil.which(command[0], path=str(BIN)) or command[0]
    environ = {**os.environ, "COLUMNS": "200", "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    done = subprocess.run(
        [program, *command[1:], "--help"], capture_output=True, text=True, env=environ
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_program_knows_every_option(part: str, render: Callable[..., list[dict[str, Any]]]) -> None:
    if part == "samples" and importlib.util.find_spec("flows.cli") is None:
        pytest.skip("the command line is not there yet")
    given = commands(render("samples.enabled=true"))[part]
    assert given
    for command in given:
        words = WORDS[command[0]]
        options = [word.partition("=")[0] for word in command[words:] if word.startswith("--")]
        text = help_of(command[:words])
        for option in options:
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text), (command, option)
