"""Guards against hostile input: paths, addresses, XML and compressed streams from outside.

Everything an archive sends is untrusted. Names never leave the destination folder, XML never
reaches outside itself, compressed data never grows without bound, and what goes into a log or a
record never carries a query string or a password.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import unicodedata
from collections.abc import Collection
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException  # type: ignore[import-untyped]
from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]

from lib.errors import FormatError, RequestRefusedError, TransportError
from lib.names import safe_name

MIB = 1024 * 1024
MALFORMED = (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError)
"""What reading a foreign document raises where a field is absent, or of another shape or size."""
_URL = re.compile(r"[a-z][a-z0-9+.\-]*://[^\s'\"<>\])}]+", re.IGNORECASE)


# --- paths ----------------------------------------------------------------------------------


def safe_join(folder: Path, *parts: str) -> Path:
    """A path below `folder`, each part made safe.

    Raises
    ------
    FormatError
        If a symbolic link on the way leads out of the folder.
    """
    path = folder.joinpath(*(safe_name(part) for part in parts))
    if not path.resolve().is_relative_to(folder.resolve()):
        raise FormatError(
            "a symbolic link leads out of the destination folder",
            location=str(path),
            advice="Remove the link, then run again",
        )
    return path


# --- addresses ------------------------------------------------------------------------------


def redact(url: str) -> str:
    """A URL without user, password, query string and fragment, fit for logs and records."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(unreadable address)"
    if not parts.scheme:
        return re.split(r"[?#]", url, maxsplit=1)[0]
    return f"{parts.scheme}://{host}{parts.path}"


def visible(text: str) -> str:
    """Text as a terminal may have it: its lines, and what would be obeyed or hidden as an escape.

    Control characters, also those that turn the direction of writing, and halves of characters
    become ``\\x1b`` or ``\\u202e``; wide and unusual blanks become one blank.

    Examples
    --------
    >>> visible("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    if text.isprintable():
        return text
    return "".join(c if c == "\n" or c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    if character == "\t" or unicodedata.category(character) == "Zs":
        return " "
    code = ord(character)
    if code < 256:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def redact_text(text: str) -> str:
    """Text with every URL in it redacted and every control character made a space."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return _URL.sub(lambda match: redact(match.group()), plain)


def check_public_redirect(asked_url: str, target_url: str, allowed_hosts: Collection[str]) -> None:
    """Allow a redirect to the host that was asked or to an allowed one, never to a private network.

    Loopback, link-local, private and reserved addresses are refused, by name or by number, unless
    the address that was asked is itself one of those, as a stand-in on this machine is.

    Raises
    ------
    RequestRefusedError
        If the redirect must not be followed.
    TransportError
        If the target's name does not resolve.
    """
    asked, target = urlsplit(asked_url), urlsplit(target_url)
    host = (target.hostname or "").lower()

    def refuse(why: str) -> RequestRefusedError:
        return RequestRefusedError(
            f"the server redirects to {redact(target_url)}, which is not followed: {why}",
            location=redact(asked_url),
            advice="If that host is to be trusted, give its own address to the source",
        )

    if target.scheme not in {"http", "https"} or not host:
        raise refuse("it is not an HTTP address")
    if asked.scheme == "https" and target.scheme != "https":
        raise refuse("it leaves TLS")
    asked_host = (asked.hostname or "").lower()
    if host != asked_host and host not in {name.lower() for name in allowed_hosts}:
        raise refuse("the host is not an allowed one")
    if host != asked_host and not is_public_host(host) and is_public_host(asked_host):
        raise refuse("it is a private address")


def is_address(host: str) -> bool:
    """Whether a host is written as a number and not as a name."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def is_public_host(host: str) -> bool:
    """Whether every address of a host lies in the public internet.

    Raises
    ------
    TransportError
        The name does not resolve.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise TransportError(
            f"the name {host} does not resolve", advice="Check the host name and the network's DNS"
        ) from error
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    return all(_public_address(address) for address in addresses)


def _public_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    inner = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    real = inner or address
    return real.is_global and not real.is_multicast


# --- content --------------------------------------------------------------------------------


def parse_xml(data: bytes, max_bytes: int = 64 * MIB) -> Element:
    """Parse XML from outside: no DTD, no entities, no external references, bounded size.

    Raises
    ------
    FormatError
        If it is too large, not well-formed, or tries any of these.
    """
    if len(data) > max_bytes:
        raise FormatError(f"the XML is longer than {max_bytes} bytes")
    try:
        root: Element = fromstring(data, forbid_dtd=True)
    except DefusedXmlException as error:
        raise FormatError(f"the XML is refused: {type(error).__name__}") from error
    except (ParseError, ValueError, LookupError) as error:
        raise FormatError(f"the XML is not well-formed: {error}") from error
    return root
