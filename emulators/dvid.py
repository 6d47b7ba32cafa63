"""FlyEM's DVID in small: the hemibrain grayscale at its true extents, voxels by formula."""

from __future__ import annotations

import asyncio
import io
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import (
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.types import Receive, Scope, Send

from emulators.control import Control
from emulators.documents import DVID_INSTANCE, DVID_UUID, dvid_info
from emulators.dvid_labels import (
    LABELS_INSTANCE,
    LABELS_UUID,
    MAX_SCALE,
    dvid_labels,
    labels_info,
    labels_repo,
    stream,
)
from emulators.dvid_requests import (
    BLOCK,
    EXTENT_ZYX,
    BadRequest,
    Crop,
    blocks_of_box,
    blocks_of_list,
    crop,
    is_stored,
    numbers,
)
from emulators.http_words import Refusal, refusal

Voxels = NDArray[np.uint8]
VoxelSource = Callable[[tuple[int, int, int], tuple[int, int, int]], Voxels]

_SLAB_BYTES = 16 << 20
_OCTETS = "application/octet-stream"
_HELP = "GET <api URL>/node/<UUID>/<data name>/raw/<dims>/<size>/<offset>[/<format>]\n"
_LATE = b"Unable to read blocks: context deadline exceeded\n"


class Busy(Exception):
    """Ends as status 503."""


class DvidApp:
    """ASGI application with the calls of section ``/api`` that grayscale data has.

    Parameters
    ----------
    control
        For the number of throttled operations, and faults inside answers.
    voxels
        Gives the voxels of any box, origin and shape in z, y, x; 0 outside the extents.
    """

    def __init__(self, control: Control, voxels: VoxelSource) -> None:
        self._control = control
        self._voxels = voxels
        self._throttled = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, holding a place among the throttled while it lasts."""
        request = Request(scope, receive)
        path = scope["path"]
        try:
            with self._throttle(request.query_params.get("throttle")):
                answer = await self._answer(request, path.strip("/").split("/"))
                await answer(scope, receive, send)
        except BadRequest as error:
            await PlainTextResponse(f"{error} ({path}).\n", 400)(scope, receive, send)
        except Busy as error:
            await PlainTextResponse(f"{error}\n", 503)(scope, receive, send)

    @contextmanager
    def _throttle(self, asked: str | None) -> Any:
        """Hold a place among the throttled operations, for requests that asked to be polite."""
        if asked not in ("true", "on", "1"):
            yield
            return
        most = self._control.settings.dvid_max_throttled
        if self._throttled >= most:
            running = self._throttled
            raise Busy(f"Server already running {running} throttled operations (max = {most})")
        self._throttled += 1
        try:
            yield
        finally:
            self._throttled -= 1

    async def _answer(self, request: Request, parts: list[str]) -> Response:
        if request.method not in ("GET", "HEAD"):
            raise BadRequest("Server is in read-only mode and cannot accept this request")
        if parts == ["api", "help"]:
            return PlainTextResponse("DVID stand-in\n" + _HELP)
        if parts == ["api", "server", "info"]:
            return JSONResponse({"DVID Version": "0.8.20", "Server uptime": "1h", "Cores": "2"})
        if parts == ["api", "repos", "info"]:
            return JSONResponse({DVID_UUID: _repo_info(), LABELS_UUID: labels_repo()})
        if parts[:2] == ["api", "repo"] and len(parts) in (3, 4):
            labels = _is_labels(parts[2])
            if len(parts) == 3 and request.method == "HEAD":
                return Response()
            if parts[3:] == ["info"]:
                return JSONResponse(labels_repo() if labels else _repo_info())
        if parts[:2] == ["api", "node"] and len(parts) >= 5:
            if _is_labels(parts[2]):
                if parts[3] != LABELS_INSTANCE:
                    raise BadRequest(f"invalid data name {parts[3]!r}: no such data instance")
                return await self._labels(request, parts[4], parts[5:])
            if parts[3] != DVID_INSTANCE:
                raise BadRequest(f"invalid data name {parts[3]!r}: no such data instance")
            return await self._data(request, parts[4], parts[5:])
        return _plain(refusal("dvid", 404, request.scope["path"]), 404)

    async def _data(self, request: Request, word: str, rest: list[str]) -> Response:
        query = request.query_params
        if word == "info":
            return JSONResponse(dvid_info())
        if word == "help":
            return PlainTextResponse(_HELP)
        if word == "metadata":
            return JSONResponse(_nd_data(), media_type="application/vnd.dvid-nd-data+json")
        if word in ("raw", "isotropic"):
            return await self._raw(request, crop(rest), rest[3] if len(rest) > 3 else "")
        if word == "subvolblocks":
            if len(rest) < 2:
                raise BadRequest("subvolblocks requires size and offset")
            blocks = blocks_of_box(rest[0], rest[1])
            return self._block_stream(request, blocks, query.get("compression", ""))
        if word == "specificblocks":
            blocks = blocks_of_list(query.get("blocks", ""))
            return self._block_stream(request, blocks, query.get("compression", ""))
        if word == "blocks":
            return await self._span(rest)
        name = f"{request.method} {request.scope['path']}"
        raise BadRequest(f"Bad API call ({name}) for data {DVID_INSTANCE!r}")

    # --- labels

    async def _labels(self, request: Request, word: str, rest: list[str]) -> Response:
        query = request.query_params
        if word == "info":
            return JSONResponse(labels_info())
        if word == "maxlabel":
            return JSONResponse({"maxlabel": labels_info()["Extended"]["MaxRepoLabel"]})
        scale = int(query.get("scale") or 0)
        if scale > MAX_SCALE:
            raise BadRequest(f"bad scale {scale}, max is {MAX_SCALE}")
        how = {"scale": scale, "supervoxels": query.get("supervoxels") in ("true", "on", "1")}
        voxels = partial(dvid_labels, **how)  # type: ignore[arg-type]
        if word == "raw":
            box = crop(rest)
            data = await asyncio.to_thread(voxels, box.origin_zyx, box.shape_zyx)
            return Response(data.tobytes(), media_type=_OCTETS)
        if word == "blocks" and len(rest) == 2:
            blocks, form = blocks_of_box(*rest), query.get("compression") or "lz4"
        elif word == "specificblocks":
            blocks, form = (
                blocks_of_list(query.get("blocks", "")),
                query.get("compression") or "blocks",
            )
        else:
            raise BadRequest(f"Bad API call ({word}) for data {LABELS_INSTANCE!r}")
        if form not in ("blocks", "lz4", "gzip", "uncompressed"):
            raise BadRequest(f"unknown compression type {form!r}")
        found = await asyncio.to_thread(list, stream(blocks, form, voxels))
        rule = request.state.fault
        if rule is not None and rule.kind == "late_error":
            found = [*found[: len(found) // 2], _LATE]
        return StreamingResponse(iter(found), media_type=_OCTETS)

    # --- voxels

    async def _raw(self, request: Request, box: Crop, form: str) -> Response:
        failed = _failed_block(request, box)
        if box.plane_dims_xyz is None and not form.startswith(("jpg", "jpeg")):
            return StreamingResponse(
                self._slabs(box, failed),
                media_type=_OCTETS,
                headers={"content-length": str(box.count)},
            )
        voxels = await asyncio.to_thread(self._box, box, failed)
        if box.plane_dims_xyz is None:
            depth, height, width = box.shape_zyx
            return _image(voxels.reshape(depth * height, width), form)
        missing = 2 - ({0, 1, 2} - set(box.plane_dims_xyz)).pop()
        return _image(np.squeeze(voxels, missing), form or "png")

    async def _slabs(self, box: Crop, failed: Crop | None) -> AsyncIterator[bytes]:
        depth, height, width = box.shape_zyx
        z0, y0, x0 = box.origin_zyx
        thick = max(1, _SLAB_BYTES // (height * width))
        for z in range(0, depth, thick):
            slab = Crop((z0 + z, y0, x0), (min(thick, depth - z), height, width))
            voxels = await asyncio.to_thread(self._box, slab, failed)
            data = voxels.tobytes()
            for start in range(0, len(data), 1 << 20):
                yield data[start : start + (1 << 20)]

    def _box(self, box: Crop, failed: Crop | None = None) -> Voxels:
        """Voxels of a box anywhere; 0 in a block that fails."""
        out = self._voxels(box.origin_zyx, box.shape_zyx)
        dark = _overlap(box, failed) if failed is not None else None
        if dark is not None:
            out[_within(dark, box)] = 0
        return out

    # --- blocks

    def _block_stream(
        self, request: Request, blocks: list[tuple[int, int, int]], compression: str
    ) -> Response:
        if compression == "jpeg":
            raise BadRequest("can't encode JPEG: expected internal block data to be JPEG")
        if compression not in ("", "uncompressed"):
            raise BadRequest(f"unknown compression type {compression!r}")
        stored = [block for block in blocks if is_stored(block)]
        rule = request.state.fault
        late = rule is not None and rule.kind == "late_error"

        async def stream() -> AsyncIterator[bytes]:
            sent = stored[: len(stored) // 2] if late else stored
            for block in sent:
                data = await asyncio.to_thread(self._block, block)
                if not compression:
                    data = _as_stored(data)
                yield struct.pack("<4i", *block, len(data)) + data
            if late:
                yield _LATE

        return StreamingResponse(stream(), media_type=_OCTETS)

    async def _span(self, rest: list[str]) -> Response:
        if len(rest) < 2 or not rest[1].isdecimal():
            raise BadRequest("blocks requires a block coordinate and a span")
        x, y, z = numbers(rest[0], 3, "block coordinate")
        data = [await asyncio.to_thread(self._block, (x + i, y, z)) for i in range(int(rest[1]))]
        return Response(b"".join(data), media_type=_OCTETS)

    def _block(self, block_xyz: tuple[int, int, int]) -> bytes:
        x, y, z = (value * BLOCK for value in block_xyz)
        return self._box(Crop((z, y, x), (BLOCK, BLOCK, BLOCK))).tobytes()


def _overlap(a: Crop, b: Crop) -> Crop | None:
    pairs = list(zip(a.origin_zyx, a.shape_zyx, b.origin_zyx, b.shape_zyx, strict=True))
    low = [max(p, q) for p, _, q, _ in pairs]
    high = [min(p + n, q + m) for p, n, q, m in pairs]
    if any(h <= w for w, h in zip(low, high, strict=True)):
        return None
    depth, height, width = (h - w for w, h in zip(low, high, strict=True))
    return Crop((low[0], low[1], low[2]), (depth, height, width))


def _within(part: Crop, box: Crop) -> tuple[slice, ...]:
    return tuple(
        slice(p - o, p - o + n)
        for p, o, n in zip(part.origin_zyx, box.origin_zyx, part.shape_zyx, strict=True)
    )


def _failed_block(request: Request, box: Crop) -> Crop | None:
    """The stored block at the middle of a crop, where the rule says that one fails to decode."""
    rule = request.state.fault
    if rule is None or rule.kind != "background":
        return None
    z, y, x = (
        (o + n // 2) // BLOCK * BLOCK for o, n in zip(box.origin_zyx, box.shape_zyx, strict=True)
    )
    return Crop((z, y, x), (BLOCK, BLOCK, BLOCK))


def _as_stored(data: bytes) -> bytes:
    """A block as the LZ4 store holds it: u32 original size, little-endian, then a raw block."""
    from numcodecs.lz4 import compress

    return bytes(compress(data))


def _image(pixels: Voxels, form: str) -> Response:
    from PIL import Image

    name, _, quality = form.partition(":")
    kind: Literal["PNG", "JPEG"] = "PNG" if name == "png" else "JPEG"
    if name not in ("png", "jpg", "jpeg") or (quality and not quality.isdecimal()):
        raise BadRequest(f"Illegal image format {form!r}")
    out = io.BytesIO()
    options = {"quality": int(quality or 80)} if kind == "JPEG" else {}
    Image.fromarray(pixels).save(out, kind, **options)
    return Response(out.getvalue(), media_type=f"image/{kind.lower()}")


def _is_labels(text: str) -> bool:
    """Whether a version is the segmentation's; any prefix is enough, and a branch may follow."""
    prefix = text.partition(":")[0]
    fitting = [uuid for uuid in (DVID_UUID, LABELS_UUID) if prefix and uuid.startswith(prefix)]
    if len(fitting) != 1:
        raise BadRequest(f"could not find UUID with partial match to {text}!")
    return fitting == [LABELS_UUID]


def _repo_info() -> dict[str, Any]:
    return {
        "Root": DVID_UUID,
        "Alias": "hemibrain grayscale",
        "Description": "Stand-in with voxels by formula",
        "DataInstances": {DVID_INSTANCE: dvid_info()},
    }


def _nd_data() -> dict[str, Any]:
    labels = ("X", "Y", "Z")
    sizes = reversed(EXTENT_ZYX)
    axes = [
        {"Label": label, "Resolution": 8, "Units": "nanometers", "Size": size, "Offset": 0}
        for label, size in zip(labels, sizes, strict=True)
    ]
    return {"Axes": axes, "Values": dvid_info()["Extended"]["Values"]}


def _plain(words: Refusal, status: int) -> Response:
    return Response(words.body, status, media_type=words.media_type)
