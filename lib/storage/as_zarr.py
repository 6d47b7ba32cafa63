"""A finished volume of a store for readers that use zarr-python.

zarr-python's interface is asynchronous and ours is not, so each read runs in a thread; zarr bounds
how many run at once (``zarr.config["async.concurrency"]``). It takes a shard that is not there for
one of nothing but the fill value. Every shard of a finished volume is stored, so here that is an
error, and not voxels that look right.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype

from lib.errors import IntegrityError, NotFoundError
from lib.storage import base

_SHARD = re.compile(r"(?:^|/)c(?:/\d+)+$")  # Zarr v3's default chunk keys


class ReadOnlyZarrStore(Store):
    """What lies below one key of a store; picklable, as stores are, so that Dask workers read it.

    Parameters
    ----------
    root
        Key of a group or an array: ``ebi/x.ome.zarr``.
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, store: base.Store, root: str) -> None:
        super().__init__(read_only=True)
        self._store, self._root = store, root

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ReadOnlyZarrStore) and (other._store.uri, other._root) == (
            self._store.uri,
            self._root,
        )

    def __hash__(self) -> int:
        return hash((self._store.uri, self._root))

    def __reduce__(self) -> tuple[Any, ...]:
        return ReadOnlyZarrStore, (self._store, self._root)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store.uri}/{self._root})"

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The bytes of an object, or some of them; None where there is no such document.

        Raises
        ------
        IntegrityError
            A shard is absent.
        """
        found = await asyncio.to_thread(self._read, key, byte_range)
        if found is not None:
            return prototype.buffer.from_bytes(found)
        if _SHARD.search(key):
            raise IntegrityError(
                "a shard of a finished volume is absent",
                location=f"{self._store.uri}/{self._key(key)}",
                advice="`macroscope verify --repair` makes it anew",
            )
        return None

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges))

    async def exists(self, key: str) -> bool:
        return await asyncio.to_thread(self._store.size, self._key(key)) is not None

    async def set(self, key: str, value: Buffer) -> None:
        self._check_writable()

    async def delete(self, key: str) -> None:
        self._check_writable()

    async def list(self) -> AsyncIterator[str]:
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        folder = prefix.rpartition("/")[0]
        for key in await asyncio.to_thread(self._below, folder):
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        for name in await asyncio.to_thread(self._names, prefix.strip("/")):
            yield name

    def _key(self, key: str) -> str:
        return f"{self._root}/{key}" if key else self._root

    def _read(self, key: str, part: ByteRequest | None) -> bytes | None:
        whole = self._key(key)
        try:
            if part is None:
                return self._store.get(whole)
            if isinstance(part, RangeByteRequest):
                return self._store.get_range(whole, part.start, part.end - part.start)
            size = self._store.size(whole)
            if size is None:
                return None
            start = part.offset if isinstance(part, OffsetByteRequest) else size - part.suffix
            assert isinstance(part, OffsetByteRequest | SuffixByteRequest)
            start = max(0, start)
            return self._store.get_range(whole, start, size - start)
        except NotFoundError:
            return None

    def _below(self, folder: str) -> tuple[str, ...]:
        found = self._store.list(self._key(folder))
        return tuple(one.key[len(self._root) + 1 :] for one in found)

    def _names(self, folder: str) -> tuple[str, ...]:
        found = self._store.list_folder(self._key(folder))
        keys = [*(one.key for one in found.objects), *found.folders]
        return tuple(key.rpartition("/")[2] for key in keys)
