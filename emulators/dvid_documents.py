"""The ``info`` answer of the hemibrain grayscale instance on DVID, as logged on 2025-06-11."""

from __future__ import annotations

import copy
from typing import Any

DVID_UUID = "a89eb3af216a46cdba81204d8f954786"
DVID_INSTANCE = "grayscale"
DVID_SIZE_XYZ = (34432, 39725, 41408)
"""Voxels along x, y, z; the inclusive ``MaxPoint`` plus one."""

_MAX_POINT_XYZ = [n - 1 for n in DVID_SIZE_XYZ]

_INFO: dict[str, Any] = {
    "Base": {
        "TypeName": "uint8blk",
        "TypeURL": "github.com/janelia-flyem/dvid/datatype/imageblk/uint8.go",
        "TypeVersion": "0.2",
        "DataUUID": "be657e3e00df40f2904282648a330bbc",
        "Name": DVID_INSTANCE,
        "RepoUUID": DVID_UUID,
        "Compression": "LZ4 compression, level -1",
        "Checksum": "No checksum",
        "Syncs": [],
        "Versioned": True,
        "KVStore": "google cloud storage, bucket hemibrain-raw-grayscale",
        "LogStore": "no mutation log set",
        "Tags": None,
    },
    "Extended": {
        "Values": [{"DataType": "uint8", "Label": "uint8"}],
        "Interpolable": True,
        "BlockSize": [64, 64, 64],
        "VoxelSize": [8, 8, 8],
        "VoxelUnits": ["nanometers", "nanometers", "nanometers"],
        "MinPoint": [0, 0, 0],
        "MaxPoint": _MAX_POINT_XYZ,
        "MinIndex": [0, 0, 0],
        "MaxIndex": [n // 64 for n in _MAX_POINT_XYZ],
        "Background": 0,
        "GridStore": "",
        "ScaleLevel": 0,
    },
    "Extents": {"MinPoint": [0, 0, 0], "MaxPoint": _MAX_POINT_XYZ},
}


def dvid_info() -> dict[str, Any]:
    """Answer of ``/api/node/{uuid}/grayscale/info``; every triple is x, y, z, maxima inclusive."""
    return copy.deepcopy(_INFO)
