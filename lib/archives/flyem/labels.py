"""Plans of labels of a DVID server: a crop of a labelmap, alone or of an image's very voxels."""

from __future__ import annotations

from lib.archives.flyem.info import (
    ARCHIVE,
    NO_UNIT,
    SERVICE,
    Instance,
    ask_info,
    parse_info,
    stated,
)
from lib.archives.pairs import beside, overlap_of
from lib.config.loaders import FlyEMConfig
from lib.errors import NotFoundError, OutOfBoundsError, RequestRefusedError, UnsupportedFormatError
from lib.formats.dvid_labels import tiles_of
from lib.geometry import Box, add, multiply, subtract
from lib.plan import SourceFile, VolumePlan
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
        source=ARCHIVE,
        source_id=where,
        name=f"{name}{what}_{uuid[:8].replace(':', '-')}_{place}",
        shape_zyx=box.shape_zyx,
        dtype="uint64",
        voxel_nm_zyx=instance.voxel_nm_zyx,
        voxel_size_provenance="api" if instance.united else "assumed",
        voxel_size_approximate=not instance.united,
        origin_nm_zyx=origin,
        box_zyx=box,
        kind="labels",
        kind_evidence=f"DVID type {instance.type_name}",
        scale_level=f"s{config.scale}",
        internal_path=where,
        stored_as="boxes",
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
                "uuid": uuid,
                "data_uuid": instance.data_uuid,
                "instance": name,
                "crop_origin_xyz": [*corner],
                "crop_size_xyz": [*size],
                **asked,
                "merges_applied": not config.supervoxels,
            },
        ),
        download_bytes=box.voxels * 8 // 20,
        download_requests=tiles_of(box),
        notes=(*notes, *(() if instance.united else (NO_UNIT,))),
        stated=stated(instance),
    )


def _is_locked(session: Session, config: FlyEMConfig, uuid: str) -> bool:
    """Whether the server says that nothing of a version can change any more."""
    try:
        info = session.http(SERVICE).get_json(f"{config.dvid_server}/api/repo/{uuid}/info")
        nodes = info["DAG"]["Nodes"]
        return any(bool(nodes[name]["Locked"]) for name in nodes if name.startswith(uuid))
    except (RequestRefusedError, NotFoundError, KeyError, TypeError, AttributeError):
        return False
