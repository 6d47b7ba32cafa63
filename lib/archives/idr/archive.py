"""IDR, the Image Data Resource: files that OMERO knows, on EMBL-EBI's file tree.

An image's original file lies at ``/uod/idr/filesets/...`` on the OMERO server, and at the same path
below ``/pub/databases/IDR`` on FTP and HTTPS; OMERO itself lets nobody download.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from lib.about import Provenance
from lib.archives.base import ArchiveBase, Publisher
from lib.archives.ebi.tree import HTTPS, SERVICES, EbiTree
from lib.archives.idr import omero
from lib.archives.idr.files import choose_file, locate, volumes_of
from lib.archives.idr.listing import list_inside, search_studies
from lib.archives.idr.omero import Image
from lib.archives.listed import Item
from lib.archives.remote_tiff import (
    TransferCost,
    open_local,
    open_ranges,
    read_cost,
    settle_ranges,
)
from lib.archives.selection import Crop, Selection, choose_crop, plan_each, with_notes
from lib.archives.voxels import Voxel, decide_voxel
from lib.config.loaders import IDRConfig
from lib.errors import (
    MacroscopeError,
    NotFoundError,
)
from lib.formats.base import VolumeReader
from lib.formats.tiff.reader import TiffVolume
from lib.plan import SourceFile, VolumePlan
from lib.rawfiles.files import RawFiles, fetched_or_error, kept_or_error
from lib.rawfiles.ranged import digest_reads
from lib.safety import slug, without_tiff_suffix
from lib.transport.limits import Limits
from lib.transport.partial import Fetched
from lib.transport.session import Session

API = "idr-api"
_STUDY = re.compile(r"(idr\d{4,})")
_FTP_COMMANDS = 3  # of one file: SIZE, MDTM, RETR


@dataclass(frozen=True, slots=True)
class _Located:
    """An image, its file, and what its annotations say."""

    image: Image
    file: SourceFile
    study: str | None
    folder: str  # of raw files: images of one study share their files
    annotations: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Way:
    """How the voxels come: by ranges, or by a file that is brought first."""

    direct: bool
    cost: TransferCost
    notes: tuple[str, ...] = ()


class IDR(ArchiveBase):
    """One volume for each image and channel."""

    name: ClassVar[str] = "idr"
    title: ClassVar[str] = "IDR (OMERO, FTP and HTTPS)"
    publisher: ClassVar[Publisher] = Publisher(
        "Image Data Resource", "https://idr.openmicroscopy.org/"
    )
    config_model: ClassVar[type[IDRConfig]] = IDRConfig
    services: ClassVar[dict[str, Limits]] = {API: Limits(1, 2.0, 10.0, 30.0, 4, 1.0), **SERVICES}
    observed_mb_s: ClassVar[float | None] = 9.4  # over FTP
    address_form: ClassVar[str] = "the number of an image, as idr:9846137, or idr:dataset/10740"

    def settings_of(self, rest: str) -> dict[str, Any] | None:
        """Numbers of images, or a data set's."""
        word, _, number = rest.partition("/")
        if word == "dataset" and number.isdecimal():
            return {"dataset_id": int(number)}
        numbers = [one.strip() for one in rest.split(",")]
        return {"image_ids": [*map(int, numbers)]} if all(map(str.isdecimal, numbers)) else None

    def plan(self, config: IDRConfig, session: Session) -> list[VolumePlan]:
        """Ask OMERO for images and files, and read the directories of each TIFF.

        Images of a dataset that cannot be converted are left out and named in the notes of the
        others; images that are asked for by id must be convertible.

        Raises
        ------
        NotFoundError
            There is no such image or dataset, or its file is not on the file tree.
        FormatError
            A file is damaged, incomplete, or of a kind that is not converted.
        """
        client, root = session.http(API), config.api_base_url
        ids = dict.fromkeys(config.image_ids)
        if config.dataset_id is not None:
            ids.update(dict.fromkeys(omero.list_images(client, root, config.dataset_id)))
        selection, paths = Selection.of(config), list[str]()

        def plan_image(image_id: int) -> list[VolumePlan]:
            try:
                return [*self._plan_image(config, session, image_id, selection, paths)]
            except MacroscopeError as error:
                raise error.located(
                    archive=self.name, unit=f"image {image_id}"
                ) from error.__cause__

        plans = plan_each(
            ids, plan_image, lambda i: f"image {i}", must=lambda i: i in config.image_ids
        )
        selection.require(paths, config.ftp_root_path)
        plans = [with_notes(plan, selection.notes(paths)) for plan in plans]
        return [*_counted_once(plans, keep=config.keep_raw)]

    def listing(self, inside: str, config: IDRConfig, session: Session) -> list[Item]:
        """Studies; the images of ``idr0086``, ``project/ID`` or ``dataset/ID``; or one image."""
        return list_inside(inside, config, session, self.plan)

    def search(
        self, words: list[str], most: int, config: IDRConfig, session: Session
    ) -> list[Item]:
        """The studies of whose name or description all words are part."""
        return search_studies(words, most, config, session)

    def fetch(self, plan: VolumePlan, config: IDRConfig, session: Session, raw: RawFiles) -> None:
        """Bring the file, unless its voxels are read by ranges; it must hold the plan's volume."""
        file, shelf = plan.files[0], _shelf(plan, raw)
        if not config.enable_downloads:
            kept_or_error(file, shelf)
            return
        if plan.reader["direct"]:
            return
        with shelf.turn(file):
            if shelf.known(file) is not None:
                return
            fetched = _tree(config, session).download(file, shelf.path(file))
            try:
                with open_local(fetched.path, plan.model_copy(update={"box_zyx": None})):
                    pass
            except MacroscopeError as error:
                shelf.forget(file)
                raise error.located(archive=self.name, location=file.url) from None
            shelf.remember(file, fetched)

    def open(
        self, plan: VolumePlan, config: IDRConfig, session: Session, raw: RawFiles
    ) -> VolumeReader:
        file, shelf = plan.files[0], _shelf(plan, raw)
        known = shelf.known(file) if config.enable_downloads else kept_or_error(file, shelf)
        if known is None and plan.reader["direct"]:
            return open_ranges(HTTPS, plan, session, shelf)
        if known is None:
            self.fetch(plan, config, session, raw)  # another host, or another day
        return open_local(shelf.path(file), plan)

    def verify_source_unchanged(
        self, plan: VolumePlan, config: IDRConfig, session: Session, raw: RawFiles
    ) -> list[Fetched]:
        """Look at the file once more; its digest is that of the kept or streamed bytes."""
        file, shelf = plan.files[0], _shelf(plan, raw)
        _tree(config, session, plan).check_same(file)
        known = shelf.known(file)
        if known is None and plan.reader["direct"]:
            return settle_ranges(HTTPS, plan, session, shelf)
        return [fetched_or_error(file, shelf)]

    # --- inside -----------------------------------------------------------------------------

    def _plan_image(
        self,
        config: IDRConfig,
        session: Session,
        image_id: int,
        selection: Selection,
        paths: list[str],
    ) -> Iterator[VolumePlan]:
        """Plans of one image, if its file is wanted; its path is added to `paths`."""
        client, root = session.http(API), config.api_base_url
        image = omero.get_image(client, root, image_id)
        tree = _tree(config, session)
        path, study, folder = locate(omero.get_paths(client, root, image_id), config, image_id)
        paths.append(path.removeprefix(config.ftp_root_path.rstrip("/")).lstrip("/"))
        if not selection.takes(paths[-1]):
            return
        file, direct = choose_file(tree, path, config)
        located = _Located(image, file, study, folder, _annotations(client, root, image_id))
        counters = session.counters.service(HTTPS)
        before = counters.snapshot()
        for plane, volume, notes in volumes_of(tree, file, image):
            after = counters.snapshot()
            header = TransferCost(
                after["bytes_received"] - before["bytes_received"],
                after["requests"] - before["requests"],
            )
            voxel = decide_voxel(volume.voxel, image.voxel_nm_zyx, "the API", volume.origin)
            crop = choose_crop(config.box, volume.shape_zyx, voxel.nm_zyx, voxel.origin_nm_zyx)
            way = _way(config, volume, header, crop, file, direct)
            notes = (*notes, *image.notes, *voxel.notes, *way.notes)
            yield self._plan_volume(located, volume, voxel, crop, way, plane, notes)
            before = counters.snapshot()

    def _plan_volume(
        self,
        located: _Located,
        volume: TiffVolume,
        voxel: Voxel,
        crop: Crop,
        way: _Way,
        plane: tuple[int | None, int | None],
        notes: tuple[str, ...],
    ) -> VolumePlan:
        image, (channel, time) = located.image, plane
        marks = "".join(f"_{k}{n}" for k, n in (("c", channel), ("t", time)) if n is not None)
        about = omero.about_image(image, located.annotations, located.study)
        if about.imaging_date is None and volume.acquired:
            said_by = Provenance(source="file", where="OME-XML AcquisitionDate")
            about = about.revised(imaging_date=volume.acquired, stated={"imaging_date": said_by})
        if volume.facts:
            about = about.revised(extra={**about.extra, "microscope": volume.facts})
        study = _STUDY.search(located.study or "")
        return VolumePlan(
            source=self.name,
            source_id=f"{image.image_id} ({study[1]})" if study else str(image.image_id),
            source_path=f"image {image.image_id}{marks}",
            name=f"{slug(without_tiff_suffix(image.name))}_{image.image_id}{marks}{crop.suffix}",
            shape_zyx=crop.box.shape_zyx,
            dtype=volume.dtype.name,
            voxel_nm_zyx=voxel.nm_zyx,
            voxel_size_provenance=voxel.provenance,
            voxel_size_approximate=voxel.approximate,
            origin_nm_zyx=crop.origin_nm_zyx,
            box_zyx=crop.chosen,
            reader={
                "shape_zyx": list(volume.shape_zyx),
                "series": volume.index,
                "channel": channel,
                "time": time,
                "direct": way.direct,
                "folder": located.folder,
                **volume.turned,
            },
            files=(located.file,),
            about=about,
            download_bytes=way.cost.nbytes,
            download_requests=way.cost.requests,
            notes=notes,
            stated=voxel.stated,
        )


def _counted_once(plans: list[VolumePlan], *, keep: bool) -> Iterator[VolumePlan]:
    """The cost of a kept file that several volumes share belongs to the first of them."""
    seen: set[str] = set()
    for plan in plans:
        url = plan.files[0].url
        if keep and url in seen and not plan.reader["direct"]:
            note = "shares its file with another volume of this plan, which brings it"
            update = {"download_bytes": 0, "download_requests": 0, "notes": (*plan.notes, note)}
            plan = plan.model_copy(update=update)
        seen.add(url)
        yield plan


def _tree(config: IDRConfig, session: Session, plan: VolumePlan | None = None) -> EbiTree:
    direct = plan is not None and plan.reader["direct"]
    protocol = "https" if direct else config.protocol
    return EbiTree(session, config.ftp_host, config.https_base_url, protocol)


def _shelf(plan: VolumePlan, raw: RawFiles) -> RawFiles:
    """Kept files lie by study, because several images may share one; others by image."""
    return raw.within(plan.reader["folder"]) if raw.keep else raw


def _annotations(client: Any, root: str, image_id: int) -> dict[str, str]:
    """Annotations make the record richer; an image without them is converted all the same."""
    try:
        return omero.get_annotations(client, root, image_id)
    except NotFoundError:
        return {}


def _way(
    config: IDRConfig,
    volume: TiffVolume,
    header: TransferCost,
    crop: Crop,
    file: SourceFile,
    direct: bool,
) -> _Way:
    if not direct:
        by_ftp = file.url.startswith("ftp:")
        return _Way(False, TransferCost(file.size or 0, _FTP_COMMANDS if by_ftp else 1))
    cost = read_cost(volume, header, crop)
    if not crop.whole:
        return _Way(True, cost, ("only the pages of the box are fetched; no raw file is kept",))
    return _Way(True, cost.times(digest_reads(volume.source.size, config.max_workers)))
