"""The cases whose source is a Zarr v2 array in an object store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import obstore

from benchmarks import sources
from benchmarks.measure import Run, run_program, run_python
from benchmarks.plan import STEPS, WHOLE, Case, Goal, Setting, Variant
from lib.volumes.job import named_codec, zarr_v3_codecs

_ZSTD = {"name": "zstd", "configuration": {"level": 1}}
_BLOSC = {
    "name": "blosc",
    "configuration": {"cname": "zstd", "clevel": 1, "shuffle": "shuffle", "typesize": 2},
}
_INT16 = np.dtype("int16")
_OURS = zarr_v3_codecs(named_codec("blosc", _INT16), _INT16)[-1]
"""In blocks of the size that we choose; a script leaves it to Blosc."""
_SHARDS = {"u8": (256, 512, 512), "gzip": (256, 512, 512), "i16": (256, 256, 512)}
"""The shards that we choose for these arrays, so that all write the same layout."""


def _prepare(kind: str) -> Any:
    def prepare(setting: Setting) -> None:
        sources.put_zarr(setting.servers.s3_server(), kind, setting.megabytes, setting.cache)

    return prepare


def ours(
    kind: str,
    network: str = "near",
    connections: int = 16,
    entry: str = "ingest",
    config: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Our run of one array, from plan to publication."""

    def run(setting: Setting, output: Path) -> Run:
        endpoint = setting.servers.s3(network)
        settings = {
            "s3_uri": f"s3://{sources.BUCKET}",
            "s3_endpoint_url": endpoint,
            "dataset_id": sources.dataset(kind, setting.megabytes),
            "zarr_path": f"recon-1/em/fibsem-{sources.ZARRS[kind]['dtype']}",
            "scale_level": "s0",
            "max_connections": connections,
            **(config or {}),
        }
        return run_python(
            f"benchmarks.ours:{entry}",
            {"source": "openorganelle", "config": settings, "output": str(output), **options},
            setting.servers.trust,
        )

    return run


def ours_to_bucket(kind: str) -> Any:
    """The same to the bucket beside the source; what an earlier round wrote is deleted first."""

    def run(setting: Setting, output: Path) -> Run:
        server = setting.servers.s3_server()
        store = server.store(sources.BUCKET)
        for found in obstore.list(store, "made/"):
            obstore.delete(store, [item["path"] for item in found])
        access = {"endpoint_url": server.endpoint_url, "key": server.key, "secret": server.secret}
        return ours(kind, store=access)(setting, f"s3://{sources.BUCKET}/made")

    return run


def peer(target: str, kind: str, network: str = "near", **options: Any) -> Any:
    """A peer's copy of one array to the same layout."""

    def run(setting: Setting, output: Path) -> Run:
        where = _where(setting, kind, network)
        shape = sources.zarr_shape(kind, setting.megabytes)
        shard = [min(n, s) for n, s in zip(shape, _SHARDS[kind], strict=True)]
        layout = {
            "shard": shard,
            "chunk": [sources.ZARRS[kind]["chunk"]] * 3,
            "codec": _BLOSC if kind == "i16" else _ZSTD,
        }
        if target.endswith(":to_npy"):
            layout = {}
        given = {**where, "output": str(output), **layout, **options}
        return run_python(target, given, setting.servers.trust)

    return run


def _where(setting: Setting, kind: str, network: str) -> dict[str, Any]:
    return {
        "endpoint": setting.servers.s3(network),
        "bucket": sources.BUCKET,
        "key": sources.array_key(kind, setting.megabytes),
    }


def rclone(kind: str, network: str = "near", connections: int = 32) -> Any:
    """The bare objects to files."""

    def run(setting: Setting, output: Path) -> Run:
        where = _where(setting, kind, network)
        remote = f":s3,provider=Other,endpoint='{where['endpoint']}':"
        at_once = str(connections)
        options = ["--transfers", at_once, "--checkers", "32", "--no-check-dest", "--config", ""]
        return run_program(
            ["rclone", "copy", *options, f"{remote}{where['bucket']}/{where['key']}", str(output)],
            setting.servers.trust,
        )

    return run


def s5cmd(kind: str, network: str = "near", connections: int = 32) -> Any:
    """The bare objects to files."""

    def run(setting: Setting, output: Path) -> Run:
        where = _where(setting, kind, network)
        source = f"s3://{where['bucket']}/{where['key']}/*"
        options = ["--no-sign-request", "--endpoint-url", where["endpoint"]]
        options += ["--numworkers", str(connections)]
        return run_program(["s5cmd", *options, "cp", source, f"{output}/"], setting.servers.trust)

    return run


def floor(
    kind: str,
    to: str,
    network: str = "near",
    connections: int = 16,
    **more: bool,
) -> Any:
    """The necessary steps and nothing else; see `benchmarks.floors`."""

    def run(setting: Setting, output: Path) -> Run:
        options = {"kind": kind, "to": to, "connections": connections, **more}
        where = {**_where(setting, kind, network), "output": str(output)}
        target = "benchmarks.floors:objects"
        return run_python(target, {**where, **options}, setting.servers.trust)

    return run


def _times(factor: int, run: Any) -> Any:
    """The same run on a larger source."""

    def larger(setting: Setting, output: Path) -> Run:
        return run(replace(setting, megabytes=setting.megabytes * factor), output)  # type: ignore[no-any-return]

    return larger


def _prepare_times(kind: str, factors: tuple[int, ...]) -> Any:
    def prepare(setting: Setting) -> None:
        for factor in factors:
            _prepare(kind)(replace(setting, megabytes=setting.megabytes * factor))

    return prepare


def _prepare_kinds(*kinds: str) -> Any:
    def prepare(setting: Setting) -> None:
        for kind in kinds:
            _prepare(kind)(setting)

    return prepare


two_workers = ours("u8", at_once=1, batches_at_once=2)

_TENSORSTORE = "benchmarks.peers_tensorstore:copy"
_PRODUCT = "product on tensorstore"
"""The same work as ours."""
_FEW = "ours, 4 connections"
"""A server that shares our processors needs no more, and threads that wait for one cost."""


def product(kind: str, network: str = "near", **options: Any) -> Variant:
    """The script that does the same work as ours on tensorstore."""
    return Variant(
        _PRODUCT, peer("benchmarks.peers_product:on_tensorstore", kind, network, **options)
    )


def over_tls(kind: str, network: str, copy: float, work: float, **far: Any) -> Case:
    """A case once more over TLS, as public archives speak it; its client checks no ETags."""
    connections = far.get("concurrency", 16)
    return Case(
        f"{network.removesuffix('-tls')}-{kind}-tls",
        f"S3 Zarr ({kind}) over TLS" + (", far" if far else ""),
        _prepare(kind),
        (
            Variant("ours", ours(kind, network, connections)),
            Variant(STEPS, floor(kind, "same", network, connections, md5=False)),
            Variant("tensorstore", peer(_TENSORSTORE, kind, network, **far)),
            product(kind, network, **far),
        ),
        (Goal("ours", "tensorstore", copy), Goal("ours", _PRODUCT, work)),
    )


CASES = (
    Case(
        "s3-uint8",
        "S3 Zarr v2 (uint8, 64^3, zstd) to sharded OME-Zarr, pyramid, digests, statistics",
        _prepare("u8"),
        (
            Variant("ours", ours("u8")),
            Variant(_FEW, ours("u8", connections=4)),
            Variant(STEPS, floor("u8", "same")),
            Variant(WHOLE, floor("u8", "same", whole=True)),
            Variant("tensorstore", peer(_TENSORSTORE, "u8")),
            Variant("zarr+obstore", peer("benchmarks.peers_zarr:copy", "u8")),
            Variant("dask+s3fs", peer("benchmarks.peers_dask:copy", "u8")),
            product("u8"),
            Variant("product on zarrs", peer("benchmarks.peers_product:on_zarrs", "u8")),
            Variant("rclone", rclone("u8"), "rclone"),
            Variant("s5cmd", s5cmd("u8"), "s5cmd"),
        ),
        (
            Goal("ours", _PRODUCT, 0.7),
            Goal("ours", _PRODUCT, 0.7, "cpu_s"),
            Goal("ours", "tensorstore", 1.2),
            Goal("ours", "dask+s3fs", 0.25),
            Goal("ours", "rclone", 1.4),
        ),
    ),
    Case(
        "s3-int16",
        "the same, int16, 128^3, blosc",
        _prepare("i16"),
        (
            Variant("ours", ours("i16")),
            Variant(_FEW, ours("i16", connections=4)),
            Variant(STEPS, floor("i16", "same")),
            Variant(WHOLE, floor("i16", "same", whole=True)),
            Variant("tensorstore", peer(_TENSORSTORE, "i16")),
            product("i16"),
            Variant(
                f"{_PRODUCT}, our blocks",
                peer("benchmarks.peers_product:on_tensorstore", "i16", codec=_OURS),
            ),
            Variant("zarr+obstore", peer("benchmarks.peers_zarr:copy", "i16")),
        ),
        (Goal("ours", _PRODUCT, 0.6), Goal("ours", "tensorstore", 0.8)),
    ),
    Case(
        "s3-gzip",
        "the same, uint8, gzip: every chunk is encoded anew",
        _prepare("gzip"),
        (
            Variant("ours", ours("gzip")),
            Variant(_FEW, ours("gzip", connections=4)),
            Variant(STEPS, floor("gzip", "zstd")),
            Variant(WHOLE, floor("gzip", "zstd", whole=True)),
            Variant("tensorstore", peer(_TENSORSTORE, "gzip")),
            product("gzip"),
        ),
        (Goal("ours", _PRODUCT, 0.9),),
    ),
    Case(
        "labels",
        "S3 Zarr v2 (64^3, zstd) as labels: bodies (uint64), and classes (int8) of as many voxels "
        "as the image (uint8) has, beside it",
        _prepare_kinds("u8", "u64", "i8"),
        (
            Variant("image", ours("u8")),
            Variant("labels", ours("u64", config={"kind": "labels"})),
            Variant("labels, encoded", ours("u64", config={"kind": "labels", "codec": "zstd"})),
            Variant("classes", ours("i8", config={"kind": "labels"})),
        ),
        (
            Goal("labels", "image", 1.3),
            Goal("labels, encoded", "image", 1.3),
            Goal("classes", "image", 1.3),
        ),
    ),
    Case(
        "s3-npy",
        "S3 Zarr (uint8) to npy with sha256 and mean",
        _prepare("u8"),
        (
            Variant("ours", ours("u8", config={"output_format": "npy"})),
            Variant(STEPS, floor("u8", "voxels")),
            Variant("tensorstore", peer("benchmarks.peers_tensorstore:to_npy", "u8")),
        ),
        (Goal("ours", "tensorstore", 1.1),),
    ),
    Case(
        "destination",
        "S3 Zarr (uint8) to a folder, and to a bucket of the same server",
        _prepare("u8"),
        (Variant("to a folder", ours("u8")), Variant("to a bucket", ours_to_bucket("u8"))),
    ),
    Case(
        "durable",
        "S3 Zarr (uint8) to a folder, forced to the disk before it is called complete, and not",
        _prepare("u8"),
        tuple(
            Variant(
                f"{output_format}{'' if durable else ', not forced'}",
                ours("u8", config={"output_format": output_format}, store={"durable": durable}),
            )
            for output_format in ("zarr", "npy")
            for durable in (True, False)
        ),
        (Goal("zarr", "zarr, not forced", 1.15), Goal("npy", "npy, not forced", 1.5)),
    ),
    Case(
        "far-s3",
        "S3 Zarr (uint8) at 30 ms and 20 MiB/s a connection, 128 in flight",
        _prepare("u8"),
        (
            Variant("ours", ours("u8", "far", 128)),
            Variant(STEPS, floor("u8", "same", "far", 128)),
            Variant("tensorstore", peer(_TENSORSTORE, "u8", "far", concurrency=128)),
            Variant("tensorstore, default", peer(_TENSORSTORE, "u8", "far")),
            product("u8", "far", concurrency=128),
            Variant("rclone", rclone("u8", "far", 128), "rclone"),
            Variant("s5cmd", s5cmd("u8", "far", 128), "s5cmd"),
        ),
        (
            Goal("ours", _PRODUCT, 0.85),
            Goal("ours", "rclone", 1 / 0.9),
            Goal("ours", "tensorstore", 1.2),
        ),
    ),
    over_tls("u8", "near-tls", 1.2, 0.7),
    over_tls("i16", "near-tls", 0.8, 0.6),
    over_tls("u8", "far-tls", 1.2, 0.85, concurrency=128),
    *(
        Case(
            name,
            "peak memory of 2 workers, " + ", ".join(f"{n} times the size" for n in times),
            _prepare_times("u8", times),
            tuple(Variant(f"x{n}", _times(n, two_workers)) for n in times),
            (
                Goal(f"x{times[-1]}", "x1", 1.15, "peak_mb"),
                Goal(f"x{times[-1]}", "x1", 1.15 * times[-1]),
            ),
            full=name.endswith("16"),
        )
        for name, times in (("memory", (1, 4)), ("memory-16", (1, 4, 16)))
    ),
    Case(
        "scaling",
        "gzip source re-encoded by 1 and by 2 local Dask workers, each one thread",
        _prepare("gzip"),
        tuple(Variant(f"{n} worker", ours("gzip", entry="ingest_dask", workers=n)) for n in (1, 2)),
        (Goal("2 worker", "1 worker", 1 / 1.7),),
    ),
)
