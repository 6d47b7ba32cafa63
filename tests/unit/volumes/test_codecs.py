"""A codec has the same meaning in Zarr v2's words and in v3's, or is refused by name."""

from __future__ import annotations

import random
from typing import Any

import numcodecs
import numpy as np
import pytest
from numpy.typing import NDArray

from lib.compression import _by_blosc2, decode_into, encode_chunk, open_codec
from lib.errors import ConfigError, FormatError
from lib.volumes.job import in_large_blocks, named_codec, zarr_v3_codecs

BYTE, WORD = np.dtype("u1"), np.dtype("i2")


@pytest.mark.parametrize(
    ("name", "dtype", "codec"),
    [
        ("auto", BYTE, "zstd"),
        ("auto", WORD, "blosc"),
        ("zstd", WORD, "zstd"),
        ("blosc", BYTE, "blosc"),
        ("none", WORD, None),
    ],
)
def test_a_name_is_one_codec_in_both_forms(
    name: str, dtype: np.dtype[np.generic], codec: str | None
) -> None:
    config = named_codec(name, dtype)
    assert config.get("id") == codec
    first, *rest = zarr_v3_codecs(config, dtype)
    assert first["name"] == "bytes"
    assert ("configuration" in first) == (dtype.itemsize > 1), "one byte has no order"
    assert [one["name"] for one in rest] == ([codec] if codec else [])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "uint64"])
def test_labels_are_not_shuffled(dtype: str) -> None:
    """Ids come in runs: bytes beside each other that belong together compress best."""
    assert named_codec("auto", np.dtype(dtype), labels=True) == {"id": "zstd", "level": 1}
    assert named_codec("blosc", np.dtype(dtype), labels=True)["id"] == "blosc"


def test_the_order_of_bits_and_bytes_keeps_its_name() -> None:
    blosc = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 2}
    (_, said) = zarr_v3_codecs(blosc, WORD)
    assert (said["configuration"]["shuffle"], said["configuration"]["typesize"]) == (
        "bitshuffle",
        2,
    )
    (_, said) = zarr_v3_codecs({"id": "gzip", "level": 6}, BYTE)
    assert said == {"name": "gzip", "configuration": {"level": 6}}


def test_what_has_no_form_is_refused_before_a_voxel_is_written() -> None:
    words = "'jpeg' is not one of auto, source, zstd, blosc, none"
    with pytest.raises(ConfigError, match=words) as caught:
        named_codec("jpeg", BYTE)
    assert caught.value.location == "codec"
    with pytest.raises(ConfigError, match="'lz4' has no Zarr v3 form"):
        zarr_v3_codecs({"id": "lz4"}, BYTE)


def test_blosc_chunks_are_cut_into_blocks_that_zstd_finds_repetitions_in() -> None:
    ramp = np.cumsum(np.random.default_rng(5).integers(-3, 4, (64, 64, 64)), axis=2)
    chunk = ramp.astype("<u4") * 1000
    config = named_codec("auto", chunk.dtype)
    left_to_blosc = numcodecs.get_codec({**config, "blocksize": 0}).encode(chunk)
    encoded = encode_chunk(open_codec(config), chunk)
    assert int.from_bytes(encoded[8:12], "little") == config["blocksize"] == 2**19
    assert len(encoded) < len(left_to_blosc)
    (_, named) = zarr_v3_codecs(config, chunk.dtype)
    assert named["configuration"]["blocksize"] == 2**19


def test_what_a_source_says_of_its_blocks_stays() -> None:
    said = {"id": "blosc", "cname": "zstd", "clevel": 5, "shuffle": 2, "blocksize": 4096}
    assert in_large_blocks(said) == said
    for other in ({"id": "zstd", "level": 1}, {**said, "cname": "lz4", "blocksize": 0}, {}):
        assert in_large_blocks(other) == other


def blosc(
    voxels: NDArray[Any], cname: str = "zstd", shuffle: int = 1, blocksize: int = 0
) -> bytearray:
    return bytearray(numcodecs.Blosc(cname, 1, shuffle, blocksize).encode(voxels))


def decoded(
    encoded: bytes | bytearray, voxels: NDArray[Any], codec: numcodecs.Blosc | None = None
) -> NDArray[Any] | None:
    """What `decode_into` makes of a chunk, or a codec alone; None for damage."""
    out = np.full_like(voxels, 7)
    try:
        if codec is None:
            decode_into(numcodecs.Blosc(), bytes(encoded), out)
        else:
            codec.decode(bytes(encoded), out=out)
    except (FormatError, RuntimeError, ValueError):
        return None
    return out


@pytest.mark.parametrize("dtype", ["u1", "<i2", "<u4", "<f8"])
@pytest.mark.parametrize("shuffle", [0, 1, 2])
@pytest.mark.parametrize("blocksize", [0, 256, 4096])
def test_blosc_is_decoded_by_its_successor_to_the_same_voxels(
    dtype: str, shuffle: int, blocksize: int
) -> None:
    for count in (1, 31, 128, 5001, 70_000):
        voxels = np.cumsum(np.random.default_rng(count).integers(-2, 3, count)).astype(dtype)
        for cname in ("zstd", "lz4", "zlib"):
            found = decoded(blosc(voxels, cname, shuffle, blocksize), voxels)
            assert found is not None
            np.testing.assert_array_equal(found, voxels)
    assert _by_blosc2(memoryview(bytes(blosc(voxels, "zstd", shuffle, blocksize))), voxels.copy())


def test_blosc_that_is_damaged_for_others_is_so_for_us() -> None:
    """Blosc2 takes a block of length 0 for one of zeros: what a cut file often ends with."""
    voxels = np.cumsum(np.random.default_rng(1).integers(-2, 3, 20_000)).astype("<i2")
    whole = blosc(voxels, blocksize=4096)
    generator, agreed = random.Random(3), set[bool]()
    for _ in range(1500):
        bad, kind = bytearray(whole), generator.randrange(4)
        at = generator.randrange(16, len(bad))
        if kind == 0:
            bad[at:] = bytes(len(bad) - at)
        elif kind == 1:
            bad[at] ^= 1 << generator.randrange(8)
        elif kind == 2:
            bad[at : at + 8] = bytes(len(bad[at : at + 8]))
        else:  # where a block begins
            at = generator.randrange(16, 56)
            bad[at] = generator.randrange(256)
        found, other = decoded(bad, voxels), decoded(bad, voxels, numcodecs.Blosc())
        agreed.add(found is None)
        assert (found is None) == (other is None)
        if found is not None and other is not None:
            np.testing.assert_array_equal(found, other)
    assert agreed == {True, False}
    first = int.from_bytes(whole[16:20], "little")
    whole[first : first + 4] = bytes(4)
    assert decoded(whole, voxels) is None


def test_blosc_of_another_length_or_width_is_left_to_numcodecs() -> None:
    voxels = np.arange(5000, dtype="<i2")
    whole = memoryview(bytes(blosc(voxels)))
    assert _by_blosc2(whole, np.empty_like(voxels))
    assert not _by_blosc2(whole, np.empty(2500, "<i4"))
    assert not _by_blosc2(whole, np.empty((5000, 2), "<i2")[:, 0])
    for cut in range(40):
        assert not _by_blosc2(whole[:cut], np.empty_like(voxels))
