"""What of an archive's listing is wanted, and what of it cannot be made: both told by name.

Of a volume, a box may be wanted: a crop, the same way for every archive.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from lib.config.loaders import FilesConfig
from lib.errors import (
    FormatError,
    GridMismatchError,
    MacroscopeError,
    NotFoundError,
    OutOfBoundsError,
)
from lib.geometry import Box, LengthsZYX, ShapeZYX, add, multiply, parse_box
from lib.plan import VolumePlan

T = TypeVar("T")

_MOST_NAMED = 50


@dataclass(frozen=True, slots=True)
class Selection:
    """The settings ``include`` and ``exclude`` of a source that lists files or arrays.

    A pattern is a shell's (``*``, ``?``, ``[abc]``; ``*`` goes over ``/`` too), case matters. It is
    held against the whole path, relative to the entry or data set; one without ``/`` against the
    last part of the path as well.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: FilesConfig) -> Selection:
        """The selection that the settings make."""
        return cls(tuple(config.include), tuple(config.exclude))

    def takes(self, path: str) -> bool:
        """Whether a path is wanted."""
        included = not self.include or any(matches(path, pattern) for pattern in self.include)
        return included and not any(matches(path, pattern) for pattern in self.exclude)

    def require(self, paths: Sequence[str], location: str) -> list[str]:
        """Those of the paths that are wanted. Raises `NotFoundError`: none of them is."""
        taken = [path for path in paths if self.takes(path)]
        if paths and not taken:
            raise NotFoundError(
                f"include and exclude leave none of {len(paths)} paths, such as {paths[0]}",
                location=location,
                advice="Mend include or exclude; a pattern is held against paths like that one",
            )
        return taken

    def notes(self, paths: Iterable[str]) -> list[str]:
        """How many of the paths are left out, and the patterns that no path fits."""
        paths = [*paths]
        left = sum(not self.takes(path) for path in paths)
        idle = [
            f"no path fits the pattern {pattern!r} of {setting}"
            for setting, patterns in (("include", self.include), ("exclude", self.exclude))
            for pattern in patterns
            if not any(matches(path, pattern) for path in paths)
        ]
        return [*([f"include and exclude leave out {left} of {len(paths)}"] if left else []), *idle]


def matches(path: str, pattern: str) -> bool:
    """Whether a path fits a pattern; see `Selection`."""
    path, pattern = (unicodedata.normalize("NFC", text) for text in (path, pattern))
    if "/" not in pattern and fnmatchcase(path.rpartition("/")[2], pattern):
        return True
    return fnmatchcase(path, pattern)


def plan_each(
    items: Iterable[T],
    plans_of: Callable[[T], Iterable[VolumePlan]],
    name_of: Callable[[T], str],
    *,
    must: Callable[[T], bool] = lambda item: False,
) -> list[VolumePlan]:
    """Plan each item of a listing; one that cannot be made keeps none of the others from it.

    It is told with its reason in the notes of the others.

    Parameters
    ----------
    must
        Whether an item was asked for by name, so that its failure is the source's.

    Raises
    ------
    MacroscopeError
        An item that must be made cannot, or none can: the first one's reason.
    """
    plans: list[VolumePlan] = []
    failed: dict[str, MacroscopeError] = {}
    for item in items:
        try:
            plans += [*plans_of(item)]  # all of an item's volumes, or none
        except (FormatError, GridMismatchError, NotFoundError, OutOfBoundsError) as error:
            if must(item):
                raise
            failed[name_of(item)] = error
    if not plans and failed:
        raise next(iter(failed.values()))
    notes = left_out_notes({name: error.message for name, error in failed.items()})
    return [with_notes(plan, notes) for plan in plans]


def with_notes(plan: VolumePlan, notes: Sequence[str]) -> VolumePlan:
    """The same plan with further notes."""
    return plan.model_copy(update={"notes": (*plan.notes, *notes)}) if notes else plan


def left_out_notes(reasons: dict[str, str]) -> list[str]:
    """``name was left out: why``, for the first of them and the number of the rest."""
    notes = [f"{name} was left out: {why}" for name, why in [*reasons.items()][:_MOST_NAMED]]
    if len(reasons) > _MOST_NAMED:
        notes.append(f"{len(reasons) - _MOST_NAMED} more were left out")
    return notes


@dataclass(frozen=True, slots=True)
class Crop:
    """The chosen box in the source's voxels, where it lies, and what its name ends with."""

    box: Box
    origin_nm_zyx: LengthsZYX
    suffix: str
    whole: bool

    @property
    def chosen(self) -> Box | None:
        """For a plan's ``box_zyx``: None for the whole volume."""
        return None if self.whole else self.box


def choose_crop(
    text: str | None,
    shape_zyx: ShapeZYX,
    voxel_nm_zyx: LengthsZYX,
    origin_nm_zyx: LengthsZYX = (0.0, 0.0, 0.0),
) -> Crop:
    """The box that the setting ``box`` names, or all of it.

    A crop gets a name of its own, so that it never replaces the whole volume.
    """
    whole = Box.whole(shape_zyx)
    box = parse_box(text, shape_zyx, voxel_nm_zyx) if text else whole
    if box == whole:
        return Crop(whole, origin_nm_zyx, "", True)
    corner = add(origin_nm_zyx, multiply(box.start_zyx, voxel_nm_zyx))
    bounds = zip("zyx", box.start_zyx, box.stop_zyx, strict=True)
    return Crop(box, corner, "".join(f"_{axis}{a}-{b}" for axis, a, b in bounds), False)
