"""What a store says it holds, the same for every protocol."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object. `key` is relative to the reader's root.

    Attributes
    ----------
    size
        Bytes; None where the store does not say (an index page).
    etag
        Whatever changes when the object does: an entity tag, a generation.
    last_modified
        ISO 8601, UTC.
    checksum
        The publisher's, as ``algorithm:hexadecimal``, where it covers the stored bytes.
    """

    key: str
    size: int | None
    etag: str | None = None
    last_modified: str | None = None
    checksum: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """One level of a store: objects, and the common prefixes (without a trailing slash)."""

    objects: tuple[ObjectInfo, ...]
    prefixes: tuple[str, ...]
