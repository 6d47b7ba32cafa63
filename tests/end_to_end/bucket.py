"""A bucket to bring volumes to, with a gate before it that counts, watches and refuses."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from emulators.control import Control
from emulators.http_side import HttpSide
from emulators.s3 import S3Server
from emulators.s3_proxy import S3Proxy
from lib.storage.base import StoreSettings
from lib.storage.s3 import S3Store

KEY, SECRET = "destination-key", "destination-secret-9f3b"
_SIGNER = re.compile(r"Credential=([^/]+)/")


@dataclass
class Refusal:
    """Requests of a method whose path and query match get an S3 error, after the first `spare`."""

    method: str
    match: str
    status: int
    code: str
    spare: int = 0
    refused: int = 0


@dataclass
class Gate:
    """Passes requests on, except those that a test wants refused."""

    app: ASGIApp
    refusals: list[Refusal] = field(default_factory=list)
    signers: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)

    def refuse(self, method: str, match: str, status: int, code: str, spare: int = 0) -> Refusal:
        self.refusals.append(Refusal(method, match, status, code, spare))
        return self.refusals[-1]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if found := _SIGNER.search(headers.get(b"authorization", "")):
            self.signers.add(found[1])
        if b"x-amz-security-token" in headers:
            self.tokens.add(headers[b"x-amz-security-token"])
        asked = f"{scope['path']}?{scope['query_string'].decode()}"
        for one in self.refusals:
            if scope["method"] == one.method and re.search(one.match, asked):
                if one.spare > 0:
                    one.spare -= 1
                    continue
                one.refused += 1
                while (await receive()).get("more_body"):
                    pass
                body = f"<?xml version='1.0'?><Error><Code>{one.code}</Code></Error>"
                answer = Response(body, one.status, media_type="application/xml")
                return await answer(scope, receive, send)
        return await self.app(scope, receive, send)


class Bucket:
    """A running S3 server with authentication; ``uri`` is a place in it for one test."""

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.control = Control()
        self.side = HttpSide(self.control)
        self.side.start()
        proxy = S3Proxy(server.endpoint_url)
        self.side.at_end(proxy.close)
        self.gate = Gate(proxy)
        self.endpoint_url = f"http://127.0.0.1:{self.side.add('destination', self.gate)}"
        self.uri = ""

    def settings(self, **changes: Any) -> StoreSettings:
        given = {"endpoint_url": self.endpoint_url, "key": KEY, "secret": SECRET, "attempts": 4}
        return StoreSettings(**{**given, **changes})

    def store(self, **changes: Any) -> S3Store:
        return S3Store(self.uri, self.settings(**changes))

    @property
    def prefix(self) -> str:
        return self.uri.removeprefix(f"s3://{self.server.bucket}/")

    def environment(self, **more: str) -> dict[str, str]:
        """Settings of a run that goes here."""
        return {
            "EM_DATA_DIR": self.uri,
            "EM_DEST_ENDPOINT_URL": self.endpoint_url,
            "EM_DEST_KEY": KEY,
            "EM_DEST_SECRET": SECRET,
            **more,
        }

    def asked(self) -> dict[str, int]:
        """What arrived since the last `forget`: by method, listings apart."""
        found: dict[str, int] = {}
        for line in self.control.counters.log("destination"):
            listing = line.method == "GET" and "list-type" in line.path
            kind = "LIST" if listing else line.method
            found[kind] = found.get(kind, 0) + 1
        return found

    def forget(self) -> None:
        self.control.counters.clear()

    def clear(self) -> None:
        """No faults, nothing counted."""
        self.control.clear()
        self.gate.refusals.clear()
        self.gate.signers.clear()
        self.gate.tokens.clear()
