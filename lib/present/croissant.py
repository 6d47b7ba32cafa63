"""A Croissant index of the store: every complete volume, where its files are, and how to cite it.

MLCommons Croissant 1.0. Each volume is a resource; a record set ``volumes`` holds the table that a
person would choose from (shape, voxel size, modality, organism, licence).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from lib.present.crate import address
from lib.present.rows import Json, how_to_cite, licence_url, publisher, shown_fields
from lib.records.fields import Shown
from lib.records.model import Record, record_fields

_CONFORMS = "http://mlcommons.org/croissant/1.0"
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "equivalentProperty": "cr:equivalentProperty",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "samplingRate": "cr:samplingRate",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_TYPES = {"shape": "sc:Integer", "bytes": "sc:Integer", "lengths": "sc:Float"}
_NOTHING: dict[str, Any] = {"sc:Text": "", "sc:Integer": 0, "sc:Float": 0.0}
_CITE = ("cite_as", "sc:Text", "How to cite")


def croissant_document(records: Iterable[Json], base_uri: str, *, date: str) -> dict[str, Any]:
    """Index the complete volumes of a store.

    Parameters
    ----------
    records
        Records of the catalogue; those that are not complete are left out.
    base_uri
        Address of the data store (``Store.uri``, or where it is published).
    date
        Day of the index, ISO 8601.

    Returns
    -------
    JSON-LD of Croissant 1.0.
    """
    read = map(Record.read, records)
    volumes = [one for one in read if one.status == "complete" and one.files.volume is not None]
    licences = sorted(
        {licence_url(record.core.licence) for record in volumes if record.core.licence}
    )
    document: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": _CONFORMS,
        "name": "macroscope",
        "description": f"{len(volumes)} electron-microscopy volumes from "
        f"{len({record.source for record in volumes})} public archives.",
        "url": address(base_uri, ""),
        "datePublished": date,
        "version": "1.0.0",
        "citeAs": " | ".join(dict.fromkeys(how_to_cite(record) for record in volumes)),
        "creator": [
            {"@type": "sc:Organization", "name": archive.name, "url": archive.url}
            for archive in dict.fromkeys(publisher(record.source) for record in volumes)
        ],
        "distribution": [entry for record in volumes for entry in _files(record, base_uri)],
    }
    # a list with a volume of no stated licence must not look as if all were free to use
    if licences:
        unstated = any(record.core.licence is None for record in volumes)
        document["license"] = licences + (["not stated for some volumes"] if unstated else [])
    else:
        document["license"] = "not stated"
    if volumes:
        document["recordSet"] = [_table(volumes)]
    return document


def _files(record: Record, base_uri: str) -> list[dict[str, Any]]:
    key = record.files.volume or ""
    about = f"{record.title}: {record.core.modality or 'EM'} {record.kind}"
    if not key.endswith(".zarr"):
        size = record.technical.file_size_bytes
        return [_file(key, base_uri, "application/x-npy", about, record.technical.sha256, size)]
    entries = [
        {
            "@type": "cr:FileSet",
            "@id": _identifier(key),
            "name": _identifier(key),
            "description": about,
            "encodingFormat": "application/vnd+zarr",
            "includes": f"{key}/**",
        }
    ]
    if record.files.sums:
        sums = "SHA-256 of every file of this OME-Zarr"
        entries.append(
            _file(record.files.sums, base_uri, "text/plain", sums, record.technical.sha256, None)
        )
    return entries


def _file(
    key: str, base_uri: str, encoding: str, about: str, sha256: str | None, size: int | None
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "@type": "cr:FileObject",
        "@id": _identifier(key),
        "name": _identifier(key),
        "description": about,
        "contentUrl": address(base_uri, key),
        "encodingFormat": encoding,
    }
    entry |= {"sha256": sha256} if sha256 else {}
    return entry | ({"contentSize": f"{size} B"} if size is not None else {})


def _table(volumes: list[Record]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "volumes",
        "name": "volumes",
        "description": "One row for each volume",
        "key": {"@id": "volumes/path"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"volumes/{column}",
                "name": column,
                "description": text,
                "dataType": kind,
            }
            for column, kind, text in _columns()
        ],
        "data": [
            {f"volumes/{column}": value for column, value in _row(record).items()}
            for record in volumes
        ],
    }


def _columns() -> list[tuple[str, str, str]]:
    """Name, type and description of each column."""
    columns = []
    for field in record_fields():
        shown = field.shown
        if shown is None or not shown.column:
            continue
        kind = _type(shown)
        text = field.info.description or shown.label
        text += "; 0 where unknown" if kind == "sc:Float" else ""
        columns += [
            (f"{shown.column}{axis}", kind, f"{text}, along {axis[1]}" if axis else text)
            for axis in _axes(shown)
        ]
    return [*columns, _CITE]


def _row(record: Record) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for _, shown, value in shown_fields(record):
        if not shown.column:
            continue
        nothing = _NOTHING[_type(shown)]
        along = getattr(value, "zyx", value) if len(_axes(shown)) == 3 else (value,)
        for axis, one in zip(_axes(shown), along or (None,) * 3, strict=True):
            row[f"{shown.column}{axis}"] = nothing if one is None else one
    return {**row, _CITE[0]: how_to_cite(record)}


def _type(shown: Shown) -> str:
    return _TYPES.get(shown.form, "sc:Text")


def _axes(shown: Shown) -> tuple[str, ...]:
    """Ends of the names of a field's columns."""
    return ("_z", "_y", "_x") if shown.form in ("shape", "lengths") else ("",)


def _identifier(text: str) -> str:
    """What Croissant allows as a name: letters, digits, ``_``, ``-`` and ``.``."""
    return re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII)
