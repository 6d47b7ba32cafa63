"""The catalogue, the validation report, and what presents them, over everything in the store."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_table_artifact

from lib.present.catalogue import present
from lib.records.catalogue import CatalogResult, consolidate, forget_old
from lib.storage.open import open_store
from lib.storage.settings import StoreSettings
from tasks.artifacts import artifact_key


@task(name="consolidate", tags=["record"])
def catalogue(
    data_uri: str, metadata_uri: str, store_settings: StoreSettings, keep: int
) -> CatalogResult:
    """Read and validate every record below `data_uri`, write what was found, and present it.

    Parameters
    ----------
    keep
        How many catalogues and reports stay; older ones are deleted.
    """
    data_store = open_store(data_uri, store_settings)
    metadata_store = open_store(metadata_uri, store_settings)
    result = consolidate(data_store, metadata_store)
    shown = present(data_store, metadata_store, result)
    forget_old(metadata_store, keep)
    rows = [
        {"what": "valid records", "value": str(result.valid)},
        {"what": "invalid records", "value": str(result.invalid)},
        {"what": "catalogue", "value": f"{metadata_store.uri}/{result.catalog_key}"},
        {"what": "validation", "value": f"{metadata_store.uri}/{result.report_key}"},
        {"what": "report", "value": f"{metadata_store.uri}/{shown.report_key}"},
    ]
    create_table_artifact(
        rows,
        key=artifact_key("catalogue"),
        description=f"{result.valid} valid records in {data_store.uri}, {result.invalid} invalid",
    )
    return result
