"""The only writer of records, under the name that users import. See `lib.records.manager`."""

from lib.records.lifecycle import read_json
from lib.records.manager import MetadataManager, timestamp, utc_now

__all__ = [
    "MetadataManager",
    "read_json",
    "timestamp",
    "utc_now",
]
