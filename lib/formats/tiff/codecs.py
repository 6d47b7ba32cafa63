"""Compressed strips and tiles: decoded one at a time, never to more than they declare."""

from __future__ import annotations

import io
import lzma
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.pictures import check_picture

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
MAX_SEGMENT_BYTES = 512 * 2**20  # decoded size of one strip or tile


def _unlzma(data: bytes, *, out: bytearray) -> bytes:
    """At most one byte more than `out` has room for, whatever the stream says."""
    unpack = lzma.LZMADecompressor()
    got = unpack.decompress(data, len(out) + 1)
    if len(got) == len(out) and not unpack.eof:  # the checksum stands at the end
        got += unpack.decompress(b"", 1)
    if not unpack.eof:
        raise ValueError("the stream does not end where its voxels do")
    out[: len(got)] = got[: len(out)]
    return got


def _none(data: bytes, *, out: bytearray) -> bytes:
    raise ValueError("a picture is decoded as one")


# TIFF compression code: name, decoder, the most that one stored byte can become.
# Deflate cannot do better than 1032:1 and PackBits 64:1; LZW codes of 9 to 12 bits stand for up
# to 4 kB each; Zstandard has no bound of its own, and 65536 is far above any image.
_CODECS: dict[int, tuple[str, Callable[..., Any], int]] = {
    5: ("LZW", imagecodecs.lzw_decode, 4096),
    8: ("Deflate", imagecodecs.deflate_decode, 1100),
    32946: ("Deflate", imagecodecs.deflate_decode, 1100),
    32773: ("PackBits", imagecodecs.packbits_decode, 128),
    50000: ("Zstandard", imagecodecs.zstd_decode, 65536),
    34925: ("LZMA", _unlzma, 65536),
    7: ("JPEG", _none, 4096),
    34712: ("JPEG 2000", _none, 65536),
}
UNCOMPRESSED, JPEG, JPEG_2000 = 1, 7, 34712
_J2K_SIZE = b"\xff\x4f\xff\x51"  # where a codestream begins: SOC, then SIZ
_OTHERS = {
    2: "CCITT", 3: "CCITT", 4: "CCITT", 6: "JPEG of TIFF 5", 33003: "JPEG 2000 of Aperio",
    33004: "JPEG 2000 of Aperio", 33005: "JPEG 2000 of Aperio", 34887: "LERC", 50001: "WebP",
    50002: "JPEG XL",
}  # fmt: skip


def check_compression(compression: int, predictor: int, stored: np.dtype[Any], name: str) -> None:
    """Raise `UnsupportedFormatError` for what `decode` cannot undo."""
    if compression != UNCOMPRESSED and compression not in _CODECS:
        called = f" ({_OTHERS[compression]})" if compression in _OTHERS else ""
        raise UnsupportedFormatError(
            f"TIFF compression {compression}{called} is not supported (none, LZW, Deflate, "
            "PackBits, Zstandard, LZMA, JPEG and JPEG 2000 are)",
            location=name,
        )
    if compression == UNCOMPRESSED:
        return
    if compression == JPEG and (predictor != 1 or stored.str[1:] != "u1"):
        raise UnsupportedFormatError(
            f"JPEG in TIFF of {stored.name} voxels and predictor {predictor}", location=name
        )
    if compression == JPEG_2000 and (predictor != 1 or stored.str[1:] not in ("u1", "u2")):
        raise UnsupportedFormatError(
            f"JPEG 2000 in TIFF of {stored.name} voxels and predictor {predictor}", location=name
        )
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
    bits: int = 0,
    tables: bytes = b"",
) -> NDArray[Any]:
    """Voxels of one strip or tile, in native byte order.

    Parameters
    ----------
    full_rows
        The height of all strips but the last.
    bits
        Of a voxel that is packed in less than its bytes; 0 for others.
    tables
        ``JPEGTables`` of the page, which its strips and tiles leave out.

    Raises
    ------
    FormatError
        The bytes do not decode, or to another number of voxels than `shape_yx`.
    """
    row_bytes = -(-shape_yx[1] * bits // 8) if bits else shape_yx[1] * stored.itemsize
    decoded_bytes = shape_yx[0] * row_bytes
    check_segment(compression, len(data), decoded_bytes, name)
    if compression == JPEG:
        try:
            return _picture(data, tables, shape_yx, full_rows)
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            why = f"JPEG data do not decode ({error})"
            raise FormatError(why, location=name, unit=unit) from error
    if compression == JPEG_2000:
        try:
            return _codestream(bytes(data), shape_yx, full_rows, stored)
        except (RuntimeError, ValueError, NotImplementedError) as error:
            why = f"JPEG 2000 data do not decode ({error})"
            raise FormatError(why, location=name, unit=unit) from error
    if compression == UNCOMPRESSED:
        raw: Any = data[:decoded_bytes]
    else:
        full_bytes = max(decoded_bytes, full_rows * row_bytes)
        try:
            raw = _decompress(data, compression, decoded_bytes)
        except ValueError as error:
            if full_bytes == decoded_bytes:
                raise FormatError(str(error), location=name, unit=unit) from error
            try:  # a last strip that its writer filled up to the rows of the others
                raw = _decompress(data, compression, full_bytes)[:decoded_bytes]
            except ValueError:
                raise FormatError(str(error), location=name, unit=unit) from error
    if bits:
        native = stored.newbyteorder("=")
        return np.asarray(
            imagecodecs.packints_decode(bytes(raw), native, bits, runlen=shape_yx[1])
        ).reshape(shape_yx)
    voxels: NDArray[Any] = np.frombuffer(raw, dtype=stored).reshape(shape_yx)
    if compression != UNCOMPRESSED and predictor == 3:
        return np.asarray(imagecodecs.floatpred_decode(voxels, axis=-1))
    voxels = voxels if stored.isnative else voxels.astype(stored.newbyteorder("="))
    if compression != UNCOMPRESSED and predictor == 2:
        return np.asarray(imagecodecs.delta_decode(voxels, axis=-1))
    return voxels


def _picture(
    data: memoryview, tables: bytes, shape_yx: tuple[int, int], full_rows: int
) -> NDArray[Any]:
    """A strip or tile that is a grey JPEG, or one without its tables; ValueError for another."""
    whole = bytes(data)
    check_picture("JPEG", whole)
    if tables[:2] == _SOI and tables[-2:] == _EOI and whole[:2] == _SOI:
        whole = tables[:-2] + whole[2:]
    with Image.open(io.BytesIO(whole), formats=("JPEG",)) as picture:
        rows = picture.height
        if picture.mode != "L" or picture.width != shape_yx[1]:
            raise ValueError(f"a picture of {picture.size} of mode {picture.mode}")
        if rows not in (shape_yx[0], full_rows):
            raise ValueError(f"{rows} rows instead of {shape_yx[0]}")
        return np.asarray(picture)[: shape_yx[0]]


def _codestream(
    data: bytes, shape_yx: tuple[int, int], full_rows: int, stored: np.dtype[Any]
) -> NDArray[Any]:
    """A strip or tile that is a grey JPEG 2000 (ISO/IEC 15444-1); ValueError for another.

    Its lengths are looked at before memory is taken for them. OpenJPEG refuses what is cut short.
    """
    at = data.find(_J2K_SIZE, 0, 4096)
    if at < 0 or len(data) < at + 45:
        raise ValueError("no codestream")
    x1, y1, x0, y0, *_ = (int.from_bytes(data[i : i + 4], "big") for i in range(at + 8, at + 40, 4))
    components, depth = int.from_bytes(data[at + 40 : at + 42], "big"), data[at + 42] + 1
    rows = y1 - y0
    if x1 - x0 != shape_yx[1] or rows not in (shape_yx[0], full_rows) or components != 1:
        raise ValueError(f"{x1 - x0} x {rows} pixels of {components} samples")
    if depth > 8 * stored.itemsize or depth <= 8 * (stored.itemsize - 1):
        raise ValueError(f"samples of {depth} bits")
    if not data.rstrip(b"\0").endswith(_EOI):  # its marker of the end, too
        raise ValueError("it ends before its voxels do")
    voxels = np.asarray(imagecodecs.jpeg2k_decode(data))
    if voxels.shape != (rows, shape_yx[1]) or voxels.dtype != stored.newbyteorder("="):
        raise ValueError(f"{voxels.dtype} voxels of {voxels.shape}")
    return voxels[: shape_yx[0]]


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
