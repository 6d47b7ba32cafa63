"""What is there: behind any address, and in the archives that words are looked for in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from lib.archives import bioimages, reach_table
from lib.archives.address.finding import list_place
from lib.archives.address.grammar import is_named, name_and_rest, named_archives, settings_of
from lib.archives.listed import Item, holder, planned
from lib.archives.registry import archive
from lib.config.errors import suggestion
from lib.config.manager import LoadedSettings
from lib.errors import ConfigError, MacroscopeError, StoppedError
from lib.ingest.context import open_session
from lib.storage.local_lock import scratch_folder

_BESIDE = ("bioimages", "reach")
"""Searched, too: the BioImage Archive, and the table of public volumes."""


_HOW_TO_SEARCH = "Write for example: macroscope search zebrafish retina --archive empiar"


def searched() -> tuple[str, ...]:
    """The names that `search` knows: archives that can be searched, and what stands beside them."""
    able = (name for name, source in named_archives().items() if hasattr(archive(source), "search"))
    return (*able, *_BESIDE)


def list_address(loaded: LoadedSettings, address: str | None = None) -> list[Item]:
    """What lies at an address, as rows; the archives where none is given.

    Parameters
    ----------
    address
        A file, folder, bucket or container; or ``empiar:[ENTRY[/FOLDER]]``, ``idr:[STUDY]``,
        ``openorganelle:[DATASET[/PATH]]``, ``flyem:[VERSION[/INSTANCE]]``, ``epfl:``.

    Returns
    -------
    list of Item
        Volumes, with the reason where one cannot be brought in, and what can be listed further.

    Raises
    ------
    ConfigError
        The address cannot be read.
    NotFoundError, AccessDeniedError, TransportError, FormatError
        Nothing can be told of it.
    """
    if address is None:
        return [_archive(name) for name in named_archives()]
    text = f"{address.strip()}:" if address.strip().lower() in named_archives() else address
    if not is_named(text):
        return _asked(loaded, "address", lambda c, s: list_place(text, c, s))
    name, inside = name_and_rest(text)
    source = named_archives()[name]
    lists = getattr(archive(source), "listing", None)
    if lists is None:
        settings_of(text)  # refuses what it does not know behind the colon
        return _asked(loaded, source, lambda c, s: planned(archive(source).plan(c, s), text))
    return _asked(loaded, source, lambda c, s: lists(inside, c, s))


@dataclass(frozen=True, slots=True)
class Searched:
    """What one archive answered.

    Attributes
    ----------
    error
        Why it did not; the others answer all the same.
    """

    archive: str
    items: tuple[Item, ...] = ()
    error: MacroscopeError | None = None


def search(
    loaded: LoadedSettings,
    words: Sequence[str],
    archives: Sequence[str] | None = None,
    *,
    most: int = 10,
) -> list[Searched]:
    """What archives hold that all of some words fit; all archives are asked at once.

    Parameters
    ----------
    words
        Each must fit; a phrase is one of them.
    archives
        Of `searched`; all where not given.
    most
        Hits of each archive.

    Raises
    ------
    ConfigError
        There is no such archive, or no word.
    """
    wanted = [part for text in words for part in [text.strip()] if part]
    if not wanted:
        raise ConfigError("search: no word is given", location="words", advice=_HOW_TO_SEARCH)
    known = searched()
    chosen = [*dict.fromkeys(archives or known)]
    for name in chosen:
        if name not in known:
            raise ConfigError(
                f"search: there is no archive {name!r}; {suggestion(name, known)}",
                location="archive",
                advice=_HOW_TO_SEARCH,
            )

    def one(name: str) -> Searched:
        try:
            return Searched(name, tuple(_hits(loaded, name, wanted, most)))
        except StoppedError:
            raise
        except MacroscopeError as error:
            return Searched(name, error=error)

    with ThreadPoolExecutor(len(chosen), thread_name_prefix="search") as pool:
        return [*pool.map(one, chosen)]


def _hits(loaded: LoadedSettings, name: str, words: list[str], most: int) -> list[Item]:
    if name == "reach":
        return reach_table.search(words)[:most]
    if name == "bioimages":
        if loaded.settings.archives == "samples" and "biostudies_url" not in loaded.origins:
            raise ConfigError(
                "biostudies_url: not given, and the public one is no sample",
                location="EM_SERVICES",
                advice="Name it under SEARCH in the services document, or set EM_ARCHIVES=public",
            )
        return bioimages.search(words, most, loaded.settings.biostudies_url)
    source = named_archives()[name]
    searches = archive(source).search  # type: ignore[attr-defined]
    return _asked(loaded, source, lambda c, s: searches(words, most, c, s))


def _asked(
    loaded: LoadedSettings, source: str, ask: Callable[[Any, Any], list[Item]]
) -> list[Item]:
    config = loaded.loader(source)
    with (
        scratch_folder("list") as scratch,
        open_session(config, source, scratch_dir=scratch) as session,
    ):
        try:
            return ask(config, session)
        except MacroscopeError as error:
            raise error.located(archive=source) from error.__cause__


def _archive(name: str) -> Item:
    entry = archive(named_archives()[name])
    return holder(f"{name}:", name, "archive", title=entry.title)
