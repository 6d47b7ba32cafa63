"""What a record cannot hold shows before the first voxel is fetched, never after the work."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.errors import RecordError
from lib.ingest import describe
from lib.plan import VolumePlan
from lib.records.manager import MetadataManager
from lib.storage.local import LocalStore
from tests.kit.volume_kit import ArrayReader, a_job, a_plan, make

MOST = np.finfo(np.float64).max
LEAST = np.nextafter(0.0, 1.0)
EXTREMES: dict[str, Any] = {
    "the largest floats": [-MOST, MOST],
    "one largest float": [MOST],
    "the smallest floats": [LEAST, -LEAST, 0.0],
    "far and near": [LEAST, MOST, 1.0],
    "not numbers among numbers": [np.nan, np.inf, -np.inf, 1.0],
    "no number at all": [np.nan, np.inf],
    "one value": [7.0],
}


def begun(store: LocalStore, plan: VolumePlan) -> dict[str, Any]:
    return MetadataManager(store).begin(
        plan.source,
        plan.source_id,
        plan.name,
        core=describe.core(plan),
        technical=describe.placed(plan),
        provenance=describe.provenance(plan),
    )


@pytest.mark.parametrize("values", EXTREMES.values(), ids=EXTREMES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_no_voxels_make_an_invalid_record(tmp_path: Path, values: list[float], dtype: str) -> None:
    store = LocalStore(tmp_path, durable=False)
    with np.errstate(over="ignore", under="ignore"):
        voxels = np.resize(np.asarray(values, np.float64).astype(dtype), (5, 6, 7))
    plan = a_plan(voxels.shape, dtype)
    record = begun(store, plan)
    job = a_job(plan, ArrayReader(voxels))
    finished = make(job, ArrayReader(voxels), store, allow_empty=True)
    manager = MetadataManager(store)
    for status in ("processing", "saving-data"):
        record = manager.move(record, status)
    technical = describe.technical(job, finished)
    record = manager.move(
        record,
        "complete",
        technical=technical,
        quality={"completeness_score": 1.0, "missing_chunks": []},
        files={"volume": finished.volume_key, "sums": finished.sums_key},
    )
    histogram = record["metadata"]["technical"]["histogram"]
    finite = np.isfinite(voxels).sum()
    assert histogram is None or sum(histogram["counts"]) == finite


@pytest.mark.parametrize(
    "changes",
    [
        {"voxel_nm_zyx": (0.0, 1.0, 1.0)},
        {"voxel_nm_zyx": (-1.0, 1.0, 1.0)},
        {"voxel_nm_zyx": (math.nan, 1.0, 1.0)},
        {"voxel_nm_zyx": (1e308, 1.0, 1.0)},  # the extent has no float
        {"origin_nm_zyx": (math.inf, 0.0, 0.0)},
        {"dtype": "complex64"},
        {"shape_zyx": (0, 1, 1)},
    ],
    ids=str,
)
def test_what_no_record_can_hold_is_refused_before_anything_is_fetched(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    plan = a_plan((5, 6, 7)).model_copy(update=changes)
    with pytest.raises(RecordError, match="invalid"):
        begun(LocalStore(tmp_path, durable=False), plan)
