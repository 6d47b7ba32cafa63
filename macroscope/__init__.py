"""Electron-microscopy volumes from public archives, and any address, in one analysis-ready store.

`list` and `search` say what there is, `plan` what a run would cost, `ingest` brings volumes in,
`open` reads them, `verify` proves a store. None of them needs a server, a configuration or a
``__main__`` guard; they work in scripts, threads and notebooks, print nothing, and raise the named
errors of `macroscope.errors`.
"""

from __future__ import annotations

from macroscope._ingest import ingest
from macroscope._list import list, search
from macroscope._open import open
from macroscope._plan import plan
from macroscope._verify import verify

__all__ = ["ingest", "list", "open", "plan", "search", "verify"]


def __dir__() -> tuple[str, ...]:
    return tuple(__all__)
