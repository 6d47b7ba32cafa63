"""What a finished volume says of itself: its levels, scales, axes and display window.

Everything is found from the stored documents (the ``zarr.json`` of an OME-Zarr 0.5, the header of a
``.npy`` and the record beside it), so pictures and viewer work for any volume in a store.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from lib.errors import IntegrityError, NotFoundError, UnsupportedFormatError
from lib.geometry import LengthsZYX, ShapeZYX, to_nm, zyx
from lib.records.model import Record
from lib.storage.base import Store
from lib.storage.keys import record_of
from lib.vocabulary import Kind
from lib.volumes.grid import ShardGrid
from lib.volumes.job import numcodecs_config
from lib.volumes.shardfile import StoredLevel

ZARR, NPY = ".ome.zarr", ".npy"
_NPY_HEADER = 4096  # numpy writes 128 bytes for a plain dtype


@dataclass(frozen=True, slots=True)
class DescribedLevel:
    """One level of a stored OME-Zarr."""

    index: int
    grid: ShardGrid
    scale_nm_zyx: LengthsZYX
    translation_nm_zyx: LengthsZYX
    codec: dict[str, Any]
    fill_value: int | float


@dataclass(frozen=True, slots=True)
class DescribedVolume:
    """A finished volume as its own documents describe it.

    ``voxel_nm_zyx`` is None where nothing says it (a ``.npy`` without a record). ``levels`` is
    empty for ``.npy``. ``window`` is the stored display window (low, high); labels and ``.npy``
    have none.
    """

    key: str
    kind: Kind
    dtype: np.dtype[Any]
    shape_zyx: ShapeZYX
    voxel_nm_zyx: LengthsZYX | None
    levels: tuple[DescribedLevel, ...] = ()
    window: tuple[float, float] | None = None
    npy_offset: int = 0

    @property
    def name(self) -> str:
        """File stem, for example ``EMPIAR-11759``."""
        return volume_name(self.key)

    def open_level(self, store: Store, level: DescribedLevel) -> StoredLevel:
        """A reader of the voxels of one level."""
        return StoredLevel(
            store, self.key, level.index, level.grid, self.dtype, level.codec, level.fill_value
        )


def volume_name(key: str) -> str:
    """``ebi/EMPIAR-11759.ome.zarr`` -> ``EMPIAR-11759``."""
    return key.rpartition("/")[2].removesuffix(ZARR).removesuffix(NPY)


def beside(key: str, suffix: str) -> str:
    """The key of something that belongs to a volume: ``ebi/a.npy`` -> ``ebi/a<suffix>``."""
    folder = key.rpartition("/")[0]
    return f"{folder}/{volume_name(key)}{suffix}" if folder else volume_name(key) + suffix


def describe(store: Store, key: str) -> DescribedVolume:
    """Read the documents of a finished volume, one request where they are consolidated.

    Raises
    ------
    NotFoundError
        There is no such volume in the store.
    IntegrityError
        Its documents are damaged.
    UnsupportedFormatError
        It is not a volume of the kind that macroscope writes.
    """
    if key.endswith(NPY):
        return _describe_npy(store, key)
    if not key.endswith(ZARR):
        raise UnsupportedFormatError(
            f"{key} is neither {ZARR} nor {NPY}",
            location=key,
            advice="Name a volume as the catalogue does, for example ebi/EMPIAR-11759.ome.zarr",
        )
    return describe_group(store, key, read_document(store, f"{key}/zarr.json"))


def describe_group(store: Store, key: str, group: dict[str, Any]) -> DescribedVolume:
    """The same of an OME-Zarr whose root document is at hand, and perhaps not stored yet.

    Raises
    ------
    IntegrityError, UnsupportedFormatError
        As `describe`.
    """
    try:
        return _describe_zarr(store, key, group)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise IntegrityError(
            f"the volume's zarr.json is not as an OME-Zarr 0.5 should be ({error!r})",
            location=key,
        ) from error


def labels_inside(store: Store, key: str) -> list[DescribedVolume]:
    """The label images of an OME-Zarr, which its group ``labels`` lists (NGFF 0.5).

    Raises
    ------
    IntegrityError, UnsupportedFormatError
        A document is damaged, or not of the kind that macroscope writes.
    """
    try:
        group = read_document(store, f"{key}/labels/zarr.json")
    except NotFoundError:
        return []
    ome = (group.get("attributes") or {}).get("ome")
    names = ome.get("labels") if isinstance(ome, dict) else None
    found = []
    for root in (f"{key}/labels/{name}" for name in names or ()):
        with suppress(NotFoundError):  # listed already, and not finished yet
            found.append(describe_group(store, root, read_document(store, f"{root}/zarr.json")))
    return found


def _describe_zarr(store: Store, key: str, group: dict[str, Any]) -> DescribedVolume:
    ome = group["attributes"]["ome"]
    multiscale = ome["multiscales"][0]
    axes = multiscale["axes"]
    if [axis["name"] for axis in axes] != ["z", "y", "x"]:
        raise UnsupportedFormatError("the axes are not z, y, x", location=key, advice="")
    units = [_nanometres(axis.get("unit"), key) for axis in axes]
    inline = (group.get("consolidated_metadata") or {}).get("metadata", {})
    levels, dtype = [], np.dtype("uint8")
    for dataset in multiscale["datasets"]:
        path = dataset["path"]
        array = inline.get(path) or read_document(store, f"{key}/{path}/zarr.json")
        dtype = np.dtype(array["data_type"])
        levels.append(_level(int(path), array, dataset["coordinateTransformations"], units))
    windows = [channel["window"] for channel in ome.get("omero", {}).get("channels", [])]
    return DescribedVolume(
        key=key,
        kind="labels" if "image-label" in ome else "image",
        dtype=dtype,
        shape_zyx=levels[0].grid.shape_zyx,
        voxel_nm_zyx=levels[0].scale_nm_zyx,
        levels=tuple(levels),
        window=(float(windows[0]["start"]), float(windows[0]["end"])) if windows else None,
    )


def _level(
    index: int, array: dict[str, Any], transforms: list[dict[str, Any]], units: list[float]
) -> DescribedLevel:
    given = {entry["type"]: entry[entry["type"]] for entry in transforms}
    sharding = array["codecs"][0]["configuration"]
    fill = array["fill_value"]
    return DescribedLevel(
        index=index,
        grid=grid_of(array),
        scale_nm_zyx=_lengths(given["scale"], units),
        translation_nm_zyx=_lengths(given.get("translation", (0, 0, 0)), units),
        codec=numcodecs_config(sharding["codecs"]),
        fill_value=float(fill) if isinstance(fill, str) else fill,
    )


def _describe_npy(store: Store, key: str) -> DescribedVolume:
    size = store.size(key)
    if size is None:
        raise NotFoundError("there is no such volume in the store", location=key)
    header = io.BytesIO(store.get_range(key, 0, min(size, _NPY_HEADER)))
    try:
        version = np.lib.format.read_magic(header)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(header)
        shape_zyx = zyx(map(int, shape))
    except ValueError as error:
        raise IntegrityError(f"the npy header cannot be read: {error}", location=key) from error
    if fortran:
        raise UnsupportedFormatError("the array is in Fortran order", location=key, advice="")
    record = Record.read(_record(store, key))
    return DescribedVolume(
        key=key,
        kind=record.kind,
        dtype=dtype,
        shape_zyx=shape_zyx,
        voxel_nm_zyx=record.voxel_nm_zyx,
        npy_offset=header.tell(),
    )


def _record(store: Store, key: str) -> dict[str, Any]:
    try:
        return read_document(store, record_of(key))
    except (NotFoundError, IntegrityError):
        return {}


def read_document(store: Store, key: str) -> dict[str, Any]:
    """A JSON object of a volume.

    Raises
    ------
    NotFoundError
        It is absent.
    IntegrityError
        It is no JSON object.
    """
    data = store.get(key)
    try:
        document = json.loads(data)
    except ValueError as error:
        raise IntegrityError(f"a document is not JSON: {error}", location=key) from None
    if not isinstance(document, dict):
        raise IntegrityError("a document is no JSON object", location=key)
    return document


def grid_of(array: Mapping[str, Any]) -> ShardGrid:
    """The grid that a sharded array's ``zarr.json`` describes.

    Raises
    ------
    KeyError, TypeError, IndexError, ValueError, ConfigError
        It describes none.
    """
    sharding = array["codecs"][0]
    if sharding["name"] != "sharding_indexed":
        raise ValueError("not sharded")
    return ShardGrid(
        zyx(map(int, array["shape"])),
        zyx(map(int, sharding["configuration"]["chunk_shape"])),
        zyx(map(int, array["chunk_grid"]["configuration"]["chunk_shape"])),
    )


def _nanometres(unit: str | None, key: str) -> float:
    if unit is None:  # nobody states a length, see `lib.volumes.ome`
        return 1.0
    factor = to_nm(1.0, unit)
    if factor is None:
        raise UnsupportedFormatError(f"an axis has the unit {unit!r}", location=key, advice="")
    return factor


def _lengths(values: Any, units: list[float]) -> LengthsZYX:
    return zyx(float(v) * u for v, u in zip(values, units, strict=True))
