"""What only the source can give: raw files, the finest level, an npy.

The job of a finished volume is found again from its record and one of its documents.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib.errors import IntegrityError, NotFoundError
from lib.geometry import LengthsZYX, ShapeZYX, zyx
from lib.ingest import stages
from lib.ingest.context import VolumeRequest, close_context, volume_context
from lib.plan import EARLIER_POOLING, About, LabelPooling, VolumePlan
from lib.present.described import read_document
from lib.rawfiles.sidecar import note_key
from lib.storage.base import Store, StoreSettings
from lib.storage.digests import put_file
from lib.storage.keys import image_of
from lib.storage.local import LocalStore
from lib.verify.beside import raw_files
from lib.verify.voxels import histogram_of
from lib.volumes.job import VolumeJob, numcodecs_config
from lib.volumes.ledger import Ledger
from lib.volumes.statistics import Statistics

Origin = str
"""What a file was made anew from: ``source``, ``finer level``, ``record`` or ``volume``."""


class PatchedStore:
    """Reads a store with some of its files replaced by files of this machine; writes nothing.

    Attributes
    ----------
    anew
        Key -> the file that replaces it.
    origins
        Key -> what it was made from.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.uri = store.uri
        self.anew: dict[str, Path] = {}
        self.origins: dict[str, Origin] = {}

    def add(self, key: str, path: Path, origin: Origin) -> None:
        """Let a file stand for a key."""
        self.anew[key], self.origins[key] = path, origin

    def get(self, key: str) -> bytes:
        """See `lib.storage.base.Store.get`."""
        path = self.anew.get(key)
        return self._store.get(key) if path is None else path.read_bytes()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See `lib.storage.base.Store.get_range`."""
        path = self.anew.get(key)
        if path is None:
            return self._store.get_range(key, start, length)
        with path.open("rb") as file:
            file.seek(start)
            return file.read(length)

    def size(self, key: str) -> int | None:
        """See `lib.storage.base.Store.size`."""
        path = self.anew.get(key)
        return self._store.size(key) if path is None else path.stat().st_size

    def local_path(self, key: str) -> str | None:
        """See `lib.storage.base.Store.local_path`."""
        path = self.anew.get(key)
        return self._store.local_path(key) if path is None else str(path)

    def publish(self) -> None:
        """Put every replacing file into the store, each whole or not at all, and durably.

        Raises
        ------
        DestinationError, DestinationBusyError
        """
        for key, path in sorted(self.anew.items()):
            put_file(self._store, key, path)
        self._store.persist(*self.anew)


_COPY_BYTES = 8 * 2**20


class SecondMaking:
    """The volume's own pipeline, with a folder of this machine as its destination.

    What it makes is proven by whoever asked for it; the real store is only read.

    Parameters
    ----------
    request
        As it would make the volume in its store.
    record
        Of the finished volume.
    store
        Where the volume lies; its raw files that are whole are used, not fetched.
    folder
        Empty, with room for what is to be made.
    """

    def __init__(
        self, request: VolumeRequest, record: dict[str, Any], store: Store, folder: Path
    ) -> None:
        config = request.config.model_copy(update={"keep_raw": bool(record["files"].get("raw"))})
        self._record, self._store = record, store
        self._here = LocalStore(folder, durable=False)
        self._request = replace(
            request,
            config=config,
            data_uri=str(folder),
            store_settings=StoreSettings(durable=False),
        )

    def make(
        self, shard_indices: Iterable[ShapeZYX], raw: Collection[str], patched: PatchedStore
    ) -> VolumeJob:
        """Make shards of level 0 (of an npy, all of it) and bring raw files.

        Parameters
        ----------
        shard_indices
            Shards, of which each also gives those of the levels made with it.
        raw
            Keys of raw files that are absent or damaged.
        patched
            Gets everything that was made.

        Raises
        ------
        IntegrityError
            Settings or source make another volume.
        SourceChangedError, TransportError, ...
            As any run.
        """
        self._take_whole_raw_files(set(raw))
        if (image := self._request.plan.within) is not None:
            self._here.put(f"{image}/zarr.json", b"")  # labels ask whether their image was made
        try:
            job = stages.fetch(self._request)
            self._require_same(job)
            if shard_indices := list(shard_indices):
                self._convert(job, shard_indices, patched)
            if raw:
                self._settle(raw, patched)
            return job
        finally:
            close_context(self._request)

    def _require_same(self, job: VolumeJob) -> None:
        stated = self._record.get("additional_metadata", {}).get("fingerprint")
        if stated not in (None, job.fingerprint):
            raise IntegrityError(
                "today's settings or the source's layout make another volume than the one that is "
                "there",
                location=self._record["files"]["volume"],
                advice="Run again to make the volume anew",
            )

    def _convert(
        self, job: VolumeJob, shard_indices: list[ShapeZYX], patched: PatchedStore
    ) -> None:
        npy = job.output_format == "npy"
        todo = list(job.grid.shards()) if npy else shard_indices
        workers = self._request.config.max_workers
        stages.convert_batch(self._request, job, todo, shards_at_once=workers)
        root = self._here.staging_key(job.final_key)
        volume = self._record["files"]["volume"]
        if npy:
            patched.add(volume, Path(self._here.local_path(root) or ""), "source")
            return
        for entry in Ledger(self._here, job).entries(0).values():
            for file in entry.files:
                path = Path(self._here.local_path(f"{root}/{file.key}") or "")
                patched.add(f"{volume}/{file.key}", path, "source")

    def _settle(self, raw: Collection[str], patched: PatchedStore) -> None:
        """Complete the raw files, after a last look at the source."""
        context = volume_context(self._request)
        for fetched in context.archive.verify_source_unchanged(
            self._request.plan, self._request.config, context.session, context.raw
        ):
            key = context.raw.key_of(fetched)
            if key is not None and key in raw:
                patched.add(key, fetched.path, "source")
                patched.add(
                    note_key(key), Path(self._here.local_path(note_key(key)) or ""), "source"
                )

    def _take_whole_raw_files(self, damaged: set[str]) -> None:
        """Kept raw files stand where a run that goes on would find them."""
        for key in raw_files(self._record):
            if key in damaged:
                continue
            for one in (key, note_key(key)):
                path = Path(self._here.local_path(one) or "")
                path.parent.mkdir(parents=True, exist_ok=True)
                with suppress(NotFoundError):  # without its note it is fetched
                    _bring(self._store, one, path)


def _bring(store: Store, key: str, path: Path) -> None:
    """A second name for a file of this machine, or a copy; its time of change is kept."""
    local, size = store.local_path(key), store.size(key)
    if size is None:
        raise NotFoundError("there is no such file in the store", location=key)
    if local is not None:
        try:
            os.link(local, path)
        except OSError:  # another file system, or one without such names
            shutil.copy2(local, path)
        return
    with path.open("wb") as target:
        for start in range(0, size, _COPY_BYTES):
            target.write(store.get_range(key, start, min(_COPY_BYTES, size - start)))


_AXES = ("z", "y", "x")


def job_of(store: Store, record: dict[str, Any], is_whole: Callable[[str], bool]) -> VolumeJob:
    """What levels and documents of an OME-Zarr are made with. It opens no source.

    Parameters
    ----------
    is_whole
        Whether a key of the volume holds what was written; one document has to.

    Raises
    ------
    IntegrityError
        Every document is damaged, or the pyramid is not the one that is made of this record now.
    """
    core, technical = record["metadata"]["core"], record["metadata"]["technical"]
    array = _any_array(store, record, is_whole)
    sharding = array["codecs"][0]["configuration"]
    fill = array["fill_value"]
    plan = VolumePlan(
        source=record["source"],
        source_id=record["source_id"],
        name=record["name"],
        shape_zyx=tuple(core["volume_shape"]),
        dtype=core["data_type"],
        voxel_nm_zyx=_lengths(core["voxel_size_nm"]),
        voxel_size_provenance="record",
        origin_nm_zyx=_lengths(technical["translation"]),
        kind=core.get("kind", "image"),
        label_pooling=pooling_of(record),
        within=image_of(record["files"]["volume"]),
        reader={},
        files=(),
        about=About(modality=core.get("modality")),
        download_bytes=0,
        download_requests=0,
    )
    job = VolumeJob(
        plan=plan,
        output_format="zarr",
        chunk_zyx=tuple(technical["chunk_size"]),
        shard_zyx=tuple(technical["shard"]),
        codec=numcodecs_config(sharding["codecs"]),
        fill_value=float(fill) if isinstance(fill, str) else fill,
    )
    made = [[*level.grid.shape_zyx] for level in job.levels]
    if made != [level["shape"] for level in technical["levels"]]:
        raise IntegrityError(
            "this version makes another pyramid than the one that is there",
            location=record["files"]["volume"],
        )
    return job


def pooling_of(record: dict[str, Any]) -> LabelPooling:
    """How a record's labels were pooled; records of earlier versions do not say."""
    said = record["metadata"]["technical"].get("labels")
    if not said:
        return EARLIER_POOLING
    return LabelPooling(ties=said["ties"], yielding=tuple(said["yielding"]))


def statistics_of(record: dict[str, Any]) -> Statistics:
    """Minimum, maximum and histogram as the record states them; sums are left out."""
    technical = record["metadata"]["technical"]
    histogram = histogram_of(technical.get("histogram"))
    return Statistics(
        voxels=math.prod(record["metadata"]["core"]["volume_shape"]),
        finite=sum(histogram.counts),
        minimum=technical.get("global_min"),
        maximum=technical.get("global_max"),
        histogram=histogram,
    )


def _any_array(
    store: Store, record: dict[str, Any], is_whole: Callable[[str], bool]
) -> dict[str, Any]:
    """``zarr.json`` of level 0, or of another level, whose codec and fill value are the same."""
    volume = record["files"]["volume"]
    keys = [
        f"{volume}/{level['path']}/zarr.json" for level in record["metadata"]["technical"]["levels"]
    ]
    for key in filter(is_whole, keys):
        return read_document(store, key)
    if is_whole(f"{volume}/zarr.json"):
        group = read_document(store, f"{volume}/zarr.json")
        try:
            arrays: dict[str, dict[str, Any]] = group["consolidated_metadata"]["metadata"]
            return arrays["0"]
        except (KeyError, TypeError):
            pass
    raise IntegrityError(
        "every document of the volume is damaged, so that nothing says how it is compressed",
        location=volume,
    )


def _lengths(lengths: dict[str, float]) -> LengthsZYX:
    return zyx(float(lengths[axis]) for axis in _AXES)
