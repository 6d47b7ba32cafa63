"""The least that each job takes with the libraries we use: its necessary steps and nothing else.

Every thread receives a piece into a buffer of its own, hashes it, decodes or encodes it where the
job needs that, hashes what comes out and writes it to a file of its own. Nothing is planned, put
into its place, retried, counted against limits, recorded or read again; there is no pyramid, no
preview and no second look at the source. No program in Python that does these steps is faster.

With ``whole``, statistics and the first coarse level are taken from each chunk too: then it is the
least that a volume with both costs.
"""

from __future__ import annotations

import contextlib
import ftplib
import hashlib
import http.client
import itertools
import os
import queue
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numcodecs
import numpy as np
import obstore
from imagecodecs import gzip_decode
from numpy.typing import NDArray
from obstore.store import S3Store

from benchmarks.sources import ZARRS
from lib.compression import decode_into
from lib.formats.precomputed.shards import ShardingSpec
from lib.storage.durable import UncachedFile
from lib.transport.md5 import compile_lanes
from lib.volumes import kernels

_PLANES = 16
_ZSTD = {"id": "zstd", "level": 1}
T = TypeVar("T")


def tiff(
    url: str,
    size: int,
    page_yx: list[int],
    output: str,
    connections: int,
    whole: bool = False,
    keep: bool = False,
) -> None:
    """Ranges of sixteen pages over HTTP, hashed; chunks of 16 x 128 x 128 encoded and written.

    With `keep`, the ranges are written too, and forced to the disk.
    """
    height, width = page_yx
    step = _PLANES * height * width
    pieces = [(at, min(step, size - at)) for at in range(0, size, step)]

    raw = _new_file(f"{output}/raw") if keep else None

    def worker(take: Iterable[tuple[int, int]], out: _Out) -> None:
        fetch, buffer, digest = _http(url), np.zeros(step, np.uint8), hashlib.sha256()
        for start, length in take:
            view = buffer.data[:length]
            fetch(urlsplit(url).path, {"Range": f"bytes={start}-{start + length - 1}"}, view)
            digest.update(view)
            if raw is not None:
                raw.pwrite(view, start)
            out.cut(buffer.reshape(_PLANES, height, width), (_PLANES, 128, 128))

    with raw or contextlib.nullcontext():
        _run(pieces, worker, connections, output, whole)
        if raw is not None:
            os.fsync(raw.fd)


def dvid(
    url: str, edge: int, start: int, output: str, connections: int, whole: bool = False
) -> None:
    """Tiles of 256^3; chunks of 64^3 encoded, hashed and written."""
    corners = list(itertools.product(range(0, edge, 256), repeat=3))

    def worker(take: Iterable[tuple[int, int, int]], out: _Out) -> None:
        fetch, buffer = _http(url), np.empty(256**3, np.uint8)
        for corner in take:
            x, y, z = (min(256, edge - at) for at in corner)
            offset = "_".join(str(start + at) for at in corner)
            fetch(f"{urlsplit(url).path}/{x}_{y}_{z}/{offset}", {}, buffer.data[: x * y * z])
            out.cut(buffer[: x * y * z].reshape(z, y, x), (64, 64, 64))

    _run(corners, worker, connections, output, whole)


def sections(port: int, folder: str, page_yx: list[int], output: str, whole: bool = False) -> None:
    """Files over one FTP connection, hashed and written; then their voxels encoded and written."""
    height, width = page_yx
    planes = np.empty((_PLANES, height, width), np.uint8)

    def receive(take: Iterable[str], out: _Out) -> None:
        with ftplib.FTP(timeout=60) as ftp:
            ftp.connect("127.0.0.1", port)
            ftp.login()
            names = sorted(name.rpartition("/")[2] for name in ftp.nlst(folder))
            for plane, name in zip(planes, names, strict=True):
                target, at = plane.reshape(-1), 0

                def keep(block: bytes, target: Any = target) -> None:
                    nonlocal at
                    out.hashed(block)
                    part = np.frombuffer(block, np.uint8)[: target.size - at]
                    target[at : at + part.size] = part
                    at += part.size

                ftp.retrbinary(f"RETR {folder}/{name}", keep, 2**16)

    def encode(take: Iterable[int], out: _Out) -> None:
        for y in take:
            out.cut(planes[:, y : y + 128], (_PLANES, 128, 128))

    _run([folder], receive, 1, output)
    _run(list(range(0, height, 128)), encode, 2, output, whole)


_TOGETHER = 8  # objects of a thread, whose MD5 is computed at once


def objects(
    endpoint: str,
    bucket: str,
    key: str,
    output: str,
    kind: str,
    to: str,
    connections: int = 16,
    whole: bool = False,
    md5: bool = True,
) -> None:
    """Objects, checked against their ETag and decoded; counted, hashed and written.

    Parameters
    ----------
    kind
        Of `benchmarks.sources.ZARRS`: how they are compressed.
    to
        ``"same"``: written as they came; ``"zstd"``: encoded anew; ``"voxels"``: decoded.
    """
    store = S3Store(
        bucket,
        endpoint=endpoint,
        skip_signature=True,
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "pool_max_idle_per_host": str(connections)},
    )
    names = [item["path"] for page in obstore.list(store, f"{key}/") for item in page]
    chunks = [name for name in names if not name.rpartition("/")[2].startswith(".")]
    source = ZARRS[kind]
    edge, compressor = source["chunk"], source["compressor"]
    size = edge**3

    groups = [chunks[first : first + _TOGETHER] for first in range(0, len(chunks), _TOGETHER)]
    in_lanes = compile_lanes() if md5 else None

    def worker(take: Iterable[list[str]], out: _Out) -> None:
        scratch = np.empty(size, source["dtype"])
        codec = None if compressor["id"] == "gzip" else numcodecs.get_codec(dict(compressor))
        for group in take:
            came = [memoryview(obstore.get(store, name).bytes()) for name in group]
            if in_lanes is not None:
                in_lanes(came)
            for data in came:
                if codec is None:
                    unpacked = gzip_decode(bytes(data), out=scratch.nbytes)
                    voxels = np.frombuffer(unpacked, scratch.dtype)
                else:
                    decode_into(codec, data, scratch)
                    voxels = scratch
                kernels.count_values(voxels)
                if to == "zstd":
                    out.encoded(voxels)
                else:
                    out.hashed(voxels.data if to == "voxels" else data)
                if whole:
                    out.halved(voxels.reshape(edge, edge, edge))

    _run(groups, worker, connections, output)


def folder(path: str, kind: str, output: str, threads: int = 3, whole: bool = False) -> None:
    """Chunks of 64^3 bytes out of files of this disk, decoded, counted; encoded anew where they
    are gzip, hashed and written.

    Parameters
    ----------
    kind
        ``zarr2``: an object for each chunk; ``zarr3`` and ``precomputed``: shards.
    """
    chunks_of = {"zarr2": _of_file, "zarr3": _of_zarr3, "precomputed": _of_precomputed}[kind]
    files = [file for file in Path(path).rglob("*") if file.is_file()]
    holding = [file for file in files if file.suffix != ".json" and file.name not in _DOCUMENTS]
    zstd = numcodecs.get_codec(dict(_ZSTD))

    def worker(take: Iterable[Path], out: _Out) -> None:
        voxels = np.empty((64, 64, 64), np.uint8)
        for file in take:
            for data in chunks_of(file.read_bytes()):
                if kind == "precomputed":
                    gzip_decode(data, out=voxels.reshape(-1))
                    out.encoded(voxels)
                else:
                    zstd.decode(data, out=voxels)
                    out.hashed(data)
                kernels.count_values(voxels)
                if whole:
                    out.halved(voxels)

    _run(holding, worker, threads, output)


_DOCUMENTS = (".zarray", ".zattrs", ".zgroup", "info")


def _of_file(data: bytes) -> list[bytes | memoryview]:
    return [data]


def _of_zarr3(data: bytes) -> list[bytes | memoryview]:
    """Of a shard of eight chunks, whose index with its checksum is at the end."""
    index, view = np.frombuffer(data[-(16 * 8 + 4) : -4], "<u8").reshape(8, 2), memoryview(data)
    return [view[start : start + length] for start, length in index.tolist()]


def _of_precomputed(data: bytes) -> list[bytes | memoryview]:
    """Of a shard of eight minishards; see `benchmarks.cases_local`."""
    spec = ShardingSpec(6, False, 3, 6, True, True)
    found, view = [], memoryview(data)
    for minishard in range(8):
        start, length = spec.minishard_range(data, minishard, len(data))
        if length:
            found += spec.chunks(view[start : start + length], len(data)).values()
    return [view[start : start + length] for start, length in sorted(found)]


class _Out:
    """One thread's file; nothing is shared."""

    def __init__(self, path: Path, whole: bool) -> None:
        self._whole = whole
        self._file = _new_file(str(path))
        self._end = self._file.append(0)
        self._codec = numcodecs.get_codec(dict(_ZSTD))
        self._digest = hashlib.sha256()

    def hashed(self, data: bytes | memoryview) -> None:
        self._digest.update(data)
        self._end.write(data)

    def encoded(self, chunk: NDArray[Any]) -> None:
        self.hashed(self._codec.encode(chunk))

    def halved(self, chunk: NDArray[Any]) -> None:
        half = np.empty(kernels.pooled_shape(chunk.shape, (2, 2, 2)), chunk.dtype)
        kernels.pool(chunk, (2, 2, 2), half, labels=None)
        self.encoded(half)

    def cut(self, block: NDArray[Any], chunk_zyx: tuple[int, int, int]) -> None:
        corners = (range(0, n, step) for n, step in zip(block.shape, chunk_zyx, strict=True))
        for corner in itertools.product(*corners):
            box = tuple(slice(at, at + n) for at, n in zip(corner, chunk_zyx, strict=True))
            chunk = np.ascontiguousarray(block[box])
            self.encoded(chunk)
            if self._whole:
                kernels.count_values(chunk)
                self.halved(chunk)

    def close(self) -> None:
        with self._file, self._end:
            self._end.flush()


def _new_file(path: str) -> UncachedFile:
    return UncachedFile(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)


def _run(
    pieces: list[T],
    worker: Callable[[Iterable[T], _Out], None],
    threads: int,
    output: str,
    whole: bool = False,
) -> None:
    """Share `pieces` out among threads; the first error is raised."""
    folder = Path(tempfile.mkdtemp(dir=output))
    todo: queue.SimpleQueue[T | None] = queue.SimpleQueue()
    for piece in [*pieces, *[None] * threads]:
        todo.put(piece)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        out = _Out(folder / f"{number}.bin", whole)
        try:
            worker(iter(todo.get, None), out)
        except BaseException as error:
            errors.append(error)
        finally:
            out.close()

    crew = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    if errors:
        raise errors[0]


def _http(url: str) -> Callable[[str, dict[str, str], memoryview], None]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=600)

    def fetch(path: str, headers: dict[str, str], view: memoryview) -> None:
        connection.request("GET", path, headers=headers)
        answer, done = connection.getresponse(), 0
        while done < len(view) and (count := answer.readinto(view[done : done + 2**20])):
            done += count
        rest = answer.read(1)
        if done != len(view) or rest:
            raise RuntimeError(f"{path} has not {len(view)} bytes")

    return fetch
