"""Which pages of a TIFF make which volume, according to the file itself.

Four kinds of writers are told apart: OME-TIFF, ImageJ, tifffile's own ``{"shape": ...}``, and
plain pages. Whatever the file claims to hold must be there.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from lib.errors import FormatError, OutOfBoundsError, UnsupportedFormatError
from lib.formats.format import Origin, VoxelSize
from lib.formats.tiff.geometry import TiffGeometry, Turn, described_geometry, page_geometry
from lib.formats.tiff.ifd import Ifd, read_ifd
from lib.formats.tiff.ome_xml import OME_TYPES, OmeDocument, OmeImage, TiffData, is_ome, parse_ome
from lib.formats.tiff.pages import PageList
from lib.formats.tiff.vendor import (
    ZEISS,
    ImageJ,
    imagej_notes,
    imagej_origin,
    imagej_voxel,
    parse_imagej,
)


@dataclass(frozen=True, slots=True)
class Series:
    """Planes of one volume.

    Attributes
    ----------
    size_tzc
        Time points, slices, channels.
    planes_tzc
        Page of each plane in C order of `size_tzc`; -1 where the file does not have it.
    stacked
        One page stands for all planes, which follow it without directories of their own.
    stated_planes
        Planes by the file's own claim; None where it makes none.
    origin
        Where the file puts the first voxel.
    facts
        Chosen facts about the recording; never a whole tag.
    refused
        Why the series is not converted; None where it is.
    """

    kind: Literal["ome", "imagej", "pages"]
    size_tzc: tuple[int, int, int]
    planes_tzc: Sequence[int]
    voxel: VoxelSize
    stacked: bool = False
    stated_planes: int | None = None
    name: str | None = None
    acquired: str | None = None
    notes: tuple[str, ...] = ()
    origin: Origin = field(default_factory=Origin)
    facts: dict[str, str | int | float] = field(default_factory=dict)
    refused: str | None = None

    def planes_z(self, channel: int | None, time: int | None, location: str) -> Sequence[int]:
        """Pages of one channel and time point, by z.

        Raises
        ------
        UnsupportedFormatError
            There are several channels or time points and none was chosen, or the series is of
            a kind that is not converted.
        OutOfBoundsError
            The chosen one is not there.
        """
        if self.refused is not None:
            raise UnsupportedFormatError(self.refused, location=location)
        times, slices, channels = self.size_tzc
        t = _choose("time", "time point", time, times, location)
        c = _choose("channel", "channel", channel, channels, location)
        if times == channels == 1:
            return self.planes_tzc
        start = t * slices * channels + c
        return self.planes_tzc[start : start + (slices - 1) * channels + 1 : channels]


def _choose(setting: str, what: str, chosen: int | None, count: int, location: str) -> int:
    if chosen is None:
        if count > 1:
            raise UnsupportedFormatError(
                f"the file has {count} {what}s, and a volume has one",
                location=location,
                advice=f"Choose one by number: {setting}=0 to {count - 1}",
            )
        return 0
    if not 0 <= chosen < count:
        raise OutOfBoundsError(f"{what} {chosen} of {count} was chosen", location=location)
    return chosen


def ome_series(document: OmeDocument, pages: PageList) -> list[Series]:
    """One series per Image element.

    Raises
    ------
    FormatError
        The metadata are in a companion file, planes are in other files or absent, or the XML
        contradicts the pages.
    """
    name = pages.source.name
    if document.companion is not None:
        raise FormatError(
            f"the OME metadata are in the companion file {document.companion[:200]!r}, which is "
            "not here (BinaryOnly)",
            location=name,
            advice="A page alone does not tell its place in the volume: give the address of the "
            "companion, with all files that it names beside it",
        )
    if not document.images:
        raise FormatError("the OME-XML describes no image", location=name)
    own = own_uuid(document)
    return [_one(image, own, pages, alone=len(document.images) == 1) for image in document.images]


def own_uuid(document: OmeDocument) -> str | None:
    """The UUID under which TiffData elements speak of this very file."""
    if document.uuid is not None:
        return document.uuid
    uuids = Counter(data.uuid for image in document.images for data in image.tiff_data if data.uuid)
    return next(iter(uuids)) if len(uuids) == 1 else None


def _one(image: OmeImage, own: str | None, pages: PageList, *, alone: bool) -> Series:
    name = pages.source.name
    size_tzc = image.size_tzc
    stated = math.prod(size_tzc)
    if stated > len(pages):
        elsewhere = sorted({data.file_name or "?" for data in image.tiff_data if data.uuid != own})
        more = f"; other files are named: {', '.join(elsewhere)[:200]}" if elsewhere else ""
        raise FormatError(
            f"OME-XML says {stated} planes (SizeZ={size_tzc[1]}, SizeC={size_tzc[2]}, "
            f"SizeT={size_tzc[0]}), the file has {len(pages)} pages{more}",
            location=name,
        )
    planes = [-1] * stated
    for data in image.tiff_data or [TiffData(0, {"Z": 0, "C": 0, "T": 0}, None)]:
        if data.uuid is not None and data.uuid != own:
            continue
        for step, (t, z, c) in enumerate(covered(image, data, len(pages))):
            page = data.ifd + step
            if page >= len(pages) or t >= size_tzc[0] or z >= size_tzc[1] or c >= size_tzc[2]:
                raise FormatError(
                    f"OME-XML puts plane z={z}, c={c}, t={t} into page {page}; the file has "
                    f"{len(pages)} pages and SizeZ={size_tzc[1]}",
                    location=name,
                )
            planes[(t * size_tzc[1] + z) * size_tzc[2] + c] = page
    absent = planes.count(-1)
    if absent:
        raise FormatError(f"{absent} of {stated} planes of the OME-XML are not here", location=name)
    if len(set(planes)) != stated:
        raise FormatError("OME-XML uses one page for several planes", location=name)
    _check_pixels(image, planes[0], pages)
    left_out = len(pages) - stated
    note = (f"{left_out} pages are not part of the OME image and are left out",)
    return Series(
        kind="ome",
        size_tzc=size_tzc,
        planes_tzc=planes,
        voxel=image.voxel,
        stated_planes=stated,
        name=image.name,
        acquired=image.acquired,
        notes=image.notes
        + (note if left_out and alone else ())
        + (("lower resolutions (SubIFDs) are left out",) if pages[planes[0]].sub_ifds else ()),
    )


def covered(image: OmeImage, data: TiffData, pages: int) -> Iterator[tuple[int, int, int]]:
    """Positions t, z, c of the planes of one TiffData, in the order of its pages."""
    axes = image.order[2:]  # fastest first
    sizes = [image.size[axis] for axis in axes]
    index = 0
    for axis, stride in zip(axes, (1, sizes[0], sizes[0] * sizes[1]), strict=True):
        index += data.first[axis] * stride
    total = math.prod(sizes)
    count = data.plane_count if data.plane_count is not None else max(0, total - index)
    for plane in range(index, index + min(count, pages + 1)):
        place = {}
        rest = plane
        for axis, size in zip(axes[:2], sizes[:2], strict=True):
            rest, place[axis] = divmod(rest, size)
        place[axes[2]] = rest
        yield place["T"], place["Z"], place["C"]


def _check_pixels(image: OmeImage, page: int, pages: PageList) -> None:
    if pages[page].refused is not None:  # which says best what it is
        return
    kind = pages[page].kind
    stated = (image.size["Y"], image.size["X"])
    if stated != (kind.height, kind.width):
        raise FormatError(
            f"OME-XML says {stated[0]} x {stated[1]} (y, x), the pages are {kind.height} x "
            f"{kind.width}",
            location=pages.source.name,
        )
    dtype = OME_TYPES.get(image.pixel_type or "", image.pixel_type)
    if dtype is not None and dtype != kind.stored.name:
        raise FormatError(
            f"OME-XML says {dtype[:20]} voxels, the pages have {kind.stored.name}",
            location=pages.source.name,
        )


DESCRIPTION = 270


def list_series(pages: PageList, first: Ifd) -> list[Series]:
    """All volumes of the file, in its own order.

    Raises
    ------
    FormatError
        The file holds less than it claims, or contradicts itself.
    UnsupportedFormatError
        The planes have more axes than are understood.
    """
    name = pages.source.name
    number = pages[0].number
    if number is not None and number[1] > len(pages):
        raise FormatError(
            f"PageNumber says {number[1]} pages, {len(pages)} are there", location=name
        )
    description = first.text(DESCRIPTION) or ""
    if is_ome(description):
        found = ome_series(parse_ome(description, name), pages)
        return [_described(series, pages, first) for series in found]
    imagej = parse_imagej(description, name)
    if imagej is not None:
        return [_described(_imagej_series(imagej, pages, first), pages, first)]
    stated = _stated_shape(description)
    plain = _plain_series(pages, first)
    if stated is not None and len(plain) == 1 and plain[0].refused is None:
        return [_shaped_series(stated, plain[0], pages)]
    return plain


def _described(series: Series, pages: PageList, first: Ifd) -> Series:
    """A series of a description, with what tags say beside it; rows and columns are its own."""
    page = pages[series.planes_tzc[0] if not series.stacked else 0]
    if page.refused is not None:
        return replace(series, refused=page.refused)
    if Turn.of(page.kind.orientation).swapped:
        why = (
            f"Orientation {page.kind.orientation} turns rows into columns, which contradicts the "
            "axes of the file's description"
        )
        return replace(series, refused=why)
    found = described_geometry(first, page, series.voxel)
    return replace(
        series, voxel=found.voxel, notes=(*series.notes, *found.notes), facts=found.facts
    )


def _imagej_series(header: ImageJ, pages: PageList, first: Ifd) -> Series:
    planes, stacked = _all_planes(pages, header.images, "ImageJ's description")
    return Series(
        kind="imagej",
        size_tzc=(header.frames, header.slices, header.channels),
        planes_tzc=planes,
        stacked=stacked,
        voxel=imagej_voxel(header, first),
        stated_planes=header.images,
        origin=imagej_origin(header),
        notes=imagej_notes(header, first),
    )


def _all_planes(pages: PageList, stated: int, who: str) -> tuple[Sequence[int], bool]:
    """Plane indices, and whether one page stands for all of them (files above 4 GB)."""
    if len(pages) == stated:
        return range(stated), False
    if len(pages) != 1:
        raise FormatError(
            f"{who} says {stated} planes, the file has {len(pages)} pages",
            location=pages.source.name,
        )
    page = pages[0]
    if page.data_offset is None:
        raise FormatError(
            f"{who} says {stated} planes, but there is one page and it is not in one piece",
            location=pages.source.name,
        )
    kind = page.kind
    needed = page.data_offset + stated * kind.height * kind.width * kind.stored.itemsize
    if needed > pages.source.size:
        raise FormatError(
            f"{who} says {stated} planes, for which the file would need {needed} bytes; it has "
            f"{pages.source.size}",
            location=pages.source.name,
        )
    return range(stated), True


Shape = tuple[tuple[int, ...], str]
"""Lengths of axes, and a letter for each where they are named."""


def _stated_shape(description: str) -> Shape | None:
    """The shape and the axes that tifffile writes as JSON."""
    if not description.startswith('{"shape"') or len(description) > 2**20:
        return None
    try:
        document: Any = json.loads(description)
        shape, axes = document.get("shape"), document.get("axes")
    except (ValueError, RecursionError, AttributeError):
        return None
    if not isinstance(shape, list) or not all(type(n) is int and n > 0 for n in shape) or not shape:
        return None
    named = isinstance(axes, str) and len(axes) == len(shape)
    return tuple(shape), axes.upper() if named else "Q" * len(shape)


def _shaped_series(stated_shape: Shape, plain: Series, pages: PageList) -> Series:
    shape, axes = stated_shape
    kind = pages[plain.planes_tzc[0]].kind
    notes = plain.notes
    if shape[-1] == 1 and shape[-3:-1] == (kind.height, kind.width):
        said = f"the description's shape {shape}"
        if axes[-1] == "X":  # tifffile makes rows of what it takes for one sample per pixel
            why = f"{said} with axes {axes} says rows of one voxel, the pages are {shape[-3:-1]}"
            return replace(plain, refused=why)
        if axes[-1] == "Q":
            notes += (f"{said} is taken for rows, columns and one sample per pixel",)
        shape = shape[:-1]
    if len(shape) < 2 or shape[-2:] != (kind.height, kind.width):
        raise FormatError(
            f"the description's shape {shape} contradicts pages of {kind.height} x {kind.width}",
            location=pages.source.name,
        )
    named = [(n, a) for n, a in zip(shape[:-2], axes, strict=False) if n != 1]
    stated = math.prod(n for n, _ in named)
    letters = "".join(letter for _, letter in named)
    sizes = {letter: n for n, letter in named}
    if len(named) > 1 and not (len(sizes) == len(named) and {*sizes} <= {*"TZC"}):
        raise UnsupportedFormatError(
            f"the volume has shape {shape}: more than three axes, and no names for them that are "
            f"T, Z, C ({axes})",
            location=pages.source.name,
        )
    if stated == 1 and len(pages) > 1:  # written plane by plane, each with its own description
        return plain
    planes, stacked = _all_planes(pages, stated, f"the description's shape {shape}")
    if len(named) == 1 and letters in "TCS":
        notes += (f"the description calls the axis of the planes {letters}; it is taken for z",)
    if letters in ("Y", "X") or axes[len(shape) - 2 : len(shape)] not in ("YX", "QQ"):
        notes += (f"the description calls the axes {axes}; they are taken for z, y, x",)
    size_tzc = (1, stated, 1)
    if len(named) > 1:
        size_tzc = (sizes.get("T", 1), sizes.get("Z", 1), sizes.get("C", 1))
        order = [letters.index(letter) for letter in "TZC" if letter in sizes]
        numbers = np.arange(stated).reshape([n for n, _ in named]).transpose(order)
        planes = [planes[number] for number in numbers.ravel().tolist()]
    return replace(
        plain,
        size_tzc=size_tzc,
        planes_tzc=planes,
        stacked=stacked,
        stated_planes=stated,
        notes=notes,
    )


@dataclass(slots=True)
class _Group:
    planes: list[int] = field(default_factory=list)
    sub_ifds: int = 0


def _plain_series(pages: PageList, first: Ifd) -> list[Series]:
    """Pages of one kind, in file order, make one volume."""
    if pages.extrapolated:
        return [_plain(range(len(pages)), pages, first, 0)]
    groups: dict[Any, _Group] = {}
    for index, page in enumerate(pages.walked):
        if page.auxiliary and len(pages) > 1:
            continue
        group = groups.setdefault((page.kind, page.refused), _Group())
        group.planes.append(index)
        group.sub_ifds = max(group.sub_ifds, page.sub_ifds)
    if not groups:
        raise FormatError("all pages are thumbnails or masks", location=pages.source.name)
    return [_plain(group.planes, pages, first, group.sub_ifds) for group in groups.values()]


def _plain(planes: Sequence[int], pages: PageList, first: Ifd, sub_ifds: int) -> Series:
    page, number = pages[planes[0]], pages[0].number
    ifd = first if planes[0] == 0 else read_ifd(pages.source, pages.header, page.ifd_offset)
    found = TiffGeometry() if page.refused is not None else page_geometry(ifd, page)
    notes = found.notes + _other_resolutions(planes, pages)
    if ZEISS in ifd.entries and len(planes) > 1:
        notes += ("pages of a Zeiss microscope may be of several detectors; they are taken for z",)
    return Series(
        kind="pages",
        size_tzc=(1, len(planes), 1),
        planes_tzc=planes,
        voxel=found.voxel,
        stated_planes=number[1] if number and number[1] else None,
        notes=notes + (("lower resolutions (SubIFDs) are left out",) if sub_ifds else ()),
        origin=found.origin,
        facts=found.facts,
        refused=page.refused,
    )


def _other_resolutions(planes: Sequence[int], pages: PageList) -> tuple[str, ...]:
    """Pages that state another pixel size than the first of their volume."""
    if pages.extrapolated:
        return ()
    first = pages[planes[0]].resolution
    others = [
        plane
        for plane in planes
        if (own := pages[plane].resolution) != first and own is not None and own[0] is not None
    ]
    if not others:
        return ()
    has = f"and {len(others) - 1} more have" if len(others) > 1 else "has"
    return (f"page {others[0]} {has} another resolution than page {planes[0]}",)
