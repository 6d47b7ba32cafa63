"""Metrics for Prometheus: what runs do, from Prefect's API, and what came of it, from the records.

``python -m flows.exporter`` serves them at ``/metrics``. It watches from outside: a flow that was
killed cannot push a last word, and a run has nothing to wait for. The API is asked at each scrape,
the store every few minutes, because each of its records is read; no volume is opened.
"""

from __future__ import annotations

import argparse
import logging
import math
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkerFilter,
    WorkerFilterStatus,
)
from prefect.client.schemas.objects import FlowRun, StateType, WorkerStatus
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flows.credentials import store_settings
from lib.config.manager import ConfigManager
from lib.errors import MacroscopeError
from lib.geometry import ceil_divide
from lib.records.lifecycle import read_json, section
from lib.records.model import Record
from lib.storage.base import Store
from lib.storage.keys import contents
from lib.storage.open import open_store


@dataclass
class Tally:
    """Numbers of one look at a store.

    Attributes
    ----------
    volumes
        (source, status of the record) to how many.
    failures
        (source, kind of error) to how many records of failed volumes say so.
    stored_bytes, shards, fetched_bytes, requests, seconds
        Source to sums over complete volumes: bytes and finest-level shards in the store; bytes,
        requests and time that it took to make them.
    completed_at
        Source to when its last volume became complete, in seconds since the epoch.
    unreadable
        Records that are not JSON, or cannot be read.
    free_bytes
        Of the destination; None where it does not say (a bucket).
    """

    volumes: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    stored_bytes: Counter[str] = field(default_factory=Counter)
    shards: Counter[str] = field(default_factory=Counter)
    fetched_bytes: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    completed_at: dict[str, float] = field(default_factory=dict)
    unreadable: int = 0
    free_bytes: int | None = None

    def add(self, record: Mapping[str, Any]) -> None:
        """Count one record; what an older one does not say counts as nothing."""
        source, status = str(record.get("source")), str(record.get("status"))
        self.volumes[source, status] += 1
        if status == "failed":
            self.failures[source, str(section(record, "error").get("type") or "unknown")] += 1
        if status != "complete":
            return
        told = Record.read(record)
        technical, made = told.technical, told.provenance
        self.stored_bytes[source] += technical.file_size_bytes or 0
        if told.shape_zyx is not None and technical.shard is not None:  # else it is one file
            self.shards[source] += math.prod(ceil_divide(told.shape_zyx, technical.shard))
        self.fetched_bytes[source] += made.bytes or 0
        self.requests[source] += made.requests if isinstance(made.requests, int) else 0
        self.seconds[source] += round(made.seconds or 0)
        when = _moment(record.get("updated_at"))
        self.completed_at[source] = max(when, self.completed_at.get(source, 0.0))


def tally(store: Store) -> Tally:
    """Count a store; one small read for each of its records.

    Raises
    ------
    MacroscopeError
        The store cannot be listed.
    """
    found = Tally(free_bytes=store.free_bytes())
    for item in contents(store).records:
        try:
            found.add(read_json(store, item.key, item.size))
        except MacroscopeError:
            found.unreadable += 1
    return found


def _moment(text: Any) -> float:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0


_log = logging.getLogger(__name__)

PORT = 9464
STORE_EVERY_S = 300.0
UNFINISHED = [
    StateType.SCHEDULED,
    StateType.PENDING,
    StateType.RUNNING,
    StateType.PAUSED,
    StateType.CANCELLING,
]
ENDED = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED]
_PAGE = 200
_MOST = 2000  # unfinished runs that are looked at
AWAY = (httpx.HTTPError, PrefectHTTPStatusError, OSError)


class PrefectCollector(Collector):
    """Runs, schedules, pool and workers, asked of the API at each scrape."""

    def __init__(self, client: Callable[[], SyncPrefectClient], pool: str) -> None:
        self._client, self._pool = client, pool

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("macroscope_prefect_up", "1 where the Prefect API answers.")
        found: list[Metric] = []
        try:
            with self._client() as client:
                found += self._pools(client)
                found += self._runs(client)
            up.add_metric([], 1)
        except AWAY as error:  # a half would look like a whole
            _log.warning("the Prefect API is away: %s", error)
            found.clear()
            up.add_metric([], 0)
        yield up
        yield from found

    def _pools(self, client: SyncPrefectClient) -> Iterator[Metric]:
        paused = _family(
            "macroscope_work_pool_paused", "1 where no run of the work pool starts.", ["pool"]
        )
        online = _family("macroscope_workers_online", "Workers that poll the work pool.", ["pool"])
        try:
            paused.add_metric([self._pool], client.read_work_pool(self._pool).is_paused)
            wanted = WorkerFilter(status=WorkerFilterStatus(any_=[WorkerStatus.ONLINE]))
            workers = client.read_workers_for_work_pool(self._pool, wanted)
            online.add_metric([self._pool], len(workers))
        except ObjectNotFound:
            online.add_metric([self._pool], 0)
        yield from (paused, online)

    def _runs(self, client: SyncPrefectClient) -> Iterator[Metric]:
        deployments = client.read_deployments(limit=_PAGE)
        names = {str(d.id): f"{client.read_flow(d.flow_id).name}/{d.name}" for d in deployments}
        unfinished = list(_unfinished(client))
        states = Counter(
            (names.get(str(r.deployment_id), ""), r.state_name or "") for r in unfinished
        )
        again = Counter(
            (names.get(str(r.deployment_id), ""),) for r in unfinished if r.run_count > 1
        )
        yield _family(
            "macroscope_flow_runs",
            "Runs that have not ended, by Prefect's name of their state; Scheduled is the queue.",
            ["deployment", "state"],
            states,
        )
        yield _family(
            "macroscope_flow_runs_restarted",
            "Runs that have not ended and began more than once.",
            ["deployment"],
            again,
        )
        ended = CounterMetricFamily(
            "macroscope_flow_runs_ended",
            "Runs that have ended, by how.",
            labels=["deployment", "state"],
        )
        success = _family(
            "macroscope_last_success_timestamp_seconds",
            "When the last run that completed ended.",
            ["deployment", "scheduled"],
        )
        for one in deployments:
            for kind in ENDED:
                count = client.count_flow_runs(
                    deployment_filter=_only(one), flow_run_filter=_in([kind])
                )
                ended.add_metric([names[str(one.id)], kind.value.lower()], count)
            scheduled = str(any(s.active for s in one.schedules) and not one.paused).lower()
            success.add_metric([names[str(one.id)], scheduled], _last_success(client, one))
        yield from (ended, success)


class StoreCollector(Collector):
    """What the records say, as of the last look at the store; looks in a thread of its own."""

    def __init__(self, count: Callable[[], Tally], every_s: float) -> None:
        self._count, self._every_s = count, every_s
        self._last: Tally | None = None
        self._up = False
        self._looked_at = 0.0
        self.stop = threading.Event()

    def watch(self) -> None:
        """Look again and again, until `stop` is set."""
        while True:
            self.look()
            if self.stop.wait(self._every_s):
                return

    def look(self) -> None:
        """Count once; what was counted before stays where the store is away."""
        try:
            self._last, self._up = self._count(), True
            self._looked_at = time.time()
        except (MacroscopeError, OSError) as error:
            _log.warning("the store cannot be counted: %s", error)
            self._up = False

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("macroscope_store_up", "1 where the store could be listed.")
        up.add_metric([], self._up)
        yield up
        if self._last is not None:
            yield from _of_store(self._last, self._looked_at)


def _of_store(found: Tally, looked_at: float) -> Iterator[Metric]:
    yield _gauge("macroscope_store_read_timestamp_seconds", "When it was counted.", looked_at)
    yield _gauge("macroscope_records_unreadable", "Records that are damaged.", found.unreadable)
    if found.free_bytes is not None:
        yield _gauge("macroscope_destination_free_bytes", "Room for volumes.", found.free_bytes)
    yield _family(
        "macroscope_volumes",
        "Volumes by the status of their record.",
        ["source", "status"],
        found.volumes,
    )
    yield _family(
        "macroscope_volume_failures",
        "Failed volumes by the error in their record; archives' are TransportError and the like.",
        ["source", "error"],
        found.failures,
    )
    for name, text, by_source in (
        ("macroscope_stored_bytes", "Bytes of complete volumes.", found.stored_bytes),
        ("macroscope_stored_shards", "Finest-level shards of complete volumes.", found.shards),
        ("macroscope_fetched_bytes", "Bytes fetched to make them.", found.fetched_bytes),
        ("macroscope_archive_requests", "Requests sent to make them.", found.requests),
        ("macroscope_making_seconds", "Time that it took to make them.", found.seconds),
        ("macroscope_last_volume_timestamp_seconds", "The last complete one.", found.completed_at),
    ):
        values = {(source,): value for source, value in by_source.items()}
        yield _family(name, text, ["source"], values)


def _family(
    name: str, text: str, labels: list[str], values: Mapping[Any, float] | None = None
) -> GaugeMetricFamily:
    """A gauge with a value for each combination (a tuple of text) of its labels."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for combination, value in sorted((values or {}).items()):
        family.add_metric(combination, value)
    return family


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _only(one: DeploymentResponse) -> DeploymentFilter:
    return DeploymentFilter(id=DeploymentFilterId(any_=[one.id]))


def _in(kinds: list[StateType]) -> FlowRunFilter:
    return FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=kinds)))


def _unfinished(client: SyncPrefectClient) -> Iterator[FlowRun]:
    for offset in range(0, _MOST, _PAGE):
        page = client.read_flow_runs(
            flow_run_filter=_in(UNFINISHED), limit=_PAGE, offset=offset, sort=FlowRunSort.ID_DESC
        )
        yield from page
        if len(page) < _PAGE:
            return


def _last_success(client: SyncPrefectClient, one: DeploymentResponse) -> float:
    """Seconds since the epoch; of a deployment that never completed, when it was made."""
    found = client.read_flow_runs(
        deployment_filter=_only(one),
        flow_run_filter=_in([StateType.COMPLETED]),
        sort=FlowRunSort.START_TIME_DESC,
        limit=1,
    )
    moment = found[0].end_time if found else one.created
    return moment.timestamp() if moment is not None else 0.0


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the exporter; serves until it is told to end."""
    parser = argparse.ArgumentParser(prog="python -m flows.exporter", description=__doc__)
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--pool", default="macroscope", help="work pool")
    parser.add_argument("--store-seconds", type=float, default=STORE_EVERY_S)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    loaded = ConfigManager().load()
    where = open_store(str(loaded.settings.data_dir), store_settings(loaded))
    store = StoreCollector(lambda: tally(where), args.store_seconds)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(PrefectCollector(lambda: get_client(sync_client=True), args.pool))
    registry.register(store)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: store.stop.set())
    server, thread = start_http_server(args.port, addr=args.host, registry=registry)
    _log.info("metrics at http://%s:%d/metrics", args.host, args.port)
    store.watch()
    server.shutdown()
    thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
