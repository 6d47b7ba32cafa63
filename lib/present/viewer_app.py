"""The web side of the viewer: Neuroglancer's client files and the volumes, read-only.

Only objects of the volumes that were named are served. Their keys pass the store's own checks, so
that neither ``..`` nor a symbolic link leads outside, and parts that begin with a dot (unfinished
volumes, locks) are refused.
"""

from __future__ import annotations

import asyncio
import mimetypes
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from importlib import resources

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from lib.errors import DestinationError, MacroscopeError, NotFoundError, UnsupportedFormatError
from lib.present.preview import preview_key
from lib.storage.base import Store

_BLOCK = 4 * 2**20
_RANGE = re.compile(r"^bytes=(\d*)-(\d*)$")
_CLIENT_FILE = re.compile(r"^[a-z0-9][A-Za-z0-9_.-]*\.(?:js|css|wasm|html)$")
# the client compiles wasm and a generated GLSL parser; it has no business with other hosts
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-eval' blob:; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self' blob: data:; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)


def viewer_app(
    store: Store,
    served: Callable[[], frozenset[str]],
    *,
    hosts: list[str],
    link: Callable[[Sequence[str]], str],
    page: Callable[[], tuple[bytes, str]] | None = None,
    stopped: asyncio.Event,
) -> Starlette:
    """The whole site.

    Parameters
    ----------
    served
        Keys of the volumes that may be read.
    hosts
        Values of the Host header that are answered: a page elsewhere must not read the volumes by
        giving its own name this address.
    link
        The address that shows some volumes; all where none is named.
    page
        What ``/`` shows, and its Content-Security-Policy; without one it leads to all volumes.
    stopped
        Set when the server is about to stop; open event streams end then.
    """

    def home(request: Request) -> Response:
        if page is None:
            return RedirectResponse(link(()), 302)
        try:
            shown, policy = page()
        except MacroscopeError:
            return Response("The store does not answer.\n", 502, media_type="text/plain")
        headers = {"Content-Security-Policy": policy, **_plain_headers()}
        return Response(shown, media_type="text/html", headers=headers)

    def chosen(request: Request) -> Response:
        """Lead to the volumes that were chosen on the page."""
        try:
            return RedirectResponse(link(request.query_params.getlist("volume")), 302)
        except NotFoundError:
            return Response("No such volume is served here.\n", 404, media_type="text/plain")
        except UnsupportedFormatError as error:
            return Response(f"{error}\n", 415, media_type="text/plain")
        except MacroscopeError as error:
            return Response(f"{error.message}\n", 502, media_type="text/plain")

    def preview(request: Request) -> Response:
        """A volume's picture, which lies beside it."""
        key = request.path_params["key"]
        if key not in {preview_key(volume) for volume in served()}:
            return Response("No such picture is served here.\n", 404, media_type="text/plain")
        try:
            return Response(store.get(key), media_type="image/png", headers=_plain_headers())
        except MacroscopeError:
            return Response("There is no such picture.\n", 404, media_type="text/plain")

    def client(request: Request) -> Response:
        return _client_file(request.path_params.get("name") or "index.html")

    def volume(request: Request) -> Response:
        key = request.path_params["key"]
        if not _inside(key, served()):
            return Response("No such volume is served here.\n", 404, media_type="text/plain")
        try:
            return _object(store, key, request)
        except NotFoundError:
            return Response("There is no such object.\n", 404, media_type="text/plain")
        except DestinationError:  # its text would tell where the store lies
            return Response("This cannot be read.\n", 403, media_type="text/plain")
        except MacroscopeError:
            return Response("The store does not answer.\n", 502, media_type="text/plain")

    async def events(request: Request) -> Response:
        """What the client waits for before it hides its "connecting" note; nothing ever comes."""

        async def silence() -> AsyncIterator[bytes]:
            yield b": connected\n\n"
            await stopped.wait()

        return StreamingResponse(silence(), media_type="text/event-stream")

    return Starlette(
        routes=[
            Route("/", home),
            Route("/open", chosen),
            Route("/preview/{key:path}", preview),
            Route("/favicon.ico", lambda request: Response(status_code=204)),
            Route("/v/{token}/", client),
            Route("/v/{token}/{name}", client),
            Route("/events/{token}", events),
            Route("/store/{key:path}", volume),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)],
    )


def _inside(key: str, volume_keys: frozenset[str]) -> bool:
    parts = key.split("/")
    if any(part.startswith(".") or not part for part in parts):
        return False
    return any("/".join(parts[:n]) in volume_keys for n in range(1, len(parts)))


def _client_file(name: str) -> Response:
    """A file of the client that comes inside the ``neuroglancer`` package."""
    found = resources.files("neuroglancer") / "static" / "client" / name
    if not _CLIENT_FILE.match(name) or not found.is_file():
        return Response("There is no such file.\n", 404, media_type="text/plain")
    kind = "application/wasm" if name.endswith(".wasm") else mimetypes.guess_type(name)[0]
    return Response(
        found.read_bytes(),
        media_type=kind or "application/octet-stream",
        headers={"Content-Security-Policy": _POLICY, **_plain_headers()},
    )


def _object(store: Store, key: str, request: Request) -> Response:
    """One object, or the one range of it that was asked for (RFC 9110, section 14)."""
    size = store.size(key)
    if size is None:
        raise NotFoundError("there is no such object", location=key)
    headers = {"Accept-Ranges": "bytes", **_plain_headers()}
    kind = "application/json" if key.endswith(".json") else "application/octet-stream"
    start, stop, status = 0, size, 200
    span = _RANGE.match(request.headers.get("range", ""))
    if span is not None and any(span.groups()):
        start, stop = _span(span[1], span[2], size)
        if start >= stop:
            headers["Content-Range"] = f"bytes */{size}"
            return Response(status_code=416, headers=headers)
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        status = 206
    headers["Content-Length"] = str(stop - start)
    if request.method == "HEAD":
        return Response(None, status, headers, kind)
    if stop - start <= _BLOCK:
        return Response(store.get_range(key, start, stop - start), status, headers, kind)
    return StreamingResponse(_blocks(store, key, start, stop), status, headers, kind)


def _span(first: str, last: str, size: int) -> tuple[int, int]:
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size


def _blocks(store: Store, key: str, start: int, stop: int) -> Iterator[bytes]:
    for at in range(start, stop, _BLOCK):
        yield store.get_range(key, at, min(_BLOCK, stop - at))


def _plain_headers() -> dict[str, str]:
    return {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
