"""The web side of the viewer: Neuroglancer's client and its state, and the volumes, read-only.

Only objects of the volumes that were named are served. Their keys pass the store's own checks, so
that neither ``..`` nor a symbolic link leads outside, and parts that begin with a dot (unfinished
volumes, locks) are refused.

Neuroglancer's JSON state, version 2.41: coordinates in units of the global dimensions, cross
section scale in finest voxels for each screen pixel.
"""

from __future__ import annotations

import asyncio
import json
import mimetypes
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from importlib import resources
from itertools import takewhile
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from lib.errors import DestinationError, MacroscopeError, NotFoundError, UnsupportedFormatError
from lib.geometry import LengthsZYX
from lib.present.described import DescribedVolume
from lib.present.preview import preview_key
from lib.storage.base import Store

MOST_OVERLAYS = 4
"""Labels that are drawn at first; of a crop of forty classes the others are a click away."""
MOST_PANELS = 4
"""Images beside each other; with more, they share one panel and are switched by their names."""

_PANEL_PIXELS = 360.0  # about the smaller side of one of four panes on a laptop
# Neuroglancer has no int64; ids of uint64 are exact in it, above 2^53, too. Labels of int64 without
# a negative id are the same bytes as of uint64, and are shown as such.
UNSIGNED = "unsigned"
_DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32"]
_SHADER = "#uicontrol invlerp normalized\nvoid main() {\n  emitGrayscale(normalized());\n}\n"


def check_viewable(volume: DescribedVolume, smallest: int | None = None) -> None:
    """Refuse what Neuroglancer cannot show.

    Parameters
    ----------
    smallest
        Of the ids of labels, where the record says it.

    Raises
    ------
    UnsupportedFormatError
        A ``.npy``, or a dtype that a graphics card does not take.
    """
    if not volume.levels:
        raise UnsupportedFormatError(
            "a .npy has no chunks and no levels, so the viewer cannot show it",
            location=volume.key,
            advice="Look at its preview, or make it again with output_format zarr",
        )
    if is_unsigned_inside(volume, smallest):
        return
    if volume.dtype.name not in _DTYPES:
        raise UnsupportedFormatError(
            f"the viewer cannot show {volume.dtype.name}",
            location=volume.key,
            advice=f"It shows {', '.join(_DTYPES)}; the preview shows any",
        )


def is_unsigned_inside(volume: DescribedVolume, smallest: int | None) -> bool:
    """Whether labels of int64 have ids that are the same in uint64."""
    signed = volume.kind == "labels" and volume.dtype.name == "int64"
    return signed and smallest is not None and smallest >= 0


def viewer_state(volumes: Sequence[DescribedVolume], sources: Sequence[str]) -> dict[str, Any]:
    """The state that shows some volumes at the right scale, units and contrast.

    Labels lie over the image that they belong to: that of the same folder whose name begins like
    theirs. Several images stand beside each other, each centred.

    Parameters
    ----------
    sources
        The address of each volume's OME-Zarr.
    """
    names = _names(volumes)
    images = [i for i, volume in enumerate(volumes) if volume.kind == "image"]
    split = 1 < len(images) <= MOST_PANELS
    groups = _groups(volumes, images) if split else [list(range(len(volumes)))]
    layers = [
        _layer(volume, name, source, over=bool(images))
        for volume, name, source in zip(volumes, names, sources, strict=True)
    ]
    if not split:
        for hidden in images[1:]:
            layers[hidden]["visible"] = False
    labels = [i for i, volume in enumerate(volumes) if volume.kind == "labels"]
    for hidden in labels[MOST_OVERLAYS:]:
        layers[hidden]["visible"] = False
    # images first: what comes later is drawn on top
    order = sorted(range(len(volumes)), key=lambda i: volumes[i].kind == "labels")
    first = volumes[groups[0][0]]
    voxel = first.levels[0].scale_nm_zyx
    state: dict[str, Any] = {
        "dimensions": {a: [v / 1e9, "m"] for a, v in zip("xyz", reversed(voxel), strict=True)},
        **_camera(first, voxel),
        "layers": [layers[i] for i in order],
        "showScaleBar": True,
        "showDefaultAnnotations": True,
        "showAxisLines": False,
        "crossSectionBackgroundColor": "#14181e",
        "layout": "4panel-alt",
    }
    if split:
        state["layout"] = {
            "type": "row",
            "children": [
                {
                    "type": "viewer",
                    "layout": "4panel-alt",
                    "layers": [names[i] for i in order if i in group],
                    **{
                        key: {"link": "unlinked", "value": value}
                        for key, value in _camera(volumes[group[0]], voxel, half=True).items()
                    },
                }
                for group in groups
            ],
        }
    return state


def fragment(state: dict[str, Any]) -> str:
    """The part of a link after ``#``."""
    return "!" + quote(json.dumps(state, separators=(",", ":")), safe="~@$()*!+=:;,.?/'")


def _names(volumes: Sequence[DescribedVolume]) -> list[str]:
    """Short names, told apart by their folder where two are alike."""
    short = [volume.name for volume in volumes]
    return [
        name if short.count(name) == 1 else volume.key.removesuffix(".ome.zarr")
        for name, volume in zip(short, volumes, strict=True)
    ]


def _groups(volumes: Sequence[DescribedVolume], images: list[int]) -> list[list[int]]:
    groups = {i: [i] for i in images}
    for i, volume in enumerate(volumes):
        if volume.kind == "labels":
            like = max(images, key=lambda k: _alike(volumes[k].key, volume.key))
            groups[like].append(i)
    return list(groups.values())


def _alike(a: str, b: str) -> int:
    """How many letters two names have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def _layer(volume: DescribedVolume, name: str, source: str, *, over: bool) -> dict[str, Any]:
    layer: dict[str, Any] = {"name": name, "source": f"{source}/|zarr3:"}
    if volume.kind == "labels":
        return layer | {"type": "segmentation", "selectedAlpha": 0.3 if over else 0.7}
    low, high = volume.window or (0.0, 255.0)
    margin = (high - low) / 4
    span, window = [low, high], [low - margin, high + margin]
    if volume.dtype.kind in "iu":
        span, window = [round(low), max(round(high), round(low) + 1)], [round(v) for v in window]
    return layer | {
        "type": "image",
        "opacity": 1,
        "shader": _SHADER,
        "shaderControls": {"normalized": {"range": span, "window": window}},
    }


def _camera(
    volume: DescribedVolume, unit_nm_zyx: LengthsZYX, *, half: bool = False
) -> dict[str, Any]:
    """Where to look, and how much of it fits in a pane."""
    level = volume.levels[0]
    extent = [n * s for n, s in zip(level.grid.shape_zyx, level.scale_nm_zyx, strict=True)]
    # the centre of the middle voxel; the translation is the centre of the first one
    middle = [
        (t + n // 2 * s) / u
        for t, n, s, u in zip(
            level.translation_nm_zyx,
            level.grid.shape_zyx,
            level.scale_nm_zyx,
            unit_nm_zyx,
            strict=True,
        )
    ]
    longest = max(extent) / min(unit_nm_zyx)
    return {
        "position": middle[::-1],
        "crossSectionScale": longest / _PANEL_PIXELS * (1.2 if half else 1),
        "projectionScale": longest * 1.5,
    }


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

    def unsigned(request: Request) -> Response:
        """The same volume, its voxels called unsigned."""
        return volume(request, documents=_called_unsigned)

    def volume(request: Request, documents: Callable[[bytes], bytes] | None = None) -> Response:
        key = request.path_params["key"]
        if not _inside(key, served()):
            return Response("No such volume is served here.\n", 404, media_type="text/plain")
        try:
            if documents is not None and key.endswith("/zarr.json"):
                said = documents(store.get(key))
                return Response(said, media_type="application/json", headers=_plain_headers())
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
            Route(f"/{UNSIGNED}/{{key:path}}", unsigned),
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


def _called_unsigned(document: bytes) -> bytes:
    """A document of a volume with uint64 where it says int64: itself, and copies of its levels."""
    said = json.loads(document)
    levels = (said.get("consolidated_metadata") or {}).get("metadata", {})
    for array in (said, *levels.values()):
        if array.get("data_type") == "int64":
            array["data_type"] = "uint64"
    return json.dumps(said).encode()


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
