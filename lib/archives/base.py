"""What an archive is: two methods, and a plain plan that passes between them.

``plan`` asks the archive what there is and downloads nothing but metadata. ``open`` turns one
planned volume into a reader of voxels. A plan is plain JSON, so that it can be shown, stored,
compared and sent to a Dask worker on another host, which opens the reader for itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from lib.config.loaders import LoaderConfig
from lib.errors import MacroscopeError
from lib.formats.base import VolumeReader
from lib.plan import VolumePlan
from lib.rawfiles.files import RawFiles
from lib.transport.limits import Limits
from lib.transport.partial import Fetched
from lib.transport.session import Session


@dataclass(frozen=True, slots=True)
class Publisher:
    """Who publishes an archive's data, as records, reports and crates name it."""

    name: str
    url: str


class Archive(Protocol):
    """The whole extension point: a class with these members and one line in the registry.

    `ArchiveBase` has what most archives leave as it is.

    Attributes
    ----------
    name
        The source's name: of its settings, flow, deployment and folder in the store.
    title
        What it is, and over which protocols it is read, in a few words.
    publisher
        Who publishes its data.
    config_model
        The class of its settings.
    services
        What it asks, each with the limits that are recommended for it: two archives that ask one
        service name the same limits.
    heavy
        Whether its volumes are large as a rule: modes that do not name it run it after the others.
    observed_mb_s
        MB/s (10^6 bytes) seen in transfers from it, for the estimate of a plan; None: not measured.
    stand_in
        ``package.module:Class`` of its stand-in, where `emulators` does not know it of itself: a
        class with ``setting`` (the field that leads the loader to it), ``app`` (ASGI) and
        ``truth(plan)``.
    address_form
        What stands behind the name and a colon in an address of it, for an error.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    publisher: ClassVar[Publisher]
    config_model: ClassVar[type[LoaderConfig]]
    services: ClassVar[Mapping[str, Limits]]
    heavy: ClassVar[bool]
    observed_mb_s: ClassVar[float | None]
    stand_in: ClassVar[str | None]
    address_form: ClassVar[str]

    def settings_of(self, rest: str) -> dict[str, Any] | None:
        """The settings that an address ``name:rest`` stands for; None where it is not readable."""
        ...

    def plan(self, config: Any, session: Session) -> list[VolumePlan]:
        """Ask the archive what `config` names; metadata only.

        Raises
        ------
        NotFoundError, TransportError, FormatError, ConfigError
        """
        ...

    def plan_possible(
        self, config: Any, session: Session
    ) -> tuple[list[VolumePlan], list[MacroscopeError]]:
        """What can be planned of what `config` names one by one, and why the rest cannot.

        Raises
        ------
        NotFoundError, TransportError, FormatError, ConfigError
            One thing alone was asked for.
        """
        ...

    def fetch(self, plan: VolumePlan, config: Any, session: Session, raw: RawFiles) -> None:
        """Bring the files that must lie on disk before their voxels can be read.

        Archives that are read from ranges, tiles or chunks have nothing to do here.
        """
        ...

    def open(self, plan: VolumePlan, config: Any, session: Session, raw: RawFiles) -> VolumeReader:
        """A reader of the planned voxels. Called in every process that will read."""
        ...

    def verify_source_unchanged(
        self, plan: VolumePlan, config: Any, session: Session, raw: RawFiles
    ) -> list[Fetched]:
        """After the last shard: what is known of the source files (size, sha256, ETag).

        One for each file of the plan, in its order, or none where none came whole. Also the last
        look at the source: is it still the one that the plan was made from?

        Raises
        ------
        SourceChangedError
            The archive's file or array is another one now.
        """
        ...


def service_of(archive: Archive, plan: VolumePlan) -> str:
    """The service whose connections reading a volume uses: the first, if the archive tells none."""
    tells = getattr(archive, "service_of", None)
    return next(iter(archive.services)) if tells is None else str(tells(plan))


class ArchiveBase(ABC):
    """What most archives have in common: no files to bring beforehand, volumes of common size."""

    heavy: ClassVar[bool] = False
    observed_mb_s: ClassVar[float | None] = None
    stand_in: ClassVar[str | None] = None
    address_form: ClassVar[str] = "nothing behind the colon"

    def settings_of(self, rest: str) -> dict[str, Any] | None:
        return None if rest else {}

    @abstractmethod
    def plan(self, config: Any, session: Session) -> list[VolumePlan]:
        """See `Archive`."""

    def plan_possible(
        self, config: Any, session: Session
    ) -> tuple[list[VolumePlan], list[MacroscopeError]]:
        return self.plan(config, session), []

    def fetch(self, plan: VolumePlan, config: Any, session: Session, raw: RawFiles) -> None:
        return None
