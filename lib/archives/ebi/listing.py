"""Entries of EMPIAR, found by words, and what one of them holds.

EMPIAR's own API has no search; EBI Search has a domain ``empiar``: ``GET {root}/empiar`` with
``query`` (Lucene), ``size``, ``start`` and ``format=json`` answers ``{"hitCount", "entries":
[{"id": "EMPIAR-10094", "source": "empiar"}]}``. What an entry is, its own API tells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lib.archives.ebi.entry import EmpiarEntry, parse_entry
from lib.archives.ebi.tree import HTTPS
from lib.archives.listed import Item, all_of, holder, refused
from lib.config.errors import build
from lib.config.loaders import EBIConfig
from lib.errors import BadAnswerError, MacroscopeError, NotFoundError, StoppedError
from lib.transport.session import Session

API = "empiar-api"
SEARCH = "ebi-search"
_MOST_ENTRIES = 100
_ALL = "domain_source:empiar"

Rows = Callable[[EBIConfig, Session], list[Item]]


def search_entries(words: list[str], most: int, config: EBIConfig, session: Session) -> list[Item]:
    """The entries that all words fit, best first, each as its own API describes it.

    Raises
    ------
    BadAnswerError, TransportError
    """
    return [
        _entry_item(one, config, session) for one in _found(all_of(words), most, config, session)
    ]


def all_entries(config: EBIConfig, session: Session) -> list[Item]:
    """The first entries of the archive, by accession only: there are thousands."""
    found = _found(_ALL, _MOST_ENTRIES, config, session)
    return [holder(f"empiar:{one.removeprefix('EMPIAR-')}", one, "entry") for one in found]


def list_entry(inside: str, config: EBIConfig, session: Session, rows: Rows) -> list[Item]:
    """How an entry, or a folder of it, is understood: `rows` of it, then the folders in it.

    Raises
    ------
    NotFoundError
        There is no such entry.
    """
    number, _, folder = inside.partition("/")
    own = {"entry_id": number, **({"folder": folder} if folder else {})}
    chosen = build(EBIConfig, config.model_dump() | own, archive="ebi")
    entry = _entry(chosen, session)
    address = f"empiar:{chosen.entry_id}"
    where = f"{address}/{chosen.folder}" if chosen.folder else address
    items: list[Item] = []
    try:
        items = rows(chosen, session)
    except StoppedError:
        raise
    except MacroscopeError as error:
        items = [refused(where, entry.about.title or chosen.accession, error.message, "entry")]
    items += _folders(address, chosen, entry, session)
    return items


def _folders(address: str, config: EBIConfig, entry: EmpiarEntry, session: Session) -> list[Item]:
    folders = [config.folder] if config.folder else sorted({s.folder for s in entry.imagesets})
    found: dict[str, Item] = {}
    for folder in folders or ["data"]:
        url = f"{config.https_base_url}/empiar/world_availability/{config.entry_id}/{folder}/"
        try:
            listed = session.http(HTTPS).list_index(url)
        except StoppedError:
            raise
        except MacroscopeError:
            continue  # the volumes above say what there is to say
        for one in listed:
            if one.is_dir:
                path = f"{folder}/{one.name.strip('/')}"
                found[path] = holder(f"{address}/{path}", f"{path}/", "folder")
    return [*found.values()]


def _found(query: str, most: int, config: EBIConfig, session: Session) -> list[str]:
    url = f"{config.search_base_url}/empiar"
    params = {"query": query, "size": str(most), "start": "0", "format": "json"}
    answer = session.http(SEARCH).get_json(url, params)
    try:
        ids = [str(one["id"]) for one in answer["entries"]]
    except (KeyError, TypeError) as error:
        raise BadAnswerError(
            f"the answer of EBI Search cannot be read: {error!r}", archive="ebi", location=url
        ) from None
    numbers = [one.removeprefix("EMPIAR-") for one in ids]
    return [f"EMPIAR-{one}" for one in numbers if one.isascii() and one.isdecimal()][:most]


def _entry_item(accession: str, config: EBIConfig, session: Session) -> Item:
    number = accession.removeprefix("EMPIAR-")
    address = f"empiar:{number}"
    try:
        entry = _entry(config.model_copy(update={"entry_id": number}), session)
    except (NotFoundError, BadAnswerError) as error:  # the index may be older than the archive
        return refused(address, accession, error.message, "entry")
    about = entry.about
    size = about.extra.get("dataset_size")
    return Item(
        address=address,
        name=accession,
        what="entry",
        size=size if isinstance(size, str) else None,
        title=about.title,
        organism=about.organism,
        technique=about.modality,
        licence=about.licence,
    )


def _entry(config: EBIConfig, session: Session) -> EmpiarEntry:
    where = f"{config.api_base_url}/entry/{config.accession}/"
    try:
        document: Any = session.http(API).get_json(where)
    except NotFoundError as error:
        error.advice = "Check the accession: the archive has no such entry"
        raise
    return parse_entry(document, config.accession, where)
