"""OME-XML (2016-06 and earlier) as it stands in the description of an OME-TIFF.

The text is untrusted: no entities, no DTD, no external references, and no tree is built of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException  # type: ignore[import-untyped,unused-ignore]
from defusedxml.ElementTree import DefusedXMLParser  # type: ignore[import-untyped,unused-ignore]

from lib.errors import FormatError
from lib.formats.format import VoxelSize, stated_nm
from lib.geometry import nm_per

ORDERS = ("XYZCT", "XYZTC", "XYCTZ", "XYCZT", "XYTCZ", "XYTZC")
OME_TYPES = {"float": "float32", "double": "float64", "bit": "uint8"}
_DTYPES = frozenset(
    ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
)  # fmt: skip
_ROOT = re.compile(r"<(?:\w+:)?OME[\s>/]")


@dataclass(slots=True)
class TiffData:
    """Which planes lie in which pages: `plane_count` of them from page `ifd` on."""

    ifd: int
    first: dict[str, int]  # Z, C, T
    plane_count: int | None
    uuid: str | None = None
    file_name: str | None = None


@dataclass(slots=True)
class OmeImage:
    """One Image element with its Pixels."""

    name: str | None
    size: dict[str, int] = field(default_factory=dict)  # X, Y, Z, C, T
    order: str = "XYZCT"
    pixel_type: str | None = None
    physical: dict[str, tuple[str, str]] = field(default_factory=dict)  # axis: value, unit
    acquired: str | None = None
    tiff_data: list[TiffData] = field(default_factory=list)
    position: dict[str, str] = field(default_factory=dict)  # of the first plane that states one

    @property
    def size_tzc(self) -> tuple[int, int, int]:
        """Time points, slices, channels."""
        return (self.size["T"], self.size["Z"], self.size["C"])

    @property
    def dtype(self) -> str | None:
        """numpy name of the voxels' type; None where none is stated, or none is read."""
        name = OME_TYPES.get(self.pixel_type or "", self.pixel_type)
        return name if name in _DTYPES else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What is said of lengths and places, and not applied."""
        notes = [
            f"OME-XML gives PhysicalSize{axis} in {unit[:40]!r}, which is no length"
            for axis, (_, unit) in self.physical.items()
            if nm_per(unit) is None
        ]
        notes += [
            f"OME-XML gives PhysicalSize{axis} as {text[:40]!r}, which is no length"
            for axis, (text, unit) in self.physical.items()
            if nm_per(unit) is not None and _is_set(text) and self._physical_nm(axis) is None
        ]
        if any(_is_set(value) for value in self.position.values()):
            said = ", ".join(f"{key[-1]} {value[:40]}" for key, value in self.position.items())
            notes.append(f"OME-XML states the stage's position ({said}), which is not applied")
        return tuple(notes)

    @property
    def voxel(self) -> VoxelSize:
        """PhysicalSize of the three axes; the schema's default unit is µm."""
        z_nm, y_nm, x_nm = (self._physical_nm(axis) for axis in "ZYX")
        if z_nm is y_nm is x_nm is None:
            return VoxelSize()
        return VoxelSize(z_nm, y_nm, x_nm, provenance="OME-XML PhysicalSize")

    def _physical_nm(self, axis: str) -> float | None:
        return stated_nm(*self.physical.get(axis, ("nan", "")))


@dataclass(slots=True)
class OmeDocument:
    """The images of one file. `companion` names the file that has the metadata instead."""

    uuid: str | None = None
    companion: str | None = None
    images: list[OmeImage] = field(default_factory=list)


class _Target:
    """Receives the parser's events and keeps what `OmeDocument` has room for."""

    def __init__(self) -> None:
        self.document = OmeDocument()
        self._path: list[str] = []
        self._text: list[str] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        local = tag.rpartition("}")[2]
        parent = self._path[-1] if self._path else ""
        self._path.append(local)
        self._text.clear()
        handler: Callable[[dict[str, str]], None] | None = {
            ("", "OME"): self._ome,
            ("OME", "BinaryOnly"): self._binary_only,
            ("OME", "Image"): self._image,
            ("Image", "Pixels"): self._pixels,
            ("Pixels", "TiffData"): self._tiff_data,
            ("Pixels", "Plane"): self._plane,
            ("TiffData", "UUID"): self._uuid,
        }.get((parent, local))
        if handler is not None:
            handler(attributes)

    def data(self, text: str) -> None:
        if self._path and self._path[-1] in ("UUID", "AcquisitionDate", "AcquiredDate"):
            self._text.append(text)

    def end(self, tag: str) -> None:
        local = self._path.pop()
        parent = self._path[-1] if self._path else ""
        text = "".join(self._text).strip()
        images = self.document.images
        if (parent, local) == ("TiffData", "UUID") and images and images[-1].tiff_data:
            images[-1].tiff_data[-1].uuid = text or None
        elif parent == "Image" and local in ("AcquisitionDate", "AcquiredDate") and images:
            images[-1].acquired = text or None
        self._text.clear()

    def close(self) -> OmeDocument:
        return self.document

    def _ome(self, attributes: dict[str, str]) -> None:
        self.document.uuid = attributes.get("UUID")

    def _binary_only(self, attributes: dict[str, str]) -> None:
        self.document.companion = attributes.get("MetadataFile", "a companion file")

    def _image(self, attributes: dict[str, str]) -> None:
        self.document.images.append(OmeImage(attributes.get("Name")))

    def _pixels(self, attributes: dict[str, str]) -> None:
        image = self.document.images[-1]
        image.size = {axis: _count(attributes, f"Size{axis}", least=1) for axis in "XYZCT"}
        image.order = attributes.get("DimensionOrder", "XYZCT")
        if image.order not in ORDERS:
            raise ValueError(f"DimensionOrder {image.order[:20]!r} is none of OME's")
        image.pixel_type = attributes.get("Type") or attributes.get("PixelType")
        for axis in "XYZ":
            value = attributes.get(f"PhysicalSize{axis}")
            if value is not None:
                image.physical[axis] = (value, attributes.get(f"PhysicalSize{axis}Unit", "µm"))

    def _tiff_data(self, attributes: dict[str, str]) -> None:
        stated = "IFD" in attributes
        counted = "PlaneCount" in attributes or "NumPlanes" in attributes
        key = "PlaneCount" if "PlaneCount" in attributes else "NumPlanes"
        count = _count(attributes, key, least=0) if counted else (1 if stated else None)
        first = {axis: _count(attributes, f"First{axis}", default=0) for axis in "ZCT"}
        ifd = _count(attributes, "IFD", default=0)
        self.document.images[-1].tiff_data.append(TiffData(ifd, first, count))

    def _plane(self, attributes: dict[str, str]) -> None:
        image = self.document.images[-1]
        if not image.position:
            image.position = {
                key: f"{attributes[key]} {attributes.get(key + 'Unit', '')}".strip()
                for key in ("PositionX", "PositionY", "PositionZ")
                if key in attributes
            }

    def _uuid(self, attributes: dict[str, str]) -> None:
        self.document.images[-1].tiff_data[-1].file_name = attributes.get("FileName")


def _is_set(position: str) -> bool:
    try:
        return float(position.partition(" ")[0]) != 0
    except ValueError:
        return False


def _count(
    attributes: dict[str, str], key: str, *, least: int = 0, default: int | None = None
) -> int:
    text = attributes.get(key)
    if text is None and default is not None:
        return default
    if text is None or not (text.isascii() and text.isdigit() and len(text) < 12):
        raise ValueError(f"{key} is {text and text[:20]!r} instead of a count")
    if int(text) < least:
        raise ValueError(f"{key} is {text}")
    return int(text)


def is_ome(description: str) -> bool:
    """True if the description is OME-XML."""
    return description.lstrip("\ufeff \t\r\n").startswith("<") and bool(_ROOT.search(description))


def parse_ome(description: str, name: str) -> OmeDocument:
    """Read OME-XML.

    Raises
    ------
    FormatError
        The XML is broken, declares entities or a DTD, or lacks what the schema requires.
    """
    parser: Any = DefusedXMLParser(
        target=_Target(), forbid_dtd=True, forbid_entities=True, forbid_external=True
    )
    try:
        parser.feed(description.lstrip("\ufeff \t\r\n"))
        document: OmeDocument = parser.close()
    except (ParseError, DefusedXmlException, ValueError, IndexError) as error:
        raise FormatError(f"the OME-XML of the file is invalid ({error})", location=name) from error
    if any(not image.size for image in document.images):
        raise FormatError("the OME-XML has an Image without Pixels", location=name)
    return document
