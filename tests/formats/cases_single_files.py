"""NRRD, NIfTI, AmiraMesh, PNG and JPEG, written by other libraries where there is one."""

from __future__ import annotations

import struct
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import nrrd
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.formats.case import EVERYWHERE, Case
from tests.kit.volume_kit import random_voxels

SHAPE = (11, 23, 36)


def by_pynrrd(dtype: str, folder: Path, **header: Any) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, dtype.lstrip(">"), 3)
    given = {
        "space directions": np.diag([4.0, 4.0, 30.0]),
        "space units": ["nm", "nm", "nm"],
        "space dimension": 3,
        "space origin": [8.0, -4.0, 60.0],
        "encoding": "raw",
        **header,
    }
    nrrd.write(str(folder / "a.nrrd"), voxels.transpose(), given)
    return voxels


def by_nibabel(dtype: str, name: str, folder: Path, *, scaled: bool = False) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, dtype, 4)
    image = nibabel.Nifti1Image(voxels.transpose(), np.diag([0.004, 0.004, 0.03, 1.0]), dtype=dtype)
    image.header.set_xyzt_units("micron")
    nibabel.save(image, folder / name)
    if scaled:  # nibabel would write scaled values; the header alone is changed
        data = bytearray((folder / name).read_bytes())
        data[112:120] = struct.pack("<2f", 2.0, 5.0)
        (folder / name).write_bytes(data)
    return voxels


def nifti2(folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, "int32", 5)
    image = nibabel.Nifti2Image(voxels.transpose(), np.eye(4), dtype="int32")
    image.header.set_xyzt_units("micron")
    nibabel.save(image, folder / "a.nii")
    return voxels


def _run_lengths(data: bytes) -> bytes:
    out, at = bytearray(), 0
    while at < len(data):
        run = 1
        while run < 127 and at + run < len(data) and data[at + run] == data[at]:
            run += 1
        if run > 2:
            out += bytes([run, data[at]])
        else:
            run = min(3, len(data) - at)
            out += bytes([128 + run]) + data[at : at + run]
        at += run
    return bytes(out)


def amira(kind: str, encoding: str, folder: Path) -> NDArray[Any]:
    dtype = {"byte": "uint8", "ushort": "uint16", "float": "float32"}[kind]
    voxels = random_voxels(SHAPE, dtype, 6, labels=kind == "byte")
    data = voxels.tobytes()
    body = {"": data, "HxByteRLE": _run_lengths(data), "HxZip": zlib.compress(data)}[encoding]
    z, y, x = SHAPE
    box = f"0 {(x - 1) * 4} 0 {(y - 1) * 4} 10 {10 + (z - 1) * 30}"
    how = f"({encoding},{len(body)})" if encoding else ""
    field = "Labels" if kind == "byte" else "Data"
    header = (
        "# AmiraMesh BINARY-LITTLE-ENDIAN 2.1\n\n"
        f"define Lattice {x} {y} {z}\n\n"
        f'Parameters {{\n    Units {{ Coordinates "nm" }}\n    BoundingBox {box},\n'
        '    CoordType "uniform"\n}\n\n'
        f"Lattice {{ {kind} {field} }} @1{how}\n\n# Data section follows\n@1\n"
    )
    (folder / "a.am").write_bytes(header.encode() + body + b"\n")
    return voxels


def png_sections(dtype: str, folder: Path) -> NDArray[Any]:
    voxels = random_voxels((5, 23, 36), dtype, 7)
    for z, plane in enumerate(voxels):
        Image.fromarray(plane).save(folder / f"s_{z:02d}.png")
    return voxels


def palette_sections(folder: Path) -> NDArray[Any]:
    voxels = random_voxels((5, 23, 36), "uint8", 8, labels=True)
    for z, plane in enumerate(voxels):
        picture = Image.fromarray(plane, "P")
        picture.putpalette([n for i in range(256) for n in (255 - i, i, (3 * i) % 256)])
        picture.save(folder / f"s_{z:02d}.png")
    return voxels


def jpeg_sections(folder: Path) -> NDArray[Any]:
    planes = []
    for z, plane in enumerate(random_voxels((5, 23, 36), "uint8", 9)):
        Image.fromarray(plane).save(folder / f"s_{z:02d}.jpg", quality=90)
        planes.append(np.asarray(Image.open(folder / f"s_{z:02d}.jpg")))
    return np.stack(planes)


_PLACE = {"voxel_nm_zyx": (30.0, 4.0, 4.0)}
CASES = [
    Case(
        "nrrd-raw",
        partial(by_pynrrd, "uint16"),
        "a.nrrd",
        EVERYWHERE,
        expect={**_PLACE, "origin_nm_zyx": (60.0, -4.0, 8.0)},
    ),
    Case(
        "nrrd-big", lambda f: by_pynrrd("int16", f, endian="big"), "a.nrrd|nrrd:", ("file", "http")
    ),
    Case("nrrd-gzip", lambda f: by_pynrrd("uint8", f, encoding="gzip"), "a.nrrd", ("file", "s3")),
    Case("nrrd-bzip2", lambda f: by_pynrrd("float32", f, encoding="bzip2"), "a.nrrd", ("file",)),
    Case("nifti-raw", partial(by_nibabel, "uint16", "a.nii"), "a.nii", EVERYWHERE, expect=_PLACE),
    Case("nifti-gz", partial(by_nibabel, "uint8", "a.nii.gz"), "a.nii.gz|nii:", ("file", "http")),
    Case("nifti-scaled", partial(by_nibabel, "int16", "a.nii", scaled=True), "a.nii", ("file",)),
    Case("nifti-2", nifti2, "a.nii", ("file",)),
    Case("amira-raw", partial(amira, "ushort", ""), "a.am", EVERYWHERE, expect=_PLACE),
    Case(
        "amira-rle",
        partial(amira, "byte", "HxByteRLE"),
        "a.am",
        ("file", "http"),
        expect={**_PLACE, "kind": "labels"},
    ),
    Case("amira-zip", partial(amira, "float", "HxZip"), "a.am|amira:", ("file",)),
    Case("png-8", partial(png_sections, "uint8"), "|png:", EVERYWHERE),
    Case("png-16", partial(png_sections, "uint16"), "|png:", ("file", "http")),
    Case("png-palette", palette_sections, "|png:", ("file",), expect={"kind": "labels"}),
    Case("jpeg-8", jpeg_sections, "|jpeg:", ("file", "http")),
]
