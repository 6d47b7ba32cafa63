"""Any volume by its address: the archive of whatever is in no archive."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

from lib.archives.address.finding import find_volumes, the_one
from lib.archives.address.grammar import Address, parse_address
from lib.archives.address.places import LIMITS, SERVICES, open_place, open_tree
from lib.archives.address.plans import plan_of
from lib.archives.address.reading import bring_file, open_volume, settle_volume
from lib.archives.address.spimdata import of_voxels
from lib.archives.base import ArchiveBase, Publisher
from lib.archives.pairs import as_part, beside, overlap_of, paired
from lib.config.loader_base import AddressConfig
from lib.errors import ConfigError, MacroscopeError, StoppedError
from lib.formats.base import VolumeReader
from lib.formats.chunked import choose_level_name
from lib.formats.format import Options, VolumeDescription
from lib.formats.sections import group_sections
from lib.geometry import Box
from lib.plan import SourceFile, VolumePlan
from lib.rawfiles.files import RawFiles, kept_or_error
from lib.transport.limits import Limits
from lib.transport.partial import Fetched
from lib.transport.session import Session


class AddressArchive(ArchiveBase):
    """One volume for each address, or for each scale level where all are asked for."""

    name: ClassVar[str] = "address"
    title: ClassVar[str] = "Any address (files, HTTPS, S3, GCS, FTP)"
    publisher: ClassVar[Publisher] = Publisher("address", "")
    config_model: ClassVar[type[AddressConfig]] = AddressConfig
    heavy: ClassVar[bool] = True
    services: ClassVar[dict[str, Limits]] = LIMITS

    def plan(self, config: AddressConfig, session: Session) -> list[VolumePlan]:
        """Find the volume that each address names, by its metadata.

        Raises
        ------
        ConfigError
            An address cannot be read, or names several volumes; the error lists their addresses.
        NotFoundError, AccessDeniedError, TransportError, FormatError
        """
        plans, failed = self.plan_possible(config, session)
        if failed:
            raise failed[0]
        return plans

    def plan_possible(
        self, config: AddressConfig, session: Session
    ) -> tuple[list[VolumePlan], list[MacroscopeError]]:
        if not config.addresses:
            raise ConfigError(
                "no address is given", archive=self.name, location="sources.address.addresses"
            )
        plans: dict[str, VolumePlan] = {}  # one volume may be named by two addresses
        failed: list[MacroscopeError] = []
        for text in config.addresses:
            try:
                for plan in self._plan_address(parse_address(text), config, session):
                    plans[plan.source_id] = plan
                if config.labels:
                    pairs = self._plan_labels([*plans.values()], config, session)
                    plans |= {plan.path_in_source: plan for plan in pairs}
            except MacroscopeError as error:
                located = error.located(archive=self.name)
                alone = len(config.addresses) == 1 or config.labels
                if alone or isinstance(error, StoppedError):
                    raise located from error.__cause__
                failed.append(located)
        return name_series([*plans.values()]), failed

    def service_of(self, plan: VolumePlan) -> str:
        """The service whose connections reading a volume uses."""
        return SERVICES[plan.reader["place"].partition(":")[0]]

    def fetch(
        self, plan: VolumePlan, config: AddressConfig, session: Session, raw: RawFiles
    ) -> None:
        """Bring the files that cannot be read where they are; each must fit the plan.

        Raises
        ------
        FormatError
            A file is damaged, or not of the size and type of the plan.
        TransportError, SourceChangedError, DestinationError
        """
        if plan.reader["way"] != "fetch":
            return
        if not config.enable_downloads:
            for file in plan.files:
                kept_or_error(file, raw)
            return
        tree, _root = open_tree(_address_of(plan, config), config, session)

        def bring(file: SourceFile) -> None:
            with raw.turn(file):
                if raw.known(file) is None:
                    bring_file(plan, file, tree, raw)

        for _ in tree.ordered([partial(bring, file) for file in plan.files]):
            pass  # as many at once as the service bears; the first error ends it

    def open(
        self, plan: VolumePlan, config: AddressConfig, session: Session, raw: RawFiles
    ) -> VolumeReader:
        if plan.reader["way"] == "fetch" and any(raw.known(file) is None for file in plan.files):
            self.fetch(plan, config, session, raw)  # another host, or another day
        tree, _ = open_tree(_address_of(plan, config), config, session)
        return open_volume(plan, tree, raw, downloads=config.enable_downloads)

    def verify_source_unchanged(
        self, plan: VolumePlan, config: AddressConfig, session: Session, raw: RawFiles
    ) -> list[Fetched]:
        """Look at the source once more, then complete what was kept, or its digest."""
        tree, _ = open_tree(_address_of(plan, config), config, session)
        return settle_volume(plan, tree, raw)

    # --- inside -----------------------------------------------------------------------------

    def _plan_labels(
        self, images: list[VolumePlan], config: AddressConfig, session: Session
    ) -> list[VolumePlan]:
        """Plans of the labels of the one image: what each has of it, on its own grid.

        Raises
        ------
        ConfigError
            There are several images.
        GridMismatchError
            Labels do not lie on the image's grid, or nowhere in it.
        """
        if len(config.addresses) > 1 or len(images) > 1:
            raise ConfigError(
                f"labels belong to one image, and {max(len(images), len(config.addresses))} are "
                "asked for",
                location="labels",
                advice="Run each image with its own labels",
            )
        (image,), whole = images, images[0]
        if config.box is not None:
            unboxed = config.model_copy(update={"box": None})
            (whole,) = self._plan_address(parse_address(config.addresses[0]), unboxed, session)
        own = {"box": None, "name": None, "scale_level": None, "channel": None, "time": None}
        given = config.model_copy(update={**own, "voxel_size_nm": None})
        made = []
        for text in config.labels:
            address = parse_address(text)
            (found,) = self._plan_address(address, given, session)
            labels, _ = paired(whole, found)
            overlap = overlap_of(image, labels)
            if overlap.labels != Box.whole(labels.shape_zyx):
                boxed = given.model_copy(update={"box": str(overlap.labels)})
                (part,) = self._plan_address(address, boxed, session)
                labels = as_part(labels, part, overlap.labels)
            made.append(beside(image, labels, overlap))
        return made

    def _plan_address(
        self, address: Address, config: AddressConfig, session: Session
    ) -> list[VolumePlan]:
        place = of_voxels(open_place(address, config, session))
        before = place.traffic()
        first, *others = _levels(config)
        found = the_one(find_volumes(place, _options(config, first)), str(address), place)
        _check_level(found.volume, first, str(address))
        after = place.traffic()
        header = (after[0] - before[0], after[1] - before[1])
        if config.scale_level == "all":
            others = [*found.volume.levels[1:]]
        chosen = [found]
        for level in others:
            volumes = find_volumes(place, _options(config, level))
            chosen.append(the_one(volumes, str(address), place))
            _check_level(chosen[-1].volume, level, str(address))
        return [plan_of(config, place, one, header) for one in chosen]


def _levels(config: AddressConfig) -> list[str | None]:
    """The levels that are asked for; None stands for the finest."""
    if config.scale_level is None or config.scale_level == "all":
        return [None]
    given = config.scale_level
    return [given] if isinstance(given, str) else [*given]


def _check_level(volume: VolumeDescription, wanted: str | None, where: str) -> None:
    """See that a volume is the level that was asked for, whatever its format made of the wish.

    Raises
    ------
    NotFoundError
        It has no such level, or no levels at all.
    ConfigError
        The address names another of its levels.
    """
    if wanted is None:
        return
    found = choose_level_name(volume.levels or ["the only one"], wanted, where)
    if volume.levels and found != volume.level:
        raise ConfigError(
            f"the address names level {volume.level}, and scale_level {wanted}",
            location=where,
            advice="Leave one of them out",
        )


def _options(config: AddressConfig, level: str | None) -> Options:
    asked = {"mrc_mode0": config.mrc_mode0, "mrc_sections": config.mrc_sections}
    choices = {key: value for key, value in asked.items() if value not in (None, "auto")}
    return Options(level, config.channel, config.time, choices)


def _address_of(plan: VolumePlan, config: AddressConfig) -> Address:
    """The place of a plan: as the settings write it, for they may hold a signature.

    Raises
    ------
    ConfigError
        The query of its address chose the file, and no setting holds it.
    """
    place: str = plan.reader["place"]
    found, mark = parse_address(place), plan.reader.get("query", "")
    every = [parse_address(text) for text in (*config.addresses, *config.labels)]
    given = [address for address in every if address.mark == mark]
    for address in given:
        if address.bare == place:
            return address
    for address in given:  # a ZIP file that was looked into, or what lies below a folder
        if address.query and f"{found.place}/".startswith(f"{address.place.rstrip('/')}/"):
            return replace(found, query=address.query)
    if mark:
        raise ConfigError(
            f"{place}: what its query said is not kept, and chose the file",
            location="addresses",
            advice="Give the whole address",
        )
    return found


_told = logging.getLogger("macroscope")  # what a run has to tell, see `flows.logs`


def name_series(plans: Sequence[VolumePlan]) -> list[VolumePlan]:
    """The plans, with a note on each that is a plane of a numbered series.

    ``run slice_*.tif`` without quotes reaches us as a list of files, and each of them is a volume
    of one plane: what the user meant is told once, and stands in every record.
    """
    planes = {
        plan.reader["place"]: plan
        for plan in plans
        if plan.reader["container"] == "file" and plan.shape_zyx[0] == 1
    }
    groups, _ = group_sections(planes)
    advice: dict[str, str] = {}
    for group in groups:
        pattern = group.pattern.replace("#", "*")
        text = (
            f"{len(group.names)} planes of one numbered series were named one by one, and each is "
            f"a volume: '{pattern}', in quotes, is one volume of them"
        )
        _told.warning("%s", text)
        advice |= dict.fromkeys(group.names, text)
    return [
        plan.model_copy(update={"notes": (*plan.notes, advice[plan.reader["place"]])})
        if planes.get(plan.reader["place"]) is plan and plan.reader["place"] in advice
        else plan
        for plan in plans
    ]
