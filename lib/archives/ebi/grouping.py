"""Which files of an entry make which volume: one rule, and a reason for each file that is in none.

No network and no archive: names and sizes, what headers say, and what the image sets say go in.
The rules, in the order in which they decide (docs/how-to/empiar.md shows them as a table):

1. What the archive calls micrographs, tilt series, particles or the like is no volume.
2. Files of one folder and one suffix belong together where their names differ in one number: the
   section's. Other numbers are constant, or rise or fall with it (``slice_03979_z=19.8626um``).
3. Where several numbers vary and none follows, one that its word says to counts sections (``z``,
   ``slice``, ``section``), else the last one that no word speaks against, and the others tell
   stacks apart: the runs of a cell, of which each begins at 0 again. Numbers of tiles, rows,
   columns and channels count no sections, nor do times and settings (``700eV``), numbers of
   which some have a minus sign, and short ones of things (``mouse_2``); those of things tell
   volumes apart.
4. A number twice, or far from all others, makes another stack, or a file of its own.
5. Missing numbers leave places empty; equal steps do not.
6. Sections agree in size and voxel type. Two or more that agree with each other and not with the
   rest are a stack of their own; one alone is a volume of its own.
7. A file of several planes is a volume, a file of several volumes is as many, and so is a file
   that is compressed as a whole.
8. A file that cannot be read costs its own place and no more.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lib.errors import FormatError, UnsupportedFormatError
from lib.formats import registry
from lib.formats.format import VolumeDescription
from lib.formats.numbering import DECIMALS
from lib.formats.sections import SIGNED, SectionGroup, group_sections
from lib.formats.stacks import Describe, Stack, put_together
from lib.geometry import ShapeZYX
from lib.safety import digest, slug, stack_name

_SHOWN = 20
_POSITION = re.compile(r"[ _-]*(?<![a-z])z ?= ?[0-9.#*]*(?:nm|um|µm|μm)", re.IGNORECASE)
_TILT = re.compile(
    r"(?:(?<![A-Za-z])tilt|Tilt|TILT)(?:s|[ _-]?[Ss]eries|[ _-]?SERIES)?(?![a-z]|[ _-]?[Cc]orr)"
    r"|(?<![A-Za-z0-9])(?:TS|ts)[ _-]?[0-9]+(?=/|_.*[0-9])|(?<![A-Za-z])(?:proj|projection)"
    r"[ _-]?(?=#|[0-9]+\.[a-z]+$)"
)
_PICTURES = ("png", "jpeg")
_MOST_SIZES = 16  # of more different sizes, files hold packed voxels
_MOST_SINGLE = 200  # files in no stack whose headers are read


Described = Sequence[VolumeDescription] | FormatError
LookAhead = Callable[[Sequence[str]], Mapping[str, Described]]


@dataclass(frozen=True, slots=True)
class Volume:
    """Files that make one volume.

    Attributes
    ----------
    stem
        What it is called; ``earlier_stem`` is what earlier versions called it.
    path
        Where it lies below the entry: one file's path, or that of its sections with ``#`` in place
        of their number.
    names
        One file, or sections in slice order, by their paths below the entry.
    places
        z of each section; numbers that are absent from an otherwise gapless series leave holes.
    numbers
        Of each section, as its name has it; empty for one file.
    """

    stem: str
    path: str
    names: tuple[str, ...]
    shape_zyx: ShapeZYX
    facts: VolumeDescription
    places: tuple[int, ...] = (0,)
    notes: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    earlier_stem: str = ""

    @property
    def stacked(self) -> bool:
        """Whether each file is one section."""
        return len(self.names) > 1

    @property
    def inner(self) -> str:
        """Where it lies inside its file; empty where the file is the volume."""
        return "" if self.stacked else self.facts.path


@dataclass(slots=True)
class Sorting:
    """Volumes, and the files that are in none, each with the reason."""

    volumes: list[Volume] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    first_error: FormatError | None = None

    def refuse(self, name: str, error: FormatError) -> None:
        """Leave a file out."""
        self.refused[name] = error.message
        self.first_error = self.first_error or error


def sort_files(
    sizes: Mapping[str, int | None],
    describe: Callable[[str], Sequence[VolumeDescription]],
    assemble: str,
    *,
    excluded: Collection[str] = (),
    why_none: Callable[[str], str] = lambda name: "",
    look_ahead: LookAhead = lambda names: {},
) -> Sorting:
    """Sort files into volumes; none of them keeps the others from being one.

    Parameters
    ----------
    sizes
        Bytes of each file, by its path below the entry.
    describe
        Reads the metadata of a file: its volumes. Called for some files of a stack and for each
        single one.
    assemble
        ``auto``, ``stack`` or ``files``.
    excluded
        Paths of files that are there and to be left out.
    why_none
        Why a file is no part of a volume, whatever it is called; heeded by ``auto``.
    look_ahead
        The same as `describe` for many files side by side, errors in their places: told at once
        which headers are needed in any case. It may leave some out.

    Raises
    ------
    FormatError
        ``stack`` was asked for, and there is none, or one that lacks files which are there.
    """
    return _Sorter(sizes, describe, assemble, excluded).sort(why_none, look_ahead)


class _Sorter:
    def __init__(
        self,
        sizes: Mapping[str, int | None],
        describe: Callable[[str], Sequence[VolumeDescription]],
        assemble: str,
        excluded: Collection[str],
    ) -> None:
        self._sizes, self._describe = sizes, describe
        self._assemble, self._excluded = assemble, excluded
        self._seen: dict[str, Described] = {}
        self._made = Sorting()
        self._singles: dict[str, str] = {}
        self._uncounted: dict[str, str] = {}  # why a plane is no section, by its name

    def sort(self, why_none: Callable[[str], str], look_ahead: LookAhead) -> Sorting:
        wanted = [*self._sizes]
        if self._assemble == "auto":
            for name in wanted:
                if reason := why_none(name):
                    self._made.refuse(name, UnsupportedFormatError(reason, location=name))
            wanted = [name for name in wanted if name not in self._made.refused]
        groups: list[SectionGroup] = []
        if self._assemble == "files":
            self._singles = dict.fromkeys(wanted, "")
        else:
            groups, alone = group_sections(
                wanted, self._excluded, demanded=self._assemble == "stack"
            )
            for name, why in (alone | _one_a_folder(alone)).items():
                if why == SIGNED:
                    self._refuse_series(name, why)
                else:
                    self._singles[name] = ""
                    self._uncounted[name] = why
        if self._assemble == "stack" and not groups:
            raise FormatError(
                "no numbered sections are among the files",
                advice="Set assemble to auto or files",
            )
        ends = [name for group in groups for name in (group.names[0], group.names[-1])]
        self._seen |= look_ahead([*ends, *sorted(self._singles)[:_MOST_SINGLE]])
        for group in groups:
            self._take(group)
        self._take_singles()
        return self._made

    def _look(self, name: str) -> Sequence[VolumeDescription]:
        if name not in self._seen:
            try:
                self._seen[name] = self._describe(name)
            except FormatError as error:
                self._seen[name] = error
        found = self._seen[name]
        if isinstance(found, FormatError):
            raise found
        return found

    def _section(self, name: str) -> VolumeDescription:
        """The one volume of a file that may be a section."""
        found = self._look(name)
        if len(found) != 1:
            raise UnsupportedFormatError(f"the file holds {len(found)} volumes", location=name)
        if found[0].refused is not None:
            raise UnsupportedFormatError(found[0].refused, location=name)
        return found[0]

    def _take(self, group: SectionGroup) -> None:
        """Make the volumes of files that are named alike."""
        found = self._several(group)
        if len(found) > 1:
            self._singles |= dict.fromkeys(group.names, "")
            return
        if self._assemble == "stack":
            self._take_one(group)
            return
        if why := _of_a_tilt_series(group.pattern, found):
            for name in group.names:
                self._refuse_series(name, why)
            return
        for part in _runs(group, self._sizes, self._section):
            self._take_one(part)

    def _refuse_series(self, name: str, why: str) -> None:
        text = f"{why} (assemble=files takes each file)"
        self._made.refuse(name, UnsupportedFormatError(text, location=name))

    def _several(self, group: SectionGroup) -> Sequence[VolumeDescription]:
        """The volumes of the first file that can be read."""
        for name in group.names[:3]:
            try:
                return self._look(name)
            except FormatError:
                continue
        return ()

    def _take_one(self, group: SectionGroup) -> None:
        stack = put_together(group, self._section, self._sizes)
        if self._assemble == "stack":
            _require_whole(group, stack)
        for name, error in stack.refused.items():
            self._made.refuse(name, error)
        if stack.first is not None:
            self._made.volumes.append(_stacked(group, stack, stack.first))
        elif stack.why_not:
            note = f"in no stack with files that are called alike: {stack.why_not}"
            self._singles |= {n: note for n in group.names if n not in stack.refused}
        else:
            self._singles |= dict.fromkeys(stack.names, "")
        self._singles |= stack.different

    def _take_singles(self) -> None:
        names = sorted(self._singles)
        for name in names[_MOST_SINGLE:]:
            why = f": {known}" if (known := self._uncounted.get(name)) else ""
            error = UnsupportedFormatError(
                f"more than {_MOST_SINGLE} files are in no stack{why}; name this one with include",
                location=name,
            )
            self._made.refuse(name, error)
        for name in names[:_MOST_SINGLE]:
            note, uncounted = self._singles[name], self._uncounted.get(name, "")
            try:
                found = self._look(name)
                _refuse_picture(name, found, uncounted)
                why = _of_a_tilt_series(name, found, uncounted) if self._assemble == "auto" else ""
            except FormatError as error:
                self._made.refuse(name, error)
                continue
            if why:
                self._refuse_series(name, why)
                continue
            self._made.volumes += self._singly(name, found, note)

    def _singly(self, name: str, found: Sequence[VolumeDescription], note: str) -> Iterator[Volume]:
        """The volumes of one file."""
        for facts in found:
            inside = name.rpartition("/")[2] + (f"_{facts.path}" if facts.path else "")
            where = f"{name}|{facts.path}" if facts.path else name
            if facts.refused is not None:
                self._made.refuse(where, UnsupportedFormatError(facts.refused, location=name))
                continue
            stem = slug(inside.replace(".", "_").replace("/", "_"))
            why = self._uncounted.get(name, "") if facts.shape_zyx[0] == 1 else ""
            own = note or (f"in no stack: {why}" if why else "")
            notes = (*facts.notes, own) if own else facts.notes
            yield Volume(stem, where, (name,), facts.shape_zyx, facts, notes=notes)


def _one_a_folder(alone: Mapping[str, str]) -> dict[str, str]:
    """Why files that lie one by one in numbered folders are in no stack: ``sec_0001/image.tif``."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name, why in alone.items():
        if not why:
            alike[re.sub(r"[0-9]+", "#", name)].append(name)
    found: dict[str, str] = {}
    for pattern, names in alike.items():
        folders = {name.rpartition("/")[0] for name in names}
        if "#" in pattern.rpartition("/")[0] and len(names) == len(folders) > 2:
            why = f"one of {len(names)} in as many folders: only files of one folder make a stack"
            found |= dict.fromkeys(names, why)
    return found


def _of_a_tilt_series(path: str, found: Sequence[VolumeDescription], uncounted: str = "") -> str:
    """Why a file of one plane is an image of a tilt series, by its path; empty where it is none.

    Parameters
    ----------
    uncounted
        Why its number counts no sections.
    """
    if not found or found[0].shape_zyx[0] != 1:
        return ""
    word = _TILT.search(path)
    if word is not None:
        return f"{word[0]!r} in its path: an image of a tilt series"
    return uncounted if uncounted == DECIMALS else ""


def _refuse_picture(name: str, found: Sequence[VolumeDescription], uncounted: str) -> None:
    """Raise for a file that is no micrograph by its format, and no section of a stack."""
    flat = all(facts.shape_zyx[0] == 1 for facts in found)
    if flat and registry.file_formats_for(name, _PICTURES):
        why = f"one picture is no volume, and in no stack: {uncounted}" if uncounted else ""
        raise UnsupportedFormatError(why or "one picture is no volume", location=name)


def _runs(
    group: SectionGroup, sizes: Mapping[str, int | None], describe: Describe
) -> list[SectionGroup]:
    """A group, or where files of other sizes are sections of another size, each run by itself.

    Sizes in bytes tell where to look; one header of each size decides.
    """
    by_size: dict[int, list[str]] = defaultdict(list)
    for name in group.names:
        size = sizes.get(name)
        if size is None:
            return [group]
        by_size[size].append(name)
    if not 1 < len(by_size) <= _MOST_SIZES:
        return [group]
    kinds: dict[tuple[object, ...] | None, list[str]] = defaultdict(list)
    for names in by_size.values():
        try:
            facts = describe(names[len(names) // 2])
            kinds[facts.shape_zyx, facts.dtype] += names
        except FormatError:
            kinds[None] += names
    main = max(kinds, key=lambda kind: (kind is not None, len(kinds[kind])))
    others = {kind: names for kind, names in kinds.items() if kind not in (main, None)}
    split = {kind: names for kind, names in others.items() if len(names) > 1}
    if not split:
        return [group]
    apart = {name for names in split.values() for name in names}
    parts = [_part(group, [name for name in group.names if name not in apart], "")]
    for names in split.values():
        run = _part(group, [name for name in group.names if name in set(names)], "from")
        parts.append(run)
    return parts


def _part(group: SectionGroup, names: Sequence[str], mark: str) -> SectionGroup:
    """Some of a group's files, as a group of their own."""
    kept = set(names)
    numbers = [n for name, n in zip(group.names, group.numbers, strict=True) if name in kept]
    pattern = group.pattern.replace("#", f"#{mark}{numbers[0]}", 1) if mark else group.pattern
    return replace(group, names=tuple(names), numbers=tuple(numbers), pattern=pattern, apart=())


def _stacked(group: SectionGroup, stack: Stack, first: VolumeDescription) -> Volume:
    """The volume of a stack; one that was asked for without some of its files has another name."""
    stem, earlier = _called(group)
    notes = [*first.notes, *stack.notes]
    if group.excluded:
        without = f"_without-{digest(*group.excluded)}"
        stem, earlier = stem + without, earlier and earlier + without
        shown = ", ".join(name.rpartition("/")[2] for name in group.excluded[:_SHOWN])
        notes.append(f"{len(group.excluded)} sections are left out by include or exclude: {shown}")
    notes += [f"{name} is a volume of its own: {why}" for name, why in stack.different.items()]
    if group.numbers[0] not in (0, 1):
        notes.append(f"the first section is number {group.numbers[0]}")
    shape = (stack.depth, *first.shape_zyx[1:])
    known = dict(zip(group.names, group.numbers, strict=True))
    numbers = tuple(known[name] for name in stack.names)
    path, places = group.pattern, stack.places
    return Volume(stem, path, stack.names, shape, first, places, tuple(notes), numbers, earlier)


def _called(group: SectionGroup) -> tuple[str, str]:
    """What a stack is called, and what earlier versions called it where that was another name.

    Files of nothing but numbers have the name of their folder, which says what they are
    (``mito_segmentation_h5/0001.h5``); the positions of sections are no part of a name.
    """
    plain = stack_name(group.stem)
    folder, _, name = group.names[0].rpartition("/")
    stem = stack_name(_POSITION.sub("", group.stem)) or plain
    if not any(letter.isalpha() for letter in name.partition(".")[0]):
        above = folder.rpartition("/")[2].removesuffix(".zip")
        stem = stack_name(above) if above not in ("", "data") else plain
    return stem, "" if stem == plain else plain


def _require_whole(group: SectionGroup, stack: Stack) -> None:
    """Where a stack is demanded, no file of it may be left out but by the user."""
    if stack.why_not:
        raise FormatError(
            f"the files {group.stem} make no stack: {stack.why_not}",
            advice="Set assemble to auto or files",
        )
    why = {name: error.message for name, error in stack.refused.items()} | stack.different
    for name, reason in why.items():
        raise FormatError(
            f"the files {group.stem} make no whole stack: {reason}",
            location=name,
            advice="Leave this file out with exclude, or set assemble to auto",
        )
