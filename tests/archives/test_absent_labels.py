"""Label volumes of which the archive holds no chunk are an error by name, not a finished volume."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulators.s3 import S3Server
from emulators.serving import Samples
from lib.errors import MissingChunksError
from tests.faults.bench import Bench

ARRAY = {
    "zarr_format": 2,
    "shape": [8, 8, 8],
    "chunks": [4, 4, 4],
    "dtype": "<u4",
    "compressor": None,
    "filters": None,
    "order": "C",
    "fill_value": 0,
    "dimension_separator": "/",
}
ATTRIBUTES = {
    "multiscales": [
        {
            "version": "0.4",
            "axes": [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"],
            "datasets": [
                {
                    "path": "s0",
                    "coordinateTransformations": [{"type": "scale", "scale": [4.0, 4.0, 4.0]}],
                }
            ],
        }
    ],
    "image-label": {"version": "0.4"},
}


@pytest.fixture(scope="module")
def bucket() -> Iterator[S3Server]:
    """A label multiscale: documents, and not one chunk."""
    with S3Server("absent-labels") as server:
        store = server.store()
        group = "set/set.zarr/labels/cells"
        store.put(f"{group}/.zgroup", json.dumps({"zarr_format": 2}).encode())
        store.put(f"{group}/.zattrs", json.dumps(ATTRIBUTES).encode())
        store.put(f"{group}/s0/.zarray", json.dumps(ARRAY).encode())
        yield server


def bench(samples: Samples, bucket: S3Server, folder: Path, **settings: Any) -> Bench:
    place = {"s3_uri": f"s3://{bucket.bucket}", "s3_endpoint_url": bucket.endpoint_url}
    chosen = {"dataset_id": "set", "zarr_path": "labels/cells", "scale_level": "s0"}
    return Bench(samples, folder, "openorganelle", **place, **chosen, **settings)


def test_labels_of_which_no_chunk_is_there_are_refused(
    samples: Samples, bucket: S3Server, tmp_path: Path
) -> None:
    one = bench(samples, bucket, tmp_path)
    ended = one.run()
    assert isinstance(ended.error, MissingChunksError)
    assert "none of the 8 chunks" in str(ended.error)
    assert "max_missing_fraction" in str(ended.error)
    assert one.published() == []
    assert one.record(ended.plans[0])["status"] == "failed"


@pytest.mark.parametrize("allowed", [{"max_missing_fraction": 1.0}, {"allow_empty": True}])
def test_they_are_made_where_that_is_allowed(
    samples: Samples, bucket: S3Server, tmp_path: Path, allowed: dict[str, Any]
) -> None:
    one = bench(samples, bucket, tmp_path, **allowed)
    ended = one.run()
    assert ended.complete, ended.errors
    (plan,) = ended.plans
    assert one.record(plan)["metadata"]["quality"]["completeness_score"] == 0.0
    assert one.problems(plan) == []
