"""The archives, by name. A new one is a module and a line here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import cast

from lib.archives.base import Archive
from lib.errors import ConfigError
from lib.loader_config import LOADER_CONFIGS, LoaderConfig


@dataclass(frozen=True, slots=True)
class Entry:
    """Where an archive's class is; imported when first used, so that listing them is cheap."""

    path: str  # "package.module:Class"


REGISTRY: dict[str, Entry] = {
    "ebi": Entry("lib.archives.ebi:EBI"),
    "epfl": Entry("lib.archives.epfl:EPFL"),
    "flyem": Entry("lib.archives.flyem:FlyEM"),
    "idr": Entry("lib.archives.idr:IDR"),
    "openorganelle": Entry("lib.archives.openorganelle:OpenOrganelle"),
}


@cache
def archive(name: str) -> Archive:
    """The archive of a name; raises `ConfigError` with the valid names."""
    entry = REGISTRY.get(name)
    if entry is None:
        raise ConfigError(
            f"source {name!r} does not exist",
            location="sources",
            advice=f"Valid sources: {', '.join(REGISTRY)}",
        )
    module, _, attribute = entry.path.partition(":")
    return cast(Archive, getattr(import_module(module), attribute)())


def loader_configs() -> dict[str, type[LoaderConfig]]:
    """The settings class of every archive; modules of the five known ones are not imported."""
    known = dict(LOADER_CONFIGS)
    return {name: known.get(name) or archive(name).config_model for name in REGISTRY}
