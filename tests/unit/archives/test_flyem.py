"""FlyEM: crops lie where they were asked for, never outside, and a seed draws the same for ever."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulators.catalogue import DVID_EXTENTS, dvid_voxels
from emulators.control import Control
from emulators.documents import DVID_UUID, dvid_info
from emulators.serving import Samples
from lib.archives.flyem.archive import FlyEM, place_crop
from lib.archives.flyem.info import parse_info
from lib.config.loaders import FlyEMConfig
from lib.errors import (
    BadAnswerError,
    MacroscopeError,
    NotFoundError,
    OutOfBoundsError,
    SourceChangedError,
    TransportError,
    UnsupportedFormatError,
)
from lib.formats.dvid import DvidReader, tile_url
from lib.geometry import Box, parse_box
from lib.plan import VolumePlan
from lib.rawfiles.files import RawFiles
from lib.storage.local import LocalStore
from lib.transport.limits import Limits
from lib.transport.session import Session

EXTENTS = Box((0, 0, 0), DVID_EXTENTS[::-1])
ORIGIN = (18000, 20000, 21000)  # x, y, z: inside the brain, all three different


class Place:
    def __init__(self, samples: Samples, folder: Path) -> None:
        self.samples, self.archive = samples, FlyEM()
        self.session = Session("flyem", limits={"dvid": Limits(1, None, 60.0, 60.0, 2, 0.01)})
        store = LocalStore(folder / "raw")
        self.raw = RawFiles(store, "flyem", "x", keep=False, scratch_dir=folder)

    def config(self, **given: Any) -> FlyEMConfig:
        small = {"crop_size": (30, 20, 10), "crop_origin": ORIGIN}
        return FlyEMConfig(**(small | self.samples.endpoints["FLYEM"] | given))

    def plan(self, **given: Any) -> VolumePlan:
        (plan,) = self.archive.plan(self.config(**given), self.session)
        return plan

    def open(self, plan: VolumePlan) -> DvidReader:
        return self.archive.open(plan, self.config(), self.session, self.raw)

    def voxels(self, plan: VolumePlan) -> Any:
        reader = self.open(plan)
        voxels = np.empty(reader.shape_zyx, reader.dtype)
        for block in reader.blocks(Box.whole(reader.shape_zyx)):
            voxels[block.box.slices()] = block.data
        return voxels


@pytest.fixture
def place(samples: Samples, faults: Control, tmp_path: Path) -> Place:
    return Place(samples, tmp_path)


def info(**changes: Any) -> dict[str, Any]:
    """DVID's answer with some keys of its parts changed; ``...`` removes one."""
    answer = copy.deepcopy(dvid_info())
    for part, keys in changes.items():
        if keys is ...:
            del answer[part]
            continue
        answer[part].update(keys)
        for key in [key for key, value in keys.items() if value is ...]:
            del answer[part][key]
    return answer


# --- what the server says ----------------------------------------------------------------------


def test_triples_are_turned_round_and_the_last_voxel_belongs_to_the_volume() -> None:
    points = {"MinPoint": [1, 2, 3], "MaxPoint": [10, 20, 30]}
    found = parse_info(info(Extents=points, Extended={"VoxelSize": [8, 4, 2]}), "x")
    assert found.extents == Box((3, 2, 1), (31, 21, 11))
    assert found.voxel_nm_zyx == (2.0, 4.0, 8.0)
    whole = parse_info(dvid_info(), "x")
    assert whole.extents.shape_zyx == DVID_EXTENTS[::-1]
    assert whole.background == 0


def test_extents_stand_in_two_places_and_units_may_be_absent() -> None:
    found = parse_info(info(Extents=..., Extended={"VoxelUnits": ...}), "x")
    assert found == parse_info(dvid_info(), "x")
    micrometres = parse_info(info(Extended={"VoxelUnits": ["micrometers"] * 3}), "x")
    assert micrometres.voxel_nm_zyx == (8000.0, 8000.0, 8000.0)


@pytest.mark.parametrize(
    "changes",
    [{"Base": {"TypeName": "labelblk"}}, {"Extended": {"Values": [{"DataType": "uint64"}]}}],
    ids=str,
)
def test_another_type_of_instance_is_unsupported(changes: Any) -> None:
    with pytest.raises(UnsupportedFormatError) as caught:
        parse_info(info(**changes), "http://dvid/node")
    assert caught.value.location == "http://dvid/node"


BROKEN: list[Any] = [
    None,
    [],
    "text",
    {},
    info(Base=...),
    info(Extended=...),
    info(Base={"TypeName": ...}),
    info(Extended={"Values": []}),
    info(Extended={"VoxelSize": ...}),
    info(Extended={"VoxelSize": [8, 8]}),
    info(Extended={"VoxelSize": [8, 0, 8]}),
    info(Extended={"VoxelSize": [8, -1, 8]}),
    info(Extended={"VoxelSize": [8, float("nan"), 8]}),
    info(Extended={"VoxelSize": [8, float("inf"), 8]}),
    info(Extended={"VoxelUnits": ["nanometers", "seconds", "nanometers"]}),
    info(Extended={"Background": "black"}),
    info(Extents={"MinPoint": None}),
    info(Extents={"MaxPoint": [1, 2]}),
    info(Extents={"MaxPoint": ["a", "b", "c"]}),
    info(Extents={"MaxPoint": ...}),
]


@pytest.mark.parametrize("answer", BROKEN, ids=range(len(BROKEN)))
def test_an_answer_that_makes_no_sense_is_named(answer: Any) -> None:
    with pytest.raises(BadAnswerError) as caught:
        parse_info(answer, "http://dvid/node")
    assert caught.value.location == "http://dvid/node"
    assert caught.value.retryable


def test_a_background_of_null_is_black() -> None:
    assert parse_info(info(Extended={"Background": None}), "x").background == 0


# --- where the crop lies -----------------------------------------------------------------------


def test_a_given_crop_lies_where_it_was_given() -> None:
    config = FlyEMConfig(crop_size=(3, 4, 5), crop_origin=(10, 20, 30))
    assert place_crop(config, EXTENTS) == Box((30, 20, 10), (35, 24, 13))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("beyond", [0, 1])
def test_a_crop_may_touch_the_last_voxel_but_not_the_next(axis: int, beyond: int) -> None:
    origin = [0, 0, 0]
    origin[axis] = DVID_EXTENTS[axis] - 7 + beyond
    config = FlyEMConfig(crop_size=(7, 7, 7), crop_origin=tuple(origin))
    if beyond:
        with pytest.raises(OutOfBoundsError, match="black") as caught:
            place_crop(config, EXTENTS)
        assert caught.value.location == "crop_origin"
    else:
        assert EXTENTS.contains(place_crop(config, EXTENTS))


@pytest.mark.parametrize("seed", [None, 3])
def test_a_crop_larger_than_the_volume_is_refused(seed: int | None) -> None:
    extents = Box((5, 5, 5), (15, 25, 35))
    fits = FlyEMConfig(crop_size=(30, 20, 10), crop_origin=None)
    assert place_crop(fits, extents) == extents
    for size in ((31, 20, 10), (30, 21, 10), (30, 20, 11)):
        config = FlyEMConfig(crop_size=size, crop_origin=None if seed else (5, 5, 5))
        with pytest.raises(OutOfBoundsError, match="larger"):
            place_crop(config, extents)


def test_the_same_seed_draws_the_same_crop_for_ever() -> None:
    def draw(seed: int) -> tuple[int, int, int]:
        return place_crop(FlyEMConfig(random_seed=seed), EXTENTS).start_zyx

    assert [draw(seed) for seed in (0, 1, 42)] == DRAWN
    assert draw(7) == draw(7)
    assert len({draw(seed) for seed in range(30)}) == 30


DRAWN = [(2653, 27562, 25247), (4135, 37303, 8805), (18024, 1639, 7296)]


@settings(deadline=None, derandomize=True, database=None)
@given(st.data())
def test_every_drawn_crop_lies_inside_the_extents(data: st.DataObject) -> None:
    low = data.draw(st.tuples(*[st.integers(-1000, 1000)] * 3))
    shape = data.draw(st.tuples(*[st.integers(1, 3000)] * 3))
    extents = Box(low, tuple(a + n for a, n in zip(low, shape, strict=True)))  # type: ignore[arg-type]
    size = tuple(data.draw(st.integers(1, n)) for n in reversed(shape))
    seed = data.draw(st.integers(0, 2**63))
    crop = place_crop(FlyEMConfig(crop_size=size, random_seed=seed), extents)
    assert extents.contains(crop)
    assert crop.shape_zyx == size[::-1]


def test_addresses_are_written_x_y_z() -> None:
    url = tile_url("http://dvid/raw/0_1_2", Box((3, 2, 1), (33, 22, 11)))
    assert url == "http://dvid/raw/0_1_2/10_20_30/1_2_3"


# --- against the server ------------------------------------------------------------------------


def test_the_crop_comes_voxel_for_voxel(place: Place) -> None:
    plan = place.plan()
    assert plan.shape_zyx == (10, 20, 30)
    assert plan.box_zyx == Box((21000, 20000, 18000), (21010, 20020, 18030))
    assert plan.origin_nm_zyx == (168000.0, 160000.0, 144000.0)
    assert plan.name == "grayscale_a89eb3af_x18000_y20000_z21000_30x20x10"
    assert (plan.download_bytes, plan.download_requests) == (6000, 1)
    assert plan.about.extra["crop_origin_xyz"] == [18000, 20000, 21000]
    assert plan.about.extra["crop_size_xyz"] == [30, 20, 10]
    np.testing.assert_array_equal(
        place.voxels(plan), dvid_voxels((21000, 20000, 18000), (10, 20, 30))
    )


def test_a_box_is_in_the_volumes_own_voxels(place: Place) -> None:
    plan = place.plan(box="z=5002:5005,y=160080:160160nm,x=34400:")
    box = Box((5002, 20010, 34400), (5005, 20020, 34432))
    assert plan.box_zyx == box
    assert plan.origin_nm_zyx == (5002 * 8.0, 20010 * 8.0, 34400 * 8.0)
    assert plan.name == "grayscale_a89eb3af_x34400_y20010_z5002_32x10x3"
    assert plan.about.extra["random_seed"] is None
    truth = dvid_voxels(box.start_zyx, box.shape_zyx)
    np.testing.assert_array_equal(place.voxels(plan), truth)


def test_axes_that_a_box_leaves_out_are_the_crops(place: Place) -> None:
    plan = place.plan(box="z=2:5")
    assert plan.box_zyx == Box((2, 20000, 18000), (5, 20020, 18030))
    drawn = place.plan(box="z=2:5", crop_origin=None)
    assert drawn.about.extra["random_seed"] == 0
    assert drawn.shape_zyx == (3, 20, 30)


@pytest.mark.parametrize("box", ["z=41400:41409", "x=0:34433", "y=9:9"])
def test_a_box_outside_the_volume_asks_for_no_voxel(place: Place, box: str) -> None:
    with pytest.raises(OutOfBoundsError if box != "y=9:9" else ValueError):
        place.plan(box=box)


def test_a_crop_outside_the_volume_asks_for_no_voxel(place: Place, faults: Control) -> None:
    with pytest.raises(OutOfBoundsError):
        place.plan(crop_origin=(DVID_EXTENTS[0] - 29, 0, 0))
    log = faults.counters.snapshot()["log"]
    assert not [line for line in log if "/raw/" in str(line)]


def test_requests_stay_below_the_servers_limit_and_are_those_of_the_plan(
    place: Place, faults: Control
) -> None:
    plan = place.plan(crop_size=(300, 10, 5))
    assert plan.download_requests == 2
    faults.counters.clear()
    truth = dvid_voxels((21000, 20000, 18000), (5, 10, 300))
    np.testing.assert_array_equal(place.voxels(plan), truth)
    assert faults.counters.snapshot()["services"]["dvid"]["requests"] == 2


def test_two_versions_and_two_crops_have_names_of_their_own(place: Place) -> None:
    names = {
        place.plan(**changes).name
        for changes in ({}, {"crop_origin": (1, 2, 3)}, {"crop_size": (31, 20, 10)})
    }
    assert len(names) == 3


def test_a_drawn_crop_says_what_it_was_drawn_from(place: Place) -> None:
    plan = place.plan(crop_origin=None, random_seed=5)
    assert plan == place.plan(crop_origin=None, random_seed=5)
    assert plan.about.extra["random_seed"] == 5
    assert place.plan().about.extra["random_seed"] is None
    assert plan.name != place.plan(crop_origin=None, random_seed=6).name


@pytest.mark.parametrize("setting", [{"uuid": "beef"}, {"instance": "segmentation"}])
def test_a_version_or_instance_that_is_not_there_is_not_found(
    place: Place, setting: dict[str, Any]
) -> None:
    with pytest.raises(NotFoundError) as caught:
        place.plan(**setting)
    assert caught.value.archive == "flyem"
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("html_200", {}),
        ("missing_json_keys", {"keys": ("TypeName",)}),
        ("missing_json_keys", {"keys": ("VoxelSize",)}),
        ("missing_json_keys", {"keys": ("MaxPoint",)}),
        ("missing_json_keys", {"keys": ("Extended",)}),
        ("short_body", {}),
        ("status_503", {}),
    ],
)
def test_a_broken_info_is_a_named_error_and_recovers(
    place: Place, faults: Control, kind: str, more: dict[str, Any]
) -> None:
    faults.add(kind, "dvid", "/info$", **more)
    with pytest.raises(TransportError) as caught:
        place.plan()
    assert "/info" in str(caught.value) or "grayscale" in str(caught.value)
    assert caught.value.archive == "flyem"
    faults.clear()
    assert place.plan().shape_zyx == (10, 20, 30)


def test_extents_may_be_left_out(place: Place, faults: Control) -> None:
    before = place.plan()
    faults.add("missing_json_keys", "dvid", "/info$", keys=("Extents", "VoxelUnits"))
    silent = place.plan()
    assert (silent.shape_zyx, silent.voxel_nm_zyx) == (before.shape_zyx, before.voxel_nm_zyx)
    assert silent.box_zyx == before.box_zyx
    assert (before.voxel_size_approximate, silent.voxel_size_approximate) == (False, True)


@pytest.mark.parametrize("kind", ["html_200", "short_body", "status_403", "status_500", "reset"])
def test_wrong_voxels_are_a_named_error(place: Place, faults: Control, kind: str) -> None:
    plan = place.plan()
    faults.add(kind, "dvid", "/raw/")
    with pytest.raises(MacroscopeError) as caught:
        place.voxels(plan)
    assert "/raw/" in str(caught.value)


def test_a_version_that_changed_while_it_was_read_is_noticed(place: Place) -> None:
    plan = place.plan()
    config = place.config()
    assert place.archive.verify_source_unchanged(plan, config, place.session, place.raw) == []
    (file,) = plan.files
    assert file.etag == f"DataUUID:{dvid_info()['Base']['DataUUID']}"
    older = plan.model_copy(update={"files": (replace(file, etag="DataUUID:of before"),)})
    with pytest.raises(SourceChangedError):
        place.archive.verify_source_unchanged(older, config, place.session, place.raw)
    assert plan.source_id == f"{DVID_UUID}/grayscale"


# --- boxes in words ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("z=0:64", Box((0, 0, 0), (64, 200, 300))),
        ("x=5:6, y = 1 : 2 ,z=3:4", Box((3, 1, 5), (4, 2, 6))),
        ("y=100:", Box((0, 100, 0), (100, 200, 300))),
        ("x=:7", Box((0, 0, 0), (100, 200, 7))),
        ("z=80:160nm", Box((2, 0, 0), (4, 200, 300))),
        ("z=81:159nm", Box((2, 0, 0), (4, 200, 300))),  # widened to whole voxels
        ("z=0.3:0.9nm", Box((0, 0, 0), (1, 200, 300))),
        ("x=12:30nm", Box((0, 0, 3), (100, 200, 8))),
        ("z=:", Box((0, 0, 0), (100, 200, 300))),
    ],
)
def test_a_box_is_read_in_voxels_and_nanometres(text: str, box: Box) -> None:
    assert parse_box(text, (100, 200, 300), (40.0, 8.0, 4.0)) == box


@settings(deadline=None, derandomize=True, database=None)
@given(st.integers(0, 99), st.integers(1, 100), st.sampled_from([2.96, 4.0, 5.24, 0.1]))
def test_nanometres_of_whole_voxels_give_those_voxels(start: int, size: int, voxel: float) -> None:
    stop = min(start + size, 100)
    text = f"z={start * voxel:.9f}:{stop * voxel:.9f}nm"
    if stop > start:
        assert parse_box(text, (100, 9, 9), (voxel, 1.0, 1.0)).start_zyx[0] == start
        assert parse_box(text, (100, 9, 9), (voxel, 1.0, 1.0)).stop_zyx[0] == stop


@pytest.mark.parametrize(
    "text", ["z", "z=1", "w=0:1", "z=0:1,z=2:3", "z=-1:5", "z=1.5:3", "z=0:1;y=0:1", ""]
)
def test_a_box_that_is_none_says_how_one_looks(text: str) -> None:
    with pytest.raises(MacroscopeError, match=r"z=0:64|whole numbers"):
        parse_box(text, (100, 200, 300), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("text", ["z=5:5", "z=6:5", "z=0:101", "x=300:301"])
def test_a_box_outside_the_volume_is_refused(text: str) -> None:
    with pytest.raises(OutOfBoundsError):
        parse_box(text, (100, 200, 300), (1.0, 1.0, 1.0))
