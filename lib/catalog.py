"""The catalogue of a store, under the name that users import. See `lib.records.catalogue`."""

from lib.records.catalogue import (
    CATALOG_VERSION,
    CatalogResult,
    CheckedRecord,
    consolidate,
)

__all__ = [
    "CATALOG_VERSION",
    "CatalogResult",
    "CheckedRecord",
    "consolidate",
]
