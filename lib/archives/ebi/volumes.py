"""Which files of an EMPIAR entry make which volume."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from lib.archives.ebi.entry import ImageSet
from lib.errors import FormatError, UnsupportedFormatError
from lib.formats import registry
from lib.formats.calibration import Origin, VoxelSize
from lib.formats.format import VolumeDescription
from lib.formats.sections import SectionGroup, group_sections
from lib.formats.stacks import Describe, Stack, put_together
from lib.geometry import ShapeZYX
from lib.names import digest, slug, stack_name
from lib.plan import VolumePlan

_VOLUMES = "reconstructed volumes"  # of EMPIAR's categories, those whose sections lie at a z
# and those whose files are no sections, however they are numbered
_NO_SECTIONS = ("micrograph", "tilt series", "particle", "class average", "diffraction", "subtomo")
_SHOWN = 20
_PICTURES = ("png",)
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
    facts: VolumeDescription
    places: tuple[int, ...] = (0,)
    notes: tuple[str, ...] = ()

    @property
    def stacked(self) -> bool:
        """Whether each file is one section."""
        return len(self.names) > 1


@dataclass(slots=True)
class Sorting:
    """Volumes, and the files that are in none, each with the reason."""

    volumes: list[Volume]
    refused: dict[str, str]
    first_error: FormatError | None = None

    def refuse(self, name: str, error: FormatError) -> None:
        """Leave a file out."""
        self.refused[name] = error.message
        self.first_error = self.first_error or error


def sort_files(
    sizes: Mapping[str, int | None],
    describe: Describe,
    assemble: str,
    *,
    excluded: Collection[str] = (),
    why_single: Callable[[str], str] = lambda name: "",
) -> Sorting:
    """Sort files into volumes; none of them keeps the others from being one.

    Parameters
    ----------
    sizes
        Bytes of each file, by its path below the entry.
    describe
        Reads the metadata of a file; called for some files of a stack and for each single one.
    assemble
        ``auto``, ``stack`` or ``files``.
    excluded
        Paths of files that are there and to be left out.
    why_single
        Why a file is no section of a volume, whatever it is called; heeded by ``auto``.

    Raises
    ------
    FormatError
        ``stack`` was asked for, and there is none, or one that lacks files which are there.
    """
    sorting, seen = Sorting([], {}), dict[str, VolumeDescription | FormatError]()

    def look(name: str) -> VolumeDescription:
        if name not in seen:
            try:
                seen[name] = describe(name)
            except FormatError as error:
                seen[name] = error
        found = seen[name]
        if isinstance(found, FormatError):
            raise found
        return found

    groups, alone = ([], [*sizes]) if assemble == "files" else group_sections(sizes, excluded)
    singles = dict.fromkeys(alone, "")
    if assemble == "stack" and not groups:
        raise FormatError(
            "no numbered sections are among the files",
            advice="Set assemble to auto or files",
        )
    for group in groups:
        reason = why_single(group.names[0]) if assemble == "auto" else ""
        stack = Stack(why_not=reason) if reason else put_together(group, look, sizes)
        if assemble == "stack":
            _require_whole(group, stack)
        for name, error in stack.refused.items():
            sorting.refuse(name, error)
        if stack.first is not None:
            sorting.volumes.append(_stacked(group, stack, stack.first))
        elif stack.why_not:
            note = f"in no stack with files that are called alike: {stack.why_not}"
            singles |= {name: note for name in group.names if name not in stack.refused}
        else:
            singles |= dict.fromkeys(stack.names, "")
        singles |= stack.different
    for name, note in sorted(singles.items()):
        try:
            facts = look(name)
            _refuse_picture(name, facts)
        except FormatError as error:
            sorting.refuse(name, error)
            continue
        stem = slug(name.rpartition("/")[2].replace(".", "_"))
        notes = (*facts.notes, note) if note else facts.notes
        sorting.volumes.append(Volume(stem, name, (name,), facts.shape_zyx, facts, notes=notes))
    return sorting


def _refuse_picture(name: str, facts: VolumeDescription) -> None:
    """Raise for a file that is no micrograph by its format, and no section of a stack."""
    if facts.shape_zyx[0] == 1 and registry.file_formats_for(name, _PICTURES):
        raise UnsupportedFormatError("one picture is no volume", location=name)


def _stacked(group: SectionGroup, stack: Stack, first: VolumeDescription) -> Volume:
    """The volume of a stack; one that was asked for without some of its files has another name."""
    stem = stack_name(group.stem)
    notes = [*first.notes, *stack.notes]
    if group.excluded:
        stem = f"{stem}_without-{digest(*group.excluded)}"
        shown = ", ".join(name.rpartition("/")[2] for name in group.excluded[:_SHOWN])
        notes.append(f"{len(group.excluded)} sections are left out by include or exclude: {shown}")
    notes += [f"{name} is a volume of its own: {why}" for name, why in stack.different.items()]
    shape = (stack.depth, *first.shape_zyx[1:])
    return Volume(stem, group.pattern, stack.names, shape, first, stack.places, tuple(notes))


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
    if suffix in ("GZ", "BZ2"):
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


def why_single(name: str, imagesets: Sequence[ImageSet]) -> str:
    """Why the archive's own words forbid to stack a file with others; empty where they do not."""
    categories = {imageset.category for imageset in _speaking_of(name, imagesets)}
    if categories and all(any(w in c.lower() for w in _NO_SECTIONS) for c in categories):
        said = ", ".join(sorted(repr(category) for category in categories))
        return f"the archive calls the images {said} (assemble=stack puts them together)"
    return ""


def _speaking_of(name: str, imagesets: Sequence[ImageSet]) -> list[ImageSet]:
    """Image sets of the file's folder and format, as far as any is."""
    here = [s for s in imagesets if s.folder == name.rpartition("/")[0]] or [*imagesets]
    return [s for s in here if _is_of_format(name, s)] or here


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


def other_geometry(facts: VolumeDescription, plan: VolumePlan) -> list[str]:
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
        placed = (facts.origin or Origin()).at(plan.voxel_nm_zyx)
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
