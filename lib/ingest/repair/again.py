"""Asking the archive for the volume of a record once more."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from lib.config.manager import LoadedSettings
from lib.errors import NotFoundError, SourceChangedError
from lib.ingest.request import VolumeRequest
from lib.ingest.stages import plan_source
from lib.records.lifecycle import RecordDict
from lib.storage.base import Store, StoreSettings


def holder_here(what: str) -> str:
    """Who holds a volume's lock, for whoever waits for it."""
    return f"{what} on {socket.gethostname()}, process {os.getpid()}"


def order_again(
    record: RecordDict,
    loaded: LoadedSettings,
    store: Store,
    store_settings: StoreSettings,
    scratch_dir: Path,
) -> VolumeRequest:
    """The request that makes a record's volume, planned from the archive as it is now.

    The settings that chose and shaped the volume are the record's own; addresses, credentials and
    limits are today's. Records of earlier versions hold no settings: today's stand for them.

    Raises
    ------
    NotFoundError
        The archive does not list the volume, or not under these settings.
    SourceChangedError
        It is another one now.
    ConfigError, TransportError, ...
        As any run.
    """
    source, name = record["source"], record["name"]
    stated = record["metadata"]["provenance"].get("settings") or {}
    known = loaded.keys.loaders[source].model_fields if source in loaded.keys.loaders else {}
    given = {name: value for name, value in stated.items() if name in known}
    config = loaded.loader(source, {**given, "dry_run": False, "output_dir": store.uri})
    plans = plan_source(source, config, scratch_dir, store).plans
    plan = next((plan for plan in plans if plan.name == name), None)
    if plan is None:
        raise NotFoundError(
            f"the archive lists no volume {name} under the settings that it was made with",
            archive=source,
            location=record["source_id"],
            advice="Run it again with the settings that it was made with: "
            + (
                "they are in its record" if given else "its record, of an earlier version, has none"
            ),
        )
    request = VolumeRequest(
        plan, config, store.uri, store_settings, scratch_dir, holder_here("macroscope verify")
    )
    fitting = request.making(record.get("additional_metadata", {}).get("identity"))
    if fitting is None:
        raise SourceChangedError(
            "the archive's file or array is not the one that the volume was made from, or other "
            "settings shape it now; nothing was touched",
            archive=source,
            location=record["source_id"],
            advice="Run again to make the volume anew from what the archive holds now",
        )
    return fitting
