"""The BioImage Archive, searched through BioStudies' API.

``GET {root}/bioimages/search?query=&pageSize=`` answers ``{"totalHits", "hits": [{"accession",
"title", "author", "release_date"}]}``; ``GET {root}/studies/{accession}`` the submission, whose
attributes hold organism, method and licence, and ``.../info`` where its files lie. Words are
Lucene's, and a bare list of them means any. EMPIAR's entries are in that collection too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lib import vocabulary
from lib.archives.listed import Item, all_of
from lib.errors import BadAnswerError, MacroscopeError, StoppedError
from lib.safety import reading
from lib.transport.http import HttpClient
from lib.transport.limits import Limits
from lib.transport.session import Session

SERVICE = "biostudies"
_ACCESSION = re.compile(r"(?!EMPIAR)[A-Za-z0-9-]{1,40}")  # EMPIAR answers for itself
LIMITS = Limits(1, 4.0, 10.0, 30.0, 3, 1.0)


def search(words: list[str], most: int, root: str) -> list[Item]:
    """The studies that all words fit, best first, each as its submission describes it.

    Raises
    ------
    BadAnswerError, TransportError
    """
    with Session("bioimages", limits={SERVICE: LIMITS}) as session:
        client = session.http(SERVICE)
        url = f"{root}/bioimages/search"
        params = {"query": all_of(words), "pageSize": str(2 * most), "page": "1"}
        answer = client.get_json(url, params)
        with reading("the answer of BioStudies", url, BadAnswerError, "bioimages"):
            hits = [(str(one["accession"]), _text(one.get("title"))) for one in answer["hits"]]
        own = [hit for hit in hits if _ACCESSION.fullmatch(hit[0])]
        return [_study(client, root, accession, title) for accession, title in own[:most]]


def _study(client: HttpClient, root: str, accession: str, title: str | None) -> Item:
    try:
        where = client.get_json(f"{root}/studies/{accession}/info")
        study = client.get_json(f"{root}/studies/{accession}")
    except StoppedError:
        raise
    except MacroscopeError as error:
        return Item(
            address=f"https://www.ebi.ac.uk/biostudies/bioimages/studies/{accession}",
            name=accession,
            what="entry",
            title=title,
            loadable=False,
            why_not=f"where its files lie cannot be told: {error.message}",
        )
    known: dict[str, str] = {}
    for name, value in _attributes(study):
        known.setdefault(name.casefold(), value)
    link = where.get("httpLink") or where.get("ftpLink") if isinstance(where, dict) else None
    return Item(
        address=f"{link.rstrip('/')}/Files/" if isinstance(link, str) else "",
        name=accession,
        what="entry",
        title=title or known.get("title"),
        organism=known.get("organism"),
        technique=known.get("imaging method") or known.get("imaging type"),
        licence=known.get("license") or known.get("licence"),
        size=_files(where),
    )


def _files(where: Any) -> str | None:
    count = where.get("files") if isinstance(where, dict) else None
    return f"{count} files" if isinstance(count, int) else None


def _attributes(node: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Names and values of attributes in the submission and its sections, outermost first."""
    if depth > 12:
        return
    if isinstance(node, list):
        for one in node:
            yield from _attributes(one, depth + 1)
        return
    if not isinstance(node, dict):
        return
    given = node.get("attributes")
    for one in given if isinstance(given, list) else []:
        name, value = (_text(one.get(key)) for key in ("name", "value")) if one else (None, None)
        if name and value:
            yield name, value
    for key in ("section", "subsections"):
        yield from _attributes(node.get(key), depth + 1)


def _text(value: Any) -> str | None:
    return vocabulary.plain_text(value, 500) if isinstance(value, str) else None
