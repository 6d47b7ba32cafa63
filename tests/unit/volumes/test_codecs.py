"""A codec has the same meaning in Zarr v2's words and in v3's, or is refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from lib.errors import ConfigError
from lib.volumes.job import named_codec, zarr_v3_codecs

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
