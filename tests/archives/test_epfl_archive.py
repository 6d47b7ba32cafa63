"""EPFL: one scattered TIFF, read by ranges, kept in the same pass, never mixed or cut."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.errors import FormatError, NotFoundError, SourceChangedError
from tests.kit.restored import restored

TIF = "volumedata.tif"


def test_the_record_tells_what_the_page_tells_and_no_more(bench: Any) -> None:
    plan = bench("epfl").one_plan()
    assert plan.source_id == "EPFL-CA1-HIPPOCAMPUS"
    assert plan.voxel_nm_zyx == (5.0, 5.0, 5.0)
    assert (plan.voxel_size_provenance, plan.voxel_size_approximate) == ("configuration", True)
    assert plan.about.modality == "FIB-SEM"
    assert plan.about.licence is plan.about.doi is plan.about.organism is None
    assert plan.files[0].etag is not None
    assert "%20ElectronMicroscopy" in plan.files[0].url


def test_the_file_is_kept_byte_by_byte(bench: Any, published: Any) -> None:
    one = bench("epfl", chunk_size_mb=0.02)
    plan = one.one_plan()
    one.read(plan)
    (fetched,) = one.verify_source_unchanged(plan)
    original = published(TIF).read_bytes()
    assert fetched.path.read_bytes() == original
    assert fetched.sha256 == hashlib.sha256(original).hexdigest()


def test_an_unread_rest_is_fetched_when_the_volume_settles(bench: Any, published: Any) -> None:
    one = bench("epfl")
    plan = one.one_plan()
    (fetched,) = one.verify_source_unchanged(plan)  # nothing was read: all is missing
    assert fetched.path.read_bytes() == published(TIF).read_bytes()


def test_range_size_and_connections_are_those_of_the_settings(bench: Any, faults: Any) -> None:
    one = bench("epfl", chunk_size_mb=0.02, max_connections=1)
    one.read(one.one_plan())
    asked = [line.range for line in faults.counters.log("epfl") if line.method == "GET"]
    spans = [line.removeprefix("bytes=").split("-") for line in asked]
    lengths = [int(stop) - int(start) + 1 for start, stop in spans]
    assert sorted(lengths)[len(lengths) // 2] <= 20_000
    assert faults.counters.tally("epfl").peak == 1


def test_a_streamed_digest_is_the_files(bench: Any, published: Any) -> None:
    one = bench("epfl", keep_raw=False)
    plan = one.one_plan()
    one.read(plan)
    (fetched,) = one.verify_source_unchanged(plan)
    assert fetched.sha256 == hashlib.sha256(published(TIF).read_bytes()).hexdigest()


def test_a_digest_that_the_stream_did_not_give_costs_one_more_pass(
    bench: Any, published: Any
) -> None:
    one = bench("epfl", keep_raw=False)
    plan = one.one_plan()  # nothing was read in this process, as after a resume
    (fetched,) = one.verify_source_unchanged(plan)
    assert fetched.sha256 == hashlib.sha256(published(TIF).read_bytes()).hexdigest()


def test_a_box_fetches_its_pages_and_keeps_no_file(bench: Any, truth: Any) -> None:
    one = bench("epfl", box="z=10:12,y=5:20,x=100:128", chunk_size_mb=0.005)
    plan = one.one_plan()
    before = one.received()
    np.testing.assert_array_equal(one.read(plan), truth(plan))
    assert one.verify_source_unchanged(plan) == []
    assert one.received() - before <= plan.download_bytes
    assert one.downloads() == []
    assert any("raw file is not kept" in note for note in plan.notes)


def test_a_file_that_changes_between_two_ranges_is_not_mixed(bench: Any, faults: Any) -> None:
    one = bench("epfl")
    plan = one.one_plan()
    faults.add("changed_file", "epfl")
    with pytest.raises(SourceChangedError):
        one.read(plan)


def test_a_file_that_changed_by_the_end_is_not_settled(bench: Any, faults: Any) -> None:
    one = bench("epfl")
    plan = one.one_plan()
    one.read(plan)
    faults.add("changed_file", "epfl", methods=["HEAD"])
    one.archive.plan(one.config, one.session)  # the fault spares the first request of a path
    with pytest.raises(SourceChangedError):
        one.verify_source_unchanged(plan)


def test_a_file_cut_short_is_refused_before_anything_is_made(bench: Any, published: Any) -> None:
    path: Path = published(TIF)
    with restored(path) as content:
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(FormatError) as caught:
            bench("epfl").plan()
    assert TIF in str(caught.value)


def test_without_downloads_only_a_kept_file_will_do(bench: Any) -> None:
    one = bench("epfl", enable_downloads=False)
    plan = one.one_plan()
    with pytest.raises(NotFoundError, match="enable_downloads is false"):
        one.read(plan)


def test_an_absent_file_is_named(bench: Any, faults: Any) -> None:
    one = bench("epfl")
    faults.add("status_404", "epfl")
    with pytest.raises(NotFoundError) as caught:
        one.plan()
    assert caught.value.archive == "epfl"
