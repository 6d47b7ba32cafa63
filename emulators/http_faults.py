"""The layer in front of every HTTP stand-in: counters, latency, and faults by rule."""

from __future__ import annotations

import asyncio
import hashlib
import html
import json
import re
from email.utils import formatdate, parsedate_to_datetime
from typing import Any
from urllib.parse import unquote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emulators.control import Control, control_app
from emulators.counters import Counters, Flight
from emulators.faults import Rule
from emulators.http_tamper import Ended, Tamper, quiet, reset
from emulators.http_words import HTML_PAGE, refusal, s3_document
from emulators.latency import Latency, Pace
from emulators.sockets import peer_gone

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
        others = counters.tally(self.service).open
        rule = self._control.faults.fire(self.service, method, target, others)
        scope["state"]["fault"] = rule
        latency = self._control.latency(self.service)
        if rule is not None or latency.bytes_per_second:
            scope["state"]["sendfile"] = None
        transport = scope["state"]["transport"]
        fileno = transport.get_extra_info("socket").fileno
        flight = counters.begin(self.service, lambda: peer_gone(fileno()))
        sender = _Counted(self.service, counters, flight, latency, send, head=method == "HEAD")
        try:
            if rule is None:
                await self._app(scope, receive, sender)
            else:
                await self._faulty(rule, scope, receive, sender)
        except Ended:
            return
        finally:
            flight.end()

    async def _faulty(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        kind = rule.kind
        if kind.startswith("status_"):
            await self._refuse(int(kind[-3:]), rule, scope, send)
        elif kind == "s3_error":
            headers = {"content-type": "application/xml"}
            if rule.region:
                headers["x-amz-bucket-region"] = rule.region
            body = s3_document(rule.code, rule.message, scope["path"]) if rule.code else b""
            await answer(send, rule.status, body, headers, head=scope["method"] == "HEAD")
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
        elif kind in ("changed_etag", "changed_file", "other_node", "weak_etag", "kms"):
            await self._changed(rule, scope, receive, send)
        elif rule.before and kind in ("reset", "stall"):
            if kind == "reset":
                reset(scope)
                return
            in_force = self._control.faults.rules
            await quiet(scope, rule.seconds, lambda: rule in in_force())
            if scope["state"]["transport"].is_closing():
                raise Ended
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
        """The file is described in another way, and conditions on its old ETag fail."""
        headers = Headers(scope=scope)
        if "if-match" in headers:
            await self._refuse(412, rule, scope, send)
            return
        if "if-range" in headers:
            without = [(k, v) for k, v in scope["headers"] if k not in (b"range", b"if-range")]
            scope = {**scope, "headers": without}

        async def sender(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 300:
                described_anew(rule.kind, MutableHeaders(raw=message["headers"]))
            await send(message)

        await self._app(scope, receive, sender)


class _Counted:
    """A `send` that counts bytes, keeps to a latency, and ends the flight with the last byte."""

    def __init__(
        self,
        service: str,
        counters: Counters,
        flight: Flight,
        latency: Latency,
        send: Send,
        *,
        head: bool,
    ) -> None:
        self._service = service
        self._counters = counters
        self._flight = flight
        self._first_byte_s = latency.first_byte_s
        self._pace = Pace(latency.bytes_per_second)
        self._send = send
        self._head = head
        self._left = -1  # bytes to come, where the length is known

    async def __call__(self, message: Message) -> None:
        """Send one message, in pieces where the bandwidth is limited."""
        if message["type"] == "http.response.start":
            if self._first_byte_s:
                await asyncio.sleep(self._first_byte_s)
            length = Headers(raw=message["headers"]).get("content-length")
            self._left = 0 if self._head else int(length) if length else -1
            self._end_if(self._left == 0)
            await self._send(message)
            return
        body = message.get("body", b"")
        more = message.get("more_body", False)
        self._count(message.get("passed_by", 0))
        step = self._pace.piece or max(len(body), 1)
        for start in range(0, max(len(body), 1), step):
            piece = body[start : start + step]
            to_come = more or start + step < len(body)
            self._count(len(piece))
            self._end_if(self._left == 0 or not to_come)
            await self._send({**message, "body": piece, "more_body": to_come})
            if wait := self._pace.sent(len(piece)):
                await asyncio.sleep(wait)

    def _count(self, count: int) -> None:
        if not self._head:
            self._left -= count
            self._counters.add_bytes(self._service, count)

    def _end_if(self, last: bool) -> None:
        # Before the bytes leave: a client that has them may already make its next request.
        if last:
            self._flight.end()


def described_anew(kind: str, headers: MutableHeaders) -> None:
    """Change what an answer says of its file's version."""
    if kind == "weak_etag":
        headers["etag"] = f'W/"{headers["etag"].strip(chr(34))}-gzip"'
        return
    if kind == "kms":
        headers["x-amz-server-side-encryption"] = "aws:kms"
        headers["etag"] = f'"{hashlib.md5(b"kms", usedforsecurity=False).hexdigest()}"'
        return
    headers["etag"] = '"of-another-node"' if kind == "other_node" else '"changed-since"'
    later = {"other_node": 1, "changed_file": 86400}.get(kind, 0)
    if later and "last-modified" in headers:
        moment = parsedate_to_datetime(headers["last-modified"]).timestamp() + later
        headers["last-modified"] = formatdate(moment, usegmt=True)


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
