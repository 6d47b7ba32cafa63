"""A short campaign of kills, for every day; `make chaos KILLS=1000` is the long one."""

from __future__ import annotations

import pytest

from tests.chaos.flow_kills import flow_campaign
from tests.chaos.harness import campaign
from tests.chaos.pace import SHORT

KILLS = 12


def test_runs_killed_at_random_moments_end_byte_identical_to_an_undisturbed_one() -> None:
    with campaign("folder", seed=4) as running:
        report = running.run(KILLS)
    assert report.kills == KILLS
    assert report.clean, report.as_json()
    assert set(report.kills_by_format) == {"zarr", "npy"}


@pytest.mark.slow  # every day test_object_store_faults.py kills one run to a bucket and looks
def test_in_a_bucket_too() -> None:
    with campaign("s3", seed=5) as running:
        report = running.run(6)
    assert report.clean, report.as_json()


@pytest.mark.long
@pytest.mark.timeout(900)  # a machine at work with other things starts ten processes slowly
def test_runs_outlive_their_dask_workers_and_their_prefect_server() -> None:
    with flow_campaign("folder", seed=35, pace=SHORT) as around:
        report = around.run(workers=2, servers=1)
    assert report.workers >= 2
    assert report.servers >= 1
    assert report.clean, report.as_json()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_and_many_of_them_in_both_formats_and_in_a_bucket() -> None:
    for destination, kills in (("folder", 12), ("s3", 6)):
        with flow_campaign(destination, seed=2) as around:
            report = around.run(workers=kills, servers=kills // 2)
        assert report.clean, report.as_json()
