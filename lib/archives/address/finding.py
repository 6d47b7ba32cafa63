"""Which volumes lie at a place, by which address each of them is named, and what to look into."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import unquote

from lib.archives.address.folders import FolderStack, volumes_in_folder
from lib.archives.address.grammar import AddressStep, parse_address
from lib.archives.address.places import Place, open_place, with_files
from lib.archives.address.spimdata import calibrated, of_voxels
from lib.archives.listed import Item, What, described, holder, more_of, refused
from lib.bytesource.tree import join, listing_or_empty
from lib.config.loader_base import AddressConfig
from lib.errors import (
    AccessDeniedError,
    ConfigError,
    FormatError,
    MacroscopeError,
    NotFoundError,
    NotListableError,
    StoppedError,
    UnsupportedFormatError,
)
from lib.formats import registry
from lib.formats.format import Options, TreeFormat, VolumeDescription
from lib.transport.listing import ObjectInfo
from lib.transport.session import Session

_MOST_SHOWN = 20
_MOST_BELOW = 50
_DEEPEST = 64
_UNPACK = "Unpack it: of packed files NIfTI and MRC are read"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A volume that a place holds.

    Attributes
    ----------
    address
        Names this volume and no other.
    format
        Name of its format in the registry.
    root
        Key of the file or of the container in the place's tree; of a stack, of its folder.
    files
        The file it lies in, before those that it names; or the files of its sections in order;
        empty for a tree of objects.
    places
        z of each section of a stack; empty for others.
    """

    address: str
    format: str
    container: Literal["file", "tree", "stack"]
    root: str
    volume: VolumeDescription
    files: tuple[ObjectInfo, ...] = ()
    places: tuple[int, ...] = ()


def find_volumes(place: Place, options: Options) -> list[Candidate]:
    """Every volume that the address names; the caller chooses, or refuses to.

    Raises
    ------
    NotFoundError
        Nothing is there, or nothing of a format that is converted.
    AccessDeniedError
        The store refuses the file.
    FormatError
        What is there is damaged.
    """
    found = _found(place, options)
    volumes = calibrated(place, found)
    return [replace(one, volume=volume) for one, volume in zip(found, volumes, strict=True)]


def _found(place: Place, options: Options) -> list[Candidate]:
    if len(place.steps) > 1:
        raise ConfigError(
            f"{place.steps[1]}: nothing can follow {place.steps[0]}", location="addresses"
        )
    step = place.steps[0] if place.steps else None
    wanted = None if step is None else registry.named(step.word)
    if place.info is not None:
        return _in_file(place, place.info, wanted, step, options)
    found = [] if place.pattern else _in_tree(place, place.root, wanted, step, options)
    if not found:
        try:
            found = _in_folder(place, wanted, step, options)
        except NotListableError as error:
            raise NotFoundError(
                f"neither a file nor a container is here, and {error.message}",
                location=place.address,
                advice="Check the address; name what lies inside a folder that is not listed",
            ) from error
    if not found and step is None and place.pattern is None:
        found = _one_below(place, options)
    if not found and (only := _only_folder(place)) is not None:
        return _found(only, options)
    if not found:
        if place.root and place.pattern is None:
            place.tree.look(place.root)  # a file that is refused is no folder of nothing
        what = "nothing" if step is None else f"nothing of the format {step.word}"
        advice = f"Formats are: {', '.join(registry.words())}"
        listing = listing_or_empty(place.tree, place.root)
        if packed := sum(one.key.endswith(".gz") for one in listing.objects):
            advice = f"{packed} files are packed as a whole (.gz). {_UNPACK}"
        elif place.pattern is None and listing.prefixes:
            advice = f"Folders are here; look into them: macroscope list {place.folder}"
        raise NotFoundError(
            f"{what} that is converted is here", location=place.address, advice=advice
        )
    return found


def the_one(candidates: Sequence[Candidate], address: str, place: Place) -> Candidate:
    """The only candidate that can be opened.

    Raises
    ------
    ConfigError
        There are several; the error lists their addresses, and says what was not looked into.
    UnsupportedFormatError
        None can be opened; the error says why.
    """
    loadable = [one for one in candidates if one.volume.refused is None]
    if len(loadable) == 1:
        return loadable[0]
    if not loadable:
        why = candidates[0].volume.refused if candidates else "there is none"
        raise UnsupportedFormatError(f"no volume can be read here: {why}", location=address)
    shown = "\n".join(f"  {one.address}" for one in loadable[:_MOST_SHOWN])
    more = f"\n  and {len(loadable) - _MOST_SHOWN} more" if len(loadable) > _MOST_SHOWN else ""
    unseen = [*_unseen(place, candidates)]
    if unseen:
        more += f"\n  {' and '.join(unseen)} were not looked into: macroscope list {place.address}"
    raise ConfigError(
        f"{'at least ' if unseen else ''}{len(loadable)} volumes are here, "
        "and an address names one",
        location=address,
        advice=f"Choose from these addresses:\n{shown}{more}",
    )


def _unseen(place: Place, found: Sequence[Candidate]) -> Iterator[str]:
    """What `find_volumes` did not look into, because it had found enough."""
    if (files := _files_left(place, found)) > 0:
        yield f"{files} more files"
    elif not any(one.files or one.root == place.root for one in found):  # `_one_below`
        left = len(listing_or_empty(place.tree, place.root).prefixes) - _MOST_BELOW
        if left > 0:
            yield f"{left} more folders"


def _in_file(
    place: Place,
    info: ObjectInfo,
    wanted: Collection[str] | None,
    step: AddressStep | None,
    options: Options,
) -> list[Candidate]:
    with closing(place.source()) as source:
        fitting = registry.formats_of_file(source, place.root.rpartition("/")[2])
        if wanted is not None:
            chosen = [one for one in fitting if one.name in wanted]
            if not chosen:
                said = fitting[0].title if fitting else "of no format that is converted"
                raise FormatError(
                    f"this is no {step.word if step else ''} file: it is {said}",
                    location=place.address,
                    advice="Leave the format out, or name the one that the file has",
                )
            fitting = chosen
        if not fitting:
            packed = source.read(0, min(source.size, 2)) == b"\x1f\x8b"
            raise UnsupportedFormatError(
                "this file is of no format that is converted"
                + (": it is packed as a whole (gzip)" if packed else ""),
                location=place.address,
                advice=_UNPACK if packed else f"Formats are: {', '.join(registry.words())}",
            )
        volumes = fitting[0].describe(source, step.path if step else "", options)
    name = fitting[0].name
    return [
        Candidate(_address(place.address, name, one.path), name, "file", place.root, one, files)
        for one, files in with_files(place.tree, info, volumes)
    ]


def _in_tree(
    place: Place,
    root: str,
    wanted: Collection[str] | None,
    step: AddressStep | None,
    options: Options,
) -> list[Candidate]:
    """Volumes of formats of trees, where the documents of one are there."""
    known = [name for name in registry.TREE_FORMATS if wanted is None or name in wanted]
    inner = join(root, step.path if step else "")
    fitting = _fitting(place, root, known)
    if not fitting and inner != root:  # a folder that is no group may hold one
        fitting = _fitting(place, inner, known)
    if not fitting and wanted is not None and known:
        fitting = [registry.tree_format(known[0])]  # it says best what is not there
    where = place.address if root == place.root else place.below(root.rpartition("/")[2])
    return [
        Candidate(_address(where, fmt.name, one.path), fmt.name, "tree", root, one)
        for fmt in fitting
        for one in fmt.describe(place.tree, root, step.path if step else "", options)
    ]


def _fitting(place: Place, key: str, known: Sequence[str]) -> list[TreeFormat]:
    """The formats that find their documents.

    Raises
    ------
    AccessDeniedError
        None does, and some were refused: a bucket that is not listed says so of what is absent.
    """
    found, refused = [], None
    for fmt in map(registry.tree_format, known):
        try:
            if fmt.fits(place.tree, key):
                found.append(fmt)
        except AccessDeniedError as error:
            refused = error
    if refused is not None and not found:
        raise refused
    return found


def _in_folder(
    place: Place, wanted: Collection[str] | None, step: AddressStep | None, options: Options
) -> list[Candidate]:
    """Stacks of sections and single files; a step's path is a pattern of names here."""
    pattern = place.pattern or (step.path if step and step.path else None)
    if wanted is not None and not set(wanted) & set(registry.FILE_FORMATS):
        return []
    found = []
    for one in volumes_in_folder(place, wanted, pattern, options):
        name = one.format.name
        if isinstance(one, FolderStack):
            address = _address(place.folder, name, one.pattern)
            found.append(
                Candidate(address, name, "stack", place.root, one.volume, one.files, one.places)
            )
        else:
            key = one.files[0].key
            address = _address(place.below(key.rpartition("/")[2]), name, one.volume.path)
            found.append(Candidate(address, name, "file", key, one.volume, one.files))
    return found


def tree_volumes(place: Place, key: str, options: Options) -> list[Candidate]:
    """Volumes of the container at a key of the place's tree; none where it is no container."""
    return _in_tree(place, key, None, None, options)


def _one_below(place: Place, options: Options) -> list[Candidate]:
    """Containers directly below a folder that is none itself."""
    prefixes = listing_or_empty(place.tree, place.root).prefixes
    found = [one for key in prefixes[:_MOST_BELOW] for one in tree_volumes(place, key, options)]
    loadable = sum(one.volume.refused is None for one in found)
    if len(prefixes) > _MOST_BELOW and loadable < 2:
        raise NotFoundError(
            f"{len(prefixes)} folders are here, and an address names one volume",
            location=place.address,
            advice=f"Choose one: macroscope list {place.address}",
        )
    return found


def _only_folder(place: Place) -> Place | None:
    """The one folder that lies at a place where nothing else is read, as in most ZIP files."""
    prefixes = listing_or_empty(place.tree, place.root).prefixes if place.pattern is None else ()
    keys = [key.rstrip("/") for key in prefixes]
    keys = [key for key in keys if not key.rpartition("/")[2].startswith((".", "__MACOSX"))]
    if len(keys) != 1 or keys[0].count("/") > _DEEPEST:
        return None
    (key,) = keys
    return replace(place, root=key, address=place.below(key.rpartition("/")[2]))


def _address(place: str, word: str, path: str) -> str:
    return f"{place}|{AddressStep(word, path)}"


MOST_FOLDERS = 500
_MOST_LOOKED_INTO = 50


def list_place(text: str, config: AddressConfig, session: Session) -> list[Item]:
    """The volumes of a place, those that cannot be read with the reason, and its folders.

    Raises
    ------
    NotFoundError
        Nothing is there.
    ConfigError, AccessDeniedError, TransportError
    """
    place = of_voxels(open_place(parse_address(text), config, session))
    found: list[Candidate] = []
    failure: MacroscopeError | None = None
    try:
        found = find_volumes(place, Options())
    except StoppedError:
        raise
    except MacroscopeError as error:
        failure = error
    items = [_item(one) for one in found]
    if (count := _files_left(place, found)) > 0:
        items.append(_more_files(place, count))
    here = any(one.root == place.root for one in found)  # a container holds no further folders
    if place.info is None and not place.steps and place.pattern is None and not here:
        items += _below(place, {one.root for one in found})
    if isinstance(failure, NotFoundError) and not items:
        raise failure
    if failure is not None and not isinstance(failure, NotFoundError):
        folder = place.info is None
        what: What = "folder" if folder else "volume"
        where = f"{failure.location}: " if folder and failure.location else ""
        said = refused(place.address, _last(place.root), f"{where}{failure.message}", what)
        files = _one_by_one(place, config, session) if folder and not place.steps else []
        items = [said, *files, *items]
    return items


def _more_files(place: Place, count: int) -> Item:
    where = f"macroscope list '{place.folder.rstrip('/')}/NAME*'"
    return more_of(place.folder, count, "files", f"name some by a pattern, as {where}")


def _files_left(place: Place, found: Sequence[Candidate]) -> int:
    """Files of a folder that `volumes_in_folder` left, because it had found enough."""
    known = {one.key for candidate in found for one in candidate.files}
    if not known or place.info is not None:
        return 0
    step = place.steps[0] if place.steps else None
    pattern = place.pattern or (step.path if step else "") or "*"
    wanted = registry.named(step.word) if step else ()
    keys = [one.key for one in listing_or_empty(place.tree, place.root).objects if one.size]
    names = [_last(key) for key in keys if key not in known]
    return sum(
        not name.startswith(".")
        and fnmatch.fnmatchcase(name, pattern)
        and bool(registry.file_formats_for(name, wanted))
        for name in names
    )


def _one_by_one(place: Place, config: AddressConfig, session: Session) -> Iterator[Item]:
    """The files of a folder, each for itself: one of them is why the whole says nothing."""
    names = [_last(one.key) for one in listing_or_empty(place.tree, place.root).objects]
    names = [name for name in names if registry.file_formats_for(name, ())]
    for name in names[:_MOST_LOOKED_INTO]:
        try:
            yield from list_place(place.below(name), config, session)
        except StoppedError:
            raise
        except MacroscopeError as error:
            yield refused(place.below(name), name, error.message)
    if len(names) > _MOST_LOOKED_INTO:
        yield _more_files(place, len(names) - _MOST_LOOKED_INTO)


def _below(place: Place, known: set[str]) -> Iterator[Item]:
    """Containers and folders directly below a folder."""
    prefixes = listing_or_empty(place.tree, place.root).prefixes
    for number, key in enumerate(prefixes[:MOST_FOLDERS]):
        key = key.strip("/")
        if any(root == key or root.startswith(f"{key}/") for root in known):
            continue
        where = place.below(_last(key))
        if number < _MOST_LOOKED_INTO:
            try:
                inside = tree_volumes(place, key, Options())
            except StoppedError:
                raise
            except MacroscopeError as error:
                yield refused(where, _last(key), error.message)
                continue
            if inside:
                yield from map(_item, inside)
                continue
        yield holder(f"{where}/", f"{_last(key)}/", "folder")
    if len(prefixes) > MOST_FOLDERS:
        more = len(prefixes) - MOST_FOLDERS
        yield more_of(place.folder, more, "folders", "name one by its address")


def _item(one: Candidate) -> Item:
    place, *inside = one.address.split("|")
    place = place if place.startswith(("s3://", "gs://")) else unquote(place)
    steps = (step.partition(":")[2] for step in inside)
    name = "/".join(part.strip("/") for part in (_last(place.rstrip("/")), *steps) if part)
    return described(one.address, name, one.volume)


def _last(key: str) -> str:
    return key.rstrip("/").rpartition("/")[2]
