"""N5: headers that lie, damaged payloads, contradicting geometry; mirrored axes are turned."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.bytesource.tree import LocalTree
from lib.errors import FormatError, MacroscopeError, UnsupportedFormatError
from lib.formats.format import Options
from lib.formats.n5.blocks import Dataset, parse_dataset
from lib.formats.n5.format import N5Format
from lib.formats.n5.geometry import axes_of, placing
from lib.geometry import Box

SHAPE, BLOCK = (10, 9, 8), (4, 4, 4)  # x, y, z


def made(kind: str = "raw", dtype: str = "uint8", **more: Any) -> Dataset:
    document = {
        "dimensions": [*SHAPE],
        "blockSize": [*BLOCK],
        "dataType": dtype,
        "compression": {"type": kind},
        **more,
    }
    dataset = parse_dataset(document, "x/attributes.json")
    assert dataset is not None
    return dataset


def block(size: tuple[int, ...], data: bytes, mode: int = 0, axes: int = 3) -> bytes:
    return struct.pack(f">HH{len(size)}I", mode, axes, *size) + data


def test_a_cut_block_belongs_to_the_end_only() -> None:
    cut = block((2, 1, 4), bytes(range(8)))
    whole = made().decode(cut, (2, 2, 1))
    assert whole.shape == (4, 4, 4)
    np.testing.assert_array_equal(whole[:, 0, :2].reshape(-1), np.arange(8))
    assert whole[:, 1:].sum() == 0
    with pytest.raises(FormatError, match="where \\(4, 4, 4\\) belong"):
        made().decode(cut, (0, 0, 0))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0",
        block((4, 4, 4), bytes(63)),
        block((4, 4, 4), bytes(65)),
        block((4, 4, 8), bytes(128)),
        block((2**32 - 1, 1, 1), bytes(4)),
        block((4, 4), bytes(16), axes=2) + bytes(4),
    ],
)
def test_a_header_that_lies_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        made().decode(data, (0, 0, 0))


@pytest.mark.parametrize("mode", [2, 3])
def test_blocks_of_objects_are_refused(mode: int) -> None:
    with pytest.raises(UnsupportedFormatError, match=f"mode {mode}"):
        made().decode(block((4, 4, 4), bytes(64), mode), (0, 0, 0))


def test_a_block_of_variable_length_that_holds_all_of_its_voxels_is_read() -> None:
    voxels = bytes(range(64))
    counted = block((4, 4, 4), struct.pack(">I", 64) + voxels, 1)
    assert made().decode(counted, (0, 0, 0)).tobytes() == voxels
    with pytest.raises(FormatError, match="63 voxels"):
        made().decode(block((4, 4, 4), struct.pack(">I", 63) + voxels, 1), (0, 0, 0))


RESOLUTION = {"resolution": [4, 5, 30], "units": ["nm"] * 3}


IMAGEJ = {"pixelWidth": 0.004, "pixelHeight": 0.005, "pixelDepth": 0.03, "pixelUnit": "micron"}


@pytest.mark.parametrize(
    ("own", "group", "level", "voxel", "origin"),
    [
        (RESOLUTION, {}, "", (30, 5, 4), None),
        (RESOLUTION | {"units": "um"}, {}, "", (30e3, 5e3, 4e3), None),
        (IMAGEJ, {}, "", (30, 5, 4), None),
        (IMAGEJ | {"yOrigin": -2.0}, {}, "", (30, 5, 4), (0, 10, 0)),
        (RESOLUTION | {"offset": [8, 10, 90]}, {}, "", (30, 5, 4), (90, 10, 8)),
        ({}, RESOLUTION | {"scales": [[1, 1, 1], [2, 3, 1]]}, "s1", (30, 15, 8), (0, 5, 2)),
        (RESOLUTION | {"axes": ["z", "y", "x"]}, {}, "", (4, 5, 30), None),
        (
            {
                "pixelResolution": {"dimensions": [4, 5, 30], "unit": "nm"},
                "downsamplingFactors": [2, 2, 1],
            },
            {},
            "s1",
            (30, 10, 8),
            (0, 2.5, 2),
        ),
        (
            {
                "pixelResolution": {"dimensions": [8, 10, 30], "unit": "nm"},
                "downsamplingFactors": [2, 2, 1],
                "transform": {
                    "axes": ["z", "y", "x"],
                    "units": ["nm"] * 3,
                    "scale": [30, 10, 8],
                    "translate": [0, 2.5, 2],
                },
            },
            {},
            "s1",
            (30, 10, 8),
            (0, 2.5, 2),
        ),
    ],
)
def test_lengths_and_places_are_in_the_order_of_the_axes(
    own: dict[str, Any], group: dict[str, Any], level: str, voxel: Any, origin: Any
) -> None:
    place = placing({"dimensions": [3, 4, 5], **own}, group, level, "x")
    assert place.voxel_nm_zyx == pytest.approx(voxel)
    assert place.origin_nm_zyx == (None if origin is None else pytest.approx(origin))


def test_imagej_says_which_of_its_axes_are_planes() -> None:
    """Channels of one plane came out as sections."""
    counts = {"numChannels": 3, "numSlices": 1, "numFrames": 1}
    for dimensions, more, axes in (
        ([4, 5, 3], {}, "xyc"),
        ([4, 5, 7], {"numChannels": 1, "numSlices": 7}, "xyz"),
        ([4, 5, 3, 7], {"numSlices": 7}, "xycz"),
        ([4, 5, 3, 7, 1], {"numSlices": 7}, "xyczt"),
        ([4, 5, 6], {"numChannels": 2, "numSlices": 3, "numFrames": 2}, "xyz"),
    ):
        assert axes_of({"dimensions": dimensions, **counts, **more}, {}) == [*axes]


def test_axes_that_a_dataset_names_say_which_is_which(tmp_path: Path) -> None:
    document = {
        "dimensions": [2, 3, 4],
        "blockSize": [2, 3, 4],
        "dataType": "uint8",
        "compression": {"type": "raw"},
        "axes": ["z", "y", "x"],
    }
    (tmp_path / "0/0").mkdir(parents=True)
    (tmp_path / "attributes.json").write_text(json.dumps(document))
    (tmp_path / "0/0/0").write_bytes(block((2, 3, 4), bytes(range(24))))
    (volume,) = N5Format().describe(LocalTree(tmp_path), "", "", Options())
    assert volume.shape_zyx == (2, 3, 4)
    whole = Box.whole(volume.shape_zyx)
    reader = N5Format().open(LocalTree(tmp_path), "", volume.handle, box=whole)
    (read,) = [one.data for one in reader.blocks(whole)]
    np.testing.assert_array_equal(read, np.arange(24, dtype="u1").reshape(4, 3, 2).T)


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "lz4", "zstd", "blosc"])
@pytest.mark.parametrize("payload", [b"", b"\0" * 40, b"LZ4Block" + b"\xff" * 40])
def test_a_damaged_payload_is_named(kind: str, payload: bytes) -> None:
    with pytest.raises(FormatError):
        made(kind).decode(block((4, 4, 4), payload), (0, 0, 0))


def test_a_payload_that_unpacks_beyond_its_block_is_bounded() -> None:
    bomb = zlib.compress(bytes(10**7))
    dataset = made("gzip", compression={"type": "gzip", "useZlib": True})
    with pytest.raises(FormatError):
        dataset.decode(block((4, 4, 4), bomb), (0, 0, 0))


@pytest.mark.parametrize(
    "change",
    [
        {"isLabelMultiset": True},
        {"dataType": "string"},
        {"compression": {"type": "jpeg"}},
        {"compression": {"type": "blosc", "shuffle": {}}},
        {"compression": {"type": "zstd", "level": float("nan")}},
        {"dimensions": [10, 9]},
        {"blockSize": [0, 4, 4]},
        {"blockSize": [2**20, 2**20, 4]},
        {"dimensions": "many"},
    ],
)
def test_what_is_not_read_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MacroscopeError):
        made(**change)


def described(folder: Path, own: dict[str, Any], group: dict[str, Any] | None = None) -> Any:
    (folder / "em/s0").mkdir(parents=True)
    base = {
        "dimensions": [*SHAPE],
        "blockSize": [*BLOCK],
        "dataType": "uint8",
        "compression": {"type": "raw"},
    }
    (folder / "em/s0/attributes.json").write_text(json.dumps({**base, **own}))
    (folder / "em/attributes.json").write_text(json.dumps(group or {}))
    tree = LocalTree(Path("/"))
    (volume,) = N5Format().describe(tree, str(folder).strip("/"), "em/s0", Options())
    return volume


TRANSFORM = {
    "axes": ["z", "y", "x"],
    "units": ["nm"] * 3,
    "scale": [5.24, 4.0, 4.0],
    "translate": [0.0, 6400.0, 0.0],
}


@pytest.mark.parametrize(
    ("step", "translate", "first", "edge"),
    [
        (4.0, 4.0 * SHAPE[1], 0.0, True),  # the far edge, as OpenOrganelle's predictions have it
        (4.0, 4.0 * (SHAPE[1] - 1), 0.0, False),  # the centre of the last voxel
        (8.0, 8.0 * SHAPE[1] - 2.0, 2.0, True),  # the second level of the first
        (4.0, 1000.0, 1000.0 - 4.0 * (SHAPE[1] - 1), False),
    ],
)
def test_where_a_mirrored_volume_begins(
    tmp_path: Path, step: float, translate: float, first: float, edge: bool
) -> None:
    transform = {"axes": ["z", "y", "x"], "units": ["nm"] * 3}
    transform |= {"scale": [4.0, -step, 4.0], "translate": [0.0, translate, 0.0]}
    volume = described(tmp_path, {"transform": transform})
    assert volume.origin_nm_zyx == (0.0, first, 0.0)
    assert any("far edge" in note for note in volume.notes) == edge


def test_a_mirrored_volume_begins_where_its_last_voxel_lies(tmp_path: Path) -> None:
    volume = described(tmp_path, {"transform": {**TRANSFORM, "scale": [5.24, -4.0, 4.0]}})
    assert volume.refused is None
    assert volume.handle["mirrored"] == "y"
    assert volume.origin_nm_zyx == (0.0, 6400.0 - (SHAPE[1] - 1) * 4.0, 0.0)
    (note,) = [note for note in volume.notes if "mirrored" in note]
    assert "the y axis is stored mirrored" in note


@pytest.mark.parametrize("group", [{"multiscales": "x"}, {"multiscales": [{"datasets": [1]}]}])
def test_attributes_of_a_group_that_are_no_pyramid_are_named(
    tmp_path: Path, group: dict[str, Any]
) -> None:
    with pytest.raises(FormatError, match="cannot be read"):
        described(tmp_path, {}, group)


def test_the_order_of_a_transform_is_in_its_axes(tmp_path: Path) -> None:
    volume = described(
        tmp_path,
        {"transform": {**TRANSFORM, "axes": ["x", "y", "z"], "scale": [4.0, 4.0, 5.24]}},
    )
    assert (volume.voxel.z_nm, volume.voxel.y_nm, volume.voxel.x_nm) == (5.24, 4.0, 4.0)
    assert volume.origin_nm_zyx == (0.0, 6400.0, 0.0)


@pytest.mark.parametrize(
    ("own", "group"),
    [
        ({}, {"scales": [[1, 1, 1], [2, 2, 1]]}),
        ({"downsamplingFactors": [2, 2, 1]}, {}),
        (
            {
                "downsamplingFactors": [2, 2, 1],
                "pixelResolution": {"unit": "um", "dimensions": [0.004, 0.004, 0.04]},
            },
            {},
        ),
    ],
)
def test_a_coarser_level_begins_where_the_finest_does(
    tmp_path: Path, own: dict[str, Any], group: dict[str, Any]
) -> None:
    """Centres: half of what its voxel is longer further on."""
    finest = {"resolution": [4.0, 4.0, 40.0], "units": ["nm"] * 3}
    attributes = {"dimensions": [4, 4, 4], "blockSize": [4, 4, 4], "dataType": "uint8"}
    attributes |= {"compression": {"type": "raw"}}
    for level, more in (("s0", {}), ("s1", own)):
        (tmp_path / "em" / level).mkdir(parents=True)
        text = json.dumps({**attributes, **more})
        (tmp_path / "em" / level / "attributes.json").write_text(text)
    (tmp_path / "em/attributes.json").write_text(json.dumps({**finest, **group}))
    (volume,) = N5Format().describe(LocalTree(tmp_path), "", "em", Options(level="s1"))
    assert (volume.voxel.z_nm, volume.voxel.y_nm, volume.voxel.x_nm) == (40.0, 8.0, 8.0)
    assert volume.origin_nm_zyx == (0.0, 2.0, 2.0)


def test_places_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="pixelResolution"):
        described(
            tmp_path,
            {
                "transform": TRANSFORM,
                "pixelResolution": {"dimensions": [5.24, 4.0, 4.0], "unit": "nm"},
            },
        )


def test_numbers_without_a_unit_are_quoted_and_not_taken(tmp_path: Path) -> None:
    volume = described(tmp_path, {}, {"resolution": [4.0, 4.0, 40.0]})
    assert volume.voxel.known_nm_zyx is None
    assert "[4.0, 4.0, 40.0]" in volume.notes[0]


NGFF_AXES = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "xyz"]
SCALED = [{"type": "scale", "scale": [4, 5, 30]}, {"type": "translation", "translation": [8, 0, 3]}]
AFFINE = [{"type": "affine", "affine": [[4, 0, 0, 1]]}]


def _ngff(steps: list[dict[str, Any]], axes: Any = NGFF_AXES, **more: Any) -> dict[str, Any]:
    datasets = [{"path": "s0", "coordinateTransformations": steps}]
    return {"multiscales": [{"axes": axes, "datasets": datasets, **more}]}


def test_scales_in_the_words_of_ngff_go_by_the_names_of_their_axes() -> None:
    place = placing({}, _ngff(SCALED), "s0", "x")
    assert (place.voxel_nm_zyx, place.origin_nm_zyx) == ((30, 5, 4), (3, 0, 8))
    assert not place.notes


@pytest.mark.parametrize(
    ("own", "group", "said"),
    [
        ({}, _ngff(AFFINE), "the level's coordinateTransformations says [{'type': 'affine'"),
        ({}, _ngff(SCALED, ["x", "y", "z"]), "the level's coordinateTransformations"),
        ({}, _ngff(SCALED, None), "the level's coordinateTransformations"),
        ({"spatialTransform": {"transform": {"type": "affine"}}}, {}, "spatialTransform says"),
        ({"transformations": [4]}, {}, "transformations says [4], which is not read"),
        ({"coordinateTransformations": SCALED}, {}, "coordinateTransformations says"),
        ({"transform": {**TRANSFORM, "axes": [*"czyx"]}}, {}, "transform says"),
        ({"transform": [4, 0, 0, 0]}, {}, "transform says [4, 0, 0, 0], which is not read"),
        ({}, {"transform": TRANSFORM}, "the group's transform says"),
        ({"resolution": [4, 4]}, {}, "resolution says [4, 4], which is not read"),
        ({"voxelSize": "4 nm"}, {}, "voxelSize says 4 nm"),
        ({"offset": [1, 2, 3]}, {}, "offset says [1, 2, 3]"),
    ],
)
def test_lengths_in_words_that_are_not_read_are_quoted(
    own: dict[str, Any], group: dict[str, Any], said: str
) -> None:
    """They were dropped: a volume with a place of its own looked like one without."""
    place = placing({"dimensions": [3, 4, 5], **own}, group, "s0", "x")
    assert place.voxel_nm_zyx is None
    assert [note for note in place.notes if note.startswith(said)], place.notes


def test_what_is_read_is_not_quoted_and_what_lies_beside_it_is() -> None:
    own = {"transform": TRANSFORM, "pixelResolution": {"dimensions": [4, 4, 5.24], "unit": "nm"}}
    assert not placing({**own, "dimensions": [3, 4, 5]}, {"scales": [[1, 1, 1]]}, "s0", "x").notes
    place = placing({**RESOLUTION, "dimensions": [3, 4, 5], "affine_transform": [1]}, {}, "", "x")
    assert place.voxel_nm_zyx == (30, 5, 4)
    assert place.notes == ("affine_transform says [1], which is not read",)
    place = placing({"transform": {**TRANSFORM, "units": ["px"] * 3}, **RESOLUTION}, {}, "", "x")
    assert place.voxel_nm_zyx == (30, 5, 4), "a transform without lengths hid a resolution"
    assert "no lengths" in place.notes[0]


def test_a_box_is_surveyed_from_the_listing(tmp_path: Path) -> None:
    volume = described(tmp_path, {})
    target = tmp_path / "em/s0/0/0/1"
    target.parent.mkdir(parents=True)
    target.write_bytes(block((4, 4, 4), bytes(64)))
    root = str(tmp_path).strip("/")
    survey = N5Format().survey(LocalTree(Path("/")), root, volume, Box((4, 0, 0), (8, 4, 8)))
    assert survey.requests == 1
    assert survey.nbytes == 80
    assert survey.grid is not None
    assert survey.grid.missing() == {(1, 0, 1)}
    assert survey.notes == ("1 of 2 chunks are absent, read as 0",)
