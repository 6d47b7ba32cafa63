"""PNG and JPEG: one plane a file, for folders of numbered sections.

Both say of their own wholeness what Pillow's decoders do not ask.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lib.bytesource.base import ByteSource
from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.base import Block, Layout, VolumeReader
from lib.formats.format import (
    FileFormatBase,
    Handle,
    Options,
    VolumeDescription,
    VoxelSize,
    only_path,
)
from lib.formats.planes import check_box
from lib.geometry import Box

_SCAN, _END = b"\xff\xda", b"\xff\xd9"
_PNG = b"\x89PNG\r\n\x1a\n"
_JXL_CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"


def jxl_shape(data: bytes) -> tuple[int, int]:
    """Rows and columns that a JPEG XL says it has (ISO/IEC 18181-1, SizeHeader).

    Raises
    ------
    FormatError
        It is none.
    """
    start = 0
    if data.startswith(_JXL_CONTAINER):
        start = data.find(b"jxlc", 0, 4096) + 4
    if start == 3 or data[start : start + 2] != b"\xff\x0a":
        raise FormatError("no JPEG XL, or none in one piece")
    bits, at = int.from_bytes(data[start + 2 : start + 18], "little"), 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return bits >> (at - count) & (1 << count) - 1

    def length() -> int:
        return 8 * (take(5) + 1) if eighths else take((9, 13, 18, 30)[take(2)]) + 1

    eighths = take(1)
    rows = length()
    times, over = ((0, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[take(3)]
    return rows, rows * times // over if times else length()


def check_picture(kind: str, data: bytes | bytearray) -> None:
    """Raise `ValueError` for a picture that is not whole by its own marks.

    Parameters
    ----------
    kind
        ``JPEG`` or ``PNG``.
    """
    if kind == "JPEG":
        _check_jpeg(data)
    else:
        _check_png(data)


def _check_jpeg(data: bytes | bytearray) -> None:
    """The end mark must stand behind the last scan: a decoder fills up what is missing.

    The data of a scan cannot hold the mark: a byte 255 in them is followed by a zero (ITU T.81,
    B.1.1.5). A thumbnail's mark lies before the scan of its picture.
    """
    scan = data.rfind(_SCAN)
    if scan < 0 or data.find(_END, scan) < 0:
        raise ValueError("it ends before its picture does")


def _check_png(data: bytes | bytearray) -> None:
    """Every chunk must fit its CRC-32, up to the last one: the decoder looks at those of few."""
    view, at = memoryview(data), len(_PNG)
    if data[:at] != _PNG:
        raise ValueError("it does not begin as one")
    while True:
        length = int.from_bytes(view[at : at + 4], "big")
        stop = at + 12 + length
        if stop > len(view):
            raise ValueError("it ends before its picture does")
        body = view[at + 4 : stop - 4]
        if zlib.crc32(body) != int.from_bytes(view[stop - 4 : stop], "big"):
            raise ValueError(f"its chunk at {at} does not fit its CRC-32")
        if bytes(body[:4]) == b"IEND":
            return
        at = stop


_ORIENTATION = 274
_MOST_PIXELS = 2**32
_MOST_RATIO = 20_000  # a PNG of one value
_GREY = {
    **dict.fromkeys(("L", "1", "P"), "uint8"),
    **dict.fromkeys(("I;16", "I;16B", "I"), "uint16"),
}
# sections are larger than Pillow's own bound; `_header` holds the pixels against the file's bytes
Image.MAX_IMAGE_PIXELS = _MOST_PIXELS


class _Picture(VolumeReader):
    """The one plane of a picture, decoded when its voxels are asked for."""

    def __init__(self, source: ByteSource, kind: str) -> None:
        self._source, self._kind = source, kind
        head = _beginning(source)
        (height, width), mode, _ = _header(source, kind, head)
        few = {"P": "indices of a palette", "1": "single bits"}
        self.values = few.get(mode, f"grey of {_bits(head, kind)} bits")
        self.shape_zyx = (1, height, width)
        self.dtype = np.dtype(_GREY[mode])
        self.layout = Layout(self.shape_zyx, random_access=False, by_planes=True)

    def __exit__(self, *_: object) -> None:
        self._source.close()

    def blocks(self, box: Box) -> Iterator[Block]:
        """The part of the plane that `box` asks for; the whole file is decoded."""
        check_box(box, self.shape_zyx, self._source.name)
        if box.empty:
            return
        pixels = _decoded(self._source, self._kind, self.shape_zyx[1:], self.dtype)
        yield Block(box, pixels[None][box.slices()])


class _PictureFormat(FileFormatBase):
    kind: ClassVar[str]
    name: ClassVar[str]
    sections: ClassVar[bool] = True

    def describe(self, source: ByteSource, path: str, options: Options) -> list[VolumeDescription]:
        only_path(path, source)
        head = _beginning(source)
        (height, width), mode, pixel = _header(source, self.kind, head)
        bits, turned = _bits(head, self.kind), _turned(head, self.kind)
        notes = []
        if bits < 8:
            notes.append(f"a picture of {bits} bits: its voxels are 0 to {2**bits - 1}")
        if turned:
            notes.append(f"its EXIF orientation {turned} is not applied: rows are as stored")
        if mode == "P":
            notes.append("a picture with a palette: its indices are the voxels")
        if mode == "1":
            notes.append("a picture of single bits: its voxels are 0 and 1")
        if self.kind == "JPEG":
            notes.append("decoded from JPEG: the values are not those that were recorded")
        return [
            VolumeDescription(
                path="",
                handle={},
                shape_zyx=(1, height, width),
                dtype=_GREY[mode],
                voxel=pixel,
                kind="labels" if mode == "P" else None,
                kind_evidence="a palette" if mode == "P" else None,
                lossy="jpeg" if self.kind == "JPEG" else None,
                notes=tuple(notes),
            )
        ]

    def open(self, source: ByteSource, handle: Handle, scratch: Path | None = None) -> _Picture:
        return _Picture(source, self.kind)


class PngFormat(_PictureFormat):
    """Grey PNG of 1, 8 or 16 bits, or with a palette whose indices are labels."""

    kind: ClassVar[str] = "PNG"
    name: ClassVar[str] = "png"
    title: ClassVar[str] = "PNG"
    suffixes: ClassVar[tuple[str, ...]] = (".png",)

    def fits(self, head: bytes, name: str) -> bool:
        return head.startswith(b"\x89PNG\r\n\x1a\n")


class JpegFormat(_PictureFormat):
    """Grey JPEG of 8 bits; lossy, and said so."""

    kind: ClassVar[str] = "JPEG"
    name: ClassVar[str] = "jpeg"
    title: ClassVar[str] = "JPEG"
    suffixes: ClassVar[tuple[str, ...]] = (".jpg", ".jpeg")

    def fits(self, head: bytes, name: str) -> bool:
        return head.startswith(b"\xff\xd8\xff")


def _beginning(source: ByteSource) -> bytes:
    return source.read(0, min(source.size, 2**16))


def _header(source: ByteSource, kind: str, data: bytes) -> tuple[tuple[int, int], str, VoxelSize]:
    """Height and width, Pillow's mode, and the pixel size where the file has a length for it."""
    try:
        (width, height), mode, info = _opened(data, kind)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError):
        try:  # a JPEG may have a thumbnail before its size
            (width, height), mode, info = _opened(source.read(0, source.size), kind)
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
            raise FormatError(f"the {kind} cannot be read: {error}", location=source.name) from None
    if mode not in _GREY:
        raise UnsupportedFormatError(
            f"a {kind} of mode {mode}, where grey ones are read",
            location=source.name,
            advice="Convert it to grey, or leave it out by a narrower address, as FOLDER/raw_*.png",
        )
    pixels = width * height
    if pixels > _MOST_PIXELS or pixels > _MOST_RATIO * max(source.size, 1):
        raise FormatError(
            f"{source.size} bytes cannot hold {width} x {height} pixels", location=source.name
        )
    return (height, width), mode, _pixel(info, data)


def _bits(data: bytes | bytearray, kind: str) -> int:
    """Of 2 and 4 for a grey PNG that has so few, which Pillow spreads over 0 to 255; else 8."""
    depth, colour = data[24:26] if kind == "PNG" and len(data) > 26 else b"\x08\0"
    return depth if depth in (2, 4) and colour == 0 else 8


def _turned(data: bytes, kind: str) -> int:
    """The EXIF orientation, where it is another than that of the rows; else 0."""
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as picture:
            found = picture.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, EOFError, KeyError, TypeError, struct.error):
        return 0
    return found if isinstance(found, int) and 1 < found <= 8 else 0


def _opened(data: bytes, kind: str) -> tuple[tuple[int, int], str, dict[Any, Any]]:
    with Image.open(io.BytesIO(data), formats=(kind,)) as picture:
        return picture.size, picture.mode, dict(picture.info)


def _pixel(info: dict[Any, Any], data: bytes) -> VoxelSize:
    """``pHYs`` of a PNG in pixels a metre; a screen's resolution is no measurement."""
    at = data.find(b"pHYs")
    if at < 0 or len(data) < at + 13:
        return VoxelSize()
    x, y, unit = struct.unpack(">IIB", data[at + 4 : at + 13])
    if unit != 1 or min(x, y) < 10**6:
        return VoxelSize()
    return VoxelSize(None, float(f"{1e9 / y:.6g}"), float(f"{1e9 / x:.6g}"), "pHYs")


def _decoded(
    source: ByteSource, kind: str, size_yx: tuple[int, int], dtype: np.dtype[Any]
) -> NDArray[Any]:
    data = bytearray(source.size)
    source.read_into(0, memoryview(data))
    try:
        check_picture(kind, data)
        with Image.open(io.BytesIO(data), formats=(kind,)) as picture:
            pixels = np.asarray(picture)
        if (bits := _bits(data, kind)) < 8:
            pixels = pixels // (255 // (2**bits - 1))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise FormatError(f"the {kind} is damaged: {error}", location=source.name) from None
    if pixels.shape != size_yx:
        raise FormatError(f"the {kind} holds {pixels.shape} pixels", location=source.name)
    return pixels.astype(dtype)
