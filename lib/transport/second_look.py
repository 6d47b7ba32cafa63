"""A second look at a file that a server describes in another way than before.

The bytes that are already held are asked for again, from an answer with the new description: where
they are the same, it is one file on several nodes of a mirror. Where entity tag and time both speak
of another file, that is believed, unless the old description is still given, too.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import requests

from lib.errors import MacroscopeError, SourceChangedError, TransportError
from lib.safety import redact
from lib.transport import responses
from lib.transport.listing import FileIdentity, Likeness, canonical_tag, compare
from lib.transport.responses import RemoteFile

SPAN = 64 * 1024
_TRIES = 8  # requests until a certain node of a mirror answers
_MOST_FILES = 1024  # of which bytes are remembered
_log = logging.getLogger(__name__)


class DoubtfulAnswerError(Exception):
    """An answer that describes the file in another way; `seen` is how."""

    def __init__(self, seen: RemoteFile) -> None:
        super().__init__("the server describes the file in another way than before")
        self.seen = seen


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes that are held: where they begin, how many, their sha256."""

    start: int
    length: int
    sha256: str


class Asks(Protocol):
    """What is needed of an HTTP client."""

    def ask(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        allow: tuple[int, ...] = (),
        transfer: int | None = None,
    ) -> AbstractContextManager[requests.Response]: ...


class SecondLook:
    """Descriptions of files that turned out to mean the same bytes. Thread-safe."""

    def __init__(self, client: Asks) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._held: OrderedDict[str, list[ByteRange]] = OrderedDict()
        self._agreed: set[tuple[str, tuple[str | None, ...], tuple[str | None, ...]]] = set()

    def hold(self, remote: RemoteFile, start: int, view: memoryview) -> None:
        """Remember bytes of a file that were used: the first ones that came, and the last."""
        part = view[:SPAN]
        span = ByteRange(start, len(part), hashlib.sha256(part).hexdigest())
        with self._lock:
            spans = self._held.setdefault(remote.url, [])
            spans[1:] = [span]
            self._held.move_to_end(remote.url)
            if len(self._held) > _MOST_FILES:
                self._held.popitem(last=False)

    def check(self, remote: RemoteFile, seen: RemoteFile) -> None:
        """Let an answer pass that fits what is known.

        Raises
        ------
        SourceChangedError
            The file is another one for certain.
        DoubtfulAnswerError
            `require_same` has to decide, once the answer is closed.
        """
        likeness = compare(remote.facts(), seen.facts())
        if likeness is Likeness.SAME or _pair(remote, seen) in self._agreed:
            return
        if likeness is Likeness.CHANGED:
            raise _changed(remote, seen)
        raise DoubtfulAnswerError(seen)

    def require_same(self, remote: RemoteFile, seen: RemoteFile, held: Path | None = None) -> None:
        """Find out whether a doubtful description is one of the same file, and remember it if so.

        Parameters
        ----------
        held
            The file, or a beginning of it, as far as it is on this machine.

        Raises
        ------
        SourceChangedError
            It is another file now, or a mirror's nodes hold different ones.
        TransportError
            The node that gave the description does not answer again.
        """
        spans: Sequence[ByteRange] = spans_of(held) if held is not None else ()
        if not spans:
            with self._lock:
                spans = tuple(self._held.get(remote.url, ()))
        if compare(remote.facts(), seen.facts()) is Likeness.OTHER:
            if not self._still_given(remote):
                raise _changed(remote, seen)
            spans = spans or self._spans_by(remote)
        for span in spans:
            now = self._sample(remote, span.start, span.length, seen)
            if now is None:
                raise TransportError(
                    "the server described the file in another way once, and not again",
                    location=redact(remote.url),
                )
            if now != span.sha256:
                raise SourceChangedError(
                    f"the file changed on the server: bytes from {span.start} on are others now",
                    location=redact(remote.url),
                )
        self._agreed.add(_pair(remote, seen))
        _log.info(
            "%s is described in two ways (%s; %s), its bytes are the same",
            redact(remote.url),
            _in_words(remote),
            _in_words(seen),
        )

    def _still_given(self, remote: RemoteFile) -> bool:
        """Whether any node still describes the file as before."""
        for _ in range(_TRIES):
            with self._client.ask(
                "HEAD", remote.url, headers=_OTHER_NODE, allow=(405, 501)
            ) as response:
                if response.status_code != 200:
                    return False
                size = responses.content_length(response.headers)
                now = responses.remote_file(remote.url, response.headers, size)
            if compare(remote.facts(), now.facts()) is Likeness.SAME:
                return True
        return False

    def _spans_by(self, remote: RemoteFile) -> list[ByteRange]:
        """Bytes from answers that describe the file as before: beginning, middle and end."""
        spans = []
        for start, length in _looked_at(remote.size or 0):
            digest = self._sample(remote, start, length, remote)
            if digest is not None:
                spans.append(ByteRange(start, length, digest))
        return spans

    def _sample(self, remote: RemoteFile, start: int, length: int, like: RemoteFile) -> str | None:
        """The sha256 of a range, from an answer that describes the file like `like`; else None."""
        if length == 0:
            return hashlib.sha256(b"").hexdigest()
        headers = {"Range": f"bytes={start}-{start + length - 1}", **_OTHER_NODE}
        for _ in range(_TRIES):
            with self._client.ask(
                "GET", remote.url, headers=headers, transfer=start + length
            ) as response:
                span = responses.content_range(response.headers)
                ranged = response.status_code == 206 and span is not None and span[0] == start
                total = span[2] if span else responses.content_length(response.headers)
                now = responses.remote_file(remote.url, response.headers, total)
                if not (ranged or start == 0):
                    return None
                if compare(like.facts(), now.facts()) is not Likeness.SAME:
                    continue
                data = response.raw.read(length)
            return hashlib.sha256(data).hexdigest()
        return None


_OTHER_NODE = {"Connection": "close"}  # a balancer chooses the node for each connection


def agreed(
    look: SecondLook, remote: RemoteFile, once: Callable[[], None], held: Path | None = None
) -> None:
    """Call `once`; again after each doubtful answer that a second look found to be right."""
    for _ in range(_TRIES):
        try:
            return once()
        except DoubtfulAnswerError as doubt:
            seen = doubt.seen
        look.require_same(remote, seen, held)
    raise SourceChangedError(
        "the server describes the file in ever new ways", location=redact(remote.url)
    )


def spans_of(path: Path) -> list[ByteRange]:
    """Beginning, middle and end of what is on the disk; nothing where there is no file."""
    try:
        with path.open("rb") as file:
            spans = []
            for start, length in _looked_at(file.seek(0, 2)):
                file.seek(start)
                data = file.read(length)
                spans.append(ByteRange(start, len(data), hashlib.sha256(data).hexdigest()))
    except OSError:
        return []
    return [span for span in spans if span.length]


def _looked_at(size: int) -> list[tuple[int, int]]:
    """Beginning, middle and end of a file: ``(start, length)``."""
    length = min(SPAN, size)
    return [(start, length) for start in sorted({0, (size - length) // 2, size - length})]


def fits(look: SecondLook, noted: dict[str, object], target: RemoteFile, part: Path) -> bool:
    """Whether a part that was begun under other weak facts is one of this file."""
    etag, date, size = (noted.get(key) for key in ("etag", "last_modified", "size"))
    if noted.get("url") != redact(target.url) or not isinstance(size, int):
        return False
    then = RemoteFile(
        target.url,
        size,
        etag if isinstance(etag, str) else None,
        date if isinstance(date, str) else None,
    )
    likeness = compare(then.facts(), target.facts())
    if likeness is not Likeness.ALIKE:
        return likeness is Likeness.SAME and bool(target.etag or target.last_modified)
    try:
        look.require_same(then, target, part)
    except MacroscopeError:
        return False
    return True


def _changed(remote: RemoteFile, seen: RemoteFile) -> SourceChangedError:
    pairs = (
        ("size", remote.size, seen.size),
        ("checksum", remote.publisher_checksum, seen.publisher_checksum),
        ("ETag", remote.etag, seen.etag),
        ("Last-Modified", remote.last_modified, seen.last_modified),
    )
    said = [f"{label} was {a} and is {b}" for label, a, b in pairs if a and b and a != b]
    return SourceChangedError(
        f"the file changed on the server: {', '.join(said)}", location=redact(remote.url)
    )


def _key(remote: RemoteFile) -> tuple[str | None, ...]:
    return (canonical_tag(remote.etag) if remote.etag else None, remote.last_modified)


def _pair(
    remote: RemoteFile, seen: RemoteFile
) -> tuple[str, tuple[str | None, ...], tuple[str | None, ...]]:
    return (remote.url, _key(remote), _key(seen))


def _in_words(remote: RemoteFile) -> str:
    facts: FileIdentity = remote.facts()
    return f"{facts.etag}, {facts.last_modified}"
