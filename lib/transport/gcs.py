"""Public objects of Google Cloud Storage, over its own HTTPS interfaces.

Objects by the XML interface, listings by the JSON interface. An object that is stored compressed
(``Content-Encoding: gzip``) is decompressed on its way for a client that does not say that it takes
gzip; then neither length nor digest fit. So gzip is always taken, the stored bytes are held against
``x-goog-stored-content-length`` and ``x-goog-hash`` (crc32c), and unpacked here.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import google_crc32c
import requests

from lib.errors import (
    AccessDeniedError,
    BadAnswerError,
    FormatError,
    IncompleteTransferError,
    MacroscopeError,
    NotFoundError,
    RequestRefusedError,
    SourceChangedError,
)
from lib.safety import redact
from lib.transport import responses
from lib.transport.bounds import MIB
from lib.transport.http import HttpClient
from lib.transport.listing import Listing, ObjectInfo, Walk

PUBLIC = "https://storage.googleapis.com"

_TAKES_GZIP = {"Accept-Encoding": "gzip"}
_CODE = re.compile(r"<Code>(\w+)</Code>")
_PAGE = 1000
_FIELDS = "items(name,size,generation,updated,crc32c,contentEncoding),prefixes,nextPageToken"
_ERROR_BYTES = 64 * 1024
_ENCODED = b"stored compressed"  # told apart by identity
_MOST_UNPACKED = 1024 * MIB
_MOST_BROTLI = 256 * MIB  # its decoder allocates what it is told


@dataclass(frozen=True, slots=True)
class GcsInfo(ObjectInfo):
    """An object with the encoding that its bytes are stored in; ``etag`` is its generation."""

    encoding: str | None = field(default=None)


_UNTOLD = GcsInfo("", None)  # an answer without a body does not say what is wrong


class GcsReader(HttpClient):
    """Reads one bucket. Thread-safe; raises as `HttpClient` does."""

    def bind(self, bucket: str, endpoint: str = PUBLIC) -> GcsReader:
        """Say which bucket, and which server; called once, before anything is asked."""
        self._bucket, self._endpoint = bucket, endpoint.rstrip("/")
        self.uri = f"gs://{bucket}"
        return self

    def get(self, key: str, most: int) -> bytes | None:
        """The bytes of an object, unpacked where it is stored compressed; None where absent.

        Raises
        ------
        IncompleteTransferError
            They are not the stored bytes: another length, another crc32c.
        BadAnswerError
            They are more than `most`, stored or unpacked.
        """
        url = self._url(key)

        def once() -> bytes | None:
            with self._asked(url, _TAKES_GZIP, most) as response:
                if response is None:
                    return None
                _refuse_page(response, key, url)
                headers = response.headers
                length = responses.content_length(headers)
                if length is not None and length > most:
                    raise BadAnswerError(
                        f"the object has {length} bytes, at most {most} make sense here",
                        location=redact(url),
                        retryable=False,
                    )
                stored = self._whole(response, url, most)
            _prove(stored, headers, url)
            return _unpacked(stored, _encoding(headers), most, url)

        return self.retry("GET", url, once)

    def get_range(
        self, key: str, start: int, length: int, generation: str | None = None
    ) -> bytes | None:
        """`length` bytes from `start` on, of one generation; None where absent.

        Of an object that is stored compressed, all is fetched and unpacked for it.

        Raises
        ------
        SourceChangedError
            There is no such generation any more.
        """
        url = self._url(key) + (f"?generation={generation}" if generation else "")
        headers = {**_TAKES_GZIP, "Range": f"bytes={start}-{start + length - 1}"}

        def once() -> bytes | None:
            with self._asked(url, headers, length) as response:
                if response is None:
                    if generation is None:
                        return None
                    raise SourceChangedError("the object was replaced", location=redact(url))
                _refuse_page(response, key, url)
                span = responses.content_range(response.headers)
                if response.status_code != 206 or span is None or span[0] != start:
                    raise BadAnswerError(
                        "the store does not give the range that was asked for",
                        location=redact(url),
                        retryable=False,
                    )
                if _encoding(response.headers) is not None:
                    return _ENCODED
                data = self._whole(response, url, length)
            if len(data) != length:
                raise IncompleteTransferError(
                    f"{len(data)} bytes came where {length} were asked for", location=redact(url)
                )
            return data

        data = self.retry("GET", url, once)
        if data is not _ENCODED:
            return data
        whole = self.get(key, _MOST_UNPACKED)
        if whole is None or start + length > len(whole):
            raise IncompleteTransferError(
                f"the object ends before byte {start + length}", location=redact(url)
            )
        return whole[start : start + length]

    def head(self, key: str) -> GcsInfo | None:  # type: ignore[override]
        """What is stored under a key; None for 404, whose answer does not say of what."""
        url = self._url(key)

        def once() -> GcsInfo | None:
            with self.ask("HEAD", url, headers=_TAKES_GZIP, allow=(400, 403, 404)) as response:
                if response.status_code == 404:
                    return None
                if response.status_code == 400:
                    return _UNTOLD
                if response.status_code == 403:
                    raise _refused(url)
                _refuse_page(response, key, url)
                headers = response.headers
            stored = headers.get("x-goog-stored-content-length", "")
            size = int(stored) if stored.isdigit() else responses.content_length(headers)
            digest = _crc32c(headers)
            return GcsInfo(
                key,
                size,
                headers.get("x-goog-generation"),
                headers.get("Last-Modified"),
                f"crc32c:{digest:08x}" if digest is not None else None,
                _encoding(headers),
            )

        found = self.retry("HEAD", url, once)
        if found is _UNTOLD:
            self.get_range(key, 0, 1)
            raise responses.status_error(400, {}, url, "")
        return found

    def list(self, prefix: str = "") -> Listing:
        """One level below a prefix; raises `AccessDeniedError` where nobody may list."""
        objects: list[ObjectInfo] = []
        prefixes: list[str] = []
        for page in self._pages(prefix, "/"):
            objects += [_item(item) for item in page.get("items", ())]
            prefixes += [str(name).rstrip("/") for name in page.get("prefixes", ())]
        return Listing(tuple(objects), tuple(prefixes))

    def list_all(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object below a prefix, by key."""
        for page in self._pages(prefix, None):
            yield from map(_item, page.get("items", ()))

    # --- inside -----------------------------------------------------------------------------

    def _url(self, key: str) -> str:
        return f"{self._endpoint}/{self._bucket}/{quote(key, safe='/~')}"

    @contextmanager
    def _asked(
        self, url: str, headers: Mapping[str, str], most: int
    ) -> Iterator[requests.Response | None]:
        """One answer, or None where the store proves that there is no such key."""
        refused = (400, 403, 404)
        with self.ask("GET", url, headers=headers, allow=refused, transfer=most) as response:
            if response.status_code not in refused:
                yield response
                return
            error = self._refusal(response, url)
            if error is not None:
                raise error
        yield None

    def _pages(self, prefix: str, delimiter: str | None) -> Iterator[dict[str, Any]]:
        """Pages of a listing. An empty page may have another behind it: only the token counts."""
        url = f"{self._endpoint}/storage/v1/b/{self._bucket}/o"
        token, walk = "", Walk()
        while True:
            params = {"prefix": prefix, "maxResults": str(_PAGE), "fields": _FIELDS}
            params |= {"delimiter": delimiter} if delimiter else {}
            params |= {"pageToken": token} if token else {}
            try:
                page = self.get_json(url, params)
            except NotFoundError:
                raise NotFoundError("there is no such bucket", location=self.uri) from None
            if not isinstance(page, dict):
                raise BadAnswerError("the listing is no JSON object", location=redact(url))
            token = str(page.get("nextPageToken") or "")
            try:
                walk.take(_names(page), token or None)
                yield page
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise BadAnswerError(
                    f"the listing cannot be read: {error!r}", location=redact(url)
                ) from None
            if not token:
                return

    @staticmethod
    def _refusal(response: requests.Response, url: str) -> MacroscopeError | None:
        """What a status other than 200 and 206 means; None where there is no such key."""
        body = response.raw.read(_ERROR_BYTES).decode("utf-8", "replace")
        found = _CODE.search(body)
        code = found[1] if found else ""
        where = redact(url)
        if code == "NoSuchKey":
            return None
        if code == "NoSuchBucket":
            return NotFoundError("there is no such bucket", location=where)
        if code.startswith("UserProject") or "requester pays" in body.lower():
            return RequestRefusedError(
                "the bucket's owner lets those pay who read it",
                location=where,
                advice="Copy what you need with an account of your own, then read the copy",
            )
        if response.status_code == 404:
            return NotFoundError(
                "the server does not have this, and does not say so as the store would",
                location=where,
            )
        if response.status_code == 403:
            return _refused(url)
        return responses.status_error(response.status_code, response.headers, url, body[:200])


def _refused(url: str) -> AccessDeniedError:
    return AccessDeniedError(
        "the store refuses access; it also says so of objects that are not there",
        location=redact(url),
    )


def _names(page: dict[str, Any]) -> list[str]:
    return [str(item["name"]) for item in page.get("items", ())] + [
        str(name) for name in page.get("prefixes", ())
    ]


def _refuse_page(response: requests.Response, key: str, url: str) -> None:
    """Raise for a web page that somebody on the way gives in place of the object."""
    if responses.is_html(response.headers) and not key.lower().endswith((".html", ".htm")):
        raise BadAnswerError(
            "a web page came instead of the object",
            location=redact(url),
            retryable=not responses.is_stored_page(response.headers),
        )


def _encoding(headers: Mapping[str, str]) -> str | None:
    stored = headers.get("x-goog-stored-content-encoding") or headers.get("Content-Encoding")
    text = (stored or "identity").strip().lower()
    return None if text in ("", "identity") else text


def _crc32c(headers: Mapping[str, str]) -> int | None:
    """The store's crc32c of the stored bytes: base64 of four bytes, the highest first."""
    for part in headers.get("x-goog-hash", "").split(","):
        name, _, value = part.strip().partition("=")
        if name == "crc32c":
            return _from_base64(value)
    return None


def _from_base64(text: str) -> int | None:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return int.from_bytes(raw, "big") if len(raw) == 4 else None


def _prove(stored: bytes, headers: Mapping[str, str], url: str) -> None:
    """Hold the bytes against what the store says it holds."""
    announced = headers.get("x-goog-stored-content-length", "")
    if announced.isdigit() and int(announced) != len(stored):
        raise IncompleteTransferError(
            f"{len(stored)} bytes came of an object that is stored in {announced}: it ended early, "
            "or was encoded anew on its way",
            location=redact(url),
        )
    digest = _crc32c(headers)
    if digest is not None and google_crc32c.value(stored) != digest:
        raise IncompleteTransferError(
            "the bytes do not fit the store's crc32c", location=redact(url)
        )


def _unpacked(stored: bytes, encoding: str | None, most: int, url: str) -> bytes:
    where = redact(url)
    if encoding is None:
        return stored
    if encoding == "gzip":
        inflater = zlib.decompressobj(31)
        try:
            data = inflater.decompress(stored, most + 1)
        except zlib.error as error:
            raise FormatError(f"the object is no gzip: {error}", location=where) from None
        if len(data) > most:
            raise BadAnswerError(
                f"the object unpacks to more than {most} bytes", location=where, retryable=False
            )
        if not inflater.eof or inflater.unused_data:
            raise FormatError("the object's gzip is cut short, or goes on", location=where)
        return data
    if encoding == "br":
        from imagecodecs import BrotliError, brotli_decode

        try:
            return bytes(brotli_decode(stored, out=min(most, _MOST_BROTLI)))
        except (BrotliError, ValueError) as error:
            raise FormatError(f"the object's brotli is damaged: {error}", location=where) from None
    raise BadAnswerError(f"the object is stored as {encoding}", location=where, retryable=False)


def _item(item: Mapping[str, Any]) -> GcsInfo:
    digest = _from_base64(str(item.get("crc32c", "")))
    return GcsInfo(
        str(item["name"]),
        int(item["size"]),
        str(item["generation"]) if "generation" in item else None,
        item.get("updated"),
        f"crc32c:{digest:08x}" if digest is not None else None,
        item.get("contentEncoding") or None,
    )
