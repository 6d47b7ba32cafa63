"""Precomputed: damaged chunks, indexes that lie and infos that lead elsewhere are refused."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore

from lib.bytesource.tree import LocalTree
from lib.errors import FormatError, MacroscopeError, NotFoundError, UnsupportedFormatError
from lib.formats.format import Options
from lib.formats.precomputed.format import PrecomputedFormat
from lib.formats.precomputed.info import parse_info
from lib.formats.precomputed.reader import decode_segmentation
from lib.formats.precomputed.shards import ShardingSpec, morton, murmur3_low64
from lib.geometry import Box

SCALE: dict[str, Any] = {
    "key": "s0",
    "size": [10, 8, 7],
    "resolution": [4, 4, 40],
    "chunk_sizes": [[4, 4, 4]],
    "encoding": "raw",
}
INFO: dict[str, Any] = {"data_type": "uint8", "num_channels": 1, "type": "image", "scales": [SCALE]}


def described(folder: Path, options: Options | None = None, **change: Any) -> Any:
    (folder / "v").mkdir(exist_ok=True)
    (folder / "v/info").write_text(json.dumps({**INFO, **change}))
    root = str(folder / "v").strip("/")
    (volume,) = PrecomputedFormat().describe(LocalTree(Path("/")), root, "", options or Options())
    return volume


def read(folder: Path, volume: Any) -> np.ndarray[Any, Any]:
    root = str(folder / "v").strip("/")
    whole = Box.whole(volume.shape_zyx)
    reader = PrecomputedFormat().open(LocalTree(Path("/")), root, volume.handle, box=whole)
    out = np.zeros(volume.shape_zyx, volume.dtype)
    for block in reader.blocks(whole):
        out[block.box.slices()] = block.data
    return out


def test_the_worked_example_of_the_format() -> None:
    grid = (2, 2, 3)  # z, y, x
    cells = {(0, 0, 0): 0, (0, 0, 1): 1, (0, 1, 0): 2, (1, 0, 0): 4, (0, 0, 2): 8, (1, 1, 2): 14}
    assert {index: morton(index, grid) for index in cells} == cells
    sharding = ShardingSpec(1, False, 1, 1, True, True)
    assert [sharding.place(cells[i]) for i in cells] == [
        (0, 0), (0, 0), (0, 1), (1, 0), (0, 0), (1, 1),
    ]  # fmt: skip
    assert [ShardingSpec(0, False, 0, bits, False, False).file(14) for bits in (0, 4, 5, 9)] == [
        "e.shard", "e.shard", "0e.shard", "00e.shard",
    ]  # fmt: skip


def test_the_hash_spreads_its_input() -> None:
    # that it is the right one is held by volumes that tensorstore sharded with it (tests/formats)
    hashes = [murmur3_low64(number) for number in range(1000)]
    assert len(set(hashes)) == 1000
    assert all(0 < hashed < 2**64 for hashed in hashes)


def segmentation(voxels: np.ndarray[Any, Any]) -> bytes:
    """A chunk as tensorstore encodes it."""
    z, y, x = voxels.shape
    with_memory = tensorstore.open(
        {
            "driver": "neuroglancer_precomputed",
            "kvstore": {"driver": "memory"},
            "multiscale_metadata": {
                "data_type": voxels.dtype.name,
                "num_channels": 1,
                "type": "segmentation",
            },
            "scale_metadata": {
                "size": [x, y, z],
                "resolution": [1, 1, 1],
                "encoding": "compressed_segmentation",
                "chunk_size": [x, y, z],
                "compressed_segmentation_block_size": [8, 8, 8],
            },
            "create": True,
        }
    ).result()
    with_memory.write(voxels.transpose(2, 1, 0)[..., None]).result()
    store = with_memory.kvstore
    (key,) = [key for key in store.list().result() if b"info" not in key]
    return bytes(store.read(key).result().value)


@pytest.fixture(scope="module")
def ids() -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).integers(0, 90, (16, 12, 9)).astype(np.uint64) << np.uint64(40)


def test_ids_come_out_exactly(ids: np.ndarray[Any, Any]) -> None:
    out = decode_segmentation(segmentation(ids), ids.shape, (8, 8, 8), ids.dtype)
    np.testing.assert_array_equal(out, ids)


def test_every_damage_of_ids_is_an_error_or_stays_inside(ids: np.ndarray[Any, Any]) -> None:
    good, draw = segmentation(ids), np.random.default_rng(2)
    for _ in range(3000):
        damaged = bytearray(good[: draw.integers(0, len(good) + 1)])
        for _ in range(draw.integers(0, 4)):
            if damaged:
                damaged[draw.integers(0, len(damaged))] = draw.integers(0, 256)
        try:
            out = decode_segmentation(bytes(damaged), ids.shape, (8, 8, 8), ids.dtype)
        except FormatError:
            continue
        assert out.shape == ids.shape


@pytest.mark.parametrize("left", [0.0, 0.5, 0.9])
def test_a_cut_chunk_of_ids_is_refused(ids: np.ndarray[Any, Any], left: float) -> None:
    good = segmentation(ids)
    with pytest.raises(FormatError):
        decode_segmentation(good[: int(len(good) * left)], ids.shape, (8, 8, 8), ids.dtype)


@pytest.mark.parametrize(
    "change",
    [
        {"app": {"supported_api_versions": [0, 1]}},
        {"@type": "neuroglancer_annotations_v1"},
        {"@type": "neuroglancer_legacy_mesh"},
        {"data_type": "float64"},
        {"scales": []},
        {"scales": [{**SCALE, "size": [10, 0, 7]}]},
        {"scales": [{**SCALE, "resolution": [4, float("nan"), 40]}]},
        {"scales": [{**SCALE, "chunk_sizes": [[2**20, 2**20, 4]]}]},
        {"scales": [{**SCALE, "encoding": "compressed_segmentation"}]},
        {"scales": [{**SCALE, "sharding": {"@type": "other"}}]},
        {
            "scales": [
                {
                    **SCALE,
                    "sharding": {
                        "@type": "neuroglancer_uint64_sharded_v1",
                        "hash": "identity",
                        "preshift_bits": 0,
                        "minishard_bits": 60,
                        "shard_bits": 0,
                    },
                }
            ]
        },
    ],
)
def test_what_is_no_volume_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MacroscopeError):
        parse_info(json.dumps({**INFO, **change}).encode(), "x/info")


def test_encodings_that_are_not_read_are_named(tmp_path: Path) -> None:
    volume = described(tmp_path, scales=[{**SCALE, "encoding": "compresso"}])
    assert volume.refused == "chunks are encoded as compresso, which is not read"


def test_channels_are_chosen_by_number(tmp_path: Path) -> None:
    assert "channel=0 to 2" in str(described(tmp_path, num_channels=3).refused)
    with pytest.raises(NotFoundError, match="no channel 3"):
        described(tmp_path, Options(channel=3), num_channels=3)


def test_scales_are_sorted_by_their_resolution(tmp_path: Path) -> None:
    coarse = {**SCALE, "key": "s1", "resolution": [8, 8, 40], "size": [5, 4, 7]}
    volume = described(tmp_path, scales=[coarse, SCALE])
    assert volume.levels == ("s0", "s1")


@pytest.mark.parametrize("key", ["../../../../etc", "https://elsewhere.org/x"])
def test_a_key_that_leads_out_of_the_store_is_refused(tmp_path: Path, key: str) -> None:
    (tmp_path / "v").mkdir()
    info = {**INFO, "scales": [{**SCALE, "key": key}]}
    (tmp_path / "v/info").write_text(json.dumps(info))
    with pytest.raises(FormatError, match="leads out"):
        PrecomputedFormat().describe(LocalTree(tmp_path), "v", "", Options())


@pytest.mark.parametrize("encoding", ["raw", "jpeg", "png"])
@pytest.mark.parametrize("data", [b"", b"\0" * 63, b"\xff\xd8\xff\xe0" + b"\0" * 40, b"<html>"])
def test_a_damaged_chunk_is_named(tmp_path: Path, encoding: str, data: bytes) -> None:
    volume = described(tmp_path, scales=[{**SCALE, "size": [4, 4, 4], "encoding": encoding}])
    (tmp_path / "v/s0").mkdir()
    (tmp_path / "v/s0/0-4_0-4_0-4").write_bytes(data)
    with pytest.raises(FormatError) as caught:
        read(tmp_path, volume)
    assert caught.value.unit == "chunk 0/0/0"


def test_a_cut_jpeg_is_no_picture_with_a_grey_end(tmp_path: Path) -> None:
    import io

    from PIL import Image

    out = io.BytesIO()
    noise = np.random.default_rng(3).integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(out, "jpeg")
    scale = {**SCALE, "size": [16, 16, 16], "chunk_sizes": [[16, 16, 16]], "encoding": "jpeg"}
    volume = described(tmp_path, scales=[scale])
    (tmp_path / "v/s0").mkdir()
    target = tmp_path / "v/s0/0-16_0-16_0-16"
    for cut in (10, len(out.getvalue()) // 2):
        target.write_bytes(out.getvalue()[:-cut])
        with pytest.raises(FormatError):
            read(tmp_path, volume)


def test_a_gzip_bomb_is_bounded(tmp_path: Path) -> None:
    volume = described(tmp_path, scales=[{**SCALE, "size": [4, 4, 4]}])
    (tmp_path / "v/s0").mkdir()
    (tmp_path / "v/s0/0-4_0-4_0-4").write_bytes(gzip.compress(bytes(10**8)))
    with pytest.raises(FormatError, match="gzip"):
        read(tmp_path, volume)


SHARDED = {
    **SCALE,
    "sharding": {
        "@type": "neuroglancer_uint64_sharded_v1",
        "hash": "identity",
        "preshift_bits": 0,
        "minishard_bits": 0,
        "shard_bits": 0,
    },
    "size": [4, 4, 4],
}


@pytest.mark.parametrize(
    ("index", "minishard"),
    [
        ((0, 2**40), ()),
        ((24, 0), ()),
        ((64, 88), (0, 0, 2**40)),
        ((64, 88), (0, 2**63, 64)),
        ((64, 80), (0, 0)),
    ],
)
def test_an_index_of_a_shard_that_lies_is_refused(
    tmp_path: Path, index: tuple[int, int], minishard: tuple[int, ...]
) -> None:
    volume = described(tmp_path, scales=[SHARDED])
    (tmp_path / "v/s0").mkdir()
    body = struct.pack("<2Q", *index) + bytes(64) + struct.pack(f"<{len(minishard)}Q", *minishard)
    (tmp_path / "v/s0/0.shard").write_bytes(body)
    with pytest.raises(FormatError):
        read(tmp_path, volume)


@pytest.mark.parametrize("length", [0, 15])
def test_a_shard_shorter_than_its_index_is_no_hole(tmp_path: Path, length: int) -> None:
    volume = described(tmp_path, scales=[SHARDED])
    (tmp_path / "v/s0").mkdir()
    (tmp_path / "v/s0/0.shard").write_bytes(bytes(length))
    with pytest.raises(FormatError, match="cannot hold its index"):
        read(tmp_path, volume)


@pytest.mark.parametrize("blocks", [[0, 8, 8], [-8, 8, 8], None])
def test_impossible_blocks_of_a_segmentation_are_refused(blocks: Any) -> None:
    scale = {**SCALE, "encoding": "compressed_segmentation"}
    info = {**INFO, "scales": [{**scale, "compressed_segmentation_block_size": blocks}]}
    with pytest.raises(FormatError, match="blocks of"):
        parse_info(json.dumps(info).encode(), "x/info")


def test_graphene_says_what_to_ask_for() -> None:
    with pytest.raises(UnsupportedFormatError) as caught:
        parse_info(json.dumps({**INFO, "app": {"table": 1}}).encode(), "x/info")
    assert "flat segmentation" in str(caught.value)


@pytest.mark.parametrize("packed", [1, 7, 8])
def test_chunks_of_which_some_are_packed_are_no_chunks_that_are_not_there(
    packed: int, tmp_path: Path
) -> None:
    folder = tmp_path / "8_8_8"
    folder.mkdir()
    names = [f"{x}-{x + 4}_{y}-{y + 4}_{z}-{z + 4}" for x in (0, 4) for y in (0, 4) for z in (0, 4)]
    for number, name in enumerate(names):
        data = bytes([number]) * 64
        end = ".gz" if number < packed else ""
        (folder / f"{name}{end}").write_bytes(gzip.compress(data) if end else data)
    scale = {
        "key": "8_8_8",
        "size": [8, 8, 8],
        "resolution": [8, 8, 8],
        "chunk_sizes": [[4, 4, 4]],
        "encoding": "raw",
    }
    info = {"type": "image", "data_type": "uint8", "num_channels": 1, "scales": [scale]}
    (tmp_path / "info").write_text(json.dumps(info))
    reads = PrecomputedFormat()
    if packed < len(names):
        with pytest.raises(FormatError, match="some chunks are stored packed"):
            reads.describe(LocalTree(tmp_path), "", "", Options())
        return
    (volume,) = reads.describe(LocalTree(tmp_path), "", "", Options())
    assert volume.handle["suffix"] == ".gz"


def names_of(folder: Path, properties: Any, **change: Any) -> Any:
    """A segmentation whose names of segments lie beside it."""
    (folder / "v/names").mkdir(parents=True)
    (folder / "v/names/info").write_text(json.dumps(properties))
    given = {"type": "segmentation", "data_type": "uint64", "segment_properties": "names"}
    return described(folder, **(given | change))


def listed(ids: list[str], *rest: dict[str, Any]) -> dict[str, Any]:
    inline = {"ids": ids, "properties": [{"id": "n", "type": "number", "values": ids}, *rest]}
    return {"@type": "neuroglancer_segment_properties", "inline": inline}


def test_names_of_segments_are_carried_over(tmp_path: Path) -> None:
    """Those that JSON of a viewer can hold; what is not carried is told."""
    names = {"id": "label", "type": "label", "values": ["soma", "", "axon"]}
    volume = names_of(tmp_path, listed(["12", "7", str(2**53 + 1)], names))
    assert volume.extra["image_label"] == {"properties": [{"label-value": 12, "class": "soma"}]}
    assert any("2 segments have names in names, 1 of them" in note for note in volume.notes)


@pytest.mark.parametrize(
    ("properties", "place", "note"),
    [
        (listed(["1"]), "names", None),
        (listed(["1"], {"type": "label", "values": []}), "names", "names cannot be read"),
        (listed(["one"], {"type": "label", "values": ["a"]}), "names", "names cannot be read"),
        ([], "names", "names cannot be read"),
        (listed(["1"], {"type": "label", "values": ["a"]}), 20 * "../" + "x", "cannot be read"),
        (listed(["1"], {"type": "label", "values": ["a"]}), "absent", None),
    ],
)
def test_a_volume_is_whole_without_names_of_its_segments(
    properties: Any, place: str, note: str | None, tmp_path: Path
) -> None:
    volume = names_of(tmp_path, properties, segment_properties=place)
    assert "image_label" not in volume.extra
    assert any("names of segments" in one for one in volume.notes) == (note is not None)
