"""Opening, bringing and settling a planned volume, whatever tree and format it is of."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lib.bytesource.base import ByteSource, FilePart, JoinedBytes, LocalBytes
from lib.bytesource.remote import HttpBytes, RemoteBytes
from lib.bytesource.server_tree import FtpTree, HttpTree
from lib.bytesource.tree import Tree, fetch_whole, join, listing_or_empty
from lib.errors import FormatError, MacroscopeError, NotFoundError, SourceChangedError
from lib.formats import registry
from lib.formats.base import VolumeReader
from lib.formats.format import CHOICES, Options, VolumeDescription
from lib.formats.planes import CroppedReader, SectionStack
from lib.geometry import Box, ShapeZYX
from lib.plan import SourceFile, VolumePlan
from lib.rawfiles.files import RawFiles, fetched_or_error, kept_or_error
from lib.rawfiles.ranged import PlannedSections, digest_of, kept_while_read, settle_ranged
from lib.rawfiles.sidecar import facts_of
from lib.transport.listing import FileIdentity, Likeness, ObjectInfo, compare
from lib.transport.partial import Fetched

_MOST_HASHED = 4 * 2**30
"""Bytes of local files that are read once more for their digests."""


def open_volume(plan: VolumePlan, tree: Tree, raw: RawFiles, *, downloads: bool) -> VolumeReader:
    """A reader of the planned voxels.

    Raises
    ------
    FormatError
        What is there is not what was planned.
    """
    reader, box = plan.reader, plan.box_zyx
    whole: ShapeZYX = tuple(reader["shape_zyx"])
    if reader["container"] == "tree":
        chosen = box or Box.whole(whole)
        opened = registry.tree_format(reader["format"]).open(
            tree, reader["root"], reader["handle"], chosen, plan.source_grid
        )
        return _checked(opened, plan, chosen.shape_zyx)
    if reader["container"] == "stack":
        stack = SectionStack(_sections(plan, tree, raw))
        depth = (reader["depth"], *whole[1:])
        return _boxed(_checked(stack, plan, depth), plan, reader["first_z"])
    file = plan.files[0]
    if len(plan.files) > 1:
        opened_by = partial(_part, plan, tree, raw, downloads)
        parts = [FilePart(one.name, one.size or 0, partial(opened_by, one)) for one in plan.files]
        remote = reader["way"] == "ranges"
        source: ByteSource = JoinedBytes(parts, file.url, remote=remote)
    elif reader["way"] != "ranges":
        source = _bytes_of(plan, file, reader["root"], tree, raw)
    else:
        known = raw.known(file) if downloads else kept_or_error(file, raw)
        source = tree.source(reader["root"], _info(file, reader["root"]))
        if known is not None:
            source = LocalBytes(known.path)
        elif box is None and isinstance(source, RemoteBytes):
            source = kept_while_read(source, raw, file)
    opened = registry.file_format(reader["format"]).open(source, reader["handle"], raw.scratch_dir)
    return _boxed(_checked(opened, plan, whole), plan, 0)


def bring_file(plan: VolumePlan, file: SourceFile, tree: Tree, raw: RawFiles) -> None:
    """Fetch one file of a plan, and see that it is what was planned."""
    path, key = raw.path(file), _key_of(plan, file)
    info = _info(file, key)
    if isinstance(tree, FtpTree | HttpTree):
        fetched = tree.download(key, info, path)
    else:
        fetched = fetch_whole(tree.source(key, info), info, path)
        _check_published(path, file)
    fmt = registry.file_format(plan.reader["format"])
    if plan.reader["container"] == "file" and file != plan.files[0]:  # which says what it is
        raw.remember(file, fetched, [])
        return
    try:
        with closing(LocalBytes(path, name=file.url)) as source:
            found = fmt.describe(source, plan.internal_path or "", _options(plan))
        _check_described(found, plan, file)
        notes = fmt.check_whole(path, plan.reader["handle"], file.name)
    except MacroscopeError as error:
        raw.forget(file)
        raise error.located(location=file.url, unit=file.name) from None
    raw.remember(file, fetched, [f"{file.name}: {note}" for note in notes])


def _check_published(path: Path, file: SourceFile) -> None:
    try:
        with closing(LocalBytes(path, name=file.url)) as source:
            digest_of(source, file.publisher_checksum)
    except SourceChangedError:
        path.unlink(missing_ok=True)
        raise


def settle_volume(plan: VolumePlan, tree: Tree, raw: RawFiles) -> list[Fetched]:
    """The last look at the source, and what is known of its files. Raises `SourceChangedError`."""
    reader = plan.reader
    if reader["container"] == "tree":
        _check_array(plan, tree)
        return []
    _check_files(plan, tree)
    file = plan.files[0]
    if reader["way"] == "fetch":
        return [fetched_or_error(one, raw) for one in plan.files]
    if reader["way"] == "local":
        return _hashed(plan, tree, raw)
    known = raw.known(file)
    if known is not None:
        return [known]
    source = tree.source(reader["root"], _info(file, reader["root"]))
    if reader["way"] != "ranges" or plan.box_zyx is not None or not isinstance(source, RemoteBytes):
        return []
    return [settle_ranged(source, raw, file)]


# --- files ----------------------------------------------------------------------------------


def _key_of(plan: VolumePlan, file: SourceFile) -> str:
    root: str = plan.reader["root"]
    if plan.reader["container"] == "stack":
        return join(root, file.name)
    return root if file == plan.files[0] else join(root.rpartition("/")[0], file.name)


def _info(file: SourceFile, key: str) -> ObjectInfo:
    return ObjectInfo(key, file.size, file.etag, file.last_modified, file.publisher_checksum)


def _bytes_of(
    plan: VolumePlan, file: SourceFile, key: str, tree: Tree, raw: RawFiles
) -> ByteSource:
    """The bytes of a file: where it was brought to, or where it is."""
    if plan.reader["way"] == "fetch":
        return LocalBytes(raw.path(file), name=file.url)
    return tree.source(key, _info(file, key))


def _part(
    plan: VolumePlan, tree: Tree, raw: RawFiles, downloads: bool, file: SourceFile
) -> ByteSource:
    """One of the files of a volume, kept or not."""
    if plan.reader["way"] == "ranges":
        known = raw.known(file) if downloads else kept_or_error(file, raw)
        if known is not None:
            return LocalBytes(known.path, name=file.url)
    return _bytes_of(plan, file, _key_of(plan, file), tree, raw)


def _sections(plan: VolumePlan, tree: Tree, raw: RawFiles) -> PlannedSections:
    reader = plan.reader
    fmt = registry.file_format(reader["format"])

    def read(number: int) -> VolumeReader:
        file = plan.files[number]
        source = _bytes_of(plan, file, _key_of(plan, file), tree, raw)
        return fmt.open(source, reader["handle"], raw.scratch_dir)

    return PlannedSections(plan, tuple(reader["shape_zyx"][1:]), read)


def _checked(reader: VolumeReader, plan: VolumePlan, shape: Any) -> VolumeReader:
    if reader.shape_zyx != tuple(shape) or reader.dtype != np.dtype(plan.dtype):
        raise FormatError(
            f"there are {reader.shape_zyx} {reader.dtype} voxels, the plan says {tuple(shape)} "
            f"{plan.dtype}",
            location=plan.source_id,
        )
    return reader


def _boxed(reader: VolumeReader, plan: VolumePlan, first_z: int) -> VolumeReader:
    """The chosen crop, of a reader whose first section is number `first_z` of the volume."""
    box = plan.box_zyx
    return (
        reader
        if box is None
        else CroppedReader(reader, box.shifted((-first_z, 0, 0)), plan.source_id)
    )


def _options(plan: VolumePlan) -> Options:
    """The choices that the plan was made with."""
    handle = plan.reader["handle"]
    return Options(choices={key: handle[key] for key in CHOICES if key in handle})


def _check_described(found: Any, plan: VolumePlan, file: SourceFile) -> None:
    shape = tuple(plan.reader["shape_zyx"])
    expected = (1, *shape[1:]) if plan.reader["container"] == "stack" else shape
    fitting = [
        one
        for one in found
        if (one.shape_zyx, one.dtype, one.handle) == (expected, plan.dtype, plan.reader["handle"])
    ]
    if not fitting:
        said = ", ".join(f"{one.shape_zyx} {one.dtype}" for one in found) or "nothing"
        raise FormatError(
            f"the file holds {said} (z, y, x), the plan says {expected} {plan.dtype}",
            location=file.url,
        )


# --- the last look --------------------------------------------------------------------------


def _check_array(plan: VolumePlan, tree: Tree) -> None:
    reader = plan.reader
    shape: ShapeZYX = tuple(reader["shape_zyx"])
    volume = VolumeDescription(plan.internal_path or "", reader["handle"], shape, plan.dtype)
    box = plan.box_zyx or Box.whole(shape)
    now = registry.tree_format(reader["format"]).survey(tree, reader["root"], volume, box)
    if now.etag != plan.files[0].etag:
        raise SourceChangedError("the array changed while it was read", location=plan.source_id)


def _check_files(plan: VolumePlan, tree: Tree) -> None:
    """Compare every file with what the store says of it now."""
    keys = {_key_of(plan, file): file for file in plan.files}
    now: dict[str, ObjectInfo | None] = {}
    if plan.reader["container"] == "stack":
        objects = listing_or_empty(tree, plan.reader["root"]).objects
        now = {one.key: one for one in objects if one.size is not None}
    unknown = [key for key in keys if key not in now]
    looked = tree.ordered([partial(tree.head, key) for key in unknown])
    now |= dict(zip(unknown, looked, strict=True))
    for key, file in keys.items():
        found = now[key]
        if found is None:
            raise NotFoundError("the file is not there any more", location=file.url)
        seen = FileIdentity(found.size, found.etag, found.last_modified, found.checksum)
        if compare(facts_of(file), seen) is Likeness.SAME:
            continue
        source = tree.source(key, _info(file, key))
        if not isinstance(source, HttpBytes):
            raise SourceChangedError("the file changed while it was read", location=file.url)
        source.check_same()  # a mirror's nodes may disagree


def _hashed(plan: VolumePlan, tree: Tree, raw: RawFiles) -> list[Fetched]:
    """Digests of files of this machine, where reading them once more is little beside the rest."""
    total = sum(file.size or 0 for file in plan.files)
    if plan.box_zyx is not None:
        return []
    if total > _MOST_HASHED:
        raw.notes.append(
            "the source files are large and were not hashed; their sizes and times were the same "
            "before and after"
        )
        return []
    found = []
    for file in plan.files:
        with closing(tree.source(_key_of(plan, file))) as source:
            sha256 = digest_of(source, file.publisher_checksum)
        moment, proof = file.last_modified, file.publisher_checksum
        found.append(Fetched(raw.path(file), source.size, sha256, file.etag, moment, proof))
    return found
