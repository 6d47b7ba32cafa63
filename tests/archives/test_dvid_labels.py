"""Labels of a DVID server: exact at every scale and form, beside the grayscale of the same crop."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulators.dvid_labels import LABELS_SIZE_XYZ, dvid_labels, encode_block, packed_as
from lib.errors import (
    BadAnswerError,
    FormatError,
    NotFoundError,
    OutOfBoundsError,
    UnsupportedFormatError,
)
from lib.formats.dvid import aligned_tiles, decode_block, read_stream, tiles_of
from lib.geometry import Box
from lib.ingest.stages import plan_source
from lib.plan import VolumePlan
from tests.archives.test_labels import assert_levels

SEGMENTATION = "15aee239283143c08b827177ebee01b3"
LABELS = {"uuid": SEGMENTATION, "instance": "segmentation"}
CROP = {"crop_origin": (18010, 20000, 21003), "crop_size": (150, 90, 70)}


def planned(one: Any, tmp_path: Path) -> list[VolumePlan]:
    return [*plan_source("flyem", one.config, tmp_path / "plan").plans]


@pytest.mark.parametrize("supervoxels", [False, True])
@pytest.mark.parametrize("scale", [0, 2])
def test_labels_of_any_scale_are_exact(
    bench: Any, tmp_path: Path, scale: int, supervoxels: bool
) -> None:
    origin = tuple(n >> scale for n in CROP["crop_origin"])
    one = bench(
        "flyem", **LABELS, scale=scale, supervoxels=supervoxels, **{**CROP, "crop_origin": origin}
    )
    (plan,) = planned(one, tmp_path)
    truth = dvid_labels(origin[::-1], (70, 90, 150), scale=scale, supervoxels=supervoxels)
    assert len(np.unique(truth)) > 5
    assert int(truth.max()) > 2**53
    np.testing.assert_array_equal(one.read(plan), truth)
    assert (plan.kind, plan.kind_evidence, plan.dtype) == ("labels", "DVID type labelmap", "uint64")
    size = 8.0 * 2**scale
    assert plan.voxel_nm_zyx == (size,) * 3
    assert plan.origin_nm_zyx[2] == origin[0] * size + (size - 8.0) / 2
    assert plan.about.extra["merges_applied"] is not supervoxels
    assert not any("locked" in note for note in plan.notes)


def test_grayscale_and_labels_of_one_crop_come_in_one_run(bench: Any, tmp_path: Path) -> None:
    one = bench("flyem", labels=f"{SEGMENTATION}/segmentation", **CROP)
    image, labels = planned(one, tmp_path)
    assert (image.kind, labels.kind) == ("image", "labels")
    assert image.box_zyx == labels.box_zyx
    assert image.origin_nm_zyx == labels.origin_nm_zyx
    one.complete_record(image)
    record = one.complete_record(labels)
    truth = dvid_labels(CROP["crop_origin"][::-1], (70, 90, 150))
    assert_levels(tmp_path / "data" / record["files"]["volume"], truth)
    assert record["metadata"]["provenance"]["stated"]["kind"]["where"] == "DVID type labelmap"


def test_labels_that_end_before_the_image_say_so(bench: Any, tmp_path: Path) -> None:
    edge = LABELS_SIZE_XYZ[1]
    where = {"crop_origin": (18010, edge - 10, 21003), "crop_size": (40, 60, 30)}
    one = bench("flyem", labels=f"{SEGMENTATION}/segmentation", **where)
    _, labels = planned(one, tmp_path)
    assert labels.shape_zyx == (30, 10, 40)
    assert any("of the image's" in note for note in labels.notes)
    beyond = {"crop_origin": (18010, edge, 21003), "crop_size": (40, 60, 30)}
    with pytest.raises(OutOfBoundsError, match="have nothing of the crop"):
        planned(bench("flyem", labels=f"{SEGMENTATION}/segmentation", **beyond), tmp_path)


def test_wrong_scales_and_types_are_refused_by_name(bench: Any, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no scale 9"):
        planned(bench("flyem", **LABELS, scale=9, **CROP), tmp_path)
    grey = "a89eb3af216a46cdba81204d8f954786/grayscale"
    with pytest.raises(UnsupportedFormatError, match="uint8blk"):
        planned(bench("flyem", labels=grey, **CROP), tmp_path)


def test_a_stream_that_ends_in_an_error_is_no_volume(
    bench: Any, samples: Any, tmp_path: Path
) -> None:
    one = bench("flyem", **LABELS, **CROP)
    (plan,) = planned(one, tmp_path)
    samples.control.add(service="dvid", kind="late_error", match="/blocks/")
    with pytest.raises(BadAnswerError, match="the stream of blocks"):
        one.read(plan)


def a_block(seed: int, labels: int) -> Any:
    random = np.random.default_rng(seed)
    ids = random.integers(1, 2**63, labels).astype(np.uint64)
    ids[0] = 0
    cells = ids[random.integers(0, labels, (16, 16, 16))]
    return np.ascontiguousarray(cells.repeat(4, 0).repeat(4, 1).repeat(4, 2))


@pytest.mark.parametrize("labels", [1, 2, 3, 9, 1000])
def test_blocks_are_decoded_as_they_were(labels: int) -> None:
    block = a_block(labels, labels)
    np.testing.assert_array_equal(decode_block(encode_block(block)), block)
    noise = np.random.default_rng(1).integers(0, 2**63, (64,) * 3).astype(np.uint64)
    if labels == 1000:
        np.testing.assert_array_equal(decode_block(encode_block(noise)), noise)


def test_no_damage_of_a_block_passes_or_crashes() -> None:
    whole = encode_block(a_block(5, 7))
    for cut in (0, 10, 24, 60, 500, len(whole) - 1):
        with pytest.raises(FormatError):
            decode_block(whole[:cut])
    with pytest.raises(FormatError):
        decode_block(whole + b"\0")
    for at, value in ((0, 9), (12, 0), (12, 6)):
        with pytest.raises(FormatError):
            decode_block(whole[:at] + struct.pack("<I", value) + whole[at + 4 :])
    indices = 16 + 8 * 7 + 2 * 512
    with pytest.raises(FormatError):
        decode_block(whole[:indices] + b"\xff" * 4 + whole[indices + 4 :])


@pytest.mark.parametrize("form", ["lz4", "uncompressed"])
def test_a_stream_in_another_form_than_asked_for_is_refused(form: str) -> None:
    data = packed_as(a_block(3, 4), form)
    record = struct.pack("<4i", 1, 2, 3, len(data)) + data
    with pytest.raises(FormatError, match="not compressed as it was asked for"):
        read_stream(record, {(3, 2, 1)})


def test_a_block_that_nobody_asked_for_or_twice_is_refused() -> None:
    data = packed_as(a_block(3, 4), "blocks")
    record = struct.pack("<4i", 1, 2, 3, len(data)) + data
    assert set(read_stream(record, {(3, 2, 1)})) == {(3, 2, 1)}
    for wanted, sent in (({(1, 2, 3)}, record), ({(3, 2, 1)}, record * 2)):
        with pytest.raises(FormatError, match="has a block"):
            read_stream(sent, wanted)


def test_tiles_cover_a_box_once_from_the_servers_blocks() -> None:
    box = Box((5, 100, 130), (140, 129, 400))
    tiles = [*aligned_tiles(box)]
    assert len(tiles) == tiles_of(box)
    seen = np.zeros(box.shape_zyx, int)
    for tile in tiles:
        seen[tile.slices(box.start_zyx)] += 1
    assert (seen == 1).all()
