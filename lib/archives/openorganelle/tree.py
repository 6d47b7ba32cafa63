"""Finding arrays in a Zarr hierarchy of an object store, with and without consolidated metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lib.errors import BadAnswerError, FormatError, NotFoundError
from lib.formats.calibration import VoxelSize
from lib.formats.zarr.array import ArrayDocument, parse_array
from lib.formats.zarr.hierarchy import check_axes
from lib.formats.zarr.ngff import (
    Multiscale,
    NgffLevel,
    multiscale_above,
    parse_attributes,
    parse_multiscale,
)
from lib.geometry import LengthsZYX
from lib.transport.s3.reader import Listing, ObjectReader

_DEEPEST = 6
_DOTTED = re.compile(r"\d+(\.\d+)+")  # the key of a chunk whose indices dots part


@dataclass(frozen=True, slots=True)
class TreeArray:
    """One array, with what its multiscale says of it.

    A length of 1 nm stands in ``voxel_nm_zyx`` for one that ``voxel`` does not know.
    """

    path: str
    level: str
    document: ArrayDocument
    zarray: bytes
    voxel: VoxelSize
    voxel_nm_zyx: LengthsZYX
    translation_nm_zyx: LengthsZYX
    finest_nm_zyx: LengthsZYX
    labels: bool
    words: dict[str, str] = field(default_factory=dict)  # licence, DOI and the like, where stated
    notes: list[str] = field(default_factory=list)


class Tree:
    """The hierarchy below one ``.zarr``.

    ``.zmetadata`` is used where it is there, and never required.

    Attributes
    ----------
    unreadable
        Groups below a path that was looked through whose attributes cannot be read, and why.
    """

    def __init__(self, objects: ObjectReader, root: str) -> None:
        self._objects = objects
        self._root = root
        self._consolidated = self._read_consolidated()
        self.unreadable: dict[str, str] = {}

    def children(self, path: str) -> list[str]:
        """Names of the groups and arrays directly below a path."""
        where = f"{self._root}/{path}/" if path else f"{self._root}/"
        return _names(self._objects.list(where).prefixes)

    def find(
        self, path: str, levels: str | list[str] | tuple[str, ...]
    ) -> dict[str, Callable[[], TreeArray]]:
        """The arrays that a path names: itself, or the chosen levels of the multiscales below it.

        Returns
        -------
        dict
            Path of each -> what reads its document; raises `NotFoundError` where a multiscale lacks
            the level (the error lists what there is), `FormatError` where it cannot be read.

        Raises
        ------
        NotFoundError
            Nothing is there; the error lists what there is.
        """
        path = path.strip("/")
        zarray = self._document(path, ".zarray")
        if zarray is not None:
            name, multiscale = multiscale_above(path, self._multiscale)
            return {path: partial(self._array, path, name, zarray, multiscale)}
        found = self._multiscales_below(path, 0)
        if not found and self.unreadable:
            where, why = next(iter(self.unreadable.items()))
            raise FormatError(why, archive="openorganelle", location=f"{self._root}/{where}")
        if not found:
            parent = path.rpartition("/")[0]
            here = self.children(path) or self.children(parent) or self.children("")
            raise NotFoundError(
                f"there is no array or multiscale at {path!r}",
                archive="openorganelle",
                location=f"{self._root}/{path}",
                advice=f"There are: {', '.join(here) or 'nothing'}",
            )
        return {
            f"{where}/{level}": partial(self._level, where, multiscale, level)
            for where, multiscale in found
            for level in _chosen(levels, multiscale)
        }

    def _level(self, where: str, multiscale: Multiscale, level: str) -> TreeArray:
        zarray = self._document(f"{where}/{level}", ".zarray")
        if multiscale.level(level) is None or zarray is None:
            raise NotFoundError(
                f"{where} has no level {level}",
                archive="openorganelle",
                location=f"{self._root}/{where}/{level}",
                advice="There are: " + ", ".join(n.path for n in multiscale.levels),
            )
        return self._array(f"{where}/{level}", level, zarray, multiscale)

    def _multiscales_below(self, path: str, depth: int) -> list[tuple[str, Multiscale]]:
        try:
            multiscale = self._multiscale(path)
        except FormatError as error:
            if depth == 0:
                raise
            self.unreadable[path] = error.message
            return []
        if multiscale is not None:
            return [(path, multiscale)]
        if depth >= _DEEPEST:
            return []
        where = f"{self._root}/{path}/" if path else f"{self._root}/"
        listing = self._objects.list(where)
        if any(item.key == f"{where}.zarray" for item in listing.objects):
            return []  # below an array lie its chunks, by the thousand
        found = []
        for child in _names(listing.prefixes):
            found += self._multiscales_below(f"{path}/{child}".strip("/"), depth + 1)
        return found

    def _multiscale(self, path: str) -> Multiscale | None:
        attributes = self._document(path, ".zattrs")
        if attributes is None:
            return None
        where = f"{self._root}/{path}/.zattrs"
        return parse_multiscale(parse_attributes(attributes, where), where)

    def _array(
        self, path: str, name: str, zarray: bytes, multiscale: Multiscale | None
    ) -> TreeArray:
        where = f"{self._root}/{path}"
        level = multiscale.level(name) if multiscale else None
        named = multiscale if level is not None else None
        if named is None or level is None:
            level = NgffLevel(name, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), "")
            notes = ["no multiscale names this array: its voxel size is unknown, 1 nm is assumed"]
        else:
            notes = [*level.notes]
        if self._consolidated is not None:  # a copy, which may be older than the array
            zarray = self._own_document(f"{where}/.zarray")
        document = parse_array(zarray, f"{where}/.zarray", separator=self._separator(where))
        check_axes(named, document, where)
        return TreeArray(
            path=path,
            level=name,
            document=document,
            zarray=zarray,
            voxel=level.voxel,
            voxel_nm_zyx=level.voxel_nm_zyx,
            translation_nm_zyx=level.translation_nm_zyx,
            finest_nm_zyx=named.levels[0].voxel_nm_zyx if named else level.voxel_nm_zyx,
            labels=(multiscale is not None and multiscale.labels) or "labels" in path.split("/"),
            words=multiscale.words if multiscale else {},
            notes=notes,
        )

    def _own_document(self, key: str) -> bytes:
        data = self._objects.get(key)
        if data is None:
            raise FormatError(".zmetadata names an array that is not there", location=key)
        return bytes(data)

    def _separator(self, where: str) -> str | None:
        """The separator that the keys really have; None where there are no chunks."""
        listing = list_array(self._objects, where)
        if any(name.isdecimal() for name in _names(listing.prefixes)):
            return "/"
        names = (item.key.rsplit("/", 1)[-1] for item in listing.objects)
        return "." if any(_DOTTED.fullmatch(name) for name in names) else None

    def _document(self, path: str, name: str) -> bytes | None:
        key = f"{path}/{name}" if path else name
        if self._consolidated is not None and key in self._consolidated:
            return json.dumps(self._consolidated[key]).encode()
        data = self._objects.get(f"{self._root}/{key}")
        return None if data is None else bytes(data)

    def _read_consolidated(self) -> dict[str, Any] | None:
        data = self._objects.get(f"{self._root}/.zmetadata")
        if data is None:
            return None
        try:
            documents = json.loads(bytes(data))["metadata"]
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
            raise FormatError(
                f".zmetadata cannot be read: {error!r}", location=f"{self._root}/.zmetadata"
            ) from None
        return documents if isinstance(documents, dict) else None


def list_array(objects: ObjectReader, where: str) -> Listing:
    """What lies directly below an array that is known to be there.

    Raises
    ------
    BadAnswerError
        The listing leaves out the array's own document: a web page of status 200 reads as an empty
        listing, and every chunk would pass for a hole.
    """
    listing = objects.list(f"{where}/")
    if not any(item.key == f"{where}/.zarray" for item in listing.objects):
        raise unbelievable(where)
    return listing


def unbelievable(where: str) -> BadAnswerError:
    """The error for a listing that contradicts what is known to be there."""
    return BadAnswerError(
        "the listing leaves out what is there", archive="openorganelle", location=where
    )


def _names(prefixes: Iterable[str]) -> list[str]:
    return sorted(prefix.rstrip("/").rsplit("/", 1)[-1] for prefix in prefixes)


def _chosen(levels: str | list[str] | tuple[str, ...], multiscale: Multiscale) -> list[str]:
    if levels == "all":
        return [level.path for level in multiscale.levels]
    return [levels] if isinstance(levels, str) else list(levels)
