"""What a run brings in: sources, and addresses, as settings by source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lib.archives.address.named import SettingsBySource, rounds
from lib.archives.registry import REGISTRY, default_sources
from lib.config.settings import Settings
from lib.execution import check_sources


def by_round(
    sources: Sequence[str] | None,
    addresses: Sequence[str] | None,
    parameters: Mapping[str, Mapping[str, Any]],
    settings: Settings,
) -> list[SettingsBySource]:
    """Settings by source, in as many rounds as one source has different settings.

    Parameters
    ----------
    sources
        By their names; all that have something to bring in where neither they nor addresses are
        given.
    parameters
        Further settings, by source; those that an address implies are stronger.

    Raises
    ------
    ConfigError
        A source is unknown, an address cannot be read, or nothing is selected.
    """
    found: list[SettingsBySource] = []
    if sources or not addresses:
        selected = check_sources(sources or default_sources(settings.sources), REGISTRY)
        found.append({name: dict(parameters.get(name, {})) for name in selected})
    for given in rounds(addresses or ()):
        found.append({name: {**parameters.get(name, {}), **own} for name, own in given.items()})
    return found
