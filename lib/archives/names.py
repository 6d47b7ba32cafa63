"""Names of volumes made from the names of files and images."""

from __future__ import annotations

import re

_UNFIT = re.compile(r"[^A-Za-z0-9._+-]+")
_SUFFIX = re.compile(r"(\.ome)?\.tiff?$", re.IGNORECASE)
_COUNTER = re.compile(r"[ _.-]+(slice|section|sec|image|img|z)$", re.IGNORECASE)


def slug(text: str) -> str:
    """`text` in characters that need no quoting in paths, URLs and shells."""
    return _UNFIT.sub("_", text).strip("._-") or "volume"


def without_tiff_suffix(name: str) -> str:
    """``a.ome.tiff [2]`` -> ``a [2]``."""
    stem, blank, rest = name.partition(" [")
    return _SUFFIX.sub("", stem) + blank + rest


def stack_name(stem: str) -> str:
    """What numbered sections have in common, without the word that announces the number."""
    return slug(_COUNTER.sub("", stem))
