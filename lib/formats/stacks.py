"""Which of the files that are named like sections make one stack, told by their headers.

A stack may have ten thousand files, and a header costs a request: read are those at both ends, some
between them where these disagree, and those of another size than most. What is bad or different is
left out with its reason and never keeps the others from being a stack; where it lay between others,
its place stays empty.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lib.errors import FormatError
from lib.formats.format import VolumeDescription
from lib.formats.sections import SectionGroup

Describe = Callable[[str], VolumeDescription]

_MOST_LOOKS = 9  # for what most sections are like
_MOST_CUT = 0.1  # where more files are too short, they hold compressed voxels
_MOST_ODD = 64  # headers read because of a file's place or size


@dataclass(slots=True)
class Stack:
    """Sections that fit together.

    Attributes
    ----------
    names
        Of the sections, in slice order; fewer than two are no stack.
    places
        z of each section.
    depth
        Sections, those that are absent included.
    first
        What the first section's header says.
    refused
        Files that cannot be read, with the reason.
    different
        Files that are whole and no sections of this stack, with the reason.
    why_not
        Why there is no stack; all its files are volumes of their own then.
    """

    names: tuple[str, ...] = ()
    places: tuple[int, ...] = ()
    depth: int = 0
    first: VolumeDescription | None = None
    notes: tuple[str, ...] = ()
    refused: dict[str, FormatError] = field(default_factory=dict)
    different: dict[str, str] = field(default_factory=dict)
    why_not: str = ""


def put_together(group: SectionGroup, describe: Describe, sizes: Mapping[str, int | None]) -> Stack:
    """Put the files of a group together.

    Parameters
    ----------
    describe
        Reads the metadata of a file.
    sizes
        Bytes of each file, where known.
    """
    if group.sparse:
        return Stack(why_not="their numbers are too far apart for sections")
    return _Assembly(group, describe, sizes).stack()


class _Assembly:
    def __init__(
        self, group: SectionGroup, describe: Describe, sizes: Mapping[str, int | None]
    ) -> None:
        self._group, self._describe, self._sizes = group, describe, sizes
        self._seen: dict[str, VolumeDescription | FormatError] = {}
        self._stack = Stack()

    def stack(self) -> Stack:
        like = self._most_are()
        if like is None:
            return self._stack
        if like.needs_file:
            self._stack.why_not = "they are compressed as a whole"
            return self._stack
        if like.shape_zyx[0] != 1:
            self._stack.why_not = "they hold more than one section each"
            return self._stack
        names = self._long_enough(like)
        for name in self._odd(names):
            self._fits(name, like)
        for end in (0, -1):
            looks = 0
            names = [name for name in names if not self._is_out(name)]
            while names and not self._fits(names[end], like) and looks < _MOST_ODD:
                names.pop(end)
                looks += 1
        names = [name for name in names if not self._is_out(name)]
        self._put_in_place(names)
        return self._stack

    def _look(self, name: str) -> VolumeDescription | FormatError:
        if name not in self._seen:
            try:
                self._seen[name] = self._describe(name)
            except FormatError as error:
                self._seen[name] = error
        return self._seen[name]

    def _most_are(self) -> VolumeDescription | None:
        """What most of the sections are like, by a few of them."""
        names = self._group.names
        counts: Counter[tuple[object, ...]] = Counter()
        for name in _spread(names):
            found = self._look(name)
            if isinstance(found, VolumeDescription):
                counts[_kind(found)] += 1
            most = max(counts.values(), default=0)
            if most > 1 and 2 * most > len(self._seen):
                break
        whole = [found for found in self._seen.values() if isinstance(found, VolumeDescription)]
        if not whole:
            first = next(iter(self._seen.values()))
            assert isinstance(first, FormatError)
            self._stack.why_not = first.message
            if len(names) > _MOST_ODD:  # and to ask for each of ten thousand would take hours
                self._stack.refused = dict.fromkeys(names, first)
            return None
        ranked = counts.most_common(2)
        if len(ranked) > 1 and ranked[0][1] == ranked[1][1]:
            one, other = (f"{kind[0]} {kind[1]}" for kind, _ in ranked)
            self._stack.why_not = f"some are {one}, some {other} (z, y, x)"
            return None
        return next(found for found in whole if _kind(found) == ranked[0][0])

    def _long_enough(self, like: VolumeDescription) -> list[str]:
        """Files that are not cut, as far as their sizes tell: where voxels are not compressed."""
        needed = math.prod(like.shape_zyx) * np.dtype(like.dtype).itemsize
        sizes = {name: self._sizes.get(name) for name in self._group.names}
        short = {n: size for n, size in sizes.items() if size is not None and size < needed}
        if len(short) > max(1, _MOST_CUT * len(sizes)):
            return [*sizes]
        for name, size in short.items():
            self._stack.refused[name] = FormatError(
                f"the file has {size} bytes, a section of this stack needs {needed}", location=name
            )
        return [name for name in sizes if name not in short]

    def _odd(self, names: Sequence[str]) -> list[str]:
        """Files of another size than most; none where sizes vary as those of packed voxels do."""
        sizes = Counter(self._sizes.get(name) for name in names)
        if not sizes:
            return []
        usual, _ = sizes.most_common(1)[0]
        odd = [name for name in names if self._sizes.get(name) not in (None, usual)]
        return odd if len(odd) <= _MOST_ODD else []

    def _fits(self, name: str, like: VolumeDescription) -> bool:
        found = self._look(name)
        if isinstance(found, FormatError):
            self._stack.refused[name] = found
        elif _kind(found) != _kind(like):
            self._stack.different[name] = (
                f"it is {found.shape_zyx} {found.dtype} (z, y, x), the others of its stack "
                f"{like.shape_zyx} {like.dtype}"
            )
        return not self._is_out(name)

    def _is_out(self, name: str) -> bool:
        return name in self._stack.refused or name in self._stack.different

    def _put_in_place(self, names: Sequence[str]) -> None:
        stack = self._stack
        stack.names = tuple(names)
        if len(names) < 2:
            return
        first, last = self._look(names[0]), self._look(names[-1])
        assert isinstance(first, VolumeDescription)
        assert isinstance(last, VolumeDescription)
        stack.first = first
        stack.places, stack.depth, notes = self._group.places(names)
        stack.notes = (*notes, *_same_voxels(first, last))


def _kind(facts: VolumeDescription) -> tuple[object, ...]:
    return facts.shape_zyx, facts.dtype


def _same_voxels(first: VolumeDescription, last: VolumeDescription) -> list[str]:
    if first.voxel == last.voxel:
        return []
    one, other = ((v.z_nm, v.y_nm, v.x_nm) for v in (first.voxel, last.voxel))
    return [f"the last section says voxels of {other} nm (z, y, x), the first of {one}"]


def _spread(names: Sequence[str]) -> list[str]:
    """The first, the last, the middle, and then the quarters, until there are enough."""
    last = len(names) - 1
    places = [0, last]
    parts = 2
    while len(places) < min(_MOST_LOOKS, len(names)) and parts <= 2 * len(names):
        places += [last * n // parts for n in range(1, parts, 2)]
        parts *= 2
    return [names[place] for place in dict.fromkeys(places)][:_MOST_LOOKS]
