"""NRRD, MetaImage, NIfTI, AmiraMesh, PNG and JPEG, by other libraries where there is one."""

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


def by_pynrrd(dtype: str, folder: Path, name: str = "a.nrrd", **header: Any) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, dtype.lstrip(">"), 3)
    given = {
        "space directions": np.diag([4.0, 4.0, 30.0]),
        "space units": ["nm", "nm", "nm"],
        "space dimension": 3,
        "space origin": [8.0, -4.0, 60.0],
        "encoding": "raw",
        **header,
    }
    nrrd.write(str(folder / name), voxels.transpose(), given)
    return voxels


def slices_beside(by_pattern: bool, folder: Path) -> NDArray[Any]:
    """A header that names a file for each plane, by a pattern or a list; pynrrd writes no such."""
    voxels = random_voxels(SHAPE, "uint16", 3)
    names = [f"s{z:02d}.raw" for z in range(1, 1 + len(voxels))]
    for name, plane in zip(names, voxels, strict=True):
        (folder / name).write_bytes(plane.tobytes())
    z, y, x = voxels.shape
    said = f"s%02d.raw 1 {z} 1 2" if by_pattern else "LIST\n" + "\n".join(names)
    (folder / "a.nhdr").write_text(
        f"NRRD0004\ntype: uint16\ndimension: 3\nsizes: {x} {y} {z}\nendian: little\n"
        f"encoding: raw\ndata file: {said}\n"
    )
    return voxels


def metaimage(dtype: str, how: str, folder: Path) -> NDArray[Any]:
    """As ITK writes it (its files were compared), with a unit, which ITK leaves out."""
    voxels = random_voxels(SHAPE, dtype.lstrip(">"), 11)
    kind = {"u1": "UCHAR", "u2": "USHORT", "i2": "SHORT", "f4": "FLOAT"}[voxels.dtype.str[1:]]
    data = voxels.astype(dtype).tobytes()
    packed = zlib.compress(data)
    z, y, x = SHAPE
    name = {"beside": "a.raw", "zraw": "a.zraw", "slices": f"s%02d.raw 0 {z - 1} 1"}.get(
        how, "LOCAL"
    )
    head = (
        "ObjectType = Image\nNDims = 3\n"
        f"BinaryData = {how != 'text'}\nBinaryDataByteOrderMSB = {dtype.startswith('>')}\n"
        f"CompressedData = {how in ('packed', 'zraw')}\n"
        + (f"CompressedDataSize = {len(packed)}\n" if how in ("packed", "zraw") else "")
        + "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 8 -4 60\nCenterOfRotation = 0 0 0\n"
        "AnatomicalOrientation = RAI\nElementSpacing = 4 4 30\nDistanceUnits = nm\n"
        f"DimSize = {x} {y} {z}\nElementType = MET_{kind}\nElementDataFile = {name}\n"
    ).encode()
    if how == "text":
        data = " ".join(map(str, [*voxels.ravel().tolist(), "\n"])).encode()
    if how in ("packed", "zraw"):
        data = packed
    if name == "LOCAL":
        (folder / "a.mha").write_bytes(head + data)
        return voxels
    (folder / "a.mhd").write_bytes(head)
    if how == "slices":
        for number, plane in enumerate(voxels):
            (folder / f"s{number:02d}.raw").write_bytes(plane.tobytes())
    else:
        (folder / name).write_bytes(data)
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
    Case("nrrd-text", lambda f: by_pynrrd("int16", f, encoding="ascii"), "a.nrrd", ("file",)),
    Case(
        "nrrd-beside",
        partial(by_pynrrd, "uint16", name="a.nhdr"),
        "a.nhdr",
        EVERYWHERE,
        expect=_PLACE,
    ),
    Case(
        "nrrd-beside-gzip",
        lambda f: by_pynrrd("int16", f, "a.nhdr", encoding="gzip"),
        "a.nhdr|nhdr:",
        ("file", "http"),
    ),
    Case("nrrd-beside-pattern", partial(slices_beside, True), "a.nhdr", ("file",)),
    Case("nrrd-beside-list", partial(slices_beside, False), "a.nhdr", ("s3",)),
    Case(
        "metaimage-local",
        partial(metaimage, "uint16", ""),
        "a.mha",
        EVERYWHERE,
        expect={**_PLACE, "origin_nm_zyx": (60.0, -4.0, 8.0)},
    ),
    Case("metaimage-big", partial(metaimage, ">i2", ""), "a.mha|mha:", ("file",)),
    Case("metaimage-packed", partial(metaimage, "uint8", "packed"), "a.mha", ("file", "http")),
    Case("metaimage-text", partial(metaimage, "int16", "text"), "a.mha", ("file",)),
    Case(
        "metaimage-beside",
        partial(metaimage, "float32", "beside"),
        "a.mhd",
        EVERYWHERE,
        expect=_PLACE,
    ),
    Case("metaimage-beside-packed", partial(metaimage, "uint8", "zraw"), "a.mhd", ("file",)),
    Case(
        "metaimage-beside-slices", partial(metaimage, "uint16", "slices"), "a.mhd|mhd:", ("file",)
    ),
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
