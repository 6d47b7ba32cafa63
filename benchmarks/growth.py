"""What planning, the ledger and finishing cost as a volume grows, without any voxels.

``python -m benchmarks.growth [--shards 1000 10000 100000] [--files 1000 5000 20000]`` prints CPU
seconds for each size, and by how much more than linear the largest is than the one before.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lib.config.loader_base import LoaderConfig
from lib.formats.base import Layout
from lib.formats.sections import group_sections
from lib.geometry import ShapeZYX
from lib.ingest.stages import in_batches
from lib.plan import About, SourceFile, VolumePlan
from lib.storage.local import LocalStore
from lib.volumes.finish import finish
from lib.volumes.grid import shard_key
from lib.volumes.job import VolumeJob, fit_job
from lib.volumes.ledger import Ledger, LedgerEntry, StoredFile
from lib.volumes.statistics import Statistics

_STATISTICS = Statistics(1, 1, 1, 1, 1).to_json() | {
    "histogram": {"exponent": 0, "first": 1, "counts": [1] * 200}
}


def main(arguments: list[str] | None = None) -> int:
    """Print one table for each kind of growth."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--shards", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--files", type=int, nargs="+", default=[1000, 5000, 20_000])
    chosen = parser.parse_args(arguments)
    _table("shards", chosen.shards, of_shards)
    _table("files", chosen.files, of_files)
    return 0


def _table(title: str, sizes: list[int], measure: Callable[[int], dict[str, float]]) -> None:
    found = {size: measure(size) for size in sizes}
    last, before = sizes[-1], sizes[max(0, len(sizes) - 2)]
    sys.stdout.write(f"{title:36}" + "".join(f"{size:>10}" for size in sizes) + "  beside linear\n")
    for step in found[last]:
        grown = found[last][step] / max(found[before][step], 1e-4) * before / last
        figures = "".join(f"{found[size][step]:10.3f}" for size in sizes)
        sys.stdout.write(f"{step:36}{figures}{grown:12.2f}\n")
    sys.stdout.flush()


class _Stopwatch:
    def __init__(self) -> None:
        self.found: dict[str, float] = {}

    def __call__(self, step: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = work()
        self.found[step] = time.process_time() - began
        return result


def of_shards(count: int) -> dict[str, float]:
    """CPU seconds of each step for a volume of so many shards."""
    watch = _Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder))
        plan = _plan((64, 64 * 100, 64 * (count // 100)), ())
        job = watch("job", lambda: _job(plan))
        ledger = Ledger(store, job)
        ledger.open()
        indices = watch("grid", lambda: list(job.grid.shards()))
        assert len(indices) == count
        batches = watch("batches", lambda: in_batches(job, indices, 2))
        watch("what is left of one batch", lambda: ledger.rest_of(0, batches[-1]))
        entries = [_entry(job, 0, index) for index in indices]
        coarse = [level for level in job.levels if not level.in_pass]
        entries += [
            _entry(job, level.index, index) for level in coarse for index in level.grid.shards()
        ]
        root = Path(folder) / store.staging_key(job.final_key)
        for entry in entries:
            for file in entry.files:
                path = root / file.key
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"x" * file.size)
        watch("entries written", lambda: [ledger.add(entry) for entry in entries])
        watch("entries read", lambda: ledger.entries(0))
        left = watch("what is left of the volume", lambda: ledger.pending(0, indices))
        assert left == []
        watch("what is left of one batch, made", lambda: ledger.rest_of(0, batches[-1]))
        watch("finish", lambda: finish(job, store, max_missing_fraction=0.0, allow_empty=True))
    return watch.found


def of_files(count: int) -> dict[str, float]:
    """CPU seconds of each step for a stack of so many files."""
    watch = _Stopwatch()
    names = [f"data/folder/slice_{number:05d}.tif" for number in range(count)]
    (group,) = watch("grouping", lambda: group_sections(names)[0])
    watch("places", group.places)
    files = tuple(
        SourceFile(url=f"https://host/{name}", name=name.rpartition("/")[2], size=10**6, etag=name)
        for name in names
    )
    plan = watch("plan", lambda: _plan((count, 64, 64), files))
    text = watch("plan as JSON", plan.model_dump_json)
    watch("plan from JSON", lambda: VolumePlan.model_validate_json(text))
    job = watch("job", lambda: _job(plan))
    watch("fingerprint", lambda: job.fingerprint)
    return watch.found


def _job(plan: VolumePlan) -> VolumeJob:
    layout = Layout((64, 64, 64))
    config = LoaderConfig(chunk_zyx=(64, 64, 64), shard_mb=0.2, enable_downloads=True)
    return fit_job(plan, layout, config)


def _plan(shape: ShapeZYX, files: tuple[SourceFile, ...]) -> VolumePlan:
    return VolumePlan(
        source="address",
        source_id="growth",
        source_path="growth",
        name="growth",
        shape_zyx=shape,
        dtype="uint8",
        voxel_nm_zyx=(8.0, 8.0, 8.0),
        voxel_size_provenance="configuration",
        origin_nm_zyx=(0.0, 0.0, 0.0),
        reader={},
        about=About(),
        files=files,
        download_bytes=0,
        download_requests=0,
    )


def _entry(job: VolumeJob, number: int, index: ShapeZYX) -> LedgerEntry:
    with_it = [level.index for level in job.levels if level.in_pass] if number == 0 else [number]
    keys = [shard_key(level, index) for level in with_it]
    return LedgerEntry(
        fingerprint=job.fingerprint,
        level=number,
        index_zyx=index,
        files=tuple(StoredFile(key=key, size=1, sha256="0" * 64) for key in keys),
        statistics=_STATISTICS,
    )


if __name__ == "__main__":
    sys.exit(main())
