"""What an archive is: two methods, and the plain data that passes between them.

``plan`` asks the archive what there is and downloads nothing but metadata. ``open`` turns one
planned volume into a reader of voxels. A plan is plain JSON, so that it can be shown, stored,
compared and sent to a Dask worker on another host, which opens the reader for itself.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from lib.geometry import Box, LengthsZYX, ShapeZYX
from lib.loader_config import LoaderConfig
from lib.rawfiles import RawFiles
from lib.readers.base import VolumeReader
from lib.transport.partial import Fetched
from lib.transport.session import Session


class Plain(BaseModel):
    """Frozen, JSON-able, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceFile(Plain):
    """One file, or one array of objects, that a volume is made from."""

    url: str
    name: str
    size: int | None = None
    etag: str | None = None
    last_modified: str | None = None
    publisher_checksum: str | None = None  # "md5:...", or None where the publisher gives none


class About(Plain):
    """What the archive says about a volume; absent stays absent, nothing is guessed."""

    title: str | None = None
    description: str | None = None
    modality: str | None = None
    organism: str | None = None
    specimen: str | None = None
    authors: tuple[str, ...] = ()
    licence: str | None = None  # SPDX id, or None where none is stated
    citation: str | None = None
    doi: str | None = None
    imaging_date: str | None = None  # ISO 8601
    release_date: str | None = None
    extra: dict[str, Any] = Field(default_factory=dict)


class VolumePlan(Plain):
    """One volume to be made.

    ``reader`` is private to the archive: whatever its ``open`` needs to find the voxels again.
    ``shape_zyx``, ``origin_nm_zyx`` and the voxel size describe what will be delivered, that is,
    the ``box_zyx`` of the source where only a part was chosen.
    """

    source: str  # the registry name
    source_id: str  # the accession as the archive writes it
    name: str  # file stem, stable from run to run
    shape_zyx: ShapeZYX
    dtype: str  # numpy name, native byte order: "uint8", "int16", ...
    voxel_nm_zyx: LengthsZYX
    voxel_size_provenance: str  # "file", "api", "configuration", ...
    voxel_size_approximate: bool = False
    origin_nm_zyx: LengthsZYX = (0.0, 0.0, 0.0)  # centre of the first voxel
    box_zyx: Box | None = None  # the chosen part, in the source's own voxels
    kind: Literal["image", "labels"] = "image"
    scale_level: str | None = None
    internal_path: str | None = None
    reader: dict[str, Any]
    files: tuple[SourceFile, ...]
    about: About
    download_bytes: int  # what a run will fetch for this volume
    download_requests: int
    notes: tuple[str, ...] = ()  # disagreements and doubts, copied to the record

    def identity(self) -> dict[str, Any]:
        """What decides the voxels: not the words about them, nor the server that gave them."""
        words = {"about", "notes", "download_bytes", "download_requests"}
        decided = self.model_dump(mode="json", exclude=words)
        for file in decided["files"]:
            del file["url"]
        return decided


class Archive(Protocol):
    """The whole extension point: a class with these members and one line in the registry.

    `ArchiveBase` has the two methods that archives without files leave alone.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    config_model: ClassVar[type[LoaderConfig]]
    heavy: ClassVar[bool]  # worth a Dask cluster of its own
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

    def settle(
        self, plan: VolumePlan, config: Any, session: Session, raw: RawFiles
    ) -> list[Fetched]:
        """After the last shard: what is known of the source files (size, sha256, ETag).

        Also the last look at the source: is it still the one that the plan was made from?

        Raises
        ------
        SourceChangedError
            The archive's file or array is another one now.
        """
        ...


class ArchiveBase:
    """For archives that have no files to bring beforehand."""

    def fetch(self, plan: VolumePlan, config: Any, session: Session, raw: RawFiles) -> None:
        return None
