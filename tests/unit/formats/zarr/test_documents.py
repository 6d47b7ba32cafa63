"""A Zarr v2 document is read for what it says, and refused by name where it says nonsense."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from lib.archives.voxels import decide_voxel
from lib.compression import can_pass_through
from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.chunked import cells_in
from lib.formats.zarr.array import ArrayDocument, parse_array
from lib.formats.zarr.axes import stated_names, understood
from lib.formats.zarr.ngff import (
    Multiscale,
    NgffLevel,
    level_of_array,
    multiscale_above,
    names_of_array,
    parse_multiscale,
    parse_multiscales,
)
from lib.geometry import Box
from lib.safety import json_object

GOOD: dict[str, Any] = {
    "zarr_format": 2,
    "shape": [30, 100, 80],
    "chunks": [16, 64, 64],
    "dtype": "<u2",
    "compressor": {"id": "zstd", "level": 1},
    "filters": None,
    "order": "C",
    "fill_value": 0,
    "dimension_separator": "/",
}


def parse(**changes: Any) -> ArrayDocument:
    document = {key: value for key, value in (GOOD | changes).items() if value is not ...}
    return parse_array(json.dumps(document).encode(), "set/s0/.zarray")


def test_what_it_says_is_read() -> None:
    found = parse()
    assert found.shape_zyx == (30, 100, 80)
    assert found.chunk_zyx == (16, 64, 64)
    assert found.dtype == np.dtype("uint16")
    assert found.axes == 3
    assert found.chunk_key((1, 0, 2)) == "1/0/2"
    assert parse(dtype=">f4").dtype.isnative
    assert parse(compressor=None).compressor == {}


def test_an_absent_separator_is_a_dot_unless_a_listing_showed_another() -> None:
    assert parse(dimension_separator=...).chunk_key((1, 0, 2)) == "1.0.2"
    data = json.dumps({k: v for k, v in GOOD.items() if k != "dimension_separator"}).encode()
    assert parse_array(data, "x", separator="/").chunk_key((1, 0, 2)) == "1/0/2"


def test_a_plane_is_a_volume_of_one_plane() -> None:
    found = parse(shape=[100, 80], chunks=[64, 32])
    assert (found.shape_zyx, found.chunk_zyx, found.axes) == ((1, 100, 80), (1, 64, 32), 2)
    assert found.chunk_key((0, 1, 2)) == "1/2"


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("|u1", None, 0),
        ("<u2", 7, 7),
        ("<f4", 0.5, 0.5),
        ("|i1", -1, -1),
        ("<u8", 2**64 - 1, 2**64 - 1),
    ],
)
def test_the_fill_value_is_that_of_the_dtype(dtype: str, value: Any, expected: Any) -> None:
    found = parse(dtype=dtype, fill_value=value).fill_value
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": ...},
        {"chunks": ...},
        {"dtype": ...},
        {"compressor": ...},
        {"order": ...},
        {"zarr_format": ...},
        {"shape": [0, 1, 1]},
        {"shape": [-5, 1, 1]},
        {"chunks": [0, 1, 1]},
        {"chunks": [100000, 100000, 100000]},
        {"shape": "x"},
        {"shape": None},
        {"order": "K"},
        {"compressor": "zstd"},
        {"compressor": {"level": 1}},
        {"compressor": {"id": "zstd", "wrong": 1}},
        {"filters": True},
        {"filters": [{"id": "delta", "dtype": ["<u2"]}]},
        {"fill_value": 300, "dtype": "|u1"},
        {"fill_value": [1, 2]},
        {"fill_value": [1]},
        {"fill_value": {}},
        {"fill_value": "x"},
        {"dimension_separator": None},
        {"dimension_separator": 5},
        {"dimension_separator": "x"},
    ],
    ids=str,
)
def test_nonsense_is_a_format_error_that_names_the_document(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError) as caught:
        parse(**changes)
    assert caught.value.location == "set/s0/.zarray"


@pytest.mark.parametrize(
    "changes",
    [
        {"zarr_format": 3},
        {"dtype": "<c8"},
        {"dtype": [["a", "<u1"]]},
        {"dtype": "<M8[ns]"},
        {"shape": [5], "chunks": [5]},
        {"shape": [2, 2, 3, 4], "chunks": [1, 2, 3, 4]},
        {"shape": [1] * 6, "chunks": [1] * 6},
        {"filters": [{"id": "delta", "dtype": "<u2", "astype": "<u1"}]},
        {"filters": [{"id": "fixedscaleoffset", "dtype": "<u2"}]},
        {"compressor": {"id": "zfpy"}},
        {"compressor": {"id": "of the future"}},
    ],
    ids=str,
)
def test_what_is_valid_but_not_converted_is_said_to_be_unsupported(changes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedFormatError) as caught:
        parse(**changes)
    assert caught.value.location == "set/s0/.zarray"


@pytest.mark.parametrize("data", [b"", b"<html>", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_document_is_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_array(data, "x")
    with pytest.raises(FormatError):
        json_object(data, ".zattrs", "x")


def test_only_chunks_that_zarr_v3_can_describe_are_passed_through() -> None:
    blosc = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}
    zstd = {"id": "zstd", "level": 3}
    assert can_pass_through(blosc, [], "C", "<u2")
    assert can_pass_through(zstd, [], "C", "|u1")
    assert can_pass_through({"id": "zstd"}, [], "C", "|u1")
    assert can_pass_through({"id": "gzip", "level": 1}, [], "C", "<u2")
    assert can_pass_through({"id": "zlib", "level": 9}, [], "C", "<u2")
    assert not can_pass_through(zstd, [], "C", "<f2"), "it is widened"
    for config in (
        {"id": "gzip"},
        {"id": "zlib", "level": -1},
        blosc | {"cname": "snappy"},
        {},
        zstd | {"level": 99},
        zstd | {"level": "high"},
        blosc | {"shuffle": -1},
        blosc | {"cname": "of the future"},
        blosc | {"clevel": 12},
        blosc | {"blocksize": -1},
    ):
        assert not can_pass_through(config, [], "C", "<u2")
    assert not can_pass_through(zstd, [{"id": "delta"}], "C", "<u2")
    assert not can_pass_through(zstd, [], "F", "<u2")
    assert not can_pass_through(zstd, [], "C", ">u2")


def test_the_chunks_of_a_box_are_all_it_touches() -> None:
    found = parse()
    assert len(cells_in(Box.whole(found.shape_zyx), found.chunk_zyx)) == 2 * 2 * 2
    assert cells_in(Box((15, 63, 64), (17, 64, 80)), found.chunk_zyx) == [(0, 0, 1), (1, 0, 1)]
    assert cells_in(Box((0, 0, 0), (1, 1, 1)), found.chunk_zyx) == [(0, 0, 0)]


# --- multiscales -----------------------------------------------------------------------------


def multiscale(**changes: Any) -> dict[str, Any]:
    axes = [{"name": n, "type": "space", "unit": "nanometer"} for n in "zyx"]
    steps = [
        {"type": "scale", "scale": [8.0, 4.0, 2.0]},
        {"type": "translation", "translation": [1.0, 2.0, 3.0]},
    ]
    block = {"axes": axes, "datasets": [{"path": "s0", "coordinateTransformations": steps}]}
    return {"multiscales": [{k: v for k, v in (block | changes).items() if v is not ...}]}


def level(**changes: Any) -> tuple[Any, Any]:
    found = parse_multiscale(multiscale(**changes), "x")
    assert found is not None
    return found.levels[0].voxel_nm_zyx, found.levels[0].translation_nm_zyx


def test_the_outer_transformation_comes_after_that_of_the_level() -> None:
    assert level() == ((8.0, 4.0, 2.0), (1.0, 2.0, 3.0))
    outer = [
        {"type": "scale", "scale": [2.0, 3.0, 4.0]},
        {"type": "translation", "translation": [10.0, 20.0, 30.0]},
    ]
    assert level(coordinateTransformations=outer) == ((16.0, 12.0, 8.0), (12.0, 26.0, 42.0))
    backwards = level(coordinateTransformations=outer[::-1])
    assert backwards == ((16.0, 12.0, 8.0), (22.0, 66.0, 132.0))
    assert level(coordinateTransformations=[{"type": "identity"}])[0] == (8.0, 4.0, 2.0)


@pytest.mark.parametrize(
    ("unit", "nm"), [("micrometer", 1000.0), ("angstrom", 0.1), ("nanometer", 1)]
)
def test_units_become_nanometres_axis_by_axis(unit: str, nm: float) -> None:
    axes = [{"name": "z", "unit": unit}, {"name": "y"}, {"name": "x", "unit": "nanometer"}]
    voxel, shift = level(axes=axes)
    assert voxel == pytest.approx((8.0 * nm, 4.0, 2.0))
    assert shift == pytest.approx((1.0 * nm, 2.0, 3.0))


def test_a_group_without_multiscales_has_none() -> None:
    assert parse_multiscale({}, "x") is None
    assert parse_multiscale({"multiscales": []}, "x") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"datasets": ...},
        {"datasets": []},
        {"datasets": [{"coordinateTransformations": []}]},
        {"datasets": [{"path": "s0", "coordinateTransformations": [{"type": "scale"}]}]},
        {
            "datasets": [
                {"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": [1, 2]}]}
            ]
        },
        {
            "datasets": [
                {"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": [0, 1, 1]}]}
            ]
        },
        {
            "datasets": [
                {
                    "path": "s0",
                    "coordinateTransformations": [{"type": "scale", "scale": ["nan"] * 3}],
                }
            ]
        },
        {"datasets": 5},
        {"axes": 5},
        {"axes": [{"name": n} for n in "yx"]},
    ],
    ids=str,
)
def test_a_broken_multiscale_is_a_format_error(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError) as caught:
        parse_multiscale(multiscale(**changes), "a/.zattrs")
    assert caught.value.location == "a/.zattrs"
    with pytest.raises(FormatError):
        parse_multiscale({"multiscales": changes}, "x")


@pytest.mark.parametrize(
    "changes",
    [
        {"axes": [{"name": n} for n in "zzyx"]},
        {"axes": [{"name": n} for n in "vzyx"]},
        {"axes": [{"name": n} for n in "tcz"]},
        {"axes": ...},
        {"axes": [{"name": n, "unit": "second"} for n in "zyx"]},
        {"coordinateTransformations": [{"type": "affine", "affine": []}]},
    ],
    ids=str,
)
def test_other_axes_units_and_transformations_are_unsupported(changes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedFormatError):
        parse_multiscale(multiscale(**changes), "x")


@pytest.mark.parametrize("said", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2"])
def test_a_float_may_be_filled_with_what_is_no_number(said: str, dtype: str) -> None:
    found = parse(dtype=dtype, fill_value=said)
    assert isinstance(found.fill_value, float)
    np.testing.assert_equal(found.fill_value, float(said))
    with pytest.raises(FormatError):
        parse(dtype="<u2", fill_value=said)


def test_half_floats_are_widened() -> None:
    assert parse(dtype="<f2").dtype == np.float32
    assert parse(dtype="<f2").notes == ("float16 voxels are widened to float32",)
    assert parse().notes == ()


# --- what is stated of a voxel's size ------------------------------------------------------------

SCALE = {"type": "scale", "scale": [30.0, 4.0, 4.0]}
SHIFT = {"type": "translation", "translation": [1.0, 2.0, 3.0]}


def level_of(**changes: Any) -> NgffLevel:
    """The level ``s0`` of axes in nanometres without any transformation, and some changes."""
    block = {
        "axes": [{"name": n, "type": "space", "unit": "nanometer"} for n in "zyx"],
        "datasets": [{"path": "s0", "coordinateTransformations": changes.pop("inner", [])}],
    }
    found = parse_multiscale({"multiscales": [block | changes]}, "x")
    assert found is not None
    return found.levels[0]


# what a multiscale says -> z, y, x; the axes that rest on a default; a word of the note
STATED: list[tuple[str, dict[str, Any], tuple[Any, ...], str, str]] = [
    ("a scale", {"inner": [SCALE]}, (30.0, 4.0, 4.0), "", ""),
    ("none", {}, (None, None, None), "", "level s0 no scale"),
    ("none, but a shift", {"inner": [SHIFT]}, (None, None, None), "", "level s0 no scale"),
    (
        "ones for all levels",
        {"coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]},
        (None, None, None),
        "",
        "level s0 no scale",
    ),
    ("one of all levels", {"coordinateTransformations": [SCALE]}, (30.0, 4.0, 4.0), "", ""),
    (
        "a scale without a unit",
        {"inner": [SCALE], "axes": [{"name": n} for n in "zyx"]},
        (30.0, 4.0, 4.0),
        "zyx",
        "state no unit",
    ),
    (
        "a unit of two axes",
        {
            "inner": [SCALE],
            "axes": [{"name": "z"}, *({"name": n, "unit": "micrometer"} for n in "yx")],
        },
        (30.0, 4000.0, 4000.0),
        "z",
        "state no unit",
    ),
    (
        "a plane",
        {
            "inner": [{"type": "scale", "scale": [5.0, 4.0]}],
            "axes": [{"name": n, "unit": "nanometer"} for n in "yx"],
        },
        (None, 5.0, 4.0),
        "",
        "",
    ),
]


@pytest.mark.parametrize(
    ("changes", "size", "assumed", "note"), [row[1:] for row in STATED], ids=[r[0] for r in STATED]
)
def test_a_default_is_never_called_a_measurement(
    changes: dict[str, Any], size: tuple[Any, ...], assumed: str, note: str
) -> None:
    level = level_of(**dict(changes))
    voxel = level.voxel
    assert (voxel.z_nm, voxel.y_nm, voxel.x_nm) == size
    assert voxel.assumed == assumed
    assert bool(level.notes) == bool(note)
    assert all(note in one for one in level.notes)
    decided = decide_voxel(voxel, (None, None, None), "the settings")
    assert decided.approximate == (None in size or bool(assumed))
    for axis, length in zip("zyx", size, strict=True):
        sure = length is not None and axis not in assumed
        assert decided.stated[f"voxel_size_nm.{axis}"].source == ("file" if sure else "assumed")


def test_a_shift_without_a_scale_is_kept() -> None:
    assert level_of(inner=[SHIFT]).translation_nm_zyx == (1.0, 2.0, 3.0)


def test_an_array_is_found_however_deep_its_multiscale_names_it() -> None:
    outer = parse_multiscale(
        {
            "multiscales": [
                {
                    "axes": [{"name": n, "unit": "nanometer"} for n in "zyx"],
                    "datasets": [
                        {"path": "scale0/image", "coordinateTransformations": [SCALE]},
                        {"path": "s1", "coordinateTransformations": [SCALE]},
                    ],
                }
            ]
        },
        "x",
    )
    other = parse_multiscale(multiscale(), "x")
    assert outer is not None and other is not None
    groups = {"em": [other, outer], "em/scale0": [other]}

    def at(path: str) -> list[Multiscale]:
        return groups.get(path, [])

    def above(path: str) -> tuple[str, str, Multiscale | None]:
        return multiscale_above(path, at, lambda one: one.paths)

    assert above("em/scale0/image") == ("em", "scale0/image", outer), "the second there"
    assert above("em/s1") == ("em", "s1", outer)
    assert above("em/scale0/other") == ("em/scale0", "other", other), "the nearest"
    assert above("a/b") == ("", "b", None)


# --- names of axes, several multiscales, arrays that speak for themselves ------------------------


@pytest.mark.parametrize(
    ("given", "known"),
    [
        (["Z", "Y", "X"], ["z", "y", "x"]),
        (["x", "y", None], ["x", "y", "z"]),
        (["x", None, "z"], ["x", "y", "z"]),
        ([None, None, "x"], ["z", "y", "x"]),
        (["x", None, None], ["x", "unnamed 1", "unnamed 2"]),
        (["dim_0", "dim_1", "dim_2"], None),
        (["phony_dim_0", "", None], None),
        (["depth", "height", "width"], ["depth", "height", "width"]),
    ],
)
def test_axes_without_a_name_are_told_where_that_leaves_no_choice(
    given: list[Any], known: list[str] | None
) -> None:
    assert stated_names(given) == known


@pytest.mark.parametrize(
    ("names", "taken", "told"),
    [
        (["depth", "height", "width"], None, True),
        (["x", "y", "z"], ["x", "y", "z"], False),
        (["slice", "y", "x"], ["slice", "y", "x"], False),
        (["x", "unnamed 1", "unnamed 2"], ["x", "unnamed 1", "unnamed 2"], False),
        (None, None, False),
    ],
)
def test_axes_of_other_names_are_taken_by_their_places_and_told(
    names: list[str] | None, taken: list[str] | None, told: bool
) -> None:
    notes: list[str] = []
    assert understood(names, notes) == taken
    assert bool(notes) == told


def test_every_multiscale_of_a_group_counts_and_of_equal_ones_the_first() -> None:
    def block(path: str, length: float) -> dict[str, Any]:
        step = {"type": "scale", "scale": [length] * 3}
        axes = [{"name": n, "unit": "nanometer"} for n in "ZYX"]
        return {"axes": axes, "datasets": [{"path": path, "coordinateTransformations": [step]}]}

    blocks = [block("a", 4.0), block("b", 9.0), block("a", 1.0)]
    found = parse_multiscales({"multiscales": blocks}, "x")
    assert [(one.levels[0].path, one.levels[0].voxel.z_nm) for one in found] == [
        ("a", 4.0),
        ("b", 9.0),
    ]


def test_levels_that_begin_with_the_coarsest_are_put_in_order() -> None:
    found = parse_multiscale(
        multiscale(
            datasets=[
                {"path": path, "coordinateTransformations": [{"type": "scale", "scale": [n] * 3}]}
                for path, n in (("s2", 4.0), ("s0", 1.0), ("s1", 2.0))
            ]
        ),
        "x",
    )
    assert found is not None
    assert [level.path for level in found.levels] == ["s0", "s1", "s2"]


def test_pixels_and_an_empty_unit_are_no_lengths() -> None:
    pixels = level_of(inner=[SCALE], axes=[{"name": n, "unit": "pixel"} for n in "zyx"])
    assert pixels.voxel.known_nm_zyx is None
    assert "in pixels" in pixels.notes[0]
    placed = level_of(
        inner=[SCALE, {"type": "translation", "translation": [3.0, 4.0, 5.0]}],
        axes=[{"name": n, "unit": "pixel" if n == "z" else "nanometer"} for n in "zyx"],
    )
    assert placed.translation_nm_zyx == (0.0, 4.0, 5.0), "three pixels are not three nanometres"
    empty = level_of(inner=[SCALE], axes=[{"name": n, "unit": ""} for n in "zyx"])
    assert empty.voxel.assumed == "zyx"


def test_an_axis_that_runs_downwards_is_not_read() -> None:
    with pytest.raises(UnsupportedFormatError, match="negative scale"):
        level_of(inner=[{"type": "scale", "scale": [4.0, -4.0, 4.0]}])


def test_of_several_coordinate_systems_that_of_the_datasets_counts() -> None:
    inner = {"name": "physical", "axes": [{"name": n, "unit": "nanometer"} for n in "zyx"]}
    world = {"name": "world", "axes": [{"name": n, "unit": "micrometer"} for n in "xyz"]}
    step = {"type": "scale", "input": "0", "output": "physical", "scale": [30.0, 4.0, 5.0]}
    block = {
        "datasets": [{"path": "0", "coordinateTransformations": [step]}],
        "coordinateTransformations": [{"type": "rotation", "input": "physical"}],
    }
    for systems in ([inner, world], [world, inner]):
        found = parse_multiscale({"multiscales": [block | {"coordinateSystems": systems}]}, "x")
        assert found is not None
        assert found.axes == ("z", "y", "x")
        assert found.levels[0].voxel.known_nm_zyx == (30.0, 4.0, 5.0)


NM = {"units": ["nm"] * 3}


@pytest.mark.parametrize(
    ("attributes", "names", "voxel", "origin", "assumed"),
    [
        ({"resolution": [40, 4, 5], "offset": [80, 8, 5]} | NM, "zyx", (40, 4, 5), (80, 8, 5), ""),
        ({"voxel_size": [40, 4, 5], "offset": [80, 8, 5]}, "zyx", (40, 4, 5), (80, 8, 5), "zyx"),
        ({"resolution": [5, 4, 40], "units": "um"}, "xyz", (40e3, 4e3, 5e3), (0, 0, 0), ""),
        ({"resolution": [40, 4, 5]} | NM, "czyx", (40, 4, 5), (0, 0, 0), ""),
        ({"dimension_units": ["40 nm", "0.004um", "5nm"]}, "zyx", (40, 4, 5), (0, 0, 0), ""),
        ({"dimension_units": [None, "5 nm", "4 nm", "4e1 nm"]}, "cxyz", (40, 4, 5), (0, 0, 0), ""),
        (
            {"pixelResolution": {"dimensions": [5, 4, 40], "unit": "nm"}},
            "zyx",
            (40, 4, 5),
            (0, 0, 0),
            "",
        ),
        (
            {
                "transform": {
                    "axes": ["z", "y", "x"],
                    "scale": [5.24, 4, 4],
                    "translate": [1, 2, 3],
                    "units": ["nm"] * 3,
                }
            },
            "zyx",
            (5.24, 4, 4),
            (1, 2, 3),
            "",
        ),
    ],
)
def test_an_array_that_no_multiscale_names_speaks_for_itself(
    attributes: dict[str, Any], names: str, voxel: Any, origin: Any, assumed: str
) -> None:
    found = level_of_array("raw", attributes, [*names], "x")
    assert found is not None
    assert found.voxel.known_nm_zyx == pytest.approx(voxel)
    assert found.translation_nm_zyx == pytest.approx(origin)
    assert found.voxel.assumed == assumed
    assert bool(found.notes) == bool(assumed)


@pytest.mark.parametrize(
    "attributes",
    [{"resolution": [0, 4, 4]}, {"resolution": ["a", 4, 4]}, {"voxel_size": [1, 2, float("nan")]}],
)
def test_lengths_of_an_array_that_are_none_are_named(attributes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        level_of_array("raw", attributes, [*"zyx"], "x")
    assert level_of_array("raw", {"resolution": "4 nm"}, [*"zyx"], "x") is None
    assert level_of_array("raw", {"resolution": [4, 4]}, [*"zyx"], "x") is None
    other = level_of_array("raw", {"resolution": [4, 4, 4], "offset": 7}, [*"zyx"], "x")
    assert other is not None and other.translation_nm_zyx == (0.0, 0.0, 0.0)


def test_axes_are_named_by_the_array_as_xarray_funlib_and_cosem_do() -> None:
    assert names_of_array({"_ARRAY_DIMENSIONS": ["x", "y", "z"]}, 3) == ["x", "y", "z"]
    assert names_of_array({"axis_names": ["c", "z", "y", "x"]}, 4) == ["c", "z", "y", "x"]
    cosem = {"transform": {"axes": ["x", "y", "z"], "order": "F"}}
    assert names_of_array(cosem, 3) == ["z", "y", "x"]
    assert names_of_array({"_ARRAY_DIMENSIONS": ["x", "y"]}, 3) is None


def test_a_fill_value_is_exact_or_refused() -> None:
    assert parse(dtype="|u1", fill_value=3.0).fill_value == 3
    for value in (1.5, -1, 256, "3"):
        with pytest.raises(FormatError, match="does not fit"):
            parse(dtype="|u1", fill_value=value)
