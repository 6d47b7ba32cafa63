"""What `macroscope.ingest` returns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib.errors import NotFoundError
from lib.geometry import LengthsZYX, ShapeZYX
from lib.ingest.result import ProcessingResult

if TYPE_CHECKING:
    from macroscope._open import OpenVolume


@dataclass(frozen=True, slots=True)
class IngestedVolume:
    """What a run came to for one volume.

    Attributes
    ----------
    source, source_id, name
        The archive, its accession or address, and the volume's name in the store.
    status
        ``complete``, ``failed``, ``cancelled`` or ``skipped``.
    shape_zyx, voxel_nm_zyx
        Voxels, and the size of one in nm.
    stored_bytes
        As stored, all levels included.
    seconds
        What it took.
    made
        False where it was complete already.
    repaired_files
        Of a complete volume that was damaged: how many files were made anew.
    metadata_path
        Address of its record; None where there is none.
    error
        What went wrong, and what to do about it.
    """

    source: str
    source_id: str
    name: str
    status: str
    shape_zyx: ShapeZYX
    voxel_nm_zyx: LengthsZYX
    stored_bytes: int
    seconds: float
    made: bool
    repaired_files: int
    metadata_path: str | None
    error: str | None

    def open(self) -> OpenVolume:
        """Open it.

        Raises
        ------
        NotFoundError
            It did not become complete.
        """
        from macroscope._open import open

        if self.status != "complete" or self.metadata_path is None:
            raise NotFoundError(
                f"the volume is not complete: {self.status}",
                archive=self.source,
                location=self.name,
                advice=self.error or "Run again: finished work is kept",
            )
        return open(self.metadata_path)


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What a run came to.

    Attributes
    ----------
    volumes
        All of them, those that failed included.
    sources
        The same by source, with the errors of sources of which nothing is known.
    report
        Address of the page that shows the store; None where none was written.
    """

    volumes: tuple[IngestedVolume, ...]
    sources: tuple[ProcessingResult, ...]
    report: str | None = None


def result_of(sources: Iterable[ProcessingResult], report: str | None) -> IngestResult:
    """The result of a run from those of its sources."""
    found = tuple(sources)
    volumes = tuple(
        IngestedVolume(
            source=one.source,
            source_id=volume.source_id,
            name=volume.name,
            status=volume.status,
            shape_zyx=volume.shape_zyx,
            voxel_nm_zyx=volume.voxel_nm_zyx,
            stored_bytes=volume.stored_bytes,
            seconds=volume.seconds,
            made=volume.made,
            repaired_files=volume.repaired_files,
            metadata_path=volume.metadata_path,
            error=volume.error,
        )
        for one in found
        for volume in one.volumes
    )
    return IngestResult(volumes, found, report)
