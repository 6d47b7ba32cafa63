"""Ground-truth crops with the EM around them: which level of the EM, which part of it, and the
label images of each crop with it as one group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TypeVar

from lib.archives.pairs import Grid, OnGrid, beside, overlap_of, voxels_of
from lib.bytesource.base import ByteSource
from lib.bytesource.tree import MOST_BYTES, Tree, join
from lib.errors import ConfigError, GridMismatchError
from lib.formats.zarr.hierarchy import MOST_DOCUMENT_BYTES, Hierarchy, ZarrArray
from lib.geometry import Box, add, maximum, minimum, subtract, unlike, zyx
from lib.plan import VolumePlan
from lib.safety import folded, slug
from lib.transport.listing import Listing, ObjectInfo

T = TypeVar("T")

MOST_LISTED = 50_000
"""Objects of a crop that are listed at once (CellMap's have some thousands); of more, which is no
crop but a cell, each array is listed by itself."""


def levels_of_em(hierarchy: Hierarchy, where: str) -> dict[str, ZarrArray]:
    """The levels of the only multiscale at or below a path, by their keys.

    Raises
    ------
    ConfigError
        There is none, or several.
    """
    root = hierarchy.root
    found = hierarchy.multiscales_below(join(root, where))
    if len(found) != 1:
        there = ", ".join(at.removeprefix(f"{root}/") for at, _ in found) or "nothing"
        raise ConfigError(
            f"{len(found)} multiscales of EM at {where}, where one is wanted",
            location="em_path",
            advice=f"Set em_path to one of them; there are: {there}",
        )
    ((at, multiscale),) = found
    arrays = [hierarchy.level(at, multiscale, level.path) for level in multiscale.levels]
    return {array.path: array for array in arrays}


def fitting_level(levels: Sequence[Grid], labels: Sequence[OnGrid]) -> Grid:
    """The level of the EM on whose grid all labels of a crop lie, the nearest in voxel size.

    Ground truth is drawn at the EM's own voxel, or at a half or another whole share of it, with the
    edges of both on each other; a level of another grid is passed over.

    Raises
    ------
    GridMismatchError
        There is none; the error is that of the nearest level.
    """
    first: GridMismatchError | None = None
    for level in sorted(levels, key=lambda one: unlike(one.voxel_nm_zyx, labels[0].voxel_nm_zyx)):
        try:
            for one in labels:
                overlap_of(level, one)
        except GridMismatchError as error:
            first = first or error
            continue
        return level
    raise first or GridMismatchError("the EM has no level")


def box_around(em: Grid, labels: Sequence[OnGrid], padding: int) -> Box:
    """The part of an EM level that holds all labels, and so many of its voxels on each side.

    What lies outside of the EM is left out.
    """
    overlaps = [overlap_of(em, one) for one in labels]
    start = zyx(min(one.start_nm_zyx[n] for one in overlaps) for n in range(3))
    stop = zyx(max(one.stop_nm_zyx[n] for one in overlaps) for n in range(3))
    inside, margin = voxels_of(em, start, stop), (padding,) * 3
    return Box(
        maximum(subtract(inside.start_zyx, margin), (0, 0, 0)),
        minimum(add(inside.stop_zyx, margin), em.shape_zyx),
    )


def class_of(path: str) -> str:
    """The folder of the class that an array is a level of."""
    return path.rpartition("/")[0]


def crop_of(path: str) -> str:
    """The folder of the crop of an array: that in which the folders of its classes lie."""
    return class_of(class_of(path))


def as_group(em: VolumePlan, crop: str, labels: Sequence[VolumePlan], padding: int) -> VolumePlan:
    """The EM around a crop, with every class of the crop as a label image of it.

    The group is called as data set, alignment and crop, a class as its folder (and its level,
    where that is not the finest).

    Raises
    ------
    ConfigError
        Two classes would be called alike.
    """
    extra = {"crop": crop, "padding": padding, "classes": len(labels)}
    named = [_class_name(plan, crop) for plan in labels]
    if len({folded(name) for name in named}) < len(named):
        raise ConfigError(
            f"two label images of {crop} are called alike: {', '.join(sorted(named))}",
            location="zarr_path",
            advice="Leave one of them out by exclude",
        )
    members = []
    for name, plan in zip(named, labels, strict=True):
        about = plan.about.revised(extra={**plan.about.extra, "crop": crop, "class": name})
        one = plan.model_copy(update={"name": name, "about": about})
        members.append(beside(em, one, overlap_of(em, one)))
    dataset, parts = labels[0].source_id.partition("/")[0], crop.split("/")
    aligned = [parts[0]] if len(parts) > 1 else []
    title = [dataset, *aligned, parts[-1]]
    title += [f"pad{padding}"] if padding else []
    note = f"with {len(labels)} label images of {crop}, in one record: {_few(named)}"
    return em.model_copy(
        update={
            "name": "_".join(title),
            "source_path": f"{em.source_path} around {dataset}/{crop}",
            "about": em.about.revised(extra={**em.about.extra, **extra}),
            "notes": (*em.notes, note),
            "members": tuple(members),
        }
    )


def _class_name(plan: VolumePlan, crop: str) -> str:
    name, _, level = str(plan.internal_path).removeprefix(f"{crop}/").rpartition("/")
    return slug(name or level) + (f"_{level}" if name and level != "s0" else "")


def _few(names: Sequence[str]) -> str:
    more = len(names) - 5
    return ", ".join(names[:5]) + (f" and {more} more" if more > 0 else "")


class LastLook:
    """A tree that counts what its bucket is asked for, or would be, were its answers not kept.

    A survey is made once more when the voxels are there, and then nothing is kept.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._asked: list[int] = []  # jobs side by side append to it
        self.uri, self.remote, self.ranged = tree.uri, tree.remote, tree.ranged
        self.listing_proves, self.range_bytes = tree.listing_proves, tree.range_bytes

    @property
    def requests(self) -> int:
        """What was asked so far."""
        return sum(self._asked)

    def get(self, key: str, most: int = MOST_BYTES) -> bytes | memoryview | None:
        self._asked.append(1)
        return self._tree.get(key, most)

    def get_range(self, key: str, start: int, length: int) -> bytes | memoryview | None:
        self._asked.append(1)
        return self._tree.get_range(key, start, length)

    def head(self, key: str) -> ObjectInfo | None:
        self._asked.append(1)
        return self._tree.head(key)

    def look(self, key: str) -> ObjectInfo | None:
        return self.head(key)

    def list(self, prefix: str = "") -> Listing:
        found = self._tree.list(prefix)
        self._pages(len(found.objects) + len(found.prefixes))
        return found

    def list_all(self, prefix: str = "") -> Iterator[ObjectInfo]:
        found = [*self._tree.list_all(prefix)]
        self._pages(len(found))
        yield from found

    def source(self, key: str, known: ObjectInfo | None = None) -> ByteSource:
        return self._tree.source(key, known)

    def ordered(self, jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
        return self._tree.ordered(jobs)

    def _pages(self, names: int) -> None:
        self._asked.append(max(1, -(-names // 1000)))


class ListedOnce:
    """A tree that answers what lies below some folders from one listing of each.

    A crop of forty classes has some hundred folders, each a request to a bucket; all of it is a
    page or four. The documents of its arrays are fetched side by side. For planning: a last look
    at the source has to ask the bucket itself.

    Parameters
    ----------
    folders
        Keys of crops.
    levels
        Names of the arrays that will be asked for.
    """

    def __init__(self, tree: Tree, folders: Iterable[str], levels: Sequence[str]) -> None:
        self._tree = tree
        self.uri, self.remote, self.ranged = tree.uri, tree.remote, tree.ranged
        self.listing_proves, self.range_bytes = tree.listing_proves, tree.range_bytes
        self._folders: list[str] = []
        self._objects: dict[str, list[ObjectInfo]] = {}
        self._prefixes: dict[str, set[str]] = {}
        self._documents: dict[str, bytes | memoryview | None] = {}
        for folder in folders:
            self._list(folder.strip("/"))
        wanted = (".zattrs", *(f"/{level}/.zarray" for level in levels))
        keys = [
            one.key for below in self._objects.values() for one in below if one.key.endswith(wanted)
        ]
        found = tree.ordered([partial(tree.get, key, MOST_DOCUMENT_BYTES) for key in keys])
        self._documents.update(zip(keys, found, strict=True))

    def _list(self, folder: str) -> None:
        found = [*islice(self._tree.list_all(folder), MOST_LISTED + 1)]
        if not found or len(found) > MOST_LISTED:
            return  # asked for folder by folder, as ever
        self._folders.append(f"{folder}/")
        for one in found:
            above, _, _ = one.key.rpartition("/")
            self._objects.setdefault(above, []).append(one)
            while len(above) > len(folder):
                below, (above, _, _) = above, above.rpartition("/")
                self._prefixes.setdefault(above, set()).add(below)

    def _knows(self, key: str) -> bool:
        return any(f"{key}/".startswith(folder) for folder in self._folders)

    def get(self, key: str, most: int = MOST_BYTES) -> bytes | memoryview | None:
        if key in self._documents:
            return self._documents[key]
        if self._knows(key) and self.head(key) is None:
            return None
        return self._tree.get(key, most)

    def get_range(self, key: str, start: int, length: int) -> bytes | memoryview | None:
        return self._tree.get_range(key, start, length)

    def head(self, key: str) -> ObjectInfo | None:
        if not self._knows(key):
            return self._tree.head(key)
        beside_it = self._objects.get(key.rpartition("/")[0], ())
        return next((one for one in beside_it if one.key == key), None)

    def look(self, key: str) -> ObjectInfo | None:
        return self.head(key)

    def list(self, prefix: str = "") -> Listing:
        folder = prefix.strip("/")
        if not self._knows(folder):
            return self._tree.list(prefix)
        prefixes = sorted(self._prefixes.get(folder, ()))
        return Listing(tuple(self._objects.get(folder, ())), tuple(prefixes))

    def list_all(self, prefix: str = "") -> Iterator[ObjectInfo]:
        folder = prefix.strip("/")
        if not self._knows(folder):
            yield from self._tree.list_all(prefix)
            return
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            yield from self._objects.get(here, ())
            waiting += self._prefixes.get(here, ())

    def source(self, key: str, known: ObjectInfo | None = None) -> ByteSource:
        return self._tree.source(key, known)

    def ordered(self, jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
        return self._tree.ordered(jobs)
