"""The report of a store: one HTML file that needs nothing else, for people to read and to send on.

Texts of archives are untrusted: everything is escaped, addresses become links only if they are
plain web addresses, and the page's own policy lets nothing load and no other script run.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from lib.errors import AlreadyExistsError, MacroscopeError
from lib.present import chart, words
from lib.present.facts import Facts, Json, facts_of, how_to_cite, licence_url
from lib.present.inline import inline_picture
from lib.storage.base import Store

MOST_PICTURES = 150
"""Pictures that one report carries; about 60 kB each. The others lie beside their volumes."""

_PICTURE_WIDTH = 720
_WEB = ("http", "https", "ftp")


@dataclass(frozen=True, slots=True)
class Card:
    """One volume as the page shows it."""

    facts: Facts
    anchor: str
    picture: str | None
    picture_size: tuple[int, int]
    alt: str
    command: str | None
    viewer_url: str | None
    cite: str
    licence_url: str | None


def write_report(
    data_store: Store,
    metadata_store: Store,
    catalog: Json,
    validation: Json,
    *,
    now: datetime | None = None,
    viewer_urls: Mapping[str, str] | None = None,
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
    viewer_urls
        Links of a running viewer, by volume key, where there is one.

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
    page = report_html(catalog, validation, pictures=pictures, viewer_urls=viewer_urls, now=moment)
    stamp = f"{moment.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    for number in range(1, 1000):  # two runs may share a second
        key = f"report_{stamp}.html" if number == 1 else f"report_{stamp}_{number}.html"
        try:
            metadata_store.put(key, page, create=True)
        except AlreadyExistsError:
            continue
        return key
    raise AlreadyExistsError("a thousand reports of one second exist", location=metadata_store.uri)


def read_pictures(store: Store, volumes: Iterable[Facts]) -> dict[str, bytes]:
    """The previews that there are, by volume key; one that is missing or unreadable is left out."""
    pictures: dict[str, bytes] = {}
    for facts in volumes:
        if len(pictures) == MOST_PICTURES:
            break
        if facts.preview_key and facts.volume_key:
            try:
                pictures[facts.volume_key] = store.get(facts.preview_key)
            except MacroscopeError:
                continue  # the page says that there is no picture
    return pictures


def report_html(
    catalog: Json,
    validation: Json,
    *,
    pictures: Mapping[str, bytes],
    now: datetime,
    viewer_urls: Mapping[str, str] | None = None,
) -> bytes:
    """Draw the page.

    Parameters
    ----------
    pictures
        PNG previews by volume key.
    """
    environment = _environment()
    script = _source(environment, "report.js.jinja")
    volumes = _volumes(catalog)
    cards = [_card(n, facts, pictures, viewer_urls or {}) for n, facts in enumerate(volumes)]
    sources: dict[str, list[Card]] = {}
    for card in cards:
        sources.setdefault(card.facts.source, []).append(card)
    times = chart.source_times(volumes)
    page = environment.get_template("report.html.jinja").render(
        created=f"{now.astimezone(UTC):%d %B %Y, %H:%M} UTC".lstrip("0"),
        store=str(catalog.get("data_store", "")),
        sources=sources,
        completeness=catalog.get("completeness_by_source", {}),
        totals=_totals(volumes),
        failed=[card for card in cards if card.facts.status == "failed"],
        invalid=[r for r in validation.get("results", []) if r["errors"]],
        doubtful=[r for r in validation.get("results", []) if r["warnings"] and not r["errors"]],
        results=validation.get("results", []),
        duplicates=catalog.get("duplicates", []),
        times=times,
        chart_width=chart.WIDTH,
        chart_height=chart.chart_height(times),
        style=_source(environment, "report.css.jinja"),
        script=script,
        policy=_policy(script),
        words=words,
        web=_web,
    )
    return page.encode()


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("lib.present", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0].strip()


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def _volumes(catalog: Json) -> list[Facts]:
    found = [facts_of(entry["record"]) for entry in catalog.get("records", [])]
    return sorted(found, key=lambda facts: (facts.source, facts.name))


def _card(
    number: int, facts: Facts, pictures: Mapping[str, bytes], viewer_urls: Mapping[str, str]
) -> Card:
    key = facts.volume_key or ""
    picture, size = inline_picture(pictures.get(key, b""), _PICTURE_WIDTH) or (None, (0, 0))
    viewable = facts.status == "complete" and key.endswith(".zarr")
    return Card(
        facts=facts,
        anchor=f"volume-{number + 1}",
        picture=picture,
        picture_size=size,
        alt=_alt(facts),
        command=f"macroscope view {key}" if viewable else None,
        viewer_url=_web(viewer_urls.get(key)),
        cite=how_to_cite(facts),
        licence_url=licence_url(facts.licence) if facts.licence else None,
    )


def _alt(facts: Facts) -> str:
    what = " ".join(
        part for part in (facts.modality, "labels" if facts.kind == "labels" else "image") if part
    )
    of = f" of {facts.organism}" if facts.organism else ""
    return (
        f"Middle planes xy, yz and xz of {facts.name}, {what}{of}: "
        f"{words.shape_text(facts.shape_zyx)} voxels of {words.voxel_text(facts.voxel_nm_zyx)}, "
        "with scale bar and histogram"
    )


def _totals(volumes: list[Facts]) -> dict[str, Any]:
    complete = [facts for facts in volumes if facts.status == "complete"]
    stored = sum(facts.stored_bytes or 0 for facts in complete)
    voxels = sum(facts.voxel_bytes or 0 for facts in complete)
    return {
        "volumes": len(volumes),
        "complete": len(complete),
        "sources": len({facts.source for facts in volumes}),
        "stored": stored,
        "voxel_bytes": voxels,
        "ratio": voxels / stored if stored else None,
        "unlicensed": sum(1 for facts in complete if not facts.licence),
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
