"""The report of a store: one HTML file that needs nothing else, for people to read and to send on.

Texts of archives are untrusted: everything is escaped, addresses become links only if they are
plain web addresses, and the page's own policy lets nothing load and no other script run. Timings
are rows of bars, drawn in SVG. Beside it go an RO-Crate for each volume and the Croissant index.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from lib.errors import AlreadyExistsError, MacroscopeError, NotFoundError
from lib.present import formatting
from lib.present.crate import crate_document, crate_key, encode
from lib.present.croissant import croissant_document
from lib.present.formatting import duration_text, picture_data_uri, rate_text, size_text
from lib.present.preview import preview_key
from lib.present.rows import Json, Row, how_to_cite, publisher, rows
from lib.records.catalogue import CatalogResult
from lib.records.model import Record
from lib.storage.base import Store

WIDTH, ROW, TOP = 640, 58, 8
_LABEL, _NUMBER = 158, 132  # pixels left of the bars, and right of the longest one
_ROOM = WIDTH - _LABEL - _NUMBER


@dataclass(frozen=True, slots=True)
class Bar:
    """One horizontal bar; pixels of the drawing."""

    x: int
    y: int
    width: float
    text: str
    kind: str  # "time" or "rate"


@dataclass(frozen=True, slots=True)
class SourceTime:
    """What one source took: sums over its volumes that say how long they took."""

    source: str
    volumes: int
    seconds: float
    received: int
    y: int
    bars: tuple[Bar, ...]

    @property
    def rate(self) -> float | None:
        """Bytes received in a second of work on the source's volumes."""
        return self.received / self.seconds if self.seconds > 0 and self.received else None

    @property
    def words(self) -> dict[str, str]:
        """The same in words, for the table beside the drawing."""
        return {
            "seconds": duration_text(self.seconds),
            "received": size_text(self.received),
            "rate": rate_text(self.rate) if self.rate else "nothing fetched",
        }


def source_times(volumes: Iterable[Record]) -> list[SourceTime]:
    """One row for each source, with bars to common scales."""
    timed: dict[str, list[Record]] = {}
    for record in volumes:
        if record.provenance.seconds is not None:
            timed.setdefault(record.source, []).append(record)
    sums = [
        SourceTime(
            source,
            len(own),
            sum(f.provenance.seconds or 0.0 for f in own),
            sum(f.provenance.bytes or 0 for f in own),
            TOP + index * ROW,
            (),
        )
        for index, (source, own) in enumerate(sorted(timed.items()))
    ]
    longest = max((row.seconds for row in sums), default=0.0) or 1.0
    fastest = max((row.rate or 0.0 for row in sums), default=0.0) or 1.0
    return [
        replace(
            row,
            bars=(
                Bar(_LABEL, row.y, row.seconds / longest * _ROOM, row.words["seconds"], "time"),
                Bar(
                    _LABEL, row.y + 22, (row.rate or 0) / fastest * _ROOM, row.words["rate"], "rate"
                ),
            ),
        )
        for row in sums
    ]


def chart_height(rows: list[SourceTime]) -> int:
    """Height of the drawing."""
    return TOP + ROW * len(rows)


MOST_CARDS = 150
"""Volumes that one report shows at length, with a picture; of the others it has a row each."""

MOST_PICTURE_BYTES = 2_000_000
"""Of the pictures in one report, as text; the others lie beside their volumes."""

MOST_ROWS = 1_000
"""Of the validation in one report; those with errors come first."""

MOST_NOTES = 100
"""Failed, invalid and doubtful records, of each, that a report tells of at length."""

_PICTURE_WIDTH, _SMALLER_WIDTH = 720, 360
_FEW = 24
_WEB = ("http", "https", "ftp")


@dataclass(frozen=True, slots=True)
class Card:
    """One volume as the page shows it."""

    record: Record
    anchor: str
    picture: str | None
    picture_size: tuple[int, int]
    alt: str
    command: str | None
    cite: str
    publisher: str
    rows: list[Row]
    details: list[Row]
    group: str | None = None


def write_report(
    data_store: Store,
    metadata_store: Store,
    catalog: Json,
    validation: Json,
    *,
    now: datetime | None = None,
) -> str:
    """Write ``report_<timestamp>.html`` beside the catalogue.

    Parameters
    ----------
    data_store
        Holds the previews, which are taken into the page.
    metadata_store
        Where the report goes.
    catalog, validation
        The documents of `lib.records.catalogue.consolidate`.
    now
        Time of the report; the catalogue's own by default, so that their names agree.

    Returns
    -------
    str
        The report's key.

    Raises
    ------
    DestinationError
        The report cannot be written.
    """
    moment = now or _moment(catalog.get("created_at"))
    pictures = read_pictures(data_store, _volumes(catalog))
    page = report_html(catalog, validation, pictures=pictures, now=moment)
    stamp = f"{moment.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    for number in range(1, 1000):  # two runs may share a second
        key = f"report_{stamp}.html" if number == 1 else f"report_{stamp}_{number}.html"
        try:
            metadata_store.put(key, page, create=True)
        except AlreadyExistsError:
            continue
        return key
    raise AlreadyExistsError("a thousand reports of one second exist", location=metadata_store.uri)


def read_pictures(store: Store, volumes: Iterable[Record]) -> dict[str, bytes]:
    """The previews that there are, by volume key; one that is missing or unreadable is left out."""
    pictures: dict[str, bytes] = {}
    for record in volumes:
        if len(pictures) == MOST_CARDS:
            break
        if (key := record.files.volume) is not None:
            try:
                pictures[key] = store.get(record.files.preview or preview_key(key))
            except MacroscopeError:
                continue  # the page says that there is no picture
    return pictures


def report_html(
    catalog: Json,
    validation: Json,
    *,
    pictures: Mapping[str, bytes],
    now: datetime,
) -> bytes:
    """Draw the page.

    Parameters
    ----------
    pictures
        PNG previews by volume key.
    """
    templates = environment()
    script = text_of(templates, "report.js.jinja")
    volumes = _volumes(catalog)
    cards = _cards(volumes, _groups(catalog), pictures)
    times = source_times(volumes)
    results = validation.get("results", [])
    many_results = len(results) > MOST_CARDS
    validated = [r for r in results if not many_results or r["errors"] or r["warnings"]]
    validated.sort(key=lambda r: not r["errors"])
    page = templates.get_template("report.html.jinja").render(
        created=f"{now.astimezone(UTC):%d %B %Y, %H:%M} UTC".lstrip("0"),
        store=str(catalog.get("data_store", "")),
        sources=sorted({record.source for record in volumes}),
        cards=cards[:MOST_CARDS],
        rows=cards if len(cards) > MOST_CARDS else (),
        terms=_terms(cards),
        by_group=catalog.get("by_group", {}),
        crowded=len(cards) > MOST_CARDS,
        completeness=catalog.get("completeness_by_source", {}),
        totals=_totals(volumes),
        failed=[card for card in cards if card.record.status == "failed"],
        invalid=[r for r in results if r["errors"]],
        doubtful=[r for r in results if r["warnings"] and not r["errors"]],
        results=results,
        validated=validated[:MOST_ROWS],
        many_results=many_results,
        more_validated=len(validated[MOST_ROWS:]),
        most=MOST_NOTES,
        duplicates=catalog.get("duplicates", []),
        times=times,
        chart_width=WIDTH,
        chart_height=chart_height(times),
        style=text_of(templates, "report.css.jinja"),
        script=script,
        policy=policy_of(script, "data:"),
        formatting=formatting,
        web=_web,
    )
    return page.encode()


def environment() -> Environment:
    """Where pages come from; what is put into them is escaped."""
    return Environment(
        loader=PackageLoader("lib.present", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def text_of(templates: Environment, name: str) -> str:
    """A style or a script as it stands."""
    assert templates.loader is not None
    return templates.loader.get_source(templates, name)[0].strip()


def policy_of(script: str, images: str, forms: str = "'none'") -> str:
    """A Content-Security-Policy that lets no other script run, and nothing load but images."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src {images}; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action {forms}"
    )


def _volumes(catalog: Json) -> list[Record]:
    """Those of groups first, by their groups."""
    groups = _groups(catalog)
    found = [Record.read(entry["record"]) for entry in catalog.get("records", [])]
    return sorted(
        found,
        key=lambda r: (r.id not in groups, groups.get(r.id or "", ""), r.source, r.name),
    )


def _groups(catalog: Json) -> dict[str, str]:
    """Group by the id of the record."""
    listed = catalog.get("records", [])
    return {str(one["record"].get("id", "")): one["group"] for one in listed if one.get("group")}


def _terms(cards: list[Card]) -> list[tuple[list[Card], Card]]:
    """Volumes by licence and citation; of a few each stands for itself."""
    found: dict[tuple[str | None, str, int], list[Card]] = {}
    for number, card in enumerate(cards):
        alone = number if len(cards) <= MOST_CARDS else 0
        found.setdefault((card.record.core.licence, card.cite, alone), []).append(card)
    return [(alike, alike[0]) for alike in found.values()]


def _cards(
    volumes: list[Record], groups: Mapping[str, str], pictures: Mapping[str, bytes]
) -> list[Card]:
    """A card for each volume; as many with a picture as the page can carry."""
    width, left = _PICTURE_WIDTH if len(volumes) <= _FEW else _SMALLER_WIDTH, MOST_PICTURE_BYTES
    cards = []
    for number, record in enumerate(volumes):
        png = pictures.get(record.files.volume or "", b"") if left > 0 else b""
        picture = picture_data_uri(png, width) if png else None
        left -= len(picture[0]) if picture else 0
        cards.append(_card(number, record, picture, groups.get(record.id or "")))
    return cards


def _card(
    number: int,
    record: Record,
    drawn: tuple[str, tuple[int, int]] | None,
    group: str | None,
) -> Card:
    key = record.files.volume or ""
    picture, size = drawn or (None, (0, 0))
    viewable = record.status == "complete" and key.endswith(".zarr")
    return Card(
        record=record,
        anchor=f"volume-{number + 1}",
        picture=picture,
        picture_size=size,
        alt=_alt(record),
        command=f"macroscope view {key}" if viewable else None,
        cite=how_to_cite(record),
        publisher=publisher(record.source).name,
        rows=rows(record, "card"),
        details=rows(record, "details"),
        group=group,
    )


def _alt(record: Record) -> str:
    what = f"{record.core.modality} {record.kind}" if record.core.modality else record.kind
    of = f" of {record.core.organism}" if record.core.organism else ""
    shape = record.shape_zyx
    voxel = formatting.voxel_text(record.voxel_nm_zyx, record.assumed_axes)
    return (
        f"Middle planes xy, yz and xz of {record.name}, {what}{of}: "
        f"{formatting.shape_text(shape)} voxels of {voxel}, "
        "with scale bar and histogram"
    )


def _totals(volumes: list[Record]) -> dict[str, Any]:
    complete = [record for record in volumes if record.status == "complete"]
    stored = sum(record.stored_bytes for record in complete)
    voxels = sum(record.voxel_bytes or 0 for record in complete)
    return {
        "volumes": len(volumes),
        "complete": len(complete),
        "sources": len({record.source for record in volumes}),
        "stored": stored,
        "voxel_bytes": voxels,
        "ratio": voxels / stored if stored else None,
        "unlicensed": sum(1 for record in complete if not record.core.licence),
    }


def _moment(text: Any) -> datetime:
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).astimezone(UTC)
    except ValueError:
        return datetime.now(UTC)


def _web(address: str | None) -> str | None:
    """`address` if it may become a link, else None (``javascript:``, ``data:``, files)."""
    if not address:
        return None
    try:
        parts = urlsplit(address)
    except ValueError:
        return None
    return address if parts.scheme in _WEB and parts.netloc else None


def _holds(store: Store, key: str, data: bytes) -> bool:
    try:
        return store.get(key) == data
    except NotFoundError:
        return False


CROISSANT_KEY = "croissant.json"


def present(data_store: Store, metadata_store: Store, found: CatalogResult) -> str:
    """Write an RO-Crate for every complete volume, the Croissant index and the HTML report.

    Returns
    -------
    str
        The report's key in the metadata store.
    """
    now = datetime.now(UTC)
    listed = [item["record"] for item in found.catalog["records"]]
    records = [record for record in listed if record.get("status") == "complete"]
    crates = {
        crate_key(record["files"]["volume"]): record
        for record in records
        if record.get("schema_version")  # older records do not say enough
    }
    for folder in {"", *(key.rpartition("/")[0] for key in crates)}:
        data_store.sweep_abandoned(folder)
    for key, record in crates.items():
        data = encode(crate_document(record, data_store.uri))
        if not _holds(data_store, key, data):  # a run with nothing to do changes nothing
            data_store.put(key, data)
    index = croissant_document(records, data_store.uri, date=now.date().isoformat())
    metadata_store.put(CROISSANT_KEY, json.dumps(index, indent=2, ensure_ascii=False).encode())
    return write_report(data_store, metadata_store, found.catalog, found.report, now=now)
