"""A Zarr v2 document is read for what it says, and refused by name where it says nonsense."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from lib.compression import can_pass_through
from lib.errors import FormatError, UnsupportedFormatError
from lib.formats.zarr.array import ArrayDocument, chunks_in, parse_array
from lib.formats.zarr.ngff import parse_attributes, parse_multiscale
from lib.geometry import Box

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
        {"shape": [1, 2, 3, 4], "chunks": [1, 2, 3, 4]},
        {"filters": [{"id": "delta", "dtype": "<u2"}]},
        {"compressor": {"id": "lzma"}},
        {"compressor": {"id": "of the future"}},
        {"fill_value": "NaN", "dtype": "<f4"},
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
        parse_attributes(data, "x")


def test_only_chunks_that_zarr_v3_can_describe_are_passed_through() -> None:
    blosc = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}
    zstd = {"id": "zstd", "level": 3}
    assert can_pass_through(blosc, [], "C", "<u2")
    assert can_pass_through(zstd, [], "C", "|u1")
    assert can_pass_through({"id": "zstd"}, [], "C", "|u1")
    for config in (
        {"id": "gzip", "level": 1},
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
    assert len(chunks_in(found, Box.whole(found.shape_zyx))) == 2 * 2 * 2
    assert chunks_in(found, Box((15, 63, 64), (17, 64, 80))) == [(0, 0, 1), (1, 0, 1)]
    assert chunks_in(found, Box((0, 0, 0), (1, 1, 1))) == [(0, 0, 0)]


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
        {"axes": [{"name": n} for n in "xyz"]},
        {"axes": [{"name": n} for n in "czyx"]},
        {"axes": ...},
        {"axes": [{"name": n, "unit": "second"} for n in "zyx"]},
        {"coordinateTransformations": [{"type": "affine", "affine": []}]},
    ],
    ids=str,
)
def test_other_axes_units_and_transformations_are_unsupported(changes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedFormatError):
        parse_multiscale(multiscale(**changes), "x")
