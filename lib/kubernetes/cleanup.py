"""Delete what must not outlive its flow: flow Jobs and temporary Dask clusters.

``python -m lib.kubernetes.cleanup all`` empties the namespace before an uninstall, while the
operator is still there to take its finalizer off the clusters. ``... orphans`` deletes clusters
whose flow's Job no longer runs; owner references and ``idleTimeout`` catch most of them sooner.

Needs get, list and delete on jobs and daskclusters, nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import kr8s
from dask_kubernetes.operator._objects import DaskCluster
from kr8s.asyncio.objects import Job

from lib.kubernetes.dask_cluster import FLOW_RUN_LABEL

_log = logging.getLogger(__name__)

FLOW_JOBS = "macroscope/part=flow"  # as in k8s/job-template.json
JOB_LABEL = "prefect.io/flow-run-id"  # Prefect's worker puts it on every flow's Job
CLUSTERS = "app.kubernetes.io/managed-by=macroscope"
RELEASE_LABEL = "app.kubernetes.io/instance"  # the chart's, on every pod
Manifest = dict[str, Any]


def of_release(item: Manifest, release: str | None) -> bool:
    """Whether a Job or Dask cluster is a release's, by the label of its pods.

    Two releases may share a namespace, and neither may end what the other is at. What carries no
    such label, or is asked about for no release, counts as one's own.
    """
    spec = item.get("spec") or {}
    template = spec.get("template") or spec.get("scheduler") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    return release is None or labels.get(RELEASE_LABEL, release) == release


def orphaned_clusters(
    clusters: Iterable[Manifest],
    jobs: Iterable[Manifest],
    *,
    now: datetime,
    grace_seconds: float,
) -> list[str]:
    """Names of the clusters whose flow no longer runs.

    A cluster is an orphan when no Job of its flow run is active, or when it names no flow run,
    in both cases only once it is older than ``grace_seconds``, so that a rescheduled flow has
    time to get its next Job.
    """
    active = {_label(job, JOB_LABEL) for job in jobs if is_active(job)}
    return [
        cluster["metadata"]["name"]
        for cluster in clusters
        if _label(cluster, FLOW_RUN_LABEL) not in active
        and _age_seconds(cluster, now) > grace_seconds
    ]


def is_active(job: Manifest) -> bool:
    """Whether a Job has, or may still get, a running pod."""
    ended = any(
        condition.get("type") in ("Complete", "Failed") and condition.get("status") == "True"
        for condition in job.get("status", {}).get("conditions") or []
    )
    return not ended and "deletionTimestamp" not in job["metadata"]


def seconds_since_end(job: Manifest, now: datetime) -> float:
    """Seconds since a Job ended, by its own conditions; infinite where it does not say."""
    ends = [
        datetime.fromisoformat(condition["lastTransitionTime"])
        for condition in job.get("status", {}).get("conditions") or []
        if condition.get("status") == "True" and condition.get("lastTransitionTime")
    ]
    return min(((now - end).total_seconds() for end in ends), default=float("inf"))


async def list_jobs(namespace: str, release: str | None = None) -> list[Manifest]:
    """The Jobs of a release's flow runs, at work or not."""
    return [job.raw for job in await _list(Job, namespace, FLOW_JOBS, release)]


async def delete_jobs(namespace: str, names: Iterable[str]) -> list[str]:
    """Delete some Jobs of flow runs with their pods, and return the names of those found."""
    wanted = set(names)
    found = [job for job in await _list(Job, namespace, FLOW_JOBS) if job.name in wanted]
    for job in found:
        _log.warning("deleting Job %s: its flow run is over", job.name)
        await _delete(job)
    return [job.name for job in found]


async def delete_orphans(
    namespace: str, *, grace_seconds: float, release: str | None = None
) -> list[str]:
    """Delete a release's orphaned clusters and return their names."""
    clusters = await _list(DaskCluster, namespace, CLUSTERS, release)
    jobs = await _list(Job, namespace, FLOW_JOBS)
    names = orphaned_clusters(
        [cluster.raw for cluster in clusters],
        [job.raw for job in jobs],
        now=datetime.now(UTC),
        grace_seconds=grace_seconds,
    )
    for cluster in clusters:
        if cluster.name in names:
            _log.warning("deleting orphaned Dask cluster %s", cluster.name)
            await _delete(cluster)
    return names


async def delete_all(
    namespace: str, *, wait_seconds: float, release: str | None = None, dask: bool = True
) -> list[str]:
    """Delete every flow Job of a release, then every cluster, and wait until they are gone.

    Parameters
    ----------
    dask
        Whether to look for clusters at all, which wants rights on them.

    Returns
    -------
    list of str
        What was still there at the end: empty when all went well.
    """
    deadline = time.monotonic() + wait_seconds
    remaining: list[str] = []
    kinds: tuple[tuple[Any, str], ...] = ((Job, FLOW_JOBS), (DaskCluster, CLUSTERS))
    for kind, selector in kinds if dask else kinds[:1]:
        while True:
            left = await _list(kind, namespace, selector, release)
            for item in left:
                if "deletionTimestamp" not in item.raw["metadata"]:
                    _log.info("deleting %s %s", item.kind, item.name)
                    await _delete(item)
            if not left or time.monotonic() > deadline:
                remaining += [f"{item.kind}/{item.name}" for item in left]
                break
            await asyncio.sleep(1)
    return remaining


async def _list(kind: Any, namespace: str, selector: str, release: str | None = None) -> list[Any]:
    found = kind.list(namespace=namespace, label_selector=selector)
    try:
        return [item async for item in found if of_release(item.raw, release)]
    except kr8s.ServerError as error:
        if error.response is None or error.response.status_code != 404:
            raise
        return []  # a cluster without Dask's resource definitions has no Dask clusters


async def _delete(item: Any) -> None:
    # In the foreground a Job goes only after its pod, which by then has closed its cluster.
    with suppress(kr8s.NotFoundError):
        await item.delete(propagation_policy="Foreground")


def _label(item: Manifest, key: str) -> str | None:
    labels: dict[str, str] = item["metadata"].get("labels") or {}
    return labels.get(key)


def _age_seconds(item: Manifest, now: datetime) -> float:
    return (now - datetime.fromisoformat(item["metadata"]["creationTimestamp"])).total_seconds()


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the clean-up; exit code 1 when something could not be deleted."""
    parser = argparse.ArgumentParser(prog="python -m lib.kubernetes.cleanup", description=__doc__)
    parser.add_argument("what", choices=("all", "orphans"))
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--release", help="of the chart; else whatever is in the namespace")
    parser.add_argument("--wait-seconds", type=float, default=120, help="for `all`")
    parser.add_argument("--grace-seconds", type=float, default=180, help="for `orphans`")
    parser.add_argument("--without-dask", action="store_true", help="there are no Dask clusters")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if args.what == "orphans":
        orphans = delete_orphans(
            args.namespace, grace_seconds=args.grace_seconds, release=args.release
        )
        deleted = asyncio.run(orphans)
        _log.info("%d orphaned clusters deleted", len(deleted))
        return 0
    everything = delete_all(
        args.namespace,
        wait_seconds=args.wait_seconds,
        release=args.release,
        dask=not args.without_dask,
    )
    left = asyncio.run(everything)
    if left:
        _log.error(
            "still there after %g s: %s. A DaskCluster that hangs on its finalizer needs the "
            "operator, or: kubectl patch daskcluster NAME --type merge "
            '-p \'{"metadata":{"finalizers":null}}\'',
            args.wait_seconds,
            ", ".join(left),
        )
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
