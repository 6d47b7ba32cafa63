"""A bucket, or a prefix in one, as a store: immutable objects, no rename, leases for locks."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from lib.errors import DestinationBusyError, DestinationError, NotFoundError, RequestRefusedError
from lib.storage.base import Buffer, Folder, GatheredDraft, StoredObject
from lib.storage.keys import byte_views, check_key, check_prefix, is_reserved
from lib.storage.s3_lease import Lease
from lib.storage.s3_objects import S3Objects
from lib.storage.settings import StoreSettings


class S3Store:
    """Objects below ``s3://bucket/prefix`` of any S3-compatible server.

    Parameters
    ----------
    uri
        ``s3://bucket`` or ``s3://bucket/prefix``, without credentials.
    settings
        Server, credentials and patience.

    Raises
    ------
    ConfigError
        The address, profile or CA bundle cannot be used.
    AccessDeniedError
        No credentials were found.
    """

    def __init__(self, uri: str, settings: StoreSettings | None = None) -> None:
        self.settings = settings or StoreSettings()
        self._objects = S3Objects(uri, self.settings)
        self.uri = self._objects.uri
        self._lost: set[str] = set()
        self._guard = threading.Lock()

    def __repr__(self) -> str:
        return f"S3Store({self.uri!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (S3Store, (self.uri, self.settings))

    # --- objects ----------------------------------------------------------------------------

    def put(self, key: str, data: Buffer | Sequence[Buffer], *, create: bool = False) -> None:
        """Write one object; see `lib.storage.base.Store.put`.

        The server verifies a SHA-256 of the bytes before it stores them.

        Raises
        ------
        DestinationBusyError
            The lock on this volume was lost to another run.
        """
        self._require_lease(check_key(key))
        views = byte_views(data)
        if create:
            self._objects.put_if(key, views, None)
        else:
            self._objects.put(key, views)

    def draft(self, key: str) -> GatheredDraft:
        """Write one object bit by bit; it is held in memory and sent by `commit`."""
        check_key(key)
        return GatheredDraft(partial(self.put, key))

    def get(self, key: str) -> bytes:
        """Return the bytes of an object; raises `NotFoundError` where there is none."""
        return self._objects.get(check_key(key)).data

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return exactly `length` bytes from `start`.

        Raises
        ------
        NotFoundError
            There is no such object.
        DestinationError
            The object is shorter than that.
        """
        check_key(key)
        if length == 0:
            if self.size(key) is None:
                raise NotFoundError(
                    "there is no such object in the store", location=self._objects.where(key)
                )
            return b""
        try:
            data = self._objects.get_range(key, start, length)
        except RequestRefusedError:
            data = b""
        if len(data) != length:
            raise DestinationError(
                f"the object ends before byte {start + length}",
                location=self._objects.where(key),
                advice="Run again to make it anew",
            )
        return data

    def size(self, key: str) -> int | None:
        """Return the bytes of an object, or None where there is none."""
        meta = self._objects.head(check_key(key))
        return None if meta is None else meta["size"]

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """All objects below a prefix, sorted by key; leases are left out."""
        for found in self._objects.listing(check_prefix(prefix)):
            if not any(is_reserved(part) for part in found.key.split("/")):
                yield found

    def list_folder(self, prefix: str = "") -> Folder:
        """Objects and common prefixes directly below a prefix, sorted by key."""
        found = self._objects.folder(check_prefix(prefix))
        return Folder(
            tuple(o for o in found.objects if not is_reserved(o.key.rpartition("/")[2])),
            tuple(key for key in found.folders if not is_reserved(key.rpartition("/")[2])),
        )

    def delete(self, key: str) -> None:
        """Delete one object; absent is fine."""
        self._objects.delete([check_key(key)])

    # --- trees ------------------------------------------------------------------------------

    def delete_tree(self, prefix: str) -> None:
        """Delete everything below a prefix, its own documents first.

        Without its root document a half-deleted tree is no volume to any reader.
        """
        depth = check_key(prefix).count("/") + 1
        keys = [found.key for found in self._objects.listing(prefix)]
        root = [key for key in keys if key.count("/") == depth]
        self._objects.delete(root)
        self._objects.delete([key for key in keys if key.count("/") > depth])

    def publish_tree(self, staging: str, final: str) -> None:
        """Nothing: trees are written under their final name (see `staging_key`)."""
        if check_key(staging) != check_key(final):
            raise DestinationError(
                "an object store cannot rename a tree",
                location=self._objects.where(staging),
                advice="Write it under its staging key, which is its final name here",
            )

    def staging_key(self, final: str) -> str:
        """The final name itself."""
        return check_key(final)

    def sweep_temporaries(self, prefix: str = "", *, names: Collection[str] | None = None) -> int:
        """Abort unfinished uploads of killed runs below a prefix; returns how many.

        Call it while holding the lock of the volumes concerned. With `names` nothing is to be
        done: an upload that is not finished bears no name in a bucket.
        """
        return self._objects.abort_uploads(check_prefix(prefix)) if names is None else 0

    # --- the rest ---------------------------------------------------------------------------

    def lock(self, key: str, holder: str) -> AbstractContextManager[None]:
        """Hold a volume by a lease, which outlives a killed run by at most ``lease_seconds``."""
        with self._guard:
            self._lost.discard(check_key(key))
        return Lease(self._objects, key, holder, partial(self._lose, key))

    def free_bytes(self) -> int | None:
        """None: an object store does not say."""
        return None

    def local_path(self, key: str) -> str | None:
        """None: there is no file behind an object."""
        check_key(key)
        return None

    def counts(self) -> dict[str, int]:
        """Requests sent so far by this object: PUT (and POST of parts), GET, HEAD, LIST, DELETE."""
        return self._objects.counts()

    def _lose(self, key: str) -> None:
        with self._guard:
            self._lost.add(key)

    def _require_lease(self, key: str) -> None:
        if self._lost and any(key.startswith(lost) for lost in self._lost):
            raise DestinationBusyError(
                "another run took this volume over, because its lease could not be renewed in time",
                location=self._objects.where(key),
            )
