"""Entries of images: numbered sections as real entries number them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from emulators.dm import write_dm
from emulators.empiar_entries import BuiltEntry, EntryVolume, cells, em, imageset

_FEI = """[Beam]\r\nHFW=1\r\n[Scan]\r\nPixelWidth=6.5e-008\r\nPixelHeight=6.5e-008\r
[Image]\r\nResolutionX=48\r\nResolutionY=32\r\n[PrivateFei]\r\nDatabarHeight=4\r
[User]\r\nUser=somebody\r\n"""
_ZEISS = "\r\n".join(
    ["", "0", "0", "2.465e-008", "AP_IMAGE_PIXEL_SIZE", "Image Pixel Size = 12.33 nm",
     "AP_PIXEL_SIZE", "Pixel Size = 24.65 nm", "SV_USER_NAME", "User Name = somebody", ""]
)  # fmt: skip


def entries() -> list[BuiltEntry]:
    """Entries of numbered sections and of large files, without labels."""
    return [_platynereis(), _toxoplasma(), _hela(), _runs(), _carotid(), _pictures()]


def _platynereis() -> BuiltEntry:
    """10310: plain TIFF sections in nested folders; the thickness only in a text."""
    voxels = em(10310, (12, 40, 48))
    folder = "data/20180813_platynereis_parapodia/sift_aligned"

    def write(root: Path) -> None:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for z, plane in enumerate(voxels, start=1):
            tifffile.imwrite(root / folder / f"slice_{z:04d}.tif", plane, resolution=(72, 72))

    sets = imageset(
        "/data", "TIFF", 12, "UNSIGNED BYTE", nm=10.0, details="aligned; 25 nm per section"
    )
    volume = EntryVolume(voxels, (25.0, 10.0, 10.0))
    return BuiltEntry(
        "10310", "Parapodium", (sets,), write, {f"{folder}/slice_#.tif": volume}
    )  # fmt: skip


def _toxoplasma() -> BuiltEntry:
    """10326: the position of each section in its name, beside its number."""
    voxels = em(10326, (10, 32, 40), "uint16")
    folder = "data/EM04226_01"
    heights = [round(1.4263 + 0.005 * z + 0.0001 * (z % 3), 4) for z in range(10)]

    def write(root: Path) -> None:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for z, plane in enumerate(voxels):
            name = f"slice_{288 + z:05d}_z={heights[z]:.4f}um.tif"
            tifffile.imwrite(root / folder / name, plane)

    sets = imageset("/data/EM04226_01", "TIFF", 10, "UNSIGNED 16 BIT INTEGER", nm=5.0)
    step = float(f"{(heights[-1] - heights[0]) / 9 * 1000:.6g}")
    path = f"{folder}/slice_#_z=1.*um.tif"
    volume = EntryVolume(voxels, (step, 5.0, 5.0))
    return BuiltEntry("10326", "Host cells with a parasite", (sets,), write, {path: volume})


def _hela() -> BuiltEntry:
    """10903: the voxel size stands in the folder's name only; a compressed TIFF a section."""
    voxels = em(10903, (9, 32, 40))
    folder = "data/20140801_hela-wt_xy5z8nm_as"

    def write(root: Path) -> None:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for z, plane in enumerate(voxels):
            tifffile.imwrite(root / folder / f"slice_{z:04d}.tif", plane, compression="zlib")

    sets = imageset("/data", "TIFF", 9, "UNSIGNED BYTE")
    volume = EntryVolume(voxels, (8.0, 5.0, 5.0))
    return BuiltEntry("10903", "HeLa", (sets,), write, {f"{folder}/slice_#.tif": volume})


def _runs() -> BuiltEntry:
    """10994: runs of DM4 that begin at 0 again, of other frame sizes; labels of another grid."""
    first, second = em(1, (4, 28, 30), "uint16"), em(2, (5, 32, 36), "uint16")
    aligned, organelles = em(3, (6, 24, 26)), cells(3, (6, 24, 26))
    cell = "data/160621_HeLa_Control"
    raw, processed, models = (
        f"{cell}/{name}" for name in ("01_original_images", "02_processed_dataset", "03_models")
    )
    tifs = f"{models}/HeLa_Control_TIF"

    def write(root: Path) -> None:
        for folder in (raw, processed, tifs):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for run, stack in (("a", first), ("b", second)):
            for z, plane in enumerate(stack):
                name = f"r01{run}_BSED_roi_00_slice_{z:04d}.dm4"
                write_dm(root / raw / name, plane, version=4, pixel_size_zyx=(0.0126, 0.0126))
        for z, plane in enumerate(aligned):
            tifffile.imwrite(root / processed / f"HeLa_aligned_{z:03d}.tif", plane)
        for z, plane in enumerate(organelles):
            tifffile.imwrite(root / tifs / f"HeLa_labels_{z:03d}.tif", plane)
        (root / models / "readme.txt").write_text("1 -> Mitochondria\n2 -> Nucleus\n")

    sets = (
        imageset(f"/{raw}", "DM4", 9, "UNSIGNED 16 BIT INTEGER"),
        imageset(f"/{processed}", "TIFF", 6, "UNSIGNED BYTE", nm=12.6),
        imageset(f"/{models}", "TIFF", 6, "UNSIGNED BYTE"),
    )
    nm = 12.6
    return BuiltEntry("10994", "Runs of a cell", sets, write, {
        f"{raw}/r01a_BSED_roi_00_slice_#.dm4": EntryVolume(first, (None, nm, nm)),
        f"{raw}/r01b_BSED_roi_00_slice_#.dm4": EntryVolume(second, (None, nm, nm)),
        f"{processed}/HeLa_aligned_#.tif": EntryVolume(aligned, (None, nm, nm)),
        f"{tifs}/HeLa_labels_#.tif": EntryVolume(
            organelles, (None, nm, nm), "labels", f"{processed}/HeLa_aligned_#.tif"
        ),
    })  # fmt: skip


def _carotid() -> BuiltEntry:
    """13192: FEI tags with a data bar, a page that lacks a file, Zeiss tags in another set."""
    vessel, other = em(13192, (8, 36, 48)), em(13193, (5, 30, 64))
    folder, beside = "data/Stalker_SBF-SEM/Carotid2", "data/Zeiss"

    def tagged(tag: int, text: str) -> dict[str, Any]:
        return {"extratags": [(tag, "s", 0, text, True)]}

    def write(root: Path) -> None:
        for name in (folder, beside):
            (root / name).mkdir(parents=True, exist_ok=True)
        for z, plane in enumerate(vessel, start=1):
            path = root / folder / f"Carotid2_Z{z:04d}.tif"
            tifffile.imwrite(path, plane, resolution=(64, 64), **tagged(34682, _FEI))
        for z, plane in enumerate(other):
            tifffile.imwrite(root / beside / f"gallery_{z}.tif", plane, **tagged(34118, _ZEISS))

    sets = (
        imageset(
            f"/{folder}", "TIFF", 8, "UNSIGNED BYTE", nm=65.0, details="Section thickness: 200 nm"
        ),
        imageset(f"/{beside}", "TIFF", 5, "UNSIGNED BYTE"),
    )
    return BuiltEntry("13192", "Vessels", sets, write, {
        f"{folder}/Carotid2_Z#.tif": EntryVolume(vessel, (200.0, 65.0, 65.0)),
        f"{beside}/gallery_#.tif": EntryVolume(other, (None, 12.33, 12.33)),
    })  # fmt: skip


def _pictures() -> BuiltEntry:
    """11037: images and masks of two axes, which the archive calls micrographs: no volume."""
    names = [f"data/{kind}/{n:03d}.tiff" for kind in ("images", "masks") for n in range(3)]

    def write(root: Path) -> None:
        for n, name in enumerate(names):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(root / name, np.full((12, 14), n + 1, np.uint8))

    sets = imageset("/data", "TIFF", 6, "UNSIGNED BYTE", category="micrographs - single frame")
    left_out = dict.fromkeys(names, "micrographs")
    return BuiltEntry("11037", "Pictures of many kinds", (sets,), write, {}, left_out)
