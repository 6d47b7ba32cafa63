"""A request for one volume, and what one process has open for it.

Requests travel to threads, processes and Dask workers on other hosts; each opens for itself what
the request names. Secrets travel inside it in memory only, never in a flow's parameters.

Batches of one volume that run in one process share it, so that a source is opened once, its limits
hold over all of them, and its requests are counted together.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from lib.archives.base import Archive
from lib.archives.registry import archive
from lib.config.loader_base import AddressConfig
from lib.config.loaders import LoaderConfig
from lib.formats.base import VolumeReader
from lib.ingest.coarse import CoarseReader
from lib.ingest.result import ProgressEvent
from lib.plan import EARLIER_POOLING, VolumePlan
from lib.rawfiles.files import RawFiles
from lib.storage.base import Store, StoreSettings
from lib.storage.open import open_store
from lib.transport.environment import ReachPolicy
from lib.transport.limits import Limits
from lib.transport.session import Session
from lib.volumes.job import ENGINE_VERSION

MB = 10**6
_TRIES_WITH_ALTERNATIVE = 3  # where another protocol can serve the same file, patience is wasted


def open_session(config: LoaderConfig, name: str, *, scratch_dir: Path | None) -> Session:
    """A session for the archive `name`, as polite and as patient as `config` says.

    ``max_connections`` and ``requests_per_second`` replace the defaults of every service that the
    archive uses; services that answer metadata (``*-api``) never get more connections than their
    default. Redirects may lead to any host that the settings name.

    Parameters
    ----------
    scratch_dir
        Where readers may put temporary files.

    Raises
    ------
    ConfigError
        There is no archive of this name.
    """
    return Session(
        name,
        limits={
            service: _limits(config, service, recommended)
            for service, recommended in archive(name).services.items()
        },
        allowed_hosts=_hosts(config),
        timeout_seconds=config.timeout_seconds,
        scratch_dir=scratch_dir,
        reach=_reach(config),
        check_etags=config.check_etags,
    )


def _reach(config: LoaderConfig) -> ReachPolicy | None:
    """Where the addresses of a user may lead; archives lead to their own hosts only."""
    if not isinstance(config, AddressConfig):
        return None
    return ReachPolicy(tuple(config.reach_schemes), tuple(config.reach_hosts), config.reach_private)


def _limits(config: LoaderConfig, service: str, limits: Limits) -> Limits:
    if config.max_connections is not None:
        wanted = config.max_connections
        if service.endswith("-api"):
            wanted = min(wanted, limits.connections)
        limits = replace(limits, connections=wanted)
    if config.requests_per_second is not None:
        limits = replace(limits, requests_per_second=config.requests_per_second)
    chunk_mb = getattr(config, "chunk_size_mb", None)
    if chunk_mb is not None:
        limits = replace(limits, range_bytes=max(1, int(chunk_mb * MB)))
    if service == "ebi-ftp" and getattr(config, "protocol", None) == "auto":
        limits = replace(limits, tries=min(limits.tries, _TRIES_WITH_ALTERNATIVE))
    return limits


def _hosts(config: LoaderConfig) -> frozenset[str]:
    """Hosts of all HTTP addresses among the settings."""
    values = (getattr(config, field) for field in type(config).model_fields)
    addresses = (value for value in values if isinstance(value, str) and "://" in value)
    return frozenset(urlsplit(address).hostname or "" for address in addresses) - {""}


_DECIDE_BYTES = ("output_format", "chunk_zyx", "shard_mb", "codec")


@dataclass(frozen=True, slots=True)
class VolumeRequest:
    """Everything needed to make one volume, anywhere."""

    plan: VolumePlan
    config: LoaderConfig
    data_uri: str
    store_settings: StoreSettings
    scratch_dir: Path
    holder: str  # who makes it: flow run, host, process

    @property
    def volume_key(self) -> str:
        """Source and name: what the lock, the record and the log call this volume."""
        return f"{self.plan.source}/{self.plan.name}"

    @property
    def identity(self) -> str:
        """sha256 over what decides the volume's bytes, as far as it is known before a fetch.

        A complete record with the same identity is this volume, made earlier.
        """
        decided = {
            "plan": self.plan.identity(),
            "config": {name: getattr(self.config, name) for name in _DECIDE_BYTES},
            "engine": ENGINE_VERSION,
        }
        return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()

    def making(self, identity: object) -> VolumeRequest | None:
        """This request, or as an earlier version took it, if it makes the volume of an identity.

        A volume that an earlier version completed is complete: its coarse levels hold ids of the
        level above by the rule of then. What is made or gone on with follows today's.
        """
        if identity == self.identity:
            return self
        pooling = self.plan.label_pooling
        if self.plan.kind == "labels" and not pooling.yielding:
            plan = self.plan.model_copy(update={"label_pooling": EARLIER_POOLING})
            earlier = replace(self, plan=plan)
            return earlier if identity == earlier.identity else None
        return None

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that must never be written down."""
        models = (self.config, self.store_settings)
        values = (getattr(model, field) for model in models for field in type(model).model_fields)
        return tuple(v.get_secret_value() for v in values if isinstance(v, SecretStr))


@dataclass(slots=True)
class VolumeContext:
    """Open connections for one request. The reader is opened when first asked for.

    `notes` are doubts that arose on the way, for the volume's record.
    """

    request: VolumeRequest
    archive: Archive
    store: Store
    session: Session
    raw: RawFiles
    _lock: threading.Lock
    _stack: ExitStack
    _reader: VolumeReader | None = None
    _elsewhere: dict[str, tuple[dict[str, int], dict[str, int]]] = field(default_factory=dict)
    _done_shards: int = 0
    _total_shards: int = 0
    _done_of_labels: int = 0
    _more_of_labels: int = 0  # shards of the group's label images beyond one of each
    begun: bool = False  # something is fetched or made here, and not only looked at
    notes: list[str] = field(default_factory=list)

    @property
    def worker(self) -> str:
        """This process, among those of all hosts."""
        return f"{socket.gethostname()}/{os.getpid()}"

    def shards_done(self, total: int, *, known: int | None = None, more: int = 0) -> ProgressEvent:
        """Count finished shards of level 0: those known from the ledger, and more since."""
        with self._lock:
            self._done_shards = (self._done_shards if known is None else known) + more
            self._total_shards = total
        return self.progress_event()

    def labels_done(self, *, found: int = 0, more: int = 0) -> ProgressEvent:
        """Count shards of a group's label images; each counts as one shard until its are known.

        Parameters
        ----------
        found
            Of an image that is begun, all that it has.
        more
            Finished, now or by an earlier run.
        """
        with self._lock:
            self._more_of_labels += max(0, found - 1)
            self._done_of_labels += more
        return self.progress_event()

    def progress_event(self) -> ProgressEvent:
        """How far the volume is, as far as this process knows."""
        with self._lock:
            done, total = self._done_shards, self._total_shards
            if total:
                done += self._done_of_labels
                total += self._more_of_labels + len(self.request.plan.members)
        received, plan = self.own_traffic()["bytes_received"], self.request.plan
        expected = sum(one.download_bytes for one in (plan, *plan.members))
        return ProgressEvent(self.request.volume_key, done, total, received, expected)

    def own_traffic(self) -> dict[str, int]:
        """``requests`` to the archive and ``bytes_received`` from it, by this process."""
        services = self.session.counters.snapshot().values()
        return {
            kind: sum(service[kind] for service in services)
            for kind in ("requests", "bytes_received")
        }

    def note(self, worker: str, traffic: dict[str, int], store_requests: dict[str, int]) -> None:
        """Take in what another process has asked for so far; the latest word of each counts."""
        if worker != self.worker:
            with self._lock:
                self._elsewhere[worker] = (traffic, store_requests)

    def traffic(self) -> dict[str, int]:
        """`own_traffic`, and that of the processes that were noted."""
        return self._sum(self.own_traffic(), 0)

    def store_requests(self) -> dict[str, int]:
        """Requests to the destination by kind, those of the noted processes included."""
        return self._sum(self.store.counts(), 1)

    def _sum(self, own: dict[str, int], which: int) -> dict[str, int]:
        total = Counter(own)
        with self._lock:
            for counts in self._elsewhere.values():
                total.update(counts[which])
        return dict(total)

    def reader(self) -> VolumeReader:
        """The voxels of the plan; raw files must have been fetched."""
        with self._lock:
            if self._reader is None:
                reader = self.archive.open(
                    self.request.plan, self.request.config, self.session, self.raw
                )
                self._reader = self._stack.enter_context(reader)
                if self.request.plan.downsample_steps:
                    self._reader = CoarseReader(self._reader, self.request.plan)
            return self._reader

    def close(self) -> None:
        with self._lock:
            self._reader = None
            self._stack.close()


_open: dict[tuple[str, str, str], VolumeContext] = {}
_open_lock = threading.Lock()


def volume_context(request: VolumeRequest) -> VolumeContext:
    """This process's context of a request; made when first asked for.

    One that an earlier run of the same holder left open, for another plan of the same volume or
    with other settings, is closed: its reader would give the voxels of before.
    """
    key = (request.data_uri, request.volume_key, request.holder)
    with _open_lock:
        context = _open.get(key)
        if context is not None and context.request != request:
            context.close()
            context = None
        if context is None:
            context = _open[key] = _make(request)
        return context


def progress_events() -> list[ProgressEvent]:
    """How far each volume is that this process is making."""
    with _open_lock:
        contexts = [context for context in _open.values() if context.begun]
    return [context.progress_event() for context in contexts]


def close_context(request: VolumeRequest) -> None:
    """Close what this process has open for a request; harmless where nothing is."""
    with _open_lock:
        context = _open.pop((request.data_uri, request.volume_key, request.holder), None)
    if context is not None:
        context.close()


def _make(request: VolumeRequest) -> VolumeContext:
    plan, config = request.plan, request.config
    stack = ExitStack()
    store = open_store(request.data_uri, request.store_settings)
    session = stack.enter_context(
        open_session(config, plan.source, scratch_dir=request.scratch_dir)
    )
    raw = RawFiles(
        store,
        plan.source,
        plan.source_id.replace("/", "_"),
        keep=config.keep_raw,
        scratch_dir=request.scratch_dir,
    )
    return VolumeContext(
        request, archive(plan.source), store, session, raw, threading.Lock(), stack
    )
