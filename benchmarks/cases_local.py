"""The cases whose source lies on this disk: Zarr, precomputed, N5, HDF5."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import sources
from benchmarks.measure import Run, run_python
from benchmarks.plan import STEPS, WHOLE, Case, Goal, Setting, Variant
from benchmarks.truth import shape_for, volume

_ZSTD = {"name": "zstd", "configuration": {"level": 1}}
_CHUNK = 64
_SHARD = (256, 512, 512)
"""The shards that we choose for chunks of 64^3 bytes, so that all write the same layout."""

_DRIVERS = {
    "zarr2": "zarr",
    "zarr3": "zarr3",
    "n5": "n5",
    "precomputed": "neuroglancer_precomputed",
}
_WORDS = {"zarr2": "zarr2:", "zarr3": "zarr3:", "n5": "n5:", "hdf5": "hdf5:raw"} | {
    "precomputed": "neuroglancer-precomputed:"
}


def _shape(setting: Setting) -> tuple[int, int, int]:
    return shape_for(setting.megabytes, 1)


def _path(setting: Setting, kind: str) -> Path:
    name = "volume.h5" if kind == "hdf5" else "volume"
    return setting.cache / f"local-{kind}-{setting.megabytes:g}" / name


def _spec(kind: str, path: Path, shape: tuple[int, int, int]) -> dict[str, Any]:
    """How each format is commonly written: zstd for Zarr, gzip for N5 and precomputed."""
    spec: dict[str, Any] = {
        "driver": _DRIVERS[kind],
        "kvstore": {"driver": "file", "path": f"{path}/"},
    }
    xyz, chunk = list(shape[::-1]), [_CHUNK] * 3
    if kind == "zarr2":
        codec = {"id": "zstd", "level": 1}
        spec["metadata"] = {"shape": list(shape), "chunks": chunk, "dtype": "|u1"}
        spec["metadata"] |= {"compressor": codec, "dimension_separator": "/", "fill_value": 0}
    elif kind == "zarr3":
        inner = [{"name": "bytes"}, _ZSTD]
        sharding = {"chunk_shape": chunk, "codecs": inner}
        spec["metadata"] = {
            "shape": list(shape),
            "data_type": "uint8",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [128] * 3}},
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        }
    elif kind == "n5":
        compression = {"type": "gzip", "level": 1}
        spec["metadata"] = {"dimensions": xyz, "blockSize": chunk, "dataType": "uint8"}
        spec["metadata"] |= {"compression": compression}
    else:
        sharding = {
            "@type": "neuroglancer_uint64_sharded_v1",
            "preshift_bits": 6,
            "minishard_bits": 3,
            "shard_bits": 6,
            "hash": "identity",
            "data_encoding": "gzip",
            "minishard_index_encoding": "gzip",
        }
        spec["multiscale_metadata"] = {"type": "image", "data_type": "uint8", "num_channels": 1}
        spec["scale_metadata"] = {
            "size": xyz,
            "encoding": "raw",
            "chunk_size": chunk,
            "resolution": [8, 8, 8],
            "sharding": sharding,
        }
    return spec


def _prepare(kind: str) -> Callable[[Setting], None]:
    def prepare(setting: Setting) -> None:
        path, shape, voxels = _path(setting, kind), _shape(setting), volume("uint8")
        marker = path.parent / ".built"
        if marker.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        slabs = range(0, shape[0], 256)
        if kind == "hdf5":
            import h5py

            with h5py.File(path, "w") as file:
                made = file.create_dataset(
                    "raw", shape, "u1", chunks=(_CHUNK,) * 3, compression="gzip", compression_opts=1
                )
                for z in slabs:
                    part = voxels((z, 0, 0), (min(256, shape[0] - z), *shape[1:]))
                    made[z : z + 256] = part
        else:
            import tensorstore as ts

            target = ts.open(_spec(kind, path, shape), create=True, open=True).result()
            for z in slabs:
                stop = min(z + 256, shape[0])
                part = voxels((z, 0, 0), (stop - z, *shape[1:]))
                if kind == "precomputed":
                    target[:, :, z:stop, 0].write(part.T).result()
                elif kind == "n5":
                    target[:, :, z:stop].write(part.T).result()
                else:
                    target[z:stop].write(part).result()
        marker.touch()

    return prepare


def _ours(kind: str) -> Callable[[Setting, Path], Run]:
    def run(setting: Setting, output: Path) -> Run:
        config = {
            "addresses": [f"{_path(setting, kind)}|{_WORDS[kind]}"],
            "voxel_size_nm": sources.VOXEL_NM,
            "kind": "image",
        }
        return run_python(
            "benchmarks.ours:ingest",
            {"source": "address", "config": config, "output": str(output)},
        )

    return run


def _peer(kind: str, function: str, **options: Any) -> Callable[[Setting, Path], Run]:
    def run(setting: Setting, output: Path) -> Run:
        layout = {
            "shard": [min(n, s) for n, s in zip(_shape(setting), _SHARD, strict=True)],
            "chunk": [_CHUNK] * 3,
            "codec": _ZSTD,
        }
        given = {"path": str(_path(setting, kind)), "output": str(output), **layout, **options}
        return run_python(f"benchmarks.peers_local:{function}", given)

    return run


def _tensorstore(kind: str) -> Variant:
    return Variant("tensorstore", _peer(kind, "on_tensorstore", driver=_DRIVERS[kind]))


def _zarrs(kind: str) -> Variant:
    return Variant("zarrs", _peer(kind, "on_zarrs", zarr_format=int(kind[-1])))


def _floors(kind: str) -> tuple[Variant, ...]:
    """The necessary steps and nothing else, and those with a level; see `benchmarks.floors`."""

    def floor(**more: bool) -> Callable[[Setting, Path], Run]:
        def run(setting: Setting, output: Path) -> Run:
            given = {"path": str(_path(setting, kind)), "kind": kind, "output": str(output)}
            return run_python("benchmarks.floors:folder", given | more)

        return run

    return (Variant(STEPS, floor()), Variant(WHOLE, floor(whole=True)))


CASES = (
    Case(
        "local-zarr2",
        "Zarr v2 in a folder (uint8, 64^3, zstd) to sharded Zarr v3: the same product by all",
        _prepare("zarr2"),
        (
            Variant("ours", _ours("zarr2")),
            *_floors("zarr2"),
            _tensorstore("zarr2"),
            _zarrs("zarr2"),
        ),
        (Goal("ours", "tensorstore", 0.8), Goal("ours", "zarrs", 0.8)),
    ),
    Case(
        "local-zarr3",
        "sharded Zarr v3 in a folder (shards of 128^3) to other shards",
        _prepare("zarr3"),
        (
            Variant("ours", _ours("zarr3")),
            *_floors("zarr3"),
            _tensorstore("zarr3"),
            _zarrs("zarr3"),
        ),
        (Goal("ours", "tensorstore", 0.8), Goal("ours", "zarrs", 0.8)),
    ),
    Case(
        "local-precomputed",
        "sharded precomputed in a folder (raw, gzip, 64^3)",
        _prepare("precomputed"),
        (
            Variant("ours", _ours("precomputed")),
            *_floors("precomputed"),
            _tensorstore("precomputed"),
        ),
        (Goal("ours", "tensorstore", 1.0),),
    ),
    Case(
        "local-n5",
        "N5 in a folder (gzip, 64^3)",
        _prepare("n5"),
        (Variant("ours", _ours("n5")), _tensorstore("n5")),
        (Goal("ours", "tensorstore", 1.0),),
    ),
    Case(
        "local-hdf5",
        "HDF5 file (gzip, 64^3)",
        _prepare("hdf5"),
        (Variant("ours", _ours("hdf5")), Variant("h5py", _peer("hdf5", "on_h5py", dataset="raw"))),
        (Goal("ours", "h5py", 1.0),),
    ),
)
