"""Which files are sections of one stack, by the numbers in their names."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from lib.errors import FormatError
from lib.formats.numbering import NUMBER, Numbered, by_varying_number, split, why_alone

_SIGN = re.compile(r"(?<![A-Ya-y0-9)\]])[+-](?=[0-9])")
_SIGNED = re.compile(rf"({_SIGN.pattern})?([0-9]+)")
SIGNED = "its numbers have signs, as the angles of a tilt series, and count no sections"
_WITH_POINT = re.compile(r"[ _\[(-](?:\*\.[*0-9]|[0-9]+\.\*)(?! ?(?:nm|um|µm|μm|mm))")
_SAME_FORMAT = {".tiff": ".tif", ".jpeg": ".jpg", ".hdf5": ".h5"}
_SHOWN = 20
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
        if _WITH_POINT.search(self.pattern.rpartition("/")[2]):
            notes.append(
                "a number with a point goes with the section's in each name: where it is an angle, "
                "these are images of a tilt series and no sections"
            )
        return places, places[-1] + 1, tuple(notes)


def _few(items: Sequence[object]) -> str:
    return ", ".join(map(str, items[:_SHOWN])) + (", ..." if len(items) > _SHOWN else "")


_Stack = tuple[str, list[Numbered]]
"""What stands for the number in the pattern, and the files in slice order."""


def group_sections(
    names: Iterable[str], excluded: Collection[str] = (), *, demanded: bool = False
) -> tuple[list[SectionGroup], dict[str, str]]:
    """Sort file names into stacks of two files or more, and single files with the reason, if any.

    Names belong together if they differ in one number only: the section's. Files of different
    folders, or of different formats, never do. Where several numbers vary, one that all others
    follow counts sections (``slice_00288_z=1.4263um``); else one that its word says to
    (``z0001_ch2``), else the last one that no word speaks against (``Tile_r1-c2_S_001``), and the
    others tell stacks apart (``tile1_0001``). Numbers of tiles and channels count no sections. A
    position is one number, point and all (``z0.5um``). No file keeps the others of its stack
    from being one: of two with the same number, and of those whose number is far from all others,
    each makes another stack, or is single. Numbers of which some have a minus sign are angles of a
    tilt series or the like, and no sections (`SIGNED`).

    Parameters
    ----------
    excluded
        Names that are there and to be left out. They have a part in which number counts sections.
    demanded
        That the files are sections is known: the only number that varies counts them, whatever
        stands before it.
    """
    every = sorted({*names, *excluded})
    signed = _with_signs(every)
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in every:
        if name not in signed:
            alike[_likeness(name)].append(name)
    groups, whys = [], dict.fromkeys(signed, SIGNED)
    singles = [name for name in signed if name not in excluded]
    for members in itertools.chain(*map(_without_twins, alike.values())):
        stacked, why = by_varying_number(members, demanded)
        whys |= dict.fromkeys(members if why else (), why)
        for stem, numbered in stacked.items():
            left_out = [file for file in numbered if file.name in excluded]
            stacks, alone = _stacks([file for file in numbered if file.name not in excluded])
            singles += [file.name for file in alone]
            for style, files in stacks:
                here = {file.name for file in (*files, *left_out)}
                others = [file.name for file in numbered if file.name not in here]
                groups.append(_group(stem, style, files, others, left_out))
    reasons = {name: whys.get(name) or why_alone(name) for name in sorted(singles)}
    return sorted(groups, key=lambda group: group.pattern), reasons


def _likeness(name: str) -> tuple[str, ...]:
    """What names of one stack have in common: folder, format and all but the numbers."""
    stem, suffix = split(name)
    kind = suffix.lower()
    return (name.rpartition("/")[0], *NUMBER.split(stem)[::2], _SAME_FORMAT.get(kind, kind))


def _with_signs(names: Iterable[str]) -> set[str]:
    """Names that are alike but for a number that has a minus sign in some of them only."""
    alike: dict[tuple[str, ...], dict[str, list[str]]] = defaultdict(dict)
    for name in names:
        folder, _, file = name.rpartition("/")
        plain, signs = _SIGN.sub("", file), [sign for sign, _ in _SIGNED.findall(split(name)[0])]
        alike[_likeness(f"{folder}/{plain}")][name] = signs
    mixed = set[str]()
    for found in alike.values():
        columns = [{*column} for column in zip(*found.values(), strict=True)]
        if any("-" in signs and len(signs) > 1 for signs in columns):
            mixed |= found.keys()
    return mixed


def _without_twins(names: list[str]) -> list[list[str]]:
    """Names told apart by suffix where one stands with two of them (``a_1.tif``, ``a_1.tiff``)."""
    if len({split(name)[0] for name in names}) == len(names):
        return [names]
    by_suffix: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_suffix[split(name)[1].lower()].append(name)
    return [*by_suffix.values()]


def _stacks(files: list[Numbered]) -> tuple[list[_Stack], list[Numbered]]:
    """Stacks of two files or more, no two of one number, none far from its neighbours; the rest."""
    stacks: list[_Stack] = []
    alone: list[Numbered] = []
    for mark, series in _by_style(files):
        runs: list[list[Numbered]] = []
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


def _by_style(files: list[Numbered]) -> list[_Stack]:
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


def _of_width(files: Iterable[Numbered], width: int) -> dict[int, Numbered]:
    found: dict[int, Numbered] = {}
    for file in files:
        if file.text == f"{file.number:0{width}d}":
            found.setdefault(file.number, file)
    return found


def _group(
    stem: str,
    mark: str,
    files: list[Numbered],
    others: Sequence[str],
    left_out: Iterable[Numbered],
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
