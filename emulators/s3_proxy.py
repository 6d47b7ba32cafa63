"""A transparent way to an S3 server, so that its clients can be counted and let down too.

The Host header passes unchanged, because it is part of what S3 clients sign.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
from starlette.types import Receive, Scope, Send
from yarl import URL

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"expect",
    }
)
_BLOCK = 1 << 20


class S3Proxy:
    """ASGI application that forwards everything to ``upstream``.

    Parameters
    ----------
    upstream
        Address of the server, without a path.
    buckets
        Names that count as a bucket when they are the first label of the Host (virtual-host
        style); such requests are forwarded path style, which only unsigned ones survive.
    """

    def __init__(self, upstream: str, buckets: tuple[str, ...] = ()) -> None:
        self._upstream = upstream
        self._buckets = buckets
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward one request, streaming both ways."""
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in scope["headers"]
            if name not in _HOP_BY_HOP
        ]
        names = {name for name, _ in headers}
        has_body = "content-length" in names or any(
            name == b"transfer-encoding" for name, _ in scope["headers"]
        )
        async with self._client().request(
            scope["method"],
            self._url(scope),
            headers=headers,
            data=_body(receive) if has_body else None,
            allow_redirects=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        ) as answer:
            kept = [
                (name.lower(), value)
                for name, value in answer.raw_headers
                if name.lower() not in _HOP_BY_HOP
            ]
            await send({"type": "http.response.start", "status": answer.status, "headers": kept})
            if scope["method"] != "HEAD":
                while block := await answer.content.read(_BLOCK):
                    await send({"type": "http.response.body", "body": block, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    async def close(self) -> None:
        """Let go of the connections upstream."""
        if self._session is not None:
            await self._session.close()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
                read_bufsize=_BLOCK,
            )
        return self._session

    def _url(self, scope: Scope) -> URL:
        path = scope["raw_path"].split(b"?")[0].decode("latin-1")
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        bucket = host.partition(".")[0]
        if bucket in self._buckets:
            path = f"/{bucket}{path}"
        query = scope["query_string"].decode("latin-1")
        return URL(self._upstream + path + (f"?{query}" if query else ""), encoded=True)


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the client went away in the middle of its request")
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body", False):
            return
