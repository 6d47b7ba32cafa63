"""A short campaign of kills, for every day; `make chaos KILLS=1000` is the long one."""

from __future__ import annotations

import pytest

from tests.chaos.disk import can_cut_power
from tests.chaos.flow_kills import flow_campaign
from tests.chaos.harness import campaign
from tests.chaos.pace import SHORT
from tests.chaos.pauses import pause_campaign
from tests.chaos.power import power_campaign

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


@pytest.mark.long  # every day test_base.py of storage lets leases end
@pytest.mark.timeout(900)
def test_runs_paused_past_their_lease_change_nothing_of_what_another_made() -> None:
    with pause_campaign(seed=3) as running:
        report = running.run(4)
    assert report.kills >= 4
    assert report.clean, report.as_json()
    assert report.refused > 0


@pytest.mark.long  # every day test_durability.py watches what is forced to the disk
@pytest.mark.timeout(900)
@pytest.mark.skipif(not can_cut_power(), reason="loop devices and mounts want root")
def test_power_cuts_leave_no_complete_record_over_a_volume_that_is_not() -> None:
    with power_campaign(seed=3) as running:
        report = running.run(10)
    assert report.kills == 10
    assert report.complete > 0
    assert report.clean, report.as_json()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not can_cut_power(), reason="loop devices and mounts want root")
def test_power_cuts_are_seen_where_nothing_is_forced_to_the_disk() -> None:
    with power_campaign(seed=3, durable=False) as running:
        report = running.run(10)
    assert report.violations


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
