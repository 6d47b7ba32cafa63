"""A store as it will be once what was made anew is put into it."""

from __future__ import annotations

from pathlib import Path

from lib.storage.base import Store
from lib.storage.digests import put_file

Origin = str
"""What a file was made anew from: ``source``, ``finer level``, ``record`` or ``volume``."""


class PatchedStore:
    """Reads a store with some of its files replaced by files of this machine; writes nothing.

    Attributes
    ----------
    anew
        Key -> the file that replaces it.
    origins
        Key -> what it was made from.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.uri = store.uri
        self.anew: dict[str, Path] = {}
        self.origins: dict[str, Origin] = {}

    def add(self, key: str, path: Path, origin: Origin) -> None:
        """Let a file stand for a key."""
        self.anew[key], self.origins[key] = path, origin

    def get(self, key: str) -> bytes:
        """See `lib.storage.base.Store.get`."""
        path = self.anew.get(key)
        return self._store.get(key) if path is None else path.read_bytes()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See `lib.storage.base.Store.get_range`."""
        path = self.anew.get(key)
        if path is None:
            return self._store.get_range(key, start, length)
        with path.open("rb") as file:
            file.seek(start)
            return file.read(length)

    def size(self, key: str) -> int | None:
        """See `lib.storage.base.Store.size`."""
        path = self.anew.get(key)
        return self._store.size(key) if path is None else path.stat().st_size

    def local_path(self, key: str) -> str | None:
        """See `lib.storage.base.Store.local_path`."""
        path = self.anew.get(key)
        return self._store.local_path(key) if path is None else str(path)

    def publish(self) -> None:
        """Put every replacing file into the store, each whole or not at all, and durably.

        Raises
        ------
        DestinationError, DestinationBusyError
        """
        for key, path in sorted(self.anew.items()):
            put_file(self._store, key, path)
        self._store.persist(*self.anew)
