"""Zarr v3: damaged shards and documents that use what is not read are named, never fill values."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
from zarr.codecs import (
    BloscCodec,
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    ShardingCodec,
    ZstdCodec,
)

from lib.bytesource.tree import LocalTree
from lib.errors import BadAnswerError, FormatError, MacroscopeError, UnsupportedFormatError
from lib.formats.format import Options
from lib.formats.zarr.v3_array import parse_array_v3
from lib.formats.zarr.v3_format import Zarr3Format
from lib.geometry import Box
from tests.kit.volume_kit import random_voxels

SHAPE = (16, 32, 32)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """One shard of 2 x 2 x 2 inner chunks; returns the object."""
    inner = [BytesCodec(), ZstdCodec()]
    codecs = [ShardingCodec(chunk_shape=(8, 16, 16), codecs=inner)]
    return one_chunk(tmp_path, random_voxels(SHAPE, "uint8", 1), codecs)


def one_chunk(folder: Path, voxels: Any, codecs: list[Any]) -> Path:
    """An array of one chunk as zarr-python writes it; returns the object."""
    array = zarr.create(
        store=str(folder / "bare"),
        shape=SHAPE,
        chunks=SHAPE,
        dtype=voxels.dtype,
        zarr_format=3,
        codecs=codecs,
    )
    array[...] = voxels
    return folder / "bare/c/0/0/0"


def read(shard: Path) -> np.ndarray[Any, Any]:
    root = str(shard.parents[3]).strip("/")
    tree, form = LocalTree(Path("/")), Zarr3Format()
    (volume,) = form.describe(tree, root, "", Options())
    whole = Box.whole(volume.shape_zyx)
    reader = form.open(tree, root, volume.handle, box=whole)
    out = np.zeros(volume.shape_zyx, volume.dtype)
    for block in reader.blocks(whole):
        assert not block.missing
        out[block.box.slices()] = block.data
    return out


def with_index(shard: Path, change: Any) -> None:
    """Change the entries of the index, with a checksum that fits."""
    data = shard.read_bytes()
    entries = np.frombuffer(data[-132:-4], "<u8").reshape(8, 2).copy()
    change(entries)
    body = entries.tobytes()
    shard.write_bytes(data[:-132] + body + struct.pack("<I", google_crc32c.value(body)))


class Counting(LocalTree):
    """A tree that notes what is asked of its objects, by one thread: another may overtake it."""

    def __init__(self) -> None:
        super().__init__(Path("/"))
        self.asked: list[str] = []

    def head(self, key: str) -> Any:
        self.asked.append("head")
        return super().head(key)

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        self.asked.append("range")
        return super().get_range(key, start, length)

    def ordered(self, jobs: Iterable[Callable[[], Any]]) -> Iterator[Any]:
        return (job() for job in jobs)


def test_neighbours_of_a_shard_come_by_one_request_as_planned(shard: Path) -> None:
    root, tree, form = str(shard.parents[3]).strip("/"), Counting(), Zarr3Format()
    (volume,) = form.describe(tree, root, "", Options())
    whole = Box.whole(volume.shape_zyx)
    survey = form.survey(tree, root, volume, whole)
    tree.asked.clear()
    reader = form.open(tree, root, volume.handle, box=whole, grid=survey.grid)
    voxels = {block.box: block.data for block in reader.blocks(whole)}
    assert len(voxels) == 8
    assert tree.asked == ["head", "range", "range"]
    assert survey.requests == 3
    tree.asked.clear()
    corner = Box((0, 0, 0), (8, 16, 32))
    reader = form.open(tree, root, volume.handle, box=corner, grid=survey.grid)
    assert len([*reader.blocks(corner)]) == 2
    assert len(tree.asked) <= 4


def test_an_unharmed_shard_is_read(shard: Path) -> None:
    np.testing.assert_array_equal(read(shard), random_voxels(SHAPE, "uint8", 1))


@pytest.mark.parametrize("left", [0, 1, 131])
def test_a_shard_that_cannot_hold_its_index_is_no_hole(shard: Path, left: int) -> None:
    shard.write_bytes(shard.read_bytes()[:left])
    with pytest.raises(FormatError, match="cannot hold its index"):
        read(shard)


def test_a_flipped_bit_of_the_index_is_found(shard: Path) -> None:
    data = bytearray(shard.read_bytes())
    data[-100] ^= 4
    shard.write_bytes(data)
    with pytest.raises(FormatError, match="checksum"):
        read(shard)


@pytest.mark.parametrize("cut", [1, 50])
def test_a_shard_that_is_cut_at_its_front_or_end_is_found(shard: Path, cut: int) -> None:
    data = shard.read_bytes()
    for damaged in (data[cut:], data[:-cut]):
        shard.write_bytes(damaged)
        with pytest.raises(FormatError):
            read(shard)


@pytest.mark.parametrize(
    ("entry", "value", "why"),
    [
        ((3, 0), 2**40, "leads out"),
        ((3, 1), 2**40, "leads out"),
        ((3, 0), 2**64 - 8, "leads out"),
        ((3, 0), 0, "overlap"),
        ((3, 1), 0, "0 bytes for one chunk"),
    ],
)
def test_an_index_that_lies_is_refused(
    shard: Path, entry: tuple[int, int], value: int, why: str
) -> None:
    with_index(shard, lambda entries: entries.__setitem__(entry, value))
    with pytest.raises(FormatError, match=why):
        read(shard)


def document(**change: Any) -> bytes:
    base: dict[str, Any] = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [8, 8, 8],
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 4, 4]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "bytes"}],
    }
    return json.dumps({**base, **change}).encode()


SHARDING = {
    "chunk_shape": [2, 2, 2],
    "codecs": [{"name": "bytes"}],
    "index_codecs": [{"name": "bytes"}, {"name": "crc32c"}],
}


def nested(times: int, chunk: tuple[int, ...] = (2, 2, 2)) -> list[Any]:
    """Shards inside shards: so many levels of them below the first."""
    inner = nested(times - 1) if times else [{"name": "bytes"}]
    settings = {**SHARDING, "chunk_shape": [*chunk], "codecs": inner}
    return [{"name": "sharding_indexed", "configuration": settings}]


def test_chunks_of_shards_inside_shards_are_the_smallest() -> None:
    assert parse_array_v3(document(codecs=nested(1)), "x/zarr.json").chunk == (2, 2, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"data_type": "complex64"},
        {"data_type": {"name": "fancy"}},
        {"chunk_grid": {"name": "rectangular", "configuration": {}}},
        {"codecs": [{"name": "bytes"}, {"name": "numcodecs.zfpy"}]},
        {"codecs": [{"name": "bytes"}, {"name": "gzip"}, {"name": "zstd"}]},
        {"codecs": [{"name": "delta"}, {"name": "bytes"}]},
        {"codecs": []},
        {"storage_transformers": [{"name": "x"}]},
        {"secret_sauce": {"must_understand": True}},
        {"secret_sauce": 1},
        {"shape": [8] * 6},
        {"shape": [0, 8, 8]},
        {"shape": [2**70, 8, 8], "chunk_grid": {"name": "regular", "configuration": {}}},
        {"fill_value": "NaN"},
        {"fill_value": None},
        {"fill_value": 300},
        {"chunk_key_encoding": {"name": "suffix"}},
        {
            "codecs": [
                {
                    "name": "sharding_indexed",
                    "configuration": {**SHARDING, "chunk_shape": [3, 2, 2]},
                }
            ]
        },
        {"codecs": nested(2)},
        {
            "codecs": nested(1, (2**20, 2, 2)),
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2**21, 256, 256]}},
        },
    ],
)  # fmt: skip
def test_what_is_not_read_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MacroscopeError):
        parse_array_v3(document(**change), "x/zarr.json")


def test_an_extension_that_need_not_be_understood_is_passed_over() -> None:
    array = parse_array_v3(document(extra={"must_understand": False}), "x/zarr.json")
    assert array.chunk == (4, 4, 4)


@pytest.mark.parametrize(
    ("value", "expected"), [("NaN", np.nan), ("-Infinity", -np.inf), ("0x40490fdb", 3.1415927)]
)
def test_fill_values_of_floats(value: str, expected: float) -> None:
    array = parse_array_v3(document(data_type="float32", fill_value=value), "x/zarr.json")
    np.testing.assert_allclose(array.fill_value, expected, rtol=1e-6)


def test_the_largest_unsigned_fill_value_is_exact() -> None:
    array = parse_array_v3(document(data_type="uint64", fill_value=2**64 - 1), "x/zarr.json")
    assert array.fill_value == 2**64 - 1


@pytest.mark.parametrize("cname", [{}, [], None])
def test_a_codec_of_no_name_does_not_pass_through(cname: Any) -> None:
    settings = {"cname": cname, "clevel": 1, "shuffle": "shuffle", "typesize": 1, "blocksize": 0}
    codecs = [{"name": "bytes"}, {"name": "blosc", "configuration": settings}]
    assert not parse_array_v3(document(codecs=codecs), "x/zarr.json").fits_shard


def test_affine_geometry_is_refused(tmp_path: Path) -> None:
    group = tmp_path / "x"
    array = zarr.create(
        store=str(group / "0"), shape=(8, 8, 8), chunks=(4, 4, 4), dtype="u1", zarr_format=3
    )
    array[...] = 1
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "affine", "affine": []}]}]
    axes = [{"name": name, "type": "space"} for name in "zyx"]
    ome = {"version": "0.6", "multiscales": [{"axes": axes, "datasets": datasets}]}
    (group / "zarr.json").write_text(
        json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}})
    )
    with pytest.raises(UnsupportedFormatError, match="affine"):
        Zarr3Format().describe(LocalTree(Path("/")), str(group).strip("/"), "", Options())


def rewritten(array: Path, change: Any) -> None:
    document = json.loads((array / "zarr.json").read_text())
    change(document)
    (array / "zarr.json").write_text(json.dumps(document))


def test_names_alone_stand_for_codecs_without_settings(shard: Path) -> None:
    def shorten(document: dict[str, Any]) -> None:
        document["data_type"] = {"name": "uint8"}
        document["chunk_key_encoding"] = "default"
        document["codecs"][0]["configuration"]["codecs"] = ["bytes", "zstd"]

    rewritten(shard.parents[3], shorten)
    np.testing.assert_array_equal(read(shard), random_voxels(SHAPE, "uint8", 1))


def test_an_index_may_be_big_endian(shard: Path) -> None:
    with_index(shard, lambda entries: entries.byteswap(inplace=True))

    def turn(document: dict[str, Any]) -> None:
        document["codecs"][0]["configuration"]["index_codecs"][0]["configuration"] = {
            "endian": "big"
        }

    rewritten(shard.parents[3], turn)
    np.testing.assert_array_equal(read(shard), random_voxels(SHAPE, "uint8", 1))


@pytest.mark.parametrize("packing", [ZstdCodec(), GzipCodec(), BloscCodec(typesize=1)])
def test_a_checksum_may_lie_within_what_is_compressed(packing: Any, tmp_path: Path) -> None:
    truth = random_voxels(SHAPE, "uint16", 1)
    chunk = one_chunk(tmp_path, truth, [BytesCodec(), Crc32cCodec(), packing, Crc32cCodec()])
    np.testing.assert_array_equal(read(chunk), truth)


@pytest.mark.parametrize("value", [None, 1.5, -1, 256, "three"])
def test_a_fill_value_that_does_not_fit_is_named(value: Any, shard: Path) -> None:
    rewritten(shard.parents[3], lambda document: document.update(fill_value=value))
    with pytest.raises(FormatError, match="does not fit"):
        read(shard)
    rewritten(shard.parents[3], lambda document: document.update(fill_value=3.0))
    read(shard)


def test_a_store_that_hides_the_length_of_a_shard_is_told(shard: Path) -> None:
    class Silent(LocalTree):
        def head(self, key: str) -> Any:
            found = super().head(key)
            return None if found is None else replace(found, size=None)

    root = str(shard.parents[3]).strip("/")
    (volume,) = Zarr3Format().describe(Silent(Path("/")), root, "", Options())
    whole = Box.whole(volume.shape_zyx)
    reader = Zarr3Format().open(Silent(Path("/")), root, volume.handle, box=whole)
    with pytest.raises(BadAnswerError, match="how large a shard is"):
        [*reader.blocks(whole)]
