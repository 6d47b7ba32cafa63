"""Compressed chunks: opening codecs, decoding with every size checked, encoding."""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import Any, Literal

import numcodecs
import numpy as np
from imagecodecs import Blosc2Error, blosc2_decode, deflate_decode, gzip_decode, gzip_encode
from numcodecs.abc import Codec
from numpy.typing import NDArray

from lib.errors import FormatError

Encoded = bytes | memoryview
DEFLATED = ("gzip", "zlib")
"""The same stream of RFC 1951 in the frames of RFC 1952 and RFC 1950; Zarr v3 has the first."""
_GZIP_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
# snappy is in Zarr's list and in no numcodecs wheel: nobody could read it
_BLOSC_CNAMES = {"lz4", "lz4hc", "blosclz", "zlib", "zstd"}


def open_codec(config: dict[str, Any]) -> Codec | None:
    """The numcodecs codec of a configuration; None for no compression."""
    return numcodecs.get_codec(dict(config)) if config else None


def can_pass_through(config: dict[str, Any], filters: Any, order: str, dtype_text: str) -> bool:
    """Whether a Zarr v2 chunk is, in a gzip frame if it has that of zlib, valid in a Zarr v3 shard.

    Of these, `DEFLATED` ones decode seven times slower than zstd ever after, and are no smaller:
    they pass through where that is asked for.
    """
    stored = dtype_text[:1] in "<|" and dtype_text[1:] != "f2"  # which is widened
    return not filters and order == "C" and stored and _valid_in_v3(config)


def in_zarr_v3(config: dict[str, Any]) -> dict[str, Any]:
    """The codec that chunks have once they passed through: zlib's became gzip's."""
    return {**config, "id": "gzip"} if config.get("id") == "zlib" else config


def as_gzip(encoded: Encoded, voxels: NDArray[Any]) -> bytes:
    """A zlib stream in the frame of gzip; `voxels` are what it was decoded to, all of it."""
    raw = voxels.reshape(-1).view("u1").data
    trailer = zlib.crc32(raw).to_bytes(4, "little") + (raw.nbytes % 2**32).to_bytes(4, "little")
    return b"".join((_GZIP_HEAD, memoryview(encoded)[2:-4], trailer))


def read_by_all(config: dict[str, Any], encoded: Encoded) -> bool:
    """Whether every supported reader decodes these very bytes of a chunk that may pass through.

    The oldest is zarr 3.0 with numcodecs 0.15, which takes the length of a zstd frame's content
    from its header; writers that stream leave it out there.

    Raises
    ------
    ValueError
        They are no frame at all.
    """
    return config.get("id") != "zstd" or _zstd_content_size(memoryview(encoded)) is not None


def _valid_in_v3(config: dict[str, Any]) -> bool:
    """Whether Zarr v3 can say how the chunks were compressed, in words that its readers accept."""
    if config.get("id") == "zstd":
        return config.get("level", 0) in range(-131072, 23)
    if config.get("id") in DEFLATED:
        return config.get("level") in range(10)
    return (
        config.get("id") == "blosc"
        and config.get("shuffle") in (0, 1, 2)
        and str(config.get("cname", "lz4")) in _BLOSC_CNAMES
        and config.get("clevel", 5) in range(10)
        and config.get("blocksize", 0) in range(2**31)
    )


def inflate(kind: Literal["gzip", "zlib"], data: Encoded, most: int) -> bytes:
    """Unpack a whole gzip or zlib stream of at most `most` bytes, its checksum held against them.

    By libdeflate, which is nearly twice as fast as zlib, and wants to know the size beforehand.

    Raises
    ------
    FormatError
        It is damaged, cut short, or longer.
    """
    unpack = gzip_decode if kind == "gzip" else deflate_decode
    try:
        return bytes(unpack(bytes(data), out=most))
    except (RuntimeError, ValueError) as error:
        raise FormatError(
            f"{kind} bytes are damaged, cut short, or unpack to more than {most}: {error}"
        ) from None


def expand(kind: Literal["bz2", "lzma"], data: Encoded, most: int) -> bytes:
    """Unpack a whole bzip2 or xz stream of at most `most` bytes; RuntimeError for another."""
    stream = bz2.BZ2Decompressor() if kind == "bz2" else lzma.LZMADecompressor()
    try:
        found = stream.decompress(data, most + 1)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise RuntimeError(f"{kind} bytes are damaged: {error}") from None
    if len(found) > most or not stream.eof:  # its checksum stands at the end
        raise RuntimeError(f"{kind} bytes do not end where their voxels do")
    return found


def encode_chunk(codec: Codec | None, chunk: NDArray[Any]) -> bytes:
    """Compress a C-contiguous chunk (little-endian on every machine we run on)."""
    if codec is None:
        return chunk.tobytes()
    if codec.codec_id == "gzip":  # libdeflate's compressor is twice as fast
        return bytes(gzip_encode(chunk.tobytes(), level=codec.level))
    return bytes(codec.encode(chunk))


def decode_into(codec: Codec | None, encoded: Encoded, voxels: NDArray[Any]) -> None:
    """Decompress into `voxels`, which must be filled exactly.

    Raises
    ------
    FormatError
        The bytes are damaged, or hold more or fewer voxels than a chunk.
    """
    try:
        if codec is None:
            if len(encoded) != voxels.nbytes:  # numpy would spread one byte over the whole chunk
                raise ValueError(f"it holds {len(encoded)} bytes, not {voxels.nbytes}")
            voxels.reshape(-1).view("u1")[:] = np.frombuffer(encoded, "u1")
            return
        if codec.codec_id in DEFLATED:
            _inflate_into(codec.codec_id, encoded, voxels)
            return
        if codec.codec_id in ("bz2", "lzma"):  # whose codecs cannot be told how much may come
            decode_into(None, expand(codec.codec_id, encoded, voxels.nbytes), voxels)
            return
        declared = _declared_size(codec, encoded)
        if declared is not None and declared != voxels.nbytes:
            raise ValueError(f"it declares {declared} bytes instead of {voxels.nbytes}")
        if codec.codec_id == "blosc" and _by_blosc2(memoryview(encoded), voxels):
            return
        out = codec.decode(encoded, out=voxels)
        if out is not None and np.asarray(out).nbytes != voxels.nbytes:
            raise ValueError(f"it holds {np.asarray(out).nbytes} bytes, not {voxels.nbytes}")
    except (ValueError, RuntimeError, zlib.error) as error:
        raise FormatError(f"a compressed chunk is damaged: {error}") from error


def _inflate_into(kind: str, encoded: Encoded, voxels: NDArray[Any]) -> None:
    """Of one stream that ends, checksum and all, where its bytes do: so readers need it."""
    stream = zlib.decompressobj(31 if kind == "gzip" else 15)
    data = stream.decompress(encoded, voxels.nbytes + 1)
    if len(data) != voxels.nbytes:
        raise ValueError(f"it holds {len(data)} bytes or more, not {voxels.nbytes}")
    if not stream.eof or stream.unused_data:
        raise ValueError("it does not end with its stream")
    voxels.reshape(-1).view("u1")[:] = np.frombuffer(data, "u1")


_BLOSC_HEAD = 16
_IN_ONE_STREAM = frozenset({0x90, 0x91, 0x94})
"""Flags of a Blosc header: zstd, each block one stream; not shuffled, by bytes, by bits."""


def _by_blosc2(encoded: memoryview, voxels: NDArray[Any]) -> bool:
    """Decode a chunk of c-blosc by its successor, in two thirds of the time, where both agree.

    False where the chunk is not surely one that they read alike, or does not decode: numcodecs then
    decides. C-Blosc2 takes a block of length 0, or below, for a run of one value; to c-blosc, and
    to those who read what passes through, it is damage (a tail of zeros, for example).

    Source: README_CHUNK_FORMAT of c-blosc 1: version, of the codec, flags, typesize; then the bytes
    decoded, of a block, and encoded; then where each block begins, with the length of its stream.
    """
    if len(encoded) < _BLOSC_HEAD or bytes(encoded[:2]) != b"\2\1":
        return False
    if not voxels.flags.c_contiguous:
        return False
    if encoded[2] not in _IN_ONE_STREAM or encoded[3] != voxels.itemsize:
        return False
    block = int.from_bytes(encoded[8:12], "little")
    end = _BLOSC_HEAD + 4 * -(-voxels.nbytes // max(1, block))
    if block == 0 or end > len(encoded):
        return False
    starts = np.frombuffer(encoded[_BLOSC_HEAD:end], "<i4")
    if not ((starts >= end) & (starts <= len(encoded) - 4)).all():
        return False
    lengths = np.frombuffer(encoded, np.uint8)[starts[:, np.newaxis] + np.arange(4)].view("<i4")
    if not (lengths > 0).all():
        return False
    data: Any = encoded
    try:
        blosc2_decode(data, out=voxels.reshape(-1).view("u1").data, numthreads=1)
    except (Blosc2Error, ValueError):
        return False
    return True


def _declared_size(codec: Codec, encoded: Encoded) -> int | None:
    """The decompressed size that a frame or header declares; checked before decoding."""
    view = memoryview(encoded)
    if codec.codec_id == "blosc":
        if len(view) < 16 or int.from_bytes(view[12:16], "little") != len(view):
            raise ValueError("the blosc header does not match the length")
        return int.from_bytes(view[4:8], "little")
    if codec.codec_id == "lz4":  # numcodecs puts the size in front, and does not compare it
        if len(view) < 4:
            raise ValueError("it is shorter than the size in front of it")
        return int.from_bytes(view[:4], "little")
    if codec.codec_id == "zstd":
        return _zstd_content_size(view)
    return None


def _zstd_content_size(view: memoryview) -> int | None:
    """Frame_Content_Size of a zstd frame (RFC 8878, 3.1.1.1); None where it is left out."""
    if len(view) < 6 or bytes(view[:4]) != b"\x28\xb5\x2f\xfd":
        raise ValueError("it does not begin with a zstd frame")
    descriptor = view[4]
    single, dictionary = descriptor >> 5 & 1, (0, 1, 2, 4)[descriptor & 3]
    width = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    start = 5 + (0 if single else 1) + dictionary
    if width == 0 or len(view) < start + width:
        return None
    size = int.from_bytes(view[start : start + width], "little")
    return size + 256 if width == 2 else size
