"""N5: pyramids and single datasets, whole and cut end blocks, absent blocks, every compression."""

from __future__ import annotations

import gzip
import json
import struct
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
from imagecodecs import lz4_encode
from numpy.typing import NDArray
from xxhash import xxh32_intdigest

from lib.formats.n5.blocks import LZ4_JAVA_SEED
from tests.formats.case import LISTED, Case
from tests.formats.cases_hdf5 import spimdata
from tests.kit.volume_kit import random_voxels

SHAPE = (21, 45, 38)


def dataset(path: Path, voxels: NDArray[Any], compression: dict[str, Any], **more: Any) -> None:
    """Written by tensorstore: end blocks are whole, blocks of zeros are left out."""
    store = tensorstore.open(
        {
            "driver": "n5",
            "kvstore": {"driver": "file", "path": str(path)},
            "metadata": {
                "dimensions": [*voxels.shape[::-1]],
                "blockSize": [16, 16, 8],
                "dataType": voxels.dtype.name,
                "compression": compression,
            },
            "create": True,
        }
    ).result()
    store.write(voxels.transpose()).result()
    attributes = json.loads((path / "attributes.json").read_text())
    (path / "attributes.json").write_text(json.dumps({**attributes, **more}))


def by_hand(path: Path, voxels: NDArray[Any], kind: str) -> None:
    """End blocks are cut, as the Java library and z5py write them."""
    path.mkdir(parents=True)
    block = (16, 16, 8)
    attributes = {
        "dimensions": [*voxels.shape[::-1]],
        "blockSize": [*block],
        "dataType": voxels.dtype.name,
        "compressionType" if kind == "raw" else "compression": "raw"
        if kind == "raw"
        else {"type": kind, "blockSize": 65536},
    }
    (path / "attributes.json").write_text(json.dumps(attributes))
    counts = [-(-n // b) for n, b in zip(voxels.shape[::-1], block, strict=True)]
    for x, y, z in np.ndindex(*counts):
        piece = voxels[z * 8 : z * 8 + 8, y * 16 : y * 16 + 16, x * 16 : x * 16 + 16]
        data = piece.astype(voxels.dtype.newbyteorder(">")).tobytes()
        if kind == "gzip":
            data = gzip.compress(data, 6)
        if kind == "lz4":
            packed = lz4_encode(data)
            check = xxh32_intdigest(data, LZ4_JAVA_SEED) & (2**28 - 1)
            head = b"LZ4Block" + bytes([0x25]) + struct.pack("<III", len(packed), len(data), check)
            data = head + packed + b"LZ4Block" + bytes([0x15]) + struct.pack("<III", 0, 0, 0)
        target = path / str(x) / str(y) / str(z)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(struct.pack(">HHIII", 0, 3, *piece.shape[::-1]) + data)


def pyramid(folder: Path) -> NDArray[Any]:
    fine, coarse = random_voxels(SHAPE, "uint8", 3), random_voxels((11, 23, 19), "uint8", 4)
    root = folder / "x.n5"
    (root / "em").mkdir(parents=True)
    (root / "attributes.json").write_text('{"n5": "2.0.0"}')
    group = {
        "axes": ["x", "y", "z"],
        "pixelResolution": {"dimensions": [4.0, 4.0, 3.24], "unit": "nm"},
        "scales": [[1, 1, 1], [2, 2, 2]],
    }
    (root / "em/attributes.json").write_text(json.dumps(group))
    for level, voxels in (("s0", fine), ("s1", coarse)):
        dataset(root / "em" / level, voxels, {"type": "zstd", "level": 1})
    return fine


def bdv(folder: Path) -> NDArray[Any]:
    """Two levels of one setup, as BigDataViewer has them, and its .xml."""
    fine, coarse = random_voxels(SHAPE, "uint8", 3), random_voxels((11, 23, 19), "uint8", 4)
    setup = folder / "x.n5/setup0"
    (setup / "timepoint0").mkdir(parents=True)
    (folder / "x.n5/attributes.json").write_text('{"n5": "2.0.0"}')
    factors = {"downsamplingFactors": [[1, 1, 1], [2, 2, 2]], "dataType": "uint8"}
    (setup / "attributes.json").write_text(json.dumps(factors))
    (setup / "timepoint0/attributes.json").write_text('{"multiScale": true}')
    for level, voxels in (("s0", fine), ("s1", coarse)):
        dataset(setup / "timepoint0" / level, voxels, {"type": "gzip"})
    (folder / "x.xml").write_text(spimdata("n5", "x.n5"), "utf-8")
    return fine


def second_level(folder: Path) -> NDArray[Any]:
    pyramid(folder)
    return random_voxels((11, 23, 19), "uint8", 4)


def cosem(folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, "uint64", 5, labels=True)
    transform = {
        "axes": ["z", "y", "x"],
        "units": ["nm"] * 3,
        "scale": [5.24, 4.0, 4.0],
        "translate": [2.62, 100.0, -8.0],
    }
    more = {
        "transform": transform,
        "pixelResolution": {"dimensions": [4.0, 4.0, 5.24], "unit": "nm"},
        "contentType": "segmentation",
    }
    dataset(folder / "x.n5/labels", voxels, {"type": "gzip"}, **more)
    return voxels


def compressed(compression: dict[str, Any], dtype: str, folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, dtype, 6)
    dataset(folder / "bare", voxels, compression)
    return voxels


def cut_blocks(kind: str, dtype: str, folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, dtype, 7)
    by_hand(folder / "bare", voxels, kind)
    return voxels


def holes(folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, "uint16", 8)
    voxels[:8, :16, :16] = 0
    dataset(folder / "bare", voxels, {"type": "gzip"})
    assert not (folder / "bare/0/0/0").exists()
    return voxels


def mirrored(axes: str, cut: bool, folder: Path) -> NDArray[Any]:
    """As OpenOrganelle has them: index 0 of an axis lies at its far end. One block is absent."""
    voxels = random_voxels(SHAPE, "uint8", 9)
    voxels[:5, :13, :6] = 0  # the block at the far end of all three axes, cut by the edges
    turn = tuple(slice(None, None, -1 if axis in axes else None) for axis in "zyx")
    stored, path = np.ascontiguousarray(voxels[turn]), folder / "bare"
    transform = {
        "axes": ["z", "y", "x"],
        "units": ["nm"] * 3,
        "scale": [-5.25 if "z" in axes else 5.25, -4.0, -8.0 if "x" in axes else 8.0],
        "translate": [105.0, 176.0, 296.0],
    }
    if cut:
        by_hand(path, stored, "gzip")
        attributes = json.loads((path / "attributes.json").read_text())
        (path / "attributes.json").write_text(json.dumps({**attributes, "transform": transform}))
    else:
        dataset(path, stored, {"type": "zstd", "level": 1}, transform=transform)
        if axes == "zyx":
            assert not (path / "2/2/2").exists()
    return voxels


_TURNED = (
    "the y axis is stored mirrored; its scale is negative: it was turned, so that positions grow"
)
_BLOSC = {"type": "blosc", "cname": "zstd", "clevel": 1, "shuffle": 1}
CASES = [
    Case(
        "n5-bdv-by-xml",
        bdv,
        "x.xml",
        ("file", "http"),
        expect={"voxel_nm_zyx": (40.0, 4.0, 4.0), "scale_level": "s0"},
    ),
    Case(
        "n5-pyramid",
        pyramid,
        "x.n5",
        transports=LISTED,
        expect={"voxel_nm_zyx": (3.24, 4.0, 4.0), "scale_level": "s0"},
    ),
    Case(
        "n5-second-level",
        second_level,
        "x.n5|n5:em",
        transports=("file",),
        settings={"scale_level": "1"},
        expect={"voxel_nm_zyx": (6.48, 8.0, 8.0), "scale_level": "s1"},
    ),
    Case(
        "n5-cosem",
        cosem,
        "x.n5/labels",
        transports=("file",),
        expect={
            "kind": "labels",
            "voxel_nm_zyx": (5.24, 4.0, 4.0),
            "origin_nm_zyx": (2.62, 100.0, -8.0),
        },
    ),
    *(
        Case(
            f"n5-{name}",
            partial(compressed, compression, dtype),
            "bare",
            transports=("file", "s3") if name in ("gzip", "zstd") else ("file",),
        )
        for name, compression, dtype in (
            ("raw", {"type": "raw"}, "int16"),
            ("gzip", {"type": "gzip"}, "uint16"),
            ("zlib", {"type": "gzip", "useZlib": True}, "float32"),
            ("bzip2", {"type": "bzip2"}, "uint8"),
            ("xz", {"type": "xz"}, "int32"),
            ("zstd", {"type": "zstd", "level": 3}, "uint8"),
            ("blosc", _BLOSC, "uint8"),
            ("blosc-wide", _BLOSC, "int64"),
        )
    ),
    *(
        Case(f"n5-{kind}-kept", write, "bare", ("file",), settings={"codec": "source"})
        for kind, write in (
            ("gzip", partial(cut_blocks, "gzip", "uint8")),
            ("zlib", partial(compressed, {"type": "gzip", "useZlib": True}, "uint8")),
        )
    ),
    Case(
        "n5-mirrored-y",
        partial(mirrored, "y", False),
        "bare",
        ("file", "s3"),
        expect={"origin_nm_zyx": (105.0, 0.0, 296.0), "voxel_nm_zyx": (5.25, 4.0, 8.0)},
        notes=(f"{_TURNED} with the index",),
    ),
    Case(
        "n5-mirrored-everywhere",
        partial(mirrored, "zyx", False),
        "bare",
        ("file", "http"),
        expect={"origin_nm_zyx": (0.0, 0.0, 0.0)},
        missing=1,
    ),
    Case("n5-mirrored-cut", partial(mirrored, "zy", True), "bare", ("file",)),
    Case("n5-cut-raw", partial(cut_blocks, "raw", "uint8"), "bare"),
    Case("n5-cut-lz4", partial(cut_blocks, "lz4", "uint16"), "bare", transports=("file",)),
    Case(
        "n5-absent",
        holes,
        "bare",
        transports=LISTED,
        missing=1,
        notes=("1 of 27 chunks are absent, read as 0",),
    ),
]
