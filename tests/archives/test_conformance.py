"""What every archive of the registry promises; a new one is covered by its samples alone."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import pytest

from lib.archives.registry import REGISTRY, archive, recommended_limits
from lib.geometry import Box
from lib.plan import VolumePlan

METADATA_BYTES = 2**20

pytestmark = pytest.mark.parametrize("name", sorted(REGISTRY.keys() - {"address"}))


def random_box(shape: tuple[int, int, int], seed: int) -> Box:
    draw = random.Random(seed)
    pairs = [sorted(draw.sample(range(n + 1), 2)) for n in shape]
    return Box(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))  # type: ignore[arg-type]


def test_a_plan_asks_for_metadata_only(name: str, bench: Any) -> None:
    one = bench(name)
    assert one.plan()
    assert 0 < one.received() < METADATA_BYTES
    assert one.downloads() == []
    assert one.leftovers() == []


def test_a_plan_survives_json_and_is_the_same_each_time(name: str, bench: Any) -> None:
    one = bench(name)
    plans = one.plan()
    assert [VolumePlan.model_validate_json(plan.model_dump_json()) for plan in plans] == plans
    assert one.plan() == plans
    assert len({plan.name for plan in plans}) == len(plans)
    assert all(plan.source == name and "/" not in plan.name for plan in plans)


def test_every_voxel_is_the_archives(name: str, bench: Any, truth: Any) -> None:
    one = bench(name)
    for plan in one.plan():
        expected = truth(plan)
        assert plan.shape_zyx == expected.shape
        assert plan.dtype == expected.dtype.name
        np.testing.assert_array_equal(one.read(plan), expected)


def test_any_box_of_an_open_volume_is_the_archives(name: str, bench: Any, truth: Any) -> None:
    one = bench(name)
    plan = one.plan()[0]
    expected = truth(plan)
    for seed in range(5):
        box = random_box(plan.shape_zyx, seed)
        np.testing.assert_array_equal(one.read(plan, box), expected[box.slices()])


def test_a_part_is_the_same_voxels_under_another_name(name: str, bench: Any, truth: Any) -> None:
    whole = bench(name).plan()[0]
    box = random_box(whole.shape_zyx, 7)
    # a box is in the source's own voxels: where the whole is itself a part, from its corner
    own = box if whole.box_zyx is None else box.shifted(whole.box_zyx.start_zyx)
    part = bench(name, box=str(own)).plan()[0]
    assert part.shape_zyx == box.shape_zyx
    assert part.name != whole.name
    assert part.origin_nm_zyx == pytest.approx(
        [
            o + a * v
            for o, a, v in zip(whole.origin_nm_zyx, box.start_zyx, whole.voxel_nm_zyx, strict=True)
        ]
    )
    np.testing.assert_array_equal(bench(name, box=str(own)).read(part), truth(whole)[box.slices()])


def test_what_a_plan_says_it_costs_is_what_it_costs(name: str, bench: Any) -> None:
    one = bench(name)
    for plan in one.plan():
        before = one.received()
        one.read(plan)
        assert one.received() - before == pytest.approx(plan.download_bytes, rel=0.1)


def test_settling_tells_size_and_digest_of_every_file_that_came_whole(
    name: str, bench: Any
) -> None:
    one = bench(name)
    plan = one.plan()[0]
    one.read(plan)
    fetched = one.verify_source_unchanged(plan)
    for file in fetched:
        content = file.path.read_bytes()
        assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    keys = one.raw(plan).finish(True)
    assert sorted(keys) == sorted(one.downloads())
    assert len(keys) == len(fetched)


def test_kept_raw_files_are_not_fetched_again(name: str, bench: Any, truth: Any) -> None:
    first = bench(name)
    plan = first.plan()[0]
    first.read(plan)
    if not first.verify_source_unchanged(plan):
        pytest.skip(f"{name} has no files to keep")
    second = bench(name, enable_downloads=False)
    plan = second.plan()[0]
    before = second.received()
    np.testing.assert_array_equal(second.read(plan), truth(plan))
    assert second.received() == before


def test_nothing_is_left_where_raw_files_are_not_kept(name: str, bench: Any, truth: Any) -> None:
    one = bench(name, keep_raw=False)
    plan = one.plan()[0]
    np.testing.assert_array_equal(one.read(plan), truth(plan))
    fetched = one.verify_source_unchanged(plan)
    assert all(len(file.sha256) == 64 for file in fetched)
    assert one.raw(plan).finish(True) == []
    assert one.downloads() == []
    assert one.leftovers() == []


def test_an_archive_names_the_services_whose_limits_hold(name: str, bench: Any) -> None:
    one = bench(name)
    one.read(one.plan()[0])
    asked = {service for service, counts in one.session.counters.snapshot().items() if counts}
    assert asked <= set(one.archive.services)
    ours = one.archive.services
    assert {service: recommended_limits()[service] for service in ours} == ours  # if shared, alike


def test_an_archive_says_who_publishes_it_and_how_its_addresses_read(name: str) -> None:
    one = archive(name)
    assert one.name == name
    assert one.publisher.name
    assert one.publisher.url.startswith("https://")
    assert one.title
    readable = [one.settings_of(rest) for rest in ("", "1", "a/b")]
    assert any(settings is not None for settings in readable)
    assert any(settings is None for settings in readable)
    assert one.address_form
