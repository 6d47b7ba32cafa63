"""Running a mode: start what may start, wait, start what then may, until all have ended.

One source failing does not stop the others. Every source's start and end are recorded, so that the
order and the overlap can be proven afterwards.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

from lib.concurrency import cancel as stopping
from lib.execution import Step, ready

T = TypeVar("T")

STAGGER_S = 0.3
"""Flow runs that start in the same instant meet Prefect's SQLite "database is locked" and back off
for seconds; started this far apart they do not."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """How one source ended: a result or an error, and when (seconds since the epoch)."""

    source: str
    started: float
    ended: float
    result: T | None = None
    error: BaseException | None = None


def run_schedule(
    steps: Iterable[Step], start: Callable[[str], T], *, workers: int
) -> list[Outcome[T]]:
    """Call `start` for each source when those it waits for have ended, well or not.

    Calls run in threads that carry this thread's context, so that flow runs become children.

    Parameters
    ----------
    workers
        Sources at once, at most.

    Returns
    -------
    list of Outcome
        One for each source, in the order in which they ended.
    """
    steps = tuple(steps)
    outcomes: list[Outcome[T]] = []
    running: dict[Future[Outcome[T]], str] = {}

    def one(source: str) -> Outcome[T]:
        began = time.time()
        try:
            result = start(source)
            return Outcome(source, began, time.time(), result=result)
        except BaseException as error:
            return Outcome(source, began, time.time(), error=error)

    with ThreadPoolExecutor(workers, thread_name_prefix="source") as pool:
        try:
            while len(outcomes) < len(steps):
                finished = {outcome.source for outcome in outcomes}
                for source in ready(steps, finished, set(running.values())):
                    if len(running) >= workers:
                        break
                    stopping.check()
                    running[pool.submit(contextvars.copy_context().run, one, source)] = source
                    time.sleep(STAGGER_S)
                done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    running.pop(future)
                    outcomes.append(future.result())
        except BaseException:
            # a cancel or a signal: loaders see the request between units of work and end
            stopping.request_stop()
            raise
    return outcomes
