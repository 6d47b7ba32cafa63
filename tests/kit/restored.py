"""Files that all tests of a session share, and that one of them changes for a while."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def restored(path: Path) -> Iterator[bytes]:
    """Give a file's bytes, and put these and its date back afterwards: a date is an identity."""
    content, before = path.read_bytes(), path.stat()
    try:
        yield content
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
