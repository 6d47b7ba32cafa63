"""FlyEM hemibrain: crops of grayscale and of labels from a DVID server.

DVID HTTP API, ``/api/node/{uuid}/{data}/info`` and ``raw``. All its triples are x, y, z, and
``MaxPoint`` is inclusive. Outside the extents DVID answers zeros with status 200, so a crop is
checked against the extents before the first voxel is asked for.
"""

from __future__ import annotations

import math
import random
from typing import Any, ClassVar

from lib.archives.base import ArchiveBase, Publisher
from lib.archives.flyem.info import (
    ABOUT,
    ARCHIVE,
    HEMIBRAIN,
    NO_UNIT,
    SERVICE,
    Instance,
    ask_info,
    dvid_instances,
    parse_info,
    stated,
    unknown,
)
from lib.archives.listed import Item
from lib.archives.pairs import beside, overlap_of
from lib.config.loaders import FlyEMConfig
from lib.errors import (
    NotFoundError,
    OutOfBoundsError,
    RequestRefusedError,
    SourceChangedError,
    UnsupportedFormatError,
)
from lib.formats.dvid import MAX_TILE_ZYX, DvidLabelReader, DvidReader, tiles_of
from lib.geometry import Box, add, box_axes, ceil_divide, multiply, parse_box, subtract, zyx
from lib.plan import SourceFile, VolumePlan
from lib.rawfiles.files import RawFiles
from lib.transport.limits import Limits
from lib.transport.partial import Fetched
from lib.transport.session import Session


def labels_beside(config: FlyEMConfig, session: Session, image: VolumePlan) -> VolumePlan:
    """The plan of the labels of a crop of grayscale: the same voxels, as far as there are any.

    Raises
    ------
    UnsupportedFormatError
        The instance holds no labels, or voxels of another size.
    OutOfBoundsError
        The labels begin elsewhere, and have nothing of the crop.
    """
    where = f"{config.dvid_server}/api/node/{config.labels}"
    instance = parse_info(ask_info(session, where), where)
    if not instance.labels or instance.voxel_nm_zyx != image.voxel_nm_zyx or config.scale:
        raise UnsupportedFormatError(
            f"an instance of type {instance.type_name} with voxels of {instance.voxel_nm_zyx} nm "
            f"at scale {config.scale}, where the crop's are {image.voxel_nm_zyx} nm",
            archive=ARCHIVE,
            location="labels",
            advice="Name the labels of the same grid, at scale 0",
        )
    assert image.box_zyx is not None
    crop = image.box_zyx.intersect(instance.extents)
    if crop.empty:
        raise OutOfBoundsError(
            f"the labels {instance.extents} have nothing of the crop {image.box_zyx}",
            archive=ARCHIVE,
            location="crop_origin",
        )
    notes: tuple[str, ...] = ()
    if crop != image.box_zyx:
        notes = (f"the labels have {crop} of the image's {image.box_zyx} (z, y, x)",)
    plan = labels_of(config, session, str(config.labels), (instance, instance), crop)
    plan = plan.model_copy(update={"notes": (*plan.notes, *notes)})
    return beside(image, plan, overlap_of(image, plan))


def labels_of(
    config: FlyEMConfig,
    session: Session,
    where: str,
    instances: tuple[Instance, Instance],
    box: Box,
) -> VolumePlan:
    """The plan of a crop of labels.

    Parameters
    ----------
    where
        Version and instance.
    instances
        At the finest scale, and at that of the crop.
    box
        Of the voxels of the crop's scale.
    """
    finest, instance = instances
    uuid, _, name = where.partition("/")
    # the centre of a coarser voxel lies between those of the finer ones
    shift = multiply(subtract(instance.voxel_nm_zyx, finest.voxel_nm_zyx), (0.5, 0.5, 0.5))
    origin = add(multiply(box.start_zyx, instance.voxel_nm_zyx), shift)
    corner, size = box.start_zyx[::-1], box.shape_zyx[::-1]
    what = "_supervoxels" * config.supervoxels + f"_scale{config.scale}" * bool(config.scale)
    node = f"{config.dvid_server}/api/node/{where}"
    place = "x{}_y{}_z{}_".format(*corner) + "x".join(map(str, size))
    asked = {"scale": config.scale, "supervoxels": config.supervoxels}
    notes = ["what compressed labels weigh is not known before: a twentieth of the voxels assumed"]
    if not _is_locked(session, config, uuid):
        notes.append(
            "the version is not known to be locked: merges and splits may change labels while they "
            "are read"
        )
    return VolumePlan(
        **_of_crop(instance, box, where),
        name=f"{name}{what}_{uuid[:8].replace(':', '-')}_{place}",
        dtype="uint64",
        origin_nm_zyx=origin,
        kind="labels",
        scale_level=f"s{config.scale}",
        reader={**asked},
        files=(
            SourceFile(
                url=f"{node}/blocks",
                name=f"{name}{what} {place}",
                etag=f"DataUUID:{instance.data_uuid}",
            ),
        ),
        about=instance.about.revised(
            title=f"{instance.about.title or where}, {name}",
            extra={
                **_facts(instance, where, box),
                **asked,
                "merges_applied": not config.supervoxels,
            },
        ),
        download_bytes=box.voxels * 8 // 20,
        download_requests=tiles_of(box),
        notes=(*notes, *(() if instance.united else (NO_UNIT,))),
    )


def _of_crop(instance: Instance, box: Box, where: str) -> dict[str, Any]:
    """What the plan of a crop says, be it of grayscale or labels; `where` is version/instance."""
    return {
        "source": ARCHIVE,
        "source_id": where,
        "shape_zyx": box.shape_zyx,
        "voxel_nm_zyx": instance.voxel_nm_zyx,
        "voxel_size_provenance": "api" if instance.united else "assumed",
        "voxel_size_approximate": not instance.united,
        "box_zyx": box,
        "kind_evidence": f"DVID type {instance.type_name}",
        "internal_path": where,
        "stored_as": "boxes",
        "stated": stated(instance),
    }


def _facts(instance: Instance, where: str, box: Box) -> dict[str, Any]:
    """What a record says of a crop beside its words."""
    uuid, _, name = where.partition("/")
    return {
        "uuid": uuid,
        "data_uuid": instance.data_uuid,
        "instance": name,
        "crop_origin_xyz": [*box.start_zyx[::-1]],
        "crop_size_xyz": [*box.shape_zyx[::-1]],
    }


def _is_locked(session: Session, config: FlyEMConfig, uuid: str) -> bool:
    """Whether the server says that nothing of a version can change any more."""
    try:
        info = session.http(SERVICE).get_json(f"{config.dvid_server}/api/repo/{uuid}/info")
        nodes = info["DAG"]["Nodes"]
        return any(bool(nodes[name]["Locked"]) for name in nodes if name.startswith(uuid))
    except (RequestRefusedError, NotFoundError, KeyError, TypeError, AttributeError):
        return False


class FlyEM(ArchiveBase):
    """One crop of one data instance, and the labels of the same crop where they are named."""

    name: ClassVar[str] = "flyem"
    title: ClassVar[str] = "FlyEM hemibrain (Janelia, DVID)"
    publisher: ClassVar[Publisher] = Publisher(
        "FlyEM, HHMI Janelia", "https://www.janelia.org/project-team/flyem"
    )
    config_model: ClassVar[type[FlyEMConfig]] = FlyEMConfig
    # DVID runs one throttled operation at a time
    services: ClassVar[dict[str, Limits]] = {SERVICE: Limits(2, None, 3.0, 120.0, 5, 1.0)}
    observed_mb_s: ClassVar[float | None] = 12.0  # one GET of DVID
    address_form: ClassVar[str] = "a version and an instance, as flyem:a89eb385/grayscale"

    def settings_of(self, rest: str) -> dict[str, Any] | None:
        """A version, and an instance of it."""
        uuid, _, instance = rest.partition("/")
        return {"uuid": uuid, **({"instance": instance} if instance else {})} if uuid else None

    def plan(self, config: FlyEMConfig, session: Session) -> list[VolumePlan]:
        """Ask for the extents, and place crop or box inside them.

        Raises
        ------
        OutOfBoundsError
            It reaches outside the extents.
        UnsupportedFormatError
            The instance is neither uint8blk nor labels in blocks.
        """
        node = f"{config.dvid_server}/api/node/{config.uuid}/{config.instance}"
        instance = parse_info(ask_info(session, node), node)
        if instance.labels:
            finest, instance = instance, instance.at(config.scale)
            box = place_box(config, instance)
            where = f"{config.uuid}/{config.instance}"
            return [labels_of(config, session, where, (finest, instance), box)]
        plans = [self._plan_grey(config, node, instance)]
        if config.labels is not None:
            plans.append(labels_beside(config, session, plans[0]))
        return plans

    def _plan_grey(self, config: FlyEMConfig, node: str, instance: Instance) -> VolumePlan:
        box = place_box(config, instance)
        drawn = config.crop_origin is None and len(box_axes(config.box or "")) < 3
        x, y, z = reversed(box.start_zyx)
        width, height, depth = reversed(box.shape_zyx)
        tiles = math.prod(ceil_divide(box.shape_zyx, MAX_TILE_ZYX))
        where = f"{config.uuid}/{config.instance}"
        stem = f"{config.instance}_{config.uuid[:8].replace(':', '-')}"
        return VolumePlan(
            **_of_crop(instance, box, where),
            name=f"{stem}_x{x}_y{y}_z{z}_{width}x{height}x{depth}",
            dtype="uint8",
            origin_nm_zyx=multiply(box.start_zyx, instance.voxel_nm_zyx),
            reader={"background": instance.background},
            files=(
                SourceFile(
                    url=f"{node}/raw/0_1_2",
                    name=f"{config.instance} x={x} y={y} z={z} size={width}x{height}x{depth}",
                    size=box.voxels,
                    etag=f"DataUUID:{instance.data_uuid}",
                ),
            ),
            about=instance.about.revised(
                extra={
                    **_facts(instance, where, box),
                    "random_seed": config.random_seed if drawn else None,
                }
            ),
            download_bytes=box.voxels,
            download_requests=tiles,
            notes=() if instance.united else (NO_UNIT,),
        )

    def listing(self, inside: str, config: FlyEMConfig, session: Session) -> list[Item]:
        """The data instances of all repositories, of the one of a version, or one of them."""
        uuid, _, instance = inside.partition("/")
        http, root = session.http(SERVICE), f"{config.dvid_server}/api"
        try:
            if uuid:
                found = {uuid: http.get_json(f"{root}/repo/{uuid}/info")}
            else:
                found = http.get_json(f"{root}/repos/info")
        except RequestRefusedError as error:
            raise unknown(error, f"{root}/repo/{uuid}") from None
        known = {
            "organism": ABOUT.organism,
            "technique": ABOUT.modality,
            "licence": ABOUT.licence,
        }
        return [
            item.model_copy(update=known) if item.repository == HEMIBRAIN else item
            for item in dvid_instances(found, instance or None)
        ]

    def open(
        self, plan: VolumePlan, config: FlyEMConfig, session: Session, raw: RawFiles
    ) -> DvidReader | DvidLabelReader:
        assert plan.box_zyx is not None  # every crop has its box
        node = f"{config.dvid_server}/api/node/{plan.internal_path}"
        if "scale" in plan.reader:
            return DvidLabelReader(
                session,
                SERVICE,
                node,
                plan.box_zyx,
                scale=plan.reader["scale"],
                supervoxels=plan.reader["supervoxels"],
            )
        return DvidReader(session, SERVICE, f"{node}/raw/0_1_2", plan.box_zyx)

    def verify_source_unchanged(
        self, plan: VolumePlan, config: FlyEMConfig, session: Session, raw: RawFiles
    ) -> list[Fetched]:
        """Ask for the data version again: it must be the one that the crop was begun from."""
        node = f"{config.dvid_server}/api/node/{plan.internal_path}"
        now = parse_info(session.http(SERVICE).get_json(f"{node}/info"), node)
        if f"DataUUID:{now.data_uuid}" != plan.files[0].etag:
            raise SourceChangedError(
                "the data instance changed while it was read", archive=self.name, location=node
            )
        return []


def place_box(config: FlyEMConfig, instance: Instance) -> Box:
    """What is asked for, in the volume's own voxels; on axes that the box leaves out, the crop.

    Raises
    ------
    OutOfBoundsError
        It reaches outside the extents.
    """
    extents = instance.extents
    if config.box is None:
        return place_crop(config, extents)
    box = parse_box(config.box, extents.stop_zyx, instance.voxel_nm_zyx)
    named = box_axes(config.box)
    bounds = [*zip(box.start_zyx, box.stop_zyx, strict=True)]
    if len(named) < 3:
        crop = place_crop(config, extents)
        others = zip(crop.start_zyx, crop.stop_zyx, strict=True)
        triples = zip("zyx", bounds, others, strict=True)
        bounds = [own if axis in named else other for axis, own, other in triples]
    (z0, z1), (y0, y1), (x0, x1) = bounds
    box = Box((z0, y0, x0), (z1, y1, x1))
    return _inside(box, extents, "box", "box")


def place_crop(config: FlyEMConfig, extents: Box) -> Box:
    """The crop as a box, given or drawn; always wholly inside the extents."""
    size = zyx(reversed(config.crop_size))
    if any(n > limit for n, limit in zip(size, extents.shape_zyx, strict=True)):
        raise OutOfBoundsError(
            f"a crop of {config.crop_size} (x, y, z) is larger than the volume, "
            f"{tuple(reversed(extents.shape_zyx))}",
            archive=FlyEM.name,
            location="crop_size",
        )
    if config.crop_origin is not None:
        start = zyx(reversed(config.crop_origin))
    else:
        draw = random.Random(config.random_seed)
        # x, y, z in this order: the same seed gives the same crop for ever
        x, y, z = (
            draw.randint(a, b - n)
            for a, b, n in zip(
                reversed(extents.start_zyx),
                reversed(extents.stop_zyx),
                reversed(size),
                strict=True,
            )
        )
        start = (z, y, x)
    return _inside(Box((0, 0, 0), size).shifted(start), extents, "crop", "crop_origin")


def _inside(box: Box, extents: Box, what: str, setting: str) -> Box:
    """The box, if it lies wholly inside the extents: of what lies outside DVID answers black."""
    if not extents.contains(box):
        raise OutOfBoundsError(
            f"the {what} {box} reaches outside the volume {extents}, where DVID answers black",
            archive=FlyEM.name,
            location=setting,
        )
    return box
