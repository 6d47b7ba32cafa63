"""What is killed: a process that makes every volume of every source, all sources at once.

It runs the life of a volume exactly as the flows do, without their scheduler, and notes each unit
of work in a log as it begins it.
"""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from lib.archives.registry import REGISTRY, archive
from lib.formats.base import VolumeReader
from lib.geometry import Box, ShapeZYX
from lib.ingest.context import VolumeRequest
from lib.ingest.life import make_volume
from lib.ingest.stages import plan_source
from lib.rawfiles.files import RawFiles
from lib.storage.base import StoreSettings
from lib.storage.open import open_store
from lib.volumes import downsample, engine, npyfile
from lib.volumes.job import VolumeJob
from lib.volumes.ledger import Ledger, LedgerEntry
from lib.volumes.shardwriter import ShardWriter

WORKERS = 2
# Small chunks and shards, so that a volume of the samples has dozens of units of work.
SMALL: dict[str, dict[str, Any]] = {
    "ebi": {"chunk_zyx": (4, 16, 32), "shard_mb": 0.008},
    "epfl": {"chunk_zyx": (4, 32, 32), "shard_mb": 0.008},
    "flyem": {
        "crop_size": (96, 80, 72),
        "crop_origin": (18000, 20000, 20000),
        "chunk_zyx": (32, 32, 32),
        "shard_mb": 0.04,
    },
    "idr": {"chunk_zyx": (8, 32, 32), "shard_mb": 0.016},
    "openorganelle": {"shard_mb": 0.6},
}
ARCHIVES = tuple(name for name in REGISTRY if name != "address")  # those that have a stand-in
UNITS_AT_ONCE = WORKERS * len(ARCHIVES)


@dataclass(frozen=True)
class Task:
    """What one attempt is to do, as plain data."""

    endpoints: dict[str, dict[str, str]]
    data_uri: str
    output_format: str
    scratch: str
    log: str
    store: dict[str, Any]
    sources: tuple[str, ...] = ARCHIVES
    name: str = "attempt"
    on_dask: tuple[str, ...] = ()
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)  # by source, beside SMALL's

    def store_settings(self) -> StoreSettings:
        return StoreSettings(**self.store)


def work(task: Task) -> None:
    """Make all volumes of all sources; what went wrong is noted in the log."""
    note = Notes(Path(task.log))
    watch_units(note)
    with ThreadPoolExecutor(len(ARCHIVES)) as pool:
        for _ in pool.map(lambda source: _one_source(source, task, note), task.sources):
            pass


def _one_source(source: str, task: Task, note: Notes) -> None:
    try:
        config = archive(source).config_model(**settings_of(source, task))
        scratch = Path(task.scratch) / source
        scratch.mkdir(parents=True)
        settings = task.store_settings()
        store = open_store(task.data_uri, settings)
        for plan in plan_source(source, config, scratch, store).plans:
            request = VolumeRequest(plan, config, task.data_uri, settings, scratch, task.name)
            result = make_volume(request, task.name)
            if result.error:
                note("error", f"{source}: {result.error}")
    except Exception as error:
        note("error", f"{source}: {type(error).__name__}: {error}")


def settings_of(source: str, task: Task) -> dict[str, Any]:
    """The settings of a loader for a task."""
    return {
        **task.endpoints[source.upper()],
        **SMALL.get(source, {}),
        **task.settings.get(source, {}),
        "output_format": task.output_format,
        "max_workers": WORKERS,
        "requests_per_second": 1000.0,
    }


END = '"]'
"""Of a whole note."""


class Notes:
    """One line for each event, in the kernel's hands before anything else happens."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __call__(self, kind: str, what: str) -> None:
        os.write(self._fd, f"\n{json.dumps([kind, what])}".encode())


def unit_name(volume: str, level: int, index_zyx: ShapeZYX) -> str:
    """``ebi/x 0 1.0.2``: as the ledger numbers its entries."""
    return f"{volume} {level} {'.'.join(map(str, index_zyx))}"


def watch_units(note: Notes) -> None:
    """Note every shard, npy unit and raw file that is begun or remembered."""

    def begun(job: VolumeJob, level: int, index: ShapeZYX) -> None:
        note("unit", unit_name(f"{job.plan.source}/{job.plan.name}", level, index))

    add = Ledger.add
    make_writer, make_coarse = ShardWriter.__init__, downsample._make_shard
    remember = RawFiles.remember

    def new_writer(self: Any, job: VolumeJob, store: Any, index_zyx: ShapeZYX) -> None:
        begun(job, 0, index_zyx)
        make_writer(self, job, store, index_zyx)

    def new_convert_npy(job: VolumeJob, reader: VolumeReader, *args: Any, **more: Any) -> None:
        npyfile.convert_npy(job, cast(VolumeReader, Watched(job, reader)), *args, **more)

    class Watched:
        """A reader whose boxes are the units of an npy file."""

        def __init__(self, job: VolumeJob, reader: VolumeReader) -> None:
            self._job, self._reader = job, reader

        def __getattr__(self, name: str) -> Any:
            return getattr(self._reader, name)

        def blocks(self, box: Box) -> Any:
            z, y, x = map(operator.floordiv, box.start_zyx, self._job.grid.shard_zyx)
            begun(self._job, 0, (z, y, x))
            return self._reader.blocks(box)

    def new_coarse(job: Any, store: Any, level: Any, finer: Any, index: Any) -> Any:
        begun(job, level.index, index)
        return make_coarse(job, store, level, finer, index)

    def new_remember(self: RawFiles, file: Any, *args: Any, **more: Any) -> Any:
        fetched = remember(self, file, *args, **more)
        note("file", self.key(file))
        return fetched

    def new_add(self: Ledger, entry: LedgerEntry) -> None:
        add(self, entry)
        job: VolumeJob = self._job
        volume = f"{job.plan.source}/{job.plan.name}"
        note("done", unit_name(volume, entry.level, entry.index_zyx))

    _replace(Ledger, "add", new_add)
    _replace(ShardWriter, "__init__", new_writer)
    _replace(engine, "convert_npy", new_convert_npy)
    _replace(downsample, "_make_shard", new_coarse)
    _replace(RawFiles, "remember", new_remember)


def _replace(owner: Any, name: str, function: Callable[..., Any]) -> None:
    setattr(owner, name, function)
