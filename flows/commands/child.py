"""One run in a process of its own, for `macroscope.ingest`.

Standard input brings one line of JSON: what to run. It stays open as long as the caller wants the
run; its end ends the run. Standard output takes lines of JSON: ``{"progress": {...}}`` any number
of times, then ``{"results": [...], "report": ..., "failed": null}`` or ``{"error": {...}}``.
Whatever else is printed goes to standard error.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import IO, Any

from flows import prepare
from flows.commands.options import Wanted, ended_by_signals, stand_ins, take
from flows.commands.run import newest_report, run_flow
from lib.config.manager import ConfigManager
from lib.errors import MacroscopeError, StoppedError
from lib.ingest.context import progress_events
from lib.ingest.result import ProgressEvent, subscribe

_EVERY_S = 0.5
_GRACE_S = 60.0

Tell = Callable[[dict[str, Any]], None]


def main() -> int:
    """Read the request, run it, answer; returns the exit code."""
    requests, answers = os.fdopen(os.dup(0), "rb", 0), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what anybody prints is no answer
    request = json.loads(requests.readline())
    threading.Thread(target=_follow, args=(requests,), daemon=True).start()
    writing = threading.Lock()

    def tell(document: dict[str, Any]) -> None:
        with writing:
            answers.write(json.dumps(document) + "\n")
            answers.flush()

    try:
        answer = run(request, tell)
    except MacroscopeError as error:
        kind = type(error)
        told = {**error.as_record(), "class": f"{kind.__module__}.{kind.__qualname__}"}
        answer = {"error": told}
    except BrokenPipeError:
        return 1
    tell(answer)
    return 0


def run(request: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Run what is asked for.

    Raises
    ------
    MacroscopeError
        Nothing was begun, or the run was stopped.
    """
    taken = take(Wanted(**request))
    prepare()

    def listener(event: ProgressEvent) -> None:
        with suppress(BrokenPipeError):  # the caller is gone, and the run about to stop
            tell({"progress": asdict(event)})

    try:
        with (
            ended_by_signals(),
            stand_ins(taken.loaded),
            subscribe(listener, progress_events, every_s=_EVERY_S),
        ):
            state = run_flow(taken)
    except KeyboardInterrupt:
        raise StoppedError("the run was stopped") from None
    from flows.calling import returned

    results = returned(state)
    if not isinstance(results, list):
        if isinstance(results, MacroscopeError):
            raise results
        raise MacroscopeError(f"the run ended as {state.name}: {state.message}")
    succeeded = state.is_completed() and all(result.success for result in results)
    return {
        "results": [result.model_dump(mode="json") for result in results],
        "report": newest_report(ConfigManager().load()),
        "failed": None if succeeded else state.message,
    }


def _follow(requests: IO[bytes]) -> None:
    """End with the caller, who has closed the other end of the pipe, or died."""
    while requests.read(1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
