"""Compressed strips and tiles: decoded one at a time, never to more than they declare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from lib.errors import FormatError, UnsupportedFormatError

MAX_SEGMENT_BYTES = 512 * 2**20  # decoded size of one strip or tile

# TIFF compression code: name, decoder, the most that one stored byte can become.
# Deflate cannot do better than 1032:1 and PackBits 64:1; LZW codes of 9 to 12 bits stand for up
# to 4 kB each; Zstandard has no bound of its own, and 65536 is far above any image.
_CODECS: dict[int, tuple[str, Callable[..., Any], int]] = {
    5: ("LZW", imagecodecs.lzw_decode, 4096),
    8: ("Deflate", imagecodecs.zlib_decode, 1100),
    32946: ("Deflate", imagecodecs.zlib_decode, 1100),
    32773: ("PackBits", imagecodecs.packbits_decode, 128),
    50000: ("Zstandard", imagecodecs.zstd_decode, 65536),
}
UNCOMPRESSED = 1


def check_compression(compression: int, predictor: int, stored: np.dtype[Any], name: str) -> None:
    """Raise `UnsupportedFormatError` for what `decode` cannot undo."""
    if compression != UNCOMPRESSED and compression not in _CODECS:
        raise UnsupportedFormatError(
            f"TIFF compression {compression} is not supported (none, LZW, Deflate, PackBits and "
            "Zstandard are)",
            location=name,
        )
    if compression == UNCOMPRESSED:
        return
    if predictor not in (1, 2, 3) or (predictor == 3) != (predictor == 3 and stored.kind == "f"):
        raise UnsupportedFormatError(
            f"TIFF predictor {predictor} on {stored.name} voxels is not supported", location=name
        )


def check_segment(compression: int, stored_bytes: int, decoded_bytes: int, name: str) -> None:
    """Refuse a strip or tile that declares more voxels than its bytes can hold."""
    ratio = 1 if compression == UNCOMPRESSED else _CODECS[compression][2]
    if stored_bytes <= 0 or decoded_bytes > stored_bytes * ratio + (ratio > 1) * 64:
        raise FormatError(
            f"a strip or tile of {decoded_bytes} bytes cannot come out of {stored_bytes} stored "
            "bytes: it is absent or damaged",
            location=name,
        )
    if compression != UNCOMPRESSED and decoded_bytes > MAX_SEGMENT_BYTES:
        raise UnsupportedFormatError(
            f"one compressed strip or tile of {decoded_bytes} bytes is above the limit of "
            f"{MAX_SEGMENT_BYTES}",
            location=name,
        )


def decode(
    data: memoryview,
    *,
    compression: int,
    predictor: int,
    shape_yx: tuple[int, int],
    stored: np.dtype[Any],
    full_rows: int,
    name: str,
    unit: str,
) -> NDArray[Any]:
    """Voxels of one strip or tile, in native byte order.

    `full_rows` is the height of all strips but the last.

    Raises
    ------
    FormatError
        The bytes do not decode, or to another number of voxels than `shape_yx`.
    """
    decoded_bytes = shape_yx[0] * shape_yx[1] * stored.itemsize
    check_segment(compression, len(data), decoded_bytes, name)
    if compression == UNCOMPRESSED:
        raw: Any = data[:decoded_bytes]
    else:
        full_bytes = max(decoded_bytes, full_rows * shape_yx[1] * stored.itemsize)
        try:
            raw = _decompress(data, compression, decoded_bytes)
        except ValueError as error:
            if full_bytes == decoded_bytes:
                raise FormatError(str(error), location=name, unit=unit) from error
            try:  # a last strip that its writer filled up to the rows of the others
                raw = _decompress(data, compression, full_bytes)[:decoded_bytes]
            except ValueError:
                raise FormatError(str(error), location=name, unit=unit) from error
    voxels: NDArray[Any] = np.frombuffer(raw, dtype=stored).reshape(shape_yx)
    if compression != UNCOMPRESSED and predictor == 3:
        return np.asarray(imagecodecs.floatpred_decode(voxels, axis=-1))
    voxels = voxels if stored.isnative else voxels.astype(stored.newbyteorder("="))
    if compression != UNCOMPRESSED and predictor == 2:
        return np.asarray(imagecodecs.delta_decode(voxels, axis=-1))
    return voxels


def _decompress(data: memoryview, compression: int, size: int) -> memoryview:
    """Exactly `size` bytes, or ValueError with the reason."""
    codec, decoder, _ = _CODECS[compression]
    raw = bytearray(size)
    try:
        got = decoder(bytes(data), out=raw)
    except Exception as error:  # each codec of imagecodecs has its own error class
        raise ValueError(f"{codec} data do not decode ({error})") from error
    if len(got) != size:
        raise ValueError(f"{codec} data decode to {len(got)} bytes instead of {size}")
    return memoryview(raw)
