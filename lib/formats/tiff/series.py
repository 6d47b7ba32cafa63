"""Which pages of a TIFF make which volume, according to the file itself.

Four kinds of writers are told apart: OME-TIFF, ImageJ, tifffile's own ``{"shape": ...}``, and
plain pages. Whatever the file claims to hold must be there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.calibration import VoxelSize
from lib.formats.series import Series
from lib.formats.tiff.ifd import Ifd
from lib.formats.tiff.imagej import ImageJ, imagej_notes, imagej_voxel, parse_imagej
from lib.formats.tiff.ome_series import ome_series
from lib.formats.tiff.ome_xml import is_ome, parse_ome
from lib.formats.tiff.pages import PageList
from lib.formats.tiff.resolution import resolution_voxel

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
        return ome_series(parse_ome(description, name), pages)
    imagej = parse_imagej(description, name)
    if imagej is not None:
        return [_imagej_series(imagej, pages, first)]
    shape = _stated_shape(description)
    plain = _plain_series(pages, first)
    if shape is not None and len(plain) == 1:
        return [_shaped_series(shape, plain[0], pages)]
    return plain


def _imagej_series(header: ImageJ, pages: PageList, first: Ifd) -> Series:
    planes, stacked = _all_planes(pages, header.images, "ImageJ's description")
    return Series(
        kind="imagej",
        size_tzc=(header.frames, header.slices, header.channels),
        planes_tzc=planes,
        stacked=stacked,
        voxel=imagej_voxel(header, first),
        stated_planes=header.images,
        notes=imagej_notes(header),
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


def _stated_shape(description: str) -> tuple[int, ...] | None:
    """The shape that tifffile writes as JSON."""
    if not description.startswith('{"shape"') or len(description) > 2**20:
        return None
    try:
        shape: Any = json.loads(description).get("shape")
    except (ValueError, RecursionError):
        return None
    if not isinstance(shape, list) or not all(type(n) is int and n > 0 for n in shape) or not shape:
        return None
    return tuple(shape)


def _shaped_series(shape: tuple[int, ...], plain: Series, pages: PageList) -> Series:
    kind = pages[plain.planes_tzc[0]].kind
    if shape[-1] == 1 and shape[-3:-1] == (kind.height, kind.width):
        shape = shape[:-1]  # one sample per pixel, as an axis
    if len(shape) < 2 or shape[-2:] != (kind.height, kind.width):
        raise FormatError(
            f"the description's shape {shape} contradicts pages of {kind.height} x {kind.width}",
            location=pages.source.name,
        )
    leading = [n for n in shape[:-2] if n != 1]
    if len(leading) > 1:
        raise UnsupportedFormatError(
            f"the volume has shape {shape}: more than three axes, and no names for them",
            location=pages.source.name,
        )
    stated = math.prod(leading)
    planes, stacked = _all_planes(pages, stated, f"the description's shape {shape}")
    return replace(
        plain,
        size_tzc=(1, stated, 1),
        planes_tzc=planes,
        stacked=stacked,
        stated_planes=stated,
    )


@dataclass(slots=True)
class _Group:
    planes: list[int] = field(default_factory=list)
    sub_ifds: int = 0


def _plain_series(pages: PageList, first: Ifd) -> list[Series]:
    """Pages of one kind, in file order, make one volume."""
    voxel = resolution_voxel(first)
    if pages.extrapolated:
        return [_plain(range(len(pages)), pages, voxel, 0)]
    groups: dict[Any, _Group] = {}
    for index, page in enumerate(pages.walked):
        if page.auxiliary and len(pages) > 1:
            continue
        group = groups.setdefault(page.kind, _Group())
        group.planes.append(index)
        group.sub_ifds = max(group.sub_ifds, page.sub_ifds)
    if not groups:
        raise FormatError("all pages are thumbnails or masks", location=pages.source.name)
    return [_plain(group.planes, pages, voxel, group.sub_ifds) for group in groups.values()]


def _plain(planes: Sequence[int], pages: PageList, voxel: VoxelSize, sub_ifds: int) -> Series:
    number = pages[0].number
    return Series(
        kind="pages",
        size_tzc=(1, len(planes), 1),
        planes_tzc=planes,
        voxel=voxel,
        stated_planes=number[1] if number and number[1] else None,
        notes=("lower resolutions (SubIFDs) are left out",) if sub_ifds else (),
    )
