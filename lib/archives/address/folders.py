"""Files in a folder: numbered sections that make one volume, and files that are volumes."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from lib.archives.address.places import Place
from lib.bytesource.tree import ObjectInfo
from lib.errors import FormatError, UnsupportedFormatError
from lib.formats import registry
from lib.formats.format import FileFormat, Options, VolumeDescription
from lib.formats.sections import SectionGroup, group_sections

_MOST_FILES = 200_000
_MOST_DESCRIBED = 50


@dataclass(frozen=True, slots=True)
class Stack:
    """Numbered files of one section each, as one volume.

    Attributes
    ----------
    files, places
        The files in slice order, and the z of each.
    pattern
        What their names have in common, ``*`` for the number.
    """

    format: FileFormat
    volume: VolumeDescription
    files: tuple[ObjectInfo, ...]
    places: tuple[int, ...]
    pattern: str


@dataclass(frozen=True, slots=True)
class Single:
    """A file that is no section of a stack."""

    format: FileFormat
    volume: VolumeDescription
    file: ObjectInfo


def volumes_in_folder(
    place: Place, wanted: Collection[str] | None, pattern: str | None, options: Options
) -> Iterator[Stack | Single]:
    """The volumes that lie in a folder as files; what is below other folders is left alone.

    Names only choose candidates; the beginning of a file decides.

    Parameters
    ----------
    wanted
        Formats that count; None for all.
    pattern
        Of names that count, with ``*``.

    Raises
    ------
    NotListableError
        The store does not say what there is.
    FormatError
        Numbered files do not fit together.
    """
    names: dict[str, ObjectInfo] = {}
    for info in place.tree.list(place.root).objects:
        name = info.key.rpartition("/")[2]
        hidden = name.startswith(".") or info.size == 0
        if hidden or (pattern is not None and not fnmatch.fnmatchcase(name, pattern)):
            continue
        if registry.file_formats_for(name, wanted or ()):
            names[name] = info
    if len(names) > _MOST_FILES:
        raise UnsupportedFormatError(
            f"the folder holds {len(names)} files, at most {_MOST_FILES} are looked at",
            location=place.address,
        )
    groups, singles = group_sections(names)
    for group in groups:
        stack = _stack(place, group, names, options)
        if stack is not None:
            yield stack
        else:
            singles += group.names
    for name in singles[:_MOST_DESCRIBED]:
        fmt, volumes = _described(place, names[name], options)
        for volume in volumes:
            yield Single(fmt, volume, names[name])


def _stack(
    place: Place, group: SectionGroup, names: dict[str, ObjectInfo], options: Options
) -> Stack | None:
    """The volume of a group; None where its files are volumes themselves.

    Raises
    ------
    FormatError
        The first and the last differ, or a file is too short for a section.
    """
    fmt, first = _described(place, names[group.names[0]], options)
    if not fmt.sections or len(first) != 1 or first[0].shape_zyx[0] != 1:
        return None
    _, last = _described(place, names[group.names[-1]], options)
    one, other = first[0], last[0]
    if (one.shape_zyx, one.dtype) != (other.shape_zyx, other.dtype) or len(last) != 1:
        raise FormatError(
            f"{group.names[0]!r} holds {one.shape_zyx} {one.dtype}, {group.names[-1]!r} "
            f"{other.shape_zyx} {other.dtype}: they are no sections of one stack",
            location=place.address,
            advice="Name the files that belong together, as FOLDER/raw_*.tif",
        )
    places, depth, notes = group.places()
    if one.voxel != other.voxel:
        notes = (*notes, f"the last section says {other.voxel}, the first {one.voxel}")
    if group.numbers[0] not in (0, 1):
        notes = (*notes, f"the first section is number {group.numbers[0]}")
    volume = replace(
        one, path="", shape_zyx=(depth, *one.shape_zyx[1:]), notes=(*one.notes, *notes)
    )
    files = tuple(names[name] for name in group.names)
    return Stack(fmt, volume, files, places, _pattern(group.names))


def _described(
    place: Place, info: ObjectInfo, options: Options
) -> tuple[FileFormat, Sequence[VolumeDescription]]:
    source = place.tree.source(info.key)
    try:
        name = info.key.rpartition("/")[2]
        fitting = registry.formats_of_file(source, name)
        if not fitting:
            raise UnsupportedFormatError(
                "the file is not of the format that its name says", location=source.name
            )
        return fitting[0], fitting[0].describe(source, "", options)
    finally:
        source.close()


def _pattern(names: Sequence[str]) -> str:
    """The names' common beginning and end, with ``*`` between."""
    first, last = names[0], names[-1]
    head = 0
    while head < min(len(first), len(last)) and first[head] == last[head]:
        head += 1
    while head and first[head - 1].isdigit():
        head -= 1
    tail = 0
    while tail < min(len(first), len(last)) - head and first[-1 - tail] == last[-1 - tail]:
        tail += 1
    while tail and first[len(first) - tail].isdigit():
        tail -= 1
    return f"{first[:head]}*{first[len(first) - tail :]}"
