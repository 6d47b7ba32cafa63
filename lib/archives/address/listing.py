"""What lies at an address: volumes, and folders to look into."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lib.archives.address.finding import Candidate, find_volumes, tree_volumes
from lib.archives.address.grammar import AddressStep, parse_address
from lib.archives.address.places import Place, is_zip, open_place
from lib.archives.listed import Item, What, described, holder, refused
from lib.bytesource.tree import listing_or_none
from lib.config.loader_address import AddressConfig
from lib.errors import MacroscopeError, NotFoundError, StoppedError
from lib.formats import registry
from lib.formats.format import Options
from lib.transport.session import Session

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
    address = parse_address(text)
    place = open_place(address, config, session)
    if is_zip(place):  # as |zip: would say
        address = replace(address, steps=(AddressStep("zip", "", True), *address.steps))
        place = open_place(address, config, session)
    found: list[Candidate] = []
    failure: MacroscopeError | None = None
    try:
        found = find_volumes(place, Options())
    except StoppedError:
        raise
    except MacroscopeError as error:
        failure = error
    items = [_item(one) for one in found]
    here = any(one.root == place.root for one in found)  # a container holds no further folders
    if place.info is None and not place.steps and place.pattern is None and not here:
        items += _below(place, {one.root for one in found})
    if isinstance(failure, NotFoundError) and not items:
        raise failure
    if failure is not None and not isinstance(failure, NotFoundError):
        folder = place.info is None
        what: What = "folder" if folder else "volume"
        said = refused(place.address, _last(place.root), failure.message, what)
        files = _one_by_one(place, config, session) if folder and not place.steps else []
        items = [said, *files, *items]
    return items


def _one_by_one(place: Place, config: AddressConfig, session: Session) -> Iterator[Item]:
    """The files of a folder, each for itself: one of them is why the whole says nothing."""
    listing = listing_or_none(place.tree, place.root)
    names = [_last(one.key) for one in listing.objects] if listing is not None else []
    names = [name for name in names if registry.file_formats_for(name, ())]
    for name in names[:_MOST_LOOKED_INTO]:
        try:
            yield from list_place(place.below(name), config, session)
        except StoppedError:
            raise
        except MacroscopeError as error:
            yield refused(place.below(name), name, error.message)
    if len(names) > _MOST_LOOKED_INTO:
        yield holder(place.folder, f"... and {len(names) - _MOST_LOOKED_INTO} more files", "folder")


def _below(place: Place, known: set[str]) -> Iterator[Item]:
    """Containers and folders directly below a folder."""
    listing = listing_or_none(place.tree, place.root)
    prefixes = listing.prefixes if listing is not None else ()
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
        yield holder(place.folder, f"... and {more} more folders", "folder")


def _item(one: Candidate) -> Item:
    place, *inside = one.address.split("|")
    steps = (step.partition(":")[2] for step in inside)
    name = "/".join(part.strip("/") for part in (_last(place.rstrip("/")), *steps) if part)
    return described(one.address, name, one.volume)


def _last(key: str) -> str:
    return key.rstrip("/").rpartition("/")[2]
