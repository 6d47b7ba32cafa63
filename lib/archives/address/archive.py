"""Any volume by its address: the archive of whatever is in no archive."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from lib.archives.address.finding import find_volumes, the_one
from lib.archives.address.grammar import Address, parse_address
from lib.archives.address.places import SERVICES, Place, open_place, open_tree
from lib.archives.address.plans import plan_of
from lib.archives.base import ArchiveBase
from lib.archives.kept import kept_or_error
from lib.bytesource.base import ByteSource, LocalBytes
from lib.bytesource.remote import RemoteBytes
from lib.bytesource.tree import ObjectInfo, Tree
from lib.config.loaders import AddressConfig
from lib.errors import ConfigError, FormatError, MacroscopeError, SourceChangedError
from lib.formats import registry
from lib.formats.base import VolumeReader
from lib.formats.format import Options, VolumeDescription
from lib.formats.part import PartReader
from lib.geometry import Box
from lib.plan import SourceFile, VolumePlan
from lib.rawfiles.files import RawFiles
from lib.rawfiles.ranged import kept_while_read, settle_ranged
from lib.rawfiles.tee import hash_file
from lib.transport.partial import Fetched
from lib.transport.session import Session


class AddressArchive(ArchiveBase):
    """One volume for each address, or for each scale level where all are asked for."""

    name: ClassVar[str] = "address"
    title: ClassVar[str] = "Any address (files, HTTPS, S3, GCS, FTP)"
    config_model: ClassVar[type[AddressConfig]] = AddressConfig
    heavy: ClassVar[bool] = True
    services: ClassVar[tuple[str, ...]] = tuple(dict.fromkeys(SERVICES.values()))

    def plan(self, config: AddressConfig, session: Session) -> list[VolumePlan]:
        """Find the volume that each address names, by its metadata.

        Raises
        ------
        ConfigError
            An address cannot be read, or names several volumes; the error lists their addresses.
        NotFoundError, AccessDeniedError, TransportError, FormatError
        """
        if not config.addresses:
            raise ConfigError(
                "no address is given", archive=self.name, location="sources.address.addresses"
            )
        plans: dict[str, VolumePlan] = {}
        for text in config.addresses:
            try:
                for plan in self._plan_address(parse_address(text), config, session):
                    _check_unique(plan, plans)
                    plans[plan.name] = plan
            except MacroscopeError as error:
                raise error.located(archive=self.name) from error.__cause__
        return [*plans.values()]

    def service_of(self, plan: VolumePlan) -> str:
        """The service whose connections reading a volume uses."""
        return SERVICES[plan.reader["place"].partition(":")[0]]

    def open(
        self, plan: VolumePlan, config: AddressConfig, session: Session, raw: RawFiles
    ) -> VolumeReader:
        address = _address_of(plan, config)
        tree, root = open_tree(address, config, session), plan.reader["root"]
        handle, box = plan.reader["handle"], plan.box_zyx
        whole = Box.whole(tuple(plan.reader["shape_zyx"]))
        if plan.reader["container"] == "tree":
            fmt = registry.tree_format(plan.reader["format"])
            return _checked(
                fmt.open(tree, root, handle, box=box or whole, grid=plan.source_grid), plan
            )
        reader = _checked(
            registry.file_format(plan.reader["format"]).open(
                _bytes(plan, tree, config, raw),
                handle,
                grid=plan.source_grid,
                scratch=raw.scratch_dir,
            ),
            plan,
            whole,
        )
        return PartReader(reader, box, plan.files[0].url) if box is not None else reader

    def settle(
        self, plan: VolumePlan, config: AddressConfig, session: Session, raw: RawFiles
    ) -> list[Fetched]:
        """Look at the source once more, then complete what was kept, or its digest."""
        place = open_place(_address_of(plan, config), config, session)
        if plan.reader["container"] == "tree":
            self._check_tree(plan, place)
            return []
        file = plan.files[0]
        _check_same(file, place)
        if plan.box_zyx is not None:
            return []
        if plan.reader["way"] == "local":
            path = Path("/", plan.reader["root"])
            return [Fetched(path, file.size or 0, hash_file(path), None, file.last_modified)]
        known = raw.known(file)
        if known is not None:
            return [known]
        source = place.tree.source(place.root, _info(file, place.root))
        assert isinstance(source, RemoteBytes)
        return [settle_ranged(source, raw, file)]

    # --- inside -----------------------------------------------------------------------------

    def _plan_address(
        self, address: Address, config: AddressConfig, session: Session
    ) -> list[VolumePlan]:
        place = open_place(address, config, session)
        before = place.traffic()
        first, *others = _levels(config)
        found = the_one(find_volumes(place, _options(config, first)), str(address))
        after = place.traffic()
        header = (after[0] - before[0], after[1] - before[1])
        if config.scale_level == "all":
            others = [*found.volume.levels[1:]]
        chosen = [found]
        for level in others:
            chosen.append(the_one(find_volumes(place, _options(config, level)), str(address)))
        return [plan_of(config, place, one, header) for one in chosen]

    def _check_tree(self, plan: VolumePlan, place: Place) -> None:
        fmt = registry.tree_format(plan.reader["format"])
        volume = VolumeDescription(
            plan.internal_path or "",
            plan.reader["handle"],
            tuple(plan.reader["shape_zyx"]),
            plan.dtype,
        )
        box = plan.box_zyx or Box.whole(volume.shape_zyx)
        now = fmt.survey(place.tree, place.root, volume, box)
        if now.etag != plan.files[0].etag:
            raise SourceChangedError(
                "the array changed while it was read", archive=self.name, location=plan.source_id
            )


def _levels(config: AddressConfig) -> list[str | None]:
    """The levels that are asked for; None stands for the finest."""
    if config.scale_level is None or config.scale_level == "all":
        return [None]
    given = config.scale_level
    return [given] if isinstance(given, str) else [*given]


def _options(config: AddressConfig, level: str | None) -> Options:
    return Options(level, config.channel, config.time)


def _check_unique(plan: VolumePlan, others: dict[str, VolumePlan]) -> None:
    other = others.get(plan.name)
    if other is not None and other.source_id != plan.source_id:
        raise ConfigError(
            f"{other.source_id} and {plan.source_id} would both be named {plan.name}",
            location="sources.address.name",
            advice="Leave the name out, or run them one by one under different names",
        )


def _address_of(plan: VolumePlan, config: AddressConfig) -> Address:
    """The place of a plan: as the settings write it, for they may hold a signature."""
    place: str = plan.reader["place"]
    for text in config.addresses:
        address = parse_address(text)
        if address.place == place:
            return address
    return parse_address(place)


def _info(file: SourceFile, key: str) -> ObjectInfo:
    return ObjectInfo(key, file.size, file.etag, file.last_modified, file.publisher_checksum)


def _bytes(plan: VolumePlan, tree: Tree, config: AddressConfig, raw: RawFiles) -> ByteSource:
    """The bytes of a plan's one file: where it lies, as it was kept, or by ranges."""
    file, root = plan.files[0], plan.reader["root"]
    source = tree.source(root, _info(file, root))
    if plan.reader["way"] != "ranges":
        return source
    known = raw.known(file) if config.enable_downloads else kept_or_error(file, raw)
    if known is not None:
        return LocalBytes(known.path)
    assert isinstance(source, RemoteBytes)
    return source if plan.box_zyx is not None else kept_while_read(source, raw, file)


def _checked(reader: VolumeReader, plan: VolumePlan, whole: Box | None = None) -> VolumeReader:
    """The reader, if it delivers what was planned."""
    shape = plan.shape_zyx if whole is None else whole.shape_zyx
    if reader.shape_zyx != shape or reader.dtype != np.dtype(plan.dtype):
        raise FormatError(
            f"there are {reader.shape_zyx} {reader.dtype} voxels, the plan says {shape} "
            f"{plan.dtype}",
            archive=plan.source,
            location=plan.source_id,
        )
    return reader


def _check_same(file: SourceFile, place: Place) -> None:
    now = place.info
    before = (file.size, file.etag, file.last_modified)
    if now is None or (now.size, now.etag, now.last_modified) != before:
        raise SourceChangedError("the file changed while it was read", location=file.url)
