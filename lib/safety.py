"""Guards against hostile input: paths, addresses, XML and compressed streams from outside.

Everything an archive sends is untrusted. Names never leave the destination folder, XML never
reaches outside itself, compressed data never grows without bound, and what goes into a log or a
record never carries a query string or a password.

A name is for people. What a volume or a file *is*, its identity, is told by where the archive keeps
it; a name that two identities would share gets a short digest of each, never a counter, so that it
is the same in every run, whatever else is listed and in which order.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import socket
import struct
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit
from xml.etree import ElementTree  # nosec B405
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException  # type: ignore[import-untyped]
from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]

from lib.errors import FormatError, MacroscopeError, RequestRefusedError, TransportError

MAX_NAME_BYTES = 200
"""Of a file's name: room for suffixes below the 255 bytes of common file systems."""
MAX_VOLUME_NAME = 200
"""Letters of a volume's name: room for ``metadata_``, ``.ome.zarr`` and temporary names."""

# Reserved on Windows and on SMB shares, with any suffix; a store may lie on one.
_RESERVED = re.compile(r"^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$", re.IGNORECASE)
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
# Control and format characters, lone surrogates, private use, separators of lines and words. The
# categories of these never change; those that are unassigned today may be letters tomorrow.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp", "Zs"})
_UNFIT = re.compile(r"[^A-Za-z0-9._+-]+")
_TIFF_SUFFIX = re.compile(r"(\.ome)?\.tiff?$", re.IGNORECASE)
_COUNTER = re.compile(r"[ _.-]+(slice|section|sec|image|img|z)$", re.IGNORECASE)
# ``metadata_<name>.json`` is a record, ``metadata_catalog_<time>.json`` a catalogue.
_OWN_FILES = re.compile(r"^(metadata|catalog)_", re.IGNORECASE)


# --- one name -------------------------------------------------------------------------------


def safe_name(name: str) -> str:
    """One path component made from an archive's name.

    Separators, characters that are not seen (control characters, no-break spaces, line separators)
    and characters that a common file system forbids become ``_``; a name that would still mean
    something else (``..``, ``NUL``, nothing) gets a leading ``_``; one that is too long is cut and
    ends in part of its digest. A safe name comes back unchanged.
    """
    text = unicodedata.normalize("NFC", name)
    unseen = {one for one in text if one != " " and unicodedata.category(one) in _INVISIBLE}
    text = "".join("_" if letter in unseen else letter for letter in text)
    text = _UNSAFE.sub("_", text).strip(" ").rstrip(". ")
    if not text or text.startswith(".") or _RESERVED.match(text):
        text = "_" + text
    raw = text.encode()
    if len(raw) <= MAX_NAME_BYTES:
        return name if text == name else text  # of many files, each name is held once
    suffix = PurePosixPath(text).suffix
    tail = "~" + hashlib.sha256(raw).hexdigest()[:12] + (suffix if len(suffix) <= 16 else "")
    return raw[: MAX_NAME_BYTES - len(tail.encode())].decode(errors="ignore") + tail


def slug(text: str) -> str:
    """`text` in ASCII letters that need no quoting in paths, URLs and shells."""
    return _UNFIT.sub("_", text).strip("._-") or "volume"


def volume_name(text: str) -> str:
    """The name of a volume made from what an archive calls it: a `slug` of bounded length."""
    name = slug(text)
    if _OWN_FILES.match(name) or _RESERVED.match(name):
        name = f"volume_{name}"
    if len(name) <= MAX_VOLUME_NAME:
        return name
    return _with_mark(name, digest(text))


def without_tiff_suffix(name: str) -> str:
    """``a.ome.tiff [2]`` -> ``a [2]``."""
    stem, blank, rest = name.partition(" [")
    return _TIFF_SUFFIX.sub("", stem) + blank + rest


def stack_name(stem: str) -> str:
    """What numbered sections have in common, without the word that announces the number."""
    return slug(_COUNTER.sub("", stem))


# --- addresses as identities ----------------------------------------------------------------


def same_place(one: str, other: str) -> bool:
    """Whether two addresses may be one file of an archive, served by other protocols or hosts.

    The paths are compared, from their end; of a bucket, its name as well.
    """
    first, second = _place(one), _place(other)
    length = min(len(first), len(second))
    return first[len(first) - length :] == second[len(second) - length :]


def place_of(url: str) -> str:
    """What of an address stays, whoever serves the file."""
    return "/".join(_place(url))


def _place(url: str) -> list[str]:
    parts = split_address(url)
    path = [part for part in unquote(parts.path).split("/") if part]
    return [parts.netloc, *path] if parts.scheme == "s3" else path


# --- several names --------------------------------------------------------------------------


def folded(name: str) -> str:
    """What a file system that ignores case and Unicode form takes a name for."""
    return unicodedata.normalize("NFKC", name.casefold())


def digest(*identity: str) -> str:
    """Ten hexadecimal digits that stand for an identity."""
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:10]


def marked_volume_name(name: str, *identity: str) -> str:
    """A volume's name that no other identity has: `name` with a digest at its end."""
    return _with_mark(volume_name(name), digest(*identity))


def distinct_file_names(wanted: Mapping[str, str]) -> dict[str, str]:
    """Safe names of files, no two alike on a file system that ignores case.

    Parameters
    ----------
    wanted
        Identity of each file (its path in the archive) -> its own name.

    Returns
    -------
    dict
        Identity -> safe name. Whoever shares a name with another gets a digest into it.
    """
    safe = {identity: safe_name(name) for identity, name in wanted.items()}
    shared = Counter(folded(name) for name in safe.values())
    return {
        identity: name if shared[folded(name)] == 1 else marked_file_name(name, identity)
        for identity, name in safe.items()
    }


def marked_file_name(name: str, identity: str) -> str:
    """A file's name that no other file has: a digest of its identity before its suffixes."""
    stem, dot, suffix = safe_name(name).partition(".")
    mark = f"~{digest(identity)}{dot}{suffix}"
    room = MAX_NAME_BYTES - len(mark.encode())
    if room < 1:
        return safe_name(f"{digest(identity)}~{stem}{dot}{suffix}")
    return safe_name(stem.encode()[:room].decode(errors="ignore") + mark)


def _with_mark(name: str, mark: str) -> str:
    return f"{name[: MAX_VOLUME_NAME - len(mark) - 1].rstrip('._-')}-{mark}"


MIB = 1024 * 1024
_MALFORMED = (
    KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError, RecursionError,
    struct.error,
)  # fmt: skip
_QUERY = re.compile(r"\?[\w.-]+=[^|]*")  # what looks like one, where none has a place
_BUCKET = re.compile(r"(s3|gs)://([^/?#]*)((?:/[^|]*)?)", re.IGNORECASE)
_URL = re.compile(r"[a-z][a-z0-9+.\-]*://[^\s'\"<>]+", re.IGNORECASE)


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


def split_address(url: str) -> SplitResult:
    """`urlsplit`, save that names in buckets and behind a ``|`` are not encoded: they hold ? and #.

    Raises
    ------
    ValueError
        It is no URL.
    """
    place, bar, inside = url.partition("|")
    bucket = _BUCKET.fullmatch(place)
    parts = SplitResult(bucket[1], bucket[2], bucket[3], "", "") if bucket else urlsplit(place)
    return parts._replace(scheme=parts.scheme.lower(), path=f"{parts.path}{bar}{inside}")


def redact(url: str) -> str:
    """A URL without user, password, query string and fragment, fit for logs and records."""
    try:
        parts = split_address(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(unreadable address)"
    if not parts.scheme or "://" not in url:
        return re.split(r"[?#]", url, maxsplit=1)[0]
    plain = f"{parts.scheme}://{host}{_QUERY.sub('', parts.path)}"
    return url if plain == url else plain  # as with names, each is held once


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
    if text.isprintable() and "://" not in text:
        return text
    plain = "".join(c if c.isprintable() else " " for c in text)
    return _URL.sub(_redacted, plain)


def _redacted(found: re.Match[str]) -> str:
    """An address within a text, whose brackets and stops around it are none of it."""
    url = found[0].rstrip(")]}.,;:")
    if url.count("[") > url.count("]") and found[0].startswith(f"{url}]"):
        url += "]"  # of a host by its number of IPv6
    return redact(url) + found[0][len(url) :]


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


@contextmanager
def reading(
    what: str, where: str, kind: type[MacroscopeError] = FormatError, archive: str | None = None
) -> Iterator[None]:
    """Name what making sense of a foreign document raises: a field is absent, or of another shape.

    Parameters
    ----------
    kind
        Of the error that is raised in its place.
    """
    try:
        yield
    except _MALFORMED as error:
        raise kind(f"{what} cannot be read: {error!r}", archive=archive, location=where) from None


def json_object(data: bytes | memoryview, what: str, where: str) -> dict[str, Any]:
    """A foreign document that must be a JSON object. Raises `FormatError`."""
    with reading(what, where):
        document = json.loads(bytes(data))
    if not isinstance(document, dict):
        raise FormatError(f"{what} is no JSON object", location=where)
    return document


_PLAIN_XML = re.compile(
    rb"(\xef\xbb\xbf)?\s*"
    rb"(<\?xml version=[\"']1\.0[\"']( encoding=[\"'](?i:utf-8)[\"'])?"
    rb"( standalone=[\"'](yes|no)[\"'])?\s*\?>\s*)?<[A-Za-z]"
)
"""How a document of UTF-8 begins, whose ``<`` and ``!`` can be told by their bytes."""


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
        # no DTD can be in it, and it takes less than half the time
        if _PLAIN_XML.match(data) and b"<!" not in data:
            return ElementTree.fromstring(data)  # nosec B314
        root: Element = fromstring(data, forbid_dtd=True)
    except DefusedXmlException as error:
        raise FormatError(f"the XML is refused: {type(error).__name__}") from error
    except (ParseError, ValueError, LookupError) as error:
        raise FormatError(f"the XML is not well-formed: {error}") from error
    return root
