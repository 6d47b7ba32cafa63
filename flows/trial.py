"""Start a run of a deployment, and say how it ended or why it cannot start.

``python -m flows.trial`` is what ``helm test`` runs. ``prefect deployment run --watch`` alone would
wait for a paused work pool, or for one that no worker polls, until its time is over.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import WorkerFilter, WorkerFilterStatus
from prefect.client.schemas.objects import State, WorkerStatus
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from lib.errors import ConfigError, MacroscopeError, TransportError

_log = logging.getLogger(__name__)

POLL_S = 1.0


def obstacle(client: SyncPrefectClient, pool: str) -> str | None:
    """Why no run of a work pool can start now, with what to do about it; None where one can."""
    try:
        found = client.read_work_pool(pool)
    except ObjectNotFound:
        return f"there is no work pool {pool!r}: run the registration (python -m flows.register)"
    if found.is_paused:
        return f"work pool {pool!r} is paused: prefect work-pool resume {pool}"
    online = WorkerFilter(status=WorkerFilterStatus(any_=[WorkerStatus.ONLINE]))
    if not found.is_push_pool and not client.read_workers_for_work_pool(pool, online):
        return f"no worker polls work pool {pool!r}: see the logs of the worker"
    return None


def start(
    client: SyncPrefectClient, name: str, parameters: dict[str, Any], patience_s: float
) -> UUID:
    """Start a run, once nothing is in its way.

    Parameters
    ----------
    name
        Deployment, as ``macroscope/full``.
    patience_s
        Seconds that a worker may take to report in.

    Raises
    ------
    ConfigError
        There is no such deployment, or no run of it can start.
    """
    try:
        deployment = client.read_deployment_by_name(name)
    except ObjectNotFound:
        raise ConfigError(
            f"there is no deployment {name!r}", advice="Run python -m flows.register"
        ) from None
    deadline = time.monotonic() + patience_s
    while (why := obstacle(client, str(deployment.work_pool_name))) is not None:
        if "paused" in why or time.monotonic() > deadline:
            raise ConfigError(why, location=name)
        time.sleep(POLL_S)
    run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
    _log.info("started %s: flow run %s", name, run.name)
    return run.id


def follow(client: SyncPrefectClient, run_id: UUID, start_s: float) -> State[Any]:
    """Wait for the end of a run, and return its last state.

    Raises
    ------
    TransportError
        It did not start within ``start_s``; it is cancelled.
    """
    deadline = time.monotonic() + start_s
    seen = None
    while True:
        state = client.read_flow_run(run_id).state
        assert state is not None
        if state.name != seen:
            _log.info("%s %s", state.name, state.message or "")
            seen = state.name
        if state.is_final():
            return state
        if (state.is_scheduled() or state.is_pending()) and time.monotonic() > deadline:
            client.set_flow_run_state(run_id, Cancelling(), force=False)
            raise TransportError(
                f"the run is still {state.name} after {start_s:g} s",
                advice="See the logs of the worker and the namespace's events: no room, no image, "
                "or a pod that is refused",
            )
        time.sleep(POLL_S)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the trial; exit code 0 only for a run that completed."""
    parser = argparse.ArgumentParser(prog="python -m flows.trial", description=__doc__)
    parser.add_argument("deployment", nargs="?", default="macroscope/full")
    parser.add_argument("--parameters", type=json.loads, default={}, metavar="JSON")
    parser.add_argument(
        "--worker-seconds", type=float, default=60, help="for a worker to report in"
    )
    parser.add_argument(
        "--start-seconds", type=float, default=600, help="from asked for to running"
    )
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        with get_client(sync_client=True) as client:
            run_id = start(client, args.deployment, args.parameters, args.worker_seconds)
            state = follow(client, run_id, args.start_seconds)
    except MacroscopeError as error:
        _log.error("%s", error)
        return 1
    return 0 if state.is_completed() else 1


if __name__ == "__main__":
    sys.exit(main())
