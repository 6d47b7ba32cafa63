"""FlyEM hemibrain: crops of grayscale from a DVID server.

DVID HTTP API, ``/api/node/{uuid}/{data}/info`` and ``raw``. All its triples are x, y, z, and
``MaxPoint`` is inclusive. Outside the extents DVID answers zeros with status 200, so a crop is
checked against the extents before the first voxel is asked for.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lib.archives.base import ArchiveBase, Publisher
from lib.archives.dvid_instances import dvid_instances
from lib.archives.listed import Item
from lib.archives.selection import choose_crop
from lib.config.loaders import FlyEMConfig
from lib.errors import (
    BadAnswerError,
    MacroscopeError,
    NotFoundError,
    OutOfBoundsError,
    RequestRefusedError,
    SourceChangedError,
    UnsupportedFormatError,
)
from lib.formats.dvid import MAX_TILE_ZYX, DvidReader
from lib.geometry import Box, LengthsZYX, ShapeZYX, ceil_divide, multiply, zyx
from lib.plan import About, SourceFile, VolumePlan
from lib.provenance import Provenance
from lib.rawfiles.files import RawFiles
from lib.transport.limits import Limits
from lib.transport.partial import Fetched
from lib.transport.session import Session
from lib.units import to_nm

SERVICE = "dvid"

_HEMIBRAIN = "a89eb3af216a46cdba81204d8f954786"  # the repository of the hemibrain's grayscale
_ABOUT = About(
    title="hemibrain grayscale",
    description="Crop of the hemibrain of an adult fruit fly",
    modality="FIB-SEM",
    organism="Drosophila melanogaster",
    specimen="central brain of an adult female",
    authors=("Scheffer et al.",),
    licence="CC-BY-4.0",
    citation="Scheffer et al. 2020, eLife 9:e57443",
    doi="10.7554/eLife.57443",
    origin=Provenance(
        source="archive", where="https://www.janelia.org/project-team/flyem/hemibrain"
    ),
)


@dataclass(frozen=True, slots=True)
class Instance:
    """What ``info`` says, in z, y, x and nanometres."""

    extents: Box
    voxel_nm_zyx: LengthsZYX
    background: int
    data_uuid: str
    repository: str = ""
    united: bool = field(default=True, compare=False)  # whether the voxel size has a unit

    @property
    def about(self) -> About:
        """What is known of the specimen: of the hemibrain all, of another repository nothing."""
        return _ABOUT if self.repository == _HEMIBRAIN else About()


class FlyEM(ArchiveBase):
    """One crop of one data instance."""

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
        """Ask for the extents, and place the crop inside them.

        Raises
        ------
        OutOfBoundsError
            The crop reaches outside the extents.
        UnsupportedFormatError
            The instance is not uint8blk.
        """
        node = f"{config.dvid_server}/api/node/{config.uuid}/{config.instance}"
        instance = parse_info(_ask_info(session, node), node)
        crop = place_crop(config, instance.extents)
        origin = _lengths(crop.start_zyx, instance.voxel_nm_zyx)
        chosen = choose_crop(config.box, crop.shape_zyx, instance.voxel_nm_zyx, origin)
        box = chosen.box.shifted(crop.start_zyx)
        x, y, z = reversed(box.start_zyx)
        width, height, depth = reversed(box.shape_zyx)
        tiles = math.prod(ceil_divide(box.shape_zyx, MAX_TILE_ZYX))
        stem = f"{config.instance}_{config.uuid[:8].replace(':', '-')}"
        return [
            VolumePlan(
                source=self.name,
                source_id=f"{config.uuid}/{config.instance}",
                name=f"{stem}_x{x}_y{y}_z{z}_{width}x{height}x{depth}",
                shape_zyx=box.shape_zyx,
                dtype="uint8",
                voxel_nm_zyx=instance.voxel_nm_zyx,
                voxel_size_provenance="api" if instance.united else "assumed",
                voxel_size_approximate=not instance.united,
                origin_nm_zyx=chosen.origin_nm_zyx,
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
                        "random_seed": None if config.crop_origin else config.random_seed,
                    }
                ),
                download_bytes=box.voxels,
                download_requests=tiles,
                notes=() if instance.united else (_NO_UNIT,),
                stated=_stated(instance),
            )
        ]

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
            raise _unknown(error, f"{root}/repo/{uuid}") from None
        known = {
            "organism": _ABOUT.organism,
            "technique": _ABOUT.modality,
            "licence": _ABOUT.licence,
        }
        return [
            item.model_copy(update=known) if item.repository == _HEMIBRAIN else item
            for item in dvid_instances(found, instance or None)
        ]

    def open(
        self, plan: VolumePlan, config: FlyEMConfig, session: Session, raw: RawFiles
    ) -> DvidReader:
        assert plan.box_zyx is not None  # every crop has its box
        node = f"{config.dvid_server}/api/node/{config.uuid}/{config.instance}"
        return DvidReader(session, SERVICE, f"{node}/raw/0_1_2", plan.box_zyx)

    def verify_source_unchanged(
        self, plan: VolumePlan, config: FlyEMConfig, session: Session, raw: RawFiles
    ) -> list[Fetched]:
        """Ask for the data version again: it must be the one that the crop was begun from."""
        node = f"{config.dvid_server}/api/node/{config.uuid}/{config.instance}"
        now = parse_info(session.http(SERVICE).get_json(f"{node}/info"), node)
        if f"DataUUID:{now.data_uuid}" != plan.files[0].etag:
            raise SourceChangedError(
                "the data instance changed while it was read", archive=self.name, location=node
            )
        return []


def _ask_info(session: Session, node: str) -> Any:
    """``info`` of the instance; DVID answers 400, not 404, where version or instance is unknown."""
    try:
        return session.http(SERVICE).get_json(f"{node}/info")
    except RequestRefusedError as error:
        raise _unknown(error, node) from None


def _unknown(error: RequestRefusedError, where: str) -> MacroscopeError:
    if "status 400" not in error.message:
        return error
    return NotFoundError(
        f"there is no such version or data instance: {error.message}",
        archive=FlyEM.name,
        location=where,
        advice="Check uuid and instance; `macroscope list flyem:` shows what there is",
    )


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
    crop = Box((0, 0, 0), size).shifted(start)
    if not extents.contains(crop):
        raise OutOfBoundsError(
            f"the crop {crop} reaches outside the volume {extents}, where DVID answers black",
            archive=FlyEM.name,
            location="crop_origin",
        )
    return crop


def parse_info(info: Any, where: str) -> Instance:
    """Read ``info`` of a uint8blk instance.

    Raises
    ------
    UnsupportedFormatError
        Another type of instance, or voxels that are not one uint8.
    BadAnswerError
        Keys are missing or of the wrong type.
    """
    try:
        base, extended, extents = info["Base"], info["Extended"], info.get("Extents")
        if base["TypeName"] != "uint8blk" or extended["Values"][0]["DataType"] != "uint8":
            raise UnsupportedFormatError(
                f"data instance of type {base['TypeName']}, where uint8blk is converted",
                archive=FlyEM.name,
                location=where,
                advice="Set instance to a grayscale one",
            )
        points = extents or extended
        low = [int(n) for n in points["MinPoint"]]
        high = [int(n) + 1 for n in points["MaxPoint"]]  # inclusive
        said = extended.get("VoxelUnits")
        units = said or ["nanometers"] * 3
        voxel = [to_nm(float(v), u) for v, u in zip(extended["VoxelSize"], units, strict=True)]
        whole = len(low) == len(high) == len(voxel) == 3
        if not whole or not all(v and 0 < v < math.inf for v in voxel):
            raise ValueError("extents or voxel size")
        background = int(extended.get("Background") or 0)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise BadAnswerError(
            f"DVID's info cannot be read: {error!r}", archive=FlyEM.name, location=where
        ) from None
    return Instance(
        Box((low[2], low[1], low[0]), (high[2], high[1], high[0])),
        (float(voxel[2] or 0), float(voxel[1] or 0), float(voxel[0] or 0)),
        background,
        str(base.get("DataUUID", "")),
        str(base.get("RepoUUID", "")),
        bool(said),
    )


_NO_UNIT = "the server states no unit of the voxel size: nanometres are assumed"


def _stated(instance: Instance) -> dict[str, Provenance]:
    size = Provenance(source="api" if instance.united else "assumed", where="VoxelSize of info")
    place = Provenance(source=size.source, where="the crop's first voxel")
    return {f"voxel_size_nm.{axis}": size for axis in "zyx"} | {
        f"translation.{axis}": place for axis in "zyx"
    }


def _lengths(start: ShapeZYX, voxel: LengthsZYX) -> LengthsZYX:
    return multiply(start, voxel)
