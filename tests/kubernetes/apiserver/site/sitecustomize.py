"""A pod's own network, for a process that has none: its address, and the names of Services.

Read at the start of every Python process of a stand-in pod. Names of Services come from a file
that the stand-in keeps; a port opened on all addresses is opened on the pod's alone, so that two
pods may use the same port.
"""

import json
import os
import socket
from typing import Any

_HOSTS = os.environ.get("STANDIN_HOSTS", "")
_POD_IP = os.environ.get("STANDIN_POD_IP", "")
_ANY = (None, "", "0.0.0.0", b"0.0.0.0")
_getaddrinfo = socket.getaddrinfo
_bind = socket.socket.bind


def _address(host: Any) -> Any:
    """The address of a Service, the host itself for all others; no answer for a Service gone."""
    name = host.decode() if isinstance(host, bytes) else host
    if not isinstance(name, str):
        return host
    with open(_HOSTS) as file:
        known = json.load(file)
    if name in known["services"]:
        return known["services"][name]
    if name.removesuffix(".svc.cluster.local").rpartition(".")[2] in known["namespaces"]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return host


def _looked_up(
    host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
) -> Any:
    everywhere = host in _ANY and flags & socket.AI_PASSIVE and _POD_IP
    here = _POD_IP if everywhere else _address(host)
    return _getaddrinfo(here, port, family, type, proto, flags)


def _bound(self: socket.socket, address: Any) -> None:
    if self.family == socket.AF_INET and address[0] in _ANY and address[1] and _POD_IP:
        address = (_POD_IP, address[1])
    _bind(self, address)


if _HOSTS:
    socket.getaddrinfo = _looked_up
    socket.socket.bind = _bound  # type: ignore[method-assign]
