"""OME-TIFF of several files: one OME-XML, in a TIFF or a companion, names those beside it.

docs.openmicroscopy.org/ome-model, "Multi-file OME-TIFF filesets". Each plane is a page of a file
that a TiffData element names; a file that has a UUID must be the one that is meant.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import closing
from functools import lru_cache, partial
from urllib.parse import unquote

import numpy as np

from lib.bytesource.base import ByteSource, FilePart, JoinedBytes, header_size, sibling_name
from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.base import VolumeReader, delivered_dtype
from lib.formats.format import Origin, VoxelSize
from lib.formats.planes import Section
from lib.formats.tiff.geometry import Turn
from lib.formats.tiff.ifd import TiffHeader, read_header, read_ifd
from lib.formats.tiff.ome_xml import OmeDocument, OmeImage, TiffData, is_ome, parse_ome
from lib.formats.tiff.page import Page, read_any_page
from lib.formats.tiff.pages import MAX_PAGES, PageList, list_pages
from lib.formats.tiff.reader import TiffReader, TiffVolume, notes_of
from lib.formats.tiff.series import DESCRIPTION, covered, own_uuid

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0")
_FILE_NAME = re.compile(r"""FileName=["']([^"']*)["']""")
_UUID = re.compile(r"""<(?:\w+:)?OME\b[^>]*?\bUUID=["']([^"']*)["']""")
_MOST_XML = 64 * 2**20
_OPEN_FILES = 16  # whose pages are known at once
_OWN = ""  # the file that has the OME-XML

Plane = tuple[str, int, str | None]
"""File and page of a plane, and the UUID that the file must have."""


class OmeSet:
    """The images of an OME-XML, and the file and page of each of their planes."""

    def __init__(self, source: ByteSource, document: OmeDocument, *, companion: bool) -> None:
        self.source, self.images, self._companion = source, document.images, companion
        stated = max((math.prod(image.size_tzc) for image in self.images), default=0)
        if stated > MAX_PAGES:
            raise FormatError(f"OME-XML says {stated} planes", location=source.name)
        self._own = document.uuid if companion else own_uuid(document)
        every = (data for image in document.images for data in image.tiff_data)
        self._names = {one.uuid: one.file_name for one in every if one.uuid and one.file_name}
        self._known: dict[int, dict[int, Plane]] = {}  # of each image that was asked for

    def beside(self, series: int, channel: int | None, time: int | None) -> tuple[str, ...]:
        """Names of the other files that hold planes of a volume.

        Raises
        ------
        FormatError
            The OME-XML leaves planes out, or gives a page or a plane twice.
        """
        names = dict.fromkeys(file for file, _, _ in self._planes_z(series, channel, time))
        return tuple(name for name in names if name != _OWN)

    def sections(self, series: int, channel: int | None, time: int | None) -> list[Section]:
        """The planes of a volume, by z; each is opened while it is read."""
        image = self.images[series]
        shape, dtype = (image.size["Y"], image.size["X"]), np.dtype(image.dtype or "uint8")
        pages_of = lru_cache(_OPEN_FILES)(self._pages)
        return [
            Section(
                place[0] or self.source.name, shape, dtype, partial(self._open, place, pages_of)
            )
            for place in self._planes_z(series, channel, time)
        ]

    def checked(self, series: int, channel: int | None, time: int | None) -> tuple[str, ...]:
        """Look at the first plane of a volume and of its last file; returns what is to be noted.

        Raises
        ------
        FormatError
            A page is none of the size and type that the OME-XML says.
        """
        image, places = self.images[series], self._planes_z(series, channel, time)
        said, notes = (image.size["Y"], image.size["X"], image.dtype), tuple[str, ...]()
        for place in (places[0], next(one for one in places if one[0] == places[-1][0])):
            page, where = self._page(*place)
            if page.refused is not None:
                raise UnsupportedFormatError(page.refused, location=where)
            kind = page.kind
            found = (kind.height, kind.width, delivered_dtype(kind.stored).name)
            if found != said:
                raise FormatError(
                    f"OME-XML says planes of {said[:2]} {said[2]}, the file has {found[:2]} "
                    f"{found[2]}",
                    location=where,
                )
            notes = notes_of(kind)
            notes += ("lower resolutions (SubIFDs) are left out",) if page.sub_ifds else ()
        return notes

    def _page(self, name: str, number: int, uuid: str | None) -> tuple[Page, str]:
        """A page, and where it is; the first one without a walk over all of a remote file."""
        part = self._part(name)
        if part is None or number > 0:
            pages = self._pages(name, uuid)
            return _page_of(pages, number), pages.source.name
        with closing(part.open()) as source:
            header = _header(source, None if name == _OWN else uuid)
            return read_any_page(read_ifd(source, header, header.first_ifd)), source.name

    def _planes_z(self, series: int, channel: int | None, time: int | None) -> list[Plane]:
        if not 0 <= series < len(self.images):
            raise FormatError(f"there is no image {series}", location=self.source.name)
        image = self.images[series]
        if series not in self._known:
            self._known[series] = self._places(image)
        places = self._known[series]
        _, slices, channels = image.size_tzc
        first = (time or 0) * slices * channels + (channel or 0)
        numbers = range(first, first + slices * channels, channels)
        absent = sum(number not in places for number in numbers)
        if absent:
            raise FormatError(
                f"{absent} of {slices} planes are in no file that the OME-XML names",
                location=self.source.name,
            )
        return [places[number] for number in numbers]

    def _places(self, image: OmeImage) -> dict[int, Plane]:
        """Where the planes of an image lie, by their number in C order of t, z, c."""
        where, sizes = self.source.name, image.size_tzc
        stated = math.prod(sizes)
        places: dict[int, Plane] = {}
        for data in image.tiff_data or [TiffData(0, {"Z": 0, "C": 0, "T": 0}, None)]:
            file, uuid = self._file_of(data)
            if any(data.first[axis] >= image.size[axis] for axis in "ZCT"):
                raise FormatError("OME-XML begins planes outside of its image", location=where)
            for step, (t, z, c) in enumerate(covered(image, data, stated)):
                number = (t * sizes[1] + z) * sizes[2] + c
                place = (file, data.ifd + step, uuid)
                if t >= sizes[0] or z >= sizes[1] or c >= sizes[2]:
                    raise FormatError("OME-XML puts planes outside of its image", location=where)
                if places.setdefault(number, place) != place:
                    raise FormatError(
                        f"OME-XML gives plane z={z}, c={c}, t={t} in two places", location=where
                    )
        if len({place[:2] for place in places.values()}) < len(places):
            raise FormatError("OME-XML uses one page for several planes", location=where)
        return places

    def _file_of(self, data: TiffData) -> tuple[str, str | None]:
        """The file of a TiffData element, and the UUID that it must have."""
        where, own = self.source.name, self._own
        unnamed = data.uuid is None and data.file_name is None
        if unnamed or (own is not None and data.uuid == own):
            if self._companion:
                raise FormatError("OME-XML puts planes into the companion itself", location=where)
            return _OWN, data.uuid
        said = data.file_name or self._names.get(data.uuid or "")
        if said is None:
            raise FormatError(f"OME-XML does not name the file {data.uuid!r}", location=where)
        name, shown = sibling_name(said, where), where.rpartition("/")[2]
        if self._companion or name not in (shown, unquote(shown)):
            return name, data.uuid
        if own is not None and data.uuid is not None:
            raise FormatError(
                f"the file calls itself {own[:60]!r}, and its OME-XML gives its name to "
                f"{data.uuid[:60]!r}: it was renamed, or the OME-XML is that of another",
                location=where,
            )
        return _OWN, data.uuid

    def _part(self, name: str) -> FilePart | None:
        """A file of the set; None where only the one with the OME-XML was given."""
        if not isinstance(self.source, JoinedBytes):
            if name != _OWN:
                raise UnsupportedFormatError(
                    f"planes lie in another file ({name})", location=self.source.name
                )
            return None
        parts = self.source.parts
        named = parts[:1] if name == _OWN else [one for one in parts[1:] if one.name == name]
        if not named:
            raise FormatError(f"{name!r} was not planned", location=self.source.name)
        return named[0]

    def _pages(self, name: str, uuid: str | None) -> PageList:
        part = self._part(name)
        if part is None:
            return list_pages(self.source, read_header(self.source))
        with closing(part.open()) as source:
            return list_pages(source, _header(source, None if name == _OWN else uuid))

    def _open(self, place: Plane, pages_of: Callable[[str, str | None], PageList]) -> VolumeReader:
        name, number, uuid = place
        pages, unit = pages_of(name, uuid), f"page {number}"
        page, where = _page_of(pages, number), pages.source.name
        if page.refused is not None:
            raise UnsupportedFormatError(page.refused, location=where, unit=unit)
        if Turn.of(page.kind.orientation).swapped:
            raise UnsupportedFormatError(
                f"Orientation {page.kind.orientation} turns rows into columns, which contradicts "
                "the OME-XML",
                location=where,
                unit=unit,
            )
        part = self._part(name)
        source = self.source if part is None else part.open()
        volume = TiffVolume(
            shape_zyx=(1, page.kind.height, page.kind.width),
            dtype=delivered_dtype(page.kind.stored),
            voxel=VoxelSize(),
            kind="ome",
            stated_planes=None,
            series=(where,),
            index=0,
            acquired=None,
            notes=(),
            origin=Origin(),
            facts={},
            source=source,
            pages=pages,
            planes=[number],
        )
        return TiffReader(volume) if part is not None else _Held(volume)


class _Held(TiffReader):
    """Leaves the file open: other planes are read from it."""

    def __exit__(self, *_: object) -> None:
        pass


def _page_of(pages: PageList, number: int) -> Page:
    if number >= len(pages):
        raise FormatError(
            f"OME-XML puts a plane into page {number}, the file has {len(pages)}",
            location=pages.source.name,
        )
    return pages[number]


def _header(source: ByteSource, uuid: str | None) -> TiffHeader:
    """The header of a file, which must not say another UUID than `uuid`."""
    header = read_header(source)
    if uuid is not None:
        said = _UUID.search((_description(source, header) or "")[:8192])
        if said is not None and said[1].strip() != uuid:
            raise FormatError(
                f"the file calls itself {said[1][:60]!r}, and {uuid[:60]!r} belongs here: it is "
                "another file of the same name",
                location=source.name,
            )
    return header


def _description(source: ByteSource, header: TiffHeader) -> str | None:
    return read_ifd(source, header, header.first_ifd).text(DESCRIPTION)


def ome_set(source: ByteSource) -> OmeSet | None:
    """The OME-XML of a companion, or of a TIFF that is one of several; None of any other file.

    Raises
    ------
    FormatError
        The OME-XML is broken or too long.
    """
    size = header_size(source)
    if source.read(0, min(size, 8)).startswith(TIFF_MAGIC):
        text = _description(source, read_header(source)) or ""
        if not is_ome(text) or len({*_FILE_NAME.findall(text)}) < 2:
            return None
        return OmeSet(source, parse_ome(text, source.name), companion=False)
    if size > _MOST_XML:
        raise FormatError(f"the OME-XML has {size} bytes", location=source.name)
    text = source.read(0, size).decode("utf-8", "replace")
    if not is_ome(text):
        return None
    document = parse_ome(text, source.name)
    if not document.images:
        raise FormatError("the OME-XML describes no image", location=source.name)
    return OmeSet(source, document, companion=True)
