"""The organism, where an archive names it in free text only."""

from __future__ import annotations

import re

# Word -> scientific name. Words that may mean something else (rat, fly, yeast as an ingredient)
# are taken only as whole words; a text that names two organisms names none.
_WORDS = {
    "zebrafish": "Danio rerio",
    "mouse": "Mus musculus",
    "mice": "Mus musculus",
    "murine": "Mus musculus",
    "rat": "Rattus norvegicus",
    "human": "Homo sapiens",
    "drosophila": "Drosophila melanogaster",
    "fruit fly": "Drosophila melanogaster",
    "yeast": "Saccharomyces cerevisiae",
    "c. elegans": "Caenorhabditis elegans",
    "arabidopsis": "Arabidopsis thaliana",
    "e. coli": "Escherichia coli",
    "chlamydomonas": "Chlamydomonas reinhardtii",
    "platynereis": "Platynereis dumerilii",
}


def organism_in(text: str) -> str | None:
    """The one organism that a text names; None where it names none, or several."""
    lower = " ".join(text.lower().split())
    names = {
        name
        for word, name in [*_WORDS.items(), *((n.lower(), n) for n in set(_WORDS.values()))]
        if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", lower)
    }
    return names.pop() if len(names) == 1 else None
