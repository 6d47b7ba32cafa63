"""EMPIAR's entry API in small, as served at www.ebi.ac.uk/empiar/api, and what searches it."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, Router

from emulators.documents import empiar_entry
from emulators.ebi_search import search_routes

_NOT_FOUND = {"detail": "Not found."}
_RANGE = re.compile(r"(?:EMPIAR-)?(\d+)(?:-(?:EMPIAR-)?(\d+))?", re.IGNORECASE)
_LONGEST_RANGE = 1000


async def _entry(request: Request) -> Response:
    found = empiar_entry(request.path_params["accession"])
    return JSONResponse(found) if found else JSONResponse(_NOT_FOUND, 404)


async def _entries(request: Request) -> Response:
    """POST of comma-separated ids and ranges: those that exist, in one object."""
    text = (await request.body()).decode("utf-8", "replace").strip().strip('"')
    found = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        match = _RANGE.fullmatch(part)
        if match is None:
            return JSONResponse({"detail": f"Not an accession or range: {part}"}, 400)
        first = int(match[1])
        last = min(int(match[2] or first), first + _LONGEST_RANGE)
        for number in range(first, last + 1):
            found.update(empiar_entry(str(number)) or {})
    return JSONResponse(found) if found else JSONResponse(_NOT_FOUND, 404)


async def _documentation(request: Request) -> Response:
    return PlainTextResponse("EMPIAR API stand-in: GET /empiar/api/entry/{accession}/\n")


async def _missing(request: Request) -> Response:
    return JSONResponse(_NOT_FOUND, 404)


def empiar_app() -> Router:
    """``/empiar/api/entry/{accession}``, with or without the last slash, and POST of a list."""
    entry = "/empiar/api/entry"
    return Router(
        [
            Route(f"{entry}/", _entries, methods=["POST"]),
            Route(entry, _entries, methods=["POST"]),
            Route(f"{entry}/{{accession}}/", _entry),
            Route(f"{entry}/{{accession}}", _entry),
            Route("/empiar/api/documentation/", _documentation),
            *search_routes(),
            Route("/{path:path}", _missing),
        ],
        redirect_slashes=False,
    )
