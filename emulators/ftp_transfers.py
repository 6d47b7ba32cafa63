"""The data side of the FTP stand-in: bandwidth, byte counts, and transfers that go wrong."""

from __future__ import annotations

import errno
import os
from typing import Any, BinaryIO, ClassVar, Protocol

from pyftpdlib.exceptions import _FileReadWriteError
from pyftpdlib.handlers import DTPHandler, ThrottledDTPHandler

from emulators.control import Control
from emulators.faults import Rule
from emulators.latency import Pace
from emulators.sockets import will_reset

_BLOCK = 1 << 16


class CommandChannel(Protocol):
    """What a transfer needs of the connection that asked for it."""

    control: ClassVar[Control]
    socket: Any
    data_channel: Any

    def close(self) -> None: ...


class SampleDTPHandler(ThrottledDTPHandler):  # type: ignore[misc]
    """Counts bytes; as fast as sendfile, or paced where a latency is set."""

    ac_out_buffer_size = 1 << 20
    auto_sized_buffers = False

    def __init__(self, sock: Any, cmd_channel: CommandChannel) -> None:
        self._pace = Pace(cmd_channel.control.latency("ftp").bytes_per_second)
        if self._pace.piece:
            self.ac_out_buffer_size = self._pace.piece
            self.write_limit = self._pace.bytes_per_second
        super().__init__(sock, cmd_channel)

    def use_sendfile(self) -> bool:
        """Only where nothing has to be slowed down."""
        return not self._pace.piece and bool(DTPHandler.use_sendfile(self))

    def _throttle_bandwidth(self, len_chunk: int, max_speed: float) -> None:
        # pyftpdlib's own throttle lets whole seconds of data burst, so that small files never
        # meet a limit; this one waits after each piece.
        wait = self._pace.sent(len_chunk)
        if wait > 0.001:
            self.pause(wait)

    def pause(self, seconds: float) -> None:
        """Send nothing for a while."""

        def resume() -> None:
            if not self._closed:
                self.add_channel(events=self.ioloop.WRITE)

        self.del_channel()
        self._cancel_throttler()
        self._throttler = self.ioloop.call_later(seconds, resume, _errback=self.handle_error)

    def close(self) -> None:
        """Close, and credit what was sent."""
        if not self._closed:
            self.cmd_channel.control.counters.add_bytes("ftp", self.tot_bytes_sent)
        super().close()


class TamperedProducer:
    """Gives out a transfer's bytes until the rule's point, and then goes wrong.

    pyftpdlib calls `more` for each block; an empty answer is the end of the transfer, to which it
    replies 226, and an error makes it reply 426.
    """

    def __init__(self, rule: Rule, handler: CommandChannel, source: BinaryIO, length: int) -> None:
        self._rule = rule
        self._handler = handler
        self._source = source
        self._left = rule.cut_at(length)
        self._stalled = False

    def more(self) -> bytes:
        """The next block."""
        if self._rule.kind == "wrong_bytes":
            return self._inverted(self._source.read(_BLOCK))
        if self._stalled:
            return self._source.read(_BLOCK)
        block = self._source.read(min(_BLOCK, self._left))
        self._left -= len(block)
        if block:
            return block
        return self._go_wrong()

    def _go_wrong(self) -> bytes:
        if self._rule.kind == "stall":
            self._stalled = True
            self._handler.data_channel.pause(self._rule.seconds)
            return self._source.read(_BLOCK)
        self._source.close()
        if self._rule.kind == "cut_426":
            raise _FileReadWriteError(OSError(errno.EPIPE, os.strerror(errno.EPIPE)))
        if self._rule.kind == "reset":
            will_reset(self._handler.data_channel.socket)
            will_reset(self._handler.socket)
            self._handler.close()
        return b""

    def _inverted(self, block: bytes) -> bytes:
        start, self._left = self._left, self._left - len(block)
        if not 0 <= start < len(block):
            return block
        end = min(len(block), start + self._rule.count)
        return block[:start] + bytes(b ^ 0xFF for b in block[start:end]) + block[end:]


def first_half_of_lines(listing: bytes) -> bytes:
    """A listing that ended early, at a line end, as if it were whole."""
    lines = listing.splitlines(keepends=True)
    return b"".join(lines[: len(lines) // 2])
