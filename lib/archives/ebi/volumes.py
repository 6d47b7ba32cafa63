"""What the archive's own words and the files say of a volume, and where they contradict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from lib.archives.ebi.entry import ImageSet
from lib.archives.ebi.grouping import Volume
from lib.formats.calibration import Origin, VoxelSize
from lib.formats.format import VolumeDescription
from lib.plan import VolumePlan

_VOLUMES = "reconstructed volumes"  # of EMPIAR's categories, those whose sections lie at a z
# and those whose files are no sections, however they are numbered
_NO_SECTIONS = ("micrograph", "tilt series", "particle", "class average", "diffraction", "subtomo")
# formats that have several names
_MRC = frozenset({"MRC", "REC", "ST", "ALI", "MAP"})
_ALIKE = (
    frozenset({"TIF", "TIFF", "BTF"}),
    frozenset({"H5", "HDF5", "HDF", "IMS"}),
    frozenset({"JPG", "JPEG"}),
)


def claims_about(
    names: Sequence[str], imagesets: Sequence[ImageSet], volumes: int
) -> ImageSet | None:
    """The image set that speaks of these files; None where that cannot be told.

    That of their folder and format, where there is one; a lone one speaks of a lone volume,
    whatever it says of the format.
    """
    fitting = [s for s in imagesets if _names_format(names[0], s)]
    here = [s for s in _of_folder(names[0], imagesets) if s in fitting]
    if len(here) == 1:
        return here[0]
    if len(fitting) == 1:
        return fitting[0]
    if len(imagesets) == 1 and volumes == 1:
        return imagesets[0]
    return None


def _names_format(name: str, imageset: ImageSet) -> bool:
    """Whether the image set's format is a file's own, a tilt series being no other MRC file."""
    suffix = name.upper().rpartition(".")[2]
    formats = set(imageset.data_format.upper().split())
    return any(suffix in alike and formats & alike for alike in (*_ALIKE, {suffix}))


def _is_of_format(name: str, imageset: ImageSet) -> bool:
    stem, _, suffix = name.upper().rpartition(".")
    if suffix in ("GZ", "BZ2"):
        name, suffix = stem, stem.rpartition(".")[2]
    formats = set(imageset.data_format.upper().split())
    return _names_format(name, imageset) or (suffix in _MRC and bool(formats & _MRC))


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


def why_none(name: str, imagesets: Sequence[ImageSet]) -> str:
    """Why the archive's own words forbid to make a volume of a file; empty where they do not."""
    categories = {imageset.category for imageset in _speaking_of(name, imagesets)}
    if categories and all(any(w in c.lower() for w in _NO_SECTIONS) for c in categories):
        said = ", ".join(sorted(repr(category) for category in categories))
        return (
            f"the archive calls the images {said}, which are no volume (assemble=files takes each "
            "file, assemble=stack puts them together)"
        )
    return ""


def _of_folder(name: str, imagesets: Sequence[ImageSet]) -> list[ImageSet]:
    """The image sets of the nearest folder above a file that has any."""
    above = [s for s in imagesets if name.startswith(f"{s.folder}/")]
    nearest = max((len(s.folder) for s in above), default=0)
    return [s for s in above if len(s.folder) == nearest]


def _speaking_of(name: str, imagesets: Sequence[ImageSet]) -> list[ImageSet]:
    """Image sets of the file's folder and format, as far as any is."""
    here = _of_folder(name, imagesets) or [*imagesets]
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
