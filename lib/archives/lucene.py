"""Words of a person as a query of the search services, which speak Lucene's language."""

from __future__ import annotations

import re


def all_of(words: list[str]) -> str:
    """A query that all words must fit; what means something to Lucene is only text here."""
    kept = [re.sub(r'["\\]', " ", word).strip() for word in words]
    quoted = [word if word.isalnum() else f'"{word}"' for word in kept if word]
    return " AND ".join(quoted)
