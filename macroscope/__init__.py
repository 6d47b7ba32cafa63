"""Electron-microscopy volumes from public archives, and any address, in one analysis-ready store.

`list` and `search` say what there is, `plan` what a run would cost, `ingest` brings volumes in,
`open` reads them, `verify` proves a store. None of them needs a server, a configuration or a
``__main__`` guard; they work in scripts, threads and notebooks, print nothing, and raise the named
errors of `macroscope.errors`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from macroscope._ingest import ingest
    from macroscope._list import list, search
    from macroscope._open import open
    from macroscope._plan import plan
    from macroscope._verify import verify

__all__ = ["ingest", "list", "open", "plan", "search", "verify"]

_HOMES = {name: f"macroscope._{name}" for name in __all__} | {"search": "macroscope._list"}


def __getattr__(name: str) -> Any:
    # When it is asked for: the console command begins here, too, and needs none of them.
    if name not in _HOMES:
        raise AttributeError(f"module 'macroscope' has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> tuple[str, ...]:
    return tuple(__all__)
