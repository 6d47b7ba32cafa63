"""`macroscope.open`: a finished volume as zarr arrays with axes, units and lazy Dask views.

Jupyter shows a volume by its preview, and the facts beside it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any

from lib.errors import (
    IntegrityError,
    MacroscopeError,
    NotFoundError,
    NothingThereError,
    UnsupportedFormatError,
)
from macroscope._settings import Address, load

if TYPE_CHECKING:
    import numpy as np

    from lib.geometry import ShapeZYX
    from lib.present.described import DescribedLevel, DescribedVolume
    from lib.storage.base import Store
    from lib.storage.keys import Contents


AXES = ("z", "y", "x")


@dataclass(frozen=True, slots=True)
class OpenLevel:
    """One scale level.

    Attributes
    ----------
    name
        ``0`` is the finest.
    array
        A `zarr.Array`, which reads what is indexed; of an ``.npy`` a `numpy.memmap`.
    scale_nm, translation_nm
        By axis: the size of a voxel, and the centre of the first one, in nm. Axes of which nobody
        states a length are left out.
    """

    name: str
    array: Any
    scale_nm: Mapping[str, float]
    translation_nm: Mapping[str, float]

    @property
    def shape(self) -> ShapeZYX:
        """Voxels, z, y, x."""
        z, y, x = self.array.shape
        return (z, y, x)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a voxel."""
        found: np.dtype[Any] = self.array.dtype
        return found

    def __getitem__(self, part: Any) -> Any:
        """Voxels as a numpy array: ``level[10:20, ::2]``."""
        return self.array[part]

    def dask(self, chunks: Any = None) -> Any:
        """A lazy `dask.array.Array`.

        Parameters
        ----------
        chunks
            As Dask takes them; by default one Dask chunk for each shard, which is one object of the
            store.
        """
        import dask.array

        whole: Callable[..., Any] = dask.array.from_array
        if chunks is None:
            chunks = getattr(self.array, "shards", None) or getattr(self.array, "chunks", "auto")
        return whole(self.array, chunks=chunks, inline_array=True)

    def __repr__(self) -> str:
        voxel = ", ".join(f"{axis} {size:g}" for axis, size in self.scale_nm.items())
        return f"<level {self.name}: {self.shape} {self.dtype}, voxel {voxel or 'unknown'} nm>"


@dataclass(frozen=True, slots=True)
class OpenVolume:
    """A finished volume.

    Attributes
    ----------
    name, kind
        Its name in the store; ``image`` or ``labels``.
    address
        Where it lies: a folder, an ``s3://`` address, or an ``.npy`` file.
    axes, unit
        ``("z", "y", "x")``, and ``nanometer``.
    levels
        From the finest to the coarsest.
    record
        Its metadata record; None where there is none beside it, so that nothing vouches for it.
    """

    name: str
    kind: str
    address: str
    levels: tuple[OpenLevel, ...]
    record: Mapping[str, Any] | None
    axes: tuple[str, str, str] = AXES
    unit: str = "nanometer"
    _store: Store = field(repr=False, kw_only=True)
    _key: str = field(repr=False, kw_only=True)

    @property
    def shape(self) -> ShapeZYX:
        """Voxels of the finest level, z, y, x."""
        return self.levels[0].shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a voxel."""
        return self.levels[0].dtype

    @property
    def voxel_size_nm(self) -> Mapping[str, float]:
        """Of the finest level, by axis; without those of which nobody states a length."""
        return self.levels[0].scale_nm

    @property
    def labels(self) -> Mapping[str, OpenVolume]:
        """The label images inside it that are finished, by name; each with its own record."""
        from lib.present.described import labels_inside

        if not self._key.endswith(".ome.zarr"):
            return {}
        found = [_opened(self._store, one.key) for one in labels_inside(self._store, self._key)]
        return {one.name: one for one in found}

    def dask(self, level: int = 0) -> Any:
        """A level as a lazy `dask.array.Array`; see `OpenLevel.dask`."""
        return self.levels[level].dask()

    def __repr__(self) -> str:
        levels = f"{len(self.levels)} level{'s' * (len(self.levels) != 1)}"
        return f"<{self.kind} {self.name}: {self.shape} {self.dtype}, {levels}, {self.address}>"

    def _repr_html_(self) -> str:
        return volume_html(self, self._store, self._key)


def open(place: Address, *, data_dir: Address | None = None) -> OpenVolume:
    """Open a finished volume for reading.

    Parameters
    ----------
    place
        Its name in the store (``EMPIAR-11759``, ``ebi/EMPIAR-11759``), or where it, or its record,
        lies: ``data/ebi/EMPIAR-11759.ome.zarr``, ``s3://bucket/em/ebi/metadata_EMPIAR-11759.json``.
        The ``s3://`` address of a store is that of its volume, where it holds a single one.
    data_dir
        Folder or ``s3://bucket/prefix`` in which names are looked up; that of the settings by
        default.

    Raises
    ------
    NotFoundError
        There is no such volume, or several have that name; the error lists what there is.
    IntegrityError
        It is not complete, or its documents are damaged.
    ConfigError
        The address is no store's: a bucket's name may have 3 to 63 small letters, digits and marks.
    AccessDeniedError, DestinationError, TransportError
        The store cannot be read.

    Examples
    --------
    >>> import macroscope
    >>> volume = macroscope.open("em")
    >>> volume  # doctest: +ELLIPSIS
    <image em: (24, 48, 64) uint8, 1 level, ...data/address/em.ome.zarr>
    >>> volume.voxel_size_nm, volume.unit
    ({'z': 30.0, 'y': 8.0, 'x': 8.0}, 'nanometer')
    >>> volume.levels[0][12, :2, :2].shape
    (2, 2)
    >>> volume.dask()[12].mean().compute().dtype
    dtype('float64')
    """
    from flows.credentials import store_settings
    from lib.storage.keys import VOLUME_SUFFIXES, image_of
    from lib.storage.open import is_remote, open_store

    loaded = load(data_dir=data_dir)
    access = store_settings(loaded)
    given = os.path.expanduser(os.fspath(place))
    text = given.rstrip("/")
    folder, _, _ = (image_of(text) or text).rpartition("/")
    last = text.removeprefix(folder).lstrip("/")
    is_volume = last.endswith(VOLUME_SUFFIXES)
    is_record = last.startswith("metadata_") and last.endswith(".json")
    if (is_volume or is_record) and (is_remote(text) or os.path.exists(text)):
        store = open_store(folder or ("/" if text.startswith("/") else "."), access)
        return _opened(store, _volume_of(store, last) if is_record else last)
    if is_remote(given):
        store = open_store(given, access)
        return _opened(store, _only(store))
    store = open_store(loaded.settings.data_dir, access)
    return _opened(store, _named(store, text))


def _only(store: Store) -> str:
    """The key of the one volume of a store."""
    _, there = _there(store)
    if len(there) == 1:
        return there[0]
    raise NotFoundError(
        f"there are {len(there)} volumes at this address",
        location=store.uri,
        advice=f"Name one of them: {_some(there)}",
    )


def _there(store: Store) -> tuple[Contents, list[str]]:
    """What a store holds, and the keys of its volumes, of which there is one at least."""
    from lib.storage.keys import VOLUME_SUFFIXES, contents, why_nothing

    found = contents(store)
    there = [key for key in found.volumes if key.endswith(VOLUME_SUFFIXES)]
    if not there:
        raise NothingThereError(
            f"there is nothing to open: {why_nothing(store, found)}", location=store.uri
        )
    return found, there


def _some(keys: Sequence[str]) -> str:
    return f"{', '.join(keys[:20])}{', ...' * (len(keys) > 20)}"


def _named(store: Store, name: str) -> str:
    """The key of the one volume that a name means."""
    found, there = _there(store)
    meant = [key for key in there if name in _names(key)] or _labels_named(store, found, name)
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise NotFoundError(
            f"several volumes are called {name!r}",
            location=store.uri,
            advice=f"Name one of them: {_some(meant)}",
        )
    raise NotFoundError(
        f"there is no volume {name!r}",
        location=store.uri,
        advice=f"There are: {_some(there)}",
    )


def _names(key: str) -> tuple[str, ...]:
    from lib.storage.keys import VOLUME_SUFFIXES

    bare = next(key.removesuffix(end) for end in VOLUME_SUFFIXES if key.endswith(end))
    return key, bare, bare.rpartition("/")[2], key.rpartition("/")[2]


def _volume_of(store: Store, record_key: str) -> str:
    """The volume that lies beside a record, or inside one that does."""
    from lib.records.lifecycle import read_json
    from lib.storage.keys import record_of

    volume = (read_json(store, record_key).get("files") or {}).get("volume")
    if not isinstance(volume, str):
        raise IntegrityError("the record names no volume", location=f"{store.uri}/{record_key}")
    return volume.removeprefix(record_of(volume).rpartition("/")[0]).lstrip("/")


def _labels_named(store: Store, found: Contents, name: str) -> list[str]:
    """Labels lie inside their image, where no listing of folders looks; their records do not."""
    from lib.storage.keys import record_of

    wanted, meant = record_of(f"{name}.ome.zarr"), []
    for one in found.records:
        folder, _, last = one.key.rpartition("/")
        if wanted in (one.key, last):
            key = f"{folder}/{_volume_of(store, one.key)}".lstrip("/")
            if store.size(f"{key}/zarr.json") is not None:
                meant.append(key)
    return meant


def _opened(store: Store, key: str) -> OpenVolume:
    from lib.present.described import describe
    from lib.records.model import Record

    record = _record(store, key)
    described = describe(store, key)
    assumed = "" if record is None else Record.read(record).assumed_axes
    levels = _zarr_levels(store, described) if described.levels else (_npy(store, described),)
    if assumed:
        known = {axis for axis in AXES if axis not in assumed}
        levels = tuple(
            replace(
                one,
                scale_nm=_stated(known, one.scale_nm),
                translation_nm=_stated(known, one.translation_nm),
            )
            for one in levels
        )
    return OpenVolume(
        described.name,
        described.kind,
        f"{store.uri}/{key}",
        levels,
        record,
        _store=store,
        _key=key,
    )


def _stated(known: Collection[str], lengths: Mapping[str, float]) -> dict[str, float]:
    return {axis: length for axis, length in lengths.items() if axis in known}


def _record(store: Store, key: str) -> Mapping[str, Any] | None:
    """The record beside a volume, which must call it complete; labels may share their image's."""
    from lib.records.lifecycle import record_for

    record = record_for(store, key)
    if record is None:
        return None
    if record.get("status") != "complete":
        raise IntegrityError(
            f"the volume is not complete: its record says {record.get('status')}",
            location=f"{store.uri}/{key}",
            advice="Run again: finished work is kept",
        )
    return record


def _zarr_levels(store: Store, described: DescribedVolume) -> tuple[OpenLevel, ...]:
    import zarr

    from lib.storage.as_zarr import ReadOnlyZarrStore

    group = zarr.open_group(ReadOnlyZarrStore(store, described.key), mode="r", zarr_format=3)
    return tuple(_level(group[str(level.index)], level) for level in described.levels)


def _level(array: Any, level: DescribedLevel) -> OpenLevel:
    return OpenLevel(
        str(level.index),
        array,
        dict(zip(AXES, level.scale_nm_zyx, strict=True)),
        dict(zip(AXES, level.translation_nm_zyx, strict=True)),
    )


def _npy(store: Store, described: DescribedVolume) -> OpenLevel:
    import numpy as np

    path = store.local_path(described.key)
    if path is None:
        raise UnsupportedFormatError(
            "a .npy in a bucket has no parts that could be read by themselves",
            location=f"{store.uri}/{described.key}",
            advice="Copy it to a folder, or make the volume again with output_format zarr",
        )
    voxel = described.voxel_nm_zyx
    scale = {} if voxel is None else dict(zip(AXES, voxel, strict=True))
    return OpenLevel("0", np.load(path, mmap_mode="r"), scale, {})


_WIDTH = 720


def volume_html(volume: OpenVolume, store: Store, key: str) -> str:
    """A fragment of HTML; every text of an archive is escaped."""

    core = ((volume.record or {}).get("metadata") or {}).get("core") or {}
    rows = [
        ("shape z, y, x", " × ".join(map(str, volume.shape))),
        ("dtype", volume.dtype.name),
        ("voxel nm", ", ".join(f"{a} {v:g}" for a, v in volume.voxel_size_nm.items())),
        ("levels", str(len(volume.levels))),
        ("licence", core.get("licence")),
        ("cite", core.get("citation") or core.get("doi")),
        ("at", volume.address),
    ]
    cells = "".join(
        f"<tr><th style='text-align:left'>{name}</th>"
        f"<td style='text-align:left'>{escape(str(value))}</td></tr>"
        for name, value in rows
        if value
    )
    title = escape(str(core.get("title") or volume.name))
    return f"<div><strong>{title}</strong><br>{_picture(store, key)}<table>{cells}</table></div>"


def _picture(store: Store, key: str) -> str:
    from lib.present.formatting import picture_data_uri
    from lib.present.preview import preview_key

    try:
        found = picture_data_uri(store.get(preview_key(key)), _WIDTH)
    except MacroscopeError:
        return ""
    if found is None:
        return ""
    address, (width, height) = found
    return f"<img src='{address}' width='{width}' height='{height}' alt='three middle planes'>"
