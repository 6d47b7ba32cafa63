"""The files of an EMPIAR entry: listed through its folders and ZIP files, counted, and chosen."""

from __future__ import annotations

import itertools
import logging
import re
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from lib.archives.ebi.entry import ImageSet
from lib.archives.ebi.tree import EbiTree, Way, is_member
from lib.archives.selection import Selection
from lib.errors import (
    FormatError,
    IncompleteTransferError,
    MacroscopeError,
    NotFoundError,
    StoppedError,
)
from lib.formats import registry
from lib.formats.sections import group_sections
from lib.plan import SourceFile
from lib.safety import distinct_file_names, safe_name
from lib.transport.ftp import FtpEntry
from lib.transport.listing import ObjectInfo

FORMATS = tuple(name for name in registry.FILE_FORMATS if name != "jpeg")
"""What is looked for in an entry; pictures with losses are previews there."""

_MOST_FOLDERS = 2_000
_SIDE_BY_SIDE = 16  # folders that are listed together
_MOST_FILES = 500_000
_DEEPEST = 12
_MOST_ASKED = 256  # files whose size is asked for one by one, where no listing tells it
_MOST_PROBED = 20  # numbers that are missing from a run, of which the server is asked
_CONTAINERS = frozenset({".zgroup", ".zattrs", ".zarray", "zarr.json", "attributes.json"})

_NUMBER = re.compile(r"[0-9]+")
_PLAIN = r"(?:0|[1-9][0-9]*)"  # without leading zeros
_TILE_OF_FOLDER = re.compile(rf"{_PLAIN}_{_PLAIN}(?:_{_PLAIN})?\.(?:jpe?g|png)", re.IGNORECASE)
_TILE_OF_ROW = re.compile(rf"{_PLAIN}\.(?:jpe?g|png)", re.IGNORECASE)
_ROWS = re.compile(rf"(?:/{_PLAIN}){{3}}$")
_NUMBERED = re.compile(rf"(?:/{_PLAIN})+$")
_MULTIBEAM = re.compile(r"[0-9]{3}_[0-9]{6}_[0-9]{3}_[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{6,}\.\w+")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EntryFiles:
    """What an entry's folders hold.

    Attributes
    ----------
    files
        Files that are converted, by their path below the entry; each has a file name of its own.
        A member of a ZIP file lies below it as below a folder.
    excluded
        Paths of those that would be, and are not wanted.
    others
        Names of files and folders that are not.
    refused
        Files of a convertible kind that cannot be asked for or hold nothing, with the reason.
    """

    files: dict[str, SourceFile]
    excluded: tuple[str, ...]
    others: tuple[str, ...]
    refused: dict[str, str]
    notes: tuple[str, ...]
    named: bool = False
    """Whether the user named one file."""
    of_folder: dict[str, list[str]] = field(default_factory=dict)
    """Notes that concern the files of one folder."""


def find_files(
    tree: EbiTree,
    root: str,
    imagesets: Sequence[ImageSet],
    selection: Selection,
    only: str | None = None,
) -> EntryFiles:
    """List one folder or file of the entry, or the folders that it names, and all below them.

    Raises
    ------
    NotFoundError
        There is no such folder or file, or nothing in it is wanted.
    IncompleteTransferError
        The listing lacks files that the other protocol shows.
    """
    walk = _Walk(tree, root, imagesets)
    for top in [only] if only else _folders(imagesets):
        walk.descend(top)
    if not only:
        walk.ask_for_missing()
    paths = {path: path.rpartition("/")[2] for path in walk.wanted}
    names = distinct_file_names(paths)
    taken = selection.require([*walk.wanted], root)
    files = {path: walk.file(path, names[path]) for path in taken}
    excluded = tuple(path for path in walk.wanted if path not in files)
    notes = [*walk.notes, *selection.notes(walk.wanted)]
    files, more = _sized(tree, files)
    named = only is not None and only in walk.wanted
    return EntryFiles(
        files,
        excluded,
        tuple(sorted(walk.others)),
        walk.refused,
        (*notes, *more),
        named,
        walk.of_folder,
    )


def is_candidate(name: str) -> bool:
    """Whether a file may be of a format that is converted; its content decides."""
    return bool(registry.file_formats_for(name, FORMATS))


def _folders(imagesets: Sequence[ImageSet]) -> list[str]:
    """The folders of the image sets, without those that lie in another's."""
    named = sorted({imageset.folder for imageset in imagesets} or {"data"})
    return [a for a in named if not any(a.startswith(f"{b}/") for b in named)]


def _sized(
    tree: EbiTree, files: dict[str, SourceFile]
) -> tuple[dict[str, SourceFile], tuple[str, ...]]:
    """Files with their sizes, where no listing told them and they are few."""
    unknown = [path for path, file in files.items() if file.size is None and not is_member(file)]
    if not unknown:
        return files, ()
    if len(unknown) > _MOST_ASKED:
        note = f"no listing gives the sizes of {len(unknown)} files; each is told when it comes"
        return files, (note,)
    asked = tree.files([files[path] for path in unknown])
    return files | dict(zip(unknown, asked, strict=True)), ()


_Listed = tuple[list[FtpEntry], tuple[str, ...]]

_Entry = FtpEntry | tuple[SourceFile, ObjectInfo]
"""A file of the tree, or a ZIP file and the member of it."""


@dataclass(slots=True)
class _Walk:
    """The folders of an entry, from above, each listed once."""

    tree: EbiTree
    root: str
    imagesets: Sequence[ImageSet]
    wanted: dict[str, _Entry] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    of_folder: dict[str, list[str]] = field(default_factory=dict)
    listed: int = 0
    tiled: set[str] = field(default_factory=set)
    ahead: dict[str, _Listed | MacroscopeError] = field(default_factory=dict)

    def descend(self, top: str) -> None:
        """Take what lies in a folder and below it, or one file."""
        waiting = deque([top])
        parts = top.split("/")
        packed = next((n for n, part in enumerate(parts, start=1) if _is_zip(part)), None)
        if packed is not None and packed < len(parts):  # inside of a ZIP file
            self.descend("/".join(parts[:packed]))
            inside = {p: e for p, e in self.wanted.items() if f"{p}/".startswith(f"{top}/")}
            if not inside:
                raise NotFoundError(
                    "the ZIP file has no such folder or file", location=f"{self.root}/{top}"
                )
            self.wanted = inside
            return
        if is_candidate(top) or _is_zip(top):
            folder, _, name = top.rpartition("/")
            alike = [e for e in self._entries(folder, 0) if e.name == name]
            if not alike:
                raise NotFoundError(
                    "the entry has no such folder or file", location=f"{self.root}/{top}"
                )
            if not alike[0].is_dir:
                self._take(folder, name, alike[0], top)
                return
        while waiting:
            if _NUMBERED.sub("", waiting[0]) in self.tiled and waiting[0] not in self.tiled:
                waiting.popleft()
                continue
            if waiting[0] not in self.ahead:
                self._list_ahead([*itertools.islice(waiting, _SIDE_BY_SIDE)])
            folder = waiting.popleft()
            self.listed += 1
            if self.listed > _MOST_FOLDERS or len(self.wanted) > _MOST_FILES:
                self.notes.append(
                    f"{len(waiting) + 1} folders, such as {folder}, were not looked into: the "
                    "entry has too many; name one of them with the setting folder"
                )
                return
            waiting += self._folder(folder, top)

    def ask_for_missing(self) -> None:
        """Ask for files that a run of numbers lacks, where only the mirror's pages were seen.

        The mirror has several hosts, and one's page may lack a file that all of them give.
        """
        if self.tree.ways != ("https",):
            return
        plain = [path for path, entry in self.wanted.items() if isinstance(entry, FtpEntry)]
        for group in group_sections(plain)[0]:
            if not 0 < len(group.missing) <= _MOST_PROBED:
                continue
            for path in _names_of(group.missing, group.names, group.numbers):
                size = self.tree.probe(f"{self.root}/{path}")
                if size is not None:
                    self.wanted[path] = FtpEntry(path.rpartition("/")[2], False, size)
                    self.notes.append(f"no listing shows {path}, and the server has it")

    def file(self, path: str, name: str) -> SourceFile:
        """A file as its listing describes it."""
        entry = self.wanted[path]
        if isinstance(entry, FtpEntry):
            return self.tree.listed(f"{self.root}/{path}", name, entry)
        return self.tree.member(*entry, name)

    # --- inside -----------------------------------------------------------------------------

    def _list_ahead(self, folders: Sequence[str]) -> None:
        """List folders side by side."""
        jobs = [partial(self.tree.folder, f"{self.root}/{folder}") for folder in folders]
        self.ahead |= zip(folders, self.tree.side_by_side(jobs), strict=True)

    def _folder(self, folder: str, top: str) -> Iterator[str]:
        """Take the files of a folder; yields the folders in it."""
        stated = sum(s.images or 0 for s in self.imagesets if s.folder == folder)
        entries = self._entries(folder, stated)
        names = {entry.name for entry in entries}
        files = {entry.name for entry in entries if not entry.is_dir}
        if folder != top and (why := _why_tiles(folder, files)):
            above = _NUMBERED.sub("", folder)
            self.refused[f"{above}/"] = f"{why}; name one of its folders to take its files"
            self.tiled.add(above)
            return
        if names & _CONTAINERS:
            self.refused[f"{folder}/"] = (
                "a container of many objects; run its own address, "
                f"{self.tree.address(f'{self.root}/{folder}')}"
            )
            return
        for entry in entries:
            if not entry.is_dir:
                self._take(folder, entry.name, entry, top)
            elif _looked_into(entry.name, folder):
                yield f"{folder}/{entry.name}"
            else:
                self.others.append(f"{entry.name}/")

    def _take(self, folder: str, name: str, entry: FtpEntry, top: str) -> None:
        path = f"{folder}/{name}"
        shown = name if folder == top else path.removeprefix(f"{top}/")
        if _is_rubbish(path) or not (is_candidate(name) or _is_zip(name)):
            self.others.append(shown)
        elif any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
            self.refused[safe_name(name)] = "its name holds a control character"
        elif entry.size == 0:
            self.refused[path] = "it is empty"
        elif _is_zip(name):
            self._open_zip(path, name, entry)
        else:
            self.wanted[path] = entry

    def _open_zip(self, path: str, name: str, entry: FtpEntry) -> None:
        outer = self.tree.listed(f"{self.root}/{path}", name, entry)
        try:
            members = self.tree.members(outer)
        except FormatError as error:
            self.refused[path] = error.message
            return
        for info in members:
            last = info.key.rpartition("/")[2]
            if info.size and is_candidate(last) and not _is_rubbish(info.key):
                self.wanted[f"{path}/{info.key}"] = (outer, info)
            elif info.size:
                self.others.append(f"{name}/{info.key}")

    def _entries(self, folder: str, stated: int) -> list[FtpEntry]:
        """The entries of a folder; where there seem to be too few, asked for once more.

        A listing that was cut looks like a shorter one. The count of the entry is the only hint,
        and often wrong, so the decision is left to a second listing.
        """
        path = f"{self.root}/{folder}"
        if folder not in self.ahead:
            self._list_ahead([folder])
        listed = self.ahead.pop(folder)
        if isinstance(listed, MacroscopeError):
            raise listed
        entries, notes = listed
        told = self.of_folder.setdefault(folder, [])
        told += notes
        count = sum(is_candidate(entry.name) for entry in entries)
        below = any(entry.is_dir or _is_zip(entry.name) for entry in entries)
        if count >= stated or (below and not count):
            return entries
        if len(self.tree.ways) > 1:
            told.append(f"the API states {stated} images, {count} files are in {folder}")
            return entries
        way = self.tree.ways[0]
        other: Way = "https" if way == "ftp" else "ftp"
        other = way if other in self.tree.failed else other
        try:
            second = self.tree.listing_by(other, path)
        except StoppedError:
            raise
        except MacroscopeError as error:
            _log.info("no second listing to compare with: %s", error)
            second = self.tree.listing_by(way, path)
        absent = sorted({entry.name for entry in second} - {entry.name for entry in entries})
        if absent and way == "https" and len(absent) <= _MOST_PROBED:
            sizes = {name: self.tree.probe(f"{path}/{name}") for name in absent}
            if None not in sizes.values():  # the page lacks what the server has
                told.append(f"the mirror's page of {folder} lacks {', '.join(absent)}")
                return [*entries, *(FtpEntry(name, False, sizes[name]) for name in absent)]
        if absent:
            raise IncompleteTransferError(
                f"the listing shows {len(entries)} files where the archive states {len(second)}",
                location=path,
                advice="Run again; if it stays so, set protocol to ftp or https",
            )
        told.append(f"the API states {stated} images, {count} files are there")
        return entries


def _names_of(missing: Collection[int], names: Sequence[str], numbers: Sequence[int]) -> list[str]:
    """The names that sections of these numbers would have, told by their neighbours'."""
    first, second = names[0], names[1]
    places = [*_NUMBER.finditer(first)]
    others = [*_NUMBER.finditer(second)]
    varying = [
        a
        for a, b in zip(places, others, strict=False)
        if (int(a[0]), int(b[0])) == tuple(numbers[:2]) and a[0] != b[0]
    ]
    if len(varying) != 1 or sum(a[0] != b[0] for a, b in zip(places, others, strict=False)) != 1:
        return []  # another number goes with the section's
    (at,) = varying
    width = len(at[0])
    return [f"{first[: at.start()]}{one:0{width}d}{first[at.end() :]}" for one in sorted(missing)]


def _why_tiles(folder: str, names: Collection[str]) -> str:
    """Why the files of a folder are tiles and no sections, by their names; empty where not.

    A viewer's tree (CATMAID, TrakEM2) has a folder a section, ``12/3_4_0.jpg`` being row 3, column
    4 and level 0 of section 12, or a folder a row (``0/12/3/4.png``); no number of it has a leading
    zero. A multi-beam microscope writes ``001_000012_045_2019-06-01T1200451230.png``.
    """
    files = [name for name in names if _MULTIBEAM.fullmatch(name)]
    if len(files) > 1 and 2 * len(files) > len(names):
        return "tiles of a multi-beam microscope, which are not put together"
    rows = _ROWS.search(folder) is not None
    numbered = _NUMBERED.search(folder) is not None
    tile = _TILE_OF_ROW if rows and any(map(_TILE_OF_ROW.fullmatch, names)) else _TILE_OF_FOLDER
    if numbered and names and all(map(tile.fullmatch, names)):
        return "tiles of a viewer, a folder a section, which are not put together"
    return ""


def _looked_into(name: str, folder: str) -> bool:
    """Whether a folder may hold volumes: not a viewer's pyramid, not hidden, not too deep."""
    lower = name.lower()
    viewer = lower.startswith("trakem2.") or "mipmap" in lower
    return not viewer and name[0] not in ".$@" and folder.count("/") < _DEEPEST


def _is_zip(name: str) -> bool:
    return name.lower().endswith(".zip")


def _is_rubbish(key: str) -> bool:
    """What macOS puts beside files, and other hidden ones."""
    return "__MACOSX" in key.split("/") or key.rpartition("/")[2].startswith((".", "~"))
