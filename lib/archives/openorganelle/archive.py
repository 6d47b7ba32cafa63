"""OpenOrganelle: multiscale Zarr v2 arrays in an anonymous S3 bucket.

Bucket ``janelia-cosem-datasets``; ``{dataset}/{dataset}.zarr/recon-N/{em,labels}/...``. The arrays
follow NGFF 0.4; nothing but the Zarr itself is asked, because the archive has no stable API.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any, ClassVar
from urllib.parse import quote

from lib.about import Provenance
from lib.archives.base import ArchiveBase, Publisher
from lib.archives.listed import Item
from lib.archives.openorganelle.crops import (
    LastLook,
    ListedOnce,
    as_group,
    box_around,
    class_of,
    crop_of,
    fitting_level,
    levels_of_em,
)
from lib.archives.openorganelle.listing import (
    about_array,
    list_dataset,
    list_datasets,
    search_datasets,
)
from lib.archives.pairs import Grid
from lib.archives.selection import Selection, choose_crop, left_out_notes, plan_each, with_notes
from lib.archives.voxels import Voxel, decide_voxel
from lib.bytesource.bucket_tree import S3Tree
from lib.bytesource.tree import Tree, join
from lib.config.loaders import OpenOrganelleConfig
from lib.errors import ConfigError, FormatError, MacroscopeError, NotFoundError, SourceChangedError
from lib.formats import registry
from lib.formats.base import VolumeReader
from lib.formats.format import Origin, VolumeDescription
from lib.formats.zarr.array import parse_array
from lib.formats.zarr.hierarchy import Hierarchy, ZarrArray, survey_array
from lib.formats.zarr.ngff import Multiscale
from lib.geometry import Box, LengthsZYX, ShapeZYX, zyx
from lib.plan import SourceFile, VolumePlan
from lib.rawfiles.files import RawFiles
from lib.transport.limits import Limits
from lib.transport.partial import Fetched
from lib.transport.session import Session

SERVICE = "s3"
_FORMAT = registry.tree_format("zarr2")


class OpenOrganelle(ArchiveBase):
    """One volume for each chosen level of each multiscale below ``zarr_path``."""

    name: ClassVar[str] = "openorganelle"
    title: ClassVar[str] = "OpenOrganelle (Janelia, S3)"
    publisher: ClassVar[Publisher] = Publisher(
        "OpenOrganelle, HHMI Janelia", "https://openorganelle.janelia.org/"
    )
    config_model: ClassVar[type[OpenOrganelleConfig]] = OpenOrganelleConfig
    heavy: ClassVar[bool] = True
    # S3 documents 5,500 GETs a second per prefix, so the limit is ours to choose
    services: ClassVar[dict[str, Limits]] = {SERVICE: Limits(16, None, 10.0, 60.0, 6, 0.2)}
    observed_mb_s: ClassVar[float | None] = 7.0  # s0 chunk by chunk
    address_form: ClassVar[str] = "a data set, as openorganelle:jrc_hela-2/recon-1/em"

    def settings_of(self, rest: str) -> dict[str, Any] | None:
        """A data set, and a path inside it."""
        dataset, _, path = rest.partition("/")
        return {"dataset_id": dataset, **({"zarr_path": path} if path else {})} if dataset else None

    def plan(self, config: OpenOrganelleConfig, session: Session) -> list[VolumePlan]:
        """Find the arrays, read their documents and list their chunks.

        Raises
        ------
        NotFoundError
            The dataset, path or level is not there; the error lists what is.
        """
        tree, root = self._bucket(config, session)
        try:
            return self._plans(config, tree, root)
        except MacroscopeError as error:
            raise error.located(archive=self.name) from error.__cause__

    def _plans(self, config: OpenOrganelleConfig, tree: Tree, root: str) -> list[VolumePlan]:
        levels = config.scale_level
        if config.with_em and "scale_level" not in config.model_fields_set:
            levels = "s0"  # ground truth is drawn at one size; coarser levels are made from it
        if config.with_em and config.zarr_paths:
            named = [join(root, path) for path in config.zarr_paths]
            tree = ListedOnce(tree, named, [levels] if isinstance(levels, str) else levels)
        hierarchy = Hierarchy(tree, root)
        paths = config.zarr_paths or _found_em(config.dataset_id, hierarchy, root)
        found: dict[str, Callable[[], ZarrArray]] = {}
        for path in paths:
            found |= find_arrays(hierarchy, path, levels)
        if not found:
            raise NotFoundError(
                f"no array at {', '.join(paths)}",
                archive=self.name,
                location=root,
                advice=f"There are: {', '.join(hierarchy.children(root)) or 'nothing'}",
            )
        selection = Selection.of(config)
        chosen = {path.strip("/") for path in paths}
        wanted = selection.require([*found], root)
        if config.with_em:
            # every class of a crop is wanted: one that is left out would be missed
            groups = self._with_em(config, tree, hierarchy, {path: found[path] for path in wanted})
            crops = {path: crop_of(path) for path in wanted}
            only = len({*crops.values()}) == 1
            asked = {crop for path, crop in crops.items() if chosen & {path, crop, class_of(path)}}
            plans = plan_each(
                groups,
                lambda crop: [groups[crop]()],
                lambda crop: crop,
                must=lambda crop: only or crop in asked,
            )
        else:
            plans = plan_each(
                wanted,
                lambda path: [self._plan_array(config, tree, root, found[path]())],
                lambda path: path,
                must=lambda path: bool(chosen & {path, class_of(path)}),
            )
        unreadable = {
            path.removeprefix(f"{root}/"): why for path, why in hierarchy.unreadable.items()
        }
        notes = [*left_out_notes(unreadable), *selection.notes(found)]
        return [with_notes(plan, notes) for plan in plans]

    def _with_em(
        self,
        config: OpenOrganelleConfig,
        tree: Tree,
        hierarchy: Hierarchy,
        found: dict[str, Callable[[], ZarrArray]],
    ) -> dict[str, Callable[[], VolumePlan]]:
        """For each crop what plans the EM around it, with the crop's classes as its label images.

        Raises
        ------
        ConfigError
            They are to be written where no group can be; of one crop: not all of them are labels,
            or several multiscales of EM lie beside them.
        GridMismatchError, FormatError
            Of one crop: no level of the EM has the labels' grid, or a class cannot be read.
        """
        if config.output_format == "npy":
            raise ConfigError(
                "with_em: an .npy holds one array, and no label images",
                location="output_format",
                advice="Set output_format to zarr",
            )
        levels_of = cache(partial(levels_of_em, hierarchy))

        def planned(crop: str, classes: list[str]) -> VolumePlan:
            for folder, why in hierarchy.unreadable.items():
                if class_of(folder) == join(hierarchy.root, crop):
                    raise FormatError(f"{folder.rpartition('/')[2]}: {why}", location=folder)
            own = [self._plan_array(config, tree, hierarchy.root, found[one]()) for one in classes]
            others = [plan.internal_path for plan in own if plan.kind != "labels"]
            if others:
                raise ConfigError(
                    f"with_em: {others[0]} is no labels",
                    location="zarr_path",
                    advice="Name a crop or labels, as recon-1/labels/groundtruth/crop234",
                )
            arrays = levels_of(config.em_path or f"{crop.partition('/')[0]}/em")
            chosen = fitting_level([_grid_of(config, array) for array in arrays.values()], own)
            boxed = config.model_copy(update={"box": str(box_around(chosen, own, config.padding))})
            em = self._plan_array(boxed, tree, hierarchy.root, arrays[chosen.path_in_source])
            return as_group(em, crop, own, config.padding)

        crops: dict[str, list[str]] = {}
        for path in found:
            crops.setdefault(crop_of(path), []).append(path)
        return {crop: partial(planned, crop, classes) for crop, classes in crops.items()}

    def open(
        self, plan: VolumePlan, config: OpenOrganelleConfig, session: Session, raw: RawFiles
    ) -> VolumeReader:
        tree, root = self._bucket(config, session)
        handle = _handle(plan)
        box = plan.box_zyx or Box.whole(_shape(handle))
        return _FORMAT.open(tree, root, handle, box=box, grid=plan.source_grid)

    def verify_source_unchanged(
        self, plan: VolumePlan, config: OpenOrganelleConfig, session: Session, raw: RawFiles
    ) -> list[Fetched]:
        """List the chunks again: every size and ETag must be what the plan saw."""
        tree, root = self._bucket(config, session)
        handle, source = _handle(plan), plan.files[0]
        volume = VolumeDescription(plan.internal_path or "", handle, _shape(handle), plan.dtype)
        try:
            now = _FORMAT.survey(tree, root, volume, plan.box_zyx or Box.whole(volume.shape_zyx))
        except NotFoundError:
            now = None
        if now is None or now.etag != source.etag:
            raise SourceChangedError(
                "the array changed while it was read", archive=self.name, location=source.url
            )
        return []

    def listing(self, inside: str, config: OpenOrganelleConfig, session: Session) -> list[Item]:
        """All data sets, or what ``DATASET[/PATH]`` holds."""
        tree, _ = self._bucket(config, session)
        bucket, prefix = _place(config)
        if not inside:
            return list_datasets(tree, prefix)
        dataset, _, path = inside.partition("/")
        return list_dataset(tree, bucket, prefix, dataset, path.strip("/"))

    def search(
        self, words: list[str], most: int, config: OpenOrganelleConfig, session: Session
    ) -> list[Item]:
        """The data sets that all words fit."""
        tree, _ = self._bucket(config, session)
        return search_datasets(tree, _place(config)[1], words)[:most]

    def _bucket(self, config: OpenOrganelleConfig, session: Session) -> tuple[S3Tree, str]:
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
        return S3Tree(session, SERVICE, objects, listed=True), root.strip("/")

    def _plan_array(
        self,
        config: OpenOrganelleConfig,
        tree: Tree,
        root: str,
        array: ZarrArray,
    ) -> VolumePlan:
        document, path = array.document, array.path.removeprefix(f"{root}/")
        voxel = _voxel(config, array)
        crop = choose_crop(config.box, document.shape_zyx, voxel.nm_zyx, voxel.origin_nm_zyx)
        look = LastLook(tree)
        survey = survey_array(look, array.path, document, crop.box)
        dataset = config.dataset_id
        url = f"{str(config.s3_uri).split('/')[2]}/{root}/{path}"
        about = about_array(dataset, array, path)
        if array.drawn:
            about = about.revised(extra={**about.extra, "image_label": array.drawn})
        return VolumePlan(
            source=self.name,
            source_id=f"{dataset}/{path}",
            source_path=f"s3://{url}",
            name=f"{dataset}_{path.replace('/', '_')}{crop.suffix}",
            shape_zyx=crop.box.shape_zyx,
            dtype=document.dtype.name,
            voxel_nm_zyx=voxel.nm_zyx,
            voxel_size_provenance=voxel.provenance,
            voxel_size_approximate=voxel.approximate,
            origin_nm_zyx=crop.origin_nm_zyx,
            box_zyx=crop.chosen,
            kind="labels" if array.labels else "image",
            kind_evidence=_kind_evidence(array, path),
            scale_level=array.level,
            internal_path=path,
            stored_as="boxes",
            reader={
                "zarray": array.zarray.decode(),
                "separator": document.separator,
            },
            source_grid=survey.grid,
            files=(
                SourceFile(
                    url=f"s3://{quote(url)}",
                    name=path,
                    size=survey.nbytes,
                    etag=survey.etag,
                ),
            ),
            about=about,
            download_bytes=survey.nbytes,
            download_requests=survey.requests + look.requests,
            notes=(*array.notes, *document.notes, *voxel.notes, *survey.notes),
            stated=voxel.stated,
        )


def _grid_of(config: OpenOrganelleConfig, array: ZarrArray) -> Grid:
    voxel = _voxel(config, array)
    return Grid(array.path, array.document.shape_zyx, voxel.nm_zyx, voxel.origin_nm_zyx)


def _kind_evidence(array: ZarrArray, path: str) -> str | None:
    if array.labels:
        return array.labels
    return "a group named em" if "em" in path.split("/") else None


def _found_em(dataset: str, hierarchy: Hierarchy, root: str) -> tuple[str, ...]:
    """Where the EM of a data set lies that no table names: the only ``recon-N/em``.

    Raises
    ------
    NotFoundError
        There is none.
    ConfigError
        There are several: each is an alignment with a frame of its own.
    """
    aligned = [name for name in hierarchy.children(root) if name.startswith("recon-")]
    found = [f"{name}/em" for name in aligned if "em" in hierarchy.children(join(root, name))]
    if len(found) == 1:
        return (found[0],)
    if found:
        raise ConfigError(
            f"{dataset} has {len(found)} alignments, each with a frame of its own",
            location="zarr_path",
            advice=f"Choose: {', '.join(f'openorganelle:{dataset}/{path}' for path in found)}",
        )
    raise NotFoundError(
        f"there is no recon-N/em in {dataset}",
        location=root,
        advice=f"`macroscope list openorganelle:{dataset}` shows what there is",
    )


def _handle(plan: VolumePlan) -> dict[str, Any]:
    """What the format needs to find the array again."""
    return {"path": plan.internal_path, **plan.reader}


def _shape(handle: dict[str, Any]) -> ShapeZYX:
    separator, zarray = handle["separator"], handle["zarray"].encode()
    return parse_array(zarray, handle["path"], separator=separator).shape_zyx


def _voxel(config: OpenOrganelleConfig, array: ZarrArray) -> Voxel:
    """What the settings say of s0, scaled to the level, else what the multiscale says."""
    place = Origin(nm_zyx=array.translation_nm_zyx, provenance="multiscales")
    if config.voxel_size is not None:
        by = Provenance(source="configuration", where="voxel_size")
        notes: tuple[str, ...] = ()
        unscaled = array.level_nm_zyx != array.finest_nm_zyx and not array.voxel.provenance
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


def _scaled(voxel_s0: LengthsZYX, array: ZarrArray) -> LengthsZYX:
    return zyx(
        v * here / finest
        for v, here, finest in zip(voxel_s0, array.level_nm_zyx, array.finest_nm_zyx, strict=True)
    )


def find_arrays(
    hierarchy: Hierarchy, path: str, levels: str | list[str] | tuple[str, ...]
) -> dict[str, Callable[[], ZarrArray]]:
    """Find arrays; their documents are read by who wants them.

    Parameters
    ----------
    path
        Inside the data set's ``.zarr``.

    Returns
    -------
    dict
        Path of each -> what reads its document; raises `NotFoundError` where a multiscale lacks
        the level (the error lists what there is), `FormatError` where it cannot be read.

    Raises
    ------
    NotFoundError
        Nothing is there; the error lists what there is.
    """
    root, where = hierarchy.root, join(hierarchy.root, path)
    if hierarchy.document(where, ".zarray") is not None:
        return {path.strip("/"): partial(_array, hierarchy, where)}
    found = hierarchy.multiscales_below(where)
    if not found and hierarchy.unreadable:
        unreadable, why = next(iter(hierarchy.unreadable.items()))
        raise FormatError(why, location=unreadable)
    if not found:
        above = where.rpartition("/")[0]
        children = (hierarchy.children(folder) for folder in (where, above, root))
        here = next((names for names in children if names), [])
        raise NotFoundError(
            f"there is no array or multiscale at {path.strip('/')!r}",
            location=where,
            advice=f"There are: {', '.join(here) or 'nothing'}",
        )
    return {
        f"{at}/{level}".removeprefix(f"{root}/"): partial(hierarchy.level, at, multiscale, level)
        for at, multiscale in found
        for level in _chosen(levels, multiscale)
    }


def _array(hierarchy: Hierarchy, where: str) -> ZarrArray:
    array = hierarchy.array(where)
    if array is None:
        raise NotFoundError("the array is not there any more", location=where)
    return array


def _chosen(levels: str | list[str] | tuple[str, ...], multiscale: Multiscale) -> list[str]:
    if levels == "all":
        return [level.path for level in multiscale.levels]
    return [levels] if isinstance(levels, str) else list(levels)


def _place(config: OpenOrganelleConfig) -> tuple[str, str]:
    """Bucket, and prefix of the data sets; of a whole .zarr's address, of its neighbours."""
    bucket, _, prefix = str(config.s3_uri).removeprefix("s3://").partition("/")
    if prefix.endswith(".zarr"):
        prefix = "/".join(prefix.split("/")[:-2])
    return bucket, prefix
