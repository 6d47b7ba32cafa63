"""EPFL CVLab: the hippocampus volume, one multi-page TIFF on a web server.

``https://documents.epfl.ch/.../volumedata.tif``, written by ITK: 3,353,674,357 bytes, 1065 pages
of 1536 x 2048 uint8, their directories scattered through the file, no resolution and no
description in it. All facts about the specimen come from the archive's page.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import ClassVar
from urllib.parse import unquote, urlsplit

from lib.about import Provenance, Source
from lib.archives.base import ArchiveBase, Publisher
from lib.archives.remote_tiff import (
    as_remote,
    describe,
    open_local,
    open_ranges,
    read_cost,
    settle_ranges,
    source_file,
)
from lib.archives.selection import choose_crop
from lib.config.loaders import EPFL_FILE_PATH, EPFLConfig
from lib.formats.base import VolumeReader
from lib.formats.tiff.reader import TiffVolume
from lib.plan import About, VolumePlan
from lib.rawfiles.files import RawFiles, kept_or_error
from lib.rawfiles.ranged import digest_reads
from lib.safety import place_of
from lib.transport.limits import MIB, Limits
from lib.transport.partial import Fetched
from lib.transport.session import Session

SERVICE = "epfl"

_PAGE = "https://www.epfl.ch/labs/cvlab/data/data-em/"


class EPFL(ArchiveBase):
    """The one file; its pages are read by ranges, and the whole is kept on the way."""

    name: ClassVar[str] = "epfl"
    title: ClassVar[str] = "EPFL CVLab hippocampus (HTTPS)"
    publisher: ClassVar[Publisher] = Publisher("CVLab, EPFL", "https://www.epfl.ch/labs/cvlab/")
    config_model: ClassVar[type[EPFLConfig]] = EPFLConfig
    services: ClassVar[dict[str, Limits]] = {SERVICE: Limits(4, None, 15.0, 60.0, 5, 1.0, 8 * MIB)}
    observed_mb_s: ClassVar[float | None] = 14.9  # on 16 ranges
    address_form: ClassVar[str] = "nothing behind the colon: it has one volume"

    def plan(self, config: EPFLConfig, session: Session) -> list[VolumePlan]:
        """Ask for the file's size and its first and last directories.

        Raises
        ------
        NotFoundError
            There is no such file.
        FormatError
            The pages are fewer than the file itself says: it is cut short.
        """
        remote = session.http(SERVICE).head(config.download_url)
        volume, header = describe(session, SERVICE, remote)
        voxel = config.voxel_size_nm
        crop = choose_crop(config.box, volume.shape_zyx, voxel, volume.origin.at(voxel))
        file_name = unquote(PurePosixPath(urlsplit(config.download_url).path).name)
        cost = read_cost(volume, header, crop)
        notes = [*volume.notes, *_voxel_notes(volume, config)]
        if not crop.whole:
            notes.append("only the pages of the box are fetched; the raw file is not kept")
        elif not config.keep_raw:
            cost = cost.times(digest_reads(volume.source.size, config.max_workers))
        stem = file_name.rpartition(".")[0] or file_name
        return [
            VolumePlan(
                source=self.name,
                source_id=config.source_id,
                source_path=place_of(config.download_url),
                name=f"{config.source_id}_{stem}{crop.suffix}",
                shape_zyx=crop.box.shape_zyx,
                dtype=volume.dtype.name,
                voxel_nm_zyx=voxel,
                voxel_size_provenance="configuration",
                voxel_size_approximate=True,
                origin_nm_zyx=crop.origin_nm_zyx,
                box_zyx=crop.chosen,
                internal_path=None,
                reader={"shape_zyx": list(volume.shape_zyx), **volume.turned},
                files=(source_file(remote, file_name),),
                about=_about(config),
                download_bytes=cost.nbytes,
                download_requests=cost.requests,
                notes=tuple(notes),
                stated=_stated(volume, config),
            )
        ]

    def open(
        self, plan: VolumePlan, config: EPFLConfig, session: Session, raw: RawFiles
    ) -> VolumeReader:
        file = plan.files[0]
        known = raw.known(file) if config.enable_downloads else kept_or_error(file, raw)
        if known is not None:
            return open_local(known.path, plan)
        return open_ranges(SERVICE, plan, session, raw)

    def verify_source_unchanged(
        self, plan: VolumePlan, config: EPFLConfig, session: Session, raw: RawFiles
    ) -> list[Fetched]:
        """Look at the file once more, then complete what was kept, or its digest."""
        file = plan.files[0]
        session.http(SERVICE).check_same(as_remote(file), raw.path(file))
        known = raw.known(file)
        return [known] if known is not None else settle_ranges(SERVICE, plan, session, raw)


def _voxel_notes(volume: TiffVolume, config: EPFLConfig) -> list[str]:
    notes = ["voxel size from configuration: the file has none, the archive's page says about 5 nm"]
    own = volume.voxel
    if (own.z_nm, own.y_nm, own.x_nm) != (None, None, None):
        notes = [
            f"the file says {own.z_nm}, {own.y_nm}, {own.x_nm} nm (z, y, x); the configuration, "
            f"{config.voxel_size_nm}, was taken"
        ]
    return notes


def _stated(volume: TiffVolume, config: EPFLConfig) -> dict[str, Provenance]:
    """Who gives the voxel size: the settings; where they are silent, the page for its own files."""
    by = Provenance(source="configuration", where="voxel_size_nm")
    if "voxel_size_nm" not in config.model_fields_set:
        source: Source = "archive" if _is_of_the_page(config.download_url) else "assumed"
        by = Provenance(source=source, where=f"about 5 nm by {_PAGE}")
    stated = {f"voxel_size_nm.{axis}": by for axis in "zyx"}
    if volume.origin.stated:
        place = Provenance(source="file", where=volume.origin.provenance)
        stated |= {f"translation.{axis}": place for axis in volume.origin.axes}
    return stated


def _about(config: EPFLConfig) -> About:
    """What the page says of its own files; of a file elsewhere only what the settings say."""
    if not _is_of_the_page(config.download_url):
        setting = Provenance(source="configuration", where="description")
        return About(description=config.description, origin=setting)
    return About(
        title="Electron microscopy dataset of the CA1 hippocampus",
        description=config.description,
        modality="FIB-SEM",
        specimen="CA1 hippocampus region of a rodent brain",
        authors=("Lucchi et al.", "EPFL CVLab"),
        licence=None,  # the page states none
        citation="Lucchi et al. 2013, CVPR, IEEE 6619103",
        extra={"page": _PAGE},
        origin=Provenance(source="archive", where=_PAGE),
    )


def _is_of_the_page(url: str) -> bool:
    """Whether the file is one of the data set's, on whatever server: they share a folder."""
    folder = PurePosixPath(urlsplit(EPFL_FILE_PATH).path).parent
    return PurePosixPath(urlsplit(url).path).parent == folder
