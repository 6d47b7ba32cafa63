"""Samples of the two TIFF archives: EPFL's one volume and the kinds of TIFF of the IDR."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emulators.ome_tiff import write_big_tiff, write_companion_member, write_ome_tiff
from emulators.omero_documents import OMERO_IMAGES, OmeroImage
from emulators.sample import Crop, Sample, TripleZYX, tissue_crop
from emulators.tiff import ImageJTexts, write_imagej_tiff, write_itk_tiff

# the folder's name begins with a space
_EPFL = "epfl/groups/c/cv/cvlab-unit/www/data/ ElectronMicroscopy_Hippocampus"
_EPFL_VOXEL = (5.0, 5.0, 5.0)
_IDR = "ftp/pub/databases/IDR"
_UNCALIBRATED = ImageJTexts(spacing=None, pixels_per_million=None)
Write = Callable[[Path], None]


def epfl_samples() -> list[Sample]:
    """The volume, and the smaller training crop beside it."""
    return [
        _epfl("volumedata.tif", (12, 96, 128), 2),
        _epfl("training.tif", (6, 80, 128), 3),
    ]


def _epfl(name: str, shape_zyx: TripleZYX, seed: int) -> Sample:
    path = f"{_EPFL}/{name}"
    crop = tissue_crop(seed, "uint8", _EPFL_VOXEL)

    def write(root: Path) -> None:
        write_itk_tiff(root / path, shape_zyx, crop((0, 0, 0), shape_zyx))

    return Sample(f"epfl/{name}", (path,), shape_zyx, "uint8", _EPFL_VOXEL, crop, write)


def idr_samples() -> list[Sample]:
    """One volume per image; of the image with two channels, the first channel."""
    return [_idr(image) for image in OMERO_IMAGES.values()]


def image_crop(image: OmeroImage, channel: int = 0) -> Crop:
    """Crops of an image's channel."""
    seed = 40 + image.image_id % 1000 + 1000 * channel
    return tissue_crop(seed, image.dtype, image.voxel_nm_zyx)


def _idr(image: OmeroImage) -> Sample:
    crop = image_crop(image)
    path = f"{_IDR}/{image.path}"

    def write(root: Path) -> None:
        _write(root / path, image, crop((0, 0, 0), image.shape_zyx))

    return Sample(
        f"idr/{image.image_id}",
        (path,),
        image.shape_zyx,
        image.dtype,
        image.voxel_nm_zyx,
        crop,
        write if image.series == 0 else None,
    )


def _write(path: Path, image: OmeroImage, volume: NDArray[Any]) -> None:
    voxel = image.voxel_nm_zyx
    if path.name.startswith("Figure_"):
        write_imagej_tiff(path, image.shape_zyx, volume)
    elif path.name == "no_physical_size.tif":
        write_imagej_tiff(path, image.shape_zyx, volume, _UNCALIBRATED)
    elif path.name == "big.tif":
        write_big_tiff(path, volume)
    elif path.name == "member_Z0.ome.tiff":
        write_companion_member(path, volume)
    elif path.name == "pyramid.ome.tiff":
        write_ome_tiff(path, [volume], voxel_nm_zyx=voxel, levels=2)
    elif path.name == "series.ome.tiff":
        write_ome_tiff(path, [volume, *_later_series(image)], voxel_nm_zyx=voxel)
    elif path.name == "two_channels.ome.tiff":
        second = image_crop(image, 1)((0, 0, 0), image.shape_zyx)
        write_ome_tiff(path, [np.stack([volume, second])], voxel_nm_zyx=voxel)
    else:
        codec = {"deflate.ome.tiff": "zlib", "lzw.ome.tiff": "lzw"}.get(path.name)
        write_ome_tiff(path, [volume], voxel_nm_zyx=voxel, compression=codec)


def _later_series(first: OmeroImage) -> list[NDArray[Any]]:
    """Volumes of the other images of a file, in the order of their series."""
    others = [i for i in OMERO_IMAGES.values() if i.path == first.path and i.series > 0]
    others.sort(key=lambda image: image.series)
    return [image_crop(image)((0, 0, 0), image.shape_zyx) for image in others]
