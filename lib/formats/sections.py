"""Numbered files of one section each, read as one volume."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.base import Block, VolumeReader
from lib.formats.planes import check_box
from lib.geometry import Box, ShapeZYX

_NUMBER = re.compile(r"(\d+)")
_MOST_MISSING = 10_000  # further apart than this, two numbers are no neighbours in a stack


@dataclass(frozen=True, slots=True)
class SectionGroup:
    """Files of one stack in slice order.

    Attributes
    ----------
    stem
        What the names have in common, for people.
    pattern
        The same as a path, ``#`` in place of the section's number: ``data/a_slice_#.dm3``.
    names
        Names, or paths where the files lie in folders.
    missing
        Numbers between the first and the last for which there is no file.
    """

    stem: str
    pattern: str
    names: tuple[str, ...]
    numbers: tuple[int, ...]
    missing: tuple[int, ...]

    def places(self) -> tuple[tuple[int, ...], int, tuple[str, ...]]:
        """z of each section, the depth of the stack, and what is to be noted.

        By number, where numbers are absent; equal steps leave no hole.
        """
        start, count = self.numbers[0], len(self.numbers)
        steps = {b - a for a, b in itertools.pairwise(self.numbers)}
        if len(steps) <= 1:
            step = steps.pop() if steps else 1
            notes = (f"sections are numbered in steps of {step}",) if step != 1 else ()
            return tuple(range(count)), count, notes
        places = tuple(number - start for number in self.numbers)
        absent = ", ".join(str(number) for number in self.missing[:20])
        note = f"{len(self.missing)} sections are absent from the archive: {absent}"
        return places, places[-1] + 1, (note,)


@dataclass(frozen=True, slots=True)
class Section:
    """One file: how to open it, and what is known of it."""

    name: str
    shape_yx: tuple[int, int]
    dtype: np.dtype[Any]
    open: Callable[[], VolumeReader]


def number_of(name: str) -> int | None:
    """The last number in a file name, its extension left out; None if there is none."""
    numbers = _NUMBER.findall(_split(name)[0])
    return int(numbers[-1]) if numbers else None


def group_sections(names: Iterable[str]) -> tuple[list[SectionGroup], list[str]]:
    """Sort file names into stacks of two files or more, and single files.

    Names belong together if they differ in one number only: the section's. Files of different
    folders, or with different suffixes, never do. Where several numbers
    vary (``tile1_0001``), the last one counts sections and the others tell stacks apart.

    Raises
    ------
    FormatError
        Two files of one stack have the same number (``a_1`` and ``a_01``).
    """
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in sorted(names):
        stem, suffix = _split(name)
        folder = name.rpartition("/")[0]
        alike[(folder, *_NUMBER.split(stem)[::2], suffix.lower())].append(name)
    groups, singles = [], []
    for members in alike.values():
        for stem, numbered in _by_varying_number(members).items():
            if len(numbered) == 1:
                singles.append(numbered[0][1])
            else:
                groups.append(_group(stem, numbered))
    return sorted(groups, key=lambda group: group.pattern), sorted(singles)


def _split(name: str) -> tuple[str, str]:
    path = PurePosixPath(name)
    return path.name[: len(path.name) - len(path.suffix)], path.suffix


def _by_varying_number(names: Sequence[str]) -> dict[str, list[tuple[int, str]]]:
    parts = [_NUMBER.split(_split(name)[0]) for name in names]
    columns = range(1, len(parts[0]), 2)
    varying = [c for c in columns if len({int(part[c]) for part in parts}) > 1]
    if not varying:  # alone, or told apart by nothing but leading zeros
        varying = [c for c in columns if len({part[c] for part in parts}) > 1] or [*columns][-1:]
    stacks: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for name, part in zip(names, parts, strict=True):
        column = varying[-1] if varying else None
        number = int(part[column]) if column is not None else 0
        rest = part if column is None else [*part[:column], "#", *part[column + 1 :]]
        stacks["".join(rest)].append((number, name))
    return stacks


def _group(stem: str, numbered: list[tuple[int, str]]) -> SectionGroup:
    numbered.sort()
    numbers = tuple(number for number, _ in numbered)
    for (number, name), (following, other) in itertools.pairwise(numbered):
        if number == following:
            raise FormatError(
                f"{name!r} and {other!r} are both section {number}",
                location=name,
                advice="Exclude one of the two files",
            )
    span = numbers[-1] - numbers[0] + 1
    missing: tuple[int, ...] = ()
    if span > len(numbers):
        if span > len(numbers) + _MOST_MISSING:
            raise FormatError(
                f"the files {stem!r} are numbered {numbers[0]} to {numbers[-1]}, but there are "
                f"{len(numbers)} of them",
                location=stem,
                advice="Name the files that make the stack",
            )
        missing = tuple(sorted(set(range(numbers[0], numbers[-1])) - set(numbers)))
    clean = stem.replace("#", "").strip(" _-.") or "sections"
    first = PurePosixPath(numbered[0][1])
    pattern = str(first.with_name(stem + first.suffix.lower()))
    return SectionGroup(clean, pattern, tuple(name for _, name in numbered), numbers, missing)


class SectionStack(VolumeReader):
    """One volume out of sections in the order given, each opened only while it is read.

    Parameters
    ----------
    sections
        At least one; all of one shape and dtype.

    Raises
    ------
    UnsupportedFormatError
        A section differs in shape or dtype from the first.
    """

    def __init__(self, sections: Sequence[Section]) -> None:
        if not sections:
            raise FormatError("a stack without sections")
        first = sections[0]
        for section in sections:
            if (section.shape_yx, section.dtype) != (first.shape_yx, first.dtype):
                raise UnsupportedFormatError(
                    f"the section is {section.shape_yx} (y, x) {section.dtype}, the first of its "
                    f"stack {first.shape_yx} {first.dtype}",
                    location=section.name,
                    advice="Exclude this file, or convert it as a volume of its own",
                )
        self._sections = tuple(sections)
        self.shape_zyx: ShapeZYX = (len(sections), *first.shape_yx)
        self.dtype = first.dtype
        with first.open() as reader:
            self.layout = reader.layout

    def blocks(self, box: Box) -> Iterator[Block]:
        """Yield blocks that tile `box`, section by section; see `VolumeReader`.

        Raises
        ------
        FormatError
            A file is no longer what it was when the stack was made.
        """
        check_box(box, self.shape_zyx, self._sections[0].name)
        if box.empty:
            return
        (z0, y0, x0), (z1, y1, x1) = box.start_zyx, box.stop_zyx
        for z in range(z0, z1):
            section = self._sections[z]
            with section.open() as reader:
                if reader.shape_zyx != (1, *section.shape_yx) or reader.dtype != section.dtype:
                    raise FormatError(
                        f"the file holds {reader.shape_zyx} {reader.dtype}, not one section of "
                        f"{section.shape_yx} {section.dtype}",
                        location=section.name,
                        unit=f"section {z}",
                    )
                for block in reader.blocks(Box((0, y0, x0), (1, y1, x1))):
                    yield replace(block, box=block.box.shifted((z, 0, 0)))
