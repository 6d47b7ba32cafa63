"""Stop means stop: a signal ends a run cleanly, and the next run goes on from there.

A cancel in Prefect does the same: test_prefect_ui_in_browser.py, where a server and worker are.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emulators.control import Control
from lib.storage.local import LocalStore
from lib.verify.volume import verify_store
from tests.end_to_end.conftest import Command

PATIENCE_S = 280.0  # for a run to begin: Prefect's server takes a minute on a busy machine
# The promise is 5 s. A machine that also runs the rest of the suite gets this.
ENDS_WITHIN_S = 60.0

pytestmark = pytest.mark.timeout(600)
# minutes for either source, so that no volume is complete before a busy machine gets to stop it
SLOW_ARCHIVES = {
    "s3": {"first_byte_s": 1.0, "bytes_per_second": 2_000},
    "ftp": {"first_byte_s": 4.0},
}
SOURCES = ("--source", "ebi", "--source", "openorganelle", "--mode", "parallel")


class StoppableRun:
    """``macroscope run`` in a session of its own, and all that a stop must not leave behind."""

    def __init__(self, folder: Path, environment: dict[str, str], *, alone: bool) -> None:
        self.folder = folder
        self._mark = f"STOP_TEST_MARK={uuid.uuid4().hex}"
        self._temporary = folder / "tmp"
        self._temporary.mkdir()
        name, _, value = self._mark.partition("=")
        self._output = (folder / "output").open("w")
        if alone:  # the server that the run brings along must end with it
            environment = {k: v for k, v in environment.items() if k != "PREFECT_API_URL"}
        self.process = subprocess.Popen(
            [str(Path(sys.executable).with_name("macroscope")), "run", *SOURCES],
            cwd=folder,
            env={
                **environment,
                name: value,
                "TMPDIR": str(self._temporary),
                "EBI_PROTOCOL": "ftp",  # one file after another: that takes its time
            },
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def statuses(self) -> dict[str, str]:
        """Source -> status of its record, as far as there is one."""
        records = (self.folder / "data").glob("*/metadata_*.json")
        return {path.parent.name: json.loads(path.read_text())["status"] for path in records}

    def wait_until_busy(self) -> None:
        """Wait until shards are being made."""

        def busy() -> bool:
            assert self.process.poll() is None, "the run ended before it could be stopped"
            return "processing" in self.statuses().values()

        wait_until(busy, "the run did not begin")

    def end(self) -> int:
        """Wait for the end; returns the exit code."""
        try:
            return self.process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the run did not end: {self.statuses()}\n{self.output()}")

    def strays(self) -> list[str]:
        """Processes that the run started, found by its mark in their environment."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if self._mark.encode() in (path / "environ").read_bytes():
                    found.append((path / "cmdline").read_text().replace("\0", " "))
            except OSError:  # ended while we looked
                continue
        return found

    def left_behind(self) -> list[str]:
        """Temporary files, locks, and parts of files that no later run would go on with."""
        data = self.folder / "data"
        locks = [path for path in data.rglob("*") if path.parent.name == ".locks"]
        half = list(data.rglob(".*.tmp"))
        return [str(path) for path in (*self._temporary.rglob("*"), *locks, *half)]

    def output(self) -> str:
        return (self.folder / "output").read_text()

    def close(self) -> None:
        """End whatever a failed test left."""
        self._output.close()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def wait_until(true: Callable[[], bool], otherwise: str, patience_s: float = PATIENCE_S) -> None:
    """Look every 50 ms until it is true."""
    deadline = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


@pytest.fixture
def busy_run(
    request: pytest.FixtureRequest,
    faults: Control,
    environment: dict[str, str],
    tmp_path: Path,
) -> Iterator[StoppableRun]:
    """A run in the middle of its work, held up by slow archives."""
    for service, slow in SLOW_ARCHIVES.items():
        faults.set_latency(service, **slow)
    run = StoppableRun(tmp_path, environment, alone=request.param)
    try:
        run.wait_until_busy()
        yield run
    finally:
        run.close()


@pytest.mark.parametrize(
    ("how", "busy_run"),
    [
        pytest.param("SIGTERM", False, id="SIGTERM", marks=pytest.mark.long),
        # CI looks at one of the two with a server to end
        pytest.param("Ctrl-C", True, id="Ctrl-C with a server of its own", marks=pytest.mark.long),
        pytest.param("SIGTERM", True, id="SIGTERM with one", marks=pytest.mark.slow),
    ],
    indirect=["busy_run"],
)
def test_a_signal_ends_the_run_with_records_cancelled_and_nothing_left(
    busy_run: StoppableRun, faults: Control, macroscope: Command, how: str
) -> None:
    if how == "SIGTERM":
        busy_run.process.terminate()
    else:  # a terminal sends it to every process of the foreground group
        os.killpg(busy_run.process.pid, signal.SIGINT)
    assert busy_run.end() == (143 if how == "SIGTERM" else 130), busy_run.output()
    assert "stopped; run again to go on" in busy_run.output()
    assert "Traceback" not in busy_run.output()
    assert set(busy_run.statuses().values()) == {"cancelled"}
    # what it started has been told to end, and a busy machine takes a moment for that
    wait_until(lambda: not busy_run.strays(), "processes are left", ENDS_WITHIN_S)
    assert busy_run.left_behind() == []

    faults.clear()
    resumed = macroscope("run", "--json", *SOURCES)
    assert resumed.returncode == 0, resumed.stderr
    assert busy_run.statuses() == {"ebi": "complete", "openorganelle": "complete"}
    assert [v.problems for v in verify_store(LocalStore(busy_run.folder / "data"))] == [(), ()]
