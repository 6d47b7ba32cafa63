"""The digest of an object that is there."""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path

from lib.concurrency import cancel as stopping
from lib.errors import NotFoundError
from lib.storage.base import Store
from lib.storage.os_errors import naming_os_errors

_BLOCK = 8 * 2**20


def digest_of(store: Store, key: str) -> tuple[int, str]:
    """Size and hexadecimal sha256 of one object, read in blocks.

    Raises
    ------
    NotFoundError, DestinationError, StoppedError
    """
    size = store.size(key)
    if size is None:
        raise NotFoundError("there is no such object", location=key)
    digest = hashlib.sha256()
    for start in range(0, size, _BLOCK):
        stopping.check()
        digest.update(store.get_range(key, start, min(_BLOCK, size - start)))
    return size, digest.hexdigest()


def put_file(store: Store, key: str, path: Path) -> None:
    """Put a file into a store without holding it in memory.

    Raises
    ------
    DestinationError, DestinationBusyError, NotFoundError
    """
    with naming_os_errors(str(path), "read"), path.open("rb") as file:
        if not path.stat().st_size:
            store.put(key, b"")
            return
        # It is closed with its last view: a refused request that is sent again may still hold one,
        # and to close it under such a view is an error.
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        store.put(key, memoryview(content))
