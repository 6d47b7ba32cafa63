"""Rendering of the chart with the real helm, cached for the session."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from kube_binaries import program  # noqa: E402  the folder of this file must be on the path first

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "macroscope"
Helm = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Run the real helm; returns what it printed and its exit code."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program("helm"), *arguments], capture_output=True, text=True)

    return run


@pytest.fixture(scope="session")
def render(helm: Helm) -> Callable[..., list[dict[str, Any]]]:
    """Objects that the chart renders with some ``--set-json`` values."""

    @cache
    def run(*sets: str) -> list[dict[str, Any]]:
        flags = [part for text in sets for part in ("--set-json", text)]
        done = helm("template", "macroscope", str(CHART), "--namespace", "em", *flags)
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return run


@pytest.fixture(scope="session")
def refuse(helm: Helm) -> Callable[..., str]:
    """The sentence with which the chart refuses some values."""

    def run(*sets: str) -> str:
        flags = [part for text in sets for part in ("--set-json", text)]
        done = helm("template", "macroscope", str(CHART), "--namespace", "em", *flags)
        assert done.returncode != 0, f"{sets} was not refused"
        return done.stderr

    return run
