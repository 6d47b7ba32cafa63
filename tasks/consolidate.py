"""The catalogue and the validation report over everything in the store."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_table_artifact

from lib.catalog import CatalogResult, consolidate
from lib.storage.open import open_store
from lib.storage.settings import StoreSettings
from tasks.record import artifact_key


@task(name="consolidate", tags=["record"])
def catalogue(data_uri: str, metadata_uri: str, store_settings: StoreSettings) -> CatalogResult:
    """Read and validate every record below `data_uri`, and write what was found."""
    result = consolidate(
        open_store(data_uri, store_settings), open_store(metadata_uri, store_settings)
    )
    rows = [
        {"what": name, "count": count}
        for name, count in (("valid", result.valid), ("invalid", result.invalid))
    ]
    create_table_artifact(rows, key=artifact_key("catalogue"), description=result.catalog_key)
    return result
