"""Which files are sections of one stack, by the numbers in their names."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePosixPath

from lib.errors import FormatError

_NUMBER = re.compile(r"([0-9]+)")
_WORD = re.compile(r"([A-Z]?[a-z]+|[A-Z]+)[^A-Za-z]*$")
_LENGTH = re.compile(r"[ _]?(?:nm|um|µm|μm|mm)(?![a-z])", re.IGNORECASE)
_SECTION = frozenset(
    {"z", "slice", "slices", "section", "sections", "sec", "slc", "plane", "layer"}
)
"""Words whose number counts sections, whatever other numbers a name has."""
_TILE = frozenset({"ch", "channel", "channels", "col", "cols", "column", "row", "rows", "tile"})
"""Words whose number counts no sections, even where it is the only one that varies."""
_PLACE = _TILE | {"tiles", "c", "r", "t", "w", "x", "y", "det", "detector", "time", "timepoint"}
"""Words whose number counts no sections where a name has several that vary."""
_OBJECT = frozenset({"cell", "fish", "grid", "mouse", "region", "roi", "sample", "well", "worm"})
"""Words whose number counts sections only where no other number does."""
_SAME_FORMAT = {".tiff": ".tif", ".jpeg": ".jpg", ".hdf5": ".h5"}
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


def group_sections(
    names: Iterable[str], excluded: Collection[str] = ()
) -> tuple[list[SectionGroup], list[str]]:
    """Sort file names into stacks of two files or more, and single files.

    Names belong together if they differ in one number only: the section's. Files of different
    folders, or of different formats, never do. Where several numbers vary, one that all others
    follow counts sections (``slice_00288_z=1.4263um``); else one that its word says to
    (``z0001_ch2``), else the last one that no word speaks against (``Tile_r1-c2_S_001``), and the
    others tell stacks apart (``tile1_0001``). Numbers of tiles and channels count no sections. A
    position is one number, point and all (``z0.5um``). No file keeps the others of its stack
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
        folder, kind = name.rpartition("/")[0], suffix.lower()
        kind = _SAME_FORMAT.get(kind, kind)
        alike[(folder, *_NUMBER.split(stem)[::2], kind)].append(name)
    groups, singles = [], []
    for members in itertools.chain(*map(_without_twins, alike.values())):
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


def _without_twins(names: list[str]) -> list[list[str]]:
    """Names told apart by suffix where one stands with two of them (``a_1.tif``, ``a_1.tiff``)."""
    if len({_split(name)[0] for name in names}) == len(names):
        return [names]
    by_suffix: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_suffix[_split(name)[1].lower()].append(name)
    return [*by_suffix.values()]


def _by_varying_number(names: Sequence[str]) -> dict[str, list[_Numbered]]:
    parts = _decimals_joined([_NUMBER.split(_split(name)[0]) for name in names])
    columns = range(1, len(parts[0]), 2)
    varying = [c for c in columns if len({Decimal(part[c]) for part in parts}) > 1]
    if not varying:  # alone, or told apart by nothing but leading zeros
        varying = [c for c in columns if len({part[c] for part in parts}) > 1] or [*columns][-1:]
    counter = _counter(parts, varying)
    column = counter if counter is not None else _by_words(parts, varying)
    follow = counter is not None or (column is not None and _is_alone(parts, varying, column))
    stacks: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, part in zip(names, parts, strict=True):
        rest = part if column is None else [*part[:column], "#", *part[column + 1 :]]
        if follow:
            rest = ["*" if c in varying and c != column else text for c, text in enumerate(rest)]
        stacks["".join(rest)].append((name, "0" if column is None else part[column]))
    return {stem: _numbered(files) for stem, files in stacks.items()}


def _decimals_joined(parts: list[list[str]]) -> list[list[str]]:
    """The same parts of names; positions, whose point parts two numbers, as one number.

    A position follows a ``z`` or has a unit of length; where only its decimals vary, and are
    written to one width, they count as they are.
    """
    for column in range(1, len(parts[0]) - 2, 2):
        before, after = parts[0][column - 1], parts[0][column + 3]
        pairs = {(part[column], part[column + 2]) for part in parts}
        whole, widths = {a for a, _ in pairs}, {len(b) for _, b in pairs}
        if parts[0][column + 1] != "." or len(whole) == len(widths) == 1:
            continue
        if _word(before) == "z" or _LENGTH.match(after):
            joined = [
                [*part[:column], f"{part[column]}.{part[column + 2]}", *part[column + 3 :]]
                for part in parts
            ]
            alone = _counter(parts, range(1, len(parts[0]), 2)) is None
            return joined if alone else parts
    return parts


def _numbered(files: Sequence[tuple[str, str]]) -> list[_Numbered]:
    """Files with their numbers; of positions the number of usual steps from 0."""
    if not any("." in text for _, text in files):
        return [_Numbered(int(text), text, name) for name, text in files]
    ordered = sorted((Decimal(text), name) for name, text in files)
    steps = sorted(b - a for (a, _), (b, _) in itertools.pairwise(ordered) if b > a)
    usual = steps[len(steps) // 2] if steps else Decimal(1)
    number, last, found = round(ordered[0][0] / usual), ordered[0][0], []
    for at, name in ordered:
        if at > last:
            number += max(1, round((at - last) / usual))
        found.append(_Numbered(number, str(number), name))
        last = at
    return found


def _word(before: str) -> str:
    """The word that a number belongs to, in lower case, from what stands before it."""
    match = _WORD.search(before)
    return match[1].lower() if match else ""


def _word_of(parts: Sequence[list[str]], column: int) -> str:
    """The word of a number; of ``Tile_001-002`` it is that of both."""
    word = _word(parts[0][column - 1])
    if (
        word
        or column < 3
        or len({*map(len, (p[c] for p in parts for c in (column, column - 2)))}) > 1
    ):
        return word
    above = _word_of(parts, column - 2)
    return above if above in _TILE else ""


def _by_words(parts: Sequence[list[str]], varying: Sequence[int]) -> int | None:
    """The number that counts sections by the words before the numbers; None where none does."""
    words = {column: _word_of(parts, column) for column in varying}
    if len(varying) == 1 and len(parts) > 1:
        return None if words[varying[0]] in _TILE else varying[0]

    def rank(column: int) -> int:
        word = words[column]
        return 3 if word in _SECTION else 0 if word in _PLACE else 1 if word in _OBJECT else 2

    best = max(varying, key=lambda column: (rank(column), column), default=None)
    return best if best is not None and (rank(best) or len(parts) == 1) else None


def _is_alone(parts: Sequence[list[str]], varying: Sequence[int], column: int) -> bool:
    """Whether a number that counts sections by its word is in no name twice.

    The others are then what was noted of a section (``Z001_X104_Y3``), unless they tell cells or
    tiles apart.
    """
    words = {_word_of(parts, c) for c in varying if c != column}
    unique = len({Decimal(part[column]) for part in parts}) == len(parts)
    by_word = _word_of(parts, column) in _SECTION and len(parts) >= _FEWEST_TO_FOLLOW
    return unique and by_word and not words & (_TILE | _OBJECT)


def place_word(name: str) -> str | None:
    """The word of a file's last number where it counts tiles, channels or the like."""
    part = _NUMBER.split(_split(name)[0])
    word = _word_of([part], len(part) - 2) if len(part) > 1 else ""
    return word if word in _PLACE and (len(word) > 1 or word in "xy") else None


def _counter(parts: Sequence[list[str]], varying: Sequence[int]) -> int | None:
    """The number that counts sections where all others follow it (``slice_00288_z=1.4263um``).

    Each value of it is there once, and every other number, read as a decimal where a point parts
    two, grows or falls with it. None where no number is of that kind.
    """
    if len(varying) < 2 or len(parts) < _FEWEST_TO_FOLLOW:
        return None
    found: list[tuple[Decimal, int]] = []
    for column in varying:
        ordered = sorted(parts, key=lambda part: Decimal(part[column]))
        numbers = [Decimal(part[column]) for part in ordered]
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
