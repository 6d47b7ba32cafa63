"""The files of an EMPIAR entry: listed, counted against the entry, and described."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from lib.archives.ebi.entry import ImageSet
from lib.archives.ebi.tree import EbiTree, Way, short_listing
from lib.archives.selection import Selection
from lib.errors import MacroscopeError, StoppedError
from lib.formats import registry
from lib.names import distinct_file_names, safe_name
from lib.plan import SourceFile
from lib.transport.ftp import FtpEntry

FORMATS = tuple(name for name in registry.FILE_FORMATS if name != "jpeg")
"""What is looked for in an entry; pictures with losses are previews there."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EntryFiles:
    """What an entry's folders hold.

    Attributes
    ----------
    files
        Files that are converted, by their path below the entry; each has a file name of its own.
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


def find_files(
    tree: EbiTree,
    root: str,
    imagesets: Sequence[ImageSet],
    selection: Selection,
    only: str | None = None,
) -> EntryFiles:
    """List one folder of the entry, or those that it names, or ``data``.

    Raises
    ------
    NotFoundError
        There is no such folder, or nothing in it is wanted.
    IncompleteTransferError
        The listing lacks files that the other protocol shows.
    """
    notes: list[str] = []
    wanted: dict[str, FtpEntry] = {}
    others: list[str] = []
    refused: dict[str, str] = {}
    for folder in [only] if only else _folders(imagesets):
        stated = sum(s.images or 0 for s in imagesets if s.folder == folder)
        for entry in _listing(tree, f"{root}/{folder}", stated, notes):
            if entry.is_dir:
                others.append(f"{entry.name}/")
            elif not is_candidate(entry.name):
                others.append(entry.name)
            elif any(ord(letter) < 32 or ord(letter) == 127 for letter in entry.name):
                refused[safe_name(entry.name)] = "its name holds a control character"
            elif entry.size == 0:
                refused[f"{folder}/{entry.name}"] = "it is empty"
            else:
                wanted[f"{folder}/{entry.name}"] = entry
    names = distinct_file_names({path: entry.name for path, entry in wanted.items()})
    taken = selection.require([*wanted], root)
    files = {path: tree.file(f"{root}/{path}", names[path], wanted[path]) for path in taken}
    excluded = tuple(path for path in wanted if path not in files)
    notes += selection.notes(wanted)
    return EntryFiles(files, excluded, tuple(sorted(others)), refused, tuple(notes))


def is_candidate(name: str) -> bool:
    """Whether a file may be of a format that is converted; its content decides."""
    return bool(registry.file_formats_for(name, FORMATS))


def _folders(imagesets: Sequence[ImageSet]) -> list[str]:
    return sorted({imageset.folder for imageset in imagesets} or {"data"})


def _listing(tree: EbiTree, folder: str, stated: int, notes: list[str]) -> list[FtpEntry]:
    """The entries of a folder; where there seem to be too few, the other protocol's as well.

    A listing that was cut looks like a shorter one. The count of the entry is the only hint, and
    often wrong, so the decision is left to a second listing.
    """
    way, entries = tree.listing(folder)
    count = sum(is_candidate(entry.name) for entry in entries)
    if count >= stated:
        return entries
    other: Way = "https" if way == "ftp" else "ftp"
    try:
        second = tree.listing_by(other, folder)
    except StoppedError:
        raise
    except MacroscopeError as error:
        _log.info("no second listing to compare with: %s", error)
        second = tree.listing_by(way, folder)
        other = way
    absent = {entry.name for entry in second} - {entry.name for entry in entries}
    if not absent:
        notes.append(f"the API states {stated} images, {count} files are there")
        return entries
    if other in tree.ways and other != way:
        tree.ways = (other,)
        return second
    raise short_listing(folder, len(entries), len(second))
