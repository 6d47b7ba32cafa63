"""The voxels of a finished volume, counted again from its finest level."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.concurrency import cancel as stopping
from lib.errors import IntegrityError
from lib.geometry import Box
from lib.present.described import DescribedLevel, DescribedVolume, describe
from lib.storage.base import Store
from lib.verify.findings import Findings
from lib.volumes.label_ids import MOST_IDS, IdsAccumulator, count_ids, require_among, values_of
from lib.volumes.statistics import NO_HISTOGRAM, Histogram, Statistics, StatisticsAccumulator

_NPY_BYTES = 32 * 2**20


def count_again(store: Store, volume: DescribedVolume) -> tuple[Statistics, int]:
    """Statistics of the finest level as they were counted when it was made, and its holes.

    Raises
    ------
    IntegrityError
        A shard is absent or damaged.
    """
    if not volume.levels:
        return _count_npy(store, volume), 0
    level = volume.levels[0]
    reader = volume.open_level(store, level)
    statistics, holes = Statistics(), 0
    for index in level.grid.shards():  # float sums depend on their order, which this repeats
        tally = StatisticsAccumulator(volume.dtype)
        slots = {level.grid.chunk_box(chunk): slot for slot, chunk in level.grid.chunks_of(index)}
        for block in reader.blocks(level.grid.shard_box(index)):
            stopping.check()
            tally.add(slots[block.box], block.data)
        statistics = statistics.merged(tally.result())
        holes += reader.absent_chunks(index)
    return statistics, holes


def _count_npy(store: Store, volume: DescribedVolume) -> Statistics:
    statistics = Statistics()
    for part in _parts_of_npy(store, volume):
        tally = StatisticsAccumulator(volume.dtype)
        tally.add(0, part)
        statistics = statistics.merged(tally.result())
    return statistics


def _parts_of_npy(store: Store, volume: DescribedVolume) -> Iterator[NDArray[Any]]:
    """Plane by plane, or several at once."""
    _, ny, nx = volume.shape_zyx
    plane = ny * nx * volume.dtype.itemsize
    rows = max(1, min(ny, _NPY_BYTES // (nx * volume.dtype.itemsize)))
    for box in Box.whole(volume.shape_zyx).tiles((max(1, _NPY_BYTES // plane), rows, nx)):
        stopping.check()
        z, y, _ = box.start_zyx
        start = volume.npy_offset + z * plane + y * nx * volume.dtype.itemsize
        data = store.get_range(volume.key, start, box.voxels * volume.dtype.itemsize)
        yield np.frombuffer(data, volume.dtype).reshape(box.shape_zyx)


def _parts_of(
    store: Store, volume: DescribedVolume, level: DescribedLevel | None
) -> Iterator[NDArray[Any]]:
    """All voxels of a level; of an npy, which has none, of the file."""
    if level is None:
        yield from _parts_of_npy(store, volume)
        return
    reader = volume.open_level(store, level)
    for index in level.grid.shards():
        for block in reader.blocks(level.grid.shard_box(index)):
            stopping.check()
            yield block.data


def prove_voxels(store: Store, record: dict[str, Any], found: Findings) -> None:
    """Minimum, maximum, mean and histogram, and the chunks that the finest level leaves out.

    Raises
    ------
    MacroscopeError
        The finest level cannot be read.
    """
    volume = describe(store, record["files"]["volume"])
    statistics, holes = count_again(store, volume)
    technical, quality = record["metadata"]["technical"], record["metadata"]["quality"]
    for name, counted in (
        ("global_min", statistics.minimum),
        ("global_max", statistics.maximum),
        ("global_mean", statistics.mean),
    ):
        said = technical.get(name)
        if said is not None or counted is not None:
            found.hold(
                f"technical.{name}",
                said is not None and counted is not None and _same(counted, said, statistics),
                f"{volume.key}: {name} is {counted}, where the record says {said}",
            )
    if technical.get("histogram") is not None:
        found.hold(
            "technical.histogram",
            _same_bins(statistics.histogram, technical["histogram"]),
            f"{volume.key}: the histogram is not that of the voxels",
        )
    total = quality.get("missing_chunks_total", len(quality["missing_chunks"]))
    # They read as background. Sources that are not copied chunk by chunk have theirs filled.
    if holes == total or holes > 0:
        found.hold(
            "quality.missing_chunks_total",
            holes == total,
            f"{volume.key}: {holes} chunks of level 0 are not there, where the record says that "
            f"the archive lacks {total}",
        )
    if (labels := technical.get("labels")) and labels.get("largest") is not None:
        _prove_ids(store, volume, labels, statistics, found)


def _prove_ids(
    store: Store,
    volume: DescribedVolume,
    said: dict[str, Any],
    statistics: Statistics,
    found: Findings,
) -> None:
    """The ids of every level, which are among the finer one's."""
    counts: list[int | None] = []
    values: tuple[int, ...] = ()
    background, finer, made = 0, None, ""
    for number, level in enumerate(volume.levels or (None,)):
        accumulator = IdsAccumulator()
        for part in _parts_of(store, volume, level):
            accumulator.add(part)
        ids, zeros = accumulator.result()
        background, values = (background, values) if counts else (zeros, values_of(ids))
        counts.append(count_ids(ids))
        try:
            require_among(ids, finer, number, volume.key)
        except IntegrityError as error:
            made = error.message
        finer = ids
    share = background / max(1, statistics.voxels)
    stated = tuple(said.get("values") or ())
    found.hold(
        "technical.labels.values",
        stated in ((), values),
        f"{volume.key}: the ids are {values}, where the record says {stated}",
    )
    above = MOST_IDS if counts[0] is None else None
    for name, here in (
        ("ids", counts[0]),
        ("ids_above", above),
        ("largest", statistics.maximum),
    ):
        found.hold(
            f"technical.labels.{name}",
            said.get(name) == here,
            f"{volume.key}: {name} of the labels is {here}, where the record says {said.get(name)}",
        )
    found.hold(
        "technical.labels.background_fraction",
        math.isclose(said.get("background_fraction") or 0.0, share, abs_tol=1e-12),
        f"{volume.key}: {share:g} of the labels is background, where the record says "
        f"{said.get('background_fraction')}",
    )
    found.hold(
        "technical.labels.ids_of_levels",
        not made and said.get("ids_of_levels") == counts,
        f"{volume.key}: {made or f'the levels have {counts} ids'}, where the record says "
        f"{said.get('ids_of_levels')}",
    )


def _same(counted: float, said: float, statistics: Statistics) -> bool:
    """Equal, up to the order in which floats were added."""
    if isinstance(counted, int) and isinstance(said, int):
        return counted == said
    largest = max(abs(statistics.minimum or 0), abs(statistics.maximum or 0))
    return math.isclose(counted, said, rel_tol=1e-9, abs_tol=1e-9 * largest)


def _same_bins(counted: Histogram, said: dict[str, Any]) -> bool:
    """Equal, once both have the wider one's bins: parts of an npy are cut otherwise here."""
    stated = histogram_of(said)
    if not counted.counts or not stated.counts:
        return not any(said["counts"]) and not any(counted.counts)
    wider = max(counted.exponent, stated.exponent)
    return counted.coarsened(wider) == stated.coarsened(wider)


def histogram_of(said: dict[str, Any] | None) -> Histogram:
    """The histogram that a record states; one without bins where it states none."""
    if not said or not said["counts"] or not said.get("bin_width"):
        return NO_HISTOGRAM
    width, start = said["bin_width"], said["first"]
    exact = isinstance(start, int) and width >= 1
    first = start // int(width) if exact else round(start / width)
    return Histogram(math.frexp(width)[1] - 1, first, tuple(said["counts"]))
