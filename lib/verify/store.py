"""Re-proving a whole store: every record, every complete volume."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lib.errors import MacroscopeError
from lib.records.manager import read_json
from lib.records.model import schema_errors
from lib.storage.base import Store
from lib.storage.walk import record_objects
from lib.verify.volume import problems_of


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one record and its volume; no problems means that all of it holds."""

    record_key: str
    status: str
    problems: tuple[str, ...]


def verify_store(store: Store, prefix: str = "", *, digests: bool = True) -> Iterator[Verdict]:
    """Look at every record below a prefix, and re-prove the volumes that are said to be complete.

    Records of other statuses promise no volume; only their form is looked at.
    """
    for item in record_objects(store, prefix):
        try:
            record = read_json(store, item.key, item.size)
        except MacroscopeError as error:
            yield Verdict(item.key, "unreadable", (str(error),))
            continue
        status = str(record.get("status", "unknown"))
        problems = list(schema_errors(record))
        if not problems and status == "complete" and record.get("schema_version"):
            problems += problems_of(store, record, digests=digests)
        yield Verdict(item.key, status, tuple(problems))
