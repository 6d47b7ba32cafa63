"""Archives and stores that write for the reader's terminal: no command passes it on."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from emulators.serving import Samples
from tests.end_to_end.conftest import Command
from tests.faults.test_hostile_archives import server

PAYLOAD = "\x1b]0;owned\x07\x1b[2J\u202e"
OBEYED = ("\x1b]0;", "\x07", "\x1b[2J", "\u202e")


@pytest.fixture
def hostile(samples: Samples) -> Iterator[dict[str, str]]:
    """IDR's API, with a payload in the path of every image's file; how to reach it."""
    upstream = samples.endpoints["IDR"]["api_base_url"]

    def answer(path: str) -> tuple[str, bytes] | None:
        if "original_file_paths" in path:
            paths = [f"/elsewhere/{PAYLOAD}.tif"]
            return "application/json", json.dumps({"repo": paths, "client": paths}).encode()
        found = requests.get(upstream + path, timeout=120)
        return (found.headers["Content-Type"], found.content) if found.ok else None

    with server(answer) as root:
        yield {"IDR_API_BASE_URL": root}


def on_a_terminal(folder: Path, environment: dict[str, str], *arguments: str) -> str:
    """What a terminal of 80 columns is sent while a command runs in it."""
    ours, theirs = pty.openpty()
    command = [str(Path(sys.executable).with_name("macroscope")), *arguments]
    env = {**environment, "TERM": "xterm-256color", "COLUMNS": "80"}
    env.pop("NO_COLOR", None)
    process = subprocess.Popen(
        command, cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    sent = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other side has closed
            break
        if not part:
            break
        sent += part
    process.wait(timeout=300)
    os.close(ours)
    return sent.decode(errors="replace")


@pytest.mark.long
def test_the_texts_of_an_archive_are_shown_and_not_obeyed(
    macroscope: Command, environment: dict[str, str], hostile: dict[str, str], tmp_path: Path
) -> None:
    told = on_a_terminal(tmp_path, {**environment, **hostile}, "plan", "--source", "idr")
    plain = macroscope("plan", "--source", "idr", **hostile)
    run = macroscope("run", "--source", "idr", **hostile)
    document = macroscope("run", "--source", "idr", "--json", **hostile)
    logs = "".join(path.read_text() for path in (tmp_path / "logs").iterdir())
    for done in (plain, run, document):
        assert done.returncode == 1
    for text in (told, *(done.stdout + done.stderr for done in (plain, run, document)), logs):
        assert [one for one in OBEYED if one in text] == []
    for text in (told, plain.stderr, run.stdout, document.stdout):
        assert "owned" in text, "the payload did not come this far"


def test_a_stores_records_are_shown_and_not_obeyed(macroscope: Command, tmp_path: Path) -> None:
    """A store of somebody else's, with a record that is wrong in hostile words."""
    name = f"x{PAYLOAD}"
    folder = tmp_path / "theirs" / "ebi"
    folder.mkdir(parents=True)
    record = {"source": "ebi", "name": name, "status": PAYLOAD, "schema_version": PAYLOAD}
    (folder / f"metadata_{name}.json").write_text(json.dumps(record))
    (folder / "metadata_y.json").write_text(json.dumps(record))
    done = macroscope("verify", str(tmp_path / "theirs"))
    document = macroscope("verify", str(tmp_path / "theirs"), "--json")
    assert done.returncode == 1
    assert r"\x1b]0;owned" in done.stdout, "the payload did not come this far"
    for text in (done.stdout + done.stderr, document.stdout + document.stderr):
        assert [one for one in OBEYED if one in text] == []
