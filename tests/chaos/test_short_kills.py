"""A short campaign of kills, for every day; `make chaos KILLS=1000` is the long one."""

from __future__ import annotations

from tests.chaos.harness import campaign

KILLS = 12


def test_runs_killed_at_random_moments_end_byte_identical_to_an_undisturbed_one() -> None:
    with campaign("folder", seed=4) as running:
        report = running.run(KILLS)
    assert report.kills == KILLS
    assert report.clean, report.as_json()
    assert set(report.kills_by_format) == {"zarr", "npy"}


def test_in_a_bucket_too() -> None:
    with campaign("s3", seed=5) as running:
        report = running.run(6)
    assert report.clean, report.as_json()
