"""Writer of Gatan DM3 and DM4 images in the layout that Digital Micrograph leaves.

Layout measured on 130 public files: ``ImageList[0]`` is a thumbnail, ``ImageList[1]`` the image,
triples run x first. The section tags follow the public F57-8 slices (GMS 3.21): the section
thickness is 50 nm, beside a misleading approach thickness of 200 and a file name with the path
of a Windows user, which must not reach a public record.
"""

from __future__ import annotations

import datetime
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emulators.dm_tags import F64, I32, Array, TagWriter, Value, f32, flag, u32
from lib.errors import UnsupportedFormatError

_RGBA = 23
# dtype -> (DataType of an image, encoding of its array of numbers)
_CODES: dict[str, tuple[int, int]] = {
    "uint8": (6, 10),
    "int8": (9, 9),
    "int16": (1, 2),
    "uint16": (10, 4),
    "int32": (7, 3),
    "uint32": (11, 5),
    "float32": (2, 6),
    "float64": (12, 7),
}


@dataclass(frozen=True)
class Section:
    """What a block-face recorder notes about one section.

    ``number`` counts sections from 0; ``thickness_nm`` is the recorded step along z.
    """

    number: int
    thickness_nm: float = 50.0


def write_dm(
    path: Path,
    data: NDArray[Any],
    *,
    version: int = 3,
    pixel_size_zyx: Sequence[float],
    unit: str | Sequence[str] = "µm",
    origin_zyx: Sequence[float] = (),
    format_name: str | None = None,
    name: str | None = None,
    section: Section | None = None,
    thumbnail: bool = True,
    trailer: bool = True,
    document_list: bool = True,
    tags_first: bool = False,
    byte_order: int = 1,
) -> None:
    """Write one image or stack.

    Parameters
    ----------
    data
        ``(y, x)`` or ``(z, y, x)``, 8-, 16- or 32-bit integers, float32 or float64.
    version
        3 (DM3) or 4 (DM4); the file name may say otherwise, as it does in the wild.
    pixel_size_zyx
        Pixel sizes in ``unit``, in the array's order: y, x for an image and z, y, x for a stack.
        Shorter than the shape leaves the slowest axes without calibration.
    unit
        Of all axes, or of each in the array's order.
    origin_zyx
        The pixel that is zero, axis by axis, in the array's order; 0 by default.
    format_name
        ``Meta Data.Format``: "Image", "Spectrum image", "Diffraction image".
    section
        Adds the tags of a block-face recording.
    thumbnail, trailer, document_list
        ``False`` leaves out the thumbnail, the 8 closing zero bytes, or the display lists.
    tags_first
        Puts ``ImageTags`` before ``ImageData``, which misleads readers that scan for "Dimension".
    byte_order
        The header's flag; 1 (little-endian values) in all real files. Only the flag changes.

    Raises
    ------
    UnsupportedFormatError
        A dtype, version or number of dimensions that the format, or this writer, lacks.
    """
    if data.dtype.name not in _CODES or data.ndim not in (2, 3) or version not in (3, 4):
        raise UnsupportedFormatError(
            f"no DM{version} of dtype {data.dtype.name} and {data.ndim} dimensions",
            location=str(path),
        )
    units = [unit] * len(pixel_size_zyx) if isinstance(unit, str) else unit
    origins = origin_zyx or [0.0] * len(pixel_size_zyx)
    calibrations = [
        _calibration(scale, text, origin)
        for scale, text, origin in zip(pixel_size_zyx, units, origins, strict=True)
    ]
    tags = _image_tags(section)
    if format_name is not None:
        tags.setdefault("Meta Data", {})["Format"] = format_name
    image = _image(data, [*reversed(calibrations)], name or path.stem, tags, tags_first)
    root = _root([_thumbnail(data), image] if thumbnail else [image], document_list)
    writer = TagWriter(version)
    group = writer.group(root)
    # Digital Micrograph's own count of the root length: group + 4 in DM3, group in DM4
    length = len(group) + 4 if version == 3 else len(group)
    header = struct.pack(">I", version) + writer.words(length) + struct.pack(">I", byte_order)
    path.write_bytes(header + group + (bytes(8) if trailer else b""))


def _root(images: list[dict[str, Any]], document_list: bool) -> dict[str, Any]:
    shown = len(images) - 1
    documents = {
        "AnnotationType": u32(20),
        "ImageDisplayInfo": {"HighLimit": f32(255.0), "LowLimit": f32(0.0)},
        "ImageDisplayType": Value(I32, 1),
        "ImageSource": u32(0),
        "UniqueID": u32(8),
    }
    source = {"ClassName": "ImageSource:Simple", "Id": [u32(0)], "ImageRef": u32(shown)}
    root: dict[str, Any] = {"DocumentObjectList": [documents]} if document_list else {}
    root["ImageList"] = images
    if document_list:
        root["ImageSourceList"] = [source]
    root["InImageMode"] = flag(True)
    root["NextDocumentObjectID"] = u32(10)
    if len(images) > 1:
        size = Value(I32, (192, 192))
        root["Thumbnails"] = [{"ImageIndex": u32(0), "SourceSize_Pixels": size}]
    return root


def _calibration(scale: float, unit: str, origin: float = 0.0) -> dict[str, Any]:
    return {"Origin": f32(origin), "Scale": f32(scale), "Units": unit}


def _image_data(
    array: Array,
    data_type: int,
    size_xyz: list[int],
    calibrations: list[dict[str, Any]],
    depth: int,
) -> dict[str, Any]:
    return {
        "Calibrations": {
            "Brightness": _calibration(1.0, ""),
            "Dimension": calibrations,
            "DisplayCalibratedUnits": flag(True),
        },
        "Data": array,
        "DataType": u32(data_type),
        "Dimensions": [u32(n) for n in size_xyz],
        "PixelDepth": u32(depth),
    }


def _image(
    data: NDArray[Any],
    calibrations: list[dict[str, Any]],
    name: str,
    tags: dict[str, Any],
    tags_first: bool,
) -> dict[str, Any]:
    data_type, encoding = _CODES[data.dtype.name]
    size_xyz = list(reversed(data.shape))
    body = _image_data(
        Array(encoding, data), data_type, size_xyz, calibrations, data.dtype.itemsize
    )
    parts = {"ImageData": body, "ImageTags": tags}
    if tags_first:
        parts = dict(reversed(parts.items()))
    return parts | {"Name": name, "UniqueID": [u32(n) for n in (1, 2, 3, 4)]}


def _thumbnail(data: NDArray[Any]) -> dict[str, Any]:
    """A small RGBA picture of the first plane.

    It needs calibrations: ncempy counts images by them, and takes an uncalibrated thumbnail for
    the image.
    """
    plane = data.reshape(-1, *data.shape[-2:])[0].astype(np.float64)
    step_y, step_x = (max(1, -(-n // 32)) for n in plane.shape)
    small = plane[::step_y, ::step_x]
    span = float(small.max() - small.min()) or 1.0
    grey = ((small - small.min()) * (255.0 / span)).astype(np.uint32)
    rgba = (grey | grey << 8 | grey << 16 | np.uint32(0xFF000000)).view(np.int32)
    height, width = small.shape
    calibrations = [_calibration(float(step), "") for step in (step_x, step_y)]
    return {
        "ImageData": _image_data(Array(I32, rgba), _RGBA, [width, height], calibrations, 4),
        "ImageTags": {},
        "Name": "",
        "UniqueID": [u32(n) for n in (5, 6, 7, 8)],
    }


def _image_tags(section: Section | None) -> dict[str, Any]:
    if section is None:
        return {"GMS Version": {"Created": "3.21.1374.0"}}
    pixel = {"Scale": f32(7.998250424861908), "Units": "nm"}
    step = {"Scale": f32(section.thickness_nm), "Units": "nm"}
    begun = datetime.datetime(2018, 6, 11, 22, 26, 45)
    ended = begun + datetime.timedelta(seconds=31 + 54 * section.number)
    return {
        "DataBar": {
            "Acquisition Date": ended.strftime("%d.%m.%Y"),
            "Acquisition Time": ended.strftime("%H:%M:%S"),
            "Exposure Number": u32(897131 + section.number),
            "Signal Name": "3VBSED",
        },
        # the real stamp ends in a line separator
        "DigiScan": {"Time stamp": begun.strftime("%a %b %d %H:%M:%S %Y") + "\u2028"},
        "GMS Version": {"Created": "3.21.1374.0"},
        "Meta Data": {"Dimension info": [pixel, pixel, step], "Format": "Image"},
        "Microscope Info": {
            "Indicated Magnification": Value(F64, 2159.0),
            "Name": "FEI Quanta",
            "Probe Current (nA)": Value(F64, 0.0),
            "Stage Position": {"Stage Z": Value(F64, 0.0499 * section.number)},
            "Voltage": Value(F64, 1900.0),
        },
        "SBFSEM": {
            "Approach": {"Slice thickness": Value(F64, 200.0)},
            "Record": {
                "Base file name": r"C:\Users\someone\Documents\F57-8\F57-8_test1_3VBSED",
                "Slice thickness": Value(F64, section.thickness_nm),
            },
        },
    }
