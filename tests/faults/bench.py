"""A run of one source without a scheduler, impatient enough for hundreds of cells.

Everything below the flows is the real thing: records, locks, retries of requests, files, stores.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import zarr
from numpy.typing import NDArray

from emulators.serving import Samples
from lib.archives.registry import REGISTRY, archive
from lib.concurrency import cancel as stopping
from lib.config.errors import build
from lib.config.loaders import LOADER_CONFIGS
from lib.errors import MacroscopeError
from lib.ingest import stages
from lib.ingest.context import VolumeRequest
from lib.ingest.life import Batches, OnShare, Steps, make_volume
from lib.ingest.record_tracker import RecordTracker
from lib.ingest.result import VolumeResult
from lib.plan import VolumePlan
from lib.storage.base import Store, StoreSettings
from lib.storage.open import open_store
from lib.verify.volume import examine
from lib.volumes.job import VolumeJob
from lib.volumes.ledger import LedgerEntry

READ_TIMEOUT_S = 10.0
STALLED = {"timeout_seconds": 0.5}  # settings of cells that stall, and nothing else
STALL_S = 1.5  # of a stand-in: longer than the time-out, so that only giving up helps

# Parts of the samples: few files and few tiles, so that a cell takes a fraction of a second.
SMALL: dict[str, dict[str, Any]] = {
    "ebi": {"box": "z=0:3"},
    "flyem": {"crop_size": (70, 60, 50), "crop_origin": (18000, 20000, 20000)},
    "openorganelle": {"shard_mb": 0.6},
}


@dataclass
class Ended:
    """What one run of one source came to."""

    results: list[VolumeResult] = field(default_factory=list)
    plans: list[VolumePlan] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    shards_made: int = 0
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        return bool(self.results) and all(one.status == "complete" for one in self.results)

    @property
    def error(self) -> BaseException:
        return self.errors[0]


@contextmanager
def impatient(*, paced: bool = False) -> Iterator[None]:
    """Short pauses and time-outs; the number of tries and of connections stay.

    Only with `paced` does the recommended number of requests a second.
    """
    with ExitStack() as stack:
        for services in (archive(name).services for name in REGISTRY):
            quick = {
                name: replace(limits, first_backoff_s=0.01, connect_timeout_s=1.0)
                for name, limits in services.items()
            }
            if not paced:
                quick = {n: replace(one, requests_per_second=None) for n, one in quick.items()}
            stack.enter_context(patch.dict(services, quick))
        yield


class Bench:
    """One destination, to which a source can be brought again and again.

    Parameters
    ----------
    uri, store_settings
        The destination; a folder by default.
    """

    def __init__(
        self,
        samples: Samples,
        folder: Path,
        source: str,
        *,
        uri: str | None = None,
        store_settings: StoreSettings | None = None,
        **settings: Any,
    ) -> None:
        self.samples, self.source = samples, source
        self.uri = uri or str(folder / "data")
        self.store_settings = store_settings or StoreSettings(durable=False, attempts=4)
        self.at_end = ExitStack()
        endpoints = samples.endpoints[source.upper()]
        self.settings: dict[str, Any] = {
            "timeout_seconds": READ_TIMEOUT_S, **SMALL.get(source, {}), **endpoints, **settings
        }  # fmt: skip

    def store(self) -> Store:
        return open_store(self.uri, self.store_settings)

    def run(self, *, paced: bool = False, **settings: Any) -> Ended:
        """Plan and make every volume, as a flow run of its own would."""
        ended, began = Ended(), time.monotonic()
        stopping.reset()
        with ExitStack() as stack:
            stack.enter_context(impatient(paced=paced))
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-"))
            stack.enter_context(_noting(ended))
            try:
                config = build(
                    LOADER_CONFIGS[self.source], {**self.settings, **settings}, archive=self.source
                )
                planned = stages.plan_source(self.source, config, Path(scratch), self.store())
                ended.plans = list(planned.plans)
                for plan in ended.plans:
                    request = VolumeRequest(
                        plan, config, self.uri, self.store_settings, Path(scratch), "fault matrix"
                    )
                    steps = Steps(convert=_counting(ended))
                    ended.results.append(make_volume(request, "fault matrix", steps))
            except MacroscopeError as error:
                ended.errors.append(error)
        ended.seconds = time.monotonic() - began
        return ended

    def record(self, plan: VolumePlan) -> dict[str, Any]:
        return json.loads(self.store().get(f"{plan.source}/metadata_{plan.name}.json"))

    def voxels(self, plan: VolumePlan) -> NDArray[Any]:
        """The finest level as Zarr's own library reads it."""
        store, key = self.store(), self.record(plan)["files"]["volume"]
        local = store.local_path(key)
        if local is None:
            with tempfile.TemporaryDirectory() as folder:
                for item in store.list(f"{key}/0"):
                    path = Path(folder, item.key)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(store.get(item.key))
                return np.asarray(zarr.open_array(f"{folder}/{key}/0", mode="r")[:])
        return np.asarray(zarr.open_array(f"{local}/0", mode="r")[:])

    def problems(self, plan: VolumePlan) -> list[str]:
        """What ``macroscope verify`` says of a volume."""
        return examine(self.store(), self.record(plan), deep=True).problems

    def published(self) -> list[str]:
        """Keys of all files of volumes that a reader would find.

        In a bucket a volume is one as soon as its root document is there.
        """
        store = self.store()
        keys = [
            item.key
            for item in store.list(self.source)
            if not _is_hidden(item.key)
            and not item.key.startswith(f"{self.source}/downloads/")
            and not item.key.rpartition("/")[2].startswith("metadata_")
        ]
        if store.local_path(self.source) is not None:
            return keys
        roots = {key.rpartition("/")[0] for key in keys if key.endswith(".ome.zarr/zarr.json")}
        return [key for key in keys if "/".join(key.split("/")[:2]) in roots]


def _counting(ended: Ended) -> Callable[[VolumeRequest, VolumeJob, Batches, OnShare], None]:
    def made(entry: LedgerEntry) -> None:
        ended.shards_made += 1

    def convert(request: VolumeRequest, job: VolumeJob, todo: Batches, on_share: OnShare) -> None:
        for number, units in enumerate(todo, start=1):
            stages.convert_batch(request, job, units, on_shard=made)
            on_share(number / len(todo))

    return convert


def _is_hidden(key: str) -> bool:
    return any(part.startswith((".", "_")) for part in key.split("/")[:-1])


@contextmanager
def _noting(ended: Ended) -> Iterator[None]:
    """Keep the errors themselves; a run's result only holds their words."""
    failed = RecordTracker.failed

    def noted(self: RecordTracker, error: BaseException, seconds: float) -> VolumeResult:
        ended.errors.append(error)
        return failed(self, error, seconds)

    with patch.object(RecordTracker, "failed", noted):
        yield
