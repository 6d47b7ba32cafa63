"""Labels of DVID's stand-in: a labelmap by formula, and the block stream that ``/blocks`` gives.

Written from DVID's ``datatype/common/labels/compressed.go``, apart from the product's decoder.
"""

from __future__ import annotations

import copy
import gzip
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

LABELS_UUID = "15aee239283143c08b827177ebee01b3"
LABELS_INSTANCE = "segmentation"
LABELS_SIZE_XYZ = (34432, 39552, 41408)
"""The segmentation ends before the grayscale along y, as the hemibrain's does."""
MAX_SCALE = 3
BLOCK = 64

Labels = NDArray[np.uint64]
TripleZYX = tuple[int, int, int]

_INFO: dict[str, Any] = {
    "Base": {
        "TypeName": "labelmap",
        "TypeURL": "github.com/janelia-flyem/dvid/datatype/labelmap",
        "TypeVersion": "0.1",
        "DataUUID": "d6ae3cbbe2ff4c0cb1d8c8d1d5f7e0b1",
        "Name": LABELS_INSTANCE,
        "RepoUUID": LABELS_UUID,
        "Compression": "LZ4 compression, level -1",
        "Checksum": "No checksum",
        "Syncs": [],
        "Versioned": True,
        "KVStore": "google cloud storage",
        "Tags": None,
    },
    "Extended": {
        "Values": [{"DataType": "uint64", "Label": "uint64"}],
        "Interpolable": False,
        "BlockSize": [BLOCK] * 3,
        "VoxelSize": [8, 8, 8],
        "VoxelUnits": ["nanometers"] * 3,
        "MinPoint": [0, 0, 0],
        "MaxPoint": [n - 1 for n in LABELS_SIZE_XYZ],
        "MinIndex": [0, 0, 0],
        "MaxIndex": [(n - 1) // BLOCK for n in LABELS_SIZE_XYZ],
        "Background": 0,
        "MaxDownresLevel": MAX_SCALE,
        "IndexedLabels": True,
        "MaxRepoLabel": 2**53 + 4096,
    },
    "Extents": {"MinPoint": [0, 0, 0], "MaxPoint": [n - 1 for n in LABELS_SIZE_XYZ]},
}


def labels_info() -> dict[str, Any]:
    """Answer of ``info``."""
    return copy.deepcopy(_INFO)


def labels_repo() -> dict[str, Any]:
    """Answer of ``/api/repo/{uuid}/info``, as far as it concerns the labels."""
    return {
        "Root": LABELS_UUID,
        "Alias": "hemibrain segmentation",
        "Description": "Stand-in with labels by formula",
        "DataInstances": {LABELS_INSTANCE: labels_info()},
        "DAG": {"Root": LABELS_UUID, "Nodes": {LABELS_UUID: {"Locked": True, "Branch": ""}}},
    }


def dvid_labels(
    origin_zyx: TripleZYX, shape_zyx: TripleZYX, *, scale: int = 0, supervoxels: bool = False
) -> Labels:
    """Labels of a crop, in the voxels of its scale; 0 outside the extents.

    Bodies are slabs with walls of background; some blocks are all background, others one body. Ids
    lie around 5e9 and above 2^53.
    """
    z, y, x = (
        (np.arange(o, o + n, dtype=np.int64) << scale).reshape(
            [-1 if axis == a else 1 for a in range(3)]
        )
        for axis, (o, n) in enumerate(zip(origin_zyx, shape_zyx, strict=True))
    )
    body = (z // 37) * 1_000_003 + (y // 53) * 1009 + x // 41
    ids = np.uint64(5_000_000_001) + (body % 400_000_000).astype(np.uint64)
    ids = np.where(body % 5 == 0, np.uint64(2**53 + 1) + (body % 1000).astype(np.uint64), ids)
    if supervoxels:
        ids = ids * np.uint64(2) + (((z + y + x) // 16) % 2).astype(np.uint64)
    side = BLOCK << scale
    block = z // side + 3 * (y // side) + 5 * (x // side)
    ids = np.where(block % 4 == 1, np.uint64(77_000_000_007), ids)
    wall = (z % 37 < 2) | (y % 53 < 3) | (x % 41 < 2)
    inside = (z >= 0) & (y >= 0) & (x >= 0)
    for axis, size in zip((x, y, z), LABELS_SIZE_XYZ, strict=True):
        inside = inside & (axis < size)
    ids = np.where((wall & (block % 4 != 1)) | (block % 4 == 2) | ~inside, np.uint64(0), ids)
    return np.ascontiguousarray(ids, np.uint64)


def encode_block(voxels: Labels) -> bytes:
    """A block as DVID keeps it: its labels, and 8^3 sub-blocks with lists and packed places."""
    labels, places = np.unique(voxels, return_inverse=True)
    n = BLOCK // 8
    head = struct.pack("<4I", n, n, n, len(labels)) + labels.astype("<u8").tobytes()
    if len(labels) == 1:
        return head
    cube = places.reshape(n, 8, n, 8, n, 8).transpose(0, 2, 4, 1, 3, 5).reshape(-1, 512)
    counts, indices, packed = [], [], []
    for sub in cube:
        own, local = np.unique(sub, return_inverse=True)
        if len(own) == 1 and labels[own[0]] == 0:
            counts.append(0)  # label 0 needs no list
            continue
        counts.append(len(own))
        indices.append(own.astype("<u4").tobytes())
        if len(own) > 1:
            bits = int(len(own) - 1).bit_length()
            text = "".join(format(int(place), f"0{bits}b") for place in local)
            packed.append(int(text, 2).to_bytes(len(text) // 8, "big"))
    return head + np.array(counts, "<u2").tobytes() + b"".join(indices) + b"".join(packed)


def stream(
    blocks_xyz: list[tuple[int, int, int]],
    compression: str,
    voxels: Callable[[TripleZYX, TripleZYX], Labels],
) -> Iterator[bytes]:
    """The answer of ``/blocks`` and ``/specificblocks``; blocks of background are not stored."""
    for x, y, z in blocks_xyz:
        block = voxels((z * BLOCK, y * BLOCK, x * BLOCK), (BLOCK,) * 3)
        if not block.any():
            continue
        data = packed_as(block, compression)
        yield struct.pack("<4i", x, y, z, len(data)) + data


def packed_as(block: Labels, compression: str) -> bytes:
    """One block in one of the forms that a request may name.

    Raises
    ------
    ValueError
        There is no such form.
    """
    from numcodecs.lz4 import compress

    if compression == "blocks":
        return gzip.compress(encode_block(block), 1, mtime=0)
    if compression == "lz4":  # u32 in front, as the store has it
        return bytes(compress(encode_block(block)))
    if compression == "gzip":
        return gzip.compress(block.tobytes(), 1, mtime=0)
    if compression == "uncompressed":
        return block.tobytes()
    raise ValueError(compression)
