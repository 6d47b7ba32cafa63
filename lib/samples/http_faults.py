"""The layer in front of every HTTP stand-in: counters, latency, and faults by rule."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lib.samples.control import Control, control_app
from lib.samples.faults import Rule
from lib.samples.http_words import HTML_PAGE, refusal
from lib.samples.latency import Latency, Pace
from lib.samples.sockets import will_reset

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


class Ended(Exception):
    """The connection was cut on purpose; unwinds the application."""


def reset(scope: Scope) -> None:
    """End the connection with an RST."""
    transport = scope["state"]["transport"]
    raw = transport.get_extra_info("socket")
    if raw is not None and not transport.is_closing():
        will_reset(raw)
    transport.abort()


async def answer(
    send: Send, status: int, body: bytes, headers: dict[str, str], *, head: bool = False
) -> None:
    """One whole answer; a HEAD gets the headers only."""
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": b"" if head else body})


async def quiet(scope: Scope, seconds: float) -> None:
    """Say nothing for a time, or until the client has had enough."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not scope["state"]["transport"].is_closing():
        await asyncio.sleep(0.02)


class FaultyService:
    """An application with its service's counters, latency and faults."""

    def __init__(self, service: str, app: ASGIApp, control: Control) -> None:
        self.service = service
        self._app = app
        self._control = control
        self._control_app = control_app(control)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
            sender = self._slowed(send, latency)
            try:
                if rule is None:
                    await self._app(scope, receive, sender)
                else:
                    await self._faulty(rule, scope, receive, sender)
            except Ended:
                return

    def _slowed(self, send: Send, latency: Latency) -> Send:
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
            await self._app(scope, receive, _Tamper(rule, scope, send))
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
        text = re.sub(
            r"<Contents>.*?</Contents>",
            lambda found: "" if re.search(rule.match + r"</Key>", found[0]) else found[0],
            body.decode(),
            flags=re.DOTALL,
        )
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


class _Tamper:
    """A `send` that lets the first part of a body pass and then goes wrong."""

    def __init__(self, rule: Rule, scope: Scope, send: Send) -> None:
        self._rule = rule
        self._scope = scope
        self._send = send
        self._seen = 0
        self._at = 0
        self._stalled = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            length = int(MutableHeaders(raw=message["headers"]).get("content-length", 0))
            self._at = self._rule.cut_at(length)
            await self._send(message)
            return
        body = bytes(message.get("body", b""))
        start, self._seen = self._seen, self._seen + len(body)
        if self._rule.kind == "wrong_bytes":
            await self._send({**message, "body": self._inverted(body, start)})
        elif self._stalled or (self._seen < self._at and message.get("more_body", False)):
            await self._send(message)
        else:
            await self._cut(message, body, max(0, self._at - start))

    async def _cut(self, message: Message, body: bytes, keep: int) -> None:
        await self._send({**message, "body": body[:keep], "more_body": True})
        transport = self._scope["state"]["transport"]
        if self._rule.kind == "stall":
            self._stalled = True
            await quiet(self._scope, self._rule.seconds)
            await self._send({**message, "body": body[keep:]})
            return
        if self._rule.kind == "reset":
            # What is still in the send buffer would be thrown away by the RST.
            while transport.get_write_buffer_size() and not transport.is_closing():
                await asyncio.sleep(0.005)
            reset(self._scope)
        else:
            transport.close()
        raise Ended

    def _inverted(self, body: bytes, start: int) -> bytes:
        first = max(self._at, start)
        last = min(self._at + self._rule.count, start + len(body))
        if first >= last:
            return body
        changed = bytearray(body)
        for index in range(first - start, last - start):
            changed[index] ^= 0xFF
        return bytes(changed)


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
