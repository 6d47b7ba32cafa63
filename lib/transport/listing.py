"""What a store says it holds, the same for every protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lib.errors import BadAnswerError


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


MOST_KEYS = 5_000_000
_MOST_EMPTY_PAGES = 100  # in a row: versions and deleted objects leave some


class Walk:
    """What the pages of a listing have brought so far; it says when they cannot be true.

    Parameters
    ----------
    most
        Keys and prefixes that are plausible.
    """

    def __init__(self, most: int = MOST_KEYS) -> None:
        self._most = most
        self._seen: set[str] = set()
        self._tokens: set[str] = set()
        self._empty = 0

    def take(self, names: Sequence[str], token: str | None) -> None:
        """Add a page: its keys and prefixes, and the token with which the listing goes on.

        Raises
        ------
        BadAnswerError
            The listing goes in a circle, brings nothing page after page, or has too many keys.
        """
        before = len(self._seen)
        self._seen.update(names)
        if len(self._seen) > self._most:
            raise _endless(f"it names more than {self._most} keys")
        if names and len(self._seen) == before:
            raise _endless("it names the same keys again")
        self._empty = 0 if names else self._empty + 1
        if self._empty > _MOST_EMPTY_PAGES:
            raise _endless(f"{self._empty} pages in a row are empty")
        if token is not None:
            if token in self._tokens:
                raise _endless("it goes on where it was before")
            self._tokens.add(token)


def _endless(why: str) -> BadAnswerError:
    return BadAnswerError(f"the store's listing has no end: {why}", retryable=False)
