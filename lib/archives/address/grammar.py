"""The address grammar: a place, and by a pipeline what lies inside it.

``place|step|step``. A place is a path, ``file://``, ``https://``, ``s3://``, ``gs://`` or ``ftp://``
address, or a named archive's (``empiar:10310``). Steps follow the URL pipelines of Neuroglancer
and the Zarr community: ``https://host/a.zip|zip:stack/|tiff:``, ``s3://bucket/x.zarr|zarr3:em/s0``.
A ``|`` that belongs to a name is written ``%7C``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, unquote

from lib.archives.registry import ADDRESS_WORDS, REGISTRY, archive
from lib.config.errors import suggestion
from lib.errors import ConfigError
from lib.formats import registry
from lib.safety import digest, redact, split_address

Scheme = Literal["file", "https", "http", "s3", "gs", "ftp"]

SCHEMES: tuple[Scheme, ...] = ("file", "https", "http", "s3", "gs", "ftp")
CONTAINERS = ("zip",)

# how Neuroglancer wrote the format of a source before pipelines: zarr://s3://bucket/x.zarr
_BEFORE_PIPELINES = {
    "precomputed": "neuroglancer-precomputed",
    **{word: word for word in ("n5", "zarr", "zarr2", "zarr3")},
}

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*):(.*)$", re.DOTALL)
_ACCESSION = re.compile(r"EMPIAR-(\d{4,6})(/.*)?", re.IGNORECASE)
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST = 4096
_SAFE = "/:@!$&'()*+,;=~"
# of signed addresses of S3, Google and CloudFront, tokens, and what browsers are told
_CHOOSES_NOTHING = re.compile(
    r"x-amz-.*|x-goog-.*|awsaccesskeyid|googleaccessid|.*signature|expires|key-pair-id|policy"
    r"|.*token|api_?key|download|dl|raw|inline|attachment|response-.*",
    re.IGNORECASE,
)
# of those of Azure, whose signature is ``sig``: short words, which mean other things elsewhere
_OF_AZURE = re.compile(
    r"sv|s[eprst]|srt|spr|sig|sip|sdd|ses|ske|skoid|sks|skt|sktid|skv", re.IGNORECASE
)
_BAR = re.compile(r"\||%((?:25)*)7C", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class AddressStep:
    """One step of a pipeline.

    Attributes
    ----------
    word
        ``zip`` or the name of a format.
    path
        What it names inside, without slashes around it.
    folder
        Whether the path was written with a slash at its end.
    """

    word: str
    path: str
    folder: bool = False

    def __str__(self) -> str:
        slash = "/" if self.folder and self.path else ""
        return f"{self.word}:{_escaped(self.path)}{slash}"


@dataclass(frozen=True, slots=True)
class Address:
    """A place and what lies inside it.

    Attributes
    ----------
    scheme, host
        ``host`` is the server or the bucket, empty for files.
    path
        Below the host, without slashes around it; names as people read them, never encoded.
    query
        Of an https address, without ``?``; may be a signature, so it is never shown.
    folder
        Whether the place was written with a slash at its end.
    """

    scheme: Scheme
    host: str
    path: str
    steps: tuple[AddressStep, ...] = ()
    query: str = ""
    folder: bool = False

    @property
    def place(self) -> str:
        """The address of the place, fit to be shown and to be read again."""
        slash = "/" if self.folder else ""
        path = quote(self.path, safe=_SAFE) if self.encoded else _escaped(self.path)
        head = "file:///" if self.scheme == "file" else f"{self.scheme}://{self.host}/"
        return f"{head}{path}{slash if self.path else ''}"

    @property
    def zips(self) -> tuple[AddressStep, ...]:
        """The containers at the beginning of the pipeline."""
        return tuple(itertools.takewhile(lambda step: step.word in CONTAINERS, self.steps))

    @property
    def container(self) -> str:
        """The address without the format's step, as `place` is shown."""
        return "|".join([self.place, *map(str, self.zips)])

    @property
    def bare(self) -> str:
        """`container` without the slash of a folder."""
        root = self.zips[-1].path if self.zips else self.path
        return self.container.removesuffix("/") if root else self.container

    @property
    def mark(self) -> str:
        """A digest of what a query chooses: files may differ in it alone. Empty for none.

        Signatures and wishes about the way of delivery choose nothing, and change from day to day.
        """
        named = parse_qsl(self.query, keep_blank_values=True)
        azure = any(name.lower() == "sig" for name, _ in named)
        chosen = sorted(
            (name, value)
            for name, value in named
            if not _CHOOSES_NOTHING.fullmatch(name) and not (azure and _OF_AZURE.fullmatch(name))
        )
        return digest(*itertools.chain(*chosen)) if chosen else ""

    @property
    def whole(self) -> str:
        """The address as settings keep it, its query included."""
        query = f"?{self.query}" if self.query else ""
        return "|".join([f"{self.place}{query}", *map(str, self.steps)])

    @property
    def encoded(self) -> bool:
        """Whether paths of this scheme are percent-encoded in an address."""
        return self.scheme in ("file", "https", "http", "ftp")

    def __str__(self) -> str:
        return "|".join([self.place, *map(str, self.steps)])


def quoted(name: str, address: str) -> str:
    """A name as it is written at the end of an address."""
    encoded = "|" not in address and not address.startswith(("s3://", "gs://"))
    return quote(name, safe=_SAFE) if encoded else _escaped(name)


def _escaped(name: str) -> str:
    """An unencoded name in an address: its ``|`` as ``%7C``, and its ``%7C`` as ``%257C``."""
    return _BAR.sub(lambda bar: "%7C" if bar[0] == "|" else f"%25{bar[0][1:]}", name)


def _unescaped(text: str) -> str:
    """Inverse of `_escaped`."""
    return _BAR.sub(lambda bar: f"%{bar[0][3:]}" if bar[1] else "|", text)


def named_archives() -> dict[str, str]:
    """The words before the colon of an archive's own addresses, and the archive of each."""
    return {ADDRESS_WORDS.get(name, name): name for name in REGISTRY if name != "address"}


def is_named(text: str) -> bool:
    """Whether an address names an archive, as ``empiar:10310`` and ``EMPIAR-10310`` do."""
    match = _SCHEME.match(named_form(text))
    return match is not None and match[1].lower() in named_archives()


def named_form(text: str) -> str:
    """An accession as papers write it (``EMPIAR-10310``), as an address; other text as it is.

    A file or folder of that name here is meant before it.
    """
    text = text.strip()
    found = _ACCESSION.fullmatch(text)
    if found is None or Path(text).exists():
        return text
    return f"empiar:{found[1]}{found[2] or ''}"


def parse_address(text: str, base: Path | None = None) -> Address:
    """Read an address of a place.

    Parameters
    ----------
    base
        The folder from which relative paths are counted; this process's own where not given.

    Raises
    ------
    ConfigError
        The error says which part is wrong and suggests the nearest word.
    """
    text = text.strip()
    if not text or len(text) > _LONGEST or _CONTROL.search(text):
        raise ConfigError(
            "an address is empty, too long, or holds control characters", location="addresses"
        )
    place, *steps = text.split("|")
    parsed = tuple(_step(step, text) for step in steps)
    match = _SCHEME.match(place)
    if match is None or (len(match[1]) == 1 and not match[2].startswith("//")):
        return _local(place, parsed, base)
    scheme, rest = match[1].lower(), match[2]
    if scheme in _BEFORE_PIPELINES and not steps and re.match(r"//[a-z0-9]+://", rest):
        return parse_address(f"{rest[2:]}|{_BEFORE_PIPELINES[scheme]}:", base)
    if scheme in SCHEMES and rest.startswith("//"):
        return _url(scheme, place, parsed)
    if scheme in SCHEMES:
        raise ConfigError(
            f"{scheme}: is followed by two slashes, as in {scheme}://...", location="addresses"
        )
    if (base or Path.cwd()).joinpath(place).exists():  # a file may have a colon in its name
        return _local(place, parsed, base)
    raise ConfigError(
        f"{redact(place)[:200]!r}: there is no archive or protocol {scheme!r}; "
        f"{suggestion(scheme, [*named_archives(), *SCHEMES])}",
        location="addresses",
        advice="Write a path, https://, s3://, gs:// or ftp://, or for example empiar:10310",
    )


def _local(place: str, steps: tuple[AddressStep, ...], base: Path | None) -> Address:
    path = Path(_unescaped(place))
    if path.parts[:1] == ("~",):
        path = Path.home().joinpath(*path.parts[1:])
    whole = (base or Path.cwd()) / path
    normal = Path(*_normal(whole.parts[1:], place))
    if _WINDOWS.match(place) and not normal.exists():
        raise ConfigError(
            f"{place[:200]!r} is a path of Windows, and macroscope runs on Linux and macOS",
            location="addresses",
            advice="Under WSL, C:\\folder is /mnt/c/folder",
        )
    return Address("file", "", str(normal).strip("/"), steps, folder=place.endswith("/"))


def _normal(parts: tuple[str, ...], place: str) -> list[str]:
    kept: list[str] = []
    for part in parts:
        if part == "..":
            if not kept:
                raise ConfigError(f"{place!r} leads out of the file system", location="addresses")
            kept.pop()
        elif part not in ("", "."):
            kept.append(part)
    return ["/", *kept] if kept else ["/"]


def _url(scheme: Scheme, place: str, steps: tuple[AddressStep, ...]) -> Address:
    try:
        parts = split_address(place)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"{redact(place)}: no address ({error})", location="addresses") from None
    if "@" in parts.netloc:
        raise ConfigError(
            f"{redact(place)}: credentials do not belong in an address", location="addresses"
        )
    if parts.fragment:
        raise ConfigError(f"{redact(place)}: an address has no fragment", location="addresses")
    if scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise ConfigError(f"{redact(place)}: file:// takes no host", location="addresses")
        if parts.query:
            raise ConfigError(
                f"{redact(place)}: a file:// address has no query; a name holds %3F",
                location="addresses",
            )
        path = unquote(parts.path)
        return Address(
            "file",
            "",
            str(Path(*_normal(Path(path).parts[1:], place))).strip("/"),
            steps,
            folder=path.endswith("/"),
        )
    if not parts.netloc:
        raise ConfigError(f"{redact(place)}: a host or bucket is missing", location="addresses")
    path = _unescaped(parts.path) if scheme in ("s3", "gs") else unquote(parts.path)
    query = parts.query
    if query and scheme not in ("https", "http"):
        raise ConfigError(f"{redact(place)}: {scheme} takes no query", location="addresses")
    if scheme in ("s3", "gs") and "//" in path.rstrip("/"):
        # in a bucket a/b and a//b are two objects
        raise ConfigError(
            f"{redact(place)}: a key with two slashes in a row is not read", location="addresses"
        )
    if scheme not in ("s3", "gs") and "%2f" in parts.path.lower():
        raise ConfigError(
            f"{redact(place)}: a name with a slash in it (%2F) is not read",
            location="addresses",
            advice="Of Google's storage API, write gs://bucket/name in place of it",
        )
    pieces = [piece for piece in path.split("/") if piece not in ("", ".")]
    if ".." in pieces:
        raise ConfigError(f"{redact(place)}: '..' has no place in an address", location="addresses")
    host = parts.netloc.lower() if scheme != "s3" else parts.netloc
    return Address(
        scheme, host, "/".join(pieces), steps, query, folder=path.endswith("/") or not pieces
    )


def _step(text: str, whole: str) -> AddressStep:
    word, colon, path = text.partition(":")
    word = word.strip().lower()
    known = [*CONTAINERS, *registry.words()]
    if not colon and word in known:
        colon = ":"
    if word not in known or not colon:
        raise ConfigError(
            f"{redact(whole)[:200]}: {word!r} is no step of a pipeline; {suggestion(word, known)}",
            location="addresses",
            advice="A step is a format and a path inside it, for example |zarr:em/s0 or |tiff:",
        )
    path = _unescaped(path)
    pieces = [piece for piece in path.split("/") if piece not in ("", ".")]
    if ".." in pieces:
        raise ConfigError(f"{text!r}: '..' has no place in an address", location="addresses")
    return AddressStep(word, "/".join(pieces), path.endswith("/"))


SettingsBySource = dict[str, dict[str, Any]]
"""Settings by source."""


def rounds(addresses: Iterable[str]) -> list[SettingsBySource]:
    """What each address asks of which source; a source has one set of settings in each round.

    Places that are in no named archive go together, and so do images of IDR.

    Raises
    ------
    ConfigError
        An address cannot be read.
    """
    found: list[SettingsBySource] = [{}]
    for text in addresses:
        source, settings = settings_of(text)
        for given in found:
            if source not in given:
                given[source] = settings
                break
            joined = _joined(given[source], settings)
            if joined is not None:
                given[source] = joined
                break
        else:
            found.append({source: settings})
    return [given for given in found if given]


def settings_of(text: str) -> tuple[str, dict[str, Any]]:
    """The source of an address, and the settings that lead it there. Raises `ConfigError`."""
    if not is_named(text):
        return "address", {"addresses": [parse_address(text).whole]}
    name, rest = name_and_rest(text)
    source = named_archives()[name]
    settings = archive(source).settings_of(rest)
    if settings is None:
        raise ConfigError(
            f"{text.strip()[:200]!r}: {name} needs {archive(source).address_form}",
            location="addresses",
        )
    return source, settings


def name_and_rest(text: str) -> tuple[str, str]:
    """The name of a named address, and what follows its colon.

    Raises
    ------
    ConfigError
        It has a pipeline.
    """
    name, _, rest = named_form(text).partition(":")
    rest = rest.strip("/ ")
    if "|" in rest:
        raise ConfigError(
            f"{redact(text)[:200]!r}: a named archive takes no pipeline",
            location="addresses",
            advice="Write the address of the file itself to say what is inside it",
        )
    return name.lower(), rest


def absolute(text: str) -> str:
    """The address as another process, in another folder, reads it."""
    return named_form(text) if is_named(text) else parse_address(text).whole


def _joined(given: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any] | None:
    """Both in one, where they differ in nothing but a list."""
    for key in ("addresses", "image_ids"):
        if given.keys() == more.keys() == {key}:
            return {key: [*dict.fromkeys([*given[key], *more[key]])]}
    return dict(given) if given == more else None
