"""A Slurm of a test's own: munge, controller and one node on this machine, which root may start."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lib.transport.environment import free_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
_START_S = 300
_CONF = """\
ClusterName=standin
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller}
SlurmdPort={node}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=16000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why no Slurm can be started here."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"Slurm is not installed here: {', '.join(missing)}"
    return None if os.geteuid() == 0 else "only root can start Slurm's daemons"


class Slurm:
    """Client of the running one."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def jobs(self, state: str = "RUNNING") -> list[str]:
        """Ids of the jobs in a state."""
        return self._ask("squeue", "-h", "-o", "%i", "-t", state).split()

    def cancel(self, job: str) -> None:
        """Kill a job."""
        self._ask("scancel", job)

    def nodes(self) -> str:
        """States of the nodes."""
        return self._ask("sinfo", "-h", "-o", "%T")

    def _ask(self, *words: str) -> str:
        env = {**os.environ, **self.environment}
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=300)
        return done.stdout


@contextmanager
def slurm() -> Iterator[Slurm]:
    """Start it, and end every process of it."""
    with ExitStack() as ends:
        # a socket's path has a hundred letters at most; munge wants folders that only root writes
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="slurm-", dir="/var")))
        folder.chmod(0o755)
        for name in ("munge", "state", "spool"):
            (folder / name).mkdir(mode=0o755)
        (folder / "munge").chmod(0o711)
        key = folder / "munge" / "key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        controller, node = free_ports("127.0.0.1", 2)
        host = os.uname().nodename.partition(".")[0]
        conf = folder / "slurm.conf"
        conf.write_text(_CONF.format(host=host, folder=folder, controller=controller, node=node))
        environment = {"SLURM_CONF": str(conf)}
        munge = [f"--{name}={folder}/munge/{name}" for name in ("socket", "pid-file", "log-file")]
        munge += [f"--key-file={key}", f"--seed-file={folder}/munge/seed"]
        for words in (
            ["munged", "--foreground", "--force", *munge],
            ["slurmctld", "-D"],
            ["slurmd", "-D"],
        ):
            ends.enter_context(_running(words, folder, environment))
        running = Slurm(environment)
        deadline = time.monotonic() + _START_S
        while "idle" not in running.nodes():
            said = "".join(path.read_text()[-500:] for path in folder.glob("*.out"))
            assert time.monotonic() < deadline, said
            time.sleep(0.5)
        yield running
        for state in ("RUNNING", "PENDING"):
            for job in running.jobs(state):
                running.cancel(job)


@contextmanager
def _running(words: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    with (folder / f"{words[0]}.out").open("wb") as log:
        process = subprocess.Popen(
            words,
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        time.sleep(0.5)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
