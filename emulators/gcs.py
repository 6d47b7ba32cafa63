"""A stand-in of Google Cloud Storage's public side: objects by XML, listings by JSON.

Behaves as its documentation says (formats and headers checked against public clients): small pages,
an empty page with a token behind it, decompression on the way for clients that do not take gzip,
buckets that may be read and not listed, generations, requester pays.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import zlib
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import google_crc32c
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router

_XML = "application/xml; charset=UTF-8"


class GcsApp:
    """Folders as buckets.

    Attributes
    ----------
    unlisted
        Buckets that anybody may read and nobody may list; absent objects answer 403 there.
    requester_pays
        Buckets that answer 400 to whoever names no project.
    composite
        Keys of objects without an MD5, as those put together from parts.
    page
        Objects in a page of a listing.
    damage
        The byte of an object, by ``bucket/key``, that arrives wrong; its digests stay right.
    encodings
        Content-Encoding of stored objects by ``bucket/key``: their files hold the encoded bytes.
    """

    def __init__(self, folder: Path, page: int = 3) -> None:
        self.folder, self.page = folder.resolve(), page
        self.unlisted: set[str] = set()
        self.requester_pays: set[str] = set()
        self.composite: set[str] = set()
        self.encodings: dict[str, str] = {}
        self.damage: dict[str, int] = {}
        self._router = Router(
            [
                Route("/storage/v1/b/{bucket}/o", self._list, methods=["GET"]),
                Route("/{bucket}/{key:path}", self._object, methods=["GET", "HEAD"]),
            ]
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._router(scope, receive, send)

    def put(self, bucket: str, key: str, data: bytes, encoding: str | None = None) -> None:
        """Store an object; with ``gzip``, compressed, as cloud-volume stores chunks."""
        path = self.folder / bucket / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(data, mtime=0) if encoding == "gzip" else data)
        if encoding is not None:
            self.encodings[f"{bucket}/{key}"] = encoding

    # --- answers ----------------------------------------------------------------------------

    async def _object(self, request: Request) -> Response:
        bucket = request.path_params["bucket"]
        key = request.path_params["key"]  # decoded once, by the server
        refused = self._refused(bucket, request)
        if refused is not None:
            return refused
        path = self.folder / bucket / key
        if not path.is_file():
            if bucket in self.unlisted:
                return _error(403, "AccessDenied", "Anonymous caller does not have access.")
            return _error(404, "NoSuchKey", "The specified key does not exist.")
        stored = path.read_bytes()
        generation = str(path.stat().st_mtime_ns // 1000)
        if request.query_params.get("generation", generation) != generation:
            return _error(404, "NoSuchKey", "No such object: generation")
        headers = self._headers(bucket, key, stored, generation, path)
        wrong = self.damage.get(f"{bucket}/{key}")
        if wrong is not None:
            stored = stored[:wrong] + bytes([stored[wrong] ^ 0xFF]) + stored[wrong + 1 :]
        encoding = self.encodings.get(f"{bucket}/{key}")
        if encoding == "gzip" and "gzip" not in request.headers.get("accept-encoding", ""):
            # decompressed on the way: neither length nor encoding are told, ranges are ignored
            return _Unframed(zlib.decompress(stored, 31), headers=headers)
        if encoding:
            headers["Content-Encoding"] = encoding
        span = request.headers.get("range", "")
        if span.startswith("bytes="):
            first, _, last = span.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last or len(stored) - 1) + 1, len(stored))
            if start >= len(stored):
                return _error(416, "InvalidRange", "The requested range cannot be satisfied.")
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(stored)}"
            return Response(stored[start:stop], 206, headers)
        return Response(stored, headers=headers)

    async def _list(self, request: Request) -> Response:
        bucket = request.path_params["bucket"]
        if bucket in self.unlisted:
            text = "Anonymous caller does not have storage.objects.list access"
            return JSONResponse({"error": {"code": 401, "message": text}}, 401)
        if not (self.folder / bucket).is_dir():
            return JSONResponse({"error": {"code": 404, "message": "bucket"}}, 404)
        if bucket in self.requester_pays and "userProject" not in request.query_params:
            text = "Bucket is a requester pays bucket but no user project provided."
            return JSONResponse({"error": {"code": 400, "message": text}}, 400)
        query = request.query_params
        found = [*self._listed(bucket, query.get("prefix", ""), query.get("delimiter"))]
        token = query.get("pageToken", "")
        start = int(token or 0)
        if not token and found:  # a page without anything, which is allowed, and meant to be passed
            return JSONResponse({"kind": "storage#objects", "nextPageToken": "0"})
        here = found[start : start + self.page]
        answer: dict[str, Any] = {"kind": "storage#objects"}
        items = [item for item in here if isinstance(item, dict)]
        prefixes = [item for item in here if isinstance(item, str)]
        answer |= {"items": items} if items else {}
        answer |= {"prefixes": prefixes} if prefixes else {}
        if start + self.page < len(found):
            answer["nextPageToken"] = str(start + self.page)
        return JSONResponse(answer)

    def _listed(
        self, bucket: str, prefix: str, delimiter: str | None
    ) -> Iterator[dict[str, Any] | str]:
        root, seen = self.folder / bucket, set()
        keys = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
        for key in keys:
            if not key.startswith(prefix):
                continue
            rest = key.removeprefix(prefix)
            if delimiter and delimiter in rest:
                folder = prefix + rest.split(delimiter)[0] + delimiter
                if folder not in seen:
                    seen.add(folder)
                    yield folder
                continue
            path = root / key
            stored = path.read_bytes()
            item = {
                "name": key,
                "size": str(len(stored)),  # a string, as everywhere in this interface
                "generation": str(path.stat().st_mtime_ns // 1000),
                "updated": "2020-01-01T00:00:00.000Z",
                "crc32c": _crc32c(stored),
            }
            encoding = self.encodings.get(f"{bucket}/{key}")
            yield item | ({"contentEncoding": encoding} if encoding else {})

    def _refused(self, bucket: str, request: Request) -> Response | None:
        if not (self.folder / bucket).is_dir():
            return _error(404, "NoSuchBucket", "The specified bucket does not exist.")
        if bucket in self.requester_pays and "userProject" not in request.query_params:
            return _error(400, "UserProjectMissing", "Bucket is a requester pays bucket.")
        return None

    def _headers(
        self, bucket: str, key: str, stored: bytes, generation: str, path: Path
    ) -> dict[str, str]:
        digests = [f"crc32c={_crc32c(stored)}"]
        if key not in self.composite:
            md5 = hashlib.md5(stored, usedforsecurity=False).digest()
            digests.append(f"md5={base64.b64encode(md5).decode()}")
        return {
            "x-goog-generation": generation,
            "x-goog-stored-content-length": str(len(stored)),
            "x-goog-stored-content-encoding": self.encodings.get(f"{bucket}/{key}", "identity"),
            "x-goog-hash": ",".join(digests),
            "Last-Modified": formatdate(path.stat().st_mtime, usegmt=True),
            "Content-Type": "application/octet-stream",
        }


class _Unframed(Response):
    """A body whose length is not told."""

    def init_headers(self, headers: Any = None) -> None:
        super().init_headers(headers)
        self.raw_headers = [h for h in self.raw_headers if h[0] != b"content-length"]


def _crc32c(data: bytes) -> str:
    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


def _error(status: int, code: str, message: str) -> Response:
    body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code>"
    body += f"<Message>{message}</Message></Error>"
    return Response(body, status, media_type=_XML)
