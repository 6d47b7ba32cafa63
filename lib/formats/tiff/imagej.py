"""What ImageJ writes into a TIFF's description: ``key=value`` lines.

Measured on a file of ImageJ 1.52p: ``images``, ``slices``, ``unit=\\u00B5m`` (the escape is
literal), ``spacing`` (z, in the unit). In-plane pixels per unit are in the resolution fields.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lib.errors import FormatError
from lib.formats.calibration import Origin, VoxelSize, pixel_nm, positive
from lib.formats.tiff.ifd import Ifd
from lib.units import nm_per, to_nm

X_RESOLUTION, Y_RESOLUTION = 282, 283


@dataclass(frozen=True, slots=True)
class ImageJ:
    """ImageJ's own claims. Planes lie in the order t, z, c with c fastest."""

    images: int
    channels: int
    slices: int
    frames: int
    values: dict[str, str]


def parse_imagej(description: str, name: str) -> ImageJ | None:
    """Read a description; None if ImageJ did not write it.

    Raises
    ------
    FormatError
        A count is no number, or the counts contradict each other.
    """
    if not description.startswith("ImageJ="):
        return None
    values: dict[str, str] = {}
    for line in description.splitlines():
        key, separator, value = line.partition("=")
        if separator:
            values.setdefault(key.strip(), value.strip())

    def count(key: str) -> int | None:
        text = values.get(key)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text)):
            raise FormatError(f"ImageJ's {key}={text[:40]!r} is not a count", location=name)
        return int(text)

    stated = {key: count(key) for key in ("images", "channels", "slices", "frames")}
    images = stated["images"] or 1
    channels, slices, frames = (stated[key] or 1 for key in ("channels", "slices", "frames"))
    if not any(stated[key] for key in ("channels", "slices", "frames")):
        slices = images  # a plain stack of early versions
    if "images" not in values:
        images = channels * slices * frames
    if channels * slices * frames != images:
        raise FormatError(
            f"ImageJ's images={images} contradicts channels={channels}, slices={slices}, "
            f"frames={frames}",
            location=name,
        )
    return ImageJ(images, channels, slices, frames, values)


def imagej_voxel(header: ImageJ, ifd: Ifd) -> VoxelSize:
    """Voxel size by ImageJ's rules; lengths without a unit of length are unknown."""
    unit = header.values.get("unit", "")

    def in_plane(tag: int, unit: str) -> float | None:
        return pixel_nm(ifd.ratio(tag), unit)

    try:
        spacing = float(header.values.get("spacing", "nan"))
    except ValueError:
        spacing = math.nan
    sizes = (
        positive(to_nm(spacing, header.values.get("zunit", unit))),
        in_plane(Y_RESOLUTION, header.values.get("yunit", unit)),
        in_plane(X_RESOLUTION, unit),
    )
    if not any(sizes):
        return VoxelSize()
    return VoxelSize(*sizes, provenance="ImageJ description and TIFF resolution")


def imagej_origin(header: ImageJ) -> Origin:
    """Where the first voxel lies: ImageJ names the pixel that is zero, axis by axis."""

    def zero(axis: str) -> float:
        try:
            value = float(header.values.get(f"{axis}origin", "0"))
        except ValueError:
            return 0.0
        return value if math.isfinite(value) else 0.0

    z, y, x = (-zero(axis) for axis in "zyx")
    if not (z or y or x):
        return Origin()
    return Origin(voxels_zyx=(z, y, x), provenance="ImageJ description (xorigin, yorigin, zorigin)")


def imagej_notes(header: ImageJ) -> tuple[str, ...]:
    """What ImageJ would do to values and axes that a plain reader does not."""
    notes: list[str] = []
    if header.values.get("cf") == "0" and "c0" in header.values:
        c0, c1 = header.values["c0"][:20], header.values.get("c1", "1")[:20]
        notes.append(f"ImageJ calibration not applied: value = {c0} + {c1} * stored")
    if header.values.get("inverty") == "true":
        notes.append("ImageJ's y axis runs upwards (inverty); rows are kept in their order")
    for key in ("unit", "yunit", "zunit"):
        unit = header.values.get(key, "")
        if unit and nm_per(unit) is None:
            notes.append(f"ImageJ's {key} {unit[:40]!r} is no length")
    return tuple(notes)
