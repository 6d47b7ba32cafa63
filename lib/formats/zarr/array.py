"""One Zarr v2 array in an object store: its document, its grid, its chunks.

Zarr v2 specification (``.zarray``); the ``dimension_separator`` key follows its extension and is
``.`` where absent, but archives converted from N5 leave it out although their keys are nested, so
the separator is taken from a listing where one is at hand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lib.compression import open_codec
from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.base import WIDENED, delivered_dtype
from lib.formats.zarr.axes import AxisMap, array_index, axis_map
from lib.geometry import ShapeZYX
from lib.safety import reading

BOOL = "|b1"
_DTYPES = {"u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"}
CODECS = {"zstd", "blosc", "gzip", "zlib", "lz4", "bz2", "lzma"}
_MAX_CHUNK_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class ArrayDocument:
    """What ``.zarray`` says, checked.

    Attributes
    ----------
    shape, chunk
        One length for each of the array's own axes.
    map
        Which of these axes are z, y, x, and what is taken of the others; a 2-D array is one plane.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    map: AxisMap
    dtype_text: str
    compressor: dict[str, Any]
    filters: list[Any]
    order: str
    fill_value: int | float
    separator: str

    @property
    def axes(self) -> int:
        """How many the array itself has."""
        return len(self.shape)

    @property
    def shape_zyx(self) -> ShapeZYX:
        return self.map.pick_zyx(self.shape)

    @property
    def chunk_zyx(self) -> ShapeZYX:
        return self.map.pick_zyx(self.chunk)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the voxels that are delivered, in native byte order."""
        return delivered_dtype(np.dtype(self.dtype_text))

    @property
    def notes(self) -> tuple[str, ...]:
        """What is done to the voxels."""
        return (WIDENED,) if self.dtype_text[1:] == "f2" else ()

    def chunk_key(self, index_zyx: ShapeZYX) -> str:
        """The object of a chunk, below the array."""
        return self.separator.join(map(str, array_index(self.map, index_zyx, self.chunk)))


def parse_array(
    data: bytes | memoryview,
    where: str,
    *,
    separator: str | None = None,
    axes: Callable[[tuple[int, ...]], AxisMap] | None = None,
) -> ArrayDocument:
    """Read a ``.zarray``.

    Parameters
    ----------
    where
        Key of the document, for errors.
    separator
        The separator that a listing showed; beats what the document says or leaves out.
    axes
        Matches the axes of an array of a shape; by default the last three are z, y, x, and those
        before them must have length 1.

    Raises
    ------
    FormatError
        It is not JSON, keys are missing, or sizes are impossible.
    UnsupportedFormatError
        Structured dtypes, complex numbers, more than five axes, filters, other compressors.
    """
    with reading(".zarray", where):
        document = json.loads(bytes(data))
        if document["zarr_format"] != 2:
            raise UnsupportedFormatError(
                f"zarr_format {document['zarr_format']} where 2 was expected", location=where
            )
        shape = tuple(int(n) for n in document["shape"])
        chunks = tuple(int(n) for n in document["chunks"])
        dtype_text, order = document["dtype"], document["order"]
        dtype_text = "|u1" if dtype_text == BOOL else dtype_text  # a byte, 0 or 1
        compressor, filters = document["compressor"], document.get("filters")
        fill = document.get("fill_value")
    if (
        not isinstance(dtype_text, str)
        or dtype_text[:1] not in "<>|"
        or dtype_text[1:] not in _DTYPES
    ):
        raise UnsupportedFormatError(f"dtype {dtype_text!r} is not converted", location=where)
    if not 2 <= len(shape) <= 5 or len(shape) != len(chunks):
        raise UnsupportedFormatError(
            f"an array of shape {shape} and chunks {chunks}, where 2 to 5 axes are converted",
            location=where,
        )
    if min(*shape, *chunks) < 1 or math.prod(chunks) * int(dtype_text[2:]) > _MAX_CHUNK_BYTES:
        raise FormatError(f"impossible shape {shape} or chunks {chunks}", location=where)
    if order not in ("C", "F") or not isinstance(compressor, dict | None):
        raise FormatError("order or compressor is not as Zarr v2 has them", location=where)
    with reading("filters", where):
        if filters and not all(_keeps_size(one, dtype_text) for one in filters):
            raise UnsupportedFormatError(f"filters {filters!r} are not converted", location=where)
    _check_codec(compressor or {}, where)
    separator = separator or document.get("dimension_separator", ".")
    if separator not in (".", "/"):
        raise FormatError(f"dimension_separator {separator!r} is none", location=where)
    return ArrayDocument(
        shape=shape,
        chunk=chunks,
        map=axes(shape) if axes else axis_map(None, shape, where),
        dtype_text=dtype_text,
        compressor=compressor or {},
        filters=filters or [],
        order=order,
        fill_value=_fill(fill, dtype_text, where),
        separator=separator,
    )


def _keeps_size(given: Any, dtype_text: str) -> bool:
    """Whether a filter is one of those that are undone, which leave a voxel as long as it was."""
    if not isinstance(given, dict):
        return False
    if given.get("id") == "shuffle":
        return given.get("elementsize", 4) in (1, 2, 4, 8)
    kept = {given.get("dtype"), given.get("astype", given.get("dtype"))} == {dtype_text}
    return given.get("id") == "delta" and kept


def _check_codec(config: dict[str, Any], where: str) -> None:
    """Only codecs that compress bytes, with settings that they take."""
    with reading("compressor", where):
        if config and config["id"] not in CODECS:
            raise UnsupportedFormatError(
                f"compressor {config['id']!r} is not converted", location=where
            )
        open_codec(config)


def _fill(value: Any, dtype_text: str, where: str) -> int | float:
    if value is None:
        return 0
    if not isinstance(value, int | float | str):
        raise FormatError(f"fill_value {value!r} is no number", location=where)
    stored = np.dtype(dtype_text)
    try:
        number = stored.type(value)
        exact = stored.kind == "f" or bool(number == value)
    except (ValueError, TypeError, OverflowError):
        exact = False
    if not exact:
        raise FormatError(f"fill_value {value!r} does not fit {dtype_text}", location=where)
    return float(number) if stored.kind == "f" else int(number)
