"""FlyEM hemibrain: crops of grayscale from a DVID server.

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
    HEMIBRAIN,
    NO_UNIT,
    SERVICE,
    Instance,
    ask_info,
    parse_info,
    stated,
    unknown,
)
from lib.archives.flyem.instances import dvid_instances
from lib.archives.flyem.labels import labels_beside, labels_of
from lib.archives.listed import Item
from lib.config.loaders import FlyEMConfig
from lib.errors import (
    OutOfBoundsError,
    RequestRefusedError,
    SourceChangedError,
)
from lib.formats.dvid import MAX_TILE_ZYX, DvidReader
from lib.formats.dvid_labels import DvidLabelReader
from lib.geometry import Box, box_axes, ceil_divide, multiply, parse_box, zyx
from lib.plan import SourceFile, VolumePlan
from lib.rawfiles.files import RawFiles
from lib.transport.limits import Limits
from lib.transport.partial import Fetched
from lib.transport.session import Session


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
        x, y, z = reversed(box.start_zyx)
        width, height, depth = reversed(box.shape_zyx)
        tiles = math.prod(ceil_divide(box.shape_zyx, MAX_TILE_ZYX))
        stem = f"{config.instance}_{config.uuid[:8].replace(':', '-')}"
        return VolumePlan(
            source=self.name,
            source_id=f"{config.uuid}/{config.instance}",
            name=f"{stem}_x{x}_y{y}_z{z}_{width}x{height}x{depth}",
            shape_zyx=box.shape_zyx,
            dtype="uint8",
            voxel_nm_zyx=instance.voxel_nm_zyx,
            voxel_size_provenance="api" if instance.united else "assumed",
            voxel_size_approximate=not instance.united,
            origin_nm_zyx=multiply(box.start_zyx, instance.voxel_nm_zyx),
            box_zyx=box,
            kind_evidence="DVID type uint8blk",
            internal_path=f"{config.uuid}/{config.instance}",
            stored_as="boxes",
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
                    "uuid": config.uuid,
                    "data_uuid": instance.data_uuid,
                    "instance": config.instance,
                    "crop_origin_xyz": [x, y, z],
                    "crop_size_xyz": [width, height, depth],
                    "random_seed": None if _is_placed(config) else config.random_seed,
                }
            ),
            download_bytes=box.voxels,
            download_requests=tiles,
            notes=() if instance.united else (NO_UNIT,),
            stated=stated(instance),
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


def _is_placed(config: FlyEMConfig) -> bool:
    """Whether nothing was drawn."""
    return config.crop_origin is not None or len(box_axes(config.box or "")) == 3


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
