"""Unfinished multipart uploads: invisible in listings, but stored, and paid for, until aborted."""

from __future__ import annotations

from urllib.parse import unquote_plus

from lib.errors import BadAnswerError, FormatError
from lib.safety import parse_xml
from lib.storage.s3_objects import S3Objects
from lib.storage.s3_writes import S3Writes
from lib.transport.s3.listing import PAGE_BYTES, children, text_of

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
