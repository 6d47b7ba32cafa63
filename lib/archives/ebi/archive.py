"""EMPIAR at EMBL-EBI: files of electron microscopes, over FTP or its HTTPS mirror.

Entry API ``/empiar/api/entry/{id}/``; files under ``/empiar/world_availability/{id}/data/``. No
checksums are published: a file is believed when its size is right and it parses to its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from lib.archives.base import ArchiveBase, Publisher
from lib.archives.ebi.entry import EmpiarEntry, ImageSet, parse_entry
from lib.archives.ebi.files import FORMATS, EntryFiles, find_files
from lib.archives.ebi.listing import SEARCH, all_entries, list_entry, search_entries
from lib.archives.ebi.tree import SERVICES, EbiTree, path_of
from lib.archives.ebi.volumes import (
    Sorting,
    Volume,
    claims_about,
    disagreements,
    of_category,
    other_geometry,
    sort_files,
    stated_category,
    stated_dtype,
    why_single,
)
from lib.archives.listed import Item
from lib.archives.selection import (
    Crop,
    Selection,
    choose_crop,
    left_out_notes,
    plan_each,
    with_notes,
)
from lib.archives.voxels import decide_voxel
from lib.bytesource.base import LocalBytes
from lib.config.loaders import EBIConfig
from lib.errors import FormatError, MacroscopeError, NotFoundError, UnsupportedFormatError
from lib.formats import registry
from lib.formats.base import VolumeReader
from lib.formats.calibration import Origin
from lib.formats.format import FileFormat, Options, VolumeDescription
from lib.formats.sections import Section, SectionStack
from lib.formats.views import CroppedReader, MissingSection
from lib.formats.whole import describe_file
from lib.names import slug
from lib.plan import About, SourceFile, VolumePlan
from lib.provenance import Provenance
from lib.rawfiles.files import RawFiles, fetched_or_error, kept_or_error
from lib.transport.limits import Limits
from lib.transport.partial import Fetched
from lib.transport.session import Session

API = "empiar-api"
_FTP_COMMANDS = 3  # of one file: SIZE, MDTM, RETR
_SHOWN = 50
_BY_NAME = ("dm", "mrc")  # of whose files the plans of earlier versions say no format


@dataclass(frozen=True, slots=True)
class _Made:
    """What the plans of one entry have in common."""

    config: EBIConfig
    entry: EmpiarEntry
    found: EntryFiles
    sorting: Sorting
    formats: dict[str, str]  # of the files that were described, by their paths


class EBI(ArchiveBase):
    """One volume for each stack of numbered sections, and for each other file."""

    name: ClassVar[str] = "ebi"
    title: ClassVar[str] = "EMPIAR (EMBL-EBI, FTP and HTTPS)"
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
        where = f"{config.api_base_url}/entry/{config.accession}/"
        try:
            document = session.http(API).get_json(where)
        except NotFoundError as error:
            error.advice = "Check entry_id: the archive has no such entry"
            raise
        entry = parse_entry(document, config.accession, where)
        tree, formats = _tree(config, session), dict[str, str]()
        folder = f"/empiar/world_availability/{config.entry_id}"
        found = find_files(tree, folder, entry.imagesets, Selection.of(config), config.folder)

        def describe(path: str) -> VolumeDescription:
            file = found.files[path]
            options = _options(config, stated_dtype(path, entry.imagesets))
            try:
                fmt, facts = tree.metadata(
                    file, lambda source: describe_file(source, file.name, options, FORMATS)
                )
                formats[path] = fmt.name
                return facts
            except FormatError as error:
                error.located(archive=self.name, location=file.url)
                raise

        try:
            sizes = {path: file.size for path, file in found.files.items()}
            sorting = sort_files(
                sizes,
                describe,
                config.assemble,
                excluded=found.excluded,
                why_single=lambda path: why_single(path, entry.imagesets),
            )
        except FormatError as error:
            raise error.located(archive=self.name, location=folder) from None
        made = _Made(config, entry, found, sorting, formats)
        if not sorting.volumes:
            titles = ", ".join(registry.file_format(name).title for name in FORMATS)
            raise sorting.first_error or UnsupportedFormatError(
                f"none of the entry's files is converted: {', '.join(found.others[:10])}",
                archive=self.name,
                location=folder,
                advice=f"Name another folder of the entry with the setting folder. Converted are "
                f"{titles}",
            )
        plans = plan_each(
            sorting.volumes, lambda volume: [self._plan_volume(made, volume)], lambda v: v.path
        )
        notes = left_out_notes(_refused(made))
        return [with_notes(plan, notes) for plan in plans]

    def listing(self, inside: str, config: EBIConfig, session: Session) -> list[Item]:
        """Entries, by the search service, or the volumes of ``ENTRY[/FOLDER]``."""
        if not inside:
            return all_entries(config, session)
        return list_entry(inside, config, session, self.plan)

    def search(
        self, words: list[str], most: int, config: EBIConfig, session: Session
    ) -> list[Item]:
        """The entries that all words fit, best first."""
        return search_entries(words, most, config, session)

    def fetch(self, plan: VolumePlan, config: EBIConfig, session: Session, raw: RawFiles) -> None:
        """Bring the files one after another; each must parse to its end and fit the plan.

        Raises
        ------
        FormatError
            A file is damaged, or not of the size and type of the plan.
        TransportError, SourceChangedError, DestinationError
        """
        tree = _tree(config, session)
        for file in plan.files:
            if not config.enable_downloads:
                kept_or_error(file, raw)
                continue
            with raw.turn(file):
                if raw.known(file) is None:
                    self._bring(plan, config, file, tree, raw)

    def open(
        self, plan: VolumePlan, config: EBIConfig, session: Session, raw: RawFiles
    ) -> VolumeReader:
        if any(raw.known(file) is None for file in plan.files):
            self.fetch(plan, config, session, raw)  # another host, or another day
        where = plan.files[0].url
        if plan.reader["places"] is None:
            reader: VolumeReader = _open_file(plan, config, plan.files[0], raw)
        else:
            reader = SectionStack([*_sections(plan, config, raw)])
        box = plan.box_zyx
        if box is None:
            return reader
        first = plan.reader["first_z"]
        return CroppedReader(reader, box.shifted((-first, 0, 0)), where)

    def verify_source_unchanged(
        self, plan: VolumePlan, config: EBIConfig, session: Session, raw: RawFiles
    ) -> list[Fetched]:
        """Ask for size and modification time of every file once more."""
        tree = _tree(config, session)
        folders = {path_of(file).rpartition("/")[0] for file in plan.files}
        listed = {
            f"{folder}/{entry.name}": entry
            for folder in sorted(folders)
            for entry in tree.listing(folder)[1]
        }
        for file in plan.files:
            tree.check_same(file, listed.get(path_of(file)), raw.path(file))
        return [fetched_or_error(file, raw) for file in plan.files]

    # --- inside -----------------------------------------------------------------------------

    def _plan_volume(self, made: _Made, volume: Volume) -> VolumePlan:
        config, entry = made.config, made.entry
        claims = claims_about(volume.names, entry.imagesets, len(made.sorting.volumes))
        pixel_yx = claims.pixel_nm_yx if claims is not None else (None, None)
        category = stated_category(volume.names[0], entry.imagesets)
        own, category_notes = of_category(volume.facts.voxel, category)
        voxel = decide_voxel(own, (None, *pixel_yx), "the API", volume.facts.origin or Origin())
        crop = choose_crop(config.box, volume.shape_zyx, voxel.nm_zyx, voxel.origin_nm_zyx)
        names, reader = _chosen(volume, crop)
        reader |= _format_of(made, volume)
        files = tuple(made.found.files[name] for name in names)
        by_ftp = sum(file.url.startswith("ftp:") for file in files)
        notes = [*volume.notes, *category_notes, *voxel.notes, *made.found.notes]
        if claims is not None:
            notes += disagreements(claims, volume)
        return VolumePlan(
            source=self.name,
            source_id=entry.accession,
            source_path=f"{entry.accession}/{_printable(volume.path)}",
            name=f"{entry.accession}_{slug(volume.stem)}{crop.suffix}",
            shape_zyx=crop.box.shape_zyx,
            dtype=volume.facts.dtype,
            voxel_nm_zyx=voxel.nm_zyx,
            voxel_size_provenance=voxel.provenance,
            voxel_size_approximate=voxel.approximate,
            origin_nm_zyx=crop.origin_nm_zyx,
            box_zyx=crop.chosen,
            reader=reader,
            sections=reader.get("depth"),
            files=files,
            about=_about(made, volume, claims),
            download_bytes=sum(file.size or 0 for file in files),
            download_requests=_FTP_COMMANDS * by_ftp + len(files) - by_ftp,
            notes=tuple(notes),
            stated=voxel.stated | _signedness(volume),
        )

    def _bring(
        self,
        plan: VolumePlan,
        config: EBIConfig,
        file: SourceFile,
        tree: EbiTree,
        raw: RawFiles,
    ) -> None:
        path = raw.path(file)
        fetched = tree.download(file, path)
        try:
            facts, opinion = _check_whole(plan, config, file, raw)
            expected = tuple(plan.reader["file_shape_zyx"])
            if facts.shape_zyx != expected or facts.dtype != plan.dtype:
                raise FormatError(
                    f"the file holds {facts.shape_zyx} {facts.dtype} (z, y, x), the plan says "
                    f"{expected} {plan.dtype}",
                    advice="Leave this file out with exclude, or set assemble to files, to convert "
                    "each file as a volume of its own",
                )
        except MacroscopeError as error:
            raw.forget(file)
            raise error.located(archive=self.name, location=file.url, unit=file.name) from None
        doubts = [*opinion, *other_geometry(facts, plan)]
        raw.remember(file, fetched, [f"{file.name}: {note}" for note in doubts])


def _options(config: EBIConfig, stated: str | None) -> Options:
    """What headers leave open; a plan's dtype is what was decided when it was made."""
    given = {
        "mrc_mode0": config.mrc_mode0,
        "mrc_sections": config.mrc_sections,
        "stated_dtype": stated,
    }
    return Options(choices={key: value for key, value in given.items() if value is not None})


def _format_of(made: _Made, volume: Volume) -> dict[str, Any]:
    """How the files are opened again, where their names do not tell."""
    name = made.formats[volume.names[0]]
    return {} if name in _BY_NAME else {"format": name, "handle": volume.facts.handle}


def _how(plan: VolumePlan, config: EBIConfig, name: str) -> tuple[FileFormat, dict[str, Any]]:
    """Format and handle of a file of a plan."""
    if "format" in plan.reader:
        return registry.file_format(plan.reader["format"]), plan.reader["handle"]
    fmt = registry.file_formats_for(name, _BY_NAME)[0]
    return fmt, dict(_options(config, plan.dtype).choices)


def _open_file(
    plan: VolumePlan, config: EBIConfig, file: SourceFile, raw: RawFiles
) -> VolumeReader:
    fmt, handle = _how(plan, config, file.name)
    source = LocalBytes(raw.path(file), name=file.name)
    return fmt.open(source, handle, scratch=raw.scratch_dir)


def _check_whole(
    plan: VolumePlan, config: EBIConfig, file: SourceFile, raw: RawFiles
) -> tuple[VolumeDescription, tuple[str, ...]]:
    """Parse a file that arrived, to its end, and ask a second reader where there is one."""
    fmt, handle = _how(plan, config, file.name)
    with _open_file(plan, config, file, raw):
        pass  # a file that is compressed as a whole is unpacked to its end
    source = LocalBytes(raw.path(file), name=file.name)
    try:
        options = _options(config, plan.dtype)
        _, facts = describe_file(source, file.name, options, (fmt.name,))
    finally:
        source.close()
    return facts, fmt.check_whole(raw.path(file), handle, file.name)


def _signedness(volume: Volume) -> dict[str, Provenance]:
    by = volume.facts.signedness
    return {} if by is None else {"data_type": by.provenance}


def _tree(config: EBIConfig, session: Session) -> EbiTree:
    return EbiTree(session, config.ftp_server, config.https_base_url, config.protocol)


def _chosen(volume: Volume, crop: Crop) -> tuple[list[str], dict[str, Any]]:
    """Files that the crop needs, and what `EBI.open` must know of them."""
    reader: dict[str, Any] = {"places": None, "first_z": 0}
    if not volume.stacked:
        reader["file_shape_zyx"] = list(volume.shape_zyx)
        return [*volume.names], reader
    first, stop = crop.box.start_zyx[0], crop.box.stop_zyx[0]
    pairs = zip(volume.places, volume.names, strict=True)
    inside = [(place, name) for place, name in pairs if first <= place < stop]
    if not inside:
        raise NotFoundError(
            f"the archive holds no section from {first} to {stop - 1}", location="box"
        )
    reader["file_shape_zyx"] = [1, *volume.shape_zyx[1:]]
    reader["places"] = [place - first for place, _ in inside]
    reader["first_z"], reader["depth"] = first, stop - first
    return [name for _, name in inside], reader


def _sections(plan: VolumePlan, config: EBIConfig, raw: RawFiles) -> Iterator[Section]:
    _, height, width = plan.reader["file_shape_zyx"]
    dtype = np.dtype(plan.dtype)
    present = dict(zip(plan.reader["places"], plan.files, strict=True))
    for z in range(plan.reader["depth"]):
        file = present.get(z)
        if file is None:
            name = f"section {z + plan.reader['first_z']}"
            opener = partial(MissingSection, name, (height, width), dtype)
            yield Section(name, (height, width), dtype, opener)
        else:
            read = partial(_open_file, plan, config, file, raw)
            yield Section(file.name, (height, width), dtype, read)


def _refused(made: _Made) -> dict[str, str]:
    """Files of a convertible kind that are in no volume, with the reason."""
    refused = {**made.found.refused, **made.sorting.refused}
    return {_printable(path): why for path, why in refused.items()}


def _printable(path: str) -> str:
    """A path of bytes that are no UTF-8, without losing what tells it from another."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _about(made: _Made, volume: Volume, claims: ImageSet | None) -> About:
    about = made.entry.about
    left_out = [*made.found.others, *_refused(made)]
    extra: dict[str, Any] = {**about.extra, "unsupported_files": left_out[:_SHOWN]}
    extra |= volume.facts.extra
    if claims is not None and claims.name:
        extra["imageset"] = claims.name
    if category := stated_category(volume.names[0], made.entry.imagesets):
        extra["imageset_category"] = category
    changes: dict[str, Any] = {"extra": extra}
    if volume.facts.acquired is not None:
        changes["imaging_date"] = volume.facts.acquired
        changes["stated"] = {"imaging_date": Provenance(source="file", where=_first_file(volume))}
    if claims is not None and claims.details:
        changes["description"] = claims.details
    return about.revised(**changes)


def _first_file(volume: Volume) -> str:
    return f"header of {volume.names[0]}"
