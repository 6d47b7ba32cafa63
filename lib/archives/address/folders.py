"""Files in a folder: numbered sections that make one volume, and files that are volumes."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from lib.archives.address.places import Place, with_files
from lib.errors import FormatError, UnsupportedFormatError
from lib.formats import registry
from lib.formats.format import FileFormat, Options, VolumeDescription
from lib.formats.sections import SectionGroup, group_sections
from lib.formats.stacks import put_together
from lib.transport.listing import ObjectInfo

_MOST_FILES = 200_000
_MOST_DESCRIBED = 50


@dataclass(frozen=True, slots=True)
class FolderStack:
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
    """A file that is no section of a stack, and after it those that it names as parts of it."""

    format: FileFormat
    volume: VolumeDescription
    files: tuple[ObjectInfo, ...]


def volumes_in_folder(
    place: Place, wanted: Collection[str] | None, pattern: str | None, options: Options
) -> Iterator[FolderStack | Single]:
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
    headers = [name for name in names if name.lower().endswith(_headers())]
    loadable, named = 0, set[str]()  # parts of the volumes that were found
    for number, name in enumerate(headers):
        if number >= _MOST_DESCRIBED and loadable > 1:
            return
        found, parts = _single(place, names[name], options)
        loadable += sum(one.volume.refused is None for one in found)
        named |= parts
        yield from found
    rest = [name for name in names if name not in headers and name not in named]
    groups, alone = group_sections(rest, demanded=pattern is not None)
    singles = [*alone]
    for group in groups:
        stack = _stack(place, group, names, options)
        if stack is not None:
            yield stack
        else:
            singles += group.names
    for number, name in enumerate(singles):
        if number >= _MOST_DESCRIBED and loadable > 1:
            return  # enough to refuse an address that names one; `list` tells how many more
        if name in named:
            continue
        found, parts = _single(place, names[name], options)
        loadable += sum(one.volume.refused is None for one in found)
        named |= parts
        yield from found


def _headers() -> tuple[str, ...]:
    """Suffixes of files that name others as their parts."""
    formats = map(registry.file_format, registry.FILE_FORMATS)
    return tuple(suffix for fmt in formats for suffix in fmt.headers)


def _single(place: Place, info: ObjectInfo, options: Options) -> tuple[list[Single], set[str]]:
    """The volumes of a file, and the names of all files that it counts as its parts."""
    fmt, volumes = _described(place, info, options)
    every = volumes  # a channel may lie in some of the parts only
    if (options.channel, options.time) != (None, None):
        every = _described(place, info, Options())[1]
    found = [Single(fmt, *one) for one in with_files(place.tree, info, volumes)]
    return found, {name for volume in every for name in volume.beside}


def _stack(
    place: Place, group: SectionGroup, names: dict[str, ObjectInfo], options: Options
) -> FolderStack | None:
    """The volume of a group; None where its files are volumes themselves.

    Raises
    ------
    FormatError
        A file is damaged, or differs from the others: who gives an address says what belongs to it.
    """
    formats: dict[str, FileFormat] = {}

    def look(name: str) -> VolumeDescription:
        formats[name], found = _described(place, names[name], options)
        if len(found) != 1 or found[0].refused is not None or found[0].beside:
            raise UnsupportedFormatError(
                f"the file holds {len(found)} volumes", location=place.below(name)
            )
        return found[0]

    try:
        look(group.names[0])
    except UnsupportedFormatError:
        return None
    if not formats[group.names[0]].sections:
        return None
    stack = put_together(group, look, {name: names[name].size for name in group.names})
    if stack.first is None:
        return None
    for name, reason in (
        *((name, error.message) for name, error in stack.refused.items()),
        *stack.different.items(),
    ):
        raise FormatError(
            f"{name!r} is no section of one stack with the others: {reason}",
            location=place.below(name),
            advice="Name the files that belong together, as FOLDER/raw_*.tif",
        )
    notes = [*stack.first.notes, *stack.notes]
    if group.numbers[0] not in (0, 1):
        notes.append(f"the first section is number {group.numbers[0]}")
    shape = (stack.depth, *stack.first.shape_zyx[1:])
    volume = replace(stack.first, path="", shape_zyx=shape, notes=tuple(notes))
    files = tuple(names[name] for name in stack.names)
    return FolderStack(formats[group.names[0]], volume, files, stack.places, _pattern(group.names))


def _described(
    place: Place, info: ObjectInfo, options: Options
) -> tuple[FileFormat, Sequence[VolumeDescription]]:
    with closing(place.tree.source(info.key)) as source:
        name = info.key.rpartition("/")[2]
        fitting = registry.formats_of_file(source, name)
        if not fitting:
            raise UnsupportedFormatError(
                "the file is not of the format that its name says", location=source.name
            )
        return fitting[0], fitting[0].describe(source, "", options)


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
