"""Settings from all their layers, under the name that users import. See `lib.config.manager`."""

from lib.config.manager import ConfigManager, LoadedSettings
from lib.config.settings import Settings

__all__ = [
    "ConfigManager",
    "LoadedSettings",
    "Settings",
]
