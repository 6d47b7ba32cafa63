"""How each field of a record is proven from the store, or why it cannot be, by its name.

The names are dotted and without ``metadata.``; the proofs are stated with the fields themselves.
"""

from __future__ import annotations

from lib.records.fields import Proof
from lib.records.model import record_fields

PROOFS: dict[str, Proof] = {
    field.name: proof for field in record_fields() if (proof := field.mark(Proof)) is not None
}
