"""Which codec a volume gets, in the words of Zarr v2 (numcodecs) and of Zarr v3 (codec lists)."""

from __future__ import annotations

from typing import Any

import numpy as np

from lib.errors import ConfigError, UnsupportedFormatError

_BLOSC_SHUFFLE = {-1: "shuffle", 0: "noshuffle", 1: "shuffle", 2: "bitshuffle"}
_SHUFFLE_NUMBER = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


def named_codec(name: str, dtype: np.dtype[Any], *, labels: bool = False) -> dict[str, Any]:
    """The codec behind the setting ``codec``: ``auto``, ``source``, ``zstd``, ``blosc``, ``none``.

    ``source`` is ``auto`` where the source's own cannot stay. ``auto`` is zstd-1 for bytes and
    blosc-zstd-1 with shuffle for wider numbers. Measured on EM images: zstd-3 costs six times the
    CPU of zstd-1 for 2 % of size; shuffling brings 16-bit data from a ratio of 1.12 to 1.35. Labels
    get zstd-1 whatever their width: on a segmentation of 500 warped cells, uint64, it gave a ratio
    of 60 at 2.3 GB/s, where blosc with shuffle gave 16 at 0.7 (uint32 36 against 30, uint16 21
    against 16); zstd-5 costs three times the CPU for 10 %.
    """
    name = "auto" if name == "source" else name
    if name == "none":
        return {}
    if name == "zstd" or (name == "auto" and (dtype.itemsize == 1 or labels)):
        return {"id": "zstd", "level": 1}
    if name in ("blosc", "auto"):
        return {"id": "blosc", "cname": "zstd", "clevel": 1, "shuffle": 1, "blocksize": 0}
    raise ConfigError(
        f"codec {name!r} is not one of auto, source, zstd, blosc, none", location="codec"
    )


def zarr_v3_codecs(config: dict[str, Any], dtype: np.dtype[Any]) -> list[dict[str, Any]]:
    """The inner codec list of a Zarr v3 array: bytes, then the compressor."""
    codecs: list[dict[str, Any]] = [
        {"name": "bytes", "configuration": {"endian": "little"}}
        if dtype.itemsize > 1
        else {"name": "bytes"}
    ]
    kind = config.get("id")
    if kind == "zstd":
        codecs.append(
            {"name": "zstd", "configuration": {"level": config.get("level", 0), "checksum": False}}
        )
    elif kind == "gzip":
        codecs.append({"name": "gzip", "configuration": {"level": config.get("level", 1)}})
    elif kind == "blosc":
        codecs.append(
            {
                "name": "blosc",
                "configuration": {
                    "cname": config.get("cname", "lz4"),
                    "clevel": config.get("clevel", 5),
                    "shuffle": _BLOSC_SHUFFLE[config.get("shuffle", 1)],
                    "typesize": dtype.itemsize,
                    "blocksize": config.get("blocksize", 0),
                },
            }
        )
    elif kind is not None:
        raise ConfigError(f"codec {kind!r} has no Zarr v3 form here", location="codec")
    return codecs


def numcodecs_config(codecs: list[dict[str, Any]]) -> dict[str, Any]:
    """The inverse of `zarr_v3_codecs`: the compressor as numcodecs names it; {} for none.

    Raises
    ------
    UnsupportedFormatError
        It is not one that a volume of ours has.
    """
    for codec in codecs:
        name, options = codec["name"], dict(codec.get("configuration", {}))
        if name == "blosc":
            options["shuffle"] = _SHUFFLE_NUMBER[options["shuffle"]]
            return {"id": "blosc", **{k: v for k, v in options.items() if k != "typesize"}}
        if name in ("zstd", "gzip"):
            return {"id": name, "level": options["level"]}
        if name not in ("bytes", "crc32c"):
            raise UnsupportedFormatError(f"the codec {name} is not one of macroscope's", advice="")
    return {}
