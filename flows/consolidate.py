"""Catalogue and validation report over every record in the store."""

from __future__ import annotations

from flows.calling import flow
from flows.credentials import store_settings
from lib.config.manager import ConfigManager
from lib.records.catalogue import CatalogResult
from lib.storage.keys import require_contents
from lib.storage.open import open_store
from tasks.artifacts import catalogue


@flow(name="consolidate", flow_run_name="consolidate", description=__doc__)
def consolidate() -> CatalogResult:
    """Write the catalogue and the report beside it; one bad record never stops it.

    Raises
    ------
    NothingThereError
        The store holds neither a record nor a volume.
    """
    loaded = ConfigManager().load()
    settings, destination = loaded.settings, store_settings(loaded)
    require_contents(open_store(settings.data_dir, destination), "catalogue")
    return catalogue(settings.data_dir, settings.metadata_dir, destination, settings.keep_reports)
