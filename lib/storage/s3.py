"""A bucket, or a prefix in one, as a store: immutable objects, no rename, leases for locks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any
from urllib.parse import unquote_plus

from lib.errors import (
    AlreadyExistsError,
    BadAnswerError,
    DestinationBusyError,
    DestinationError,
    FormatError,
    NotFoundError,
    RequestRefusedError,
)
from lib.safety import parse_xml
from lib.storage.base import (
    Buffer,
    Fence,
    Folder,
    GatheredDraft,
    Missing,
    StoredObject,
    StoreSettings,
    Versioned,
)
from lib.storage.capabilities import probe_bucket
from lib.storage.keys import PARTIAL, byte_views, check_key, check_prefix, is_reserved
from lib.storage.s3_lease import FollowedLease, Lease
from lib.storage.s3_objects import S3Objects
from lib.storage.s3_writes import S3Writes
from lib.transport.s3.listing import PAGE_BYTES, children, text_of

_TRIES = 3  # where another writer comes between our look and our write


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
        self._fence = Fence()
        self._writes = S3Writes(self._objects, self._fence)

    def __repr__(self) -> str:
        return f"S3Store({self.uri!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (S3Store, (self.uri, self.settings))

    # --- objects ----------------------------------------------------------------------------

    def put(
        self,
        key: str,
        data: Buffer | Sequence[Buffer],
        *,
        create: bool = False,
        replaces: str | None = None,
    ) -> None:
        """Write one object; see `lib.storage.base.Store.put`.

        The server verifies a SHA-256 of the bytes before it stores them. Under a lease every write
        is conditional, on there being nothing, or on what was just seen there.
        """
        check_key(key)
        with ExitStack() as released:  # errors on the way keep frames, and frames keep views
            views = [released.enter_context(view) for view in byte_views(data)]
            if create or replaces is not None:
                self._writes.put(key, views, replaces or "")
            elif self._fence:
                self._put_leased(key, views)
            else:
                self._writes.put(key, views, None)

    def _put_leased(self, key: str, views: list[memoryview]) -> None:
        """Write over what is there only as it was seen under our lease.

        A request of an earlier holder's that is still on its way may land at any moment, but then
        before ours, and is replaced, or after it, and is refused.
        """
        large = sum(view.nbytes for view in views) > self.settings.multipart_above
        seen = self._version(key) if large else ""  # what is refused was sent for nothing
        for _ in range(_TRIES):
            try:
                self._writes.put(key, views, seen)
                return
            except AlreadyExistsError:
                seen = self._version(key)
        raise DestinationBusyError(
            "another run writes the same object", location=self._objects.where(key)
        )

    def _version(self, key: str) -> str:
        meta = self._objects.head(key)
        return "" if meta is None else meta.etag or ""

    def draft(self, key: str) -> GatheredDraft:
        """Write one object bit by bit; it is held in memory and sent by `commit`."""
        check_key(key)
        return GatheredDraft(partial(self.put, key))

    def get(self, key: str) -> bytes:
        return self._objects.get(check_key(key)).data

    def get_versioned(self, key: str) -> Versioned:
        """The same, with its entity tag."""
        found = self._objects.get(check_key(key))
        return Versioned(found.data, found.etag)

    def get_range(self, key: str, start: int, length: int) -> bytes:
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
        meta = self._objects.head(check_key(key))
        return None if meta is None else meta.size

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """All objects below a prefix, sorted by key; leases are left out."""
        for found in self._objects.listing(check_prefix(prefix)):
            if not any(is_reserved(part) for part in found.key.split("/")):
                yield found

    def list_folder(self, prefix: str = "") -> Folder:
        found = self._objects.folder(check_prefix(prefix))
        return Folder(
            tuple(o for o in found.objects if not is_reserved(o.key.rpartition("/")[2])),
            tuple(key for key in found.folders if not is_reserved(key.rpartition("/")[2])),
        )

    def delete(self, key: str) -> None:
        check_key(key)
        if not self._fence:
            self._writes.delete([StoredObject(key, 0)])
            return
        for _ in range(_TRIES):
            version = self._version(key)
            if not version or not self._writes.delete_each([StoredObject(key, 0, version)]):
                return
        raise self._changing(key)

    # --- trees ------------------------------------------------------------------------------

    def delete_tree(self, prefix: str) -> None:
        """Delete everything below a prefix, its own documents first.

        Without its root document a half-deleted tree is no volume to any reader. What lies under
        its final name is deleted only as it was listed under our lease, one by one, because more
        servers compare versions there; what belongs to nobody's volume yet, in bulk.
        """
        final = self._fence and PARTIAL not in prefix.split("/")
        delete = self._writes.delete_each if final else self._writes.delete
        depth = check_key(prefix).count("/") + 1
        for _ in range(_TRIES):
            found = self._objects.listing(prefix)
            changed = delete([item for item in found if item.key.count("/") == depth])
            changed += delete([item for item in found if item.key.count("/") > depth])
            if not changed:
                return
        raise self._changing(prefix)

    def _changing(self, key: str) -> DestinationBusyError:
        return DestinationBusyError(
            "another run writes what is to be deleted", location=self._objects.where(key)
        )

    def publish_tree(self, staging: str, final: str) -> None:
        """Nothing: trees are written under their final name (see `staging_key`)."""
        if check_key(staging) != check_key(final):
            raise DestinationError(
                "an object store cannot rename a tree",
                location=self._objects.where(staging),
                advice="Write it under its staging key, which is its final name here",
            )

    def persist(self, *keys: str) -> None:
        """Nothing: what the server has answered for is durable."""

    def staging_key(self, final: str) -> str:
        """The final name itself."""
        return check_key(final)

    def sweep_temporaries(self, prefix: str = "", *, names: Collection[str] | None = None) -> int:
        """Abort unfinished uploads of killed runs below a prefix; returns how many.

        Call it while holding the lock of the volumes concerned. With `names` nothing is to be
        done: an upload that is not finished bears no name in a bucket.
        """
        if names is not None:
            return 0
        return abort_uploads(self._objects, self._writes, check_prefix(prefix))

    def sweep_abandoned(self, folder: str = "") -> int:
        """Nothing: an object is put whole."""
        check_prefix(folder)
        return 0

    # --- the rest ---------------------------------------------------------------------------

    def lock(self, key: str, holder: str) -> AbstractContextManager[None]:
        """Hold a volume by a lease, which outlives a killed run by at most ``lease_seconds``."""
        unfenced = S3Writes(self._objects, Fence())
        return Lease(self._objects, unfenced, self._fence, check_key(key), holder)

    def follow(self, key: str, holder: str) -> None:
        """Let every later write depend on that run's lease, unless it is this very store's own."""
        if check_key(key) not in self._fence:
            self._fence.add(key, FollowedLease(self._objects, key, holder))

    def may_write(self, key: str) -> None:
        self._fence.left(self._objects.where(check_key(key)))

    def probe(self) -> tuple[Missing, ...]:
        """Try what the server honours, on an object of its own."""
        return probe_bucket(self._objects, S3Writes(self._objects, Fence()))

    def free_bytes(self) -> int | None:
        return None

    def local_path(self, key: str) -> str | None:
        check_key(key)
        return None

    def counts(self) -> dict[str, int]:
        return self._objects.counts()


_MOST_PAGES = 1000  # of 1000 uploads each


def abort_uploads(objects: S3Objects, writes: S3Writes, prefix: str) -> int:
    """Abort every unfinished upload whose key starts with `prefix`; returns how many.

    Call it while holding the lock of the volumes concerned: another run's uploads look the same.
    """
    full = objects.full(prefix).rstrip("/")
    query = {"uploads": "", "encoding-type": "url"} | ({"prefix": full} if full else {})
    aborted, after = 0, dict[str, str]()
    for _ in range(_MOST_PAGES):

        def ask(after: dict[str, str] = after) -> tuple[list[tuple[str, str]], dict[str, str]]:
            with objects.requests.ask("GET", query={**query, **after}) as response:
                return _parse(objects.requests.body(response, PAGE_BYTES))

        found, now = objects.trying(ask, prefix, "clear up")
        for key, upload in found:
            writes.abort_upload(key, upload)
            aborted += 1
        if not now or now == after:
            return aborted
        after = now
    return aborted


def _parse(document: bytes) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """Keys and ids of a page, and what the next one is asked with; nothing where it is the last.

    Amazon S3 API Reference, "ListMultipartUploads".
    """
    try:
        root = parse_xml(document, PAGE_BYTES)
    except FormatError as error:
        raise BadAnswerError(f"the answer is no list of uploads: {error.message}") from error
    quoted = text_of(root, "EncodingType") == "url"

    def plain(text: str) -> str:
        return unquote_plus(text) if quoted else text

    uploads = [
        (plain(text_of(item, "Key")), text_of(item, "UploadId"))
        for item in children(root, "Upload")
    ]
    if text_of(root, "IsTruncated") != "true":
        return uploads, {}
    return uploads, {
        "key-marker": plain(text_of(root, "NextKeyMarker")),
        "upload-id-marker": text_of(root, "NextUploadIdMarker"),
    }
