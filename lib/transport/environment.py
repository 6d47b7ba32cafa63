"""The way out: proxies and certificate authorities, and which places an address may lead to.

One place for all clients of archives and stores, so that no setting is needed twice. Loopback is
never reached through a proxy: stand-ins, the S3 server of a test and Prefect's own server are on
this machine.

On a laptop an address may lead to whatever its owner can reach. On a server it is typed into a form
by somebody else: it must not read the pod's disk, nor ask the cluster's own network.
"""

from __future__ import annotations

import errno
import fnmatch
import ipaddress
import os
import random
import socket
import sys
from collections import deque
from collections.abc import MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lib.errors import AccessDeniedError, ConfigError
from lib.safety import is_address, is_public_host, redact

if TYPE_CHECKING:
    import ssl


#: Each names a PEM file, or a folder of them; any one is enough, and all that are set count.
CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")


def exempt_loopback(environ: MutableMapping[str, str] = os.environ) -> None:
    """Add this machine to ``NO_PROXY``, for clients and child processes that read it themselves."""
    if not any(environ.get(name) or environ.get(name.upper()) for name in _PROXY_VARIABLES):
        return
    given = ",".join(environ.get(name, "") for name in ("no_proxy", "NO_PROXY"))
    names = [name.strip() for name in given.split(",") if name.strip()]
    if "*" in names:
        return
    text = ",".join(dict.fromkeys([*names, *_LOOPBACK]))
    for name in ("no_proxy", "NO_PROXY"):
        if environ.get(name) != text:
            environ[name] = text


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by name or by number."""
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def proxies_for(url: str) -> dict[str, str]:
    """The proxies that the environment names for a URL's host, by scheme."""
    parts = urlsplit(url)
    return dict(_proxies(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/"))


@lru_cache(maxsize=64)
def _proxies(root: str) -> dict[str, str]:
    if is_loopback(urlsplit(root).hostname or ""):
        return {}
    from requests.utils import get_environ_proxies  # slow to import; the command line's help waits

    return dict(get_environ_proxies(root))


def proxy_for(url: str) -> str | None:
    """The proxy through which a URL is reached, credentials included, or None."""
    proxies = proxies_for(url)
    return proxies.get(urlsplit(url).scheme) or proxies.get("all") or None


def proxy_in_words(url: str) -> str:
    """The proxy of a URL without credentials, and the variable that names it."""
    from lib.safety import redact

    proxy = proxy_for(url)
    if proxy is None:
        return "the proxy"
    names = (f"{urlsplit(url).scheme}_proxy", "all_proxy")
    spellings = (spelling for name in names for spelling in (name, name.upper()))
    variable = next((name for name in spellings if os.environ.get(name) == proxy), None)
    address = redact(proxy if "://" in proxy else f"http://{proxy}").rstrip("/")
    return f"the proxy {address}" + (f" ({variable})" if variable else "")


def tls_context(further: str | None = None) -> ssl.SSLContext:
    """What a server's certificate is held against: public authorities, and all that are named.

    Parameters
    ----------
    further
        PEM file of more authorities, from a setting.

    Raises
    ------
    ConfigError
        One of the files cannot be read or holds no certificate.
    """
    named = [(os.environ.get(name, ""), name) for name in CA_VARIABLES] + [(further or "", "")]
    # where all name one bundle, as images do, reading it (20 ms) once is enough
    once = {path: name for path, name in reversed(named) if path}
    return _tls_context(tuple(once.items()))


@lru_cache(maxsize=16)
def _tls_context(named: tuple[tuple[str, str], ...]) -> ssl.SSLContext:
    import ssl

    from requests.utils import DEFAULT_CA_BUNDLE_PATH

    context = ssl.create_default_context(cafile=DEFAULT_CA_BUNDLE_PATH)
    for path, name in named:
        try:
            if Path(path).is_dir():
                context.load_verify_locations(capath=path)
            else:
                context.load_verify_locations(cafile=path)
        except OSError as error:  # an SSLError is one
            raise ConfigError(
                "the CA bundle cannot be read" + (f" ({name})" if name else ""),
                location=path,
                advice="Name a PEM file with at least one certificate",
            ) from error
    return context


PUBLIC = ("https", "s3", "gs", "ftp")


@dataclass(frozen=True, slots=True)
class ReachPolicy:
    """What may be asked.

    Attributes
    ----------
    schemes
        Of addresses and of whatever they redirect or link to.
    hosts
        Patterns such as ``*.ebi.ac.uk`` of the hosts that may be asked; empty: any.
    private
        Whether loopback, private and link-local addresses may be asked.
    """

    schemes: tuple[str, ...] = PUBLIC
    hosts: tuple[str, ...] = ()
    private: bool = False

    def check(self, url: str) -> None:
        """Raise `AccessDeniedError` unless this may be asked.

        Raises
        ------
        AccessDeniedError
            The scheme, the host or the network is not allowed.
        TransportError
            The host's name does not resolve.
        """
        parts = urlsplit(url)
        scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
        if scheme not in self.schemes:
            raise self._refusal(url, f"{scheme or 'no'}:// addresses", "reach_schemes")
        if scheme in ("file", "s3", "gs"):  # a bucket is no host: its endpoint is checked itself
            return
        if self.hosts and not any(fnmatch.fnmatchcase(host, p.lower()) for p in self.hosts):
            raise self._refusal(url, f"the host {host}", "reach_hosts")
        # Behind a proxy a name need not resolve here, and the proxy decides what it leads to.
        asked_here = is_address(host) or not proxies_for(url)
        if not self.private and asked_here and not is_public_host(host):
            raise self._refusal(url, f"{host}, a private address", "reach_private")

    def check_peer(self, address: str) -> None:
        """Raise `AccessDeniedError` for a peer whose name led to a private address after all."""
        if not self.private and not is_public_host(address):
            raise self._refusal(f"//{address}", "a private address", "reach_private")

    def check_redirect(self, asked: str, target: str) -> None:
        """The same for where an answer leads to, which must not leave TLS either."""
        if urlsplit(target).scheme not in ("http", "https"):
            raise self._refusal(target, "where this redirect leads", "reach_schemes")
        if urlsplit(asked).scheme == "https" and urlsplit(target).scheme != "https":
            raise AccessDeniedError(
                f"the server redirects to {redact(target)}, which is not followed: it leaves TLS",
                location=redact(asked),
            )
        self.check(target)

    @staticmethod
    def _refusal(url: str, what: str, setting: str) -> AccessDeniedError:
        return AccessDeniedError(
            f"{redact(url)}: this installation does not ask {what}",
            location=redact(url),
            advice=f"Whoever runs it may allow this by {setting}",
        )


_PORTS = range(12000, 30000)
"""Below those that Linux gives to whoever asks for any (from 32768 on), and those of nodes of
Kubernetes (30000 to 32767)."""
_RESERVED: deque[socket.socket] = deque(maxlen=256)


def free_ports(host: str, count: int) -> list[int]:
    """Ports that nothing listens on, for programs that cannot choose for themselves.

    Until such a program listens, no connection or socket that may have any port is given one of
    them, and this function gives them to no other process: on Linux a name is bound for each, which
    goes with this process.

    Raises
    ------
    OSError
        The host is not this machine, or all ports are taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket(family) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                if sys.platform == "linux":
                    _reserve(port)
                tried.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise OSError(errno.EADDRINUSE, f"no {count} ports are free on {host}")


def _reserve(port: int) -> None:
    """Bind a name for a port. Raises OSError (EADDRINUSE) where another process has."""
    try:
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0macroscope-port-{port}")  # abstract: no file, and gone with its socket
        except OSError:
            name.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise
        return  # no such names here: the port is free all the same
    _RESERVED.append(name)
