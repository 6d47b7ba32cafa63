"""The digest of an object that is there."""

from __future__ import annotations

import hashlib

from lib.concurrency import cancel as stopping
from lib.errors import NotFoundError
from lib.storage.base import Store

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
