"""Where volumes, records and reports live: a folder or a bucket, told apart by address.

Before every change stands a fence: a process that was paused (SIGSTOP, a suspended machine, a
frozen container) knows nothing of it. So a lease is looked at by the clock before each change, and
how long it still lasts goes with the request, for the store to refuse what arrives later.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from lib.errors import DestinationBusyError

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

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`.

        Raises
        ------
        NotFoundError
            There is no such object.
        DestinationError
            It is shorter than that.
        """
        ...

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

    def sweep_abandoned(self, folder: str = "") -> int:
        """Remove what killed writers left that hold no lock, such as those of catalogues.

        Temporary files directly in a folder to which nobody has written for an hour.

        Returns
        -------
        int
            How many there were.
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


class StoreSettings(BaseModel):
    """Everything that a store's address leaves open.

    Picklable, so that a worker on another host opens the same store; secrets are left out of every
    text and JSON form.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    durable: bool = Field(
        default=True,
        description="Folders: force a volume to the disk before its record says complete.",
    )
    endpoint_url: str | None = Field(
        default=None,
        description="S3 server; None is AWS (or AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL). host:port "
        "without a scheme is https, or http on the loopback.",
    )
    region: str | None = Field(
        default=None, description="None: what the AWS chain says, else us-east-1."
    )
    key: SecretStr | None = Field(default=None, description="Access key; None is the AWS chain.")
    secret: SecretStr | None = Field(default=None, description="Secret key.")
    token: SecretStr | None = Field(
        default=None, description="Session token of temporary credentials."
    )
    profile: str | None = Field(default=None, description="Profile of the AWS configuration files.")
    anonymous: bool = Field(default=False, description="Sign nothing; for reading public buckets.")
    addressing_style: Literal["auto", "path", "virtual"] = Field(
        default="auto",
        description="auto: virtual-host style for AWS, path style for other servers.",
    )
    ca_bundle: str | None = Field(
        default=None, description="PEM file of further certificate authorities."
    )
    timeout_seconds: float = Field(
        default=300.0, gt=0, description="Longest wait for the server's next bytes."
    )
    attempts: int = Field(default=6, ge=1, description="Tries of one request before it fails.")
    lease_seconds: float = Field(
        default=60.0, gt=0, description="How long a killed run's lease on a volume outlives it."
    )
    multipart_above: int = Field(
        default=512 * 2**20,
        ge=5 * 2**20,
        le=5 * 2**30,
        description="Bytes above which an object is uploaded in parts (S3 takes at most 5 GiB).",
    )

    @model_validator(mode="after")
    def _one_way_to_sign(self) -> StoreSettings:
        if (self.key is None) != (self.secret is None):
            raise ValueError("key and secret belong together; one of them is missing")
        if self.anonymous and self.key is not None:
            raise ValueError("anonymous contradicts key and secret; set one of them")
        return self


def clock() -> float:
    """Seconds that also pass while the machine sleeps, where the system has such a clock."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Term(Protocol):
    """A lease as a writer sees it."""

    def left(self) -> float:
        """Seconds until it ends, 0 or less when it has ended. May ask the store, and wait."""
        ...


class Fence:
    """The leases that one store's writes depend on. Thread-safe."""

    def __init__(self) -> None:
        self._terms: dict[str, Term] = {}
        self._guard = threading.Lock()

    def add(self, key: str, term: Term) -> None:
        """From now on writes need this lease."""
        with self._guard:
            self._terms[key] = term

    def remove(self, key: str) -> None:
        """The lease was given back: writes need it no longer."""
        with self._guard:
            self._terms.pop(key, None)

    def __contains__(self, key: str) -> bool:
        with self._guard:
            return key in self._terms

    def __bool__(self) -> bool:
        """Whether writes need any lease at all."""
        with self._guard:
            return bool(self._terms)

    def left(self, location: str) -> float | None:
        """Seconds for which this process may write; None where no lease is needed.

        Raises
        ------
        DestinationBusyError
            A lease is over.
        """
        with self._guard:
            terms = dict(self._terms)
        least: float | None = None
        for key, term in terms.items():
            seconds = term.left()
            if seconds <= 0:
                raise DestinationBusyError(
                    f"the lease on {key} is over, because it was not renewed in time; another run "
                    "may have taken the volume over",
                    location=location,
                )
            least = seconds if least is None else min(least, seconds)
        return least
