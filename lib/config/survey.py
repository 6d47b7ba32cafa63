"""What is set, also where it is refused: ``macroscope config`` helps where nothing else runs."""

from __future__ import annotations

from dataclasses import dataclass

from lib.config.errors import Refusals, is_secret
from lib.config.manager import ConfigManager, Settings
from lib.config.sources import Layer
from lib.errors import ConfigError

Row = tuple[str, str, str]
"""Dotted key, value fit to be shown, origin."""


@dataclass(frozen=True, slots=True)
class SettingsSurvey:
    """Every setting in force; with a problem, only what was given, as it was given."""

    rows: list[Row]
    problem: ConfigError | None = None


def survey(manager: ConfigManager | None = None) -> SettingsSurvey:
    """Read all layers; what is refused is told, not raised."""
    manager = manager or ConfigManager()
    try:
        return SettingsSurvey(manager.load().explain())
    except ConfigError as error:
        given, _ = manager.layers(Refusals())
        return SettingsSurvey(_as_given(given, manager), error)


def _as_given(given: Layer, manager: ConfigManager) -> list[Row]:
    rows = []
    for key, one in sorted(given.items()):
        name, _, field = key.removeprefix("sources.").rpartition(".")
        secret = is_secret(manager.keys.loaders.get(name, Settings), field)
        rows.append((key, "***" if secret else str(one.value), one.origin))
    return rows
