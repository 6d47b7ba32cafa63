"""One N5 dataset: its ``attributes.json`` and its blocks.

N5 specification 4.0.0 (saalfeldlab/n5). Lists are x, y, z, fastest first; voxels are big-endian.
A block begins with its mode, its number of axes and its size; the format has no checksum and no
fill value, and what follows a header that lies would be read as voxels. So a header must say
either the whole block or exactly what is left of it at the end of the volume.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh32_intdigest

from lib.compression import DEFLATED, decode_into, encode_chunk, expand, inflate, open_codec
from lib.errors import FormatError, UnsupportedFormatError
from lib.safety import reading

MAX_BLOCK_BYTES = 2**30
LZ4_JAVA_SEED = 0x9747B28C  # of the XXH32 checksums that lz4-java writes
_DTYPES = {
    **{f"int{bits}": f">i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f">u{bits // 8}" for bits in (8, 16, 32, 64)},
    "float32": ">f4",
    "float64": ">f8",
}
_LZ4_MAGIC, _LZ4_CHECK = b"LZ4Block", 2**28 - 1


@dataclass(frozen=True, slots=True)
class Dataset:
    """What ``attributes.json`` says of a dataset; lists are in the format's order, x first."""

    shape: tuple[int, ...]
    block: tuple[int, ...]
    stored: np.dtype[Any]
    compression: dict[str, Any]
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def dtype(self) -> np.dtype[Any]:
        """In native byte order."""
        return self.stored.newbyteorder("=")

    @property
    def codec(self) -> dict[str, Any]:
        """The compression in numcodecs' words, where a block's payload is such a chunk."""
        kind = self.compression["type"]
        if kind == "zstd":
            return {"id": "zstd", "level": int(self.compression.get("level", 3))}
        if kind == "gzip":  # -1 is zlib's default
            level = int(self.compression.get("level", -1))
            packed = "zlib" if self.compression.get("useZlib") else "gzip"
            return {"id": packed, "level": 6 if level < 0 else level}
        if kind == "blosc":
            return {
                "id": "blosc",
                "cname": str(self.compression.get("cname", "lz4")),
                "clevel": int(self.compression.get("clevel", 5)),
                "shuffle": int(self.compression.get("shuffle", 1)),
                "blocksize": int(self.compression.get("blocksize", 0)),
            }
        return {}

    def decode(self, data: bytes | memoryview, index: tuple[int, ...]) -> NDArray[Any]:
        """A whole block, axes slowest first, in native byte order; 0 past the volume's end.

        Raises
        ------
        FormatError
            The header does not fit the place, or the payload is damaged.
        """
        size, payload = self.split(data, index)
        voxels = self._voxels(payload, size)
        if size == self.block:
            return voxels.reshape(size[::-1]).astype(self.dtype)
        whole = np.zeros(self.block[::-1], self.dtype)
        whole[tuple(slice(0, n) for n in size[::-1])] = voxels.reshape(size[::-1])
        return whole

    def as_chunk(self, data: bytes | memoryview, index: tuple[int, ...]) -> bytes | memoryview:
        """The payload of a block as a whole chunk in `codec`; a cut one is padded and encoded."""
        size, payload = self.split(data, index)
        if size == self.block:
            return payload
        codec = self.codec
        if codec["id"] in DEFLATED:  # any level is read alike, and most cost more than the rest
            codec = {**codec, "level": 1}
        return encode_chunk(open_codec(codec), np.ascontiguousarray(self.decode(data, index)))

    def split(
        self, data: bytes | memoryview, index: tuple[int, ...]
    ) -> tuple[tuple[int, ...], memoryview]:
        """Size of a block and its payload, the header checked against the block's place."""
        view, axes = memoryview(data), len(self.shape)
        header = 4 + 4 * axes
        if len(view) < header:
            raise FormatError(f"a block of {len(view)} bytes is shorter than its header")
        mode, stated = int.from_bytes(view[:2], "big"), int.from_bytes(view[2:4], "big")
        if mode not in (0, 1):
            raise UnsupportedFormatError(f"a block of mode {mode} (an object)")
        size = tuple(int.from_bytes(view[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes))
        places = zip(self.shape, self.block, index, strict=True)
        rest = tuple(min(block, length - at * block) for length, block, at in places)
        if stated != axes:
            raise FormatError(f"a block says it has {stated} axes, where {axes} belong")
        if size not in (self.block, rest):
            raise FormatError(f"a block says it is {size} (x first), where {rest} belong")
        if mode == 1:  # which then says how many voxels follow
            count = int.from_bytes(view[header : header + 4], "big")
            if count != math.prod(size):
                raise FormatError(f"a block of {count} voxels (mode 1), where {size} belong")
            header += 4
        return size, view[header:]

    def _voxels(self, payload: memoryview, size: tuple[int, ...]) -> NDArray[Any]:
        nbytes = math.prod(size) * self.stored.itemsize
        kind = self.compression["type"]
        if kind in ("zstd", "blosc"):
            out = np.empty(nbytes, np.uint8)
            decode_into(open_codec(self.codec), payload, out)
            return out.view(self.stored)
        try:
            data = _inflated(kind, self.compression, payload, nbytes)
        except (RuntimeError, ValueError) as error:
            raise FormatError(f"a compressed block is damaged: {error}") from None
        if len(data) != nbytes:
            raise FormatError(f"a block holds {len(data)} bytes instead of {nbytes}")
        return np.frombuffer(data, self.stored)


def _inflated(
    kind: str, settings: dict[str, Any], payload: memoryview, nbytes: int
) -> bytes | memoryview:
    """At most one byte more than `nbytes` comes out, whatever the payload says."""
    if kind == "raw":
        return payload
    if kind == "gzip":
        return inflate("zlib" if settings.get("useZlib") else "gzip", payload, nbytes)
    if kind == "lz4":
        return _lz4_blocks(payload, nbytes)
    return expand("bz2" if kind == "bzip2" else "lzma", payload, nbytes)


def _lz4_blocks(payload: memoryview, nbytes: int) -> bytes:
    """The stream of lz4-java: blocks with magic, method, both lengths and a checksum (LE).

    The checksum is 28 bits of the XXH32 of what comes out; 0 of writers that leave it out.
    """
    from imagecodecs import lz4_decode

    out, at = bytearray(), 0
    while at < len(payload):
        head = payload[at : at + 21]
        if len(head) < 21 or bytes(head[:8]) != _LZ4_MAGIC:
            raise ValueError("no block of an LZ4 stream")
        method = head[8] & 0xF0
        packed, plain = (int.from_bytes(head[i : i + 4], "little") for i in (9, 13))
        at += 21
        if plain == 0:
            break
        if len(out) + plain > nbytes or at + packed > len(payload):
            raise ValueError("an LZ4 stream that is longer than its block")
        part = payload[at : at + packed]
        piece = bytes(part) if method == 0x10 else bytes(lz4_decode(bytes(part), out=plain))
        if len(piece) != plain:
            raise ValueError("a block of an LZ4 stream is cut short")
        stated = int.from_bytes(head[17:21], "little")
        if stated and stated != xxh32_intdigest(piece, LZ4_JAVA_SEED) & _LZ4_CHECK:
            raise ValueError("a block of an LZ4 stream does not fit its checksum")
        out += piece
        at += packed
    return bytes(out)


def parse_dataset(document: dict[str, Any], where: str) -> Dataset | None:
    """The dataset that attributes describe; None where they are a group's.

    Raises
    ------
    FormatError, UnsupportedFormatError
    """
    if "dimensions" not in document or "blockSize" not in document:
        return None
    with reading("attributes.json", where):
        shape = tuple(int(n) for n in document["dimensions"])
        block = tuple(int(n) for n in document["blockSize"])
        name = str(document["dataType"])
        given = document.get("compression") or {"type": document.get("compressionType", "raw")}
        compression = {**given, "type": str(given["type"])}
    if document.get("isLabelMultiset"):
        raise UnsupportedFormatError("label multisets (Paintera) are not read", location=where)
    if name not in _DTYPES:
        raise UnsupportedFormatError(f"data type {name!r} is not converted", location=where)
    if compression["type"] not in ("raw", "gzip", "bzip2", "lz4", "xz", "blosc", "zstd"):
        raise UnsupportedFormatError(f"compression {compression['type']!r}", location=where)
    stored = np.dtype(_DTYPES[name])
    dataset = Dataset(shape, block, stored, compression, document)
    with reading("compression", where):
        open_codec(dataset.codec)
    if not 2 <= len(shape) <= 5 or len(block) != len(shape) or min(*shape, *block) < 1:
        raise UnsupportedFormatError(
            f"a dataset of {shape} and blocks {block} (x first), where 2 to 5 axes are converted",
            location=where,
        )
    if math.prod(block) * stored.itemsize > MAX_BLOCK_BYTES:
        raise FormatError(f"impossible blocks {block}", location=where)
    return dataset
