"""HDF5, written by h5py: each filter, CREMI, BigDataViewer, Imaris, sparse datasets."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from tests.formats.case import Case
from tests.kit.volume_kit import random_voxels

SHAPE = (21, 45, 38)
RANGES = ("file", "http", "s3")


def filtered(dtype: str, options: dict[str, Any], folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, dtype.lstrip(">"), 3)
    stored = voxels.astype(voxels.dtype.newbyteorder(">")) if dtype[0] == ">" else voxels
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("em/raw", data=stored, **options)
    return voxels


def half(options: dict[str, Any], folder: Path) -> NDArray[Any]:
    return filtered("float16", options, folder).astype(np.float32)


def cremi(folder: Path) -> NDArray[Any]:
    voxels, ids = random_voxels(SHAPE, "uint8", 4), random_voxels((8, 20, 20), "uint64", 5)
    with h5py.File(folder / "sample.hdf", "w") as file:
        raw = file.create_dataset("volumes/raw", data=voxels, chunks=(8, 16, 16))
        raw.attrs["resolution"] = np.array([40.0, 4.0, 4.0])
        labels = file.create_dataset("volumes/labels/neuron_ids", data=ids, compression="gzip")
        labels.attrs["resolution"] = np.array([40.0, 4.0, 4.0])
        labels.attrs["offset"] = np.array([80.0, 40.0, 40.0])
        file.create_dataset("annotations/ids", data=np.arange(5))
    return voxels


def cremi_ids(folder: Path) -> NDArray[Any]:
    cremi(folder)
    return random_voxels((8, 20, 20), "uint64", 5)


def sparse(folder: Path) -> NDArray[Any]:
    voxels = np.full(SHAPE, 7, np.uint16)
    with h5py.File(folder / "x.h5", "w", libver="latest") as file:
        data = file.create_dataset(
            "main", SHAPE, "uint16", chunks=(8, 16, 16), fillvalue=7, compression="gzip"
        )
        rows = SHAPE[1] // 16 * 16
        part = random_voxels((SHAPE[0], rows, SHAPE[2]), "uint16", 6)
        data[:, :rows] = part
    voxels[:, :rows] = part
    return voxels


def surrounded(folder: Path) -> NDArray[Any]:
    """Data within black that was never written: 15 of 27 chunks."""
    voxels = random_voxels(SHAPE, "uint16", 6)
    voxels[:, 27:], voxels[:, :, 27:] = 0, 0
    with h5py.File(folder / "x.h5", "w") as file:
        data = file.create_dataset("main", SHAPE, "uint16", chunks=(8, 16, 16))
        data[:, :32, :32] = voxels[:, :32, :32]
    return voxels


def bdv(folder: Path) -> NDArray[Any]:
    """Two levels of one setup; uint16 voxels stored as int16."""
    half = (SHAPE[0], -(-SHAPE[1] // 2), -(-SHAPE[2] // 2))
    fine, coarse = random_voxels(SHAPE, "uint16", 7), random_voxels(half, "uint16", 8)
    with h5py.File(folder / "x.h5", "w") as file:
        for level, voxels in ((0, fine), (1, coarse)):
            file.create_dataset(
                f"t00000/s00/{level}/cells", data=voxels.view(np.int16), chunks=(8, 16, 16)
            )
        file.create_dataset("s00/resolutions", data=np.array([[1, 1, 1], [2, 2, 1]], float))
    return fine


SPIMDATA = """<?xml version="1.0" encoding="UTF-8"?>
<SpimData version="0.2">
  <BasePath type="relative">.</BasePath>
  <SequenceDescription>
    <ImageLoader format="bdv.{kind}"><{kind} type="relative">{file}</{kind}></ImageLoader>
    <ViewSetups>
      <ViewSetup><id>0</id><size>{size}</size>
        <voxelSize><unit>{unit}</unit><size>{lengths}</size></voxelSize></ViewSetup>
    </ViewSetups>
    <Timepoints type="range"><first>0</first><last>0</last></Timepoints>
  </SequenceDescription>
  <ViewRegistrations/>
</SpimData>
"""
"""As BigDataViewer's exporter writes it; sizes are x, y, z."""


def spimdata(kind: str, file: str, **more: str) -> str:
    """The .xml of one setup of `SHAPE`."""
    size = " ".join(map(str, SHAPE[::-1]))
    given = {"size": size, "unit": "µm", "lengths": "0.004 0.004 0.04"} | more
    return SPIMDATA.format(kind=kind, file=file, **given)


def bdv_with_xml(folder: Path) -> NDArray[Any]:
    (folder / "x.xml").write_text(spimdata("hdf5", "x.h5"), "utf-8")
    return bdv(folder)


def _text(value: str) -> NDArray[Any]:
    return np.frombuffer(value.encode(), "S1")


def imaris(folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, "uint8", 9)
    padded = np.zeros((24, 48, 48), np.uint8)
    padded[:21, :45, :38] = voxels
    with h5py.File(folder / "x.ims", "w") as file:
        channel = file.create_group("DataSet/ResolutionLevel 0/TimePoint 0/Channel 0")
        channel.create_dataset("Data", data=padded, chunks=(8, 16, 16), compression="gzip")
        for axis, n in zip("ZYX", SHAPE, strict=True):
            channel.attrs[f"ImageSize{axis}"] = _text(str(n))
        image = file.create_group("DataSetInfo/Image")
        for axis, (n, step) in enumerate(zip(SHAPE[::-1], (0.01, 0.01, 0.05), strict=True)):
            image.attrs[f"ExtMin{axis}"] = _text("0")
            image.attrs[f"ExtMax{axis}"] = _text(f"{n * step:.6f}")
        image.attrs["Unit"] = _text("um")
    return voxels


def channels(folder: Path) -> NDArray[Any]:
    both = np.stack([random_voxels(SHAPE, "uint8", seed) for seed in (10, 11)])
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("pair", data=both, chunks=(1, 8, 16, 16))
    return np.asarray(both[1])


CHUNKS = {"chunks": (8, 16, 16)}
CASES = [
    Case("hdf5-contiguous", partial(filtered, "uint16", {}), "x.h5", RANGES, within=1.1),
    Case(
        "hdf5-half", partial(half, {"chunks": (8, 16, 16), **hdf5plugin.Zstd()}), "x.h5", ("file",)
    ),
    Case("hdf5-half-contiguous", partial(half, {}), "x.h5", ("file",)),
    Case("hdf5-big-endian", partial(filtered, ">int16", CHUNKS), "x.h5", ("file",)),
    *(
        Case(f"hdf5-{name}", partial(filtered, dtype, {**CHUNKS, **options}), "x.h5", transports)
        for name, dtype, options, transports in (
            ("plain", "float32", {}, ("file",)),
            ("gzip", "uint8", {"compression": "gzip"}, RANGES),
            ("lzf", "uint16", {"compression": "lzf"}, ("file",)),
            ("shuffle", "int32", {"compression": "gzip", "shuffle": True}, ("file",)),
            (
                "fletcher32",
                "uint16",
                {"compression": "gzip", "shuffle": True, "fletcher32": True},
                ("file",),
            ),
            ("zstd", "uint8", dict(hdf5plugin.Zstd(clevel=3)), RANGES),
            ("blosc", "uint16", dict(hdf5plugin.Blosc(cname="lz4", clevel=5)), ("file", "s3")),
            ("lz4", "uint8", dict(hdf5plugin.LZ4()), ("file",)),
            ("bitshuffle", "uint16", dict(hdf5plugin.Bitshuffle(cname="none")), ("file",)),
            ("bitshuffle-lz4", "uint16", dict(hdf5plugin.Bitshuffle(cname="lz4")), RANGES),
            ("bitshuffle-zstd", "int32", dict(hdf5plugin.Bitshuffle(24, "zstd")), ("file",)),
            ("bzip2", "uint16", dict(hdf5plugin.BZip2()), ("file",)),
            ("float64", "float64", {}, ("file",)),
        )
    ),
    Case(
        "hdf5-cremi",
        cremi,
        "sample.hdf|hdf5:volumes/raw",
        RANGES,
        expect={"voxel_nm_zyx": (40.0, 4.0, 4.0), "origin_nm_zyx": (0.0, 0.0, 0.0)},
    ),
    Case(
        "hdf5-cremi-ids",
        cremi_ids,
        "sample.hdf|hdf5:volumes/labels/neuron_ids",
        ("file",),
        expect={"kind": "labels", "origin_nm_zyx": (80.0, 40.0, 40.0)},
    ),
    Case(
        "hdf5-sparse",
        sparse,
        "x.h5|h5:main",
        ("file", "http"),
        settings={"max_missing_fraction": 0.5},
        missing=9,
    ),
    Case("hdf5-black-left-out", surrounded, "x.h5|hdf5:main", ("file",), missing=15),
    Case(
        "hdf5-gzip-kept",
        partial(filtered, "uint16", {**CHUNKS, "compression": "gzip"}),
        "x.h5",
        ("file",),
        settings={"codec": "source"},
    ),
    Case("hdf5-bdv", bdv, "x.h5|hdf5:t00000", ("file",), expect={"dtype": "uint16"}),
    *(
        Case(
            f"hdf5-bdv-by-{name}",
            bdv_with_xml,
            address,
            ("file", "http"),
            expect={"dtype": "uint16", "voxel_nm_zyx": (40.0, 4.0, 4.0)},
            notes=("the places that x.xml gives its views (ViewRegistrations) are not applied",),
            within=0.3,  # what describes both levels is read once
        )
        for name, address in (("xml", "x.xml"), ("h5", "x.h5|hdf5:t00000"))
    ),
    Case(
        "hdf5-imaris",
        imaris,
        "x.ims",
        ("file",),
        expect={"voxel_nm_zyx": (50.0, 10.0, 10.0)},
    ),
    Case("hdf5-channels", channels, "x.h5", ("file",), settings={"channel": 1}),
]
