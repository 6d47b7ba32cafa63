"""OME-TIFF and BigTIFF samples, written by the tifffile library.

Kinds that the IDR serves or that are known to mislead readers: one file per image, a member whose
companion file is absent, pyramids in SubIFDs, several images in one file, compressed pages.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import tifffile
from numpy.typing import NDArray

VoxelNM = tuple[float, float, float]
_SOFTWARE = "macroscope sample"


def _physical(voxel_nm_zyx: VoxelNM | None) -> dict[str, Any]:
    """Physical sizes as OME-XML attributes, in micrometres."""
    if voxel_nm_zyx is None:
        return {}
    sizes: dict[str, Any] = {}
    for axis, nm in zip("ZYX", voxel_nm_zyx, strict=True):
        sizes |= {f"PhysicalSize{axis}": round(nm / 1000, 9), f"PhysicalSize{axis}Unit": "µm"}
    return sizes


def _identifier(path: Path) -> str:
    """An identifier that is the same in every build, so that the file's bytes are too."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, path.name))


def write_ome_tiff(
    path: Path,
    images: Sequence[NDArray[Any]],
    *,
    voxel_nm_zyx: VoxelNM | None,
    compression: str | None = None,
    levels: int = 1,
    big: bool = False,
) -> None:
    """Write one OME-TIFF with one series per image.

    Parameters
    ----------
    images
        Arrays with axes z, y, x, or c, z, y, x.
    voxel_nm_zyx
        Voxel size of all of them in nanometres, written in µm; ``None`` leaves it out.
    compression
        ``None``, ``"zlib"`` (Deflate) or ``"lzw"``.
    levels
        Resolutions in all; more than one go to SubIFDs, each half as wide and high (every second
        pixel), floor-halved.
    big
        BigTIFF: 8-byte offsets.
    """
    with tifffile.TiffWriter(path, bigtiff=big, ome=True) as writer:
        for number, image in enumerate(images):
            options: dict[str, Any] = {"photometric": "minisblack", "compression": compression}
            axes = "CZYX"[-image.ndim :]
            metadata = {"axes": axes, "Name": f"image {number}", "UUID": _identifier(path)}
            metadata |= _physical(voxel_nm_zyx)
            if levels > 1:
                options["tile"] = (64, 64)
            writer.write(
                image, subifds=levels - 1, metadata=metadata, software=_SOFTWARE, **options
            )
            for level in range(1, levels):
                writer.write(reduced(image, level), subfiletype=1, metadata=None, **options)


def reduced(image: NDArray[Any], level: int) -> NDArray[Any]:
    """Every ``2**level``-th pixel in y and x, floor-halved sizes."""
    for _ in range(level):
        height, width = (n // 2 for n in image.shape[-2:])
        image = image[..., : 2 * height : 2, : 2 * width : 2]
    return image


def write_companion_member(
    path: Path, volume_zyx: NDArray[Any], companion: str = "absent.companion.ome"
) -> None:
    """Write a member file whose OME-XML only points to a companion that is not written.

    tifffile reads such a file as a lone generic stack and says nothing.
    """
    identifier = "urn:uuid:00000000-0000-4000-8000-000000000001"
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        f'UUID="{identifier}"><BinaryOnly MetadataFile={quoteattr(companion)} '
        'UUID="urn:uuid:00000000-0000-4000-8000-000000000000"/></OME>'
    )
    with tifffile.TiffWriter(path) as writer:
        for number, plane in enumerate(volume_zyx):
            writer.write(
                plane,
                contiguous=False,
                description=xml if number == 0 else None,
                metadata=None,
                photometric="minisblack",
                software=_SOFTWARE,
            )


def write_big_tiff(path: Path, volume_zyx: NDArray[Any]) -> None:
    """Write a plain BigTIFF (magic 43), one page per plane, without any metadata."""
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for plane in volume_zyx:
            writer.write(
                plane,
                contiguous=False,
                metadata=None,
                photometric="minisblack",
                software=_SOFTWARE,
            )
