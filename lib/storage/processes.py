"""Whether the process that held a lock is gone: only of processes of this very machine."""

from __future__ import annotations

import os
from pathlib import Path


def process_identity(pid: int) -> list[str] | None:
    """What tells a process from every other of all machines; None where /proc does not say.

    Machine boot, process id name space, id, and start time in clock ticks since boot (field 22 of
    ``/proc/PID/stat``, see proc_pid_stat(5)).
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = os.readlink("/proc/self/ns/pid")
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = state.rpartition(")")[2].split()  # the name before may hold anything
    return [boot, space, str(pid), "ended" if fields[0] in "ZX" else fields[19]]


def is_dead(identity: object) -> bool:
    """Whether that process ran in this machine's name space and is gone; False if in doubt."""
    here = process_identity(os.getpid())
    if not isinstance(identity, list) or len(identity) != 4 or here is None:
        return False
    if identity[:2] != here[:2] or not str(identity[2]).isdigit():
        return False
    return process_identity(int(identity[2])) != identity
