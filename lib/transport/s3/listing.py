"""Listings of a bucket (ListObjectsV2), page by page, with an end whatever the server says.

Amazon S3 API Reference, "ListObjectsV2": a page holds at most 1000 keys, and says whether and with
which token the listing goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote_plus
from xml.etree.ElementTree import Element

from lib.errors import BadAnswerError, FormatError
from lib.safety import parse_xml
from lib.transport.listing import ObjectInfo
from lib.transport.s3.requests import S3Requests

PAGE_KEYS = 1000
PAGE_BYTES = 16 * 1024 * 1024  # 1000 keys of 1024 bytes, each byte as %XX, and as much again


@dataclass(frozen=True, slots=True)
class ListingPage:
    """One page: objects and, where a delimiter was asked for, common prefixes as they came."""

    objects: tuple[ObjectInfo, ...]
    prefixes: tuple[str, ...]
    token: str | None

    def names(self) -> list[str]:
        """Keys and prefixes."""
        return [item.key for item in self.objects] + list(self.prefixes)


def read_page(requests: S3Requests, prefix: str, delimiter: str, token: str | None) -> ListingPage:
    """Ask for one page of the keys that begin with `prefix`.

    Raises
    ------
    BadAnswerError
        It is no listing.
    Refusal
        The server refuses.
    """
    query = {"list-type": "2", "encoding-type": "url", "max-keys": str(PAGE_KEYS)}
    if prefix:
        query["prefix"] = prefix
    if delimiter:
        query["delimiter"] = delimiter
    if token is not None:
        query["continuation-token"] = token
    with requests.ask("GET", query=query) as response:
        return parse_page(requests.body(response, PAGE_BYTES))


def parse_page(document: bytes) -> ListingPage:
    """A page from its XML. Raises `BadAnswerError`."""
    try:
        root = parse_xml(document, PAGE_BYTES)
        if _name(root) != "ListBucketResult":
            raise FormatError(f"it is a {_name(root)[:40]}")
        quoted = text_of(root, "EncodingType") == "url"

        def plain(text: str) -> str:
            return unquote_plus(text) if quoted else text

        objects = tuple(_object(_texts(item), plain) for item in children(root, "Contents"))
        prefixes = tuple(
            plain(text_of(item, "Prefix")) for item in children(root, "CommonPrefixes")
        )
    except FormatError as error:
        raise BadAnswerError(
            f"the answer is not the listing of an object store: {error.message}"
        ) from error
    if text_of(root, "IsTruncated") != "true":
        return ListingPage(objects, prefixes, None)
    token = text_of(root, "NextContinuationToken")
    if not token:
        raise BadAnswerError("a listing goes on, but does not say where")
    return ListingPage(objects, prefixes, token)


def _name(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]


def children(root: Element, name: str) -> Iterator[Element]:
    """Its child elements of a name, in whatever name space."""
    return (child for child in root if _name(child) == name)


def text_of(root: Element, name: str) -> str:
    """The text of its first child element of a name; empty where there is none."""
    found = next(children(root, name), None)
    return (found.text or "") if found is not None else ""


def _texts(element: Element) -> dict[str, str]:
    """Names and texts of its child elements; of several of a name the first."""
    return {_name(child): child.text or "" for child in reversed(element)}


def _object(said: dict[str, str], plain: Callable[[str], str]) -> ObjectInfo:
    return ObjectInfo(
        plain(said.get("Key", "")),
        _size(said.get("Size", "")),
        said.get("ETag") or None,
        _time(said.get("LastModified", "")),
    )


def _size(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise FormatError(f"{text[:40]!r} is not a size")
    return int(text)


def _time(text: str) -> str | None:
    """``2020-01-02T03:04:05.678Z`` to whole seconds; None where there is none."""
    return f"{text[:19]}Z" if len(text) >= 20 and text[10] == "T" else None
