"""A volume on paper: its plan, its grid, its codec, and where it goes.

A job is plain JSON. It can be sent to another host, and its fingerprint tells whether what lies
half-made in the store belongs to it. Its codec is said in the words of Zarr v2 (numcodecs) and of
Zarr v3 (codec lists).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, Field

from lib.compression import DEFLATED, in_zarr_v3
from lib.config.loaders import LoaderConfig
from lib.errors import ConfigError, UnsupportedFormatError
from lib.formats.base import ChunkReader, Layout, VolumeReader
from lib.geometry import Box, ShapeZYX, multiply, zyx
from lib.plan import EARLIER_POOLING, FrozenModel, VolumePlan
from lib.storage.keys import labels_of, state_key
from lib.volumes.grid import Level, ShardGrid, plan_levels

_BLOSC_SHUFFLE = {-1: "shuffle", 0: "noshuffle", 1: "shuffle", 2: "bitshuffle"}
_SHUFFLE_NUMBER = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


def named_codec(name: str, dtype: np.dtype[Any], *, labels: bool = False) -> dict[str, Any]:
    """The codec behind the setting ``codec``: ``auto``, ``source``, ``zstd``, ``blosc``, ``none``.

    ``source`` is ``auto`` where the source's own cannot stay. ``auto`` is zstd-1 for bytes and
    blosc-zstd-1 with shuffle for wider numbers. Measured on EM images: zstd-3 costs six times the
    CPU of zstd-1 for 2 % of size; shuffling brings 16-bit data from a ratio of 1.12 to 1.35. Labels
    get zstd-1 whatever their width: on a segmentation of 500 warped cells, uint64, it gave a ratio
    of 60 at 2.3 GB/s, where blosc with shuffle gave 16 at 0.7 (uint32 36 against 30, uint16 21
    against 16); zstd-5 costs three times the CPU for 10 %.
    """
    name = "auto" if name == "source" else name
    if name == "none":
        return {}
    if name == "zstd" or (name == "auto" and (dtype.itemsize == 1 or labels)):
        return {"id": "zstd", "level": 1}
    if name in ("blosc", "auto"):
        return in_large_blocks({"id": "blosc", "cname": "zstd", "clevel": 1, "shuffle": 1})
    raise ConfigError(
        f"codec {name!r} is not one of auto, source, zstd, blosc, none", location="codec"
    )


_BLOSC_BLOCK = 2**19


def in_large_blocks(config: dict[str, Any]) -> dict[str, Any]:
    """A codec that cuts what it encodes into blocks of 512 KiB where it is Blosc's choice.

    With zstd at level 1 that is 32 KiB, in which little repeats. Measured on images of 128^3
    voxels, 16 to 32 bits, with 512 KiB: encoded in 0.6 to 0.7 of the time, decoded in 0.5 to 0.75
    of it, and 6 to 24 % smaller. Decoders take blocks as they come.
    """
    by_zstd = config.get("id") == "blosc" and config.get("cname") == "zstd"
    return {**config, "blocksize": config.get("blocksize") or _BLOSC_BLOCK} if by_zstd else config


def zarr_v3_codecs(config: dict[str, Any], dtype: np.dtype[Any]) -> list[dict[str, Any]]:
    """The inner codec list of a Zarr v3 array: bytes, then the compressor."""
    codecs: list[dict[str, Any]] = [
        {"name": "bytes", "configuration": {"endian": "little"}}
        if dtype.itemsize > 1
        else {"name": "bytes"}
    ]
    kind = config.get("id")
    if kind == "zstd":
        codecs.append(
            {"name": "zstd", "configuration": {"level": config.get("level", 0), "checksum": False}}
        )
    elif kind == "gzip":
        codecs.append({"name": "gzip", "configuration": {"level": config.get("level", 1)}})
    elif kind == "blosc":
        codecs.append(
            {
                "name": "blosc",
                "configuration": {
                    "cname": config.get("cname", "lz4"),
                    "clevel": config.get("clevel", 5),
                    "shuffle": _BLOSC_SHUFFLE[config.get("shuffle", 1)],
                    "typesize": dtype.itemsize,
                    "blocksize": config.get("blocksize", 0),
                },
            }
        )
    elif kind is not None:
        raise ConfigError(f"codec {kind!r} has no Zarr v3 form here", location="codec")
    return codecs


def numcodecs_config(codecs: list[dict[str, Any]]) -> dict[str, Any]:
    """The inverse of `zarr_v3_codecs`: the compressor as numcodecs names it; {} for none.

    Raises
    ------
    UnsupportedFormatError
        It is not one that a volume of ours has.
    """
    for codec in codecs:
        name, options = codec["name"], dict(codec.get("configuration", {}))
        if name == "blosc":
            options["shuffle"] = _SHUFFLE_NUMBER[options["shuffle"]]
            return {"id": "blosc", **{k: v for k, v in options.items() if k != "typesize"}}
        if name in ("zstd", "gzip"):
            return {"id": name, "level": options["level"]}
        if name not in ("bytes", "crc32c"):
            raise UnsupportedFormatError(f"the codec {name} is not one of macroscope's", advice="")
    return {}


SHARD_BYTES = 64 * 2**20
"""Raw bytes of a shard, about: two in flight, their compressed form and their half-size levels
stay below 300 MB."""

CHUNK = 64
ENGINE_VERSION = 1
"""Raised whenever the same input would give other bytes: older halves are then discarded."""


class VolumeJob(FrozenModel):
    """Everything that decides the bytes of one volume."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    plan: VolumePlan
    output_format: Literal["zarr", "npy"]
    chunk_zyx: ShapeZYX
    shard_zyx: ShapeZYX
    codec: dict[str, Any]
    by_chunk: bool = False  # its chunks are the source's, one for one
    pass_through: bool = False  # and stay compressed as they are
    fill_value: int | float = 0
    downsampled: int = 0  # levels left out at the fine end
    engine_version: int = Field(default=ENGINE_VERSION)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.plan.dtype)

    @property
    def final_key(self) -> str:
        """The volume's own key, for example ``ebi/EMPIAR-11759.ome.zarr``.

        Labels of an image lie in its group ``labels``, as NGFF has it.
        """
        if self.output_format == "npy":
            return f"{self.plan.source}/{self.plan.name}.npy"
        folder = labels_of(self.plan.within) if self.plan.within else self.plan.source
        return f"{folder}/{self.plan.name}.ome.zarr"

    @property
    def state_key(self) -> str:
        """The folder of the ledger of this volume while it is being made."""
        return state_key(f"{self.plan.source}/{self.plan.name}")

    @cached_property
    def grid(self) -> ShardGrid:
        return ShardGrid(self.plan.shape_zyx, self.chunk_zyx, self.shard_zyx)

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """The pyramid; only level 0 for npy."""
        levels = plan_levels(self.grid, self.plan.voxel_nm_zyx, self.plan.origin_nm_zyx)
        return levels if self.output_format == "zarr" else levels[:1]

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over everything that decides the bytes, the source's identity included."""
        identity = self.model_dump(mode="json", exclude={"plan"}) | {"plan": self.plan.identity()}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def box_of(self, shard_index: ShapeZYX) -> Box:
        return self.grid.shard_box(shard_index)


def make_job(plan: VolumePlan, reader: VolumeReader, config: LoaderConfig) -> VolumeJob:
    """Fit chunk, shard and codec to how the source stores its voxels.

    Raises
    ------
    ConfigError
        A chosen chunk or codec does not fit.
    """
    chunks = reader if isinstance(reader, ChunkReader) else None
    return fit_job(plan, reader.layout, config, chunks)


def fit_job(
    plan: VolumePlan, layout: Layout, config: LoaderConfig, chunks: ChunkReader | None = None
) -> VolumeJob:
    """The same from the layout alone, for a source that is not open.

    Parameters
    ----------
    chunks
        A source of chunks, which may pass through, or be encoded anew one by one.

    Raises
    ------
    ConfigError
        A chosen chunk or codec does not fit.
    """
    dtype = np.dtype(plan.dtype)
    # volumes of before keep the codec that they were made with, should they be repaired
    labels = plan.labels not in (None, EARLIER_POOLING)
    codec, chunk = named_codec(config.codec, dtype, labels=labels), config.chunk_zyx
    ours = chunks if chunks and chunks.aligned and config.output_format == "zarr" else None
    # chunks that decode far slower than what they could be encoded to are not kept by themselves
    keep = "source" if ours and ours.codec.config.get("id") in DEFLATED else "auto"
    through = bool(
        ours
        and ours.pass_through
        and config.chunk_zyx in (None, ours.chunk_zyx)
        and config.codec in ("source", keep)
    )
    if ours and through:
        codec, chunk = in_large_blocks(in_zarr_v3(ours.codec.config)), ours.chunk_zyx
    elif ours and chunk is None and _is_usable(ours.chunk_zyx, plan.shape_zyx, dtype):
        chunk = ours.chunk_zyx
    chunk = chunk or _default_chunk(plan.shape_zyx, dtype, layout)
    budget = int(config.shard_mb * 10**6) if config.shard_mb else SHARD_BYTES
    shard = (
        _npy_unit(plan.shape_zyx, chunk, dtype, budget)
        if config.output_format == "npy"
        else _shard(plan.shape_zyx, chunk, dtype, layout, budget)
    )
    return VolumeJob(
        plan=plan.alone,
        output_format=config.output_format,
        chunk_zyx=chunk,
        shard_zyx=shard,
        codec=codec,
        by_chunk=bool(ours and chunk == ours.chunk_zyx),
        pass_through=through,
        fill_value=0 if chunks is None else chunks.fill_value,
    )


def _is_usable(chunk: ShapeZYX, shape: ShapeZYX, dtype: np.dtype[Any]) -> bool:
    """Whether a source's chunk is one that we would choose: not thin, tiny or huge, and even."""
    thick = all(c >= n or (c >= 16 and c % 2 == 0) for c, n in zip(chunk, shape, strict=True))
    return thick and 2**15 <= math.prod(chunk) * dtype.itemsize <= 2**23


def _default_chunk(shape: ShapeZYX, dtype: np.dtype[Any], layout: Layout) -> ShapeZYX:
    """64 voxels an axis, fewer along z where whole planes must be held to fill a chunk."""
    z, y, x = (min(CHUNK, n if n == 1 else n + n % 2) for n in shape)
    if layout.by_planes or not layout.random_access:
        width = dtype.itemsize * shape[2] * y  # y chunk rows of the plane, at the least
        while z > 16 and z * width > SHARD_BYTES:
            z //= 2
        while z > 16 and z * dtype.itemsize * shape[1] * shape[2] > 2 * SHARD_BYTES:
            z //= 2
    return _widened((z, y, x), shape, dtype)


def _widened(chunk: ShapeZYX, shape: ShapeZYX, dtype: np.dtype[Any]) -> ShapeZYX:
    """A thin chunk made wider, x first, up to the voxels of a cube.

    Small chunks cost: each has its place in the index, its call of the codec, its request later.
    """
    z, y, x = chunk
    while 2 * z * y * x <= CHUNK**3:
        if x <= y and 2 * x <= shape[2]:
            x *= 2
        elif 2 * y <= shape[1] and 2 * y * z * shape[2] * dtype.itemsize <= SHARD_BYTES:
            y *= 2
        else:
            break
    return (z, y, x)


def _shard(
    shape: ShapeZYX, chunk: ShapeZYX, dtype: np.dtype[Any], layout: Layout, budget: int
) -> ShapeZYX:
    """Chunks doubled along the shorter axes first, up to the budget and the volume.

    A source that is read by whole planes gets shards as wide as its planes, so that no byte is
    fetched twice.
    """
    cells = [1, 1, 1]
    # powers of two
    limit = [1 << (math.ceil(n / c) - 1).bit_length() for n, c in zip(shape, chunk, strict=True)]
    chunk_bytes = math.prod(chunk) * dtype.itemsize
    if layout.max_tile_zyx:
        limit = [
            min(n, max(1, t // c))
            for n, t, c in zip(limit, layout.max_tile_zyx, chunk, strict=True)
        ]
    order = [0, 1, 2]
    if layout.by_planes or not layout.random_access:
        cells[2], order = math.ceil(shape[2] / chunk[2] / 2) * 2, [1]
        limit[1] = math.ceil(shape[1] / chunk[1] / 2) * 2
        if limit[1] * cells[2] * chunk_bytes <= 2 * budget:
            return (chunk[0], chunk[1] * limit[1], chunk[2] * cells[2])
    while True:
        growable = [a for a in order if cells[a] < limit[a]]
        if not growable or math.prod(cells) * chunk_bytes * 2 > budget:
            return multiply(chunk, zyx(cells))
        axis = max(growable, key=lambda a: (-cells[a] * chunk[a], a))
        cells[axis] = min(2 * cells[axis], limit[axis])


def _npy_unit(shape: ShapeZYX, chunk: ShapeZYX, dtype: np.dtype[Any], budget: int) -> ShapeZYX:
    """Rows as wide as the volume: each plane of a shard is one contiguous run of the file."""
    width = math.ceil(shape[2] / chunk[2]) * chunk[2]
    layer = chunk[0] * chunk[1] * width * dtype.itemsize
    rows = min(max(1, budget // layer), math.ceil(shape[1] / chunk[1]))
    slabs = 1
    if rows == math.ceil(shape[1] / chunk[1]):
        slabs = min(max(1, budget // (layer * rows)), math.ceil(shape[0] / chunk[0]))
    return (chunk[0] * slabs, chunk[1] * rows, width)


@dataclass(frozen=True, slots=True)
class ConcurrencyLimits:
    """Bounds of one batch of shards.

    Attributes
    ----------
    workers
        Threads that compute (encode, pool, count).
    connections
        Requests in flight, where the source is read chunk by chunk.
    shards
        Shards in flight; where a source gives blocks, those that are read, and one more is
        encoded meanwhile; where it gives chunks, one more is begun while the last of them travel.
    idle
        Whether some of the connections have nothing to bring at the moment; see `InOrderGate`.
    """

    workers: int = 2
    connections: int = 16
    shards: int = 2
    idle: Callable[[], bool] | None = None
