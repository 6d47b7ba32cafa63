"""EBI Search and BioStudies in small: what finds entries by words at www.ebi.ac.uk.

EBI Search: ``GET /ebisearch/ws/rest/{domain}?query=&size=&start=&format=json``. BioStudies:
``GET /biostudies/api/v1/{collection}/search``, ``/studies/{accession}`` and its ``/info``; an
unknown collection is an empty answer, words without AND mean any of them, and EMPIAR's entries are
in the collection of images too. The study S-BIAD9901 is invented.
"""

from __future__ import annotations

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from emulators.documents import empiar_accessions, empiar_entry

Json = dict[str, Any]

_TERM = re.compile(r'"([^"]*)"|(\S+)')
_STUDY = "S-BIAD9901"
_TITLE = "Volume electron microscopy of invented yeast cells"
_FIRE = "biostudies/fire/S-BIAD/901/S-BIAD9901"


def _fits(query: str, text: str) -> bool:
    """Lucene in small: phrases and words joined by AND must all fit, else one of them."""
    terms = [phrase or word for phrase, word in _TERM.findall(query)]
    every = "AND" in terms
    words = [term.casefold() for term in terms if term not in ("AND", "OR")]
    if not words or words[0].startswith(("domain_source:", "*")):
        return bool(words)
    found = [word in text.casefold() for word in words]
    return all(found) if every else any(found)


def _entry_text(accession: str) -> str:
    entry = (empiar_entry(accession) or {})[accession]
    sets = " ".join(f"{one['name']} {one['details']}" for one in entry["imagesets"])
    return f"{accession} {entry['title']} {entry['experiment_type']} {sets}"


async def _ebi_search(request: Request) -> Response:
    if request.path_params["domain"] != "empiar":
        return JSONResponse({"message": "unknown domain"}, 404)
    query = request.query_params.get("query")
    if request.query_params.get("format") != "json" or query is None:
        return JSONResponse({"message": "the stand-in answers format=json with a query"}, 400)
    start, size = (int(request.query_params.get(k, d)) for k, d in (("start", 0), ("size", 15)))
    found = [one for one in empiar_accessions() if _fits(query, _entry_text(one))]
    entries = [{"id": one, "source": "empiar"} for one in found[start : start + size]]
    return JSONResponse({"hitCount": len(found), "entries": entries, "facets": []})


async def _biostudies_search(request: Request) -> Response:
    query = request.query_params.get("query", "")
    hits: list[Json] = []
    if request.path_params["collection"].lower() == "bioimages":
        texts = {_STUDY: f"{_STUDY} {_TITLE} FIB-SEM Saccharomyces cerevisiae"}
        texts |= {one: _entry_text(one) for one in empiar_accessions()}
        hits = [_hit(one) for one, text in texts.items() if _fits(query, text)]
    size = int(request.query_params.get("pageSize", 20))
    answer = {
        "page": 1,
        "pageSize": size,
        "totalHits": len(hits),
        "isTotalHitsExact": True,
        "sortBy": "relevance",
        "sortOrder": "descending",
        "hits": hits[:size],
    }
    return JSONResponse(answer)


def _hit(accession: str) -> Json:
    return {
        "accession": accession,
        "type": "study",
        "title": _TITLE if accession == _STUDY else accession,
        "author": "Example A",
        "links": 0,
        "files": 3,
        "release_date": "2024-01-15",
        "views": 1,
        "isPublic": True,
    }


async def _study(request: Request) -> Response:
    if request.path_params["accession"] != _STUDY:
        return JSONResponse({"errorMessage": "Study not found"}, 404)
    sample = [
        {"name": "Title", "value": "Yeast"},
        {"name": "Organism", "value": "Saccharomyces cerevisiae"},
    ]
    acquisition = [{"name": "Imaging method", "value": "FIB-SEM"}]
    document = {
        "accno": _STUDY,
        "attributes": [
            {"name": "Title", "value": _TITLE},
            {"name": "ReleaseDate", "value": "2024-01-15"},
            {"name": "AttachTo", "value": "BioImages"},
        ],
        "section": {
            "type": "Study",
            "attributes": [{"name": "License", "value": "CC0"}],
            "subsections": [
                {"type": "Biosample", "attributes": sample},
                [{"type": "Image acquisition", "attributes": acquisition}],
            ],
        },
        "type": "submission",
    }
    return JSONResponse(document)


async def _info(request: Request) -> Response:
    if request.path_params["accession"] != _STUDY:
        return JSONResponse({"errorMessage": "Study not found"}, 404)
    return JSONResponse(
        {
            "columns": [],
            "files": 3,
            "httpLink": f"https://ftp.ebi.ac.uk/{_FIRE}",
            "ftpLink": f"ftp://ftp.ebi.ac.uk/{_FIRE}",
            "isPublic": True,
            "relPath": "S-BIAD/901/S-BIAD9901",
        }
    )


def search_routes() -> list[Route]:
    """The routes of both services."""
    api = "/biostudies/api/v1"
    return [
        Route("/ebisearch/ws/rest/{domain}", _ebi_search),
        Route(f"{api}/studies/{{accession}}/info", _info),
        Route(f"{api}/studies/{{accession}}", _study),
        Route(f"{api}/{{collection}}/search", _biostudies_search),
    ]
