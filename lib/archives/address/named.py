"""Addresses as a run takes them: a named archive's own settings, or the archive of addresses'."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lib.archives.address.grammar import is_named, named_archives, named_form, parse_address
from lib.archives.registry import archive
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
