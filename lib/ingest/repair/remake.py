"""Making the damaged files of one volume anew, each from what is nearest to it.

Raw files and the finest level come from the source, coarse levels from the finer one, documents
from the record, the list of digests from the files. Nothing is written into the store here, and
nothing is kept that is not, byte for byte, what was there.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any, cast

from PIL import Image

from lib.errors import IntegrityError, StoppedError
from lib.geometry import ShapeZYX, zyx
from lib.ingest.context import VolumeRequest
from lib.ingest.repair.from_source import PatchedStore, SecondMaking, job_of, statistics_of
from lib.present.described import describe_group
from lib.present.planes import read_planes
from lib.present.preview import draw_thumbnail, render_preview
from lib.rawfiles.sidecar import hash_file
from lib.records.lifecycle import section
from lib.records.model import Record
from lib.storage.base import Store
from lib.storage.digests import digest_of
from lib.storage.keys import own_files
from lib.storage.local import LocalStore
from lib.verify.beside import raw_files, read_sums, sums_key
from lib.volumes import ome
from lib.volumes.downsample import pool_shard
from lib.volumes.job import VolumeJob
from lib.volumes.ome import THUMBNAIL_KEY
from lib.volumes.shardwriter import put_shard

Planned = Callable[[], VolumeRequest]
"""Asks the archive for the volume once more; only where something has to come from it."""


class Remaking:
    """Makes damaged files of one finished volume anew, into a folder of this machine.

    Parameters
    ----------
    store, record
        Where the volume lies, and its record.
    damaged
        Key of each file that is absent or damaged.
    folder
        Empty, with room for these.

    Attributes
    ----------
    patched
        The store with what was made so far in its place.
    left
        Key -> why it could not be made anew.
    preview_sha256
        Of a preview that was drawn anew; its bytes depend on the drawing library.
    """

    def __init__(
        self,
        store: Store,
        record: dict[str, Any],
        damaged: Mapping[str, str],
        folder: Path,
    ) -> None:
        self._store, self._record, self._folder = store, record, folder
        self._damaged = set(damaged)
        self._volume: str = record["files"]["volume"]
        self._here = LocalStore(folder / "made", durable=False)
        self._job: VolumeJob | None = None
        self._expected: dict[str, str] = {}
        self._proven: set[str] = set()
        self.patched = PatchedStore(store)
        self.left: dict[str, str] = {}
        self.preview_sha256: str | None = None

    def make(self, planned: Planned) -> None:
        """Make everything, or as much as can be; see `left`.

        Raises
        ------
        IntegrityError
            Something was made that is not what was there.
        SourceChangedError, TransportError, NotFoundError, ...
            The source cannot give what it gave.
        """
        self._expected = self._digests()
        levels = self._damaged_shards()
        raw = self._damaged & set(raw_files(self._record))
        npy = self._volume in self._damaged
        if npy or raw or levels.get(0):
            making = SecondMaking(planned(), self._record, self._store, self._folder / "source")
            self._job = making.make(
                [(0, 0, 0)] if npy else sorted(levels.get(0, ())), raw, self.patched
            )
            self._prove()
        for level in sorted(set(levels) - {0}):
            for index in sorted(levels[level]):
                self._pool(level, index)
        for key in sorted(key for key in self._damaged if key.endswith("/zarr.json")):
            if key != f"{self._volume}/zarr.json":
                self._write_level(key)
        self._draw_thumbnail()
        if f"{self._volume}/zarr.json" in self._damaged:
            self._write_group()
        self._draw_preview()
        for key in self._damaged - set(self.patched.anew) - set(self.left):
            self.left[key] = "nothing is known of which it could be made"

    # --- what is to be made -----------------------------------------------------------------

    def _digests(self) -> dict[str, str]:
        """Key -> sha256 of every file that is to be byte for byte what it was."""
        key = sums_key(self._record)
        sums = self._list_again() if key in self._damaged else read_sums(self._store, self._record)
        raw = raw_files(self._record)
        stated = {one: file["sha256"] for one, file in raw.items() if file and file["sha256"]}
        return {**sums, **stated}

    def _list_again(self) -> dict[str, str]:
        """The list of digests from the files themselves, where these are what they were."""
        key, folder = sums_key(self._record), self._volume.rpartition("/")[0]
        keys = [self._volume] if self._volume.endswith(".npy") else []
        keys = keys or sorted(item.key for item in own_files(self._store, self._volume))
        sums = {
            one: digest_of(self._store, one)[1] for one in keys if self._store.size(one) is not None
        }
        names = {one: one.removeprefix(f"{folder}/") if folder else one for one in sums}
        text = "".join(f"{sha256}  {names[one]}\n" for one, sha256 in sums.items()).encode()
        stated = self._record["metadata"]["technical"]["sha256"]
        here = sums.get(self._volume) if self._volume.endswith(".npy") else _sha256(text)
        if here != stated:
            raise IntegrityError(
                "the list of digests is lost, and the files are not those that it listed",
                location=key,
                advice="Run again to make the volume anew",
            )
        self._keep(key, text, "volume")
        return sums

    def _damaged_shards(self) -> dict[int, set[ShapeZYX]]:
        """Level -> indices of its damaged shards."""
        found: dict[int, set[ShapeZYX]] = {}
        for key in self._damaged:
            level, _, rest = key.removeprefix(f"{self._volume}/").partition("/c/")
            if key.startswith(f"{self._volume}/") and rest:
                found.setdefault(int(level), set()).add(zyx(map(int, rest.split("/"))))
        return found

    # --- making -----------------------------------------------------------------------------

    def _described(self) -> VolumeJob:
        if self._job is None:
            patched = cast(Store, self.patched)
            self._job = job_of(patched, self._record, lambda key: key not in self._damaged)
        return self._job

    def _pool(self, level: int, index: ShapeZYX) -> None:
        """A coarse shard, unless it came with its shard of level 0."""
        job = self._described()
        finer, coarse = job.levels[level - 1], job.levels[level]
        key = f"{self._volume}/{level}/c/{'/'.join(map(str, index))}"
        if key in self.patched.anew:
            return
        patched = cast(Store, self.patched)
        voxels = pool_shard(job, patched, self._volume, coarse, finer, index)
        put_shard(self._here, self._volume, coarse, index, voxels, job)
        self._made(key, "finer level")

    def _write_level(self, key: str) -> None:
        job = self._described()
        level = int(key.removeprefix(f"{self._volume}/").partition("/")[0])
        self._keep(key, ome.encode(ome.array_document(job, job.levels[level])), "record")

    def _write_group(self) -> None:
        job, statistics = self._described(), statistics_of(self._record)
        said = self._record["metadata"]["technical"].get("labels") or {}
        picture, key = f"{self._volume}/{THUMBNAIL_KEY}", f"{self._volume}/zarr.json"
        data = b""
        assumed = Record.read(self._record).assumed_axes
        values = said.get("values") or ()
        drawn = section(self._record, "additional_metadata").get("image_label")
        thumbnail: dict[str, Any] = {}
        if picture in self._expected:
            with Image.open(io.BytesIO(self.patched.get(picture))) as shown:
                thumbnail = ome.thumbnail_attributes(*shown.size)
        # levels are not repeated in images that were made with labels; earlier versions gave axes
        # whose length nobody states a unit
        for consolidated, without in product((True, False), dict.fromkeys((assumed, ""))):
            group = ome.group_document(
                job, statistics, values, drawn, consolidated=consolidated, assumed_axes=without
            )
            group["attributes"] |= thumbnail
            data = ome.encode(group)
            if _sha256(data) == self._expected.get(key):
                break
        self._keep(key, data, "record")

    def _draw_thumbnail(self) -> None:
        key = f"{self._volume}/{THUMBNAIL_KEY}"
        if key not in self._damaged:
            return
        statistics, patched = statistics_of(self._record), cast(Store, self.patched)
        group = ome.group_document(self._described(), statistics)
        volume = describe_group(patched, self._volume, group)
        drawn = draw_thumbnail(volume, read_planes(patched, volume), statistics=statistics)
        if _sha256(drawn.jpeg) == self._expected[key]:
            self._keep(key, drawn.jpeg, "volume")
        else:
            self.left[key] = "this version of the drawing library draws it otherwise"

    def _draw_preview(self) -> None:
        key = self._record["files"].get("preview")
        if key is None or key not in self._damaged:
            return
        core = self._record["metadata"]["core"]
        z, y, x = (float(core["voxel_size_nm"][axis]) for axis in "zyx")
        try:
            picture = render_preview(
                cast(Store, self.patched),
                self._volume,
                statistics=statistics_of(self._record),
                voxel_nm_zyx=(z, y, x),
                assumed_axes=Record.read(self._record).assumed_axes,
                title=core.get("title") or self._record["source_id"],
            )
        except StoppedError:
            raise
        except Exception as error:  # as when it was made: a picture fails no volume
            self.left[key] = f"it cannot be drawn: {type(error).__name__}: {error}"
            return
        self._here.put(key, picture)
        self.patched.add(key, Path(self._here.local_path(key) or ""), "volume")
        self.preview_sha256 = _sha256(picture)

    # --- proof ------------------------------------------------------------------------------

    def _keep(self, key: str, data: bytes, origin: str) -> None:
        self._here.put(key, data)
        self._made(key, origin)

    def _made(self, key: str, origin: str) -> None:
        self.patched.add(key, Path(self._here.local_path(key) or ""), origin)
        self._prove()

    def _prove(self) -> None:
        """Forget what is not damaged, and refuse what is not what was there.

        Raises
        ------
        IntegrityError
        """
        for key in set(self.patched.anew) - self._proven:
            path = self.patched.anew[key]
            if key not in self._damaged and key in self._expected:
                del self.patched.anew[key], self.patched.origins[key]
            elif key in self._expected and hash_file(path) != self._expected[key]:
                raise IntegrityError(
                    f"{key}, made anew from the {self.patched.origins[key]}, is not byte for byte "
                    "what the record vouches for: the source's voxels, or a codec's library, are "
                    "others now",
                    location=key,
                    advice="Nothing was changed. Run again to make the whole volume anew",
                )
            else:
                self._proven.add(key)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
