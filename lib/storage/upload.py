"""A file of this machine into a store."""

from __future__ import annotations

import mmap
from pathlib import Path

from lib.storage.base import Store
from lib.storage.os_errors import naming_os_errors


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
