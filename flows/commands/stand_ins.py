"""The stand-in archives, which only the extra `samples` installs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lib.errors import ConfigError


def stand_in_module(name: str) -> Any:
    """A module of `emulators`.

    Raises
    ------
    ConfigError
        It, or a server that it starts, is not installed.
    """
    try:
        return import_module(f"emulators.{name}")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the stand-in archives are not installed here: {error.name} is missing",
            location="samples",
            advice="Install them with `pip install 'macroscope[samples]'`, or choose the public "
            "archives with --archives public",
        ) from None
