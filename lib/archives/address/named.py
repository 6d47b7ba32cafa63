"""Addresses as a run takes them: a named archive's own settings, or the archive of addresses'."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lib.archives.address.grammar import NAMED, is_named, named_form, parse_address
from lib.errors import ConfigError
from lib.safety import redact

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
    """The source of an address, and the settings that lead it there.

    Raises
    ------
    ConfigError
    """
    if not is_named(text):
        return "address", {"addresses": [parse_address(text).whole]}
    name, rest = name_and_rest(text)
    return _NAMED[name](rest, text.strip())


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


def _empiar(rest: str, text: str) -> tuple[str, dict[str, Any]]:
    entry, _, folder = rest.partition("/")
    if not entry:
        raise _needs(text, "an accession, as empiar:10310")
    return "ebi", {"entry_id": entry, **({"folder": folder} if folder else {})}


def _idr(rest: str, text: str) -> tuple[str, dict[str, Any]]:
    word, _, number = rest.partition("/")
    if word == "dataset" and number.isdecimal():
        return "idr", {"dataset_id": int(number)}
    try:
        return "idr", {"image_ids": [int(one) for one in rest.split(",")]}
    except ValueError:
        raise _needs(text, "the number of an image, as idr:9846137, or idr:dataset/10740") from None


def _openorganelle(rest: str, text: str) -> tuple[str, dict[str, Any]]:
    dataset, _, path = rest.partition("/")
    if not dataset:
        raise _needs(text, "a data set, as openorganelle:jrc_hela-2/recon-1/em")
    return "openorganelle", {"dataset_id": dataset, **({"zarr_path": path} if path else {})}


def _flyem(rest: str, text: str) -> tuple[str, dict[str, Any]]:
    uuid, _, instance = rest.partition("/")
    if not uuid:
        raise _needs(text, "a version and an instance, as flyem:a89eb385/grayscale")
    return "flyem", {"uuid": uuid, **({"instance": instance} if instance else {})}


def _epfl(rest: str, text: str) -> tuple[str, dict[str, Any]]:
    if rest:
        raise _needs(text, "nothing behind the colon: it has one volume")
    return "epfl", {}


def _needs(text: str, what: str) -> ConfigError:
    return ConfigError(
        f"{text[:200]!r}: {text.partition(':')[0]} needs {what}", location="addresses"
    )


def _joined(given: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any] | None:
    """Both in one, where they differ in nothing but a list."""
    for key in ("addresses", "image_ids"):
        if given.keys() == more.keys() == {key}:
            return {key: [*dict.fromkeys([*given[key], *more[key]])]}
    return dict(given) if given == more else None


SOURCES = {"empiar": "ebi"} | {name: name for name in NAMED if name != "empiar"}
"""The source of each named archive."""

_NAMED: dict[str, Callable[[str, str], tuple[str, dict[str, Any]]]] = {
    "empiar": _empiar,
    "idr": _idr,
    "openorganelle": _openorganelle,
    "flyem": _flyem,
    "epfl": _epfl,
}
assert _NAMED.keys() == set(NAMED)
