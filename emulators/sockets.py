"""Sockets as the stand-ins need them: bound ones, and closings that show as a reset."""

from __future__ import annotations

import select
import socket
import struct

# An RST instead of an orderly FIN when the socket is closed: linger on, for 0 seconds.
LINGER_RESET = struct.pack("ii", 1, 0)


def listening_socket(host: str, port: int = 0) -> socket.socket:
    """A bound socket; port 0 takes any free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    return sock


def will_reset(sock: socket.socket) -> None:
    """Make the closing of a socket an RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)


def peer_gone(fileno: int) -> bool:
    """Whether the other side has closed, even where nobody has read that far yet."""
    if fileno < 0:
        return True
    gone = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR
    poll = select.poll()
    poll.register(fileno, gone)
    return any(event & gone or event & select.POLLNVAL for _, event in poll.poll(0))
