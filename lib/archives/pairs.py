"""Labels that belong to an image: whether both lie on one grid, and what they have in common.

A plan says where the centre of its first voxel lies (readers turn their formats' conventions into
that), so edges are half a voxel before it. Two volumes are on one grid when, along each axis, one
voxel is a whole number of the other's and an edge of the coarser falls on one of the finer.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Protocol

from lib.archives.voxels import stands_in
from lib.errors import GridMismatchError
from lib.geometry import Box, LengthsZYX, ShapeZYX, add, multiply, subtract, zyx
from lib.plan import VolumePlan

_SCALE_TOLERANCE = 1e-6
_PLACE_TOLERANCE = 1e-3  # of a voxel


class OnGrid(Protocol):
    """What has voxels at a place: a plan, or a level that may become one."""

    @property
    def shape_zyx(self) -> ShapeZYX: ...

    @property
    def voxel_nm_zyx(self) -> LengthsZYX: ...

    @property
    def origin_nm_zyx(self) -> LengthsZYX: ...

    @property
    def path_in_source(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Grid:
    """A level that is not planned yet."""

    path_in_source: str
    shape_zyx: ShapeZYX
    voxel_nm_zyx: LengthsZYX
    origin_nm_zyx: LengthsZYX


@dataclass(frozen=True, slots=True)
class Overlap:
    """What image and labels have in common.

    Attributes
    ----------
    labels, image
        In the voxels of each, from its own first one.
    start_nm_zyx, stop_nm_zyx
        The outer edges.
    """

    labels: Box
    image: Box
    start_nm_zyx: LengthsZYX
    stop_nm_zyx: LengthsZYX

    def in_words(self) -> str:
        """For notes: voxels of both and nanometres."""
        edges = ", ".join(
            f"{axis} {a:g} to {b:g}"
            for axis, a, b in zip("zyx", self.start_nm_zyx, self.stop_nm_zyx, strict=True)
        )
        return f"voxels {self.labels} of the labels are {self.image} of the image ({edges} nm)"


def overlap_of(image: OnGrid, labels: OnGrid) -> Overlap:
    """The common part of two volumes on one grid.

    Raises
    ------
    GridMismatchError
        Their voxels do not fit into each other, are shifted by a part of a voxel, or the volumes
        have nothing in common.
    """
    starts, stops = [], []
    for n, axis in enumerate("zyx"):
        (a, la, na), (b, lb, nb) = (
            (plan.origin_nm_zyx[n], plan.voxel_nm_zyx[n], plan.shape_zyx[n])
            for plan in (image, labels)
        )
        _fit(axis, (a, la), (b, lb), labels)
        starts.append(max(a - la / 2, b - lb / 2))
        stops.append(min(a - la / 2 + na * la, b - lb / 2 + nb * lb))
        if stops[-1] - starts[-1] < min(la, lb) / 2:
            raise _mismatch(
                f"they have nothing in common along {axis}: the image is {a - la / 2:g} to "
                f"{a - la / 2 + na * la:g} nm, the labels are {b - lb / 2:g} to "
                f"{b - lb / 2 + nb * lb:g} nm",
                labels,
            )
    start, stop = zyx(starts), zyx(stops)
    return Overlap(voxels_of(labels, start, stop), voxels_of(image, start, stop), start, stop)


def paired(image: VolumePlan, labels: VolumePlan) -> tuple[VolumePlan, Overlap]:
    """The plan of labels as those of an image, and what they have in common.

    Labels of which nobody states voxel size and place, but of the very shape of the image, are
    voxel for voxel those of the image. Where both sources count from corners, so do both here: each
    was moved by half a voxel of its own finest scale, labels are moved by the image's instead.

    Parameters
    ----------
    image, labels
        Both whole, without a box.

    Raises
    ------
    GridMismatchError
        As `overlap_of`; or nobody states the voxel size of one of them, and their shapes differ, or
        only the labels' size is stated, or the image's is another.
    """
    notes: tuple[str, ...] = ()
    if not labels.assumed_axes:
        if image.assumed_axes:
            said = ", ".join(f"{length:g}" for length in labels.voxel_nm_zyx)
            raise _mismatch(
                f"nobody states the voxel size of the image (the labels say {said} nm along z, y, "
                "x): give it as voxel_size_nm",
                labels,
            )
    else:
        if labels.shape_zyx != image.shape_zyx:
            raise _mismatch(
                f"nobody states the voxel size of the labels, and their shape {labels.shape_zyx} "
                f"is not that of the image, {image.shape_zyx} (z, y, x)",
                labels,
            )
        notes = ("voxel size and place are the image's: the labels state none, and have its shape",)
        unknown = {*labels.assumed_axes, *image.assumed_axes}
        for axis in "zyx":
            if axis not in unknown:
                a, b = (plan.voxel_nm_zyx["zyx".index(axis)] for plan in (image, labels))
                if not math.isclose(a, b, rel_tol=_SCALE_TOLERANCE):
                    raise _mismatch(
                        f"they have one shape, but a voxel of the image is {a:g} nm along "
                        f"{axis}, of the labels {b:g} nm",
                        labels,
                    )
        geometry = ("voxel_nm_zyx", "origin_nm_zyx", "voxel_size_approximate")
        labels = labels.model_copy(
            update={
                **{name: getattr(image, name) for name in geometry},
                "voxel_size_provenance": f"the image ({image.voxel_size_provenance})",
                "stated": {**labels.stated, **_geometry_of(image)},
                "notes": tuple(note for note in labels.notes if not stands_in(note)),
            }
        )
    if image.corner_nm_zyx is not None and labels.corner_nm_zyx is not None:
        shift = subtract(labels.corner_nm_zyx, image.corner_nm_zyx)
        if any(shift):
            labels = labels.model_copy(update={"origin_nm_zyx": add(labels.origin_nm_zyx, shift)})
            moved = ", ".join(f"{n:g}" for n in shift)
            notes += (
                "both sources count from corners, and their finest voxels differ: the labels' "
                f"place is {moved} nm (z, y, x) on, so that corners meet",
            )
    overlap = overlap_of(image, labels)
    notes += _permuted(image, labels)
    return labels.model_copy(update={"notes": (*labels.notes, *notes)}), overlap


def beside(image: VolumePlan, labels: VolumePlan, overlap: Overlap) -> VolumePlan:
    """The plan of labels, cut to the overlap already, as a part of the image's volume."""
    path = f"{labels.path_in_source} over {image.path_in_source}"
    said = {
        "image": image.path_in_source,
        "overlap_voxels_of_labels": str(overlap.labels),
        "overlap_voxels_of_image": str(overlap.image),
        "overlap_start_nm": dict(zip("zyx", overlap.start_nm_zyx, strict=True)),
        "overlap_stop_nm": dict(zip("zyx", overlap.stop_nm_zyx, strict=True)),
    }
    return labels.model_copy(
        update={
            "kind": "labels",
            "source_path": path,
            "image_path": image.path_in_source,
            "about": labels.about.revised(extra={**labels.about.extra, "pair": said}),
            "notes": (*labels.notes, overlap.in_words()),
        }
    )


def as_part(labels: VolumePlan, part: VolumePlan, box: Box) -> VolumePlan:
    """The plan of a part of labels, with the geometry and the notes that the whole was given."""
    origin = add(labels.origin_nm_zyx, multiply(box.start_zyx, labels.voxel_nm_zyx))
    return part.model_copy(
        update={
            "origin_nm_zyx": origin,
            "voxel_nm_zyx": labels.voxel_nm_zyx,
            "voxel_size_provenance": labels.voxel_size_provenance,
            "voxel_size_approximate": labels.voxel_size_approximate,
            "stated": labels.stated,
            "notes": tuple(dict.fromkeys((*part.notes, *labels.notes))),
        }
    )


def _fit(axis: str, image: tuple[float, float], labels: tuple[float, float], plan: OnGrid) -> None:
    (a, la), (b, lb) = image, labels
    fine, coarse = min(la, lb), max(la, lb)
    by = round(coarse / fine)
    if not math.isclose(coarse, by * fine, rel_tol=_SCALE_TOLERANCE):
        raise _mismatch(
            f"a voxel of the image is {la:g} nm along {axis}, of the labels {lb:g} nm: none is a "
            "whole number of the other",
            plan,
        )
    steps = ((a - la / 2) - (b - lb / 2)) / fine
    if abs(steps - round(steps)) > _PLACE_TOLERANCE:
        raise _mismatch(
            f"along {axis} the first voxels begin at {a - la / 2:g} nm (image) and {b - lb / 2:g} "
            f"nm (labels), which is {abs(steps - round(steps)):.3g} of a voxel beside the grid",
            plan,
        )


def voxels_of(plan: OnGrid, start: LengthsZYX, stop: LengthsZYX) -> Box:
    """The voxels of a volume that a part in nanometres touches."""
    first, end = [], []
    for n in range(3):
        length = plan.voxel_nm_zyx[n]
        edge = plan.origin_nm_zyx[n] - length / 2
        first.append(math.floor((start[n] - edge) / length + _PLACE_TOLERANCE))
        end.append(math.ceil((stop[n] - edge) / length - _PLACE_TOLERANCE))
    return Box(zyx(first), zyx(end))


def _geometry_of(plan: VolumePlan) -> dict[str, object]:
    heads = ("voxel_size_nm.", "translation.")
    return {name: by for name, by in plan.stated.items() if name.startswith(heads)}


def _permuted(image: VolumePlan, labels: VolumePlan) -> tuple[str, ...]:
    """Whether the labels would fit the image better with their axes in another order."""

    def misfit(shape: ShapeZYX, voxel: LengthsZYX) -> float:
        extents = zip(multiply(image.shape_zyx, image.voxel_nm_zyx), shape, voxel, strict=True)
        return sum(abs(math.log(whole / (n * length))) for whole, n, length in extents)

    def of(order: tuple[int, ...]) -> float:
        shape = zyx(labels.shape_zyx[n] for n in order)
        return misfit(shape, zyx(labels.voxel_nm_zyx[n] for n in order))

    best = min(itertools.permutations(range(3)), key=of)
    if of(best) < of((0, 1, 2)) - 0.2:
        names = "".join("zyx"[n] for n in best)
        return (f"the labels would fit the image better with their axes as {names}: look",)
    return ()


def _mismatch(why: str, labels: OnGrid) -> GridMismatchError:
    return GridMismatchError(
        f"image and labels are on no common grid: {why}", location=labels.path_in_source
    )
