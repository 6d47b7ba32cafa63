"""The end of a run: what came in, what went wrong, and where it all is."""

from __future__ import annotations

import os
import shlex
from collections import Counter

from rich.measure import Measurement
from rich.table import Table

from flows.credentials import store_settings
from flows.logs import written
from lib.config.manager import LoadedSettings
from lib.errors import MacroscopeError
from lib.ingest.result import ProcessingResult, VolumeResult
from lib.present.output import console, say
from lib.storage.open import is_remote, open_store

_MOST_LOGS = 6  # as many as there are sources
_COLUMNS = ("source", "volume", "shape z,y,x", "voxel nm z,y,x", "bytes", "seconds", "status")


def print_summary(results: list[ProcessingResult]) -> None:
    """A row for each volume, or lines where a row would not fit, and each error below."""
    out, table = console(), Table(*_COLUMNS)
    volumes = [(result.label, volume) for result in results for volume in result.volumes]
    rows = [_row(source, volume) for source, volume in volumes]
    for row in rows:
        table.add_row(*row)
    if Measurement.get(out, out.options.update(width=10_000), table).maximum <= out.width:
        out.print(table)
    else:
        for source, name, shape, voxel, size, seconds, status in rows:
            say(f"{source}: {name}")
            say(f"    {status}: {shape} voxels of {voxel} nm, {size} bytes, {seconds} s")
    asked: Counter[str] = Counter()
    for _, volume in volumes:
        asked.update(volume.store_requests)
    if asked:
        counted = ", ".join(f"{kind} {count}" for kind, count in sorted(asked.items()))
        say(f"requests to the store: {counted}")
    for result in results:
        for error in result.errors:
            out.print(f"{result.label}: {error}", style="bold")


def print_errors(results: list[ProcessingResult]) -> None:
    """What went wrong, and nothing else."""
    for result in results:
        for error in result.errors:
            say(f"{result.label}: {error}", error=True)


def print_places(results: list[ProcessingResult], loaded: LoadedSettings) -> None:
    """Where data, report and logs are, and the command that shows the volumes."""
    records = [path for result in results for path in result.metadata_paths]
    for folder in sorted({path.rsplit("/", 2)[0] for path in records}):
        say(f"data    {_absolute(folder)}")
    if records and (report := newest_report(loaded)):
        say(f"report  {report}")
    for path in written if len(written) <= _MOST_LOGS else ():
        say(f"log     {_absolute(path)}")
    if len(written) > _MOST_LOGS:
        say(f"log     {_absolute(os.path.dirname(written[0]))} ({len(written)} new files)")
    if records:
        given = loaded.origins.get("data_dir", "").startswith("environment")
        where = f" --data-dir {shlex.quote(loaded.settings.data_dir)}" if given else ""
        say(f"look    macroscope view{where}")


def newest_report(loaded: LoadedSettings) -> str | None:
    """Where the newest report of the store is; None where there is none, or nobody can say."""
    try:
        store = open_store(loaded.settings.metadata_dir, store_settings(loaded))
        names = [one.key for one in store.list_folder().objects]
    except MacroscopeError:
        return None
    reports = [name for name in names if name.startswith("report_") and name.endswith(".html")]
    return _absolute(f"{store.uri}/{max(reports)}") if reports else None


def _row(source: str, volume: VolumeResult) -> tuple[str, ...]:
    return (
        source,
        volume.name,
        " ".join(map(str, volume.shape_zyx)),
        " ".join(f"{v:.6g}" for v in volume.voxel_nm_zyx),
        f"{volume.stored_bytes:,}",
        f"{volume.seconds:.1f}" if volume.made else "-",
        _status(volume),
    )


def _status(volume: VolumeResult) -> str:
    if volume.repaired_files:
        return f"{volume.status} (repaired: {volume.repaired_files} files)"
    return volume.status if volume.made or volume.status != "complete" else "up to date"


def _absolute(place: str) -> str:
    return place if is_remote(place) else os.path.abspath(place)
