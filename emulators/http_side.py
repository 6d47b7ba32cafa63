"""Several small HTTP servers on one event loop in one thread, one port for each archive."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, BinaryIO, TypeVar

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from emulators.control import Control
from emulators.http_faults import FaultyService
from emulators.sockets import listening_socket

_T = TypeVar("_T")
_READY_SECONDS = 120.0  # the loop may be at work on a request, on a loaded machine


class _Length:
    """Stands for bytes that h11 counts but does not see."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count


class _OpenProtocol(H11Protocol):
    """Puts the connection where the fault layer can cut it and big files can bypass it."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # as real servers: else the end of an answer waits for a delayed acknowledgement
        sock = transport.get_extra_info("socket")
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app_state = {
            **self.app_state,
            "transport": transport,
            "sendfile": self.sendfile,
        }

    async def sendfile(self, file: BinaryIO, offset: int, count: int) -> None:
        """Send part of a file, after the headers, without copying it through Python."""
        if count == 0:
            return
        self.conn.send_with_data_passthrough(h11.Data(data=_Length(count)))  # type: ignore[arg-type]
        await self.loop.sendfile(self.transport, file, offset, count, fallback=False)


class HttpSide:
    """All HTTP services of one `Samples`."""

    def __init__(self, control: Control, host: str = "127.0.0.1") -> None:
        self._control = control
        self._host = host
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="samples-http", daemon=True)
        self._servers: list[uvicorn.Server] = []
        self._at_end: list[Callable[[], Awaitable[None]]] = []

    def start(self) -> None:
        """Start the thread; services are added afterwards."""
        self._thread.start()

    def add(self, service: str, app: ASGIApp, port: int = 0) -> int:
        """Serve `app` as `service`, with faults and counters, and return its port."""
        sock = listening_socket(self._host, port)
        config = uvicorn.Config(
            FaultyService(service, app, self._control),
            http=_OpenProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=0,
            timeout_keep_alive=60,
            backlog=512,
        )
        server = uvicorn.Server(config)
        self._servers.append(server)
        self.call(self._begin(server, sock))
        bound: int = sock.getsockname()[1]
        return bound

    def at_end(self, close: Callable[[], Awaitable[None]]) -> None:
        """Call this on the servers' loop when everything stops."""
        self._at_end.append(close)

    def call(self, work: Coroutine[Any, Any, _T], seconds: float = _READY_SECONDS) -> _T:
        """Run a coroutine on the servers' loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    def stop(self) -> None:
        """Cut what is open, end the thread."""
        if not self._thread.is_alive():
            return
        for server in self._servers:
            server.should_exit = True
            server.force_exit = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._end())
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    @staticmethod
    async def _begin(server: uvicorn.Server, sock: socket.socket) -> None:
        task = asyncio.get_running_loop().create_task(server.serve(sockets=[sock]))
        while not server.started:
            if task.done():
                task.result()
                raise RuntimeError("an HTTP server of the samples ended at once")
            await asyncio.sleep(0.005)

    async def _end(self) -> None:
        for server in self._servers:
            for listener in getattr(server, "servers", []):
                listener.close()
            for connection in list(server.server_state.connections):
                connection.transport.abort()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for close in self._at_end:
            await close()
