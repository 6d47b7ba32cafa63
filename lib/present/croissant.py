"""A Croissant index of the store: every complete volume, where its files are, and how to cite it.

MLCommons Croissant 1.0. Each volume is a resource; a record set ``volumes`` holds the table that a
person would choose from (shape, voxel size, modality, organism, licence).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from lib.present.crate import address
from lib.present.facts import Facts, Json, facts_of, how_to_cite, licence_url

CROISSANT_NAME = "croissant.json"

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
_COLUMNS = (
    ("path", "sc:Text", "Key of the volume in the store"),
    ("source", "sc:Text", "Archive"),
    ("source_id", "sc:Text", "Accession"),
    ("kind", "sc:Text", "image or labels"),
    ("modality", "sc:Text", "Microscope"),
    ("organism", "sc:Text", "Species"),
    ("data_type", "sc:Text", "Type of a voxel"),
    ("licence", "sc:Text", "SPDX identifier; empty where the archive states none"),
    ("cite_as", "sc:Text", "How to cite"),
    ("voxels_z", "sc:Integer", "Voxels along z"),
    ("voxels_y", "sc:Integer", "Voxels along y"),
    ("voxels_x", "sc:Integer", "Voxels along x"),
    ("voxel_nm_z", "sc:Float", "Voxel size along z in nanometres; 0 where unknown"),
    ("voxel_nm_y", "sc:Float", "Voxel size along y in nanometres; 0 where unknown"),
    ("voxel_nm_x", "sc:Float", "Voxel size along x in nanometres; 0 where unknown"),
    ("stored_bytes", "sc:Integer", "Size in the store"),
    ("sha256", "sc:Text", "Of the .npy, or of the SHA256SUMS list of the OME-Zarr"),
)


def croissant_document(
    records: Iterable[Json], base_uri: str, *, name: str = "macroscope", date: str
) -> dict[str, Any]:
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
    volumes = [facts for facts in map(facts_of, records) if _listed(facts)]
    licences = sorted({licence_url(facts.licence) for facts in volumes if facts.licence})
    document: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": _CONFORMS,
        "name": _identifier(name),
        "description": f"{len(volumes)} electron-microscopy volumes from "
        f"{len({facts.source for facts in volumes})} public archives.",
        "url": address(base_uri, ""),
        "datePublished": date,
        "version": "1.0.0",
        "citeAs": " | ".join(dict.fromkeys(how_to_cite(facts) for facts in volumes)),
        "creator": [
            {"@type": "sc:Organization", "name": archive.name, "url": archive.url}
            for archive in dict.fromkeys(facts.archive for facts in volumes)
        ],
        "distribution": [entry for facts in volumes for entry in _files(facts, base_uri)],
    }
    # a list with a volume of no stated licence must not look as if all were free to use
    if licences:
        unstated = any(facts.licence is None for facts in volumes)
        document["license"] = licences + (["not stated for some volumes"] if unstated else [])
    else:
        document["license"] = "not stated"
    if volumes:
        document["recordSet"] = [_table(volumes)]
    return document


def _listed(facts: Facts) -> bool:
    return facts.status == "complete" and facts.volume_key is not None


def _files(facts: Facts, base_uri: str) -> list[dict[str, Any]]:
    key = facts.volume_key or ""
    about = f"{facts.title}: {facts.modality or 'EM'} {facts.kind}"
    if not key.endswith(".zarr"):
        return [_file(key, base_uri, "application/x-npy", about, facts.sha256, facts.stored_bytes)]
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
    if facts.sums_key:
        sums = "SHA-256 of every file of this OME-Zarr"
        entries.append(_file(facts.sums_key, base_uri, "text/plain", sums, facts.sha256, None))
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


def _table(volumes: list[Facts]) -> dict[str, Any]:
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
            for column, kind, text in _COLUMNS
        ],
        "data": [
            {f"volumes/{column}": value for column, value in _row(facts).items()}
            for facts in volumes
        ],
    }


def _row(facts: Facts) -> dict[str, Any]:
    shape, voxel = facts.shape_zyx or (0, 0, 0), facts.voxel_nm_zyx or (0.0, 0.0, 0.0)
    return {
        "path": facts.volume_key,
        "source": facts.source,
        "source_id": facts.source_id,
        "kind": facts.kind,
        "modality": facts.modality or "",
        "organism": facts.organism or "",
        "data_type": facts.dtype or "",
        "licence": facts.licence or "",
        "cite_as": how_to_cite(facts),
        **{f"voxels_{axis}": n for axis, n in zip("zyx", shape, strict=True)},
        **{f"voxel_nm_{axis}": v for axis, v in zip("zyx", voxel, strict=True)},
        "stored_bytes": facts.stored_bytes or 0,
        "sha256": facts.sha256 or "",
    }


def _identifier(text: str) -> str:
    """What Croissant allows as a name: letters, digits, ``_``, ``-`` and ``.``."""
    return re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII)
