"""Volumes in memory: readers, Zarr sources, jobs, and what plain numpy makes of them."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numcodecs
import numpy as np
import tensorstore
import zarr
from numpy.typing import NDArray

from lib.config.loaders import LoaderConfig
from lib.formats.base import Block, Layout, VolumeReader
from lib.formats.zarr.array import parse_array
from lib.formats.zarr.format import ZarrReader
from lib.geometry import Box, LengthsZYX, ShapeZYX
from lib.plan import About, SourceFile, SourceGrid, VolumePlan
from lib.storage.base import Store
from lib.storage.local import LocalStore
from lib.volumes.downsample import make_coarse_levels
from lib.volumes.engine import convert, take_over
from lib.volumes.finish import PublishedVolume, finish
from lib.volumes.job import ConcurrencyLimits, VolumeJob, make_job
from lib.volumes.ledger import Ledger, LedgerEntry

T = TypeVar("T")
Voxels = NDArray[Any]

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
CODECS: dict[str, dict[str, Any] | None] = {
    "zstd": {"id": "zstd", "level": 1},
    "blosc": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0},
    "gzip": {"id": "gzip", "level": 1},
    "zlib": {"id": "zlib", "level": 1},
    "lz4": {"id": "lz4", "acceleration": 1},
    "none": None,
}


def random_voxels(shape: ShapeZYX, dtype: str, seed: int = 0, labels: bool = False) -> Voxels:
    """Every value the dtype has (but no NaN); with `labels` few values, so that they tie."""
    random = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if labels:
        return random.integers(0, 4, shape).astype(kind)
    if kind.kind == "f":
        return (random.standard_normal(shape) * 1000).astype(kind)
    info = np.iinfo(kind)
    return random.integers(info.min, info.max, shape, kind, endpoint=True)


def a_plan(
    shape: ShapeZYX,
    dtype: str = "uint8",
    *,
    kind: str = "image",
    name: str = "volume",
    voxel_nm_zyx: LengthsZYX = (8.0, 8.0, 8.0),
    etag: str = "1",
    reader: dict[str, Any] | None = None,
    **more: Any,
) -> VolumePlan:
    """A plan of `shape`; `more` are further fields."""
    return VolumePlan(
        source="openorganelle",
        source_id="set/volume",
        name=name,
        shape_zyx=shape,
        dtype=dtype,
        voxel_nm_zyx=voxel_nm_zyx,
        voxel_size_provenance="file",
        kind=kind,  # type: ignore[arg-type]
        reader=reader or {},
        files=(SourceFile(url="s3://bucket/set", name="set", etag=etag),),
        about=About(),
        download_bytes=1,
        download_requests=1,
        **more,
    )


class ArrayReader:
    """An array as a reader; `on_block` sees every block before it is given."""

    def __init__(
        self,
        voxels: Voxels,
        chunk_zyx: ShapeZYX = (16, 16, 16),
        *,
        random_access: bool = True,
        on_block: Callable[[Box], None] = lambda box: None,
    ) -> None:
        self.voxels, self.shape_zyx, self.dtype = voxels, voxels.shape, voxels.dtype
        self.layout = Layout(chunk_zyx, random_access=random_access)
        self._on_block = on_block

    def __enter__(self) -> ArrayReader:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def blocks(self, box: Box) -> Iterator[Block]:
        for tile in box.tiles(self.layout.chunk_zyx):
            self._on_block(tile)
            yield Block(tile, self.voxels[tile.slices()])


class MemoryTree:
    """What chunks need of a tree: jobs run one after another, without a network."""

    uri = "memory:"
    listing_proves = True
    range_bytes = 2**20

    def __init__(self, data: dict[str, bytes]) -> None:
        self.data = data
        self.on_get: Callable[[str], None] = lambda key: None

    def get(self, key: str, most: int = 2**30) -> memoryview | None:
        self.on_get(key)
        found = self.data.get(key)
        return None if found is None else memoryview(found)

    def get_range(self, key: str, start: int, length: int) -> memoryview | None:
        found = self.get(key)
        return None if found is None else found[start : start + length]

    def ordered(self, jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
        for job in jobs:
            yield job()


class ZarrSource:
    """A Zarr v2 array in memory, and its readers.

    Parameters
    ----------
    voxels
        Two or three axes.
    chunk
        As many axes as `voxels`.
    holes
        Chunks that are not there, by their index.
    """

    def __init__(
        self,
        voxels: Voxels,
        chunk: tuple[int, ...],
        *,
        codec: str = "zstd",
        order: str = "C",
        separator: str = "/",
        big_endian: bool = False,
        holes: Iterable[tuple[int, ...]] = (),
        fill: int | float = 0,
        box: Box | None = None,
    ) -> None:
        stored = voxels.dtype.newbyteorder(">" if big_endian else "<")
        self.document = {
            "zarr_format": 2,
            "shape": voxels.shape,
            "chunks": chunk,
            "dtype": stored.str,
            "compressor": CODECS[codec],
            "filters": None,
            "order": order,
            "fill_value": fill,
            "dimension_separator": separator,
        }
        self.array = parse_array(json.dumps(self.document).encode(), "s0/.zarray")
        compress = numcodecs.get_codec(CODECS[codec]) if CODECS[codec] else None
        self.truth = np.array(voxels).reshape(self.array.shape_zyx)
        holes = {tuple(hole) for hole in holes}
        self.holes = frozenset((0,) * (3 - len(h)) + h for h in holes)
        data = {}
        grid = [range(-(-n // c)) for n, c in zip(voxels.shape, chunk, strict=True)]
        for index in itertools.product(*grid):
            where = tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, chunk, strict=True))
            if index in holes:
                self.truth.reshape(voxels.shape)[where] = fill
                continue
            whole = np.full(chunk, fill, stored)
            part = voxels[where]
            whole[tuple(slice(0, n) for n in part.shape)] = part
            raw = whole.tobytes(order)  # type: ignore[arg-type]
            if compress is not None and codec == "blosc":
                encoded = bytes(compress.encode(np.frombuffer(raw, stored)))
            else:
                encoded = bytes(compress.encode(raw)) if compress else raw
            data[f"s0/{separator.join(map(str, index))}"] = encoded
        self.objects = MemoryTree(data)
        self.box = box or Box.whole(self.array.shape_zyx)
        self.truth = self.truth[self.box.slices()]

    def reader(self) -> ZarrReader:
        return ZarrReader(
            self.objects,  # type: ignore[arg-type]
            "s0",
            self.array,
            self.box,
            self.holes,
        )

    def plan(self, **more: Any) -> VolumePlan:
        return a_plan(
            self.box.shape_zyx,
            self.array.dtype.name,
            source_grid=SourceGrid.of_box(self.box, self.array.chunk_zyx),
            **more,
        )


def a_job(plan: VolumePlan, reader: VolumeReader, **settings: Any) -> VolumeJob:
    """The job that the settings (of `LoaderConfig`) make of a plan."""
    return make_job(plan, reader, LoaderConfig(**settings))


def make(
    job: VolumeJob,
    reader: VolumeReader,
    store: Store,
    *,
    limits: ConcurrencyLimits | None = None,
    on_shard: Callable[[LedgerEntry], None] = lambda entry: None,
    max_missing_fraction: float | None = 0.0,
    allow_empty: bool = False,
    forget: bool = True,
) -> PublishedVolume:
    """The whole life of a volume, from wherever an earlier run left it."""
    limits = limits or ConcurrencyLimits(workers=2, connections=4, shards=2)
    ledger = Ledger(store, job)
    take_over(job, store)
    pending = ledger.pending(0, job.grid.shards())
    convert(job, reader, store, pending, limits=limits, on_shard=on_shard)
    make_coarse_levels(job, store, limits=limits, on_shard=on_shard)
    finished = finish(
        job, store, max_missing_fraction=max_missing_fraction, allow_empty=allow_empty
    )
    if forget:
        ledger.close()
    return finished


def volume_path(store: LocalStore, job: VolumeJob) -> Path:
    return Path(store.root) / job.final_key


def read_levels(path: Path) -> list[Voxels]:
    """All levels of an OME-Zarr as zarr-python reads them; tensorstore must agree."""
    group = zarr.open_group(path, mode="r")
    levels = []
    for number in range(len(list(group.array_keys()))):
        voxels = group[str(number)][:]
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / str(number))}}
        other = tensorstore.open(spec, open=True).result().read().result()
        np.testing.assert_array_equal(voxels, other)
        assert voxels.dtype == other.dtype
        levels.append(voxels)
    return levels


def assert_pyramid(levels: list[Voxels], job: VolumeJob) -> None:
    """Every level is what numpy makes of the level above it."""
    assert len(levels) == len(job.levels)
    for finer, level, voxels in zip(levels, job.levels[1:], levels[1:], strict=False):
        expected = pooled(finer, level.factor_zyx, labels=job.plan.kind == "labels")
        np.testing.assert_array_equal(voxels, expected)
        assert voxels.dtype == finer.dtype


def pooled(voxels: Voxels, factor: ShapeZYX, *, labels: bool) -> Voxels:
    """Means (integers: half up) or modes (ties: the smallest) of the voxels that exist."""
    corners, present = [], []
    shape = tuple(-(-n // f) for n, f in zip(voxels.shape, factor, strict=True))
    for offset in itertools.product(*(range(f) for f in factor)):
        part = voxels[tuple(slice(o, None, f) for o, f in zip(offset, factor, strict=True))]
        whole, there = np.zeros(shape, voxels.dtype), np.zeros(shape, bool)
        inside = tuple(slice(0, n) for n in part.shape)
        whole[inside], there[inside] = part, True
        corners.append(whole)
        present.append(there)
    values, there = np.stack(corners), np.stack(present)
    if labels:
        votes = (values[:, None] == values[None]) & there[:, None] & there[None]
        counts = np.where(there, votes.sum(axis=1), 0)
        winners = counts == counts.max(axis=0)
        highest = values.max(axis=0)  # among losers too, so never below the winner
        return np.where(winners, values, highest).min(axis=0)
    count = there.sum(axis=0)
    if voxels.dtype.kind == "f":
        total = np.zeros(shape)
        for value, here in zip(values.astype(np.float64), there, strict=True):
            total = np.where(here, total + value, total)
        return (total / count).astype(voxels.dtype)
    exact = values.astype(object) if voxels.dtype.itemsize == 8 else values.astype(np.int64)
    total = np.where(there, exact, 0).sum(axis=0)
    return ((2 * total + count) // (2 * count)).astype(voxels.dtype)


def digests(store: LocalStore, job: VolumeJob) -> str:
    """The published list of digests."""
    return Path(store.root, job.final_key + ".SHA256SUMS").read_text()


class Countdown:
    """Raises at the n-th call."""

    def __init__(self, calls: int, error: BaseException) -> None:
        self._left, self._error, self._lock = calls, error, threading.Lock()

    def __call__(self, *_: object) -> None:
        with self._lock:
            self._left -= 1
            if self._left < 0:
                raise self._error
