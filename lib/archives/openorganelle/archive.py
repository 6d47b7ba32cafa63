"""OpenOrganelle: multiscale Zarr v2 arrays in an anonymous S3 bucket.

Bucket ``janelia-cosem-datasets``; ``{dataset}/{dataset}.zarr/recon-N/{em,labels}/...``. The arrays
follow NGFF 0.4; nothing but the Zarr itself is asked, because the archive has no stable API.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar
from urllib.parse import quote

from lib.archives.base import ArchiveBase
from lib.archives.openorganelle.tree import Tree, TreeArray, list_array, unbelievable
from lib.archives.parts import choose_part
from lib.archives.selection import Selection, left_out_notes, plan_each, with_notes
from lib.archives.voxels import Voxel, decide_voxel
from lib.bytesource.s3_tree import S3Tree
from lib.config.loaders import OPENORGANELLE_EM_PATHS, OpenOrganelleConfig
from lib.errors import NotFoundError, SourceChangedError
from lib.formats.calibration import Origin
from lib.formats.zarr.array import ArrayDocument, chunks_in, parse_array
from lib.formats.zarr.reader import ZarrReader
from lib.geometry import Box, LengthsZYX, ShapeZYX
from lib.plan import About, SourceFile, SourceGrid, VolumePlan
from lib.provenance import Provenance
from lib.rawfiles.files import RawFiles
from lib.transport.partial import Fetched
from lib.transport.s3.reader import ObjectReader
from lib.transport.session import Session

SERVICE = "s3"

_ABOUT = {
    "jrc_mus-nacc-2": About(
        title="Mouse nucleus accumbens",
        modality="FIB-SEM",
        organism="Mus musculus",
        specimen="nucleus accumbens",
        licence="CC-BY-4.0",
        doi="10.25378/janelia.24222898",
        citation="Wu et al. 2017, doi:10.1073/pnas.1701078114; "
        "Xu et al. 2021, doi:10.1038/s41586-021-03992-4",
        imaging_date="2015-03-09",
        origin=Provenance(source="archive", where="https://doi.org/10.25378/janelia.24222898"),
    )
}


class OpenOrganelle(ArchiveBase):
    """One volume for each chosen level of each multiscale below ``zarr_path``."""

    name: ClassVar[str] = "openorganelle"
    title: ClassVar[str] = "OpenOrganelle (Janelia, S3)"
    config_model: ClassVar[type[OpenOrganelleConfig]] = OpenOrganelleConfig
    heavy: ClassVar[bool] = True
    services: ClassVar[tuple[str, ...]] = (SERVICE,)

    def plan(self, config: OpenOrganelleConfig, session: Session) -> list[VolumePlan]:
        """Find the arrays, read their documents and list their chunks.

        Raises
        ------
        NotFoundError
            The dataset, path or level is not there; the error lists what is.
        """
        objects, root = self._bucket(config, session)
        tree = Tree(objects, root)
        default = OPENORGANELLE_EM_PATHS.get(config.dataset_id)
        paths = config.zarr_path or ([default] if default else [])
        if isinstance(paths, str):
            paths = [paths]
        found: dict[str, Callable[[], TreeArray]] = {}
        for path in paths:
            found |= tree.find(path, config.scale_level)
        if not found:
            raise NotFoundError(
                f"no array at {', '.join(paths) or 'zarr_path (not set)'}",
                archive=self.name,
                location=root,
                advice=f"There are: {', '.join(tree.children('')) or 'nothing'}",
            )
        selection = Selection.of(config)
        named = {path.strip("/") for path in paths}
        plans = plan_each(
            selection.require([*found], root),
            lambda path: [self._plan_array(config, session, objects, root, found[path]())],
            lambda path: path,
            must=lambda path: bool(named & {path, path.rpartition("/")[0]}),
        )
        notes = [*left_out_notes(tree.unreadable), *selection.notes(found)]
        return [with_notes(plan, notes) for plan in plans]

    def open(
        self, plan: VolumePlan, config: OpenOrganelleConfig, session: Session, raw: RawFiles
    ) -> ZarrReader:
        objects, root = self._bucket(config, session)
        path = f"{root}/{plan.internal_path}"
        document = _stored_document(plan)
        box = plan.box_zyx or Box.whole(document.shape_zyx)
        holes = plan.source_grid.missing() if plan.source_grid is not None else frozenset()
        return ZarrReader(S3Tree(session, SERVICE, objects), path, document, box, holes)

    def settle(
        self, plan: VolumePlan, config: OpenOrganelleConfig, session: Session, raw: RawFiles
    ) -> list[Fetched]:
        """List the chunks again: every size and ETag must be what the plan saw."""
        objects, root = self._bucket(config, session)
        document = _stored_document(plan)
        box = plan.box_zyx or Box.whole(document.shape_zyx)
        path = f"{root}/{plan.internal_path}"
        listing = dict(_list_chunks(session, objects, path, document, chunks_in(document, box)))
        zarray = objects.get(f"{path}/.zarray")
        source = plan.files[0]
        if zarray is None or _listing_digest(bytes(zarray), listing) != source.etag:
            raise SourceChangedError(
                "the array changed while it was read", archive=self.name, location=source.url
            )
        return []

    def _bucket(self, config: OpenOrganelleConfig, session: Session) -> tuple[ObjectReader, str]:
        bucket, _, prefix = str(config.s3_uri).removeprefix("s3://").partition("/")
        dataset = config.dataset_id
        root = prefix if prefix.endswith(".zarr") else f"{prefix}/{dataset}/{dataset}.zarr"
        objects = session.objects(
            SERVICE,
            f"s3://{bucket}",
            endpoint_url=config.s3_endpoint_url,
            anonymous=config.s3_anonymous,
            key=config.s3_key.get_secret_value() if config.s3_key else None,
            secret=config.s3_secret.get_secret_value() if config.s3_secret else None,
            region=config.s3_region,
        )
        return objects, root.strip("/")

    def _plan_array(
        self,
        config: OpenOrganelleConfig,
        session: Session,
        objects: ObjectReader,
        root: str,
        array: TreeArray,
    ) -> VolumePlan:
        document = array.document
        voxel = _voxel(config, array)
        part = choose_part(config.box, document.shape_zyx, voxel.nm_zyx, voxel.origin_nm_zyx)
        wanted = chunks_in(document, part.box)
        listing = dict(_list_chunks(session, objects, f"{root}/{array.path}", document, wanted))
        holes = [index for index in wanted if document.chunk_key(index) not in listing]
        stored = sum(size for size, _ in listing.values())
        dataset = config.dataset_id
        url = f"{str(config.s3_uri).split('/')[2]}/{root}/{array.path}"
        about = _about(dataset, array)
        return VolumePlan(
            source=self.name,
            source_id=f"{dataset}/{array.path}",
            source_path=f"s3://{url}",
            name=f"{dataset}_{array.path.replace('/', '_')}{part.suffix}",
            shape_zyx=part.box.shape_zyx,
            dtype=document.dtype.name,
            voxel_nm_zyx=voxel.nm_zyx,
            voxel_size_provenance=voxel.provenance,
            voxel_size_approximate=voxel.approximate,
            origin_nm_zyx=part.origin_nm_zyx,
            box_zyx=part.chosen,
            kind="labels" if array.labels else "image",
            scale_level=array.level,
            internal_path=array.path,
            stored_as="boxes",
            reader={
                "zarray": bytes(array.zarray).decode(),
                "separator": document.separator,
            },
            source_grid=SourceGrid.of_box(part.box, document.chunk_zyx, document.compressor, holes),
            files=(
                SourceFile(
                    url=f"s3://{quote(url)}",
                    name=array.path,
                    size=stored,
                    etag=_listing_digest(bytes(array.zarray), listing),
                ),
            ),
            about=about,
            download_bytes=stored,
            download_requests=len(wanted) - len(holes),
            notes=(*array.notes, *document.notes, *voxel.notes),
            stated=voxel.stated,
        )


def _stored_document(plan: VolumePlan) -> ArrayDocument:
    return parse_array(
        plan.reader["zarray"].encode(),
        plan.internal_path or "",
        separator=plan.reader["separator"],
    )


def _voxel(config: OpenOrganelleConfig, array: TreeArray) -> Voxel:
    """What the settings say of s0, scaled to the level, else what the multiscale says."""
    place = Origin(nm_zyx=array.translation_nm_zyx, provenance="multiscales")
    if config.voxel_size is not None:
        by = Provenance(source="configuration", where="voxel_size")
        notes: tuple[str, ...] = ()
        unscaled = array.voxel_nm_zyx != array.finest_nm_zyx and not array.voxel.provenance
        if unscaled:
            notes = ("the level has no scale: it is given the voxel size of s0",)
        nm_zyx = config.voxel_size if unscaled else _scaled(config.voxel_size, array)
        stated = {f"voxel_size_nm.{axis}": by for axis in "zyx"}
        at = array.translation_nm_zyx
        return Voxel(nm_zyx, "configuration", unscaled, notes, at, stated)
    voxel = decide_voxel(array.voxel, (None, None, None), "the settings", place)
    if voxel.provenance == "unknown":  # what records have always called an array of no multiscale
        voxel = replace(voxel, provenance="assumed", notes=())
    return voxel


def _scaled(voxel_s0: LengthsZYX, array: TreeArray) -> LengthsZYX:
    z, y, x = (
        v * here / finest
        for v, here, finest in zip(voxel_s0, array.voxel_nm_zyx, array.finest_nm_zyx, strict=True)
    )
    return (z, y, x)


def _about(dataset: str, array: TreeArray) -> About:
    """What the table knows; else what the array's own metadata and its group's name say.

    EM groups are named {modality}-{dtype}: fibsem-int16, fibsem-uint8, tem-uint8. Neither licence
    nor DOI of one data set is said of another; that of the images is not that of labels.
    """
    known = _ABOUT.get(dataset)
    if known is not None:
        return known.revised(doi=None) if array.labels else known
    words: dict[str, Any] = dict(array.words)
    stated = {}
    found = re.search(r"(?:^|/)em/(fibsem|sbfsem|sbem|sstem|tem|stem)-", array.path)
    if found and "modality" not in words:
        words["modality"] = found[1]
        stated["modality"] = Provenance(source="name", where="name of the group")
    return About(
        **words,
        origin=Provenance(source="file", where=".zattrs of the multiscale"),
        stated=stated,
    )


def _list_chunks(
    session: Session,
    objects: ObjectReader,
    path: str,
    document: ArrayDocument,
    wanted: list[ShapeZYX],
) -> Iterator[tuple[str, tuple[int, str | None]]]:
    """Wanted chunks that exist, with size and ETag: one LIST page for each 1000 of them.

    Planes of chunks are listed side by side: each page is a round trip.
    """
    keys = {document.chunk_key(index) for index in wanted}
    prefixes = [f"{path}/"]
    if document.separator == "/" and document.axes == 3:
        planes = {f"{path}/{z}" for z in {index[0] for index in wanted}}
        there = {prefix.rstrip("/") for prefix in list_array(objects, path).prefixes}
        prefixes = [f"{plane}/" for plane in sorted(planes & there)]

    def listed(prefix: str) -> list[tuple[str, tuple[int, str | None]]]:
        found = [
            (key.removeprefix(f"{path}/"), (size, etag))
            for key, size, etag in objects.list_all(prefix)
        ]
        if not found:
            raise unbelievable(prefix)
        return [chunk for chunk in found if chunk[0] in keys]

    for chunks in session.ordered(SERVICE, [partial(listed, prefix) for prefix in prefixes]):
        yield from chunks


def _listing_digest(zarray: bytes, listing: dict[str, tuple[int, str | None]]) -> str:
    """Identity of the array as it is now: its document, and every chunk's size and ETag."""
    document = json.loads(zarray)
    document.pop("dimension_separator", None)  # .zmetadata may have it where .zarray has not
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for key in sorted(listing):
        digest.update(f"{key}\0{listing[key][0]}\0{listing[key][1]}\n".encode())
    return f"sha256-of-listing:{digest.hexdigest()}"
