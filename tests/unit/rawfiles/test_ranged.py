"""Files that come while others are read: each once, some ahead, an error told to who waits."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from lib.errors import FormatError
from lib.formats.planes import MissingSection, Section
from lib.geometry import Box
from lib.rawfiles.ranged import ArrivingFiles, ArrivingStack

SHAPE = (3, 4)


class Archive:
    """Brings files when it is let; notes which, and how many at once."""

    def __init__(self) -> None:
        self.brought: list[int] = []
        self.go = threading.Event()
        self.bad: set[int] = set()
        self._lock = threading.Lock()
        self._running = self.most = 0

    def bring(self, number: int) -> None:
        with self._lock:
            self.brought.append(number)
            self._running += 1
            self.most = max(self.most, self._running)
        assert self.go.wait(120)
        with self._lock:
            self._running -= 1
        if number in self.bad:
            raise FormatError(f"file {number} is damaged")


def stack(archive: Archive, count: int, at_once: int = 3) -> tuple[ArrivingStack, ArrivingFiles]:
    files = ArrivingFiles(count, archive.bring, at_once)
    dtype = np.dtype(np.uint8)

    def opened(number: int) -> Any:
        files.wait_for(number)
        return MissingSection(f"section {number}", SHAPE, dtype)

    sections = [
        Section(f"s{n}", SHAPE, dtype, lambda n=n: opened(n))  # type: ignore[misc]
        for n in range(count)
    ]
    return ArrivingStack(sections, list(range(count)), files), files


def test_a_box_brings_its_files_and_as_many_ahead_and_no_more() -> None:
    archive = Archive()
    archive.go.set()
    with stack(archive, 20)[0] as reader:
        assert sorted(archive.brought) == [0], "the first tells how sections are stored"
        list(reader.blocks(Box((4, 0, 0), (7, *SHAPE))))
        for number in range(4, 10):  # who waits for the rest of what was begun
            reader._arriving.wait_for(number)
    assert sorted(archive.brought) == [0, *range(4, 10)]


def test_several_come_at_once_and_each_only_once() -> None:
    archive = Archive()
    files = ArrivingFiles(9, archive.bring, 3)
    files.want(range(9))
    files.want(range(9))
    archive.go.set()
    for number in range(9):
        files.wait_for(number)
    files.close()
    assert sorted(archive.brought) == list(range(9))
    assert archive.most <= 3


def test_a_bad_file_is_told_to_who_waits_for_it_and_costs_no_other() -> None:
    archive = Archive()
    archive.go.set()
    archive.bad = {2}
    files = ArrivingFiles(4, archive.bring, 2)
    files.want(range(4))
    for number in (0, 1, 3):
        files.wait_for(number)
    with pytest.raises(FormatError, match="file 2 is damaged"):
        files.wait_for(2)
    archive.bad.clear()
    files.wait_for(2)  # tried again
    files.close()
    assert archive.brought.count(2) == 2
