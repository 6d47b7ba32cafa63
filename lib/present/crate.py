"""An RO-Crate for every volume: what it is, whose, under which licence, and its digests.

A *detached* RO-Crate 1.2, as a file ``<name>-ro-crate-metadata.json`` beside the volume. An
attached crate would have to lie inside the folder that it describes, as ``ro-crate-metadata.json``
with relative paths: inside an OME-Zarr it would be a foreign file that the volume's list of digests
does not know, and one folder of a source holds many volumes. RO-Crate 1.2 has the detached form,
and this naming, for that case; its data entities must have absolute addresses.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from lib.present.described import beside
from lib.present.facts import Facts, Json, facts_of, how_to_cite, licence_url

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


def crate_document(record: Json, base_uri: str) -> dict[str, Any]:
    """Describe a complete volume as an RO-Crate.

    Parameters
    ----------
    record
        The volume's record.
    base_uri
        Address of the data store (``Store.uri``, or where it is published).

    Returns
    -------
    JSON-LD for `crate_key`. What the record does not say is left out, but for the licence, which
    RO-Crate demands: that none is stated is then said in words.
    """
    facts = facts_of(record)
    volume = _volume(facts, base_uri)
    others = _context_entities(facts)
    root: Entity = {
        "@id": f"urn:uuid:{facts.id}",
        "@type": "Dataset",
        "name": facts.title,
        "description": facts.description or _summary(facts),
        "datePublished": (facts.released or facts.updated_at)[:10],
        "license": {"@id": licence_url(facts.licence) if facts.licence else _UNKNOWN_LICENCE},
        "publisher": {"@id": _archive_id(facts)},
        "identifier": {"@id": "#accession"},
        "keywords": [w for w in (facts.modality, facts.organism, facts.kind, "OME-Zarr") if w],
        "creditText": how_to_cite(facts),
    }
    if facts.authors:
        root["author"] = _references(_author_id(n) for n in range(len(facts.authors)))
    if facts.doi:
        root["citation"] = {"@id": f"https://doi.org/{facts.doi}"}
    if facts.organism:
        root["about"] = {"@id": _taxon_id(facts.organism)}
    made_from = _made_from(facts, volume)
    if made_from:
        root["mentions"] = {"@id": _CONVERSION}
    parts = [volume, *_beside_volume(facts, base_uri)]
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


def _volume(facts: Facts, base_uri: str) -> Entity:
    key = facts.volume_key or f"{facts.source}/{facts.name}"
    zarr = key.endswith(".zarr")
    entity: Entity = {
        "@id": address(base_uri, key) + ("/" if zarr else ""),
        "@type": "Dataset" if zarr else "File",
        "name": facts.name,
        "description": _summary(facts),
        "variableMeasured": _references(f"#{name}" for name, *_ in _measures(facts)),
    }
    if facts.stored_bytes is not None:
        entity["contentSize"] = str(facts.stored_bytes)
    if not zarr:
        entity["encodingFormat"] = "application/x-npy"
        if facts.sha256:
            entity["sha256"] = facts.sha256
    if facts.modality:
        entity["measurementTechnique"] = facts.modality
    return entity


def _beside_volume(facts: Facts, base_uri: str) -> list[Entity]:
    """The list of digests, whose own digest the record holds, so that one value proves it all."""
    if not facts.sums_key or not (facts.volume_key or "").endswith(".zarr"):
        return []
    entity: Entity = {
        "@id": address(base_uri, facts.sums_key),
        "@type": "File",
        "name": "SHA-256 of every file of the volume",
        "description": "Check with sha256sum --check",
        "encodingFormat": "text/plain",
    }
    return [entity | ({"sha256": facts.sha256} if facts.sha256 else {})]


def _context_entities(facts: Facts) -> list[Entity]:
    entities: list[Entity] = [
        {
            "@id": _archive_id(facts),
            "@type": "Organization",
            "name": facts.archive.name,
            **({"url": facts.archive.url} if facts.archive.url else {}),
        },
        {
            "@id": "#accession",
            "@type": "PropertyValue",
            "name": "accession",
            "propertyID": facts.source,
            "value": facts.source_id,
        },
        _licence(facts),
    ]
    entities += [
        {"@id": _author_id(n), "@type": "Person", "name": name}
        for n, name in enumerate(facts.authors)
    ]
    if facts.doi:
        entities.append(
            {
                "@id": f"https://doi.org/{facts.doi}",
                "@type": "ScholarlyArticle",
                "name": facts.citation or facts.title,
            }
        )
    if facts.organism:
        entities.append(
            {"@id": _taxon_id(facts.organism), "@type": "Taxon", "name": facts.organism}
        )
    entities += [
        {
            "@id": f"#{name}",
            "@type": "PropertyValue",
            "name": text,
            "value": value,
            **({"unitText": unit} if unit else {}),
        }
        for name, text, value, unit in _measures(facts)
    ]
    return entities


def _licence(facts: Facts) -> Entity:
    if facts.licence:
        return {
            "@id": licence_url(facts.licence),
            "@type": "CreativeWork",
            "name": facts.licence,
            "description": f"SPDX licence {facts.licence}",
        }
    return {
        "@id": _UNKNOWN_LICENCE,
        "@type": "CreativeWork",
        "name": "No licence stated",
        "description": "The archive states no licence. Ask it before you use the data.",
    }


def _measures(facts: Facts) -> list[tuple[str, str, Any, str | None]]:
    """What can be said in numbers: id, name, value, unit."""
    found: list[tuple[str, str, Any, str | None]] = []
    for axis, length in zip("zyx", facts.voxel_nm_zyx or (), strict=False):
        found.append((f"voxel-size-{axis}", f"voxel size {axis}", length, "nanometer"))
    for axis, count in zip("zyx", facts.shape_zyx or (), strict=False):
        found.append((f"voxels-{axis}", f"voxels along {axis}", count, None))
    if facts.dtype:
        found.append(("data-type", "data type", facts.dtype, None))
    if facts.completeness is not None:
        found.append(("completeness", "completeness", facts.completeness, None))
    return found


def _made_from(facts: Facts, volume: Entity) -> list[Entity]:
    """The conversion, with the archive's files (or the address of its array) as what went in."""
    if not facts.source_files and not facts.download_url:
        return []
    inputs: list[Entity] = []
    for file in facts.source_files[:1000]:
        entity: Entity = {"@id": file.url, "@type": "CreativeWork", "name": file.name}
        if file.size is not None:
            entity["size"] = str(file.size)
        if file.sha256:
            entity["sha256"] = file.sha256
        inputs.append(entity)
    if not inputs:
        inputs = [{"@id": facts.download_url, "@type": "CreativeWork", "name": facts.source_id}]
    inputs = list({entity["@id"]: entity for entity in inputs}.values())
    action = {
        "@id": _CONVERSION,
        "@type": "CreateAction",
        "name": "Conversion by macroscope",
        "endTime": facts.updated_at,
        "object": _references(entity["@id"] for entity in inputs),
        "result": {"@id": volume["@id"]},
    }
    return [*inputs, action]


def _references(ids: Iterable[str]) -> Entity | list[Entity]:
    """One reference, or a list where there are several: RO-Crate's compact form."""
    found = [{"@id": name} for name in ids]
    return found[0] if len(found) == 1 else found


def _summary(facts: Facts) -> str:
    shape = " x ".join(str(n) for n in facts.shape_zyx or ())
    voxel = " x ".join(f"{v:g}" for v in facts.voxel_nm_zyx or ())
    parts = [
        facts.modality or "Electron microscopy",
        "labels" if facts.kind == "labels" else "volume",
    ]
    text = " ".join(parts)
    text += f" of {shape} voxels (z, y, x)" if shape else ""
    return text + (f", {voxel} nm each" if voxel else "")


def _author_id(index: int) -> str:
    return f"#author-{index + 1}"


def _archive_id(facts: Facts) -> str:
    return facts.archive.url or f"#archive-{quote(facts.source)}"


def _taxon_id(organism: str) -> str:
    number = _TAXA.get(organism)
    if number:
        return f"http://purl.obolibrary.org/obo/NCBITaxon_{number}"
    return f"#organism-{quote(organism.replace(' ', '-'))}"
