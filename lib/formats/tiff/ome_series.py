"""The volumes of an OME-TIFF: which page holds which plane."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from lib.errors import FormatError
from lib.formats.series import Series
from lib.formats.tiff.ome_xml import OmeDocument, OmeImage, TiffData
from lib.formats.tiff.pages import PageList

_TYPES = {"float": "float32", "double": "float64"}


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
            advice="A page alone does not tell its place in the volume: fetch all files that its "
            "companion names",
        )
    if not document.images:
        raise FormatError("the OME-XML describes no image", location=name)
    own = _own_uuid(document)
    return [_one(image, own, pages, alone=len(document.images) == 1) for image in document.images]


def _own_uuid(document: OmeDocument) -> str | None:
    """The UUID under which TiffData elements speak of this very file."""
    if document.uuid is not None:
        return document.uuid
    uuids = Counter(data.uuid for image in document.images for data in image.tiff_data if data.uuid)
    return next(iter(uuids)) if len(uuids) == 1 else None


def _one(image: OmeImage, own: str | None, pages: PageList, *, alone: bool) -> Series:
    name = pages.source.name
    size_tzc = (image.size["T"], image.size["Z"], image.size["C"])
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
        for step, (t, z, c) in enumerate(_covered(image, data, len(pages))):
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


def _covered(image: OmeImage, data: TiffData, pages: int) -> Iterator[tuple[int, int, int]]:
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
    kind = pages[page].kind
    stated = (image.size["Y"], image.size["X"])
    if stated != (kind.height, kind.width):
        raise FormatError(
            f"OME-XML says {stated[0]} x {stated[1]} (y, x), the pages are {kind.height} x "
            f"{kind.width}",
            location=pages.source.name,
        )
    dtype = _TYPES.get(image.pixel_type or "", image.pixel_type)
    if dtype is not None and dtype != kind.stored.name:
        raise FormatError(
            f"OME-XML says {dtype[:20]} voxels, the pages have {kind.stored.name}",
            location=pages.source.name,
        )
