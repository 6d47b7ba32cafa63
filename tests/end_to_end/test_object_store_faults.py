"""What goes wrong between a run and its bucket: each with its name, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulators.serving import Samples
from lib.errors import (
    AccessDeniedError,
    DestinationBusyError,
    DestinationError,
    DestinationFullError,
    MacroscopeError,
)
from lib.storage import s3_lease
from lib.storage.keys import lock_key
from lib.storage.s3 import S3Store
from tests.archives.conftest import truth_of
from tests.end_to_end.bucket import SECRET, Bucket
from tests.faults.bench import Bench, Ended

SHARDS = r"\.ome\.zarr/0/c/"


@pytest.fixture
def bench(samples: Samples, bucket: Bucket, tmp_path: Path) -> Bench:
    """One source that makes several shards, brought into the bucket."""
    return Bench(
        samples,
        tmp_path,
        "openorganelle",
        uri=bucket.uri,
        store_settings=bucket.settings(attempts=3),
    )


def is_exact(bench: Bench, ended: Ended) -> None:
    assert ended.complete, ended.errors
    for plan in ended.plans:
        assert bench.problems(plan) == []
        np.testing.assert_array_equal(bench.voxels(plan), truth_of(plan))


def _long(*row: Any) -> Any:
    """A code whose kind another row has; its own words are held by unit/storage/test_s3.py."""
    return pytest.param(*row, marks=pytest.mark.long)


@pytest.mark.parametrize(
    ("status", "code", "kind", "says"),
    [
        (403, "AccessDenied", AccessDeniedError, "the object store refuses access"),
        _long(400, "ExpiredToken", AccessDeniedError, "credentials have expired"),
        (507, "InsufficientStorage", DestinationFullError, "the object store is full"),
        _long(403, "QuotaExceeded", DestinationFullError, "the object store is full"),
        (503, "SlowDown", DestinationError, "503 SlowDown"),
        _long(404, "NoSuchBucket", DestinationError, "the bucket does not exist"),
    ],
)
def test_a_write_that_fails_midway_has_its_name_and_the_next_run_goes_on_from_there(
    bench: Bench, bucket: Bucket, status: int, code: str, kind: type[MacroscopeError], says: str
) -> None:
    refusal = bucket.gate.refuse("PUT", SHARDS, status, code, spare=2)
    ended = bench.run()
    assert refusal.refused
    (result,) = ended.results
    assert result.status == "failed"
    assert isinstance(ended.error, kind)
    assert says in str(result.error)
    assert bucket.uri in str(result.error)
    assert SECRET not in str(result.error)
    (plan,) = ended.plans
    record = bench.record(plan)
    assert record["status"] == "failed"
    assert says in record["error"]["message"]
    assert bench.published() == []  # nothing that a reader would take for a volume

    bucket.gate.refusals.clear()
    later = bench.run()
    is_exact(bench, later)
    assert ended.shards_made > 0
    assert ended.shards_made + later.shards_made == _all_shards(bench, plan)


def test_a_run_that_cannot_even_write_its_record_still_says_why(
    bench: Bench, bucket: Bucket
) -> None:
    bucket.gate.refuse("PUT", "", 403, "AccessDenied")
    ended = bench.run()
    (result,) = ended.results
    assert result.status == "failed"
    assert "refuses access" in str(result.error)
    bucket.gate.refusals.clear()
    is_exact(bench, bench.run())


def test_lost_replies_and_busy_answers_change_nothing(bench: Bench, bucket: Bucket) -> None:
    bucket.control.add("lost_reply", "destination", match="/0/c/", first_n=2)
    bucket.control.add("status_503", "destination", match="metadata_", first_n=2, methods=["PUT"])
    bucket.control.add("lost_reply", "destination", match=r"\.lease", first_n=1)
    ended = bench.run()
    assert len(bucket.control.faults.fired()) == 2
    is_exact(bench, ended)


def test_of_two_runs_one_works_and_the_other_says_who_does(
    bench: Bench, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = bench.run().plans[0]
    key = f"{plan.source}/{plan.name}"
    monkeypatch.setattr(s3_lease, "BEATS", 240)  # renewed soon, and not over on a busy machine
    store = bucket.store(lease_seconds=120.0)
    bench.store_settings = bucket.settings(lease_seconds=120.0)
    with store.lock(key, "flow run red-panda on node-1, process 7"):
        ended = bench.run(codec="none")
    assert isinstance(ended.error, DestinationBusyError)
    assert "flow run red-panda on node-1" in str(ended.results[0].error)
    is_exact(bench, bench.run())


def test_a_lease_holds_one_volume_and_not_the_store(
    samples: Samples, bucket: Bucket, tmp_path: Path
) -> None:
    settings = bucket.settings()
    held = S3Store(bucket.uri, settings)
    bench = Bench(samples, tmp_path, "openorganelle", uri=bucket.uri, store_settings=settings)
    started, done = threading.Event(), threading.Event()

    def first() -> None:
        with held.lock("openorganelle/elsewhere", "a run on another volume"):
            started.set()
            done.wait()

    thread = threading.Thread(target=first)
    thread.start()
    try:
        assert started.wait(120)
        is_exact(bench, bench.run())
    finally:
        done.set()
        thread.join()


_KILLED = """
import os, signal, sys
from pathlib import Path
from types import SimpleNamespace
import json
from lib.storage.base import StoreSettings
from lib.ingest import stages
from tests.faults.bench import Bench
endpoints, uri, settings, folder = json.loads(sys.argv[1])
make = stages.convert_batch
def killed(order, job, units, **more):
    make(order, job, list(units)[:2], **more)
    os.kill(os.getpid(), signal.SIGKILL)
stages.convert_batch = killed
samples = SimpleNamespace(endpoints=endpoints)
given = {"uri": uri, "store_settings": StoreSettings(**settings)}
Bench(samples, Path(folder), "openorganelle", **given).run()
"""


@pytest.mark.long
def test_a_run_killed_on_another_host_is_resumed_once_its_lease_has_run_out(
    samples: Samples, bucket: Bucket, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "endpoint_url": bucket.endpoint_url,
        "key": "destination-key",
        "secret": SECRET,
    }
    what = json.dumps([samples.endpoints, bucket.uri, settings, str(tmp_path)])
    root = Path(__file__).parents[2]
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, what],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    bench = Bench(
        samples,
        tmp_path,
        "openorganelle",
        uri=bucket.uri,
        store_settings=bucket.settings(lease_seconds=60.0),  # its own outlives any pause
    )
    store = bucket.store()
    (lease,) = _leases(store)
    document = json.loads(lease[1])
    document["process"] = None  # as from a host that this one knows nothing about
    document["seconds"] = 2.0  # and soon over
    store._writes.put(lease[0], [memoryview(json.dumps(document).encode())], None)

    ended = bench.run()
    is_exact(bench, ended)
    assert ended.shards_made == _all_shards(bench, ended.plans[0]) - 2
    assert _leases(store) == []


def _leases(store: S3Store) -> list[tuple[str, bytes]]:
    prefix = lock_key("openorganelle/x", "").rpartition("/")[0]
    found = store._objects.listing(prefix)
    return [(item.key, store._objects.get(item.key).data) for item in found]


def _all_shards(bench: Bench, plan: Any) -> int:
    volume = bench.record(plan)["files"]["volume"]
    return sum(1 for _ in bench.store().list(f"{volume}/0/c"))
