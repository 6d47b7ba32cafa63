"""One Zarr v3 array: its ``zarr.json``, its grids, and how to decode a chunk.

Zarr v3 core specification 3.0, with the codecs bytes, transpose, gzip, zstd, blosc, crc32c and
sharding_indexed. What is not in it (other grids, data types, codecs, storage transformers, unknown
fields that must be understood) is refused by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from lib.compression import Encoded, can_pass_through, decode_into, inflate, open_codec
from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.base import delivered_dtype
from lib.formats.chunked import MAX_CHUNKS
from lib.formats.zarr.array import CODECS
from lib.safety import json_object, reading

MAX_CHUNK_BYTES = 2**30
_DTYPES = {
    **{f"int{bits}": f"i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"u{bits // 8}" for bits in (8, 16, 32, 64)},
    "bool": "u1",
    "float16": "f2",
    "float32": "f4",
    "float64": "f8",
}
_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
_KNOWN = {
    "zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding",
    "fill_value", "codecs", "attributes", "dimension_names", "storage_transformers",
    "consolidated_metadata",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Codecs:
    """The codecs of one level: of chunks, or of the inner chunks of a shard.

    Attributes
    ----------
    order
        The axes in the order in which they are stored; as they are, without a transpose.
    big_endian
        Byte order of the stored voxels.
    compressors
        numcodecs configurations, and ``{"id": "crc32c"}``, in the order of encoding.
    """

    order: tuple[int, ...]
    big_endian: bool = False
    compressors: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Sharding:
    """How inner chunks lie in a shard: an index of offset and length, at its end or beginning.

    Where these are shards themselves, `nested` says how chunks lie in each.
    """

    inner: tuple[int, ...]
    index_at_end: bool
    index_crc32c: bool
    index_dtype: str = "<u8"
    nested: Sharding | None = None

    @property
    def smallest(self) -> tuple[int, ...]:
        """Shape of what is no shard any more."""
        return self.nested.smallest if self.nested else self.inner


@dataclass(frozen=True, slots=True)
class ArrayV3:
    """What ``zarr.json`` says, checked. Tuples have one value for each axis of the array."""

    shape: tuple[int, ...]
    grid_chunk: tuple[int, ...]  # of the objects: a chunk, or a shard
    stored: np.dtype[Any]
    fill_value: int | float
    key_prefix: str
    separator: str
    codecs: Codecs
    sharding: Sharding | None
    names: tuple[str | None, ...] | None
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def chunk(self) -> tuple[int, ...]:
        """The smallest piece that is read alone."""
        return self.sharding.smallest if self.sharding else self.grid_chunk

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the voxels that are delivered, in native byte order."""
        return delivered_dtype(self.stored)

    @property
    def codec(self) -> dict[str, Any]:
        """The one compressor of a chunk in numcodecs' words; empty for none or for several."""
        return self.codecs.compressors[0] if len(self.codecs.compressors) == 1 else {}

    @property
    def fits_shard(self) -> bool:
        """Whether a stored chunk may be an inner chunk of our shards as it is."""
        plain = self.codecs.order == tuple(range(len(self.shape)))
        little = not self.codecs.big_endian or self.stored.itemsize == 1
        if not plain or not little or len(self.codecs.compressors) != 1:
            return False
        if self.dtype.itemsize != self.stored.itemsize:
            return False
        return can_pass_through(self.codec, None, "C", self.dtype.str)

    def key(self, index: tuple[int, ...]) -> str:
        """The object of a chunk or shard, below the array."""
        if not index:
            return self.key_prefix or "0"
        numbers = self.separator.join(map(str, index))
        return f"{self.key_prefix}{self.separator}{numbers}" if self.key_prefix else numbers

    def decode(self, encoded: Encoded) -> NDArray[Any]:
        """The voxels of a stored chunk, with the array's axes, in native byte order.

        Raises
        ------
        FormatError
            The bytes are damaged, or hold more or fewer voxels than a chunk.
        """
        size = math.prod(self.chunk) * self.stored.itemsize
        data: Encoded = encoded
        steps = [*reversed(self.codecs.compressors)]
        for number, step in enumerate(steps):  # checksums within make it longer, all else is one
            data = _decoded(step, data, size + 4 * (len(steps) - 1 - number))
        if len(data) != size:
            raise FormatError(f"a chunk holds {len(data)} bytes instead of {size}")
        order = self.codecs.order
        voxels = np.frombuffer(data, self.stored).reshape([self.chunk[axis] for axis in order])
        return np.ascontiguousarray(voxels.transpose(np.argsort(order)), self.dtype)


def parse_array_v3(data: bytes | memoryview, where: str) -> ArrayV3:
    """Read the ``zarr.json`` of an array.

    Raises
    ------
    FormatError
        It is no JSON, keys are missing, or sizes are impossible.
    UnsupportedFormatError
        It uses what is not read here; the error says what.
    """
    document = parse_node(data, where)
    with reading("zarr.json", where):
        return _array(document, where)


def parse_node(data: bytes | memoryview, where: str) -> dict[str, Any]:
    """A ``zarr.json``: a JSON object of format 3 with a node type. Raises `FormatError`."""
    document = json_object(data, "zarr.json", where)
    if document.get("zarr_format") != 3:
        raise FormatError("zarr.json is no document of Zarr v3", location=where)
    if document.get("node_type") not in ("array", "group"):
        raise FormatError(f"node_type {document.get('node_type')!r} is none", location=where)
    return document


def _array(document: dict[str, Any], where: str) -> ArrayV3:
    for name in document.keys() - _KNOWN:
        value = document[name]
        if not (isinstance(value, dict) and value.get("must_understand") is False):
            raise UnsupportedFormatError(f"zarr.json has the extension {name!r}", location=where)
    if document.get("storage_transformers"):
        raise UnsupportedFormatError("storage transformers are not read", location=where)
    shape = tuple(int(n) for n in document["shape"])
    grid, settings = _named(document["chunk_grid"])
    if grid != "regular":
        raise UnsupportedFormatError(f"chunk grid {grid!r}", location=where)
    grid_chunk = tuple(int(n) for n in settings["chunk_shape"])
    data_type = document["data_type"]
    if isinstance(data_type, dict) and not data_type.get("configuration"):
        data_type = data_type["name"]
    if not isinstance(data_type, str) or data_type not in _DTYPES:
        raise UnsupportedFormatError(f"data type {data_type!r} is not converted", location=where)
    if not 2 <= len(shape) <= 5 or len(grid_chunk) != len(shape) or min(*shape, *grid_chunk) < 1:
        raise UnsupportedFormatError(
            f"an array of shape {shape} and chunks {grid_chunk}, where 2 to 5 axes are converted",
            location=where,
        )
    codecs, sharding = _codecs(document["codecs"], grid_chunk, where)
    chunk = sharding.smallest if sharding else grid_chunk
    if sharding and sharding.nested and math.prod(grid_chunk) > MAX_CHUNKS * math.prod(chunk):
        raise UnsupportedFormatError(
            f"shards {grid_chunk} of nested shards, with chunks {chunk}: more than {MAX_CHUNKS}",
            location=where,
        )
    stored = np.dtype((">" if codecs.big_endian else "<") + _DTYPES[data_type])
    if math.prod(chunk) * stored.itemsize > MAX_CHUNK_BYTES:
        raise FormatError(f"impossible chunks {chunk}", location=where)
    prefix, separator = _key_encoding(document["chunk_key_encoding"], where)
    names = document.get("dimension_names")
    return ArrayV3(
        shape=shape,
        grid_chunk=grid_chunk,
        stored=stored,
        fill_value=_fill(document["fill_value"], stored, where),
        key_prefix=prefix,
        separator=separator,
        codecs=codecs,
        sharding=sharding,
        names=None if names is None else tuple(names),
        attributes=document.get("attributes") or {},
    )


def _named(given: Any) -> tuple[str, dict[str, Any]]:
    """Name and configuration; a name alone may stand for both (Zarr 3.1)."""
    if isinstance(given, str):
        return given, {}
    return given["name"], given.get("configuration") or {}


def _codecs(given: list[Any], chunk: tuple[int, ...], where: str) -> tuple[Codecs, Sharding | None]:
    order, big, compressors = tuple(range(len(chunk))), False, []
    to_bytes = False
    for name, settings in map(_named, given):
        if name == "sharding_indexed" and not to_bytes:
            if order != tuple(range(len(chunk))) or len(given) > 1:
                raise UnsupportedFormatError("codecs around sharding_indexed", location=where)
            return _sharded(settings, chunk, where)
        if name == "transpose" and not to_bytes:
            step = tuple(int(axis) for axis in settings["order"])
            if sorted(step) != list(range(len(chunk))):
                raise FormatError(f"transpose order {step}", location=where)
            order = tuple(order[axis] for axis in step)
        elif name == "bytes" and not to_bytes:
            to_bytes, big = True, settings.get("endian", "little") == "big"
        elif to_bytes:
            compressors.append(_compressor(name, settings, where))
        else:
            raise UnsupportedFormatError(f"codec {name!r} is not converted", location=where)
    if not to_bytes:
        raise FormatError("no codec makes bytes of the voxels", location=where)
    packing = [one["id"] for one in compressors if one["id"] != "crc32c"]
    if len(packing) > 1:
        raise UnsupportedFormatError(f"compressors one after another: {packing}", location=where)
    return Codecs(order, big, tuple(compressors)), None


def _sharded(
    settings: dict[str, Any], shard: tuple[int, ...], where: str
) -> tuple[Codecs, Sharding]:
    inner = tuple(int(n) for n in settings["chunk_shape"])
    if (
        len(inner) != len(shard)
        or min(inner) < 1
        or any(s % i for s, i in zip(shard, inner, strict=True))
    ):
        raise FormatError(f"inner chunks {inner} do not fill shards {shard}", location=where)
    codecs, nested = _codecs(settings["codecs"], inner, where)
    if nested is not None and nested.nested is not None:
        raise UnsupportedFormatError(
            "shards inside shards inside shards are not read", location=where
        )
    index = [_named(codec) for codec in settings["index_codecs"]]
    names = [name for name, _ in index]
    if names not in (["bytes"], ["bytes", "crc32c"]):
        raise UnsupportedFormatError(f"index codecs {names}", location=where)
    dtype = ">u8" if index[0][1].get("endian") == "big" else "<u8"
    location = settings.get("index_location", "end")
    if location not in ("start", "end"):
        raise FormatError(f"index_location {location!r}", location=where)
    return codecs, Sharding(inner, location == "end", len(names) == 2, dtype, nested)


def _compressor(name: str, settings: dict[str, Any], where: str) -> dict[str, Any]:
    if name == "gzip":
        return {"id": "gzip", "level": int(settings.get("level", 5))}
    if name == "zstd":
        return {"id": "zstd", "level": int(settings.get("level", 0))}
    if name == "blosc":
        return {
            "id": "blosc",
            "cname": settings["cname"],
            "clevel": int(settings["clevel"]),
            "shuffle": _SHUFFLES[settings["shuffle"]],
            "blocksize": int(settings.get("blocksize", 0)),
        }
    if name == "crc32c":
        return {"id": "crc32c"}
    own = name.removeprefix("numcodecs.")  # as zarr-python writes those of Zarr v2
    if own != name and own in CODECS:
        config = {**settings, "id": own}
        try:
            open_codec(config)
        except (TypeError, ValueError) as error:
            raise FormatError(f"codec {name}: {error}", location=where) from None
        return config
    raise UnsupportedFormatError(f"codec {name!r} is not converted", location=where)


def _key_encoding(encoding: Any, where: str) -> tuple[str, str]:
    """Prefix and separator of chunk keys: ``c/0/1``, ``c.0.1``, ``0.1``, ``0/1``."""
    name, settings = _named(encoding)
    if name not in ("default", "v2"):
        raise UnsupportedFormatError(f"chunk key encoding {name!r}", location=where)
    separator = settings.get("separator", "/" if name == "default" else ".")
    if separator not in ("/", "."):
        raise FormatError(f"separator {separator!r} of chunk keys", location=where)
    return ("c" if name == "default" else "", separator)


def _fill(value: Any, stored: np.dtype[Any], where: str) -> int | float:
    """A fill value: number, word (NaN, Infinity), hexadecimal bytes of a float, or bool."""
    if isinstance(value, bool):
        return int(value)
    if stored.kind == "f":
        if isinstance(value, str) and value.startswith("0x"):
            raw = bytes.fromhex(value[2:])
            if len(raw) != stored.itemsize:
                raise FormatError(f"fill_value {value!r} does not fit", location=where)
            return float(np.frombuffer(raw, stored.newbyteorder(">"))[0])
        try:
            return float(value)
        except (TypeError, ValueError):
            raise FormatError(
                f"fill_value {value!r} does not fit {stored}", location=where
            ) from None
    limits = np.iinfo(stored)
    if not isinstance(value, int | float) or not limits.min <= value <= limits.max or value % 1:
        raise FormatError(f"fill_value {value!r} does not fit {stored}", location=where)
    return int(value)


def _decoded(step: dict[str, Any], data: Encoded, size: int) -> Encoded:
    """Undo one compressor, out of which exactly `size` bytes come."""
    kind = step["id"]
    if kind == "crc32c":
        view = memoryview(data)
        if len(view) < 4:
            raise FormatError("a chunk is too short for its checksum")
        stated = int.from_bytes(view[-4:], "little")
        if google_crc32c.value(bytes(view[:-4])) != stated:
            raise FormatError("a chunk does not fit its crc32c checksum")
        return view[:-4]
    if kind in ("gzip", "zlib"):
        return inflate(kind, data, size)
    out = np.empty(size, np.uint8)
    decode_into(open_codec(step), data, out)
    return out.data
