"""What the environment says of the way out: proxies and certificate authorities.

One place for all clients of archives and stores, so that no setting is needed twice. Loopback is
never reached through a proxy: stand-ins, the S3 server of a test and Prefect's own server are on
this machine.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import MutableMapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lib.errors import ConfigError

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
    return _tls_context(tuple((path, name) for path, name in named if path))


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
