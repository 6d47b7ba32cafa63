"""Whole runs: the console command in a process of its own, against the stand-ins."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from emulators.s3 import S3Server
from emulators.serving import Samples
from flows.cli import main
from lib.transport.environment import free_ports
from tests.end_to_end.bucket import KEY, SECRET, Bucket

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
Command = Callable[..., subprocess.CompletedProcess[str]]


def environment_in(folder: Path, samples: Samples, prefect_api: str) -> dict[str, str]:
    """This process's environment, with the running stand-ins as the archives and a server."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EM_", "PREFECT_"))}
    return {
        **kept,
        "EM_ARCHIVES": "samples",
        "EM_SERVICES": json.dumps(samples.endpoints),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": prefect_api,
        "NO_COLOR": "1",
    }


@pytest.fixture
def environment(samples: Samples, prefect_api: str, tmp_path: Path) -> dict[str, str]:
    return environment_in(tmp_path, samples, prefect_api)


def command_in(folder: Path, environment: dict[str, str]) -> Command:
    """Run ``macroscope ...`` in a folder; more environment as keywords, None removes."""

    def run(*arguments: str, **more: str | None) -> subprocess.CompletedProcess[str]:
        whole = {**environment, **more}
        return subprocess.run(
            [str(Path(sys.executable).with_name("macroscope")), *arguments],
            cwd=folder,
            env={name: value for name, value in whole.items() if value is not None},
            capture_output=True,
            text=True,
            timeout=560,
            check=False,
        )

    return run


@pytest.fixture
def macroscope(environment: dict[str, str], tmp_path: Path) -> Command:
    """The console command in an empty folder."""
    return command_in(tmp_path, environment)


@pytest.fixture
def macroscope_here(
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """The same in this process, for what ends before a flow begins: Prefect's import takes 4 s."""

    def run(*arguments: str, **more: str | None) -> subprocess.CompletedProcess[str]:
        whole = {**environment, **more}
        set_here = {name: value for name, value in whole.items() if value is not None}
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["macroscope", *arguments])
        with patch.dict(os.environ, set_here, clear=True), pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(["macroscope"], code, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[Bucket]:
    with S3Server("volumes", KEY, SECRET) as server:
        running = Bucket(server)
        yield running
        running.side.stop()


@pytest.fixture
def bucket(bucket_server: Bucket, tmp_path: Path) -> Iterator[Bucket]:
    """An empty place in a bucket, without faults to begin with."""
    bucket_server.clear()
    bucket_server.uri = f"s3://volumes/{tmp_path.name}-{secrets.token_hex(4)}"
    yield bucket_server
    bucket_server.clear()


@contextmanager
def desk_in(folder: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Make a folder a desk with a running server, worker and stand-ins; all gone afterwards."""
    for name in ("prefect.yaml", "prefect.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "k8s", folder / "k8s")
    port = free_ports("127.0.0.1", 1)[0]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EM_", "PREFECT_"))}
    env = {**kept, "NO_COLOR": "1", "TMPDIR": str(folder / "tmp")}
    (folder / "tmp").mkdir()
    up = [str(BIN / "macroscope"), "up", "--port", str(port)]
    try:
        subprocess.run(up, cwd=folder, env=env, check=True, timeout=500)
        yield folder, env | sourced(folder / ".macroscope" / "client.env")
    finally:
        subprocess.run([str(BIN / "macroscope"), "down"], cwd=folder, env=env, check=True)


def sourced(path: Path) -> dict[str, str]:
    """What a shell that sources a file has in its environment more than before."""
    show = f"env -i bash -c 'source {shlex.quote(str(path))} && env'"
    shown = subprocess.run(show, shell=True, capture_output=True, text=True, check=True).stdout
    found = dict(line.split("=", 1) for line in shown.splitlines())
    return {name: value for name, value in found.items() if name.startswith("PREFECT_")}


def volumes(document: str) -> dict[str, dict[str, Any]]:
    """Source -> its first volume, of what ``run --json`` printed."""
    return {result["source"]: result["volumes"][0] for result in json.loads(document)}
