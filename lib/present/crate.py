"""An RO-Crate for every volume: what it is, whose, under which licence, and its digests.

A *detached* RO-Crate 1.2, as a file ``<name>-ro-crate-metadata.json`` beside the volume. An
attached crate would have to lie inside the folder that it describes, as ``ro-crate-metadata.json``
with relative paths: inside an OME-Zarr it would be a foreign file that the volume's list of digests
does not know, and one folder of a source holds many volumes. RO-Crate 1.2 has the detached form,
and this naming, for that case; its data entities must have absolute addresses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from lib.present.described import beside
from lib.present.formatting import lengths_text
from lib.present.rows import Json, how_to_cite, licence_url, publisher, shown_fields
from lib.records.fields import Lengths
from lib.records.model import Record

CRATE_SUFFIX = "-ro-crate-metadata.json"
DESCRIPTOR = "ro-crate-metadata.json"  # the @id that RO-Crate fixes, whatever the file is called

_SPECIFICATION = "https://w3id.org/ro/crate/1.2"
_UNKNOWN_LICENCE = "#licence-not-stated"
_CONVERSION = "#conversion"
_TAXA = {
    "Mus musculus": "10090",
    "Homo sapiens": "9606",
    "Drosophila melanogaster": "7227",
    "Rattus norvegicus": "10116",
    "Danio rerio": "7955",
    "Caenorhabditis elegans": "6239",
    "Saccharomyces cerevisiae": "4932",
    "Chlorocebus aethiops": "9534",
}
Entity = dict[str, Any]


def crate_key(volume_key: str) -> str:
    """``ebi/a.ome.zarr`` -> ``ebi/a-ro-crate-metadata.json``."""
    return beside(volume_key, CRATE_SUFFIX)


def address(base_uri: str, key: str) -> str:
    """The absolute address of an object: ``s3://bucket/x/key`` or ``file:///data/key``."""
    base = base_uri if "://" in base_uri else "file://" + quote(base_uri)
    return f"{base.rstrip('/')}/{quote(key)}"


def crate_document(document: Json, base_uri: str) -> dict[str, Any]:
    """Describe a complete volume as an RO-Crate.

    Parameters
    ----------
    document
        The volume's record.
    base_uri
        Address of the data store (``Store.uri``, or where it is published).

    Returns
    -------
    JSON-LD for `crate_key`. What the record does not say is left out, but for the licence, which
    RO-Crate demands: that none is stated is then said in words.
    """
    record = Record.read(document)
    volume = _volume(record, base_uri)
    others = _context_entities(record)
    root: Entity = {
        "@id": f"urn:uuid:{record.id}",
        "@type": "Dataset",
        "name": record.title,
        "description": record.core.description or _summary(record),
        "datePublished": (record.released or record.updated_at or "")[:10],
        "license": {
            "@id": licence_url(record.core.licence) if record.core.licence else _UNKNOWN_LICENCE
        },
        "publisher": {"@id": _archive_id(record)},
        "identifier": {"@id": "#accession"},
        "keywords": [
            w for w in (record.core.modality, record.core.organism, record.kind, "OME-Zarr") if w
        ],
        "creditText": how_to_cite(record),
    }
    if record.core.authors:
        root["author"] = _references(_author_id(n) for n in range(len(record.core.authors or ())))
    if record.core.doi:
        root["citation"] = {"@id": f"https://doi.org/{record.core.doi}"}
    if record.core.organism:
        root["about"] = {"@id": _taxon_id(record.core.organism)}
    made_from = _made_from(record, volume)
    if made_from:
        root["mentions"] = {"@id": _CONVERSION}
    parts = [volume, *_beside_volume(record, base_uri)]
    root["hasPart"] = _references(part["@id"] for part in parts)
    graph = [_descriptor(root), root, *parts, *others, *made_from]
    return {"@context": f"{_SPECIFICATION}/context", "@graph": graph}


def encode(document: Json) -> bytes:
    """The bytes of the file: the same document always gives the same."""
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _descriptor(root: Entity) -> Entity:
    return {
        "@id": DESCRIPTOR,
        "@type": "CreativeWork",
        "name": "Description of the volume",
        "conformsTo": {"@id": _SPECIFICATION},
        "about": {"@id": root["@id"]},
    }


def _volume(record: Record, base_uri: str) -> Entity:
    key = record.files.volume or f"{record.source}/{record.name}"
    zarr = key.endswith(".zarr")
    entity: Entity = {
        "@id": address(base_uri, key) + ("/" if zarr else ""),
        "@type": "Dataset" if zarr else "File",
        "name": record.name,
        "description": _summary(record),
        "variableMeasured": _references(f"#{name}" for name, *_ in _measures(record)),
    }
    for _, shown, value in shown_fields(record):
        if shown.crate not in ("", "property") and value is not None:
            entity[shown.crate] = str(value)
    if not zarr:
        entity["encodingFormat"] = "application/x-npy"
        if record.technical.sha256:
            entity["sha256"] = record.technical.sha256
    return entity


def _beside_volume(record: Record, base_uri: str) -> list[Entity]:
    """The list of digests, whose own digest the record holds, so that one value proves it all."""
    if not record.files.sums or not (record.files.volume or "").endswith(".zarr"):
        return []
    entity: Entity = {
        "@id": address(base_uri, record.files.sums),
        "@type": "File",
        "name": "SHA-256 of every file of the volume",
        "description": "Check with sha256sum --check",
        "encodingFormat": "text/plain",
    }
    return [entity | ({"sha256": record.technical.sha256} if record.technical.sha256 else {})]


def _context_entities(record: Record) -> list[Entity]:
    whose = publisher(record.source)
    entities: list[Entity] = [
        {
            "@id": _archive_id(record),
            "@type": "Organization",
            "name": whose.name,
            **({"url": whose.url} if whose.url else {}),
        },
        {
            "@id": "#accession",
            "@type": "PropertyValue",
            "name": "accession",
            "propertyID": record.source,
            "value": record.source_id,
        },
        _licence(record),
    ]
    entities += [
        {"@id": _author_id(n), "@type": "Person", "name": name}
        for n, name in enumerate(record.core.authors or ())
    ]
    if record.core.doi:
        entities.append(
            {
                "@id": f"https://doi.org/{record.core.doi}",
                "@type": "ScholarlyArticle",
                "name": record.core.citation or record.title,
            }
        )
    if record.core.organism:
        entities.append(
            {"@id": _taxon_id(record.core.organism), "@type": "Taxon", "name": record.core.organism}
        )
    entities += [
        {
            "@id": f"#{name}",
            "@type": "PropertyValue",
            "name": text,
            "value": value,
            **({"unitText": unit} if unit else {}),
        }
        for name, text, value, unit in _measures(record)
    ]
    return entities


def _licence(record: Record) -> Entity:
    if record.core.licence:
        return {
            "@id": licence_url(record.core.licence),
            "@type": "CreativeWork",
            "name": record.core.licence,
            "description": f"SPDX licence {record.core.licence}",
        }
    return {
        "@id": _UNKNOWN_LICENCE,
        "@type": "CreativeWork",
        "name": "No licence stated",
        "description": "The archive states no licence. Ask it before you use the data.",
    }


def _measures(record: Record) -> list[tuple[str, str, Any, str]]:
    """What is measured of the volume: id, name, value, unit."""
    found: list[tuple[str, str, Any, str]] = []
    for _, shown, value in shown_fields(record):
        if shown.crate != "property" or value is None:
            continue
        stem = re.sub(r"[^a-z0-9]+", "-", shown.label.lower()).strip("-")
        along = value.zyx if isinstance(value, Lengths) else value
        if isinstance(along, tuple):
            found += [
                (f"{stem}-{axis}", f"{shown.label} {axis}", one, shown.unit)
                for axis, one in zip("zyx", along, strict=True)
                if not (isinstance(value, Lengths) and axis in record.assumed_axes)
            ]
        else:
            found.append((stem, shown.label, value, shown.unit))
    return found


def _made_from(record: Record, volume: Entity) -> list[Entity]:
    """The conversion, with the archive's files (or the address of its array) as what went in."""
    files = record.provenance.source_files or ()
    if not files and not record.provenance.download_url:
        return []
    inputs: list[Entity] = []
    for file in files[:1000]:
        entity: Entity = {"@id": file.url, "@type": "CreativeWork", "name": file.name}
        if file.size is not None:
            entity["size"] = str(file.size)
        if file.sha256:
            entity["sha256"] = file.sha256
        inputs.append(entity)
    if not inputs:
        whole = {"@id": record.provenance.download_url, "name": record.source_id}
        inputs = [{**whole, "@type": "CreativeWork"}]
    inputs = list({entity["@id"]: entity for entity in inputs}.values())
    action = {
        "@id": _CONVERSION,
        "@type": "CreateAction",
        "name": "Conversion by macroscope",
        "endTime": record.updated_at,
        "object": _references(entity["@id"] for entity in inputs),
        "result": {"@id": volume["@id"]},
    }
    return [*inputs, action]


def _references(ids: Iterable[str]) -> Entity | list[Entity]:
    """One reference, or a list where there are several: RO-Crate's compact form."""
    found = [{"@id": name} for name in ids]
    return found[0] if len(found) == 1 else found


def _summary(record: Record) -> str:
    shape = " x ".join(str(n) for n in record.shape_zyx or ())
    assumed = record.assumed_axes
    voxel = lengths_text(record.voxel_nm_zyx, assumed, " x ") if record.voxel_nm_zyx else ""
    parts = [
        record.core.modality or "Electron microscopy",
        "labels" if record.kind == "labels" else "volume",
    ]
    text = " ".join(parts)
    text += f" of {shape} voxels (z, y, x)" if shape else ""
    return text + (f", {voxel} nm each" if voxel and assumed != "zyx" else "")


def _author_id(index: int) -> str:
    return f"#author-{index + 1}"


def _archive_id(record: Record) -> str:
    return publisher(record.source).url or f"#archive-{quote(record.source)}"


def _taxon_id(organism: str) -> str:
    number = _TAXA.get(organism)
    if number:
        return f"http://purl.obolibrary.org/obo/NCBITaxon_{number}"
    return f"#organism-{quote(organism.replace(' ', '-'))}"
