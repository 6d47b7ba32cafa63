"""What an archive is: two methods, and a plain plan that passes between them.

``plan`` asks the archive what there is and downloads nothing but metadata. ``open`` turns one
planned volume into a reader of voxels. A plan is plain JSON, so that it can be shown, stored,
compared and sent to a Dask worker on another host, which opens the reader for itself.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from lib.config.loaders import LoaderConfig
from lib.formats.base import VolumeReader
from lib.plan import VolumePlan
from lib.rawfiles.files import RawFiles
from lib.transport.partial import Fetched
from lib.transport.session import Session


class Archive(Protocol):
    """The whole extension point: a class with these members and one line in the registry.

    `ArchiveBase` has the two methods that archives without files leave alone.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    config_model: ClassVar[type[LoaderConfig]]
    heavy: ClassVar[bool]  # large as a rule: modes that do not name it run it after the light ones
    services: ClassVar[tuple[str, ...]]  # what it asks, by the names of lib.transport.limits

    def plan(self, config: Any, session: Session) -> list[VolumePlan]:
        """Ask the archive what `config` names; metadata only.

        Raises
        ------
        NotFoundError, TransportError, FormatError, ConfigError
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
    return archive.services[0] if tells is None else str(tells(plan))


class ArchiveBase:
    """For archives that have no files to bring beforehand."""

    def fetch(self, plan: VolumePlan, config: Any, session: Session, raw: RawFiles) -> None:
        return None
