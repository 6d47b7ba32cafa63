"""The archives, by name. A new one is a module and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any, ClassVar, Protocol, cast

from numpy.typing import NDArray

from lib.archives.base import Archive
from lib.config.loaders import LOADER_CONFIGS, LoaderConfig
from lib.errors import ConfigError
from lib.plan import VolumePlan
from lib.transport.limits import Limits


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


REGISTRY: dict[str, str] = {
    "address": "lib.archives.address.archive:AddressArchive",
    "ebi": "lib.archives.ebi.archive:EBI",
    "epfl": "lib.archives.epfl:EPFL",
    "flyem": "lib.archives.flyem.archive:FlyEM",
    "idr": "lib.archives.idr.archive:IDR",
    "openorganelle": "lib.archives.openorganelle.archive:OpenOrganelle",
}
"""Where each archive's class is, as ``package.module:Class``; imported when it is first used, so
that listing them is cheap. All that is known of an archive stands in its class."""

ADDRESS_WORDS = {"ebi": "empiar"}
"""The word before the colon of an archive's addresses, where it is not the archive's name."""


def default_sources(settings: Mapping[str, LoaderConfig]) -> list[str]:
    """The sources of a run that names none: all that have something to bring in.

    One whose settings have addresses brings nothing where they name none.
    """
    return [name for name in REGISTRY if getattr(settings.get(name), "addresses", True)]


@cache
def archive(name: str) -> Archive:
    """The archive of a name; raises `ConfigError` with the valid names."""
    if name not in REGISTRY:
        raise ConfigError(
            f"source {name!r} does not exist",
            location="sources",
            advice=f"Valid sources: {', '.join(REGISTRY)}",
        )
    return cast(Archive, _imported(REGISTRY[name])())


def stand_in(name: str) -> StandIn | None:
    """The stand-in that an archive brings of its own, where it brings one."""
    path = archive(name).stand_in
    return None if path is None else cast(StandIn, _imported(path)())


def recommended_limits() -> dict[str, Limits]:
    """The limits of every service that an archive asks, by the service's name."""
    return {k: v for name in REGISTRY for k, v in archive(name).services.items()}


def loader_configs() -> dict[str, type[LoaderConfig]]:
    """The settings class of every archive; modules of the five known ones are not imported."""
    known = dict(LOADER_CONFIGS)
    return {name: known.get(name) or archive(name).config_model for name in REGISTRY}
