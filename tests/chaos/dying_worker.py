"""Preloaded into the Dask workers of a run: it notes their units, and lets them die.

Dask imports it because DASK_DISTRIBUTED__WORKER__PRELOAD names it; the run knows nothing of it.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from distributed import Worker
from distributed.chaos import KillWorker

from tests.chaos.flow_run import task_of_environment
from tests.chaos.worker import Notes, watch_units

LIFE_S = "CHAOS_WORKER_LIFE_S"
"""How long a worker lives, on average."""
KILLS = "CHAOS_WORKER_KILLS"
"""How many may die, all workers of a run together."""


class Killer(KillWorker):
    """distributed's own chaos plugin, which notes what it does and ends after enough kills."""

    def __init__(self, note: Notes, folder: Path, kills: int, **given: Any) -> None:
        super().__init__(**given)
        self._note, self._folder, self._kills = note, folder, kills

    def sys_exit(self) -> None:
        if self._may():
            super().sys_exit()

    def segfault(self) -> None:
        if self._may():
            super().segfault()

    def _may(self) -> bool:
        """Take one of the kills that are left."""
        for number in range(self._kills):
            try:
                (self._folder / str(number)).touch(exist_ok=False)
            except FileExistsError:
                continue
            at_work = bool(self.worker.state.executing)
            self._note("kill", "at work" if at_work else "idle")
            return True
        return False


async def dask_setup(worker: Worker) -> None:
    """Arm the plugin."""
    task = task_of_environment()
    note = Notes(Path(task.log))
    watch_units(note)
    folder = Path(task.scratch) / "kills"
    folder.mkdir(parents=True, exist_ok=True)
    mode: Any = random.choice(("sys.exit", "segfault"))
    killer = Killer(
        note, folder, int(os.environ[KILLS]), delay=f"{os.environ[LIFE_S]} s", mode=mode
    )
    await worker.plugin_add(killer, name="chaos")
