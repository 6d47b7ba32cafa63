"""The ``info`` of a Neuroglancer precomputed volume.

neuroglancer ``src/datasource/precomputed/volume.rst``. Every list is x, y, z; resolutions are
nanometres; a voxel's position is its lower corner.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.precomputed.shards import ShardingSpec, parse_sharding
from lib.geometry import LengthsZYX, ShapeZYX, minimum, multiply, subtract
from lib.safety import json_object, reading

_DTYPES = {"uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32"}
ENCODINGS = ("raw", "jpeg", "jxl", "png", "compressed_segmentation")
MAX_CHUNK_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class Scale:
    """One scale, in z, y, x.

    Attributes
    ----------
    offset_zyx
        Position of the first voxel, in this scale's voxels.
    block_zyx
        Of compressed_segmentation; else None.
    """

    key: str
    size_zyx: ShapeZYX
    offset_zyx: ShapeZYX
    resolution_zyx: LengthsZYX
    chunk_zyx: ShapeZYX
    encoding: str
    block_zyx: ShapeZYX | None
    sharding: ShardingSpec | None
    copies: int  # how many chunk shapes, each a full copy of the data, there are

    def chunk_name(self, index_zyx: ShapeZYX) -> str:
        """Name of an unsharded chunk: its bounds, the offset included, x first."""
        parts = []
        for axis in (2, 1, 0):
            start = index_zyx[axis] * self.chunk_zyx[axis]
            stop = min(start + self.chunk_zyx[axis], self.size_zyx[axis])
            parts.append(f"{start + self.offset_zyx[axis]}-{stop + self.offset_zyx[axis]}")
        return "_".join(parts)

    def extent_zyx(self, index_zyx: ShapeZYX) -> ShapeZYX:
        """Shape of a chunk as it is stored: cut off at the volume's end."""
        left = subtract(self.size_zyx, multiply(index_zyx, self.chunk_zyx))
        return minimum(self.chunk_zyx, left)


@dataclass(frozen=True, slots=True)
class Info:
    """A volume: its scales, finest first.

    Attributes
    ----------
    segment_properties
        Folder of names of segments; empty where there is none.
    """

    segmentation: bool
    dtype: str
    channels: int
    scales: tuple[Scale, ...]
    segment_properties: str


def parse_info(data: bytes | memoryview, where: str) -> Info:
    """Read an ``info``.

    Raises
    ------
    FormatError
        It is no JSON, keys are missing, or numbers are impossible.
    UnsupportedFormatError
        Meshes, annotations, a CAVE server's graphene volume, other data types.
    """
    document = json_object(data, "info", where)
    with reading("info", where):
        if document.get("app") or document.get("graph"):
            raise UnsupportedFormatError(
                "a graphene volume of a CAVE server, which wants a token",
                location=where,
                advice="Ask for the address of a flat segmentation of the same data",
            )
        kind = document.get("@type", "neuroglancer_multiscale_volume")
        if kind != "neuroglancer_multiscale_volume" or "scales" not in document:
            raise UnsupportedFormatError(f"info of {kind!r}, which is no volume", location=where)
        dtype = str(document["data_type"]).lower()
        if dtype not in _DTYPES:
            raise UnsupportedFormatError(f"data type {dtype!r} is not converted", location=where)
        scales = [_scale(scale, where) for scale in document["scales"]]
        properties = document.get("segment_properties")
        info = Info(
            segmentation=document.get("type") == "segmentation",
            dtype=dtype,
            channels=int(document.get("num_channels", 1)),
            scales=tuple(sorted(scales, key=lambda scale: math.prod(scale.resolution_zyx))),
            segment_properties=properties if isinstance(properties, str) else "",
        )
    if not scales or info.channels < 1:
        raise FormatError("info names no scale", location=where)
    return info


def _scale(given: dict[str, Any], where: str) -> Scale:
    size, chunk = _zyx(given["size"]), _zyx(given["chunk_sizes"][0])
    x, y, z = (float(n) for n in given["resolution"])
    if min(*size, *chunk) < 1 or not all(math.isfinite(n) and n > 0 for n in (x, y, z)):
        raise FormatError(f"impossible scale {given.get('key')!r}", location=where)
    if math.prod(chunk) * 8 > MAX_CHUNK_BYTES:
        raise FormatError(f"impossible chunks {chunk} (z, y, x)", location=where)
    block = given.get("compressed_segmentation_block_size")
    encoding = str(given["encoding"]).lower()
    if encoding == "compressed_segmentation" and (block is None or min(_zyx(block)) < 1):
        raise FormatError(f"compressed_segmentation with blocks of {block}", location=where)
    return Scale(
        key=str(given["key"]),
        size_zyx=size,
        offset_zyx=_zyx(given.get("voxel_offset") or [0, 0, 0]),
        resolution_zyx=(z, y, x),
        chunk_zyx=chunk,
        encoding=encoding,
        block_zyx=_zyx(block) if block else None,
        sharding=parse_sharding(given["sharding"], where) if given.get("sharding") else None,
        copies=len(given["chunk_sizes"]),
    )


def _zyx(given: Any) -> ShapeZYX:
    x, y, z = given
    if any(int(n) != n for n in (x, y, z)):
        raise ValueError(f"{given!r} are no whole numbers")
    return (int(z), int(y), int(x))
