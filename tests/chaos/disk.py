"""A file system on a loop device whose power can be cut: its block device is copied as it is.

What the kernel has not written to the device yet is not in the copy, just as after a power cut. A
copy holds every write that the device has taken, in order; a disk that also loses or reorders what
it has in its own cache until it is told to flush is not modelled.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

_FICLONE = 0x40049409  # ioctl_ficlonerange(2): the whole file, at one moment
_BLOCK = 4 * 2**20
_XFS_MEGABYTES = 2000
_TOOLS = ("mkfs.ext4", "mount", "umount")


@cache
def can_cut_power() -> bool:
    """Whether this process may mount loop devices here: it is tried.

    A container may be root's, show the device, and be refused it all the same.
    """
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        return False
    return all(shutil.which(tool, path=_path()) for tool in _TOOLS) and _can_mount("ext4", 8)


def _can_mount(kind: str, megabytes: int) -> bool:
    with tempfile.TemporaryDirectory(prefix="chaos-") as made:
        try:
            _make(Path(made) / "device", megabytes, kind)
            with _mount(Path(made) / "device", Path(made) / "mounted"):
                return True
        except subprocess.CalledProcessError:
            return False


class CuttableDisk:
    """An ext4 file system with a journal, at `mounted`."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self._folder, self._megabytes = folder, megabytes
        self._image = folder / "device"
        self.mounted = folder / "mounted"
        self._stack = ExitStack()

    def __enter__(self) -> CuttableDisk:
        _make(self._image, self._megabytes, "ext4")
        self._stack.enter_context(_mount(self._image, self.mounted))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def cut(self) -> Path:
        """Copy the device as it is at one moment of this call."""
        copy = self._folder / "copy"
        copy.unlink(missing_ok=True)
        with open(self._image, "rb") as source, open(copy, "w+b") as target:
            try:
                fcntl.ioctl(target, _FICLONE, source.fileno())
            except OSError:  # a file system without shared blocks
                _copy_still(source.fileno(), target.fileno())
        return copy

    @contextmanager
    def after_the_cut(self, copy: Path) -> Iterator[Path]:
        """Mount a copy, which repairs itself from its journal as after any power cut."""
        with _mount(copy, self._folder / "after") as mounted:
            yield mounted


@contextmanager
def where_copies_are_instant(folder: Path) -> Iterator[Path]:
    """A folder whose files can be copied at one moment, where XFS can be made; else `folder`."""
    known = shutil.which("mkfs.xfs", path=_path()) is not None
    if not (known and _can_mount("xfs", _XFS_MEGABYTES)):  # not every kernel has it
        yield folder
        return
    image = folder / "outer"
    _make(image, _XFS_MEGABYTES, "xfs")
    with _mount(image, folder / "instant") as mounted:
        yield mounted


def _copy_still(source: int, target: int) -> None:
    """Copy until nothing has changed between two passes: then all was so at one moment."""
    os.truncate(target, os.fstat(source).st_size)
    changed = True
    while changed:
        changed, offset = False, 0
        while block := os.pread(source, _BLOCK, offset):
            if os.pread(target, _BLOCK, offset) != block:
                changed = True
                os.pwrite(target, block, offset)
            offset += len(block)


def _make(image: Path, megabytes: int, kind: str) -> None:
    with open(image, "wb") as file:
        file.truncate(megabytes * 2**20)
    _run(f"mkfs.{kind}", "-q", str(image))


@contextmanager
def _mount(image: Path, at: Path) -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    _run("mount", "-o", "loop", str(image), str(at))
    try:
        yield at
    finally:
        _run("umount", str(at))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PATH": _path()})


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
