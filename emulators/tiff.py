"""Streaming writers of two exact TIFF layouts: EPFL's (ITK) and IDR's (ImageJ).

Both take the pages from an iterator, so that files of many gigabytes need the memory of one page.
Layouts and sizes measured on the public files: ``volumedata.tif`` (3,353,674,357 bytes) and
``Figure_S3B_FIB-SEM_U2OS_20x20x20nm_xy.tif`` (159,884,524 bytes).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lib.errors import ConfigError

ShapeZYX = tuple[int, int, int]
_SHORT, _LONG, _ASCII, _RATIONAL = 3, 4, 2, 5
_ITK_STRIP = 8192
_ITK_SOFTWARE = b"InsightToolkit\0"
_ITK_TAGS = 14


def _take(pages: Iterable[NDArray[Any]], shape_zyx: ShapeZYX) -> Iterable[bytes]:
    """Bytes of exactly as many uint8 pages as announced."""
    count = 0
    for page in pages:
        if page.shape != shape_zyx[1:] or page.dtype.name != "uint8" or count == shape_zyx[0]:
            raise ConfigError(f"page {count}: {page.dtype.name} {page.shape} is not of {shape_zyx}")
        yield page.tobytes()
        count += 1
    if count != shape_zyx[0]:
        raise ConfigError(f"{count} pages were given for a file of {shape_zyx}")


def _itk_strips(shape_zyx: ShapeZYX) -> tuple[int, int]:
    """Rows per strip and strips per page: ITK fills strips of 8192 bytes with whole rows."""
    _, height, width = shape_zyx
    rows = min(max(1, _ITK_STRIP // width), height)
    return rows, -(-height // rows)


def itk_tiff_size(shape_zyx: ShapeZYX) -> int:
    """Size in bytes of a file by :func:`write_itk_tiff`, from its shape alone."""
    depth, height, width = shape_zyx
    overhead = 190 + 8 * _itk_strips(shape_zyx)[1]
    return 8 + depth * (height * width + overhead) - 1


def write_itk_tiff(path: Path, shape_zyx: ShapeZYX, pages: Iterable[NDArray[Any]]) -> None:
    """Write uint8 pages as EPFL's ``volumedata.tif`` lays them.

    Little-endian classic TIFF. For every page: pixels, directory of 14 entries, strip offsets,
    strip byte counts, the text ``InsightToolkit``. No resolution, no description.

    Raises
    ------
    ConfigError
        The pages are not ``shape_zyx`` uint8, the strips would not fit the layout (one strip per
        page, or an odd number of bytes in a page), or the file would pass 4 GiB.
    """
    depth, height, width = shape_zyx
    rows, strips = _itk_strips(shape_zyx)
    if strips < 2 or (height * width) % 2:
        raise ConfigError(f"{shape_zyx}: this layout has several strips and pages of even size")
    if itk_tiff_size(shape_zyx) >= 2**32:
        raise ConfigError(f"{shape_zyx}: a classic TIFF ends at 4 GiB")
    counts = [rows * width] * (strips - 1) + [(height - rows * (strips - 1)) * width]
    tail = 2 + 12 * _ITK_TAGS + 4
    with path.open("wb") as file:
        at = 8
        file.write(struct.pack("<2sHI", b"II", 42, at + height * width))
        for number, content in enumerate(_take(pages, shape_zyx)):
            last = number == depth - 1
            directory = at + height * width
            after = directory + tail + 8 * strips + len(_ITK_SOFTWARE) + 1
            entries = _itk_entries(shape_zyx, rows, strips, directory + tail, number)
            following = 0 if last else after + height * width
            offsets = [at + n * rows * width for n in range(strips)]
            file.write(content)
            file.write(struct.pack("<H", _ITK_TAGS) + entries + struct.pack("<I", following))
            file.write(struct.pack(f"<{2 * strips}I", *offsets, *counts))
            file.write(_ITK_SOFTWARE + (b"" if last else b"\0"))
            at = after


def _itk_entries(shape_zyx: ShapeZYX, rows: int, strips: int, extra: int, number: int) -> bytes:
    depth, height, width = shape_zyx
    table = (
        (254, _LONG, 1, 2),
        (256, _SHORT, 1, width),
        (257, _SHORT, 1, height),
        (258, _SHORT, 1, 8),
        (259, _SHORT, 1, 1),
        (262, _SHORT, 1, 1),
        (273, _LONG, strips, extra),
        (274, _SHORT, 1, 1),
        (277, _SHORT, 1, 1),
        (278, _SHORT, 1, rows),
        (279, _LONG, strips, extra + 4 * strips),
        (284, _SHORT, 1, 1),
        (297, _SHORT, 2, number | depth << 16),
        (305, _ASCII, len(_ITK_SOFTWARE), extra + 8 * strips),
    )
    return b"".join(struct.pack("<HHII", *entry) for entry in table)


@dataclass(frozen=True)
class ImageJTexts:
    r"""What an ImageJ stack says about itself; the defaults are those of IDR image 9846137.

    Parameters
    ----------
    unit
        ImageJ writes µ as six characters, ``\u00B5``.
    spacing
        Step along z in ``unit``; ``None`` leaves the line out.
    pixels_per_million
        Numerator of both resolutions over 1,000,000, in pixels per ``unit``; ``None`` leaves
        resolution and unit out, as ImageJ does for an uncalibrated stack.
    """

    unit: str = r"\u00B5m"
    spacing: str | None = "0.02"
    pixels_per_million: int | None = 50_000_000

    def description(self, depth: int) -> bytes:
        """The text of tag 270, with its closing NUL."""
        lines = ["ImageJ=1.52p", f"images={depth}", f"slices={depth}"]
        if self.pixels_per_million is not None:
            lines.append(f"unit={self.unit}")
        if self.spacing is not None:
            lines.append(f"spacing={self.spacing}")
        lines += ["loop=false", "min=36.0", "max=199.0"]
        return ("\n".join(lines) + "\n").encode("ascii") + b"\0"

    def resolution(self) -> bytes:
        """Values of tags 282 and 283, or nothing."""
        if self.pixels_per_million is None:
            return b""
        return struct.pack(">4I", *(self.pixels_per_million, 1_000_000) * 2)


_MIRON = ImageJTexts()


def imagej_tiff_size(shape_zyx: ShapeZYX, texts: ImageJTexts = _MIRON) -> int:
    """Size in bytes of a file by :func:`write_imagej_tiff`.

    278 + planes x plane + (planes - 1) x 162 for a calibrated stack of a hundred planes or more;
    the 278 shrinks with the number of digits in the description.
    """
    depth, height, width = shape_zyx
    directory = _imagej_directory_size(texts)
    head = 8 + directory + len(texts.description(depth)) + len(texts.resolution())
    return head + depth * height * width + (depth - 1) * directory


def _imagej_directory_size(texts: ImageJTexts) -> int:
    return 2 + 12 * (10 if texts.pixels_per_million is None else 13) + 4


def write_imagej_tiff(
    path: Path,
    shape_zyx: ShapeZYX,
    pages: Iterable[NDArray[Any]],
    texts: ImageJTexts = _MIRON,
) -> None:
    """Write uint8 pages as ImageJ 1.52p lays a stack.

    Big-endian classic TIFF: the first directory, the description, the resolutions, then the
    pixels, one strip per page without gaps, then the other directories, which share the first
    one's description and resolutions.

    Raises
    ------
    ConfigError
        The pages are not ``shape_zyx`` uint8, the stack has a single plane, or the file would pass
        4 GiB (where ImageJ drops all directories but the first).
    """
    depth, height, width = shape_zyx
    if depth < 2 or imagej_tiff_size(shape_zyx, texts) >= 2**32:
        raise ConfigError(f"{shape_zyx}: this layout is for 2 planes to 4 GiB")
    page, step = height * width, _imagej_directory_size(texts)
    description = texts.description(depth)
    first = 8 + step + len(description) + len(texts.resolution())
    others = first + depth * page
    with path.open("wb") as file:
        file.write(struct.pack(">2sHI", b"MM", 42, 8))
        file.write(_imagej_directory(shape_zyx, first, others, texts))
        file.write(description + texts.resolution())
        file.writelines(_take(pages, shape_zyx))
        for number in range(1, depth):
            following = others + number * step if number < depth - 1 else 0
            file.write(_imagej_directory(shape_zyx, first + number * page, following, texts))


def _imagej_directory(shape_zyx: ShapeZYX, strip: int, following: int, texts: ImageJTexts) -> bytes:
    depth, height, width = shape_zyx
    description_at = 8 + _imagej_directory_size(texts)
    description_size = len(texts.description(depth))
    resolution_at = description_at + description_size
    table = [
        (254, _LONG, 1, 0),
        (256, _LONG, 1, width),
        (257, _LONG, 1, height),
        (258, _SHORT, 1, 8 << 16),
        (262, _SHORT, 1, 1 << 16),
        (270, _ASCII, description_size, description_at),
        (273, _LONG, 1, strip),
        (277, _SHORT, 1, 1 << 16),
        (278, _SHORT, 1, height << 16),
        (279, _LONG, 1, height * width),
    ]
    if texts.pixels_per_million is not None:
        table += [
            (282, _RATIONAL, 1, resolution_at),
            (283, _RATIONAL, 1, resolution_at + 8),
            (296, _SHORT, 1, 1 << 16),
        ]
    entries = b"".join(struct.pack(">HHII", *entry) for entry in table)
    return struct.pack(">H", len(table)) + entries + struct.pack(">I", following)
