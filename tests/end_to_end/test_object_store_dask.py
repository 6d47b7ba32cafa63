"""Worker processes that share nothing but the store: a bucket, and a folder, voxel by voxel."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from lib.storage.open import open_store
from tests.end_to_end.bucket import SECRET, Bucket
from tests.end_to_end.conftest import Command, volumes
from tests.end_to_end.test_main_job import expected
from tests.end_to_end.test_object_store_run import filesystem


@pytest.mark.slow
@pytest.mark.parametrize("destination", ["bucket", "folder"])
def test_dask_workers_make_the_same_volume(
    macroscope: Command, bucket: Bucket, tmp_path: Path, destination: str
) -> None:
    to_bucket = destination == "bucket"
    environment = bucket.environment() if to_bucket else {"EM_DATA_DIR": str(tmp_path / "data")}
    environment |= {
        "EM_DASK": "local",
        "EM_DASK_MIN_MB": "0.1",
        "OPENORGANELLE_SHARD_MB": "0.6",  # several shards, for several workers
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "240",
    }
    run = macroscope("run", "--json", "-s", "openorganelle", **environment)
    assert run.returncode == 0, run.stderr
    (volume,) = volumes(run.stdout).values()
    store = bucket.store() if to_bucket else open_store(str(tmp_path / "data"))
    key = volume["metadata_path"].removeprefix(f"{store.uri}/")
    record = json.loads(store.get(key))
    place = f"{store.uri}/{record['files']['volume']}"
    group = zarr.open_group(filesystem(bucket).get_mapper(place) if to_bucket else place, mode="r")
    np.testing.assert_array_equal(group["0"][:], expected("openorganelle", record))

    shards = len(list(store.list(f"{record['files']['volume']}/0/c")))
    assert shards > 1
    if to_bucket:  # the workers' requests are counted too
        assert volume["store_requests"]["PUT"] > 2 * shards
    else:
        assert volume["store_requests"] == {}
    assert SECRET not in run.stdout + run.stderr
