"""Requests that change a bucket. Every one of them passes the fence, and most are conditional."""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from urllib.parse import quote
from xml.sax.saxutils import escape

from defusedxml import ElementTree  # type: ignore[import-untyped]

from lib.concurrency.bounded_map import run_ordered
from lib.errors import (
    AlreadyExistsError,
    DestinationError,
    MacroscopeError,
    NotFoundError,
    TransportError,
)
from lib.storage.base import Fence, StoredObject
from lib.storage.s3_objects import S3Objects
from lib.transport.s3.errors import Refusal, read_refusal, store_error, way_error
from lib.transport.s3.listing import PAGE_KEYS
from lib.transport.s3.requests import S3Response

_PART = 64 * 2**20  # at most 10,000 parts: objects of up to 640 GB
_PARTS_AT_ONCE = 4
_DELETES_AT_ONCE = 16
_GONE = ("NoSuchKey", "NoSuchUpload")


class S3Writes:
    """Writes and deletes on keys as they are; names are checked by the caller.

    Parameters
    ----------
    fence
        Passed before each request, each piece of a body and each part of an upload.
    """

    def __init__(self, objects: S3Objects, fence: Fence) -> None:
        self._objects, self._requests, self._fence = objects, objects.requests, fence
        self._parts_above = objects.settings.multipart_above

    def put(
        self, key: str, views: list[memoryview], where: str | None, *, attempts: int | None = None
    ) -> str:
        """Write one object; returns its entity tag.

        A conditional success whose answer was lost shows up as a refusal of the next try; then what
        is stored decides whether it was ours.

        Parameters
        ----------
        where
            Only where the object has this entity tag; ``""``: where there is none; None: anyway.

        Raises
        ------
        AlreadyExistsError
            Something else is there, or nothing.
        """
        size = sum(view.nbytes for view in views)
        once = self._put_whole if size <= self._parts_above else self._put_in_parts
        doubtful = False

        def ask() -> str:
            nonlocal doubtful
            try:
                return once(key, views, _condition(where))
            except NotFoundError as error:
                raise AlreadyExistsError(
                    "what was to be replaced is gone", location=error.location
                ) from None
            except AlreadyExistsError:
                ours = self._if_ours(key, views, size) if doubtful else None
                if ours is None:
                    raise
                return ours
            except MacroscopeError as error:
                doubtful = doubtful or (where is not None and error.retryable)
                raise

        return self._objects.trying(ask, key, "write", attempts=attempts)

    def delete(self, found: Sequence[StoredObject]) -> list[str]:
        """Delete in bulk, only what still is the version that was found; absent is fine.

        Fewer servers compare versions here than in `delete_each`.

        Returns
        -------
        list of str
            Keys that hold something else by now, as far as the server compares versions.
        """
        changed: list[str] = []
        for start in range(0, len(found), PAGE_KEYS):
            batch = found[start : start + PAGE_KEYS]
            ask = partial(self._delete, batch)
            changed += self._objects.trying(ask, batch[0].key, "delete")
        return changed

    def delete_each(self, found: Sequence[StoredObject]) -> list[str]:
        """The same with a request for each object."""

        def one(item: StoredObject) -> str | None:
            try:
                self._objects.trying(partial(self._delete_one, item), item.key, "delete")
            except AlreadyExistsError:
                return item.key
            except NotFoundError:
                pass
            return None

        jobs = (partial(one, item) for item in found)
        asked = run_ordered(jobs, _DELETES_AT_ONCE, outlives_stop=True)
        return [key for key in asked if key is not None]

    def abort_upload(self, full_key: str, upload: str) -> None:
        """Drop an unfinished upload, by its key in the bucket."""
        key = full_key[len(self._objects.full("")) :]

        def ask() -> None:
            with suppress(NotFoundError):  # finished or aborted meanwhile
                self._send("DELETE", key, query={"uploadId": upload})

        self._objects.trying(ask, key, "clear up")

    # --- inside

    def _delete_one(self, item: StoredObject) -> None:
        headers = {"If-Match": item.version} if item.version else {}
        self._send("DELETE", item.key, headers=headers)

    def _put_whole(self, key: str, views: list[memoryview], headers: dict[str, str]) -> str:
        return self._send("PUT", key, views=views, headers=headers).etag

    def _put_in_parts(self, key: str, views: list[memoryview], headers: dict[str, str]) -> str:
        parts = list(_split(views, _PART))
        begun = self._send("POST", key, query={"uploads": ""}, headers=_BY_SHA256)
        upload = {"uploadId": _text(begun, "UploadId")}

        def one(number: int, part: list[memoryview]) -> str:
            query = {"partNumber": str(number), **upload}
            response = self._send("PUT", key, query=query, views=part)
            digest = response.headers.get("x-amz-checksum-sha256")
            return (
                f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(response.etag)}</ETag>"
                + (f"<ChecksumSHA256>{escape(digest)}</ChecksumSHA256>" if digest else "")
                + "</Part>"
            )

        try:
            jobs = (partial(one, number, part) for number, part in enumerate(parts, 1))
            listed = list(run_ordered(jobs, _PARTS_AT_ONCE, outlives_stop=True))
            document = f"<CompleteMultipartUpload>{''.join(listed)}</CompleteMultipartUpload>"
            done = self._send(
                "POST", key, query=upload, document=document.encode(), headers=headers
            )
            if b"<Error>" in done.body:  # of status 200: the server began to answer too early
                refusal = read_refusal(500, done.headers, done.body)
                raise store_error(refusal, self._objects.where(key), "write")
            return _text(done, "ETag") or done.etag
        except BaseException:
            with suppress(MacroscopeError):  # what a killed run leaves is swept later
                self._send("DELETE", key, query=upload)
            raise
        finally:
            for view in itertools.chain(*parts):
                view.release()

    def _delete(self, batch: Sequence[StoredObject]) -> list[str]:
        keys = {self._objects.full(item.key): item for item in batch}
        listed = "".join(
            f"<Object><Key>{escape(full)}</Key>"
            + (f"<ETag>{escape(item.version)}</ETag>" if item.version else "")
            + "</Object>"
            for full, item in keys.items()
        )
        document = f"<Delete><Quiet>true</Quiet>{listed}</Delete>".encode()
        response = self._send(
            "POST", "", query={"delete": ""}, document=document, headers=_md5(document)
        )
        changed: list[str] = []
        for refused in _elements(response.body, "Error"):
            code, key = refused.get("Code", ""), keys[refused.get("Key", "")].key
            if code == "PreconditionFailed":
                changed.append(key)
            elif code not in _GONE:
                refusal = Refusal(response.status, code, refused.get("Message", ""))
                raise store_error(refusal, self._objects.where(key), "delete")
        return changed

    def _send(
        self,
        method: str,
        key: str,
        *,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        views: list[memoryview] | None = None,
        document: bytes | None = None,
    ) -> S3Response:
        """One request; every answer but a success is a named error."""
        where, doing = self._objects.where(key), "delete" if method == "DELETE" else "write"
        try:
            return self._requests.write(
                method,
                quote(self._objects.full(key)) if key else "",
                partial(self._fence.left, where),
                query=query,
                headers=headers,
                views=views,
                document=document,
            )
        except Refusal as refusal:
            self._fence.left(where)  # a request that came too late is not the server's fault
            if refusal.came_late:
                raise DestinationError(
                    f"cannot {doing}: the request came after the lease that it was sent under",
                    location=where,
                    advice="Run again: finished work is kept",
                    retryable=True,
                ) from None
            raise store_error(refusal, where, doing) from None
        except TransportError as error:
            raise way_error(error, where, doing) from None

    def _if_ours(self, key: str, views: list[memoryview], size: int) -> str | None:
        """The entity tag of the stored object if it holds exactly these bytes."""
        meta = self._objects.head(key)
        if meta is None or meta.size != size:
            return None
        found = self._objects.get(key)
        return found.etag if found.data == b"".join(views) else None


_BY_SHA256 = {"x-amz-checksum-algorithm": "SHA256"}


def _condition(where: str | None) -> dict[str, str]:
    if where is None:
        return {}
    return {"If-Match": where} if where else {"If-None-Match": "*"}


def _md5(body: bytes) -> dict[str, str]:
    """What older servers want with a bulk delete."""
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    return {"Content-MD5": base64.b64encode(digest).decode()}


def _split(views: list[memoryview], size: int) -> Iterator[list[memoryview]]:
    """The same bytes in lists of views of `size` bytes, the last one shorter."""
    part: list[memoryview] = []
    room = size
    for view in views:
        start = 0
        while start < view.nbytes:
            part.append(view[start : start + room])
            start, room = start + part[-1].nbytes, room - part[-1].nbytes
            if not room:
                yield part
                part, room = [], size
    if part:
        yield part


def _elements(body: bytes, name: str) -> list[dict[str, str]]:
    """The children of each such element of an S3 answer, by their names without namespace."""
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError as error:
        raise DestinationError("the object store's answer is no XML") from error
    return [
        {child.tag.rpartition("}")[2]: child.text or "" for child in element}
        for element in root.iter()
        if element.tag.rpartition("}")[2] == name
    ]


def _text(response: S3Response, name: str) -> str:
    root = ElementTree.fromstring(response.body)
    return next((e.text or "" for e in root.iter() if e.tag.rpartition("}")[2] == name), "")
