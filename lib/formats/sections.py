"""Numbered files of one section each, read as one volume."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.base import Block, VolumeReader
from lib.formats.planes import check_box
from lib.geometry import Box, ShapeZYX

_NUMBER = re.compile(r"([0-9]+)")
_SHOWN = 20
_FEWEST_TO_FOLLOW = 3  # of two files, any number follows any other
_MOST_MISSING = 10_000  # further apart than this, two numbers are no neighbours in a stack


@dataclass(frozen=True, slots=True)
class SectionGroup:
    """Files of one stack in slice order.

    Attributes
    ----------
    stem
        What the names have in common, for people.
    pattern
        The same as a path, ``#`` in place of the section's number: ``data/a_slice_#.dm3``. No
        other group of the same listing has it.
    names
        Names, or paths where the files lie in folders.
    numbers
        Of each file, ascending, no two alike.
    apart
        Files that are named like these, and are in no stack with them: their number is that of
        another file (``a_01`` beside ``a_1``) or far from all others.
    excluded, excluded_numbers
        Files that would be sections of this stack, and were to be left out.
    """

    stem: str
    pattern: str
    names: tuple[str, ...]
    numbers: tuple[int, ...]
    apart: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    excluded_numbers: tuple[int, ...] = ()

    @property
    def sparse(self) -> bool:
        """Whether so many numbers lack a file that these are no sections of one stack."""
        steps = {b - a for a, b in itertools.pairwise(self.numbers)}
        span = self.numbers[-1] - self.numbers[0] + 1
        return len(steps) > 1 and span > len(self.numbers) + _MOST_MISSING

    @property
    def missing(self) -> tuple[int, ...]:
        """Numbers between the first and the last for which there is no file."""
        there = set(range(self.numbers[0], self.numbers[-1])) - set(self.numbers)
        return tuple(sorted(there))

    def places(
        self, names: Sequence[str] | None = None
    ) -> tuple[tuple[int, ...], int, tuple[str, ...]]:
        """z of each section, the depth of the stack, and what is to be noted.

        By number, where numbers are absent; equal steps leave no hole.

        Parameters
        ----------
        names
            Of the files that make the stack, in slice order; all, by default. What is left out
            between them leaves its place empty.

        Raises
        ------
        FormatError
            The numbers are too far apart for sections.
        """
        if self.sparse:
            raise FormatError(
                f"{len(self.numbers)} files are numbered from {self.numbers[0]} to "
                f"{self.numbers[-1]}, too far apart for sections",
                location=self.names[0],
                advice="Leave out the files that are no sections, or take each by itself",
            )
        kept = {*(self.names if names is None else names)}
        pairs = zip(self.names, self.numbers, strict=True)
        numbers = [number for name, number in pairs if name in kept]
        between = range(numbers[0], numbers[-1] + 1)
        # The steps are those of all files between: one that is left out does leave a hole.
        known = sorted({n for n in (*self.numbers, *self.excluded_numbers) if n in between})
        steps = {b - a for a, b in itertools.pairwise(known)}
        step = steps.pop() if len(steps) == 1 else 1
        places = tuple((number - numbers[0]) // step for number in numbers)
        notes = [f"sections are numbered in steps of {step}"] if step != 1 else []
        holes = set(between[::step]) - set(numbers)
        for those, text in (
            (holes - set(known), "sections are absent from the archive"),
            (holes & set(known), "sections are left out, their places are empty"),
        ):
            if those:
                notes.append(f"{len(those)} {text}: {_few(sorted(those))}")
        if self.apart:
            shown = _few([name.rpartition("/")[2] for name in self.apart])
            notes.append(f"in no stack with these, for their numbers: {shown}")
        return places, places[-1] + 1, tuple(notes)


def _few(items: Sequence[object]) -> str:
    return ", ".join(map(str, items[:_SHOWN])) + (", ..." if len(items) > _SHOWN else "")


@dataclass(frozen=True, slots=True)
class Section:
    """One file: how to open it, and what is known of it."""

    name: str
    shape_yx: tuple[int, int]
    dtype: np.dtype[Any]
    open: Callable[[], VolumeReader]


def group_sections(
    names: Iterable[str], excluded: Collection[str] = ()
) -> tuple[list[SectionGroup], list[str]]:
    """Sort file names into stacks of two files or more, and single files.

    Names belong together if they differ in one number only: the section's. Files of different
    folders, or with different suffixes, never do. Where several numbers vary, one that all others
    follow counts sections (``slice_00288_z=1.4263um``); else the last one does, and the others tell
    stacks apart (``tile1_0001``). No file keeps the others of its stack
    from being one: of two with the same number, and of those whose number is far from all others,
    each makes another stack, or is single.

    Parameters
    ----------
    excluded
        Names that are there and to be left out. They have a part in which number counts sections.
    """
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in sorted({*names, *excluded}):
        stem, suffix = _split(name)
        folder = name.rpartition("/")[0]
        alike[(folder, *_NUMBER.split(stem)[::2], suffix.lower())].append(name)
    groups, singles = [], []
    for members in alike.values():
        for stem, numbered in _by_varying_number(members).items():
            left_out = [file for file in numbered if file.name in excluded]
            stacks, alone = _stacks([file for file in numbered if file.name not in excluded])
            singles += [file.name for file in alone]
            for style, files in stacks:
                here = {file.name for file in (*files, *left_out)}
                others = [file.name for file in numbered if file.name not in here]
                groups.append(_group(stem, style, files, others, left_out))
    return sorted(groups, key=lambda group: group.pattern), sorted(singles)


@dataclass(frozen=True, slots=True)
class _Numbered:
    """A file's name, and the number in it as it is written."""

    number: int
    text: str
    name: str


_Stack = tuple[str, list[_Numbered]]
"""What stands for the number in the pattern, and the files in slice order."""


def _split(name: str) -> tuple[str, str]:
    path = PurePosixPath(name)
    return path.name[: len(path.name) - len(path.suffix)], path.suffix


def _by_varying_number(names: Sequence[str]) -> dict[str, list[_Numbered]]:
    parts = [_NUMBER.split(_split(name)[0]) for name in names]
    columns = range(1, len(parts[0]), 2)
    varying = [c for c in columns if len({int(part[c]) for part in parts}) > 1]
    if not varying:  # alone, or told apart by nothing but leading zeros
        varying = [c for c in columns if len({part[c] for part in parts}) > 1] or [*columns][-1:]
    counter = _counter(parts, varying)
    stacks: dict[str, list[_Numbered]] = defaultdict(list)
    for name, part in zip(names, parts, strict=True):
        column = counter if counter is not None else varying[-1] if varying else None
        text = part[column] if column is not None else "0"
        rest = part if column is None else [*part[:column], "#", *part[column + 1 :]]
        if counter is not None:
            rest = ["*" if c in varying and c != counter else text for c, text in enumerate(rest)]
        stacks["".join(rest)].append(_Numbered(int(text), text, name))
    return stacks


def _counter(parts: Sequence[list[str]], varying: Sequence[int]) -> int | None:
    """The number that counts sections where all others follow it (``slice_00288_z=1.4263um``).

    Each value of it is there once, and every other number, read as a decimal where a point parts
    two, grows or falls with it. None where no number is of that kind.
    """
    if len(varying) < 2 or len(parts) < _FEWEST_TO_FOLLOW:
        return None
    found: list[tuple[int, int]] = []
    for column in varying:
        ordered = sorted(parts, key=lambda part: int(part[column]))
        numbers = [int(part[column]) for part in ordered]
        others = [c for c in varying if c != column]
        if len(set(numbers)) == len(numbers) and all(
            _follows([_decimal(part, c) for part in ordered]) for c in others
        ):
            found.append((numbers[-1] - numbers[0], column))
    return min(found)[1] if found else None


def _decimal(part: Sequence[str], column: int) -> float:
    """A number of a name, together with what a point parts from it."""
    if column + 2 < len(part) and part[column + 1] == ".":
        return float(f"{part[column]}.{part[column + 2]}")
    if column >= 3 and part[column - 1] == ".":
        return float(f"{part[column - 2]}.{part[column]}")
    return float(part[column])


def _follows(values: Sequence[float]) -> bool:
    pairs = [*itertools.pairwise(values)]
    return all(a <= b for a, b in pairs) or all(a >= b for a, b in pairs)


def _stacks(files: list[_Numbered]) -> tuple[list[_Stack], list[_Numbered]]:
    """Stacks of two files or more, no two of one number, none far from its neighbours; the rest."""
    stacks: list[_Stack] = []
    alone: list[_Numbered] = []
    for mark, series in _by_style(files):
        runs: list[list[_Numbered]] = []
        for file in sorted(series, key=lambda file: file.number):
            if runs and file.number - runs[-1][-1].number <= _MOST_MISSING:
                runs[-1].append(file)
            else:
                runs.append([file])
        long = [run for run in runs if len(run) > 1]
        alone += [run[0] for run in runs if len(run) == 1]
        stacks += [
            (mark if place == 0 else f"{mark}from{run[0].number}", run)
            for place, run in enumerate(long)
        ]
    return stacks, alone


def _by_style(files: list[_Numbered]) -> list[_Stack]:
    """Files of which no two have one number, told apart by how their numbers are written.

    All of them, where no two have one; else the most that are written alike (with leading zeros to
    one width, or without), then the most of the rest. Where that is undecided, those without.
    """
    if len({file.number for file in files}) == len(files):
        return [("#", files)] if files else []
    series: list[_Stack] = []
    rest = sorted(files, key=lambda file: file.name)
    while rest:
        widths = {1} | {len(file.text) for file in rest}
        best = max(sorted(widths), key=lambda width: len(_of_width(rest, width)))
        found = _of_width(rest, best)
        taken = {mark for mark, _ in series}
        marks = ("#" * count for count in itertools.count(best if series else 1))
        series.append((next(m for m in marks if m not in taken), list(found.values())))
        taken_names = {file.name for file in found.values()}
        rest = [file for file in rest if file.name not in taken_names]
    return series


def _of_width(files: Iterable[_Numbered], width: int) -> dict[int, _Numbered]:
    found: dict[int, _Numbered] = {}
    for file in files:
        if file.text == f"{file.number:0{width}d}":
            found.setdefault(file.number, file)
    return found


def _group(
    stem: str,
    mark: str,
    files: list[_Numbered],
    others: Sequence[str],
    left_out: Iterable[_Numbered],
) -> SectionGroup:
    numbers = tuple(file.number for file in files)
    near = range(numbers[0] - _MOST_MISSING, numbers[-1] + _MOST_MISSING + 1)
    excluded = [file for file in left_out if file.number in near and file.number not in numbers]
    clean = stem.replace("#", "").replace("*", "").strip(" _-.") or "sections"
    first = PurePosixPath(files[0].name)
    pattern = str(first.with_name(stem.replace("#", mark, 1) + first.suffix))
    names = tuple(file.name for file in files)
    return SectionGroup(
        clean,
        pattern,
        names,
        numbers,
        tuple(others),
        tuple(file.name for file in excluded),
        tuple(file.number for file in excluded),
    )


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
                    advice="Leave it out with exclude, or set assemble to files",
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
