"""What stands beside the catalogue for people and for machines: the report, crates, the index."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from lib.present.crate import crate_document, crate_key, encode
from lib.present.croissant import croissant_document
from lib.present.report import write_report
from lib.records.catalogue import CatalogResult
from lib.storage.base import Store

CROISSANT_KEY = "croissant.json"


@dataclass(frozen=True, slots=True)
class Presented:
    """Keys of what was written: the report in the metadata store, the crates in the data store."""

    report_key: str
    croissant_key: str
    crate_keys: tuple[str, ...]


def present(data_store: Store, metadata_store: Store, found: CatalogResult) -> Presented:
    """Write the HTML report, an RO-Crate for every complete volume, and the Croissant index."""
    now = datetime.now(UTC)
    listed = [item["record"] for item in found.catalog["records"]]
    records = [record for record in listed if record.get("status") == "complete"]
    crates = []
    for record in records:
        if not record.get("schema_version"):
            continue  # older records do not say enough
        key = crate_key(record["files"]["volume"])
        data_store.put(key, encode(crate_document(record, data_store.uri)))
        crates.append(key)
    index = croissant_document(records, data_store.uri, date=now.date().isoformat())
    metadata_store.put(CROISSANT_KEY, json.dumps(index, indent=2, ensure_ascii=False).encode())
    report = write_report(data_store, metadata_store, found.catalog, found.report, now=now)
    return Presented(report, CROISSANT_KEY, tuple(crates))
