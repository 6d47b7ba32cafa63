"""HTTP(S): JSON and text answers, byte ranges into the caller's buffer, resumable downloads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from lib.concurrency import cancel as stopping
from lib.errors import (
    BadAnswerError,
    IncompleteTransferError,
    RequestRefusedError,
    SourceChangedError,
)
from lib.safety import redact
from lib.transport import bounds, responses
from lib.transport.bounds import DOCUMENT_BYTES, MIB
from lib.transport.partial import Fetched, PartialFile
from lib.transport.request import Params, Requester
from lib.transport.responses import IndexEntry, RemoteFile
from lib.transport.retry import resume
from lib.transport.second_look import SecondLook, agreed, fits

__all__ = ["HttpClient", "IndexEntry", "RangesIgnoredError", "RemoteFile"]

_BLOCK = 256 * 1024
_MAX_SKIP = 64 * MIB
_HEADER_BYTES = MIB
_COMPRESSED_SUFFIXES = (".gz", ".tgz", ".bz2", ".z", ".xz")


class RangesIgnoredError(RequestRefusedError):
    """The server answers a range with the whole file; `HttpClient.download` still works."""

    advice = "Fetch the whole file once (curl -O and the URL), and give its path as an address"


class HttpClient(Requester):
    """Requests to one service. Thread-safe.

    Every method raises `NotFoundError`, `AccessDeniedError`, `RequestRefusedError`,
    `TransportError` and its kinds, and `StoppedError`. What can succeed on another try has been
    tried as often as the limits say.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._look = SecondLook(self)
        self.ranges_ignored: set[str] = set()
        """Hosts that answered a range with the whole file: these are better fetched at once."""
        self._gave_data: set[str] = set()  # hosts
        self._gave_pages: set[str] = set()  # addresses, at hosts that had given no data

    # --- small answers ----------------------------------------------------------------------

    def get_json(
        self, url: str, params: Params | None = None, max_bytes: int = DOCUMENT_BYTES
    ) -> Any:
        """GET a JSON document. Raises `BadAnswerError` if it is none, or longer than allowed."""
        return self.retry("GET", url, lambda: self._json(url, params, max_bytes))

    def list_index(self, url: str) -> list[IndexEntry]:
        """The entries of a directory page, in its order.

        Raises
        ------
        BadAnswerError
            Something else came: plain bytes, or a page that does not call itself a directory.
        """

        def once() -> list[IndexEntry]:
            with self.ask("GET", url) as response:
                if not responses.is_html(response.headers):
                    raise BadAnswerError("a directory page was expected", location=redact(url))
                page = self._whole(response, url, DOCUMENT_BYTES).decode("utf-8", "replace")
                address = response.url or url  # where redirects led
            return responses.parse_index(page, urlsplit(address)._replace(query="").geturl())

        return self.retry("GET", url, once)

    def get_bytes(self, url: str, max_bytes: int = DOCUMENT_BYTES) -> bytes:
        """GET a whole file; raises `BadAnswerError` if it is longer than allowed."""

        def once() -> bytes:
            with self.ask("GET", url, transfer=max_bytes) as response:
                self._refuse_page(response, url)
                length = responses.content_length(response.headers)
                if length is not None and length > max_bytes:
                    raise BadAnswerError(
                        f"the file has {length} bytes, at most {max_bytes} make sense here",
                        location=redact(url),
                        retryable=False,
                    )
                data = self._whole(response, url, max_bytes)
            if length is not None and len(data) != length:
                raise IncompleteTransferError(
                    f"{len(data)} of {length} bytes came", location=redact(url)
                )
            return data

        return self.retry("GET", url, once)

    def look(self, url: str) -> RemoteFile | None:
        """What `head` tells of a file; None where a web page, such as a folder's, is there."""
        return self.retry("HEAD", url, lambda: self._described(url, pages=True))

    def head(self, url: str) -> RemoteFile:
        """Size, entity tag and modification time of a file."""
        found = self.retry("HEAD", url, lambda: self._described(url, pages=False))
        assert found is not None  # a page was refused
        return found

    # --- bytes into the caller's buffer -----------------------------------------------------

    def read_range_into(self, remote: RemoteFile, start: int, view: memoryview) -> RemoteFile:
        """Fill `view` with the bytes from `start` on; `view` is undefined after an error.

        Returns
        -------
        RemoteFile
            The file as the last answer describes it, which may tell more than `remote`.

        Raises
        ------
        SourceChangedError
            If size, entity tag or modification time are not those of `remote`.
        RangesIgnoredError
            If the server sends the whole file and the range lies too far inside it.
        IncompleteTransferError
            If fewer bytes came than were asked for.
        """
        if len(view) == 0:
            return remote
        view = view.cast("B")
        stop = start + len(view)
        if start < 0 or (remote.size is not None and stop > remote.size):
            raise RequestRefusedError(
                f"bytes {start} to {stop} are not inside a file of {remote.size} bytes",
                location=redact(remote.url),
            )

        done, seen = 0, remote

        def more(count: int) -> None:
            nonlocal done
            done += count

        def ask() -> None:
            nonlocal seen
            at = start + done  # a broken answer is gone on with: what came of it is right
            if at == stop:
                return
            # the whole file up to there, where the server ignores ranges
            with self._ask_range(remote, f"bytes={at}-{stop - 1}", stop) as response:
                if response.status_code == 206:
                    self._check_span(response, remote, at, stop)
                else:
                    self._skip(response, remote, at, stop)
                seen = responses.remote_file(remote.url, response.headers, remote.size)
                self._fill(response, view[done:], remote.url, more)
            self._look.hold(remote, start, view)

        self.retry("GET", remote.url, lambda: agreed(self._look, remote, ask))
        return seen

    def check_same(self, remote: RemoteFile, held: Path | None = None) -> None:
        """Ask for the file's description once more, and hold it against `remote`.

        Parameters
        ----------
        held
            The file as far as it is on this machine, for a second look.

        Raises
        ------
        SourceChangedError
            It is another file now.
        """
        now = self.head(remote.url)

        def check() -> None:
            self._look.check(remote, now)

        self.retry("HEAD", remote.url, lambda: agreed(self._look, remote, check, held))

    def read_exact_into(self, url: str, view: memoryview, params: Params | None = None) -> None:
        """Fill `view` with a whole answer, which must have exactly its length.

        Raises `IncompleteTransferError` if the answer is shorter or longer.
        """
        view = view.cast("B")

        def once() -> None:
            with self.ask("GET", url, params=params, transfer=len(view) + 1) as response:
                self._refuse_page(response, url)
                length = responses.content_length(response.headers)
                if length is not None and length != len(view):
                    raise IncompleteTransferError(
                        f"the answer has {length} bytes where {len(view)} are right",
                        location=redact(url),
                    )
                self._fill(response, view, url)
                if response.raw.read(1):
                    raise IncompleteTransferError(
                        f"the answer goes on after the {len(view)} bytes that are right",
                        location=redact(url),
                    )

        self.retry("GET", url, once)

    # --- files ------------------------------------------------------------------------------

    def download(self, remote: RemoteFile | str, path: Path) -> Fetched:
        """Fetch a file to `path`, going on from what an earlier try left in ``path.partial``.

        Parameters
        ----------
        remote
            A URL, or what `head` said about it.
        path
            Replaced atomically once the file is whole.

        Raises
        ------
        SourceChangedError
            If the file changed under the transfer; the part is thrown away.
        DestinationError
        """
        target = self.head(remote) if isinstance(remote, str) else remote
        checksum = target.publisher_checksum

        def may_continue(noted: dict[str, Any], begun: Path) -> bool:
            return fits(self._look, noted, target, begun)

        with PartialFile(
            path, target.identity(), md5=checksum is not None, may_continue=may_continue
        ) as part:

            def stream() -> None:
                self._stream(target, part)

            def once() -> Fetched:
                resume(
                    part,
                    target.size,
                    lambda: agreed(self._look, target, stream, part.held()),
                    self._limits,
                    self._counters,
                )
                if part.md5 is not None and f"md5:{part.md5.hexdigest()}" != checksum:
                    part.restart()
                    raise IncompleteTransferError(
                        "the bytes do not match the server's Content-MD5",
                        location=redact(target.url),
                    )
                size = part.finish(target.size)
                digest = part.sha256.hexdigest()
                return Fetched(path, size, digest, target.etag, target.last_modified, checksum)

            try:
                return self.retry("GET", target.url, once)
            except SourceChangedError:
                part.discard()
                raise

    def _stream(self, remote: RemoteFile, part: PartialFile) -> None:
        # Without a tag or a date, nothing says that the rest belongs to the same file.
        if part.offset and not (remote.etag or remote.last_modified):
            part.restart()
        announced = remote.size is not None
        most = remote.size if remote.size is not None else bounds.UNANNOUNCED_BYTES
        span = f"bytes={part.offset}-" if part.offset else None
        with self._ask_range(remote, span, most) as response:
            if response.status_code == 206:
                self._check_span(response, remote, part.offset, remote.size)
            else:
                self._check_unchanged(remote, response, responses.content_length(response.headers))
                if part.offset:
                    part.restart()
            while count := responses.read_into(response, part.room()):
                stopping.check()
                self._counters.received(count)
                if part.offset + count > most:
                    part.restart()
                    raise IncompleteTransferError(
                        f"more than the {'announced ' if announced else ''}{most} bytes came",
                        location=redact(remote.url),
                        retryable=announced,
                    )
                part.took(count)
        if remote.size is not None and part.offset < remote.size:
            raise IncompleteTransferError(
                f"the answer ended after {part.offset} of {remote.size} bytes",
                location=redact(remote.url),
            )

    # --- one answer -------------------------------------------------------------------------

    def _described(self, url: str, *, pages: bool) -> RemoteFile | None:
        """What HEAD tells; None for a web page where `pages` are answers, too."""
        with self.ask("HEAD", url, allow=(405, 501)) as response:
            if response.status_code == 200:
                if pages and responses.is_html(response.headers):
                    return None
                if not pages:
                    self._refuse_page(response, url)
                size = responses.content_length(response.headers)
                return responses.remote_file(url, response.headers, size)
        with self.ask("GET", url, headers={"Range": "bytes=0-0"}) as response:  # HEAD is refused
            if pages and responses.is_html(response.headers):
                return None
            self._refuse_page(response, url)
            span = responses.content_range(response.headers)
            size = span[2] if span else responses.content_length(response.headers)
            return responses.remote_file(url, response.headers, size)

    def _json(self, url: str, params: Params | None, limit: int) -> Any:
        accepts = {"Accept": "application/json"}
        with self.ask("GET", url, params=params, headers=accepts) as response:
            self._refuse_page(response, url)
            text = self._whole(response, url, limit)
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadAnswerError("the answer is not JSON", location=redact(url)) from error

    def _whole(self, response: requests.Response, url: str, limit: int) -> bytes:
        pieces = bytearray()
        while block := response.raw.read(_BLOCK):
            stopping.check()
            self._counters.received(len(block))
            pieces += block
            if len(pieces) > limit:
                raise bounds.too_long(limit)
        return bytes(pieces)

    def _fill(
        self,
        response: requests.Response,
        view: memoryview,
        url: str,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        done = 0
        while done < len(view):
            stopping.check()
            count = responses.read_into(response, view[done : done + _BLOCK])
            if not count:
                raise IncompleteTransferError(
                    f"the answer ended after {done} of {len(view)} bytes", location=redact(url)
                )
            self._counters.received(count)
            done += count
            if on_bytes is not None:
                on_bytes(count)

    @contextmanager
    def _ask_range(
        self, remote: RemoteFile, span: str | None, most: int
    ) -> Iterator[requests.Response]:
        headers = {"Range": span} if span else {}
        with self.ask("GET", remote.url, headers=headers, allow=(416,), transfer=most) as response:
            if response.status_code == 416:
                # What is asked for lies inside the size that the server itself gave.
                raise SourceChangedError(
                    f"the server no longer has {span} (status 416)", location=redact(remote.url)
                )
            self._refuse_page(response, remote.url, known=remote.size is not None)
            yield response

    def _check_span(
        self, response: requests.Response, remote: RemoteFile, start: int, stop: int | None
    ) -> None:
        span = responses.content_range(response.headers)
        total = span[2] if span else None
        self._check_unchanged(remote, response, total)
        length = responses.content_length(response.headers)
        right = span is not None and span[0] == start and stop in {None, span[1] + 1}
        if not right or (stop is not None and length not in {None, stop - start}):
            raise BadAnswerError(
                f"bytes {start} to {stop} were asked for and {span} came",
                location=redact(remote.url),
            )

    def _check_unchanged(
        self, remote: RemoteFile, response: requests.Response, total: int | None
    ) -> None:
        self._look.check(remote, responses.remote_file(remote.url, response.headers, total))

    def _skip(self, response: requests.Response, remote: RemoteFile, start: int, stop: int) -> None:
        """Read up to `start` in a whole file that came where a range was asked for."""
        length = responses.content_length(response.headers)
        self._check_unchanged(remote, response, length)
        self.ranges_ignored.add(urlsplit(remote.url).netloc)
        # A file read in many ranges would be fetched whole for each of them; not so its header.
        if start > _MAX_SKIP or ((length or 0) > 4 * _MAX_SKIP and stop > _HEADER_BYTES):
            raise RangesIgnoredError(
                f"the server ignores byte ranges, and bytes {start} to {stop} of "
                f"{length or 'unknown'} are needed to go on: it would send all that lies before "
                "them, again for each range",
                location=redact(remote.url),
            )
        scratch = memoryview(bytearray(min(start, _BLOCK)))
        while start:
            self._fill(response, scratch[:start], remote.url)
            start -= min(start, len(scratch))

    def _refuse_page(self, response: requests.Response, url: str, *, known: bool = False) -> None:
        """Raise if a web page, or an encoded body, came where plain bytes were asked for.

        A page that somebody on the way gives for a moment is worth another try. A page that the
        server stores is not, nor one that comes again from a host that has given nothing else,
        unless the file is `known`: described by an earlier answer.
        """
        host, name = urlsplit(url).netloc, urlsplit(url).path.lower()
        if responses.is_html(response.headers) and not name.endswith((".html", ".htm")):
            stays = responses.is_stored_page(response.headers) or url in self._gave_pages
            if host not in self._gave_data and not known:
                self._gave_pages.add(url)
            raise BadAnswerError(
                "a web page came instead of the data",
                location=redact(url),
                retryable=not stays,
                advice="Open the address in a browser: it may want a sign-in, or be a server that "
                "gives a page for what is not there, of which only single files can be read",
            )
        coding = response.headers.get("Content-Encoding", "identity").strip().lower()
        # Apache marks a file that is itself compressed this way; its bytes are the file.
        if coding not in {"", "identity"} and not name.endswith(_COMPRESSED_SUFFIXES):
            raise BadAnswerError(f"the answer came encoded ({coding})", location=redact(url))
        self._gave_data.add(host)
