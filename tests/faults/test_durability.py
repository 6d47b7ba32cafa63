"""A record says complete only when all that it speaks of is on the disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from emulators.serving import Samples
from lib.storage.base import StoreSettings
from tests.faults.bench import Bench


class Disk:
    """What is forced to the disk, and what was not when a complete record took its name.

    A file that is written after it was forced counts as not forced.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.forced: dict[int, tuple[int, int]] = {}
        self.missing: list[str] | None = None
        fsync, replace, rename = os.fsync, os.replace, os.rename

        def noted(handle: int) -> None:
            fsync(handle)
            state = os.fstat(handle)
            self.forced[state.st_ino] = (state.st_mtime_ns, state.st_size)

        def watched(source: Any, target: Any, **more: Any) -> None:
            if Path(target).name.startswith("metadata_"):
                with open(source, encoding="utf-8") as file:
                    if json.load(file)["status"] == "complete":
                        self.missing = self._not_forced(Path(source))
            replace(source, target, **more)

        def renamed(source: Any, target: Any, **more: Any) -> None:
            """The name is no longer the one that was forced."""
            rename(source, target, **more)
            self.forced.pop(os.stat(os.path.dirname(target)).st_ino, None)

        monkeypatch.setattr(os, "fsync", noted)
        monkeypatch.setattr(os, "replace", watched)
        monkeypatch.setattr(os, "rename", renamed)

    def _not_forced(self, record: Path) -> list[str]:
        missing = []
        for path in self.root.rglob("*"):
            parts = path.relative_to(self.root).parts
            if {".partial", ".locks"} & set(parts) or path == record:
                continue
            state = path.stat()
            as_forced = self.forced.get(state.st_ino)
            if as_forced is None or (
                path.is_file()
                and as_forced
                != (
                    state.st_mtime_ns,
                    state.st_size,
                )
            ):
                missing.append("/".join(parts))
        return missing


@pytest.mark.parametrize("output_format", ["zarr", "npy"])
@pytest.mark.parametrize("source", ["ebi", "openorganelle"])
def test_everything_is_on_the_disk_before_the_record_says_complete(
    samples: Samples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    output_format: str,
) -> None:
    bench = Bench(
        samples,
        tmp_path,
        source,
        store_settings=StoreSettings(durable=True),
        output_format=output_format,
    )
    disk = Disk(tmp_path / "data", monkeypatch)
    ended = bench.run()
    assert ended.complete, ended.errors
    assert disk.missing == []
    assert disk.forced


def test_a_run_that_need_not_be_durable_waits_for_no_disk(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(samples, tmp_path, "ebi", store_settings=StoreSettings(durable=False))
    disk = Disk(tmp_path / "data", monkeypatch)
    assert bench.run().complete
    assert disk.missing
    folder = tmp_path / "data"
    assert not {path.stat().st_ino for path in folder.rglob("*.ome.zarr/**/*")} & set(disk.forced)
