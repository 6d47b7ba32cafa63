"""An entry of EMPIAR's metadata API: ``{"EMPIAR-11759": {"title": ..., "imagesets": [...]}}``.

Shapes vary: persons are nested under ``authors[].author`` but flat under ``citation[].authors[]``,
image sizes are text, pixel sizes are ångström, and there is no pixel depth. Organism is free text
only; the licence is the archive's own, CC0.

EMPIAR's own API has no search; EBI Search has a domain ``empiar``: ``GET {root}/empiar`` with
``query`` (Lucene), ``size``, ``start`` and ``format=json`` answers ``{"hitCount", "entries":
[{"id": "EMPIAR-10094", "source": "empiar"}]}``. What an entry is, its own API tells.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lib import vocabulary
from lib.about import Provenance
from lib.archives.ebi.tree import HTTPS
from lib.archives.listed import Item, holder, refused
from lib.config.errors import build
from lib.config.loaders import EBIConfig
from lib.errors import BadAnswerError, MacroscopeError, NotFoundError, StoppedError
from lib.plan import About
from lib.safety import reading
from lib.transport.session import Session

LICENCE = "CC0-1.0"
_STATED = {
    "licence": Provenance(
        source="archive", where="EMPIAR's FAQ: all data in EMPIAR are available under CC0"
    ),
    "modality": Provenance(source="api", where="experiment_type"),
    "organism": Provenance(source="api", where="words of the title and of the image sets"),
    "doi": Provenance(source="api", where="entry_doi"),
}


@dataclass(frozen=True, slots=True)
class ImageSet:
    """What the API claims of one set of images; any of it may be wrong or absent.

    Attributes
    ----------
    width, height
        Pixels.
    pixel_nm_yx
        From the API's ångström.
    category
        What kind of images they are: ``reconstructed volumes``, ``tilt series``.
    """

    name: str
    directory: str
    data_format: str
    voxel_type: str
    images: int | None
    width: int | None
    height: int | None
    pixel_nm_yx: tuple[float | None, float | None]
    details: str
    category: str = ""

    @property
    def dtype(self) -> str | None:
        """numpy name of the stated voxel type; None for one that is not known."""
        return _VOXEL_TYPES.get(self.voxel_type.upper())

    @property
    def folder(self) -> str:
        """Its folder below the entry; ``data`` where the API names none that can be."""
        parts = [part for part in self.directory.split("/") if part]
        safe = parts and not any(part in (".", "..") or "\0" in part for part in parts)
        return "/".join(parts) if safe and parts[0] == "data" else "data"


_VOXEL_TYPES = {
    "UNSIGNED BYTE": "uint8",
    "SIGNED BYTE": "int8",
    "UNSIGNED 16 BIT INTEGER": "uint16",
    "SIGNED 16 BIT INTEGER": "int16",
    "UNSIGNED 32 BIT INTEGER": "uint32",
    "SIGNED 32 BIT INTEGER": "int32",
    "32 BIT FLOAT": "float32",
}


@dataclass(frozen=True, slots=True)
class EmpiarEntry:
    """An entry: what the record says of it, and its image sets."""

    accession: str
    about: About
    imagesets: tuple[ImageSet, ...]


def parse_entry(document: Any, accession: str, where: str) -> EmpiarEntry:
    """Read the API's answer. Raises `BadAnswerError`: the answer holds no such entry."""
    entry = document.get(accession) if isinstance(document, dict) else None
    if not isinstance(entry, dict):
        raise BadAnswerError(
            f"the API's answer does not hold {accession}", archive="ebi", location=where
        )
    imagesets = tuple(_imageset(found) for found in _dicts(entry.get("imagesets")))
    texts = [_text(entry.get("title")) or "", *(s.name for s in imagesets)]
    texts += [s.details for s in imagesets]
    about = About(
        title=_text(entry.get("title")),
        description=next((s.details for s in imagesets if s.details), None),
        modality=_text(entry.get("experiment_type")),
        organism=organism_in(" ".join(texts)),
        authors=tuple(_persons(entry.get("authors"))),
        licence=LICENCE,
        citation=_citation(entry.get("citation"), accession),
        doi=_text(entry.get("entry_doi")),
        release_date=_text(entry.get("release_date")),
        extra=_extra(entry),
        stated=_STATED,
    )
    return EmpiarEntry(accession, about, imagesets)


def _extra(entry: dict[str, Any]) -> dict[str, Any]:
    kept = {
        "status": _text(entry.get("status")),
        "deposition_date": _date(entry.get("deposition_date")),
        "update_date": _date(entry.get("update_date")),
        "scale": _text(entry.get("scale")),
        "dataset_size": _text(entry.get("dataset_size")),
    }
    return {key: value for key, value in kept.items() if value is not None}


def _imageset(found: dict[str, Any]) -> ImageSet:
    angstrom = (_number(found.get("pixel_height")), _number(found.get("pixel_width")))
    y_nm, x_nm = (None if a is None else round(a / 10, 9) for a in angstrom)
    return ImageSet(
        name=_text(found.get("name")) or "",
        directory=_text(found.get("directory")) or "",
        data_format=_text(found.get("data_format")) or "",
        voxel_type=_text(found.get("voxel_type")) or "",
        images=_count(found.get("num_images_or_tilt_series")),
        width=_count(found.get("image_width")),
        height=_count(found.get("image_height")),
        pixel_nm_yx=(y_nm, x_nm),
        details=_text(found.get("details")) or "",
        category=_text(found.get("category")) or "",
    )


def _persons(value: Any) -> Iterator[str]:
    """Names of persons, nested under ``author`` or flat."""
    for person in _dicts(value):
        inner = person.get("author")
        person = inner if isinstance(inner, dict) else person
        name = _text(person.get("name"))
        if name is None:
            parts = (_text(person.get(key)) for key in ("last_name", "first_name"))
            name = " ".join(part for part in parts if part) or None
        if name is not None:
            yield name


def _citation(value: Any, accession: str) -> str | None:
    """The first citation in words; unpublished ones lack most of it."""
    for citation in _dicts(value):
        title = _text(citation.get("title"))
        if title is None:
            continue
        authors = ", ".join(_persons(citation.get("authors")))
        journal = _text(citation.get("journal")) or _text(citation.get("journal_abbreviation"))
        year = _text(citation.get("year"))
        doi = _text(citation.get("doi"))
        parts = [authors, title.rstrip("."), " ".join(p for p in (journal, year) if p)]
        parts += [f"doi:{doi.removeprefix('doi:')}" if doi else "", accession]
        return ". ".join(part for part in parts if part)
    return None


def _dicts(value: Any) -> list[dict[str, Any]]:
    items = [value] if isinstance(value, dict) else value if isinstance(value, list) else []
    return [item for item in items if isinstance(item, dict)]


def _text(value: Any) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    return vocabulary.plain_text(value) if isinstance(value, str) else None


def _date(value: Any) -> str | None:
    text = _text(value)
    return None if text is None else vocabulary.day(text) or text


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 < number < 1e9 else None


def _count(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number == int(number) else None


# Word -> scientific name. Words that may mean something else (rat, fly, yeast as an ingredient)
# are taken only as whole words; a text that names two organisms names none.
_WORDS = {
    "zebrafish": "Danio rerio",
    "mouse": "Mus musculus",
    "mice": "Mus musculus",
    "murine": "Mus musculus",
    "rat": "Rattus norvegicus",
    "human": "Homo sapiens",
    "drosophila": "Drosophila melanogaster",
    "fruit fly": "Drosophila melanogaster",
    "yeast": "Saccharomyces cerevisiae",
    "c. elegans": "Caenorhabditis elegans",
    "arabidopsis": "Arabidopsis thaliana",
    "e. coli": "Escherichia coli",
    "chlamydomonas": "Chlamydomonas reinhardtii",
    "platynereis": "Platynereis dumerilii",
}


def organism_in(text: str) -> str | None:
    """The one organism that a text names; None where it names none, or several."""
    lower = " ".join(text.lower().split())
    names = {
        name
        for word, name in [*_WORDS.items(), *((n.lower(), n) for n in set(_WORDS.values()))]
        if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", lower)
    }
    return names.pop() if len(names) == 1 else None


API = "empiar-api"
SEARCH = "ebi-search"
MOST_ENTRIES = 100
"""That are listed, by accession only: there are thousands."""
ALL = "domain_source:empiar"

Rows = Callable[[EBIConfig, Session], list[Item]]


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
    entry = ask_entry(chosen, session)
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


def find_entries(query: str, most: int, config: EBIConfig, session: Session) -> list[str]:
    url = f"{config.search_base_url}/empiar"
    params = {"query": query, "size": str(most), "start": "0", "format": "json"}
    answer = session.http(SEARCH).get_json(url, params)
    with reading("the answer of EBI Search", url, BadAnswerError, "ebi"):
        ids = [str(one["id"]) for one in answer["entries"]]
    numbers = [one.removeprefix("EMPIAR-") for one in ids]
    return [f"EMPIAR-{one}" for one in numbers if one.isascii() and one.isdecimal()][:most]


def entry_item(accession: str, config: EBIConfig, session: Session) -> Item:
    number = accession.removeprefix("EMPIAR-")
    address = f"empiar:{number}"
    try:
        entry = ask_entry(config.model_copy(update={"entry_id": number}), session)
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


def ask_entry(config: EBIConfig, session: Session) -> EmpiarEntry:
    """What the API says of an entry. Raises as `parse_entry` does, or `NotFoundError`."""
    where = f"{config.api_base_url}/entry/{config.accession}/"
    try:
        document: Any = session.http(API).get_json(where)
    except NotFoundError as error:
        error.advice = "Check entry_id: the archive has no such entry"
        raise
    return parse_entry(document, config.accession, where)
