"""``macroscope view``: volumes in the browser, from this machine only."""

from __future__ import annotations

import signal
import threading
import webbrowser

from flows.commands.options import take_options
from flows.credentials import store_settings
from lib.config.manager import ConfigManager
from lib.errors import NotFoundError, NothingThereError
from lib.present.output import say
from lib.present.viewer import serve, serve_store
from lib.records.manager import MetadataManager
from lib.storage.base import Store
from lib.storage.open import open_store
from lib.storage.walk import contents, why_nothing


def view_command(
    names: list[str], *, port: int, open_browser: bool, data_dir: str | None = None
) -> int:
    """Serve until interrupted. Without names: a page of the whole store, which opens each."""
    take_options(data_dir=data_dir)
    loaded = ConfigManager().load()
    store = open_store(loaded.settings.data_dir, store_settings(loaded))
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    keys = _volumes(store, names) if names else []
    with serve(store, keys, port=port) if names else serve_store(store, port=port) as viewer:
        say(viewer.url)
        if open_browser:
            webbrowser.open(viewer.url)
        stop.wait()
    return 0


def _volumes(store: Store, names: list[str]) -> list[str]:
    """Keys of the volumes that the names mean: a key, a name, or a source."""
    complete = [
        record["files"]["volume"]
        for _, record in MetadataManager(store).find(status="complete")
        if record.get("schema_version") and record["files"]["volume"].endswith(".ome.zarr")
    ]
    chosen = [key for key in complete if any(_means(name, key) for name in names)]
    if not chosen and not complete:
        found = contents(store)
        if not found.records and not found.volumes:
            raise NothingThereError(
                f"there is nothing to view: {why_nothing(store, found)}", location=store.uri
            )
    if not chosen:
        there = ", ".join(complete) or "nothing yet"
        raise NotFoundError(
            "there is no such volume to view",
            location=store.uri,
            advice=f"There are: {there}",
        )
    return chosen


def _means(name: str, key: str) -> bool:
    source, _, stem = key.removesuffix(".ome.zarr").rpartition("/")
    return name in (key, stem, source, f"{source}/{stem}")
