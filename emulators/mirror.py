"""Files over HTTP as an Apache server gives them: index pages, HEAD, one Range, ETag.

Stands in for ftp.ebi.ac.uk (``/empiar/...``, ``/pub/databases/IDR/...``) and documents.epfl.ch.
"""

from __future__ import annotations

import html
import os
import stat
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from emulators.empiar_entries import HIDDEN
from emulators.http_words import apache_error

_MEDIA_TYPES = {".tif": "image/tiff", ".tiff": "image/tiff", ".gz": "application/x-gzip"}


class _MirroredFile(FileResponse):
    """A file by sendfile where nothing has to slow or spoil it, else in big blocks."""

    chunk_size = 1 << 20

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sendfile = scope["state"]["sendfile"]
        if sendfile is None or scope["method"] == "HEAD":
            await super().__call__(scope, receive, send)
            return
        begun: Message = {}

        async def starter(message: Message) -> None:
            # Headers pass; the body is sent past the application, once their range is known.
            if message["type"] == "http.response.start":
                begun.update(message)

        await super().__call__({**scope, "method": "HEAD"}, receive, starter)
        headers = Headers(raw=begun["headers"])
        count = int(headers["content-length"])
        if begun["status"] not in (200, 206) or count == 0:
            await super().__call__(scope, receive, send)
            return
        offset = int(headers.get("content-range", "bytes 0-").split()[1].split("-")[0])
        await send(begun)
        with Path(self.path).open("rb") as file:
            await sendfile(file, offset, count - 1)
            file.seek(offset + count - 1)
            last = file.read(1)
        # The last byte goes the usual way, so that the end is counted before it is seen.
        await send({"type": "http.response.body", "body": last, "passed_by": count - 1})


def mirror_app(folder: Path) -> Router:
    """Serve everything below `folder`."""
    root = folder.resolve()

    async def serve(request: Request) -> Response:
        url_path: str = request.scope["path"]
        path = _inside(root, url_path)
        if path is None:
            return HTMLResponse(apache_error(404, url_path), 404)
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            if not url_path.endswith("/"):
                return RedirectResponse(quote(url_path) + "/", 301)
            return HTMLResponse(index_page(path, url_path))
        etag = f'"{info.st_size:x}-{info.st_mtime_ns // 1000:x}"'
        if request.headers.get("if-match", etag) not in (etag, "*"):
            return HTMLResponse(apache_error(412, url_path), 412)
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers={"etag": etag})
        return _MirroredFile(
            path,
            headers={
                "etag": etag,
                "last-modified": formatdate(info.st_mtime, usegmt=True),
                "accept-ranges": "bytes",
                "server": "Apache",
            },
            media_type=_MEDIA_TYPES.get(path.suffix, "application/octet-stream"),
            stat_result=info,
        )

    return Router([Route("/{path:path}", serve, methods=["GET", "HEAD"])])


def _inside(root: Path, url_path: str) -> Path | None:
    """The file or folder that an address names, if it exists below `root`."""
    if "\0" in url_path:
        return None
    path = Path(os.path.normpath(root / url_path.lstrip("/")))
    if not path.is_relative_to(root) or not path.exists():
        return None
    return path


def index_page(folder: Path, url_path: str) -> str:
    """An Apache ``mod_autoindex`` page: four sort anchors, an absolute parent, relative names.

    Sizes are rounded as Apache rounds them (``29M``), so they are of no use for checking.
    """
    title = f"Index of {html.escape(url_path.rstrip('/') or '/')}"
    sorts = "".join(
        f'<th><a href="?C={column};O={order}">{name}</a></th>'
        for column, order, name in (
            ("N", "D", "Name"),
            ("M", "A", "Last modified"),
            ("S", "A", "Size"),
            ("D", "A", "Description"),
        )
    )
    rows = []
    if url_path != "/":
        parent = quote(url_path.rstrip("/").rpartition("/")[0] + "/")
        rows.append(_row("[PARENTDIR]", parent, "Parent Directory", "&nbsp;", "  - "))
    for entry in sorted(folder.iterdir(), key=lambda p: p.name):
        if url_path + entry.name in HIDDEN:
            continue
        info = entry.stat()
        is_folder = stat.S_ISDIR(info.st_mode)
        name = entry.name + ("/" if is_folder else "")
        when = datetime.fromtimestamp(info.st_mtime, UTC).strftime("%Y-%m-%d %H:%M")
        shown = name if len(name) <= 23 else name[:21] + ".."
        size = "  - " if is_folder else _rounded(info.st_size)
        rows.append(_row("[DIR]" if is_folder else "[   ]", quote(name), shown, when, size))
    return (
        '<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 3.2 Final//EN">\n'
        f"<html>\n <head>\n  <title>{title}</title>\n </head>\n <body>\n<h1>{title}</h1>\n"
        f'  <table>\n   <tr><th valign="top"></th>{sorts}</tr>\n'
        '   <tr><th colspan="5"><hr></th></tr>\n'
        + "".join(rows)
        + '   <tr><th colspan="5"><hr></th></tr>\n</table>\n</body></html>\n'
    )


def _row(alt: str, href: str, shown: str, when: str, size: str) -> str:
    return (
        f'<tr><td valign="top"><img src="/icons/unknown.gif" alt="{alt}"></td>'
        f'<td><a href="{html.escape(href)}">{html.escape(shown)}</a></td>'
        f'<td align="right">{when}  </td><td align="right">{size}</td><td>&nbsp;</td></tr>\n'
    )


def _rounded(size: int) -> str:
    """Apache's size column: 4 characters at most, one decimal below 10."""
    if size < 1000:
        return f"{size:3d} "
    value, power = size / 1024, 0
    while value >= 973:
        value, power = value / 1024, power + 1
    unit = "KMGTP"[power]
    return f"{value:3.1f}{unit}" if value < 9.95 else f"{value:3.0f}{unit}"
