"""From finished shards to a published volume: prove the grid, write the documents, list digests.

Nothing is published unless every shard of every level is in the store with the size that the
ledger recorded, and nothing else is.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.concurrency.bounded_map import run_each
from lib.errors import EmptyVolumeError, IntegrityError, MissingChunksError
from lib.geometry import (
    Box,
    ShapeZYX,
    add,
    ceil_divide,
    floor_divide,
    multiply,
    subtract,
    zyx,
)
from lib.storage.base import Store
from lib.storage.keys import VOLUME_SUFFIXES, labels_of, own_files
from lib.volumes import ome
from lib.volumes.grid import shard_key
from lib.volumes.job import VolumeJob
from lib.volumes.label_ids import (
    Ids,
    LabelFacts,
    count_ids,
    merged,
    require_among,
    unpack,
    values_of,
)
from lib.volumes.ledger import Ledger, LedgerEntry, StoredFile
from lib.volumes.npyfile import DamagedRowsError, digest_npy, local_file
from lib.volumes.ome import THUMBNAIL_KEY, Draw
from lib.volumes.shardfile import StoredLevel
from lib.volumes.statistics import Statistics

SUMS_SUFFIX = ".SHA256SUMS"
_SIDES: tuple[ShapeZYX, ...] = (
    (-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1),
)  # fmt: skip
_NAMED, _READ_AT_ONCE = 5, 8
_SHARD_OR_LEVEL = re.compile(r"(\d{1,6})/(?:c/(\d{1,9})/(\d{1,9})/(\d{1,9})|zarr\.json)")


@dataclass(frozen=True, slots=True)
class PublishedVolume:
    """What the record says of a published volume.

    ``sha256`` is that of the npy file, or of the ``SHA256SUMS`` list beside an OME-Zarr.
    """

    volume_key: str
    sums_key: str
    sha256: str
    stored_bytes: int
    files: int
    statistics: Statistics
    missing_chunks: tuple[str, ...]
    expected_chunks: int
    fill_value: int | float = 0
    labels: LabelFacts | None = None

    @property
    def completeness(self) -> float:
        return 1.0 - len(self.missing_chunks) / max(1, self.expected_chunks)


def finish(
    job: VolumeJob,
    store: Store,
    *,
    max_missing_fraction: float | None,
    allow_empty: bool = False,
    draw: Draw | None = None,
    proven: Callable[[], object] = lambda: None,
) -> PublishedVolume:
    """Prove, document and publish. Safe to repeat after a kill at any point.

    Parameters
    ----------
    max_missing_fraction
        Share of the archive's pieces that may be absent, 0 to 1. None is the rule of the volume's
        kind: none of an image's, any of a label volume's (whose empty chunks are left out as a
        rule), but not all of them.
    allow_empty
        Publish a volume of nothing but background, and labels of which the archive holds nothing.
    draw
        Makes the thumbnail of an OME-Zarr; none by default.
    proven
        Called before anything makes the volume readable; raises where it must not be.

    Raises
    ------
    IntegrityError
        A shard is missing from the store or from the ledger, or a foreign file lies in between.
    MissingChunksError
        The archive lacks more of its chunks than allowed, or all of them.
    EmptyVolumeError
        Every voxel of an image is the fill value, and that is not allowed.
    """
    ledger = Ledger(store, job)
    root = ledger.root()
    entries = ledger.entries()
    statistics = Statistics()
    missing: list[str] = []
    files: list[StoredFile] = []
    for level in job.levels:
        if level.in_pass and level.index > 0:
            continue  # listed by the shards of level 0 that they were made with
        for index in level.grid.shards():
            entry = entries.get((level.index, index))
            if entry is None:
                raise IntegrityError(
                    "a shard was not made",
                    location=job.final_key,
                    unit=shard_key(level.index, index),
                )
            files.extend(entry.files)
            if level.index == 0:
                statistics = statistics.merged(entry.stats())
                missing.extend(entry.missing_chunks)
    missing = sorted(set(missing))  # a hole is met by every shard that it reaches into
    expected = _source_chunks(job)
    amid_data = partial(_amid_data, job, store, root)
    _allow(job, missing, expected, max_missing_fraction, amid_data, allow_empty=allow_empty)
    labels = label_facts(job, entries.values())
    background = statistics.minimum == statistics.maximum == job.fill_value
    if job.plan.kind == "image" and not allow_empty and (background or not statistics.finite):
        raise EmptyVolumeError(
            f"every voxel is {job.fill_value if background else 'NaN or infinite'}",
            archive=job.plan.source,
            location=job.plan.source_id,
        )
    if job.output_format == "npy":
        sums, stored = _finish_npy(job, store, ledger, entries)
        proven()
    else:
        drawn = job.plan.about.extra.get("image_label")
        group = ome.group_document(job, statistics, labels.values if labels else (), drawn)
        sums, stored = _finish_zarr(job, store, root, files, statistics, group, draw, proven)
    sums_key = job.final_key + SUMS_SUFFIX
    store.put(sums_key, sums)
    store.persist(root, sums_key)  # before it takes the place of what was there
    if root != job.final_key:
        store.publish_tree(root, job.final_key)
    if job.plan.within is not None:
        list_labels(store, job.plan.within)
    return PublishedVolume(
        volume_key=job.final_key,
        sums_key=sums_key,
        sha256=(
            sums.split()[0].decode()
            if job.output_format == "npy"
            else hashlib.sha256(sums).hexdigest()
        ),
        stored_bytes=stored,
        files=sums.count(b"\n"),
        statistics=statistics,
        missing_chunks=tuple(missing),
        expected_chunks=expected,
        labels=labels,
        fill_value=job.fill_value,
    )


def label_facts(job: VolumeJob, entries: Iterable[LedgerEntry]) -> LabelFacts | None:
    """What the ledger knows of the ids of a label volume; None of an image.

    Raises
    ------
    IntegrityError
        A level holds an id that the finer one does not have.
    """
    if job.plan.labels is None:
        return None
    parts: dict[int, list[Ids]] = {level.index: [] for level in job.levels}
    background: int | None = 0
    for entry in entries:
        if entry.level == 0 and entry.label_ids is None:
            background = None  # of a half that was begun before ids were counted in it
        background = None if background is None else background + entry.background
        for number, packed in (entry.label_ids or {entry.level: None}).items():
            parts[number].append(unpack(packed, job.dtype))
    found = [merged(parts[level.index]) for level in job.levels]
    for level, finer, coarse in zip(job.levels[1:], found, found[1:], strict=False):
        require_among(coarse, finer, level.index, job.final_key)
    return LabelFacts(background, tuple(count_ids(ids) for ids in found), values_of(found[0]))


def list_labels(store: Store, image: str) -> None:
    """Write the document of an image's group of labels: it lists those that are there."""
    group = labels_of(image)
    folders = store.list_folder(group).folders
    names = sorted(key.rpartition("/")[2] for key in folders if key.endswith(VOLUME_SUFFIXES[0]))
    store.put(f"{group}/zarr.json", ome.encode(ome.labels_document(names)))


def _source_chunks(job: VolumeJob) -> int:
    """Pieces that the archive should hold: chunks of its array, or sections of its stack.

    They are counted in what the reader names as missing; the volume's own chunks stand in for
    sources that have no pieces.
    """
    if job.plan.source_grid is not None:
        return job.plan.source_grid.chunks
    if job.plan.sections is not None:
        return job.plan.sections
    return math.prod(ceil_divide(job.grid.shape_zyx, job.grid.chunk_zyx))


def _allow(
    job: VolumeJob,
    missing: list[str],
    expected: int,
    limit: float | None,
    amid_data: Callable[[list[str]], list[str]],
    *,
    allow_empty: bool,
) -> None:
    fraction = len(missing) / max(1, expected)
    advice = None
    grid = job.plan.source_grid
    absent = "hole" if grid is None else grid.absent
    if limit is None and (job.plan.kind == "labels" or absent != "hole"):
        # Labels without their empty chunks are usual, and some formats store no empty chunk at
        # all; where every chunk is absent, a wrong path or an upload that never was looks the same.
        if fraction == 1 and not allow_empty and absent != "empty":
            what = "these labels" if job.plan.kind == "labels" else "this image"
            said = f"the archive holds none of the {expected} chunks of {what}"
            advice = "Check the path; set max_missing_fraction to 1 to accept a volume without any"
        elif job.plan.kind == "image" and absent == "unwritten" and (amid := amid_data(missing)):
            share = math.ceil(fraction * 1000) / 1000
            said = (
                f"the archive lacks {len(missing)} of {expected} chunks, and data border on "
                f"{', '.join(amid)}: such a chunk may have been lost"
            )
            advice = (
                f"Fetch or copy the array again. If its writer left out chunks of nothing but "
                f"{job.fill_value} there, accept them with --set max_missing_fraction={share:g}; "
                "the record lists them"
            )
        else:
            return
    elif fraction > (limit or 0.0):
        some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        said = (
            f"the archive lacks {len(missing)} of {expected} chunks ({some}), "
            f"{fraction:.2%} where {limit or 0.0:.2%} is allowed"
        )
    else:
        return
    raise MissingChunksError(
        said, archive=job.plan.source, location=job.plan.source_id, advice=advice
    )


def _amid_data(job: VolumeJob, store: Store, root: str, missing: list[str]) -> list[str]:
    """Absent chunks on which data border: some of them, or none.

    What a writer leaves out lies in the fill value: an edge of the data hardly ever runs along a
    face of the chunk grid. Beside a chunk that was lost, most voxels are data.
    """
    grid = job.plan.source_grid
    assert grid is not None
    cells = Box.whole(grid.cells_zyx).shifted(grid.offset_zyx)
    names = {zyx(map(int, name.split("/"))): name for name in missing}
    read, found = _stored_voxels(job, store, root), set[str]()

    def look(face: tuple[ShapeZYX, ShapeZYX]) -> None:
        hole, beside = face
        box = _touching(job, grid.chunk_zyx, hole, beside)
        if len(found) >= _NAMED or box.empty:
            return
        voxels, fill = read(box), job.fill_value
        empty = np.isnan(voxels) if fill != fill else voxels == fill
        if 2 * np.count_nonzero(empty) <= empty.size:
            found.add(names[hole])

    faces = (
        (hole, beside)
        for hole in sorted(names)
        for by in _SIDES
        if (beside := add(hole, by)) not in names
        and not Box(beside, add(beside, (1, 1, 1))).intersect(cells).empty
    )
    run_each(faces, look, at_once=_READ_AT_ONCE)
    return sorted(found)


def _touching(job: VolumeJob, chunk_zyx: ShapeZYX, hole: ShapeZYX, beside: ShapeZYX) -> Box:
    """The layer of voxels of a chunk, in the volume's own, that touches the chunk beside it."""
    plan = job.plan
    start = plan.box_zyx.start_zyx if plan.box_zyx is not None else (0, 0, 0)
    low = subtract(multiply(beside, chunk_zyx), start)
    high = add(low, chunk_zyx)
    side = subtract(beside, hole)
    low, high = (
        zyx(b - 1 if s < 0 else a for s, a, b in zip(side, low, high, strict=True)),
        zyx(a + 1 if s > 0 else b for s, a, b in zip(side, low, high, strict=True)),
    )
    for step in plan.downsample_steps:
        low, high = floor_divide(low, step), ceil_divide(high, step)
    return Box(low, high).intersect(Box.whole(plan.shape_zyx))


def _stored_voxels(job: VolumeJob, store: Store, root: str) -> Callable[[Box], NDArray[Any]]:
    """Reads boxes of level 0 as it was written."""
    if job.output_format == "npy":
        array = np.load(local_file(store, root), mmap_mode="r")
        return lambda box: array[box.slices()]
    level = job.levels[0]
    return StoredLevel(store, root, 0, level.grid, job.dtype, job.codec, job.fill_value).read


def _finish_npy(
    job: VolumeJob, store: Store, ledger: Ledger, entries: dict[tuple[int, ShapeZYX], LedgerEntry]
) -> tuple[bytes, int]:
    checksums = {shard_index: entry.crc32 for (_, shard_index), entry in entries.items()}
    try:
        size, sha256 = digest_npy(job, store, ledger.root(), checksums)
    except DamagedRowsError as error:
        ledger.forget(entries[0, shard_index] for shard_index in error.shard_indices)
        raise
    return _sums_line(sha256, job.final_key.rpartition("/")[2]), size


def _finish_zarr(
    job: VolumeJob,
    store: Store,
    staging: str,
    files: list[StoredFile],
    statistics: Statistics,
    group: dict[str, Any],
    draw: Draw | None,
    proven: Callable[[], object],
) -> tuple[bytes, int]:
    """Compare the listing with what must be there, then write the documents, the root one last."""
    documents = {f"{n.index}/zarr.json": ome.array_document(job, n) for n in job.levels}
    expected = {file.key: file for file in files}
    if len(expected) != len(files):
        raise IntegrityError("the ledger names a file twice", location=job.final_key)
    _prove_listing(job, store, staging, expected, {*documents, "zarr.json", THUMBNAIL_KEY})
    written = {key: ome.encode(document) for key, document in documents.items()}
    drawn = draw(staging, group, statistics) if draw is not None else None
    proven()  # in a bucket, documents make the volume: its shards have their final names
    if drawn is not None:
        written[THUMBNAIL_KEY], width, height = drawn
        group["attributes"] |= ome.thumbnail_attributes(width, height)
    elif store.size(f"{staging}/{THUMBNAIL_KEY}") is not None:
        store.delete(f"{staging}/{THUMBNAIL_KEY}")  # of a killed run that could draw it
    written["zarr.json"] = ome.encode(group)
    for key, data in written.items():
        store.put(f"{staging}/{key}", data)
        expected[key] = StoredFile(key=key, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    name = job.final_key.rpartition("/")[2]
    lines = [_sums_line(expected[key].sha256, f"{name}/{key}") for key in sorted(expected)]
    return b"".join(lines), sum(file.size for file in expected.values())


def _prove_listing(
    job: VolumeJob,
    store: Store,
    staging: str,
    expected: dict[str, StoredFile],
    documents: set[str],
) -> None:
    """Compare the files that are there with the ledger's; nothing may be absent or foreign.

    What another grid than this job's would have there is of a writer whose lease was over: its
    last shard may land after its half was discarded. That goes, being nobody's any more.
    """
    listed = {item.key.removeprefix(f"{staging}/"): item.size for item in own_files(store, staging)}
    for key, file in expected.items():
        if listed.pop(key, None) != file.size:
            raise IntegrityError(
                "a file of the volume is missing or of the wrong size", location=f"{staging}/{key}"
            )
    foreign = sorted(set(listed) - documents)
    for key in [key for key in foreign if _is_of_another_grid(job, key)]:
        store.delete(f"{staging}/{key}")
        foreign.remove(key)
    if foreign:
        raise IntegrityError(
            f"{len(foreign)} files in the volume do not belong to it, such as {foreign[0]}",
            location=staging,
            advice="Delete the unfinished volume and run again",
        )


def _is_of_another_grid(job: VolumeJob, key: str) -> bool:
    """Whether a key is that of a shard or level document, and not one that this job may have."""
    found = _SHARD_OR_LEVEL.fullmatch(key)
    if found is None:
        return False
    level = int(found[1])
    if level >= len(job.levels):
        return True
    if found[2] is None:
        return False
    index, counts = map(int, found.groups()[1:]), job.levels[level].grid.counts_zyx
    return any(i >= n for i, n in zip(index, counts, strict=True))


def _sums_line(sha256: str, name: str) -> bytes:
    """One line as ``sha256sum`` writes and checks it (two spaces: read as binary)."""
    return f"{sha256}  {name}\n".encode()
