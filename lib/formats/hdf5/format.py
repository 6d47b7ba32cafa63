"""HDF5 as a file format: datasets by path, with the conventions of CREMI, BigDataViewer, Imaris.

The process of `structure` is asked about a file.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lib.bytesource.base import ByteSource
from lib.bytesource.neighbours import requests_for
from lib.concurrency import cancel
from lib.errors import FormatError, MacroscopeError, NotFoundError, UnsupportedFormatError
from lib.formats.base import WIDENED, delivered_dtype
from lib.formats.chunked import cells_in, choose_level_name
from lib.formats.format import FileFormatBase, Handle, Options, Survey, VolumeDescription, VoxelSize
from lib.formats.hdf5.reader import FILTERS, OTHER_FILTERS, Hdf5Reader, Place, rows_of
from lib.formats.zarr.axes import AxisMap, array_index, axis_map, stated_names, understood
from lib.geometry import Box, LengthsZYX, ShapeZYX, to_nm, zyx
from lib.plan import SourceGrid, absent_note

_SCRIPT = Path(__file__).with_name("structure.py")
_MOST_READ = 2 * 2**30
_MOST_ANSWER = 2**30


def datasets_of(source: ByteSource, path: str) -> dict[str, Any]:
    """Datasets at and below a path, and attributes of groups; see `structure.describe`.

    Raises
    ------
    FormatError
        HDF5's library cannot read the file, or something in it leads elsewhere.
    """
    answer: dict[str, Any] = json.loads(_ask(source, "describe", path))
    return answer


def chunks_of(source: ByteSource, path: str, axes: int) -> NDArray[np.uint64]:
    """A row for each chunk that is there: index on each axis, offset, length, filter mask."""
    return np.frombuffer(_ask(source, "chunks", path), "<u8").reshape(-1, axes + 3)


def _ask(source: ByteSource, ask: str, path: str) -> bytes:
    # no plug-in of the environment is looked for, and nothing of ours is handed on
    environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    environment |= {"HDF5_PLUGIN_PATH": "", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, "-s", str(_SCRIPT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd="/",
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        question = {"size": source.size, "ask": ask, "path": path}
        process.stdin.write(json.dumps(question).encode() + b"\n")
        process.stdin.flush()
        return _serve(source, process.stdin, process.stdout)
    except (BrokenPipeError, EOFError):
        process.wait()
        raise FormatError(
            f"HDF5's library ended with code {process.returncode} over this file",
            location=source.name,
        ) from None
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def _serve(source: ByteSource, to: IO[bytes], out: IO[bytes]) -> bytes:
    """Read the ranges that are asked for until there is an answer."""
    read = 0
    while True:
        cancel.check()
        letter, length = struct.unpack("<cQ", _exactly(out, 9))
        if length > _MOST_ANSWER:
            raise FormatError("the structure of the file is too large", location=source.name)
        body = _exactly(out, length)
        if letter == b"R":
            offset, count = struct.unpack("<QQ", body)
            read += count
            if read > _MOST_READ:
                raise FormatError("the structure of the file is too large", location=source.name)
            to.write(source.read(offset, count))
            to.flush()
        elif letter == b"E":
            raise FormatError(body.decode("utf-8", "replace"), location=source.name)
        else:
            return body


def _exactly(out: IO[bytes], length: int) -> bytes:
    data = out.read(length)
    if len(data) != length:
        raise EOFError
    return data


_MAGIC = b"\x89HDF\r\n\x1a\n"
# behind a user block, of which MATLAB writes one of 512 bytes
_SIGNATURES = (0, *(512 << n for n in range(8)))
_BDV = re.compile(r"(?P<front>.*?/?t\d{5}/s\d{2})/(?P<level>\d+)/cells")
_BDV_TABLE = re.compile(r"(?:.*/)?s\d{2}/(?:resolutions|subdivisions)")
_IMARIS = re.compile(r"DataSet/ResolutionLevel (\d+)/TimePoint (\d+)/Channel (\d+)/Data")
_MOST_BYTES = 2**50


class Hdf5Format(FileFormatBase):
    """Each dataset of two to five axes; ``|hdf5:volumes/raw`` names one."""

    name: ClassVar[str] = "hdf5"
    title: ClassVar[str] = "HDF5 (CREMI, BigDataViewer, Imaris, ...)"
    suffixes: ClassVar[tuple[str, ...]] = (".h5", ".hdf5", ".hdf", ".ims", ".emd", ".nc", ".nxs")

    def fits(self, head: bytes, name: str) -> bool:
        return any(head.startswith(_MAGIC, at) for at in _SIGNATURES)

    def describe(self, source: ByteSource, path: str, options: Options) -> list[VolumeDescription]:
        answer = datasets_of(source, path)
        if not answer["found"]:
            raise NotFoundError(
                f"there is no {path!r} in the file",
                location=source.name,
                advice=f"There are: {', '.join(answer['children'])}",
            )
        groups = answer["groups"]
        if _IMARIS.fullmatch(path):  # what the groups above it say
            groups = {**datasets_of(source, "")["groups"], **groups}
        found = [one for one in answer["datasets"] if 2 <= len(one["shape"]) <= 5]
        found = [one for one in found if min(one["shape"]) > 0]
        if any(_BDV.fullmatch(one["path"]) for one in found):
            found = [one for one in found if not _BDV_TABLE.fullmatch(one["path"])]
        chosen = _one_level_each(found, options, path, source.name)
        volumes = [_described(one, levels, groups, options, source) for one, levels in chosen]
        if not volumes:
            names = ", ".join(one["path"] for one in answer["datasets"][:20]) or "nothing"
            raise NotFoundError(
                "the file holds no dataset of two to five axes here",
                location=source.name,
                advice=f"There are: {names}",
            )
        return volumes

    def survey(self, source: ByteSource, volume: VolumeDescription, box: Box) -> Survey:
        dataset, axes, chunk, places = _opened(source, volume.handle)
        wanted = cells_in(box, axes.pick_zyx(chunk))
        index = {cell: array_index(axes, cell, chunk) for cell in wanted}
        there = [places[index[cell]] for cell in wanted if index[cell] in places]
        holes = [cell for cell in wanted if index[cell] not in places]
        reader = _reader(source, volume.handle, dataset, axes, chunk, places)
        nbytes = sum(length for _, length, _ in there)
        config = reader.codec.config
        grid = SourceGrid.of_box(box, axes.pick_zyx(chunk), config, holes, "unwritten")
        return Survey(
            grid=grid,
            nbytes=nbytes,
            requests=requests_for(len(there), nbytes),
            notes=absent_note(len(holes), len(wanted), reader.fill_value),
        )

    def open(self, source: ByteSource, handle: Handle, scratch: Path | None = None) -> Hdf5Reader:
        return _reader(source, handle, *_opened(source, handle))


def _one_level_each(
    found: list[dict[str, Any]], options: Options, path: str, where: str
) -> list[tuple[dict[str, Any], tuple[str, ...]]]:
    """Datasets that are levels of one volume give one; others stand alone."""
    series: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        bdv, imaris = _BDV.fullmatch(one["path"]), _IMARIS.fullmatch(one["path"])
        key = one["path"]
        if bdv is not None:
            key = bdv["front"]
        elif imaris is not None:
            if options.time not in (None, int(imaris[2])):
                continue
            if options.channel not in (None, int(imaris[3])):
                continue
            key = f"imaris {imaris[2]} {imaris[3]}"
        series.setdefault(key, []).append(one)
    chosen: list[tuple[dict[str, Any], tuple[str, ...]]] = []
    for levels in series.values():
        if len(levels) == 1:
            chosen.append((levels[0], ()))
            continue
        levels.sort(key=lambda one: -math.prod(one["shape"]))
        names = tuple(one["path"] for one in levels)
        level = choose_level_name(names, options.level, where)
        chosen.append((levels[names.index(level)], names))
    return chosen


def _described(
    one: dict[str, Any],
    levels: tuple[str, ...],
    groups: dict[str, dict[str, Any]],
    options: Options,
    source: ByteSource,
) -> VolumeDescription:
    path, shape = one["path"], tuple(one["shape"])
    handle: dict[str, Any] = {"path": path}
    if one["refused"] is not None:
        return VolumeDescription(path, handle, (0, 0, 0), "uint8", refused=one["refused"])
    notes: list[str] = []
    try:
        names = _names(one, notes)
        axes = axis_map(names, shape, source.name, channel=options.channel, time=options.time)
        stored = np.dtype(one["dtype"])
        mask = stored.kind == "b"
        stored = np.dtype(np.uint8) if mask else stored
        handle |= _handle(one, axes, stored)
    except MacroscopeError as error:
        why = f"{error.message}. {error.advice}".rstrip(". ")
        return VolumeDescription(path, handle, (0, 0, 0), "uint8", refused=why)
    size = axes.pick_zyx(shape)
    voxel, origin = _geometry(one["attributes"], path, notes)
    if voxel == VoxelSize():
        voxel, origin = _of_coordinates(one["coordinates"], axes) or (voxel, origin)
    corner = None
    dtype = delivered_dtype(stored)
    if dtype.itemsize != stored.itemsize:
        notes.append(WIDENED)
    if "MATLAB_class" in one["attributes"]:
        notes.append(
            "MATLAB writes rows, columns, planes in reverse, as planes, columns, rows: its rows "
            "lie along x here, its columns along y"
        )
    if _BDV.fullmatch(path) and dtype == np.int16:
        dtype = np.dtype(np.uint16)
        handle["view"] = "uint16"
        notes.append("BigDataViewer stores uint16 voxels as int16: they are read as uint16")
    if _IMARIS.fullmatch(path):
        size, voxel, origin, corner = _imaris(one, groups, size, notes)
        handle["size_zyx"] = [*size]
    return VolumeDescription(
        path=path,
        handle=handle,
        shape_zyx=size,
        dtype=dtype.name,
        voxel=voxel,
        origin_nm_zyx=origin,
        corner_nm_zyx=corner,
        kind="labels" if mask else None,
        kind_evidence="data type bool" if mask else None,
        level=path if levels else None,
        levels=levels,
        chunk_zyx=axes.pick_zyx(tuple(one["chunks"])) if one["chunks"] else None,
        notes=tuple(notes),
    )


def _handle(one: dict[str, Any], axes: AxisMap, stored: np.dtype[Any]) -> dict[str, Any]:
    """What opening a dataset needs.

    Raises
    ------
    UnsupportedFormatError
        It has a filter that is not read.
    FormatError
        It has an impossible size.
    """
    unknown = [code for code, _ in one["filters"] if code not in FILTERS]
    if unknown:
        name = OTHER_FILTERS.get(unknown[0], "unknown here")
        raise UnsupportedFormatError(
            f"its chunks went through filter {unknown[0]} ({name}), which is not read",
            advice="Write it with another: h5repack -f GZIP=1 OLD NEW",
        )
    if math.prod(one["shape"]) * stored.itemsize > _MOST_BYTES:
        raise FormatError(f"it says that it has {one['shape']} voxels")
    return {
        "shape": one["shape"],
        "dtype": stored.str,
        "chunks": one["chunks"],
        "offset": one["offset"],
        "filters": one["filters"],
        "fill": int(one["fill"]) if isinstance(one["fill"], bool) else one["fill"],
        **axes.in_handle,
    }


def _names(one: dict[str, Any], notes: list[str]) -> list[str] | None:
    """Names of the axes, where they are of those that are known; others are told."""
    names = stated_names(one["names"] or [row and row[0] for row in one["coordinates"]])
    if names is None or len(names) != len(one["shape"]):
        return None
    return understood(names, notes)


def _geometry(
    attributes: dict[str, Any], path: str, notes: list[str]
) -> tuple[VoxelSize, LengthsZYX | None]:
    """CREMI: ``resolution`` and ``offset`` are z, y, x in nm. Fiji and ilastik: in µm.

    What is there and cannot be taken is told.
    """
    micrometres = _three(attributes.get("element_size_um"))
    if micrometres is not None and min(micrometres) > 0:
        z, y, x = (float(to_nm(n, "um") or 0) for n in micrometres)
        return VoxelSize(z, y, x, "element_size_um"), None
    key = "resolution" if "resolution" in attributes else "voxel_size"
    resolution = _three(attributes.get(key))
    if resolution is None or min(resolution) <= 0:
        there = [name for name in ("element_size_um", key, "offset") if name in attributes]
        notes += [
            f"the attribute {name} says {str(attributes[name])[:80]}, without three positive "
            "lengths: not taken"
            for name in there
        ]
        return VoxelSize(), None
    offset = _three(attributes.get("offset")) or (0.0, 0.0, 0.0)
    units = attributes.get("units", attributes.get("unit"))
    units = units if isinstance(units, list) else [units] * 3
    if len(units) == 3 and all(isinstance(unit, str) and to_nm(1.0, unit) for unit in units):
        per = [float(to_nm(1.0, unit) or 0) for unit in units]
        size = zyx(n * nm for n, nm in zip(resolution, per, strict=True))
        place = zyx(n * nm for n, nm in zip(offset, per, strict=True))
        return VoxelSize(*size, f"{key}, units"), place
    if not path.startswith("volumes/"):
        notes.append(f"the attribute {key} says {resolution} without a unit: not taken")
        return VoxelSize(), None
    return VoxelSize(*resolution, f"{key} (CREMI: z, y, x in nm)"), offset


def _of_coordinates(
    rows: list[list[Any] | None], axes: AxisMap
) -> tuple[VoxelSize, LengthsZYX | None] | None:
    """Voxel size and place by the coordinates of the axes, where their unit is a length."""
    found = [None if dim is None else rows[dim] for dim in axes.dims_zyx]
    lengths = [row and to_nm(row[2], row[3]) for row in found]
    if not any(lengths):
        return None
    places = zyx(
        float(f"{to_nm(row[1], row[3]) or 0.0:.7g}") if row and length else 0.0
        for row, length in zip(found, lengths, strict=True)
    )
    z, y, x = (float(f"{length:.7g}") if length else None for length in lengths)
    return VoxelSize(z, y, x, "coordinates of the axes"), places


def _three(value: Any) -> LengthsZYX | None:
    if not isinstance(value, list) or len(value) != 3:
        return None
    if not all(isinstance(n, int | float) and math.isfinite(n) for n in value):
        return None
    return (float(value[0]), float(value[1]), float(value[2]))


def _imaris(
    one: dict[str, Any], groups: dict[str, dict[str, Any]], size: ShapeZYX, notes: list[str]
) -> tuple[ShapeZYX, VoxelSize, LengthsZYX | None, LengthsZYX | None]:
    """The true size of a level, of which the dataset is padded to whole chunks; its voxels.

    Extents are the outer edges of voxels. The origin is the centre of the first voxel less half a
    voxel of the finest level, as for precomputed: levels lie on one grid, which begins at the edge;
    last comes that half voxel.
    """
    channel = groups.get(one["path"].rpartition("/")[0], {})
    image = groups.get("DataSetInfo/Image", {})
    try:
        real = [int(str(channel[f"ImageSize{axis}"])) for axis in "ZYX"]
        if any(not 0 < n <= stored for n, stored in zip(real, size, strict=True)):
            raise ValueError(f"{real}")
    except (KeyError, ValueError) as error:
        raise FormatError(f"Imaris does not say the true size of {one['path']}: {error}") from None
    true: ShapeZYX = (real[0], real[1], real[2])
    if true != size:
        notes.append(f"stored as {size}, padded to whole chunks; {true} voxels (z, y, x) are real")
    try:
        nm = float(to_nm(1.0, str(image.get("Unit", "um"))) or 0)
        starts = [float(image[f"ExtMin{axis}"]) * nm for axis in (2, 1, 0)]
        stops = [float(image[f"ExtMax{axis}"]) * nm for axis in (2, 1, 0)]
        # where the image does not say it, level 0 does: else a coarser level began at the edge
        above = re.sub(r"ResolutionLevel [0-9]+", "ResolutionLevel 0", one["path"])
        first = groups.get(above.rpartition("/")[0], {})
        finest = [
            int(str(image.get(axis, first.get(f"ImageSize{axis}", n))))
            for axis, n in zip("ZYX", true, strict=True)
        ]
        rows = [*zip(starts, stops, true, finest, strict=True)]
        lengths = [(stop - start) / n for start, stop, n, _ in rows]
        origin = [s + (e - s) * (1 / n - 1 / whole) / 2 for s, e, n, whole in rows]
    except (KeyError, ValueError, TypeError, ZeroDivisionError):
        return true, VoxelSize(), None, None
    if any(not n > 0 for n in lengths):
        return true, VoxelSize(), None, None
    # the differences of extents have few digits that mean something
    z, y, x = (float(f"{n:.9g}") for n in lengths)
    at, half = (
        zyx(float(f"{n:.9g}") for n in given)
        for given in (origin, ((e - s) / whole / 2 for s, e, _, whole in rows))
    )
    return true, VoxelSize(z, y, x, "Imaris ExtMin, ExtMax"), at, half


_Opened = tuple[np.dtype[Any], AxisMap, tuple[int, ...], dict[tuple[int, ...], Place]]


def _opened(source: ByteSource, handle: dict[str, Any]) -> _Opened:
    shape, stored = tuple(handle["shape"]), np.dtype(handle["dtype"])
    axes = AxisMap.of_handle(handle)
    if handle["chunks"] is None:
        if handle["offset"] is None:
            chunk: tuple[int, ...] = (*(1 for _ in shape[:-2]), *shape[-2:])
            return stored, axes, chunk, {}  # declared, and never written
        return stored, axes, *rows_of(handle["offset"], shape, stored)
    table = chunks_of(source, handle["path"], len(shape)).tolist()
    places = {tuple(row[:-3]): (row[-3], row[-2], row[-1]) for row in table}
    return stored, axes, tuple(handle["chunks"]), places


def _reader(
    source: ByteSource,
    handle: dict[str, Any],
    stored: np.dtype[Any],
    axes: AxisMap,
    chunk: tuple[int, ...],
    places: dict[tuple[int, ...], Place],
) -> Hdf5Reader:
    if "view" in handle:
        stored = np.dtype(handle["view"]).newbyteorder(stored.byteorder)
    size = handle.get("size_zyx")
    return Hdf5Reader(
        source,
        tuple(handle["shape"]),
        chunk,
        stored,
        axes,
        filters=[(code, values) for code, values in handle["filters"]],
        places=places,
        fill_value=float("nan") if handle["fill"] == "NaN" else handle["fill"],
        size_zyx=None if size is None else (size[0], size[1], size[2]),
    )
