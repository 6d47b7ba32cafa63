"""Faults that are no switch of a stand-in: disks, addresses, credentials, sources that change."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import quote

import numcodecs
import numpy as np
import obstore
from numpy.typing import NDArray
from pydantic import SecretStr

from emulators import catalogue
from emulators.serving import BUCKET, Samples
from lib.storage.durable import naming_os_errors
from tests.faults.bench import Bench
from tests.kit.restored import restored

Situation = Callable[[Samples, Bench], AbstractContextManager[None]]
CLOSED = "127.0.0.1:9"  # the discard service, which nobody runs
NOWHERE = "nowhere.invalid"  # RFC 6761: never resolves
ROWS_BYTES = 1024
NO_ROUTE = "[2001:db8::1]"  # RFC 3849: for documentation, routed by nobody


class NotHere(Exception):
    """This machine cannot bring the fault about; the cell is left out."""


# --- settings -------------------------------------------------------------------------------


def given(**settings: Any) -> Situation:
    """Run with other settings; a callable is asked for its value with the samples."""

    @contextmanager
    def situation(samples: Samples, bench: Bench) -> Iterator[None]:
        values = {k: v(samples) if callable(v) else v for k, v in settings.items()}
        before = dict(bench.settings)
        bench.settings.update(values)
        try:
            yield
        finally:
            bench.settings.clear()
            bench.settings.update(before)

    return situation


def over_tls(service: str, path: str = "") -> Callable[[Samples], str]:
    """The stand-in's address, with TLS, which it does not speak."""
    return lambda samples: f"https://{samples.address(service)}{path}"


def destination(uri: str | None = None, **changed: Any) -> Situation:
    """Another destination, or another way to reach it."""

    @contextmanager
    def situation(samples: Samples, bench: Bench) -> Iterator[None]:
        before = bench.uri, bench.store_settings
        bench.uri = uri or bench.uri
        bench.store_settings = bench.store_settings.model_copy(update=changed)
        try:
            yield
        finally:
            bench.uri, bench.store_settings = before

    return situation


WRONG_SECRET = {"secret": SecretStr("not-the-secret")}


# --- disks ----------------------------------------------------------------------------------


def failing_writes(number: int, after: int = 0) -> Situation:
    """The store's writes fail with an error number of the system, after some that succeed."""

    @contextmanager
    def situation(samples: Samples, bench: Bench) -> Iterator[None]:
        write, left = os.pwrite, [after]

        def pwrite(handle: int, data: Any, offset: int) -> int:
            if left[0] <= 0:
                raise OSError(number, os.strerror(number))
            left[0] -= 1
            return write(handle, data, offset)

        with patch.object(os, "pwrite", pwrite):
            yield

    return situation


def failing_raw_files(number: int) -> Situation:
    """Raw files cannot be grown."""

    @contextmanager
    def situation(samples: Samples, bench: Bench) -> Iterator[None]:
        def refuse(*_: Any, **__: Any) -> None:
            with naming_os_errors(str(bench.uri), "write"):
                raise OSError(number, os.strerror(number))

        with (
            patch("lib.transport.partial.PartialFile.write", refuse),
            patch("lib.rawfiles.sidecar.RawTee.write", refuse),
        ):
            yield

    return situation


def full_disk(size: str) -> Situation:
    """A real file system of a few blocks; larger again afterwards."""

    @contextmanager
    def situation(samples: Samples, bench: Bench) -> Iterator[None]:
        _mount(bench, f"size={size}")
        try:
            yield
        finally:
            _remount(bench, "size=64m")

    return situation


@contextmanager
def read_only_disk(samples: Samples, bench: Bench) -> Iterator[None]:
    """A real file system that is mounted read-only; writable again afterwards."""
    _mount(bench, "size=64m,ro")
    try:
        yield
    finally:
        _remount(bench, "rw,size=64m")


def file_size_limit(limit: int) -> Situation:
    """The process may write no file larger than that (``ulimit -f``)."""

    @contextmanager
    def situation(samples: Samples, bench: Bench) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return situation


@contextmanager
def no_permission(samples: Samples, bench: Bench) -> Iterator[None]:
    """A folder in which nobody may make anything, not even root."""
    before = bench.uri
    bench.uri = "/sys/macroscope"
    try:
        yield
    finally:
        bench.uri = before


@contextmanager
def file_in_the_way(samples: Samples, bench: Bench) -> Iterator[None]:
    """A file has the name of the source's folder."""
    path = Path(bench.uri, bench.source)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"mine")
    try:
        yield
        assert path.read_bytes() == b"mine"
    finally:
        path.unlink()


def _mount(bench: Bench, options: str) -> None:
    folder = Path(bench.uri)
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotHere("only root may mount a file system") from error
    bench.at_end.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)


def _remount(bench: Bench, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", bench.uri], check=True)


# --- sources that change between two halves -------------------------------------------------


def first_half(samples: Samples, bench: Bench, **rule: Any) -> None:
    """A run that fails on the way."""
    samples.control.add(**rule)
    half = bench.run()
    samples.control.clear()
    assert half.errors, "the first half went through"


def swapped_files(pattern: str, **rule: Any) -> Situation:
    """After the first half, two files of the archive have changed places; same sizes, new dates."""

    @contextmanager
    def situation(samples: Samples, bench: Bench) -> Iterator[None]:
        first_half(samples, bench, **rule)
        paths = sorted(samples.root.rglob(pattern))[:2]
        with ExitStack() as stack:
            contents = [stack.enter_context(restored(path)) for path in paths]
            for path, content in zip(paths, reversed(contents), strict=True):
                path.write_bytes(content)
            yield

    return situation


def inverted_rows(pattern: str, key: str, **rule: Any) -> Situation:
    """After the first half, the first rows of a file's first plane are inverted; same size.

    ``key`` is the sample's, whose voxels tell where in the file those rows lie.
    """

    @contextmanager
    def situation(samples: Samples, bench: Bench) -> Iterator[None]:
        first_half(samples, bench, **rule)
        (path,) = samples.root.rglob(pattern)
        content = path.read_bytes()
        start = content.index(catalogue.truth(key).tobytes()[:ROWS_BYTES])
        rows = bytes(255 - byte for byte in content[start : start + ROWS_BYTES])
        with restored(path):
            path.write_bytes(content[:start] + rows + content[start + ROWS_BYTES :])
            yield

    return situation


def invert_rows(voxels: NDArray[Any]) -> NDArray[Any]:
    """What `inverted_rows` makes of a volume of bytes."""
    voxels = voxels.copy()
    flat = voxels.reshape(-1)
    flat[:ROWS_BYTES] = 255 - flat[:ROWS_BYTES]
    return voxels


def inverted_chunks(prefix: str, **rule: Any) -> Situation:
    """After the first half, every chunk of a Zarr level holds the inverted voxels."""

    @contextmanager
    def situation(samples: Samples, bench: Bench) -> Iterator[None]:
        assert samples.s3 is not None
        store = samples.s3.store(BUCKET)
        pages = list(obstore.list(store, prefix))
        keys = [one["path"] for page in pages for one in page if "/." not in one["path"]]
        before = {key: bytes(obstore.get(store, key).bytes()) for key in keys}
        zstd = numcodecs.Zstd(level=1)
        first_half(samples, bench, **rule)
        try:
            for key, content in before.items():
                voxels = np.frombuffer(zstd.decode(content), "<i2")
                obstore.put(store, key, bytes(zstd.encode(np.invert(voxels))))
            yield
        finally:
            for key, content in before.items():
                obstore.put(store, key, content)

    return situation


def swap_planes(voxels: NDArray[Any]) -> NDArray[Any]:
    """What `swapped_files` makes of the first two sections."""
    return voxels[[1, 0, *range(2, len(voxels))]]


def complex_array(samples: Samples, bench: Bench) -> AbstractContextManager[None]:
    """A Zarr array of complex numbers in the bucket."""

    @contextmanager
    def situation() -> Iterator[None]:
        assert samples.s3 is not None
        store = samples.s3.store(BUCKET)
        name = "jrc_sample-separator/jrc_sample-separator.zarr/recon-1/em/fibsem-uint8/s0/.zarray"
        before = bytes(obstore.get(store, name).bytes())
        assert b'"|u1"' in before
        obstore.put(store, name, before.replace(b'"|u1"', b'"<c16"'))
        try:
            yield
        finally:
            obstore.put(store, name, before)

    return situation()


def missing_file(samples: Samples) -> str:
    """An address at EPFL's stand-in where nothing is."""
    return samples.url("epfl") + quote("/groups/c/absent.tif")


FULL, QUOTA, IO_ERROR, READ_ONLY = errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS
