"""Images and stacks of Gatan Digital Micrograph (DM3, DM4)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lib.bytesource.base import ByteSource
from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.base import Block, Layout, VolumeReader
from lib.formats.calibration import Origin, VoxelSize
from lib.formats.dm.facts import first_voxel, microscope_facts, voxel_size
from lib.formats.dm.tags import ArrayTag, TagGroup, TagTree, read_tags
from lib.formats.planes import plane_blocks
from lib.geometry import Box, ShapeZYX
from lib.units import other_quantity

# DataType of an image (not the encodings of tags): dtype, and the encoding of its Data array
_DATA_TYPES = {
    1: ("<i2", 2), 2: ("<f4", 6), 6: ("<u1", 10), 7: ("<i4", 3), 9: ("<i1", 9),
    10: ("<u2", 4), 11: ("<u4", 5), 12: ("<f8", 7),
}  # fmt: skip
_REFUSED = {
    3: "complex", 13: "complex", 14: "binary", 23: "coloured (RGBA)", 27: "packed complex",
}  # fmt: skip
_RGBA = 23
_NO_IMAGES = ("spectrum", "spectra", "diffraction", "chronograph")
_SERIES = {"reciprocal length": "a diffraction pattern", "angle": "a tilt series"}


@dataclass(frozen=True, slots=True)
class DmImage:
    """One image of a file, described; `DmReader` reads its voxels.

    Attributes
    ----------
    shape_zyx
        z is 1 for a single section.
    data_offset
        Byte at which the voxels begin; they lie in one piece in z, y, x order.
    facts
        A few facts about the microscope and the recording, chosen so that no path, file name or
        person is among them.
    acquired
        ISO 8601 date, or date and time; None where the file's date is ambiguous.
    """

    source: ByteSource = field(repr=False, compare=False)
    shape_zyx: ShapeZYX
    dtype: np.dtype[Any]
    stored: np.dtype[Any]
    data_offset: int
    voxel: VoxelSize
    origin: Origin
    version: int
    index: int
    images: int
    acquired: str | None
    facts: dict[str, str | int | float]
    notes: tuple[str, ...]


def open_dm(source: ByteSource) -> DmImage:
    """Describe the image of a DM file: not its thumbnail.

    Raises
    ------
    FormatError
        The file is damaged, cut short, or contradicts itself.
    UnsupportedFormatError
        Complex, binary or coloured images, spectra, or more than three axes.
    """
    tree = read_tags(source)
    images = tree.root.get("ImageList")
    if not isinstance(images, TagGroup) or not images.values:
        raise FormatError("the DM file holds no image", location=source.name)
    index, notes = _choose(tree, images)
    data = images.find(index, "ImageData")
    tags = images.find(index, "ImageTags")
    tags = tags if isinstance(tags, TagGroup) else TagGroup()
    shape_zyx, stored, array = _pixels(source, data, tags)
    voxel, voxel_notes = voxel_size(tree, data, tags, stack=shape_zyx[0] > 1)
    acquired, facts, fact_notes = microscope_facts(tree, tags)
    return DmImage(
        source=source,
        shape_zyx=shape_zyx,
        dtype=stored.newbyteorder("="),
        stored=stored,
        data_offset=array.offset,
        voxel=voxel,
        origin=first_voxel(data, stack=shape_zyx[0] > 1),
        version=tree.version,
        index=index,
        images=len(images.values),
        acquired=acquired,
        facts=facts,
        notes=notes + voxel_notes + fact_notes,
    )


def _choose(tree: TagTree, images: TagGroup) -> tuple[int, tuple[str, ...]]:
    """The image that the file displays, else the last that is no RGBA thumbnail."""
    types = [images.find(i, "ImageData", "DataType") for i in range(len(images.values))]
    real = [i for i, data_type in enumerate(types) if data_type != _RGBA]
    if not real:
        raise UnsupportedFormatError(
            "the DM file holds coloured images only", location=tree.source.name
        )
    shown = tree.root.find("ImageSourceList", 0, "ImageRef")
    index = shown if shown in real else real[-1]
    if len(real) == 1:
        return index, ()
    return index, (f"image {index} of {len(types)} is taken, which the file displays",)


def _pixels(
    source: ByteSource, data: Any, tags: TagGroup
) -> tuple[ShapeZYX, np.dtype[Any], ArrayTag]:
    if not isinstance(data, TagGroup):
        raise FormatError("the DM image has no ImageData", location=source.name)
    array, data_type = data.get("Data"), data.get("DataType")
    sizes = data.get("Dimensions")
    if not isinstance(array, ArrayTag) or not isinstance(sizes, TagGroup):
        raise FormatError("the DM image lacks Data or Dimensions", location=source.name)
    if not isinstance(data_type, int) or data_type not in _DATA_TYPES:
        what = _REFUSED.get(data_type, "unknown") if isinstance(data_type, int) else "unknown"
        raise UnsupportedFormatError(
            f"{what} DM images (DataType {data_type}) are not supported", location=source.name
        )
    size_xyz = list(sizes.values)
    if not size_xyz or not all(type(n) is int and n > 0 for n in size_xyz):
        raise FormatError(f"the DM image has the size {size_xyz[:8]}", location=source.name)
    while len(size_xyz) > 3 and size_xyz[-1] == 1:
        size_xyz.pop()
    if len(size_xyz) not in (2, 3):
        raise UnsupportedFormatError(
            f"a DM image of {len(size_xyz)} axes is no plane or stack", location=source.name
        )
    _refuse_other_axes(source, data, tags, len(size_xyz))
    dtype, encoding = _DATA_TYPES[data_type]
    stored = np.dtype(dtype)
    expected = math.prod(size_xyz) * stored.itemsize
    if array.encodings != (encoding,) or array.nbytes != expected:
        raise FormatError(
            f"the DM image of {size_xyz} (x, y, z) {stored.name} voxels needs {expected} bytes; "
            f"its data are {array.nbytes} bytes of encoding {array.encodings}",
            location=source.name,
        )
    depth = data.get("PixelDepth")
    if depth is not None and depth != stored.itemsize:
        raise FormatError(
            f"the DM image has PixelDepth {depth} and {stored.name} voxels", location=source.name
        )
    x, y, z = (*size_xyz, 1)[:3]
    return (z, y, x), stored, array


def _refuse_other_axes(source: ByteSource, data: TagGroup, tags: TagGroup, axes: int) -> None:
    """Spectra, diffraction patterns and series, by the format that the file names or by a unit."""
    tree = TagTree(source, 0, data)
    format_ = (tree.text(tags.find("Meta Data", "Format")) or "").strip()[:80]
    if any(word in format_.lower() for word in _NO_IMAGES):
        raise UnsupportedFormatError(
            f"the DM file calls itself {format_!r}: its axes are not all of space, and it is no "
            "volume",
            location=source.name,
        )
    for axis in range(axes):
        unit = (tree.text(data.find("Calibrations", "Dimension", axis, "Units")) or "").strip()
        quantity = other_quantity(unit)
        if quantity is not None:
            what = _SERIES.get(quantity, "a spectrum or a series")
            raise UnsupportedFormatError(
                f"axis {'xyz'[axis]} of the DM image is in {unit!r} ({quantity}): {what}, not a "
                "volume",
                location=source.name,
            )


class DmReader(VolumeReader):
    """Voxels of a `DmImage`, rows as they lie in the file."""

    def __init__(self, image: DmImage) -> None:
        self.image = image
        self.shape_zyx = image.shape_zyx
        self.dtype = image.dtype
        remote = image.source.remote
        height = image.shape_zyx[1] if remote else 1
        self.layout = Layout(
            (1, height, image.shape_zyx[2]), random_access=not remote, by_planes=True
        )

    def __exit__(self, *_: object) -> None:
        self.image.source.close()

    def blocks(self, box: Box) -> Iterator[Block]:
        """Yield blocks of at most about 8 MiB that tile `box`; see `VolumeReader`."""
        return plane_blocks(
            self.image.source,
            box,
            data_offset=self.image.data_offset,
            shape_zyx=self.shape_zyx,
            stored=self.image.stored,
        )
