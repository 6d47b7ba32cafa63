"""What a store says it holds, the same for every protocol, and whether two descriptions of a file
speak of the same bytes.

Size and digest are strong facts: where they differ, the file changed. Entity tag and modification
time are weak ones. Nodes of one mirror build tags from their own inodes and clocks, proxies mark
them as weak or as compressed, and a copy's time may be off by a second: where only these differ,
`lib.transport.second_look` asks again and compares bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from lib.errors import BadAnswerError
from lib.transport.retry import http_date


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

    @property
    def folders(self) -> list[str]:
        """The last part of each prefix, sorted."""
        return sorted(prefix.rstrip("/").rpartition("/")[2] for prefix in self.prefixes)


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


SAME_SECONDS = 2.0
_COMPRESSED = re.compile(r"[-;](gzip|br|zstd|deflate)$")


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What is said of a file: size in bytes, entity tag, modification time, ``md5:...``."""

    size: int | None = None
    etag: str | None = None
    last_modified: str | None = None
    checksum: str | None = None


class Likeness(Enum):
    """What two descriptions have to do with each other."""

    SAME = "nothing contradicts that it is one file"
    ALIKE = "size fits, and of entity tag and time one does"
    OTHER = "entity tag or time speak of another file"
    CHANGED = "size or digest differ"


def compare(one: FileIdentity, other: FileIdentity) -> Likeness:
    """How well two descriptions of a file at one address fit together."""
    if None not in (one.size, other.size) and one.size != other.size:
        return Likeness.CHANGED
    if one.checksum and other.checksum and _algorithm(one) == _algorithm(other):
        return Likeness.SAME if one.checksum == other.checksum else Likeness.CHANGED
    apart = seconds_apart(one.last_modified, other.last_modified)
    near = None if apart is None else apart <= SAME_SECONDS
    if one.etag and other.etag:
        if canonical_tag(one.etag) == canonical_tag(other.etag):
            return Likeness.ALIKE if near is False else Likeness.SAME
        return Likeness.ALIKE if near else Likeness.OTHER
    if not apart:
        return Likeness.SAME
    return Likeness.ALIKE if near else Likeness.OTHER


def canonical_tag(tag: str) -> str:
    """An entity tag without the marks of weakness and compression; Apache appends ``-gzip``."""
    opaque = tag.strip().removeprefix("W/").strip('"')
    return _COMPRESSED.sub("", opaque)


def plain_tag(tag: str | None) -> str | None:
    """A tag as the server would give it to a client that went straight to it; others stay."""
    if tag is None or not tag:
        return None
    plain = canonical_tag(tag)
    return tag if plain == tag.strip().strip('"') else f'"{plain}"'


def seconds_apart(one: str | None, other: str | None) -> float | None:
    """Seconds between two modification times.

    None where one is missing or they are of different kinds: FTP's are ISO 8601, HTTP's RFC 9110,
    those of a directory page are ``index`` and whole minutes, and servers differ in the time zone
    that they mean. Times that nobody understands are equal or far apart.
    """
    if one is None or other is None or _kind_of_time(one) != _kind_of_time(other):
        return None
    if one == other:
        return 0.0
    first, second = http_date(one), http_date(other)
    if first is None or second is None:
        return float("inf")
    return abs((first - second).total_seconds())


def _kind_of_time(text: str) -> str:
    return "index" if text.startswith("index ") else "ftp" if text[:1].isdigit() else "http"


def _algorithm(facts: FileIdentity) -> str:
    return (facts.checksum or "").partition(":")[0]
