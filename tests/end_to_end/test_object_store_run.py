"""The main job into a bucket: the same volumes, records and proofs as in a folder."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import s3fs
import zarr
from ome_zarr_models.v05 import Image

from lib.records.manager import schema_errors
from tests.end_to_end.bucket import KEY, SECRET, Bucket
from tests.end_to_end.conftest import Command, volumes
from tests.end_to_end.test_main_job import SOURCES, expected


def filesystem(bucket: Bucket) -> Any:
    return s3fs.S3FileSystem(
        key=KEY, secret=SECRET, endpoint_url=bucket.endpoint_url, asynchronous=False
    )


@pytest.mark.long
@pytest.mark.timeout(900)
def test_all_five_sources_come_into_a_bucket_and_prove_themselves_there(
    macroscope: Command, macroscope_here: Command, bucket: Bucket, tmp_path: Path
) -> None:
    """Whole volumes, records, raw files and reports; nothing on disk; the secret nowhere."""
    scratch, home = tmp_path / "scratch", tmp_path / "home"
    scratch.mkdir()
    home.mkdir()
    environment = bucket.environment(
        TMPDIR=str(scratch),
        HOME=str(home),
        EM_LOGS_DIR=str(tmp_path / "logs"),
        PREFECT_LOGGING_LEVEL="DEBUG",
    )
    first = macroscope("run", "--json", **environment)
    assert first.returncode == 0, first.stderr
    made = volumes(first.stdout[first.stdout.index("[\n") :])
    assert set(made) == SOURCES

    store = bucket.store()
    for source, volume in made.items():
        address = volume["metadata_path"]
        assert address.startswith(f"{bucket.uri}/{source}/metadata_")
        record = json.loads(store.get(address.removeprefix(f"{bucket.uri}/")))
        assert schema_errors(record) == []
        assert record["status"] == "complete"
        requests = record["metadata"]["provenance"]["store_requests"]
        assert requests["PUT"] > 5
        assert volume["store_requests"]["PUT"] >= requests["PUT"]
        mapped = filesystem(bucket).get_mapper(f"{bucket.uri}/{record['files']['volume']}")
        group = zarr.open_group(mapped, mode="r")
        Image.from_zarr(group)
        np.testing.assert_array_equal(group["0"][:], expected(source, record))
        assert all(store.size(key) for key in record["files"]["raw"])
    assert any("/downloads/" in item.key for item in store.list())
    names = [item.key.rpartition("/")[2] for item in store.list("metadata")]
    assert sum(name.startswith("metadata_catalog_") for name in names) == 1
    assert not [item.key for item in store.list() if "/.partial/" in item.key]

    again = macroscope("run", "--json", **bucket.environment())
    assert again.returncode == 0, again.stderr
    assert {s for s, v in volumes(again.stdout).items() if not v["made"]} == SOURCES

    bucket.forget()
    quick = macroscope_here("verify", bucket.uri, "--json", **bucket.environment())
    assert quick.returncode == 0, quick.stdout
    assert len(json.loads(quick.stdout)["records"]) == len(SOURCES)
    paths = [line.path for line in bucket.control.counters.log("destination")]
    assert not [path for path in paths if "/c/0" in path], "a quick look reads no voxels"
    deep = macroscope_here("verify", bucket.uri, "--deep", "--json", **bucket.environment())
    assert deep.returncode == 0, deep.stdout
    paths = [line.path for line in bucket.control.counters.log("destination")]
    assert [path for path in paths if "/c/0" in path]

    # The folder of the process and its home are as they were; all else was scratch, and is gone.
    kept = {"scratch", "home", "prefect", "logs"}
    assert {path.name for path in tmp_path.iterdir()} <= kept
    assert [p for p in home.rglob("*") if p.is_file()] == []
    left = [p for p in scratch.rglob("*") if p.is_file() and "macroscope" in str(p)]
    assert left == []
    texts = [run.stdout + run.stderr for run in (first, again, quick, deep)]
    assert not [text for text in texts if SECRET in text]
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    assert not [i.key for i in store.list() if SECRET.encode() in store.get(i.key)]


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "says"),
    [
        (["--format", "npy"], {}, 2, "npy cannot be made in a bucket"),
        ([], {"EM_DEST_KEY": "nobody"}, 1, "the server does not know the access key"),
        ([], {"EM_DEST_SECRET": "wrong-secret"}, 1, "the secret key is wrong"),
        ([], {"EM_DATA_DIR": "s3://absent-bucket/x"}, 1, "the bucket does not exist"),
        ([], {"EM_DEST_ENDPOINT_URL": "http://127.0.0.1:9"}, 1, "the host refuses the connection"),
        ([], {"EM_DEST_ANONYMOUS": "true"}, 2, "contradicts the credentials"),
    ],
    ids=["npy", "key", "secret", "bucket", "server", "anonymous"],
)
def test_what_cannot_work_is_refused_before_anything_is_fetched(
    macroscope_here: Command,
    bucket: Bucket,
    arguments: list[str],
    environment: dict[str, str],
    code: int,
    says: str,
) -> None:
    run = macroscope_here("run", *arguments, **bucket.environment(**environment))
    assert run.returncode == code, run.stderr
    assert says in run.stderr
    assert "Traceback" not in run.stderr
    assert "wrong-secret" not in run.stderr + run.stdout
    assert SECRET not in run.stderr + run.stdout
    assert list(bucket.store().list()) == []


@pytest.mark.slow
def test_a_denied_write_fails_the_run_and_says_so(macroscope: Command, bucket: Bucket) -> None:
    bucket.gate.refuse("PUT", "/epfl/", 403, "AccessDenied")
    run = macroscope("run", "--json", "-s", "epfl", **bucket.environment())
    assert run.returncode == 1
    (result,) = json.loads(run.stdout)
    assert "the object store refuses access" in result["errors"][0]
    assert "permission to write" in result["errors"][0]


@pytest.mark.slow
def test_a_run_with_its_own_s3_server_ends_with_a_proof_and_no_process(
    macroscope: Command, tmp_path: Path
) -> None:
    first = macroscope("run", "--local-s3", "-s", "epfl", "-s", "openorganelle")
    assert first.returncode == 0, first.stderr
    assert "requests to the store: DELETE" in first.stdout
    assert "2 records, 0 with problems, in s3://volumes" in first.stderr
    again = macroscope("run", "--local-s3", "-s", "epfl")
    assert "up to date" in again.stdout
    processes = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True)
    assert str(tmp_path / "data-s3") not in processes.stdout


def test_a_local_s3_server_and_another_destination_contradict_each_other(
    macroscope_here: Command,
) -> None:
    run = macroscope_here("run", "--local-s3", "--data-dir", "somewhere")
    assert run.returncode == 2
    assert "--data-dir" in run.stderr
