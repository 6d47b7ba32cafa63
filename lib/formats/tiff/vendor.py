"""Pixel sizes that microscopes write into private tags of a TIFF, and ImageJ into its description.

Sources: real Helios files (``[Scan] PixelWidth``, ``DatabarHeight``); three real Zeiss files, whose
"Pixel Size" is that of a screen of 1024 columns; rosettasciio (which fields hold what); NexusLIMS
and odemis#2596 (TESCAN); bioformats#1942 and tifffile#141 (FEI's XML). Tags are never copied: they
carry the names of persons, paths and serial numbers.

ImageJ: ``key=value`` lines, measured on a file of ImageJ 1.52p: ``images``, ``slices``,
``unit=\\u00B5m`` (the escape is literal), ``spacing`` (z, in the unit). In-plane pixels per unit
are in the resolution fields.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException  # type: ignore[import-untyped,unused-ignore]
from defusedxml.ElementTree import DefusedXMLParser  # type: ignore[import-untyped,unused-ignore]

from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.format import Origin, VoxelSize, pixel_nm, positive, stated_nm
from lib.formats.tiff.ifd import Ifd
from lib.geometry import nm_per, to_nm

SFEG, HELIOS, TITAN, ZEISS, TESCAN = 34680, 34682, 34683, 34118, 50431
_LARGEST_TAG = 2**20  # bytes; real ones have some kilobytes
_ZEISS_SCREEN = 1024  # columns of the image to which AP_PIXEL_SIZE belongs
_NUMBER = r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?"
# Tags of others that hold a pixel size, and are not read.
_UNREAD = {
    33560: "Olympus SIS",
    33628: "MetaMorph",
    34412: "Zeiss LSM",
    37706: "TVIPS",
    51023: "Fibics Atlas",
    65009: "Gatan",
}


@dataclass(frozen=True, slots=True)
class VendorFacts:
    """What private tags say: pixel size in plane, doubts, and facts fit for a record."""

    voxel: VoxelSize = field(default_factory=VoxelSize)
    notes: tuple[str, ...] = ()
    facts: dict[str, str | int | float] = field(default_factory=dict)


def vendor_facts(ifd: Ifd, height: int, width: int) -> VendorFacts:
    """Read the private tags of one directory; nothing where it has none.

    Parameters
    ----------
    height, width
        Of the page, data bar included.
    """
    readers: dict[int, Callable[[bytes, int, int], VendorFacts]] = {
        HELIOS: _fei, SFEG: _fei, TITAN: _fei, ZEISS: _zeiss, TESCAN: _tescan,
    }  # fmt: skip
    names = {HELIOS: "FEI Helios", SFEG: "FEI SFEG", TITAN: "FEI Titan", ZEISS: "Zeiss",
             TESCAN: "TESCAN"}  # fmt: skip
    found = VendorFacts()
    notes: list[str] = []
    for tag, read in readers.items():
        if tag not in ifd.entries:
            continue
        who = f"{names[tag]} (tag {tag})"
        data = ifd.raw(tag, limit=_LARGEST_TAG)
        if data is None:
            notes.append(f"the metadata of {who} are too large and are not read")
            continue
        one = read(data, height, width)
        notes += [f"{who}: {note}" for note in one.notes]
        facts = found.facts | one.facts
        size = (one.voxel.y_nm, one.voxel.x_nm)
        if found.voxel.x_nm is None and any(size):
            found = VendorFacts(VoxelSize(None, *size, provenance=who), facts=facts)
        else:
            found = VendorFacts(found.voxel, facts=facts)
            notes += _disagreement(who, one.voxel, found.voxel)
        if not any(size):
            notes.append(f"{who}: no pixel size is found in it")
    notes += [
        f"the file has metadata of {name} (tag {tag}), which are not read"
        for tag, name in _UNREAD.items()
        if tag in ifd.entries
    ]
    return VendorFacts(found.voxel, tuple(notes), found.facts)


def _disagreement(who: str, other: VoxelSize, taken: VoxelSize) -> list[str]:
    if other.x_nm is None or taken.x_nm is None or abs(other.x_nm / taken.x_nm - 1) < 0.01:
        return []
    said = f"{who} says {other.x_nm:g} nm along x"
    return [f"{said}, {taken.provenance} {taken.x_nm:g} nm, which was taken"]


def _metres(text: str | None) -> float | None:
    """Nanometres of a length in metres that can be a pixel's; zero and nonsense are none."""
    length = stated_nm(text or "", "m")
    return float(f"{length:.9g}") if length is not None and 1e-4 < length < 1e9 else None


# --- FEI and Thermo Fisher ----------------------------------------------------------------------


def _fei(data: bytes, height: int, width: int) -> VendorFacts:
    text = data.decode("utf-8", errors="replace").strip("\0 \ufeff\t\r\n")
    if text.startswith("<"):
        return VendorFacts(_fei_xml(text))
    values = _ini(text)
    x_nm = _metres(values.get(("scan", "pixelwidth")))
    y_nm = _metres(values.get(("scan", "pixelheight")))
    columns, rows = (_count(values.get(("image", key))) for key in ("resolutionx", "resolutiony"))
    if x_nm is None and columns:  # frames of the navigation camera have no [Scan]
        view = _metres(values.get(("irbeam", "hfw")))
        x_nm = y_nm = None if view is None else float(f"{view / columns:.9g}")
    notes: list[str] = []
    facts: dict[str, str | int | float] = {}
    if columns and columns != width:
        notes.append(
            f"its pixel size is that of an image of {columns} columns, and the page has {width}: "
            "it is not taken"
        )
        x_nm = y_nm = None
    if rows and rows < height:
        facts |= {"data_bar_first_row": rows, "data_bar_rows": height - rows}
        notes.append(
            f"rows {rows} to {height - 1} are the data bar that the microscope wrote into the "
            f"image; they are kept (box: y=0:{rows} leaves them out)"
        )
    return VendorFacts(VoxelSize(None, y_nm, x_nm), tuple(notes), facts)


def _ini(text: str) -> dict[tuple[str, str], str]:
    """``key=value`` lines below ``[section]`` lines; names in lower case, the first of each."""
    found: dict[tuple[str, str], str] = {}
    section = ""
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip().lower()
        elif "=" in line:
            key, _, value = line.partition("=")
            found.setdefault((section, key.strip().lower()), value.strip())
    return found


def _count(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 9 else None


class _PixelSizeTarget:
    """Finds ``PixelSize`` with its X and Y (or Width and Height), as elements or as named items."""

    def __init__(self) -> None:
        self.metres: dict[str, str] = {}
        self._path: list[str] = []
        self._inside = 0  # depth of the element, or -1 after an item of that name
        self._axis = ""
        self._text: list[str] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._path.append(tag.rpartition("}")[2].lower())
        self._text.clear()
        if not self._inside and self._path[-1] in ("pixelsize", "pixelssize"):
            self._inside = len(self._path)

    def data(self, text: str) -> None:
        if len(self._text) < 8:
            self._text.append(text[:200])

    def end(self, tag: str) -> None:
        name, text = self._path.pop(), "".join(self._text).strip()
        self._text.clear()
        if name in ("name", "string") and text.lower() == "pixelsize":
            self._inside = self._inside or -1
        elif self._inside == -1 and name in ("name", "string"):
            self._axis = {"width": "x", "height": "y"}.get(text.lower(), self._axis)
        elif self._inside == -1 and name == "anytype" and self._axis:
            self.metres.setdefault(self._axis, text)
            self._axis = ""
            self._inside = 0 if len(self.metres) == 2 else -1
        elif self._inside > 0:
            axis = {"x": "x", "y": "y", "width": "x", "height": "y"}.get(name)
            if axis is not None and text:
                self.metres.setdefault(axis, text)
            if len(self._path) < self._inside:
                self._inside = 0

    def close(self) -> dict[str, str]:
        return self.metres


def _fei_xml(text: str) -> VoxelSize:
    """The pixel size of FEI's XML, in metres; nothing where it is broken or has none."""
    parser: Any = DefusedXMLParser(
        target=_PixelSizeTarget(), forbid_dtd=True, forbid_entities=True, forbid_external=True
    )
    try:
        parser.feed(text)
        metres: dict[str, str] = parser.close()
    except (ParseError, DefusedXmlException, ValueError, IndexError):
        return VoxelSize()
    return VoxelSize(None, _metres(metres.get("y")), _metres(metres.get("x")))


# --- Zeiss --------------------------------------------------------------------------------------


def _zeiss(data: bytes, height: int, width: int) -> VendorFacts:
    """Image Pixel Size; else the fourth of the untitled numbers, or Pixel Size, of 1024 columns."""
    text = data.decode("latin-1").strip("\0")
    own = _zeiss_length(text, "AP_IMAGE_PIXEL_SIZE")
    if own is None:
        numbers = text.split("AP_", 1)[0].split("\n")[:4]
        listed = _metres(numbers[3].strip()) if len(numbers) == 4 else None
        shown = listed if listed is not None else _zeiss_length(text, "AP_PIXEL_SIZE")
        own = None if shown is None else float(f"{shown * _ZEISS_SCREEN / width:.9g}")
    return VendorFacts(VoxelSize(None, own, own))


def _zeiss_length(text: str, key: str) -> float | None:
    """``KEY`` on one line, ``Name = number unit`` on the next."""
    match = re.search(rf"^{key}\s*$[^=]*=\s*({_NUMBER})\s*(\S+)?", text, re.MULTILINE)
    if match is None:
        return None
    length = stated_nm(match[1], match[2] or "")
    return float(f"{length:.9g}") if length is not None else None


# --- TESCAN -------------------------------------------------------------------------------------


def _tescan(data: bytes, height: int, width: int) -> VendorFacts:
    """``PixelSizeX`` and ``PixelSizeY`` in metres, in whichever of the binary chunks they lie."""

    def length(key: bytes) -> float | None:
        match = re.search(rb"(?<![A-Za-z])" + key + rb"\s*=\s*(" + _NUMBER.encode() + rb")", data)
        return None if match is None else _metres(match[1].decode())

    return VendorFacts(VoxelSize(None, length(b"PixelSizeY"), length(b"PixelSizeX")))


X_RESOLUTION, Y_RESOLUTION = 282, 283
LARGEST_NM = 20_000.0  # a larger "pixel" is a printing resolution such as 72 or 300 dots an inch


@dataclass(frozen=True, slots=True)
class ImageJ:
    """ImageJ's own claims. Planes lie in the order t, z, c with c fastest."""

    images: int
    channels: int
    slices: int
    frames: int
    values: dict[str, str]


def parse_imagej(description: str, name: str) -> ImageJ | None:
    """Read a description; None if neither ImageJ nor SCIFIO (ImageJ2) wrote it.

    Raises
    ------
    FormatError
        A count is no number, or the counts contradict each other.
    UnsupportedFormatError
        SCIFIO wrote planes in another order than ImageJ does.
    """
    if not description.startswith(("ImageJ=", "SCIFIO=")):
        return None
    values: dict[str, str] = {}
    for line in description.splitlines():
        key, separator, value = line.partition("=")
        if separator:
            values.setdefault(key.strip(), value.strip())

    def count(key: str) -> int | None:
        text = values.get(key)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text)):
            raise FormatError(f"ImageJ's {key}={text[:40]!r} is not a count", location=name)
        return int(text)

    if "ImageJ" not in values and "images" not in values:
        return None
    order = [axis for axis in _list(values, "axes") if axis not in ("X", "Y")]
    if order != sorted(order, key=_SCIFIO_ORDER.find):
        raise UnsupportedFormatError(
            f"SCIFIO's planes in the order {values['axes'][:100]}", location=name
        )
    stated = {key: count(key) for key in ("images", "channels", "slices", "frames")}
    images = stated["images"] or 1
    channels, slices, frames = (stated[key] or 1 for key in ("channels", "slices", "frames"))
    if not any(stated[key] for key in ("channels", "slices", "frames")):
        slices = images  # a plain stack of early versions
    if "images" not in values:
        images = channels * slices * frames
    if channels * slices * frames != images:
        raise FormatError(
            f"ImageJ's images={images} contradicts channels={channels}, slices={slices}, "
            f"frames={frames}",
            location=name,
        )
    return ImageJ(images, channels, slices, frames, values)


_SCIFIO_ORDER = "Channel, Z, Time"  # fastest first


def _list(values: dict[str, str], key: str) -> list[str]:
    return [part.strip() for part in values.get(key, "").split(",")] if key in values else []


def imagej_voxel(header: ImageJ, ifd: Ifd) -> VoxelSize:
    """Voxel size by ImageJ's rules; lengths without a unit of length are unknown.

    So are those of a picture that came with a printing resolution, in pixels per inch or cm.
    """
    unit = header.values.get("unit", "")
    if "scales" in header.values:
        columns = (_list(header.values, key) for key in ("axes", "scales", "units"))
        found = {axis: (scale, unit) for axis, scale, unit in zip(*columns, strict=False)}
        z, y, x = (stated_nm(*found.get(axis, ("", ""))) for axis in "ZYX")
        return VoxelSize(z, y, x, "SCIFIO description") if z or y or x else VoxelSize()

    def in_plane(tag: int, unit: str) -> float | None:
        return pixel_nm(ifd.ratio(tag), unit)

    try:
        spacing = float(header.values.get("spacing", "nan"))
    except ValueError:
        spacing = math.nan
    sizes = (
        positive(to_nm(abs(spacing), header.values.get("zunit", unit))),  # as ImageJ takes it
        in_plane(Y_RESOLUTION, header.values.get("yunit", unit)),
        in_plane(X_RESOLUTION, unit),
    )
    if not any(sizes) or _printed(header, sizes):
        return VoxelSize()
    return VoxelSize(*sizes, provenance="ImageJ description and TIFF resolution")


def _printed(header: ImageJ, sizes: tuple[float | None, ...]) -> bool:
    in_print = (nm_per(header.values.get("unit", "")) or 0) >= 1e7  # inch, cm
    return in_print and any(size is not None and size > LARGEST_NM for size in sizes[1:])


def imagej_origin(header: ImageJ) -> Origin:
    """Where the first voxel lies: ImageJ names the pixel that is zero, axis by axis."""

    def zero(axis: str) -> float:
        try:
            value = float(header.values.get(f"{axis}origin", "0"))
        except ValueError:
            return 0.0
        return value if math.isfinite(value) else 0.0

    z, y, x = (-zero(axis) for axis in "zyx")
    if not (z or y or x):
        return Origin()
    return Origin(voxels_zyx=(z, y, x), provenance="ImageJ description (xorigin, yorigin, zorigin)")


def imagej_notes(header: ImageJ, ifd: Ifd) -> tuple[str, ...]:
    """What ImageJ would do to values and axes that a plain reader does not."""
    notes: list[str] = []
    unit, ratio = header.values.get("unit", ""), ifd.ratio(X_RESOLUTION)
    if ratio is not None and _printed(header, (None, None, pixel_nm(ratio, unit))):
        notes.append(f"ImageJ's {ratio:g} pixels per {unit[:40]} are none of a microscope")
    if header.values.get("cf") == "0" and "c0" in header.values:
        c0, c1 = header.values["c0"][:20], header.values.get("c1", "1")[:20]
        notes.append(f"ImageJ calibration not applied: value = {c0} + {c1} * stored")
    if header.values.get("inverty") == "true":
        notes.append("ImageJ's y axis runs upwards (inverty); rows are kept in their order")
    for key in ("unit", "yunit", "zunit"):
        unit = header.values.get(key, "")
        if unit and nm_per(unit) is None:
            notes.append(f"ImageJ's {key} {unit[:40]!r} is no length")
    return tuple(notes)
