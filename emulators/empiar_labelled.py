"""Entries with labels beside the images, in the ways in which real entries have them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import h5py
import numpy as np
import tifffile
from PIL import Image

from emulators.empiar_entries import BuiltEntry, EntryVolume, cells, em, imageset
from emulators.mrc import write_mrc

_UNKNOWN = (None, None, None)


def entries() -> list[BuiltEntry]:
    """Entries whose labels must be found and paired."""
    return [_livers(), _mitolab(), _tissues(), _entosis(), _liver(), _cell(), _crops()]


def _livers() -> BuiltEntry:
    """10791: blanks in every level, sizes in names, labels as a ZIP of one TIFF a section."""
    raw, mito = em(10791, (7, 32, 40)), cells(10791, (7, 32, 40))
    liver = "data/Parlakgul et al - Livers/FIB-SEM Raw and Segmentation Data/6461 - Lean Liver"
    images = f"{liver}/6461 Lean Liver - Raw"
    archive = f"{liver}/6461 Lean Liver - Segmentation/6461 Lean Mitochondria.zip"

    def write(root: Path) -> None:
        (root / images).mkdir(parents=True, exist_ok=True)
        (root / archive).parent.mkdir(parents=True, exist_ok=True)
        for z, plane in enumerate(raw):
            tifffile.imwrite(root / images / f"Gunes_WT1_8x8x8nm_3MHz.{z:04d}.tif", plane)
        with zipfile.ZipFile(root / archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for z, plane in enumerate(mito):
                info = zipfile.ZipInfo(f"6461 Lean Mitochondria/Mito.{z:04d}.tif")
                info.compress_type = zipfile.ZIP_DEFLATED if z % 2 else zipfile.ZIP_STORED
                file = io.BytesIO()
                tifffile.imwrite(file, plane)
                packed.writestr(info, file.getvalue())
            packed.writestr(zipfile.ZipInfo("__MACOSX/._Mito.0000.tif"), b"II*\0")

    sets = imageset("/data", "TIFF", 7, "UNSIGNED BYTE")
    nm = (8.0, 8.0, 8.0)
    path = f"{images}/Gunes_WT1_8x8x8nm_3MHz.#.tif"
    return BuiltEntry("10791", "Livers", (sets,), write, {
        path: EntryVolume(raw, nm),
        f"{archive}/6461 Lean Mitochondria/Mito.#.tif": EntryVolume(mito, nm, "labels", path),
    })  # fmt: skip


def _mitolab() -> BuiltEntry:
    """10982: several volumes of one file each, with labels called after them."""
    names = ("c_elegans", "fly_brain", "glycolytic_muscle", "hela_cell", "lucchi_pp", "salivary")
    shapes = ((8, 30, 30), (9, 28, 30), (6, 22, 40), (8, 30, 32), (5, 40, 36), (7, 30, 30))
    made = {
        name: (em(10982 + n, shape), cells(10982 + n, shape))
        for n, (name, shape) in enumerate(zip(names, shapes, strict=True))
    }
    folder = "data/mito_benchmarks"

    def write(root: Path) -> None:
        for name, (image, mito) in made.items():
            (root / folder / name).mkdir(parents=True, exist_ok=True)
            path = root / folder / name
            tifffile.imwrite(path / f"{name}_em.tif", image, photometric="minisblack")
            tifffile.imwrite(path / f"{name}_mito.tif", mito, photometric="minisblack")

    sets = imageset("/data", "TIFF", 12, "UNSIGNED BYTE")
    volumes = {}
    for name, (image, mito) in made.items():
        path = f"{folder}/{name}/{name}_em.tif"
        volumes[path] = EntryVolume(image, _UNKNOWN)
        volumes[f"{folder}/{name}/{name}_mito.tif"] = EntryVolume(mito, _UNKNOWN, "labels", path)
    return BuiltEntry("10982", "Benchmarks of mitochondria", (sets,), write, volumes)


def _tissues() -> BuiltEntry:
    """12535: images count from 1, labels from 0; labels are sections of HDF5."""
    raw, mito = em(12535, (6, 32, 36)), cells(12535, (6, 32, 36), "uint32")
    tissue = "data/HuaLab-mouse-intestinal-tissue"
    images, segmented = f"{tissue}/raw", f"{tissue}/mito_segmentation_h5"

    def write(root: Path) -> None:
        for folder in (images, segmented):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for z, plane in enumerate(raw, start=1):
            name = f"HuaLab-intestinal-tissue-raw-_{z:06d}.tiff"
            tifffile.imwrite(root / images / name, plane)
        for z, plane in enumerate(mito):
            with h5py.File(root / segmented / f"{z:04d}.h5", "w") as file:
                file["ids"] = np.arange(50 * z + 1)  # so that each file places its voxels elsewhere
                file.create_dataset("data", data=plane)

    details = "mouse tissue, 50 nm section thickness"
    sets = (
        imageset(f"/{images}", "TIFF", 6, "UNSIGNED BYTE", nm=8.0, details=details),
        imageset(f"/{segmented}", "HDF5", 6, "UNSIGNED 32 BIT INTEGER"),
    )
    nm = (50.0, 8.0, 8.0)
    path = f"{images}/HuaLab-intestinal-tissue-raw-_#.tiff"
    return BuiltEntry("12535", "Intestine", sets, write, {
        path: EntryVolume(raw, nm),
        f"{segmented}/#.h5": EntryVolume(mito, nm, "labels", path),
    })  # fmt: skip


def _entosis() -> BuiltEntry:
    """11380: MRC with labels told by the end of their name only."""
    image, nuclei = em(11380, (8, 30, 34), "int16"), cells(11380, (8, 30, 34)).astype(np.int16)
    actin = cells(11381, (8, 30, 34)).astype(np.int16)
    stem = "data/F107_A1_bin2"

    def write(root: Path) -> None:
        (root / "data").mkdir(parents=True, exist_ok=True)
        for end, voxels in (("", image), ("_nuclei", nuclei), ("_actin", actin)):
            write_mrc(root / f"{stem}{end}.mrc", voxels, voxel_nm_zyx=(20.0, 10.0, 10.0))

    sets = imageset("/data", "MRC", 3, "SIGNED 16 BIT INTEGER", nm=9.0)
    nm = (20.0, 10.0, 10.0)
    volumes = {f"{stem}.mrc": EntryVolume(image, nm)}
    for end, voxels in (("_nuclei", nuclei), ("_actin", actin)):
        volumes[f"{stem}{end}.mrc"] = EntryVolume(voxels, nm, "labels", f"{stem}.mrc")
    return BuiltEntry("11380", "Entosis", (sets,), write, volumes)


def _liver() -> BuiltEntry:
    """13356: no pixel size anywhere; labels are PNG, of a palette."""
    raw, er = em(13356, (6, 32, 30), "uint16"), cells(13356, (6, 32, 30)) % np.uint8(4)
    images, masks = "data/humanliver_raw_images", "data/humanliver_er_mask"

    def write(root: Path) -> None:
        for folder in (images, masks):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for z, plane in enumerate(raw):
            tifffile.imwrite(root / images / f"humanliver_raw_{z:03d}.tif", plane)
        for z, plane in enumerate(er):
            picture = Image.fromarray(plane).convert("P")
            picture.putdata([int(value) for value in plane.ravel()])
            picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
            picture.save(root / masks / f"humanliver_er_mask_{z:03d}.png")

    sets = imageset("/data", "TIFF", 6, "UNSIGNED 16 BIT INTEGER")
    path = f"{images}/humanliver_raw_#.tif"
    return BuiltEntry("13356", "A liver", (sets,), write, {
        path: EntryVolume(raw, _UNKNOWN),
        f"{masks}/humanliver_er_mask_#.png": EntryVolume(er, _UNKNOWN, "labels", path),
    })  # fmt: skip


def _cell() -> BuiltEntry:
    """11746: labels of the first sections only, under a name of their own."""
    images, classes = em(11746, (9, 30, 30)), cells(11746, (5, 30, 30))

    def write(root: Path) -> None:
        for kind, first, stack in (("Images", "", images), ("Labels", "Labels_", classes)):
            (root / "data" / kind).mkdir(parents=True, exist_ok=True)
            for z, plane in enumerate(stack, start=1):
                name = f"{first}U2OS_cell_{z:04d}.tif"
                tifffile.imwrite(root / "data" / kind / name, plane)

    sets = imageset("/data", "TIFF", 14, "UNSIGNED BYTE", nm=10.0)
    path, nm = "data/Images/U2OS_cell_#.tif", (None, 10.0, 10.0)
    return BuiltEntry("11746", "A cell", (sets,), write, {
        path: EntryVolume(images, nm),
        "data/Labels/Labels_U2OS_cell_#.tif": EntryVolume(classes, nm, "labels", path),
    })  # fmt: skip


def _crops() -> BuiltEntry:
    """13420: two volumes with labels of their own, a text of classes beside, a damaged section."""
    made = {
        f"data/{scope}/{name}": (em(n, shape), cells(n, shape))
        for n, (scope, name, shape) in enumerate(
            [("FIB", "axon_1", (5, 30, 30)), ("SBFSEM", "axon_2", (4, 26, 30))], start=70
        )
    }
    damaged = "data/FIB/axon_1/dataset/TIFs/axon_1_0099.tif"

    def write(root: Path) -> None:
        for place, stacks in made.items():
            name = place.rpartition("/")[2]
            folders = ("dataset/TIFs", f"labels/Labels_{name}_TIFs")
            for folder, stack in zip(folders, stacks, strict=True):
                (root / place / folder).mkdir(parents=True, exist_ok=True)
                start = "labels_" if folder.startswith("labels") else ""
                for z, plane in enumerate(stack):
                    path = root / place / folder / f"{start}{name}_{z:04d}.tif"
                    tifffile.imwrite(path, plane)
            (root / place / f"{name} CLASS IDS.txt").write_text("background\naxon\nmyelin\n")
        (root / damaged).write_bytes(b"no TIFF at all")

    sets = imageset("/data", "TIFF", 18, "UNSIGNED BYTE")
    volumes = {}
    for place, (image, classes) in made.items():
        name = place.rpartition("/")[2]
        path = f"{place}/dataset/TIFs/{name}_#.tif"
        volumes[path] = EntryVolume(image, _UNKNOWN)
        below = f"{place}/labels/Labels_{name}_TIFs/labels_{name}_#.tif"
        volumes[below] = EntryVolume(classes, _UNKNOWN, "labels", path)
    return BuiltEntry("13420", "Axons", (sets,), write, volumes, {damaged: "14 bytes"})
