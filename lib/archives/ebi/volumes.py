"""Which files of an EMPIAR entry make which volume."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lib.archives.ebi.entry import ImageSet
from lib.errors import FormatError
from lib.formats.calibration import VoxelSize
from lib.formats.files import Facts, is_packed
from lib.formats.sections import SectionGroup, group_sections
from lib.geometry import ShapeZYX
from lib.names import slug, stack_name
from lib.plan import VolumePlan

Describe = Callable[[str], Facts]

_VOLUMES = "reconstructed volumes"  # of EMPIAR's categories, those whose sections lie at a z
_MRC = frozenset({"MRC", "REC", "ST", "ALI", "MAP"})  # one format by five names


@dataclass(frozen=True, slots=True)
class Volume:
    """Files that make one volume.

    Attributes
    ----------
    stem
        What it is called.
    path
        Where it lies below the entry: one file's path, or that of its sections with ``#`` in place
        of their number.
    names
        One file, or sections in slice order, by their paths below the entry.
    places
        z of each section; numbers that are absent from an otherwise gapless series leave holes.
    """

    stem: str
    path: str
    names: tuple[str, ...]
    shape_zyx: ShapeZYX
    facts: Facts
    places: tuple[int, ...] = (0,)
    notes: tuple[str, ...] = ()

    @property
    def stacked(self) -> bool:
        """Whether each file is one section."""
        return len(self.names) > 1


@dataclass(slots=True)
class Sorting:
    """Volumes, and the files that are none, each with the reason."""

    volumes: list[Volume]
    refused: dict[str, str]
    first_error: FormatError | None = None


def sort_files(sizes: dict[str, int | None], describe: Describe, assemble: str) -> Sorting:
    """Sort files into volumes.

    Parameters
    ----------
    sizes
        Bytes of each file, by its path below the entry.
    describe
        Reads the metadata of a file; called for the ends of a stack and for each single file.
    assemble
        ``auto``, ``stack`` or ``files``.

    Raises
    ------
    FormatError
        ``stack`` was asked for and there is none, or a section is cut short.
    """
    sorting = Sorting([], {})
    groups, singles = ([], sorted(sizes)) if assemble == "files" else group_sections(sizes)
    if assemble == "stack" and not groups:
        raise FormatError(
            "no numbered sections are among the files",
            advice="Set assemble to auto or files",
        )
    for group in groups:
        volume, why = _stack(group, describe, sizes)
        if volume is not None:
            sorting.volumes.append(volume)
        elif assemble == "stack":
            raise FormatError(
                f"the files {group.stem} make no stack: {why}", advice="Set assemble to files"
            )
        else:
            singles += group.names
    for name in sorted(singles):
        try:
            facts = describe(name)
        except FormatError as error:
            sorting.refused[name] = error.message
            sorting.first_error = sorting.first_error or error
            continue
        stem = slug(name.rpartition("/")[2].replace(".", "_"))
        sorting.volumes.append(
            Volume(stem, name, (name,), facts.shape_zyx, facts, notes=facts.notes)
        )
    return sorting


def _stack(
    group: SectionGroup, describe: Describe, sizes: dict[str, int | None]
) -> tuple[Volume | None, str]:
    if any(is_packed(name) for name in group.names):
        return None, "they are compressed as a whole"
    first, last = describe(group.names[0]), describe(group.names[-1])
    if first.shape_zyx[0] != 1 or last.shape_zyx[0] != 1:
        return None, "they hold more than one section each"
    if (first.shape_zyx, first.dtype) != (last.shape_zyx, last.dtype):
        return None, (
            f"the first is {first.shape_zyx} {first.dtype}, the last {last.shape_zyx} {last.dtype}"
        )
    raw_bytes = math.prod(first.shape_zyx) * np.dtype(first.dtype).itemsize
    for name in group.names:
        if (sizes[name] or raw_bytes) < raw_bytes:
            raise FormatError(
                f"the file has {sizes[name]} bytes, a section of this stack needs {raw_bytes}",
                location=name,
            )
    places, depth, notes = group.places()
    if first.voxel != last.voxel:
        notes = (*notes, f"the last section says {last.voxel}, the first {first.voxel}")
    shape = (depth, *first.shape_zyx[1:])
    return Volume(
        stack_name(group.stem),
        group.pattern,
        group.names,
        shape,
        first,
        places,
        (*first.notes, *notes),
    ), ""


def claims_about(
    names: Sequence[str], imagesets: Sequence[ImageSet], volumes: int
) -> ImageSet | None:
    """The image set that speaks of these files; None where that cannot be told."""
    suffix = names[0].rpartition(".")[2].upper()
    fitting = [s for s in imagesets if suffix in s.data_format.upper().split()]
    if len(fitting) == 1:
        return fitting[0]
    if len(imagesets) == 1 and volumes == 1:
        return imagesets[0]
    return None


def _is_of_format(name: str, imageset: ImageSet) -> bool:
    stem, _, suffix = name.upper().rpartition(".")
    if is_packed(name):
        suffix = stem.rpartition(".")[2]
    formats = set(imageset.data_format.upper().split())
    return suffix in formats or (suffix in _MRC and bool(formats & _MRC))


def stated_dtype(name: str, imagesets: Sequence[ImageSet]) -> str | None:
    """The voxel type that all image sets of a file's format agree on; None where they do not.

    A lone image set speaks of every file.
    """
    dtypes = {imageset.dtype for imageset in _speaking_of(name, imagesets)}
    return dtypes.pop() if len(dtypes) == 1 else None


def stated_category(name: str, imagesets: Sequence[ImageSet]) -> str:
    """The category that all image sets of a file's format agree on; empty where they do not."""
    categories = {imageset.category for imageset in _speaking_of(name, imagesets)}
    return categories.pop() if len(categories) == 1 else ""


def _speaking_of(name: str, imagesets: Sequence[ImageSet]) -> list[ImageSet]:
    return [s for s in imagesets if _is_of_format(name, s)] or [*imagesets]


def of_category(voxel: VoxelSize, category: str) -> tuple[VoxelSize, tuple[str, ...]]:
    """A file's voxel size in the light of the image set's category, and what that says otherwise.

    The images of a tilt series lie at no z, whatever length a header gives their cell.
    """
    if not category or category.lower() == _VOLUMES:
        return voxel, ()
    note = f"the API calls the images {category!r}"
    if "tilt series" in category.lower() and voxel.z_nm is not None:
        note += f": they lie at no z, and the file's step of {voxel.z_nm:g} nm is left out"
        voxel = replace(voxel, z_nm=None)
    return voxel, (note,)


def other_geometry(facts: Facts, plan: VolumePlan) -> list[str]:
    """Where a file of a plan has voxels of another size, or a plane in another place.

    The plan was made from the first file's header; of a stack, each other section is read when it
    has come.
    """
    notes = []
    own = zip("zyx", (facts.voxel.z_nm, facts.voxel.y_nm, facts.voxel.x_nm), strict=True)
    for (axis, length), planned in zip(own, plan.voxel_nm_zyx, strict=True):
        by = plan.stated.get(f"voxel_size_nm.{axis}")
        if by is None or by.source != "file":
            continue
        if length is None or not math.isclose(length, planned, rel_tol=1e-6):
            said = "no size" if length is None else f"{length:g} nm"
            notes.append(f"{said} along {axis}, the first file of the volume {planned:g} nm")
    if plan.reader["places"] is not None:
        placed = facts.origin.at(plan.voxel_nm_zyx)
        start = plan.box_zyx.start_zyx if plan.box_zyx else (0, 0, 0)
        for n, name in ((1, "y"), (2, "x")):
            first = plan.origin_nm_zyx[n] - start[n] * plan.voxel_nm_zyx[n]
            if not math.isclose(placed[n], first, rel_tol=1e-6, abs_tol=1e-6):
                notes.append(
                    f"begins at {name} {placed[n]:g} nm, the first file of the stack at "
                    f"{first:g} nm; the sections are not shifted"
                )
    return notes


def disagreements(claims: ImageSet, volume: Volume) -> tuple[str, ...]:
    """Where the API contradicts the files about size, type and number; the files are right."""
    notes = []
    height, width = volume.shape_zyx[1:]
    stated = (claims.width, claims.height)
    if None not in stated and stated != (width, height):
        notes.append(
            f"the API says {claims.width} x {claims.height} pixels (x, y), the file "
            f"{width} x {height}; the file's size was taken"
        )
    if claims.dtype is not None and claims.dtype != volume.facts.dtype:
        notes.append(f"the API says {claims.dtype} voxels, the file {volume.facts.dtype}")
    if volume.stacked and claims.images not in (None, len(volume.names)):
        notes.append(f"the API says {claims.images} images, there are {len(volume.names)}")
    return tuple(notes)
