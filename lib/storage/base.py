"""Where volumes, records and reports live: a folder or a bucket, told apart by address."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol, Self

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that a destination cannot do, and what is done in its place."""

    what: str
    instead: str

    def __str__(self) -> str:
        return f"no {self.what}: {self.instead}"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object of a listing. ``key`` is relative to the store, with ``/`` between its parts.

    ``version`` is its entity tag where the store has such.
    """

    key: str
    size: int
    version: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Versioned:
    """An object's bytes and which version they are, for a `Store.put` that ``replaces`` it."""

    data: bytes
    version: str


@dataclass(frozen=True, slots=True)
class Folder:
    """What lies directly in a folder: objects, and the keys of folders without a trailing slash."""

    objects: tuple[StoredObject, ...]
    folders: tuple[str, ...]


class Draft(AbstractContextManager["Draft"], Protocol):
    """One object while its bytes come: nobody sees it before `commit`, leaving it forgets it.

    For one thread at a time.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()

    def write(self, data: Buffer) -> None:
        """Append bytes, which must not change before `commit`."""
        ...

    def commit(self) -> None:
        """Make the object: whole, or not at all."""
        ...

    def abandon(self) -> None:
        """Forget it; after `commit` this does nothing."""
        ...


class GatheredDraft(Draft):
    """A draft that is held in memory until it is put into a store."""

    def __init__(self, put: Callable[[list[Buffer]], None]) -> None:
        self._put, self._buffers = put, list[Buffer]()

    def write(self, data: Buffer) -> None:
        self._buffers.append(data)

    def commit(self) -> None:
        self._put(self._buffers)

    def abandon(self) -> None:
        self._buffers = []


class Store(Protocol):
    """A flat name space of immutable objects under one address.

    Every ``put`` is atomic: an object is there whole, or not at all. Keys are relative, use ``/``
    and never contain ``..``; anything else is refused.
    """

    uri: str  # "/data", "s3://bucket/prefix"; never with credentials

    def put(
        self,
        key: str,
        data: Buffer | Sequence[Buffer],
        *,
        create: bool = False,
        replaces: str | None = None,
    ) -> None:
        """Write one object, several buffers being joined.

        Parameters
        ----------
        create
            Only where there is none.
        replaces
            Only where the object still is this version, as `get_versioned` gave it; ``""``: only
            where there is none.

        Raises
        ------
        AlreadyExistsError
            Something else is there.
        DestinationBusyError
            The lease on the volume is over, or another run writes the same object.
        DestinationFullError, DestinationError, AccessDeniedError
        """
        ...

    def draft(self, key: str) -> Draft:
        """Begin an object whose bytes come bit by bit; errors as of `put`."""
        ...

    def get(self, key: str) -> bytes:
        """Raises `NotFoundError` where there is no such object."""
        ...

    def get_versioned(self, key: str) -> Versioned:
        """The same, with the version that a `put` may say it replaces."""
        ...

    def get_range(self, key: str, start: int, length: int) -> bytes: ...

    def size(self, key: str) -> int | None:
        """Bytes of an object, or None where there is none."""
        ...

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """All objects below a prefix (a folder, without a trailing slash), sorted by key."""
        ...

    def list_folder(self, prefix: str = "") -> Folder:
        """Objects and folders directly in a folder, sorted; what lies deeper is not looked at."""
        ...

    def delete(self, key: str) -> None:
        """Delete one object; absent is fine."""
        ...

    def delete_tree(self, prefix: str) -> None:
        """Delete everything below a prefix; absent is fine."""
        ...

    def publish_tree(self, staging: str, final: str) -> None:
        """Make a finished tree visible under its final name, in one step.

        On a folder this is a rename. On an object store, which has none, trees are written under
        their final name from the start (see `staging_key`) and their root document comes last.
        """
        ...

    def persist(self, *keys: str) -> None:
        """Make objects and trees survive a power cut, if the store is asked to.

        An object store's are durable when it has answered; a folder's are forced to the disk.

        Raises
        ------
        DestinationFullError, DestinationError
            The disk is full, or failed.
        """
        ...

    def staging_key(self, final: str) -> str:
        """Where a tree that will be published as ``final`` is to be written."""
        ...

    def sweep_temporaries(self, prefix: str = "", *, names: Collection[str] | None = None) -> int:
        """Clear away what killed writers left below a prefix; returns how many things that were.

        The caller holds the lock of the volumes concerned.

        Parameters
        ----------
        names
            Only what stands for one of these names, directly in the folder.
        """
        ...

    def lock(self, key: str, holder: str) -> AbstractContextManager[None]:
        """Hold a volume for this run. Raises `DestinationBusyError` that says who holds it."""
        ...

    def follow(self, key: str, holder: str) -> None:
        """Write under the lock that another process, ``holder``, has on a volume.

        Where a lock is a lease, every later write needs it to last still.
        """
        ...

    def may_write(self, key: str) -> None:
        """For who writes a file in place: raises `DestinationBusyError` where a lease is over."""
        ...

    def probe(self) -> tuple[Missing, ...]:
        """Try what writing needs, each once; what is missing and has another safe way.

        Raises
        ------
        DestinationError, AccessDeniedError
            It cannot be written to, or not safely.
        """
        ...

    def free_bytes(self) -> int | None:
        """Free space, or None where the store does not say."""
        ...

    def counts(self) -> dict[str, int]:
        """Requests sent so far by this object, by kind; empty where there are no requests."""
        ...

    def local_path(self, key: str) -> str | None:
        """The file behind a key, for readers that need one; None on an object store."""
        ...
