"""Finding arrays in a Zarr hierarchy of an object store, with and without consolidated metadata."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from lib.errors import FormatError, NotFoundError
from lib.geometry import LengthsZYX
from lib.readers.ngff import Multiscale, NgffLevel, parse_attributes, parse_multiscale
from lib.readers.zarr_array import ArrayDocument, parse_array
from lib.transport.objects import ObjectReader

_DEEPEST = 6


@dataclass(frozen=True, slots=True)
class TreeArray:
    """One array, with what its multiscale says of it."""

    path: str
    level: str
    document: ArrayDocument
    zarray: bytes
    voxel_nm_zyx: LengthsZYX
    translation_nm_zyx: LengthsZYX
    finest_nm_zyx: LengthsZYX
    labels: bool
    notes: list[str] = field(default_factory=list)


class Tree:
    """The hierarchy below one ``.zarr``.

    ``.zmetadata`` is used where it is there, and never required.
    """

    def __init__(self, objects: ObjectReader, root: str) -> None:
        self._objects = objects
        self._root = root
        self._consolidated = self._read_consolidated()

    def children(self, path: str) -> list[str]:
        """Names of the groups and arrays directly below a path."""
        where = f"{self._root}/{path}/" if path else f"{self._root}/"
        return sorted(p.rstrip("/").rsplit("/", 1)[-1] for p in self._objects.list(where).prefixes)

    def arrays(self, path: str, levels: str | list[str] | tuple[str, ...]) -> list[TreeArray]:
        """The arrays that a path names: itself, or the chosen levels of the multiscales below it.

        Raises
        ------
        NotFoundError
            Nothing is there, or a multiscale lacks a level; the error lists what there is.
        """
        path = path.strip("/")
        zarray = self._document(path, ".zarray")
        if zarray is not None:
            parent, _, name = path.rpartition("/")
            multiscale = self._multiscale(parent)
            return [self._array(path, name, zarray, multiscale)]
        found = self._multiscales_below(path, 0)
        if not found:
            parent = path.rpartition("/")[0]
            here = self.children(path) or self.children(parent) or self.children("")
            raise NotFoundError(
                f"there is no array or multiscale at {path!r}",
                archive="openorganelle",
                location=f"{self._root}/{path}",
                advice=f"There are: {', '.join(here) or 'nothing'}",
            )
        return [
            self._level(where, multiscale, level)
            for where, multiscale in found
            for level in _chosen(levels, multiscale)
        ]

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
        multiscale = self._multiscale(path)
        if multiscale is not None:
            return [(path, multiscale)]
        if depth >= _DEEPEST:
            return []
        found = []
        for child in self.children(path):
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
        notes = []
        if level is None or multiscale is None:
            level = NgffLevel(name, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
            notes.append("no multiscale names this array: its voxel size is unknown, 1 nm is assumed")
        separator, seen = self._separator(where)
        document = parse_array(zarray, f"{where}/.zarray", separator=separator)
        if seen is not None:
            notes.append(seen)
        return TreeArray(
            path=path,
            level=name,
            document=document,
            zarray=zarray,
            voxel_nm_zyx=level.voxel_nm_zyx,
            translation_nm_zyx=level.translation_nm_zyx,
            finest_nm_zyx=multiscale.levels[0].voxel_nm_zyx if multiscale else level.voxel_nm_zyx,
            labels=(multiscale is not None and multiscale.labels) or "labels" in path.split("/"),
            notes=notes,
        )

    def _separator(self, where: str) -> tuple[str | None, str | None]:
        """The separator that the keys really have, and a note where the document leaves it out."""
        listing = self._objects.list(f"{where}/")
        names = [p.rstrip("/").rsplit("/", 1)[-1] for p in listing.prefixes]
        if any(name.isdigit() for name in names):
            return "/", None
        if any("." in item.key.rsplit("/", 1)[-1].strip(".") for item in listing.objects):
            return ".", None
        return None, None

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
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FormatError(
                f".zmetadata cannot be read: {error!r}", location=f"{self._root}/.zmetadata"
            ) from None
        return documents if isinstance(documents, dict) else None


def _chosen(levels: str | list[str] | tuple[str, ...], multiscale: Multiscale) -> list[str]:
    if levels == "all":
        return [level.path for level in multiscale.levels]
    return [levels] if isinstance(levels, str) else list(levels)
