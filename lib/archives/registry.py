"""The archives, by name. A new one is a module and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, ClassVar, Protocol, cast

from numpy.typing import NDArray

from lib.archives.base import Archive
from lib.config.loaders import LOADER_CONFIGS, LoaderConfig
from lib.errors import ConfigError
from lib.plan import VolumePlan


@dataclass(frozen=True, slots=True)
class Entry:
    """Where an archive's class is; imported when first used, so that listing them is cheap.

    Attributes
    ----------
    path
        ``package.module:Class`` of the archive.
    stand_in
        The same of its stand-in, where `emulators` does not know it of itself: a class with
        ``setting`` (the field that leads the loader to it), ``app`` (ASGI) and ``truth(plan)``.
    by_address
        It has nothing of its own: a run that names no source leaves it out unless its settings
        name addresses.
    """

    path: str
    stand_in: str | None = None
    by_address: bool = False

    def load(self) -> Archive:
        """Import the archive's class and make one."""
        return cast(Archive, _imported(self.path)())

    def load_stand_in(self) -> StandIn | None:
        """Import the stand-in's class and make one, where there is one."""
        return None if self.stand_in is None else cast(StandIn, _imported(self.stand_in)())


class StandIn(Protocol):
    """A small server of an archive's protocol, for runs without the archive."""

    setting: ClassVar[str]

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """The server, as an ASGI application."""
        ...

    def truth(self, plan: VolumePlan) -> NDArray[Any]:
        """The voxels that a plan made here must deliver."""
        ...


def _imported(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


REGISTRY: dict[str, Entry] = {
    "address": Entry("lib.archives.address.archive:AddressArchive", by_address=True),
    "ebi": Entry("lib.archives.ebi.archive:EBI"),
    "epfl": Entry("lib.archives.epfl:EPFL"),
    "flyem": Entry("lib.archives.flyem:FlyEM"),
    "idr": Entry("lib.archives.idr.archive:IDR"),
    "openorganelle": Entry("lib.archives.openorganelle:OpenOrganelle"),
}


def default_sources(settings: Mapping[str, LoaderConfig]) -> list[str]:
    """The sources of a run that names none: all that have something to bring in."""
    return [
        name
        for name, entry in REGISTRY.items()
        if not entry.by_address or getattr(settings.get(name), "addresses", None)
    ]


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
    return entry.load()


def loader_configs() -> dict[str, type[LoaderConfig]]:
    """The settings class of every archive; modules of the five known ones are not imported."""
    known = dict(LOADER_CONFIGS)
    return {name: known.get(name) or archive(name).config_model for name in REGISTRY}
