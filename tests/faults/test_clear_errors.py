"""Each failure names archive, place and cause, says what to do, and says it in the record too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from emulators.control import Control
from emulators.serving import Samples
from lib.records.manager import schema_errors
from lib.storage.base import StoreSettings
from tests.faults import situations as at
from tests.faults.bench import STALL_S, STALLED, Bench

SECRET = "kept-to-itself"

# source, settings, what the message must hold
ADDRESSES: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    (
        "epfl",
        {"download_url": "http://127.0.0.1:9/a.tif"},
        ("refuses the connection", "127.0.0.1:9/a.tif", "port"),
    ),
    (
        "epfl",
        {"download_url": "http://nowhere.invalid/a.tif"},
        ("does not resolve", "nowhere.invalid", "DNS"),
    ),
    (
        "epfl",
        {"download_url": at.over_tls("epfl", "/a.tif")},
        ("no secure connection", "/a.tif", "certificate"),
    ),
    ("epfl", {"download_url": at.missing_file}, ("no such file", "absent.tif", "Check")),
    ("ebi", {"entry_id": "12345"}, ("no such file or entry", "EMPIAR-12345", "entry_id")),
    ("ebi", {"ftp_server": "127.0.0.1:9", "protocol": "ftp"}, ("127.0.0.1:9", "refuse")),
    ("ebi", {"ftp_server": "nowhere.invalid", "protocol": "ftp"}, ("nowhere.invalid", "resolve")),
    ("flyem", {"uuid": "deadbeef"}, ("no such version", "deadbeef", "uuid")),
    ("flyem", {"instance": "absent"}, ("no such version or data instance", "absent", "instance")),
    ("flyem", {"crop_origin": (34400, 0, 0)}, ("outside", "crop_origin", "inside")),
    ("idr", {"image_ids": [4242]}, ("4242", "image_ids")),
    ("idr", {"dataset_id": 4242}, ("4242", "Check")),
    (
        "openorganelle",
        {"s3_uri": "s3://no-such-bucket"},
        ("no such bucket", "no-such-bucket", "endpoint"),
    ),
    ("openorganelle", {"dataset_id": "jrc_absent", "zarr_path": "em"}, ("jrc_absent", "em")),
    ("openorganelle", {"scale_level": "s7"}, ("s7", "s0, s1, s2, s3")),
    (
        "openorganelle",
        {"s3_endpoint_url": "http://127.0.0.1:9"},
        ("refuses the connection", "endpoint"),
    ),
    ("openorganelle", {"s3_endpoint_url": "http://nowhere.invalid"}, ("does not resolve", "DNS")),
    ("openorganelle", {"s3_endpoint_url": at.over_tls("s3")}, ("secure connection", "certificate")),
    (
        "openorganelle",
        {"s3_key": "AKIAWRONG", "s3_secret": SECRET, "s3_anonymous": False},
        ("does not know the access key", "InvalidAccessKeyId", "Correct"),
    ),
]


@pytest.mark.parametrize(
    ("source", "settings", "said"),
    ADDRESSES,
    ids=[f"{source}-{'-'.join(settings)}-{n}" for n, (source, settings, _) in enumerate(ADDRESSES)],
)
def test_what_cannot_be_reached_or_is_not_there_is_named(
    source: str, settings: dict[str, Any], said: tuple[str, ...], samples: Samples, tmp_path: Path
) -> None:
    samples.control.clear()
    values = {k: v(samples) if callable(v) else v for k, v in settings.items()}
    ended = Bench(samples, tmp_path, source, **values).run()
    text = str(ended.error)
    assert f"archive {source}" in text
    for words in said:
        assert words in text
    assert SECRET not in text


FAULTS: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    (
        "epfl",
        {"kind": "status_503", "service": "epfl", "skip": 4},
        ("status 503", "(5 tries)", "volumedata.tif", "finished work is kept"),
    ),
    (
        "epfl",
        {"kind": "stall", "service": "epfl", "skip": 3, "seconds": STALL_S},
        ("in time", "volumedata.tif"),
    ),
    ("epfl", {"kind": "short_body", "service": "epfl", "skip": 3}, ("ended", "volumedata.tif")),
    (
        "epfl",
        {"kind": "changed_file", "service": "epfl"},
        ("changed on the server", "ETag", "Run again"),
    ),
    (
        "ebi",
        {"kind": "html_200", "service": "mirror", "match": r"0001\.dm3"},
        ("web page", "0001.dm3"),
    ),
    (
        "flyem",
        {"kind": "status_404", "service": "dvid", "match": "/raw/"},
        ("status 404", "/raw/0_1_2"),
    ),
    (
        "openorganelle",
        {"kind": "status_403", "service": "s3", "match": "s1/0/1/1"},
        ("refuses access", "s1/0/1/1", "permissions"),
    ),
    (
        "openorganelle",
        {"kind": "hide", "service": "s3", "match": "s1/0/1/1"},
        ("lacks 1 of", "0/1/1", "max_missing_fraction"),
    ),
    (
        "openorganelle",
        {"kind": "wrong_bytes", "service": "s3", "match": "s1/0/1/1"},
        ("ETag", "s1/0/1/1"),
    ),
]


@pytest.mark.parametrize(
    ("source", "rule", "said"), FAULTS, ids=[f"{s}-{rule['kind']}" for s, rule, _ in FAULTS]
)
def test_the_record_of_a_failure_says_the_same_as_the_error(
    source: str,
    rule: dict[str, Any],
    said: tuple[str, ...],
    samples: Samples,
    faults: Control,
    tmp_path: Path,
) -> None:
    faults.add(**rule)
    extra = STALLED if rule["kind"] == "stall" else {}
    protocol = {"protocol": "https"} if source == "ebi" else {}
    ended = Bench(samples, tmp_path, source, **extra, **protocol).run()
    for words in said:
        assert words in str(ended.error)
    bench = Bench(samples, tmp_path, source, **extra, **protocol)
    if not ended.results:  # the plan failed: there is nothing yet that a record could be of
        assert not list(bench.store().list())
        return
    record = bench.record(ended.plans[0])
    assert schema_errors(record) == []
    written = record["error"]
    assert written["archive"] == source
    assert written["location"]
    assert written["advice"]
    assert written["retryable"] is ended.error.retryable  # type: ignore[attr-defined]
    for words in said:
        assert words in json.dumps(written)
    assert "Traceback" in written["traceback"]


DISKS: list[tuple[Any, tuple[str, ...]]] = [
    (at.full_disk("160k"), ("no space is left", "Free space")),
    (at.read_only_disk, ("read-only", "Mount it writable")),
    (at.no_permission, ("permi", "write permission")),
    (at.file_in_the_way, ("a file lies where a folder is needed", "Move that file")),
    (at.failing_writes(at.IO_ERROR, 3), ("input/output error", "Check the disk")),
    (at.failing_writes(at.QUOTA, 3), ("quota", "Free space")),
    (at.file_size_limit(20_000), ("larger than", "ulimit -f")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("situation", "said"),
    DISKS,
    ids=["full", "read-only", "permission", "file", "EIO", "EDQUOT", "EFBIG"],
)
def test_what_the_disk_refuses_is_named(
    situation: Any, said: tuple[str, ...], samples: Samples, tmp_path: Path
) -> None:
    bench = Bench(samples, tmp_path, "epfl", keep_raw=False, chunk_zyx=(4, 32, 64), shard_mb=0.1)
    try:
        with bench.at_end, situation(samples, bench):
            ended = bench.run()
    except at.NotHere as error:
        pytest.skip(str(error))
    assert isinstance(ended.error, Exception)
    for words in (*said, "epfl"):
        assert words in str(ended.error)


def test_a_bucket_that_cannot_be_reached_is_named_without_its_keys(
    samples: Samples, tmp_path: Path
) -> None:
    for endpoint, said in (("127.0.0.1:9", "refuse"), ("http://nowhere.invalid", "resolve")):
        settings = StoreSettings(
            endpoint_url=endpoint,
            key="macroscope",
            secret=SECRET,
            attempts=1,  # type: ignore[arg-type]
        )
        bench = Bench(samples, tmp_path, "epfl", uri="s3://volumes/x", store_settings=settings)
        text = str(bench.run().error)
        assert said in text, text
        assert "s3://volumes/x" in text
        assert SECRET not in text
