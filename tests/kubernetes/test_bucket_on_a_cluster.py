"""A bucket as the destination of a cluster: Dask workers write to it, one of them is lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import s3fs
import zarr

from emulators.control import Control
from emulators.s3 import S3Server
from emulators.serving import Samples
from tests.end_to_end.bucket import KEY, SECRET
from tests.kubernetes.apiserver.cluster import Cluster
from tests.kubernetes.apiserver.kinds import POD
from tests.kubernetes.installation import (
    HEAVY,
    RUN_S,
    VALUES,
    Installation,
    expected,
    refused,
    withhold_chunks,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
URI = "s3://volumes/em"
DATA = f"{URI}/data"


@pytest.fixture(scope="module")
def files() -> Iterator[Any]:
    """The bucket, as a file system with the rights of its keys."""
    with S3Server("volumes", KEY, SECRET) as server:
        yield s3fs.S3FileSystem(key=KEY, secret=SECRET, endpoint_url=server.endpoint_url)


@pytest.fixture(scope="module")
def installed(
    samples: Samples,
    files: Any,
    render: Callable[..., list[dict[str, Any]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    address = {"uri": URI, "endpointUrl": files.endpoint_url}
    storage = {"type": "bucket", "bucket": {**address, "accessKey": KEY, "secretKey": SECRET}}
    with Cluster(tmp_path_factory.mktemp("bucket"), refused) as cluster:
        manifests = render(*VALUES, f"storage={json.dumps(storage)}")
        installation = Installation(cluster, manifests, samples.endpoints)
        installation.wait_until_ready()
        yield installation
        assert cluster.access.refused == []


def records(files: Any) -> dict[str, Any]:
    """What the records in the bucket say, by source."""
    found = [json.loads(files.cat(path)) for path in files.glob(f"{DATA}/*/metadata_*.json")]
    return {record["source"]: record for record in found}


def test_a_heavy_volume_goes_into_a_bucket_and_outlives_a_dask_worker(
    installed: Installation, files: Any, faults: Control
) -> None:
    cluster = installed.cluster
    withhold_chunks(faults)
    run = installed.start(f"{HEAVY}/ingest")
    cluster.wait(lambda: installed.dask_pods("worker"), RUN_S, "a Dask worker")
    [worker, *_] = installed.dask_pods("worker")
    cluster.wait(lambda: "Registered to" in cluster.log(worker), RUN_S, "it is at work")
    cluster.delete(POD, worker["metadata"]["name"], grace_seconds=0)
    faults.clear()
    state = installed.final_state(run, RUN_S)
    assert state["type"] == "COMPLETED", state
    [(source, record)] = records(files).items()
    assert (source, record["status"]) == (HEAVY, "complete")
    volume = zarr.open_group(files.get_mapper(f"{DATA}/{record['files']['volume']}"), mode="r")
    np.testing.assert_array_equal(np.asarray(volume["0"]), expected(source, record))
    assert not [path for path in files.find(URI) if "/.partial/" in path]
    assert not installed.records()  # nothing beside the bucket
    installed.assert_nothing_left()
