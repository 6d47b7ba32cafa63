"""A TCP proxy that makes a near server far: time to the first byte, bandwidth of a connection.

Each request waits `first_byte_s` once, before it is passed on; what comes back passes at no more
than `bytes_per_second`. Run as ``python -m benchmarks.shaped HOST:PORT SECONDS BYTES``: it prints
its own address and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys

from emulators.latency import Pace

_PIECE = 256 * 1024


async def _towards_server(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, turn: dict[str, bool], wait_s: float
) -> None:
    while data := await reader.read(_PIECE):
        if turn["answered"]:
            turn["answered"] = False
            await asyncio.sleep(wait_s)
        writer.write(data)
        await writer.drain()
    writer.close()


async def _towards_client(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, turn: dict[str, bool], rate: float
) -> None:
    pace = Pace(rate)
    while data := await reader.read(pace.piece or _PIECE):
        turn["answered"] = True
        writer.write(data)
        await writer.drain()
        if (wait_s := pace.sent(len(data))) > 0.001:
            await asyncio.sleep(wait_s)
    writer.close()


async def serve(address: str, first_byte_s: float, bytes_per_second: float) -> None:
    """Pass connections on to `address` until standard input ends."""
    host, _, port = address.rpartition(":")

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            turn = {"answered": True}
            await asyncio.gather(
                _towards_server(reader, far_writer, turn, first_byte_s),
                _towards_client(far_reader, writer, turn, bytes_per_second),
            )
        except OSError:
            writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))
