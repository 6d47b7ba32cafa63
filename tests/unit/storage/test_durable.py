"""Writing past the page cache changes nothing but the cache."""

from __future__ import annotations

import errno
import itertools
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lib.storage import durable
from lib.storage.durable import BLOCK, LEAST, PIECE, UncachedFile
from lib.storage.local import LocalStore

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL
BYTES = random.Random(3).randbytes(5 * PIECE + 12345)


@pytest.fixture(params=["as the file system does it", "O_DIRECT refused", "no O_DIRECT"])
def direct(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What different systems do with a direct write."""
    if request.param == "no O_DIRECT":
        monkeypatch.setattr(durable, "_DIRECT", 0)
    elif request.param == "O_DIRECT refused":
        real = os.pwrite

        def pwrite(fd: int, data: Any, offset: int) -> int:
            if _is_direct(fd):
                raise OSError(errno.EINVAL, "refused")
            return real(fd, data, offset)

        monkeypatch.setattr(os, "pwrite", pwrite)


def _is_direct(fd: int) -> bool:
    import fcntl

    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & getattr(os, "O_DIRECT", 0))


def _views(data: bytes, lengths: list[int]) -> list[memoryview]:
    views, at = [], 0
    while at < len(data):
        count = lengths[len(views) % len(lengths)]
        views.append(memoryview(data)[at : at + count])
        at += count
    return views


@pytest.mark.usefixtures("direct")
@pytest.mark.parametrize("size", [0, 1, LEAST - 1, LEAST, LEAST + BLOCK, len(BYTES)])
@pytest.mark.parametrize("lengths", [[1 << 30], [170_001, 3, 99_999], [BLOCK], [PIECE + 1]])
def test_what_is_written_in_pieces_is_read_back(
    tmp_path: Path, size: int, lengths: list[int]
) -> None:
    data = BYTES[:size]
    with UncachedFile(str(tmp_path / "f"), NEW) as file, file.append(0) as end:
        for view in _views(data, lengths):
            end.write(view)
        end.flush()
    assert (tmp_path / "f").read_bytes() == data


@pytest.mark.usefixtures("direct")
def test_ranges_that_meet_inside_a_block_do_not_harm_each_other(tmp_path: Path) -> None:
    rng = random.Random(7)
    cuts = sorted({0, len(BYTES), *(rng.randrange(len(BYTES)) for _ in range(5))})
    ranges = list(itertools.pairwise(cuts))
    for attempt in range(5):
        path = tmp_path / f"f{attempt}"
        with UncachedFile(str(path), NEW) as file, ThreadPoolExecutor(4) as pool:
            os.ftruncate(file.fd, len(BYTES))
            rng.shuffle(ranges)
            for future in [pool.submit(file.pwrite, memoryview(BYTES)[a:b], a) for a, b in ranges]:
                future.result()
        assert path.read_bytes() == BYTES


def test_a_direct_write_that_the_kernel_splits_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def pwrite(fd: int, data: Any, offset: int) -> int:
        return real(fd, data[: max(1, len(data) // 3)], offset)

    with UncachedFile(str(tmp_path / "f"), NEW) as file:
        monkeypatch.setattr(os, "pwrite", pwrite)
        file.pwrite(memoryview(BYTES), 0)
    assert (tmp_path / "f").read_bytes() == BYTES


def test_another_error_of_a_direct_write_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pwrite(fd: int, data: Any, offset: int) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "pwrite", pwrite)
    with UncachedFile(str(tmp_path / "f"), NEW) as file, pytest.raises(OSError, match="full"):
        file.pwrite(memoryview(BYTES), 0)


def test_a_large_object_leaves_no_pages_in_the_cache(tmp_path: Path) -> None:
    try:
        os.close(os.open(tmp_path / "probe", NEW | os.O_DIRECT))
    except (OSError, AttributeError):
        pytest.skip("no direct writes on this file system")
    store = LocalStore(tmp_path)
    store.put("large", BYTES[:LEAST])
    store.put("small", BYTES[:BLOCK])
    assert not _cached(tmp_path / "large")
    assert _cached(tmp_path / "small")
    assert store.get("large") == BYTES[:LEAST]


def _cached(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.preadv(fd, [bytearray(16)], 0, os.RWF_NOWAIT) == 16
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
