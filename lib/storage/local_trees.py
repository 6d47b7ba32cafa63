"""Whole folders that leave their name, or get one, in one step where the file system can.

On overlayfs a folder of a lower layer (an image's, say) cannot be renamed (EXDEV). Its files are
moved one by one then, or deleted in place, and the documents directly in the folder, by which a
tree is a volume, come last or go first.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable

from lib.storage.keys import temporary_name


def remove_tree(path: str) -> None:
    """Delete a folder; it leaves its name in one step, so that no half tree is seen."""
    folder, name = os.path.split(path)
    gone = os.path.join(folder, temporary_name(name, "gone"))
    if _rename(path, gone):
        shutil.rmtree(gone)
        return
    for document in _files_in(path):
        os.unlink(document)
    shutil.rmtree(path)


def replace_tree(source: str, target: str, on_moved: Callable[[bool], object]) -> None:
    """Give a tree, or a file, its final name, in place of what is there.

    Killed at any moment, there is the old tree, the new one, or, for the moment between two
    renames, the old one under a temporary name of kind ``old``.

    Parameters
    ----------
    on_moved
        Called when the new tree has its name, before anything of the old one is deleted, with
        whether its files were moved one by one.
    """
    folder, name = os.path.split(target)
    os.makedirs(folder, exist_ok=True)
    aside = None
    if os.path.isdir(target):
        aside = os.path.join(folder, temporary_name(name, "old"))
        if not _rename(target, aside):
            remove_tree(target)
            aside = None
    moved = not _rename(source, target)
    if moved:
        _move_files(source, target)
    on_moved(moved)
    if aside is not None:
        remove_tree(aside)


def _rename(source: str, target: str) -> bool:
    """Rename; False where that would be a copy."""
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV or not os.path.isdir(source):
            raise
        return False
    return True


def _move_files(source: str, target: str) -> None:
    """Move a tree file by file, the documents directly in it last and ``zarr.json`` after all."""
    for where, folders, names in os.walk(source):
        there = os.path.join(target, os.path.relpath(where, source))
        os.makedirs(there, exist_ok=True)
        if where != source:
            for name in names:
                os.rename(os.path.join(where, name), os.path.join(there, name))
        folders.sort()
    for document in sorted(_files_in(source), key=lambda path: path.endswith("zarr.json")):
        os.rename(document, os.path.join(target, os.path.basename(document)))
    shutil.rmtree(source)


def _files_in(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.path for entry in entries if not entry.is_dir(follow_symlinks=False)]
