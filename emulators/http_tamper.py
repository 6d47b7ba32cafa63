"""Answers that begin well and then go wrong: resets, stalls, cuts, wrong bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import Message, Scope, Send

from emulators.faults import Rule
from emulators.sockets import will_reset


class Ended(Exception):
    """The connection was cut on purpose; unwinds the application."""


def reset(scope: Scope) -> None:
    """End the connection with an RST."""
    transport = scope["state"]["transport"]
    raw = transport.get_extra_info("socket")
    if raw is not None and not transport.is_closing():
        will_reset(raw)
    transport.abort()


async def quiet(scope: Scope, seconds: float, in_force: Callable[[], bool] = lambda: True) -> None:
    """Say nothing for a time, as long as that is in force, or until the client has had enough."""
    end = time.monotonic() + seconds
    closing = scope["state"]["transport"].is_closing
    while time.monotonic() < end and in_force() and not closing():
        await asyncio.sleep(0.02)


class Tamper:
    """A `send` that lets the first part of a body pass and then goes wrong."""

    def __init__(self, rule: Rule, scope: Scope, send: Send) -> None:
        self._rule = rule
        self._scope = scope
        self._send = send
        self._seen = 0
        self._at = 0
        self._stalled = False

    async def __call__(self, message: Message) -> None:
        """Send one message, as far as it gets."""
        if message["type"] == "http.response.start":
            length = int(Headers(raw=message["headers"]).get("content-length", 0))
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
            if transport.is_closing():
                raise Ended
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
