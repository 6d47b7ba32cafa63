"""The layer in front of every HTTP stand-in: counters, latency, and faults by rule."""

from __future__ import annotations

import asyncio
import html
import json
import re
from typing import Any
from urllib.parse import unquote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lib.samples.control import Control, control_app
from lib.samples.faults import Rule
from lib.samples.http_tamper import Ended, Tamper, quiet, reset
from lib.samples.http_words import HTML_PAGE, refusal
from lib.samples.latency import Latency, Pace

_OPTIONAL_JSON_KEYS = (
    "citation",
    "corresponding_author",
    "principal_investigator",
    "release_date",
    "AcquisitionDate",
    "Description",
    "PhysicalSizeX",
    "PhysicalSizeY",
    "PhysicalSizeZ",
    "omero:sha1",
    "DataUUID",
    "KVStore",
    "omero",
    "name",
    "metadata",
)


async def answer(
    send: Send, status: int, body: bytes, headers: dict[str, str], *, head: bool = False
) -> None:
    """One whole answer; a HEAD gets the headers only."""
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": b"" if head else body})


class FaultyService:
    """An application with its service's counters, latency and faults."""

    def __init__(self, service: str, app: ASGIApp, control: Control) -> None:
        self.service = service
        self._app = app
        self._control = control
        self._control_app = control_app(control)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count a request, ask the rules, and answer rightly or wrongly."""
        if scope["type"] != "http":
            return
        if scope["path"].startswith("/_control/"):
            await self._control_app(scope, receive, send)
            return
        query = scope["query_string"].decode("latin-1")
        target = scope["path"] + (f"?{query}" if query else "")
        method = scope["method"]
        counters = self._control.counters
        counters.request(self.service, method, target, Headers(scope=scope).get("range"))
        rule = self._control.faults.fire(self.service, method, target)
        scope["state"]["fault"] = rule
        latency = self._control.latency(self.service)
        if rule is not None or latency.bytes_per_second:
            scope["state"]["sendfile"] = None
        with counters.in_flight(self.service):
            sender = self._slowed(send, latency, head=method == "HEAD")
            try:
                if rule is None:
                    await self._app(scope, receive, sender)
                else:
                    await self._faulty(rule, scope, receive, sender)
            except Ended:
                return

    def _slowed(self, send: Send, latency: Latency, *, head: bool) -> Send:
        """Count bytes, and keep to a latency."""
        counters = self._control.counters
        pace = Pace(latency.bytes_per_second)

        async def sender(message: Message) -> None:
            if message["type"] == "http.response.start":
                if latency.first_byte_s:
                    await asyncio.sleep(latency.first_byte_s)
                await send(message)
                return
            body = message.get("body", b"")
            if not head:
                counters.add_bytes(self.service, len(body) + message.get("passed_by", 0))
            if not pace.piece:
                await send(message)
                return
            more = message.get("more_body", False)
            for start in range(0, max(len(body), 1), pace.piece):
                piece = body[start : start + pace.piece]
                last = start + pace.piece >= len(body)
                await send({**message, "body": piece, "more_body": more or not last})
                await asyncio.sleep(pace.sent(len(piece)))

        return sender

    async def _faulty(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        kind = rule.kind
        if kind.startswith("status_"):
            await self._refuse(int(kind[-3:]), rule, scope, send)
        elif kind == "html_200":
            headers = {"content-type": "text/html; charset=utf-8"}
            await answer(send, 200, HTML_PAGE, headers, head=scope["method"] == "HEAD")
        elif kind == "redirect":
            await answer(send, 302, b"", {"location": rule.location})
        elif kind == "hide":
            await self._hide(rule, scope, receive, send)
        elif kind == "lost_reply":
            await self._app(scope, receive, _swallow)
            reset(scope)
        elif kind == "missing_json_keys":
            await self._without_keys(rule, scope, receive, send)
        elif kind == "ignore_range":
            without = [(k, v) for k, v in scope["headers"] if k not in (b"range", b"if-range")]
            await self._app({**scope, "headers": without}, receive, send)
        elif kind == "changed_etag":
            await self._changed(rule, scope, receive, send)
        elif rule.before and kind in ("reset", "stall"):
            if kind == "reset":
                reset(scope)
                return
            await quiet(scope, rule.seconds)
            await self._app(scope, receive, send)
        elif kind in ("reset", "stall", "short_body", "wrong_bytes"):
            await self._app(scope, receive, Tamper(rule, scope, send))
        else:  # the service itself knows what to do with it
            await self._app(scope, receive, send)

    async def _refuse(self, status: int, rule: Rule, scope: Scope, send: Send) -> None:
        body, media_type = refusal(self.service, status, scope["path"])
        headers = {"content-type": media_type}
        if rule.retry_after is not None:
            headers["retry-after"] = f"{rule.retry_after:g}"
        await answer(send, status, body, headers, head=scope["method"] == "HEAD")

    async def _hide(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        if b"list-type" not in scope["query_string"]:
            await self._refuse(404, rule, scope, send)
            return
        start, body = await _collected(self._app, scope, receive)
        hidden = [r for r in self._control.faults.rules() if r.kind == "hide"]
        bucket = scope["path"].strip("/")

        def kept(entry: re.Match[str]) -> str:
            key = unquote(re.search("<Key>(.*?)</Key>", entry[0])[1])  # type: ignore[index]
            target = f"/{bucket}/{html.unescape(key)}"
            return "" if any(re.search(r.match, target) for r in hidden) else entry[0]

        text = re.sub("<Contents>.*?</Contents>", kept, body.decode(), flags=re.DOTALL)
        await _resend(start, text.encode(), scope, send)

    async def _without_keys(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        start, body = await _collected(self._app, {**scope, "method": "GET"}, receive)
        try:
            content = json.loads(body)
        except ValueError:
            pass
        else:
            body = json.dumps(_dropped(content, rule.keys or _OPTIONAL_JSON_KEYS)).encode()
        await _resend(start, body, scope, send)

    async def _changed(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        """The file was replaced: its ETag is another, and conditions on the old one fail."""
        headers = Headers(scope=scope)
        if "if-match" in headers:
            await self._refuse(412, rule, scope, send)
            return
        if "if-range" in headers:
            without = [(k, v) for k, v in scope["headers"] if k not in (b"range", b"if-range")]
            scope = {**scope, "headers": without}

        async def sender(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 300:
                MutableHeaders(raw=message["headers"])["etag"] = '"changed-since"'
            await send(message)

        await self._app(scope, receive, sender)


async def _swallow(message: Message) -> None:
    """A reply that gets lost."""


async def _collected(app: ASGIApp, scope: Scope, receive: Receive) -> tuple[Message, bytes]:
    """Run an application and hold its whole answer."""
    start: Message = {}
    body = bytearray()

    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        else:
            body.extend(message.get("body", b""))

    await app(scope, receive, sender)
    return start, bytes(body)


async def _resend(start: Message, body: bytes, scope: Scope, send: Send) -> None:
    headers = MutableHeaders(raw=list(start["headers"]))
    headers["content-length"] = str(len(body))
    await send({**start, "headers": headers.raw})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _dropped(content: Any, keys: tuple[str, ...]) -> Any:
    """JSON without some keys, at any depth."""
    if isinstance(content, dict):
        return {k: _dropped(v, keys) for k, v in content.items() if k not in keys}
    if isinstance(content, list):
        return [_dropped(item, keys) for item in content]
    return content
