"""Bringing and opening the files of a planned volume of EMPIAR, and the last look at them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np

from lib.archives.ebi.tree import HTTPS, SPLIT_BYTES, EbiTree, is_member, path_of
from lib.archives.ebi.volumes import other_geometry
from lib.bytesource.base import LocalBytes
from lib.bytesource.remote import RemoteBytes
from lib.config.loaders import EBIConfig
from lib.errors import AccessDeniedError, FormatError, MacroscopeError, NotFoundError
from lib.formats import registry
from lib.formats.base import Block, VolumeReader
from lib.formats.format import FileFormat, Options, VolumeDescription
from lib.formats.planes import CroppedReader, Section, SectionStack
from lib.formats.registry import describe_volumes
from lib.geometry import Box
from lib.plan import SourceFile, VolumePlan
from lib.rawfiles.files import RawFiles, kept_or_error
from lib.rawfiles.ranged import (
    ArrivingFiles,
    ArrivingStack,
    PlannedSections,
    kept_while_read,
    settle_ranged,
)
from lib.transport.partial import Fetched
from lib.transport.session import Session

BY_NAME = ("dm", "mrc")
"""Formats of whose files the plans of earlier versions say no format."""

RANGED_BYTES = 64 * 2**20
"""A volume of one file is read by ranges from this size on; below, its file comes first."""

ROWS_BYTES = 2**20
"""Of sections from this size on, a box may fetch the rows that it needs."""


def options_of(config: EBIConfig, stated: str | None) -> Options:
    """What headers leave open; a plan's dtype is what was decided when it was made."""
    given = {
        "mrc_mode0": config.mrc_mode0,
        "mrc_sections": config.mrc_sections,
        "stated_dtype": stated,
    }
    return Options(choices={key: value for key, value in given.items() if value is not None})


def by_ranges(plan: VolumePlan) -> bool:
    """Whether a volume's voxels come by ranges of its files, which are not brought then."""
    file, reader = plan.files[0], plan.reader
    if not file.url.startswith("http") or file.size is None or reader.get("whole"):
        return False
    if "format" not in reader and file.name.lower().endswith((".gz", ".bz2")):
        return False
    if reader["places"] is None:
        return plan.source_grid is not None or range_wise(file, plan.box_zyx)
    fmt = reader.get("format")
    if fmt is not None and not registry.file_format(fmt).sections:
        return False
    return rows_wise(file, plan.box_zyx, reader["file_shape_zyx"][1])


def range_wise(file: SourceFile, box: Box | None) -> bool:
    """Whether a volume that is one file should be read by ranges."""
    return file.url.startswith("http") and (box is not None or (file.size or 0) >= RANGED_BYTES)


def rows_wise(file: SourceFile, box: Box | None, height: int) -> bool:
    """Whether of a section's rows so few are wanted that ranges cost less than the file."""
    if box is None or not file.url.startswith("http") or (file.size or 0) < ROWS_BYTES:
        return False
    return 2 * box.shape_zyx[1] <= height


class Reading:
    """One volume's files: how they are brought, opened and looked at again."""

    def __init__(
        self, plan: VolumePlan, config: EBIConfig, session: Session, tree: EbiTree, raw: RawFiles
    ) -> None:
        self._plan, self._config, self._session = plan, config, session
        self._tree, self._raw = tree, raw
        self._shape = tuple(plan.reader["file_shape_zyx"])
        self._handles: dict[str, dict[str, Any]] = {}  # of formats that place voxels file by file
        self._refused: dict[str, MacroscopeError] = {}  # files that no other try brings

    # --- the files --------------------------------------------------------------------------

    def bring(self, file: SourceFile, *, ends: bool = False) -> Fetched:
        """Bring a file, unless it is there; it must parse to its end and fit the plan.

        Parameters
        ----------
        ends
            It is one of the volume's last.

        Raises
        ------
        FormatError
            It is damaged, or not of the size and type of the plan.
        NotFoundError
            It is not there, and nothing may be fetched.
        TransportError, SourceChangedError, DestinationError
        """
        if not self._config.enable_downloads:
            return kept_or_error(file, self._raw)
        with self._raw.turn(file):
            if file.url in self._refused:
                raise self._refused[file.url]
            known = self._raw.known(file)
            if known is not None:
                return known
            try:
                return self._brought(file, ends)
            except (FormatError, NotFoundError, AccessDeniedError) as error:
                self._refused[file.url] = error  # others wait for it, too: none asks again
                raise

    def _brought(self, file: SourceFile, ends: bool) -> Fetched:
        fetched = self._tree.download(file, self._raw.path(file), ends=ends)
        try:
            facts, opinion = self._check_whole(file)
            if facts.shape_zyx != self._shape or facts.dtype != self._plan.dtype:
                raise FormatError(
                    f"the file holds {facts.shape_zyx} {facts.dtype} (z, y, x), the plan says "
                    f"{self._shape} {self._plan.dtype}",
                    advice="Leave this file out with exclude, or set assemble to files, to convert "
                    "each file as a volume of its own",
                )
        except MacroscopeError as error:
            self._raw.forget(file)
            raise error.located(
                archive=self._plan.source, location=file.url, unit=file.name
            ) from None
        doubts = [*opinion, *other_geometry(facts, self._plan)]
        return self._raw.remember(file, fetched, [f"{file.name}: {note}" for note in doubts])

    def _check_whole(self, file: SourceFile) -> tuple[VolumeDescription, tuple[str, ...]]:
        """Parse a file that arrived, to its end, and ask a second reader where there is one."""
        fmt, path = self._how(file)[0], self._raw.path(file)
        facts = self._described(file, fmt)
        handle = self._handle(file)
        with fmt.open(LocalBytes(path, name=file.name), handle, scratch=self._raw.scratch_dir):
            pass  # a file that is compressed as a whole is unpacked to its end
        return facts, fmt.check_whole(path, handle, file.name)

    def _described(self, file: SourceFile, fmt: FileFormat) -> VolumeDescription:
        """What a file that is here says of the plan's volume."""
        with closing(LocalBytes(self._raw.path(file), name=file.name)) as source:
            options = options_of(self._config, self._plan.dtype)
            inner = self._plan.internal_path or ""
            found = describe_volumes(source, file.name, options, (fmt.name,))[1]
        fitting = [one for one in found if one.path == inner or len(found) == 1]
        if not fitting or fitting[0].refused is not None:
            why = fitting[0].refused if fitting else f"there is no {inner!r} in the file"
            raise FormatError(str(why), location=file.name)
        if self._of_its_own(fmt):
            self._handles[file.url] = fitting[0].handle
        return fitting[0]

    def _handle(self, file: SourceFile) -> dict[str, Any]:
        """How to open a file that is here: as the plan says, or as its own header says.

        Sections of a format that is made for them are opened alike; in others each file places its
        voxels for itself.
        """
        fmt, handle = self._how(file)
        if not self._of_its_own(fmt):
            return handle
        if file.url not in self._handles:
            self._described(file, fmt)
        return self._handles[file.url]

    def _of_its_own(self, fmt: FileFormat) -> bool:
        """Whether each file says how it is to be opened, and not the plan for all."""
        stacked = self._plan.reader["places"] is not None
        return stacked and not fmt.sections and fmt.name not in BY_NAME

    def _how(self, file: SourceFile) -> tuple[FileFormat, dict[str, Any]]:
        """Format and handle of a file."""
        reader = self._plan.reader
        if "format" in reader:
            return registry.file_format(reader["format"]), reader["handle"]
        fmt = registry.file_formats_for(file.name, BY_NAME)[0]
        return fmt, dict(options_of(self._config, self._plan.dtype).choices)

    # --- the voxels -------------------------------------------------------------------------

    def open(self) -> VolumeReader:
        """A reader of the plan's voxels; files that are not there come while it is read."""
        reader, box = self._plan.reader, self._plan.box_zyx
        if reader["places"] is not None:
            whole: VolumeReader = self._stack()
        elif by_ranges(self._plan):
            whole = self._one_by_ranges()
        else:
            self.bring(self._plan.files[0], ends=True)
            whole = self._open_local(self._plan.files[0])
        if box is None:
            return whole
        where = self._plan.files[0].url
        return CroppedReader(whole, box.shifted((-reader["first_z"], 0, 0)), where)

    def _open_local(self, file: SourceFile) -> VolumeReader:
        fmt, handle = self._how(file)[0], self._handle(file)
        source = LocalBytes(self._raw.path(file), name=file.name)
        return fmt.open(source, handle, self._raw.scratch_dir)

    def _open_remote(self, file: SourceFile) -> VolumeReader:
        fmt, handle = self._how(file)
        return fmt.open(self._tree.source(file), handle, scratch=self._raw.scratch_dir)

    def _one_by_ranges(self) -> VolumeReader:
        """A large file, or a part of one; the whole is kept or hashed while it is read."""
        (file,) = self._plan.files
        fmt, handle = self._how(file)
        known = self._raw.known(file)
        if known is not None:
            return self._open_local(file)
        if not self._config.enable_downloads:
            kept_or_error(file, self._raw)
        source = self._tree.source(file, ends=True)
        planes = self._plan.box_zyx is None and self._plan.source_grid is None
        if planes and isinstance(source, RemoteBytes):
            source = kept_while_read(source, self._raw, file)
        opened = fmt.open(source, handle, self._raw.scratch_dir)
        if (opened.shape_zyx, opened.dtype) != (self._shape, np.dtype(self._plan.dtype)):
            raise FormatError(
                f"the file holds {opened.shape_zyx} {opened.dtype} (z, y, x), the plan says "
                f"{self._shape} {self._plan.dtype}",
                location=file.url,
            )
        return opened

    def _stack(self) -> VolumeReader:
        plan = self._plan
        ranged = by_ranges(plan) and not all(self._raw.known(file) for file in plan.files)
        at_once = self._session.limiter(self._service).connections
        if not ranged:
            at_once = self._files_at_once(at_once)
        arriving = ArrivingFiles(len(plan.files), self._arrive, at_once)

        def open_section(number: int) -> VolumeReader:
            if ranged:
                return self._open_remote(plan.files[number])
            arriving.wait_for(number)
            return self._open_local(plan.files[number])

        if not ranged:
            arriving.want(range(min(at_once, len(plan.files))))  # the first one is waited for
        sections = PlannedSections(plan, self._shape[1:], open_section)
        if ranged:
            return RangedStack(sections, self._session)
        return ArrivingStack(sections, sections.numbers, arriving)

    def _files_at_once(self, slots: int) -> int:
        """How many files fill the connections, of which a large file takes several."""
        sizes = [file.size for file in self._plan.files if file.size is not None]
        mean = sum(sizes) // len(sizes) if sizes else 0
        if mean < SPLIT_BYTES or self._service != HTTPS:
            return slots
        return min(slots, math.ceil(slots / (mean // self._session.limits(HTTPS).range_bytes)) + 1)

    def _arrive(self, number: int) -> None:
        files, slots = self._plan.files, self._session.limiter(self._service).connections
        self.bring(files[number], ends=len(files) - number <= slots // 2)

    @property
    def _service(self) -> str:
        return service_of(self._plan)

    # --- the end ----------------------------------------------------------------------------

    def look_again(self) -> list[Fetched]:
        """Hold every file against what the archive says of it now; what is known of those brought.

        Raises
        ------
        SourceChangedError
        """
        plan, ranged = self._plan, by_ranges(self._plan)
        folders = {path_of(file).rpartition("/")[0] for file in plan.files if not is_member(file)}
        listed = {
            f"{folder}/{entry.name}": entry
            for folder in sorted(folders)
            for entry in self._tree.folder(folder)[0]
        }
        fetched: list[Fetched] = []
        for file in plan.files:
            if not ranged:
                # another host may have read it
                fetched.append(self._raw.known(file) or self.bring(file))
            self._tree.check_same(
                _as_it_came(file, fetched), listed.get(path_of(file)), self._raw.path(file)
            )
        if not ranged:
            return fetched
        if plan.box_zyx is not None or plan.source_grid is not None:
            return []
        (file,) = plan.files
        known = self._raw.known(file)
        source = self._tree.source(file)
        if known is not None or not isinstance(source, RemoteBytes):
            return [known] if known is not None else []
        return [settle_ranged(source, self._raw, file)]


def service_of(plan: VolumePlan) -> str:
    """The service whose connections reading a volume uses."""
    return HTTPS if plan.files[0].url.startswith("http") else "ebi-ftp"


def _as_it_came(file: SourceFile, fetched: list[Fetched]) -> SourceFile:
    """A file with what the server said of it when it came, where no listing had told it."""
    if file.size is not None or not fetched:
        return file
    last = fetched[-1]
    return dataclasses.replace(
        file, size=last.size, etag=last.etag, last_modified=last.last_modified
    )


class RangedStack(SectionStack):
    """Sections of which a box needs some rows: several are asked for at once, none is kept."""

    def __init__(self, sections: Sequence[Section], session: Session) -> None:
        super().__init__(sections)
        self._session = session

    def blocks(self, box: Box) -> Iterator[Block]:
        of_one = super().blocks

        def read(z: int) -> list[Block]:
            (_, y0, x0), (_, y1, x1) = box.start_zyx, box.stop_zyx
            one = Box((z, y0, x0), (z + 1, y1, x1))
            return [Block(block.box, np.array(block.data), block.missing) for block in of_one(one)]

        if math.prod(box.shape_zyx) == 0:
            return
        jobs = (partial(read, z) for z in range(box.start_zyx[0], box.stop_zyx[0]))
        for blocks in self._session.ordered(HTTPS, jobs):
            yield from blocks
