"""A shard's bytes are those of Zarr v3, and a damaged index is never believed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, ShardingCodec, ZstdCodec

from lib.compression import encode_chunk, open_codec
from lib.errors import IntegrityError
from lib.geometry import ShapeZYX
from lib.storage.base import Buffer, GatheredDraft
from lib.volumes.grid import ShardGrid
from lib.volumes.shardfile import ABSENT, ShardStream, index_length, read_index
from lib.volumes.shardwriter import padded_chunk
from tests.kit.volume_kit import random_voxels

CODEC = {"id": "zstd", "level": 1}


@dataclass
class Sealed:
    """What a stream of chunks came to."""

    size: int
    sha256: str
    data: bytes


def seal(
    chunks: dict[int, Buffer | None], per_shard: ShapeZYX, order: Sequence[int] | None = None
) -> Sealed:
    """Give chunks by slot to a stream, in some order."""
    stored: list[bytes] = []
    draft = GatheredDraft(lambda buffers: stored.append(b"".join(buffers)))
    stream = ShardStream(draft, sorted(chunks), per_shard)
    for slot in order or sorted(chunks):
        stream.add(slot, chunks[slot])
    return Sealed(*stream.seal(), *stored)


def test_zarr_python_reads_a_sealed_shard_with_its_holes(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path,
        shape=(8, 8, 8),
        chunks=(4, 4, 4),
        shards=(8, 8, 8),
        dtype="uint16",
        compressors=ZstdCodec(level=1),
        fill_value=9,
    )
    voxels = random_voxels((8, 8, 8), "uint16")
    codec, chunks, slot = open_codec(CODEC), [], 0
    for z in (0, 4):
        for y in (0, 4):
            for x in (0, 4):
                part = np.ascontiguousarray(voxels[z : z + 4, y : y + 4, x : x + 4])
                chunks.append(None if slot in (2, 7) else encode_chunk(codec, part))
                if slot in (2, 7):
                    voxels[z : z + 4, y : y + 4, x : x + 4] = 9
                slot += 1
    sealed = seal(dict(enumerate(chunks)), (2, 2, 2), order=[3, 0, 1, 7, 2, 6, 5, 4])
    data = sealed.data
    assert len(data) == sealed.size
    assert hashlib.sha256(data).hexdigest() == sealed.sha256
    (tmp_path / "c/0/0").mkdir(parents=True)
    (tmp_path / "c/0/0/0").write_bytes(data)
    np.testing.assert_array_equal(array[:], voxels)


def test_zarr_python_reads_a_shard_that_reaches_past_the_edge(tmp_path: Path) -> None:
    grid = ShardGrid((5, 7, 3), (4, 4, 4), (8, 8, 8))
    voxels = random_voxels((5, 7, 3), "int16")
    codec, chunks = open_codec(CODEC), {}
    for slot, index in grid.chunks_of((0, 0, 0)):
        scratch = np.empty(grid.chunk_zyx, "int16")
        chunk = padded_chunk(voxels, (0, 0, 0), grid.chunk_box(index), 0, scratch)
        chunks[slot] = encode_chunk(codec, chunk)
    sealed = seal(chunks, grid.chunks_per_shard_zyx)
    array = zarr.create_array(
        tmp_path,
        shape=(5, 7, 3),
        chunks=(8, 8, 8),
        dtype="int16",
        serializer=ShardingCodec(chunk_shape=(4, 4, 4), codecs=[BytesCodec(), ZstdCodec(level=1)]),
        compressors=None,
    )
    (tmp_path / "c/0/0").mkdir(parents=True)
    (tmp_path / "c/0/0/0").write_bytes(sealed.data)
    np.testing.assert_array_equal(array[:], voxels)


def trailer(entries: list[tuple[int, int]]) -> bytes:
    table = np.array(entries, "<u8").tobytes()
    return table + google_crc32c.value(table).to_bytes(4, "little")


def test_the_index_that_was_written_is_read_again() -> None:
    data = seal({0: b"abc", 1: None, 2: b"", 3: b"defgh" * 20}, (2, 2, 1)).data
    length = index_length((2, 2, 1))
    assert length == 4 * 16 + 4
    index = read_index(data[-length:], (2, 2, 1), len(data), "shard")
    assert index.tolist() == [[0, 3], [int(ABSENT)] * 2, [3, 0], [3, 100]]


def test_a_changed_bit_of_the_index_is_noticed() -> None:
    data = bytearray(trailer([(0, 5), (5, 5)]))
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1
        with pytest.raises(IntegrityError, match="checksum") as caught:
            read_index(bytes(damaged), (2, 1, 1), 10 + len(data), "a/shard")
        assert caught.value.location == "a/shard"


@pytest.mark.parametrize("slots", [1, 3])
def test_an_index_of_another_length_is_refused(slots: int) -> None:
    data = trailer([(0, 5), (5, 5)])
    with pytest.raises(IntegrityError, match="checksum"):
        read_index(data, (slots, 1, 1), 100, "shard")


@pytest.mark.parametrize(
    "entries",
    [
        [(0, 11), (0, 1)],  # ends behind the shard
        [(10, 1), (0, 1)],  # begins behind it
        [(0, 1), (2**64 - 2, 3)],  # whose sum wraps round
        [(2**63, 2**63), (0, 1)],
        [(0, 2**64 - 1), (0, 1)],
    ],
)
def test_an_entry_that_points_outside_the_shard_is_refused(entries: list[tuple[int, int]]) -> None:
    data = trailer(entries)
    with pytest.raises(IntegrityError, match="outside the shard"):
        read_index(data, (2, 1, 1), 10 + len(data), "shard")


def test_an_entry_up_to_the_last_byte_is_accepted() -> None:
    data = trailer([(0, 10), (10, 0)])
    assert read_index(data, (2, 1, 1), 10 + len(data), "shard").tolist() == [[0, 10], [10, 0]]


def test_space_between_the_chunks_and_the_index_is_nothing_wrong() -> None:
    """Other writers align, or leave what they replaced."""
    data = trailer([(2, 3), (7, 1)])
    assert read_index(data, (2, 1, 1), 10 + len(data), "shard").tolist() == [[2, 3], [7, 1]]


def test_a_shard_of_nothing_but_holes_has_an_index() -> None:
    sealed = seal(dict.fromkeys(range(8)), (2, 2, 2))
    assert sealed.size == index_length((2, 2, 2))
    index = read_index(sealed.data, (2, 2, 2), sealed.size, "shard")
    assert np.all(index == ABSENT)


def test_the_bytes_do_not_depend_on_the_order_in_which_chunks_come() -> None:
    rng = random.Random(5)
    chunks: dict[int, Buffer | None] = {
        slot: rng.randbytes(rng.randrange(5000)) for slot in rng.sample(range(64), 50)
    }
    expected = seal(chunks, (4, 4, 4))
    slots = sorted(chunks)
    index = read_index(expected.data[-index_length((4, 4, 4)) :], (4, 4, 4), expected.size, "s")
    for slot, chunk in chunks.items():
        start, length = (int(number) for number in index[slot])
        assert expected.data[start : start + length] == chunk
    for _ in range(20):
        rng.shuffle(slots)
        assert seal(chunks, (4, 4, 4), slots) == expected
    for _ in range(20):
        stored: list[bytes] = []
        draft = GatheredDraft(lambda buffers, to=stored: to.append(b"".join(buffers)))  # type: ignore[misc]
        stream = ShardStream(draft, sorted(chunks), (4, 4, 4))
        rng.shuffle(slots)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda slot, to=stream: to.add(slot, chunks[slot]), slots))  # type: ignore[misc]
        assert (stream.seal()[1], stored) == (expected.sha256, [expected.data])


@pytest.mark.parametrize("given", [[], [0], [1], [0, 1, 2], [0, 1, 0], [0, 1, 1]])
def test_a_shard_is_not_sealed_unless_each_of_its_chunks_came_once(given: list[int]) -> None:
    stored: list[bytes] = []
    stream = ShardStream(GatheredDraft(lambda b: stored.append(b"".join(b))), [0, 1], (2, 2, 2))
    for slot in given:
        stream.add(slot, b"x")
    with pytest.raises(IntegrityError, match="of 2 chunks"):
        stream.seal()
    assert not stored
