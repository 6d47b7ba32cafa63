"""EMPIAR at EMBL-EBI: files of electron microscopes, over HTTPS or FTP.

Entry API ``/empiar/api/entry/{id}/``; files under ``/empiar/world_availability/{id}/data/``. No
checksums are published: a file is believed when its size is right and it parses to its end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from lib.archives.base import ArchiveBase, Publisher
from lib.archives.ebi.entry import (
    ALL,
    API,
    MOST_ENTRIES,
    SEARCH,
    ask_entry,
    entry_item,
    find_entries,
    list_entry,
)
from lib.archives.ebi.files import FORMATS, find_files
from lib.archives.ebi.grouping import Described, Volume, sort_files
from lib.archives.ebi.planning import Planner, printable
from lib.archives.ebi.reading import Reading, by_ranges, options_of, service_of
from lib.archives.ebi.tree import SERVICES, EbiTree
from lib.archives.ebi.volumes import kinds_of, pair_up, stated_dtype, why_none
from lib.archives.listed import Item, VoxelZYX, What, all_of, holder, planned_row, refused
from lib.archives.selection import Selection, plan_each, with_notes
from lib.config.loaders import EBIConfig
from lib.errors import FormatError, MacroscopeError, UnsupportedFormatError
from lib.formats import registry
from lib.formats.base import VolumeReader
from lib.formats.format import VolumeDescription
from lib.formats.registry import describe_volumes
from lib.plan import VolumePlan
from lib.rawfiles.files import RawFiles, kept_or_error
from lib.transport.limits import Limits
from lib.transport.partial import Fetched
from lib.transport.session import Session


def rows_of(planner: Planner, plans: Sequence[VolumePlan], failed: FormatError) -> list[Item]:
    """A row for each volume, with the files that make it; then one for each file that makes none.

    Parameters
    ----------
    failed
        Why there is no volume, where there is none.
    """
    accession, entry_id = planner.entry.accession, planner.config.entry_id
    by_path = {plan.source_path: plan for plan in plans}
    told = {*planner.found.notes, *planner.left_out_notes()}
    rows = []
    for volume in planner.sorting.volumes:
        plan = by_path.get(f"{accession}/{printable(volume.path)}")
        if plan is not None:
            rows.append(_row(entry_id, volume, plan, told))
    rows += _left_out(entry_id, planner.refused())
    if not rows:
        title = planner.entry.about.title or accession
        rows.append(refused(f"empiar:{entry_id}", title, failed.message, "entry"))
    found = [*planner.found.notes]
    if not plans:
        found += [note for notes in planner.found.of_folder.values() for note in notes]
    return [row.model_copy(update={"notes": (*row.notes, *found)}) for row in rows]


def _left_out(entry_id: str, reasons: Mapping[str, str]) -> list[Item]:
    """A row for each file that makes no volume; files of one folder and one reason have one."""
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path, why in reasons.items():
        alike[path.rstrip("/").rpartition("/")[0], why].append(path)
    rows = []
    for (folder, why), paths in alike.items():
        if len(paths) == 1:
            name = paths[0].rstrip("/").rpartition("/")[2]
            what: What = "volume" if "|" in name else "folder" if paths[0].endswith("/") else "file"
            rows.append(refused(f"empiar:{entry_id}/{paths[0]}", name, why, what))
            continue
        first, last = (path.rpartition("/")[2] for path in (min(paths), max(paths)))
        name = f"{len(paths)} files, {first} to {last}"
        rows.append(refused(f"empiar:{entry_id}/{folder}", name, why, "folder"))
    return rows


def _row(entry_id: str, volume: Volume, plan: VolumePlan, told: set[str]) -> Item:
    where = volume.names[0]
    files = printable(where)
    if volume.stacked:
        where = where.rpartition("/")[0]
        last = printable(volume.names[-1].rpartition("/")[2])
        files = f"{len(volume.names)} files, {files} to {last}"
    lengths = zip("zyx", plan.voxel_nm_zyx, strict=True)
    z, y, x = (
        None if plan.stated[f"voxel_size_nm.{axis}"].source == "assumed" else length
        for axis, length in lengths
    )
    voxel: VoxelZYX | None = None if (z, y, x) == (None, None, None) else (z, y, x)
    row = planned_row(plan, f"empiar:{entry_id}/{printable(where)}")
    notes = (files, *(note for note in plan.notes if note not in told))
    return row.model_copy(update={"voxel_nm_zyx": voxel, "notes": notes})


class EBI(ArchiveBase):
    """One volume for each stack of numbered sections, and for each other file or what it holds."""

    name: ClassVar[str] = "ebi"
    title: ClassVar[str] = "EMPIAR (EMBL-EBI, HTTPS and FTP)"
    publisher: ClassVar[Publisher] = Publisher("EMPIAR, EMBL-EBI", "https://www.ebi.ac.uk/empiar/")
    config_model: ClassVar[type[EBIConfig]] = EBIConfig
    services: ClassVar[dict[str, Limits]] = {
        API: Limits(1, None, 10.0, 30.0, 4, 1.0),
        SEARCH: Limits(1, 4.0, 10.0, 30.0, 3, 1.0),
        **SERVICES,
    }
    observed_mb_s: ClassVar[float | None] = 9.5  # over FTP
    address_form: ClassVar[str] = "an accession, as empiar:10310"

    def settings_of(self, rest: str) -> dict[str, Any] | None:
        """An accession, and a folder of it."""
        entry, _, folder = rest.partition("/")
        return {"entry_id": entry, **({"folder": folder} if folder else {})} if entry else None

    def plan(self, config: EBIConfig, session: Session) -> list[VolumePlan]:
        """Read the entry, list its files, and read the headers that decide about volumes.

        Raises
        ------
        NotFoundError
            There is no such entry, or none of its files is converted.
        FormatError
            A header is damaged, or ``assemble=stack`` does not fit the files.
        """
        _, plans, failed = self._understood(config, session)
        if not plans:
            raise failed
        return plans

    def listing(self, inside: str, config: EBIConfig, session: Session) -> list[Item]:
        """Entries, by the search service, or the volumes of ``ENTRY[/FOLDER]``."""
        if not inside:
            found = find_entries(ALL, MOST_ENTRIES, config, session)
            return [holder(f"empiar:{one.removeprefix('EMPIAR-')}", one, "entry") for one in found]
        return list_entry(inside, config, session, lambda c, s: rows_of(*self._understood(c, s)))

    def search(
        self, words: list[str], most: int, config: EBIConfig, session: Session
    ) -> list[Item]:
        """The entries that all words fit, best first."""
        found = find_entries(all_of(words), most, config, session)
        return [entry_item(one, config, session) for one in found]

    def service_of(self, plan: VolumePlan) -> str:
        """The service whose connections reading a volume uses."""
        return service_of(plan)

    def fetch(self, plan: VolumePlan, config: EBIConfig, session: Session, raw: RawFiles) -> None:
        """Bring a file that must lie on disk whole; sections come while they are read.

        Raises
        ------
        FormatError
            The file is damaged, or not of the size and type of the plan.
        NotFoundError
            Nothing may be fetched, and a file is not there.
        TransportError, SourceChangedError, DestinationError
        """
        if not config.enable_downloads:
            for file in plan.files:
                kept_or_error(file, raw)
        elif plan.reader["places"] is None and not by_ranges(plan):
            self._reading(plan, config, session, raw).bring(plan.files[0])

    def open(
        self, plan: VolumePlan, config: EBIConfig, session: Session, raw: RawFiles
    ) -> VolumeReader:
        return self._reading(plan, config, session, raw).open()

    def verify_source_unchanged(
        self, plan: VolumePlan, config: EBIConfig, session: Session, raw: RawFiles
    ) -> list[Fetched]:
        """Ask for size and modification time of every file once more."""
        return self._reading(plan, config, session, raw).look_again()

    # --- inside -----------------------------------------------------------------------------

    def _understood(
        self, config: EBIConfig, session: Session
    ) -> tuple[Planner, list[VolumePlan], FormatError]:
        """The planner, the plans, and what is wrong where there are none."""
        entry = ask_entry(config, session)
        tree, formats = _tree(config, session), dict[str, str]()
        folder = f"/empiar/world_availability/{config.entry_id}"
        found = find_files(tree, folder, entry.imagesets, Selection.of(config), config.folder)

        def describe(path: str) -> Sequence[VolumeDescription]:
            file = found.files[path]
            options = options_of(config, stated_dtype(path, entry.imagesets))
            try:
                fmt, volumes = tree.metadata(
                    file, lambda source: describe_volumes(source, file.name, options, FORMATS)
                )
                formats[path] = fmt.name
                return volumes
            except FormatError as error:
                error.located(archive=self.name, location=file.url)
                raise

        def look_ahead(paths: Sequence[str]) -> dict[str, Described]:
            found = tree.side_by_side([partial(describe, path) for path in paths])
            said = zip(paths, found, strict=True)
            # Others than of format are met again by who needs the file.
            return {
                path: one
                for path, one in said
                if isinstance(one, FormatError) or not isinstance(one, MacroscopeError)
            }

        try:
            sorting = sort_files(
                {path: file.size for path, file in found.files.items()},
                describe,
                config.assemble,
                excluded=found.excluded,
                why_none=lambda path: "" if found.named else why_none(path, entry.imagesets),
                look_ahead=look_ahead,
            )
        except FormatError as error:
            raise error.located(archive=self.name, location=folder) from None
        kinds = kinds_of(sorting.volumes)
        pairs = pair_up(sorting.volumes, kinds)
        planner = Planner(config, entry, tree, found, sorting, formats, kinds, pairs)
        titles = ", ".join(registry.file_format(name).title for name in FORMATS)
        failed = sorting.first_error or UnsupportedFormatError(
            f"none of the entry's files is converted: {', '.join(found.others[:10])}",
            archive=self.name,
            location=folder,
            advice=f"Name another folder of the entry with the setting folder. Converted are "
            f"{titles}",
        )
        # Labels take what they do not say themselves from their images.
        ordered = sorted(sorting.volumes, key=lambda v: kinds[v.path].kind == "labels")
        made = plan_each(ordered, lambda volume: [planner.plan(volume)], lambda v: v.path)
        notes = planner.left_out_notes()
        return planner, [with_notes(plan, notes) for plan in made], failed

    def _reading(
        self, plan: VolumePlan, config: EBIConfig, session: Session, raw: RawFiles
    ) -> Reading:
        return Reading(plan, config, session, _tree(config, session), raw)


def _tree(config: EBIConfig, session: Session) -> EbiTree:
    servers = config.ftp_server, config.https_base_url
    return EbiTree(session, *servers, config.protocol, order=("https", "ftp"))
