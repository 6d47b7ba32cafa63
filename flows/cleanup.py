"""Tidy up what Prefect and Kubernetes no longer agree on: ``python -m flows.cleanup``.

Run every few minutes, by the chart's CronJob and not by a worker, because a worker that is down is
what leaves most of it behind:

- flow runs that Prefect holds for Running or Pending while Kubernetes has nothing left of them
  become Crashed; those that were being cancelled become Cancelled;
- Jobs that still run although their flow run has ended, or was cancelled, are deleted;
- Dask clusters whose flow is over are deleted (`lib.kubernetes.cleanup`).

Each only after a grace, so that a flow that is being rescheduled is left alone.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed

from lib.kubernetes import cleanup
from lib.kubernetes.cleanup import JOB_LABEL, Manifest, is_active, seconds_since_end

_log = logging.getLogger(__name__)

UNFINISHED = (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)


def verdict(
    run: FlowRun, jobs: Iterable[Manifest], *, now: datetime, grace_seconds: float
) -> State[Any] | None:
    """The state that a flow run should have, or None where the one it has may be right.

    Parameters
    ----------
    run
        A flow run of the Kubernetes work pool.
    jobs
        The Jobs that carry its id, whatever became of them.
    """
    state = run.state
    if state is None or state.type not in UNFINISHED:
        return None
    jobs = list(jobs)
    if any(is_active(job) for job in jobs):
        return None
    ages = [(now - state.timestamp).total_seconds(), *(seconds_since_end(j, now) for j in jobs)]
    if min(ages) < grace_seconds:
        return None
    if state.is_cancelling():
        return Cancelled(message="Cancelled: its Job is gone")
    return Crashed(message="Its Job is gone, and it did not say how it ended; run it again")


def abandoned_jobs(
    jobs: Iterable[Manifest],
    states: Mapping[str, State[Any] | None],
    *,
    now: datetime,
    grace_seconds: float,
) -> list[str]:
    """Names of the Jobs that still run although their flow run has ended, or is to, or is no more.

    Parameters
    ----------
    states
        Flow run id to its state; None where Prefect does not know the run.
    """
    found = []
    for job in jobs:
        run_id = _run_id(job)
        if run_id is None or run_id not in states or not is_active(job):
            continue
        state = states[run_id]
        made = datetime.fromisoformat(job["metadata"]["creationTimestamp"])
        since = made if state is None else max(made, state.timestamp)
        # Cancelling: what listens for it beside the flow gives up where the server was away
        over = state is None or state.is_final() or state.is_cancelling()
        if over and (now - since).total_seconds() >= grace_seconds:
            found.append(str(job["metadata"]["name"]))
    return found


def clean_up(
    client: SyncPrefectClient,
    namespace: str,
    pool: str,
    *,
    grace_seconds: float,
    release: str | None = None,
    dask: bool = True,
) -> int:
    """Do all three; returns how many runs, Jobs and clusters were put right.

    Jobs and clusters of another release are left alone: this server knows nothing of their runs.

    The runs are listed before the Jobs: a run that was at work at the first listing had its Job
    then, so a Job that is missing at the second has ended, and the run with it.
    """
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(UNFINISHED)))
        ),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
    )
    jobs = asyncio.run(cleanup.list_jobs(namespace, release))
    now = datetime.now(UTC)
    count = 0
    for run in runs:
        mine = [job for job in jobs if _run_id(job) == str(run.id)]
        state = verdict(run, mine, now=now, grace_seconds=grace_seconds)
        if state is not None and _unchanged(client, run):
            _log.warning("flow run %s was %s: now %s", run.name, run.state_name, state.name)
            client.set_flow_run_state(run.id, state, force=True)
            count += 1
    active = [job for job in jobs if is_active(job)]
    ids = {run_id for job in active if (run_id := _run_id(job))}
    states = {run_id: _state(client, run_id) for run_id in ids}
    names = abandoned_jobs(active, states, now=now, grace_seconds=grace_seconds)
    count += len(asyncio.run(cleanup.delete_jobs(namespace, names)))
    if not dask:
        return count
    orphans = cleanup.delete_orphans(namespace, grace_seconds=grace_seconds, release=release)
    return count + len(asyncio.run(orphans))


def _unchanged(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Whether a run is still in the state that was judged."""
    now = client.read_flow_run(run.id).state
    return now is not None and run.state is not None and now.id == run.state.id


def _run_id(job: Manifest) -> str | None:
    labels: dict[str, str] = job["metadata"].get("labels") or {}
    return labels.get(JOB_LABEL)


def _state(client: SyncPrefectClient, run_id: str) -> State[Any] | None:
    try:
        return client.read_flow_run(UUID(run_id)).state
    except ObjectNotFound:
        return None


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the clean-up; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m flows.cleanup", description=__doc__)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--pool", default="macroscope", help="work pool")
    parser.add_argument("--release", help="of the chart; else whatever is in the namespace")
    parser.add_argument("--grace-seconds", type=float, default=180)
    parser.add_argument("--without-dask", action="store_true", help="there are no Dask clusters")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    grace, release = args.grace_seconds, args.release
    with get_client(sync_client=True) as client:
        if (away := client.api_healthcheck()) is None:
            count = clean_up(
                client,
                args.namespace,
                args.pool,
                grace_seconds=grace,
                release=release,
                dask=not args.without_dask,
            )
            _log.info("%d runs, Jobs and clusters put right", count)
            return 0
    # the next turn comes by itself, and a pod in Error would say that something is to be done
    _log.warning("the Prefect API is away, runs are left for the next turn: %s", away)
    if args.without_dask:
        return 0
    orphans = cleanup.delete_orphans(args.namespace, grace_seconds=grace, release=release)
    names = asyncio.run(orphans)
    _log.info("%d clusters deleted", len(names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
