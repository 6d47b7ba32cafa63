"""Servers that fail while a volume is made by its address: exact, or failed by name; never half."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from lib.archives.address.places import LIMITS
from lib.ingest.context import VolumeRequest
from lib.ingest.life import make_volume
from lib.storage.base import StoreSettings
from tests.formats import cases_tiff, cases_zarr2
from tests.formats.case import Case
from tests.formats.servers import Servers
from tests.formats.test_conformance import Cell

FILE = Case("faults-tiff", cases_tiff.imagej, "stack.tif")
ARRAY = Case("faults-zarr2", cases_zarr2.multiscale, "x.zarr|zarr2:em")
SECTIONS = Case("faults-sections", cases_tiff.sections, "sections/|tiff:")

# What passes after a few tries, and what no client can do anything about.
PASSES = [
    ("status_503", {"first_n": 2}),
    ("status_429", {"first_n": 2}),
    ("reset", {"first_n": 2}),
    ("short_body", {"first_n": 2}),
    ("html_200", {"first_n": 1}),
]
STAYS = ["status_403", "status_500", "reset", "short_body", "html_200", "changed_file"]
HTTP = [("mirror", "http"), ("gs", "gs")]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once: it is not their pace that is tried here."""
    for name in ("address-https", "address-gs", "address-ftp"):
        fast = replace(LIMITS[name], first_backoff_s=0.01, read_timeout_s=60.0)
        monkeypatch.setitem(LIMITS, name, fast)


class Faulty(Cell):
    """A cell whose server fails after the plan was made."""

    def attempt(self) -> tuple[Any, Any]:
        """Make the volume; what came of it, and its voxels where it is complete."""
        config, plan = self.config(), self.plan()
        return config, plan

    def run(self, config: Any, plan: Any) -> tuple[Any, Any]:
        data = self.scratch / "data"
        request = VolumeRequest(
            plan, config, str(data), StoreSettings(), self.scratch / "s", "a test"
        )
        made = make_volume(request, "a test")
        path = data / "address" / f"{plan.name}.ome.zarr"
        assert path.exists() == (made.status == "complete")
        voxels = zarr.open_group(path, mode="r")["0"][:] if path.exists() else None  # type: ignore[index]
        return made, voxels


@pytest.mark.parametrize("case", [FILE, ARRAY, SECTIONS], ids=lambda case: case.name)
@pytest.mark.parametrize(("service", "transport"), HTTP)
@pytest.mark.parametrize(("kind", "more"), PASSES, ids=[kind for kind, _ in PASSES])
def test_what_passes_is_waited_for(
    case: Case,
    service: str,
    transport: str,
    kind: str,
    more: dict[str, Any],
    servers: Servers,
    tmp_path: Path,
) -> None:
    cell = Faulty(case, transport, servers, tmp_path)
    config, plan = cell.attempt()
    servers.control.add(kind, service, case.name, **more)
    try:
        made, voxels = cell.run(config, plan)
    finally:
        servers.control.clear()
    assert made.status == "complete", made.error
    np.testing.assert_array_equal(voxels, cell.truth)


@pytest.mark.parametrize("case", [FILE, ARRAY, SECTIONS], ids=lambda case: case.name)
@pytest.mark.parametrize(("service", "transport"), HTTP)
@pytest.mark.parametrize("kind", STAYS)
def test_what_stays_fails_by_name_and_is_made_later(
    case: Case, service: str, transport: str, kind: str, servers: Servers, tmp_path: Path
) -> None:
    cell = Faulty(case, transport, servers, tmp_path)
    config, plan = cell.attempt()
    servers.control.add(kind, service, rf"{case.name}.*(tif|/\d+)(\?|$)")
    try:
        made, voxels = cell.run(config, plan)
    finally:
        servers.control.clear()
    if made.status == "complete":
        # Another tag may be that of a copy; a download goes on from where it was cut.
        assert kind == "changed_file" or (case is SECTIONS and kind in ("reset", "short_body"))
        np.testing.assert_array_equal(voxels, cell.truth)
        return
    assert made.error
    assert "Error:" not in made.error, "an error without a name"
    made, voxels = cell.run(config, cell.plan())
    assert made.status == "complete", made.error
    np.testing.assert_array_equal(voxels, cell.truth)


@pytest.mark.parametrize(("service", "transport"), HTTP)
def test_a_chunk_that_is_listed_and_gone_is_no_hole(
    service: str, transport: str, servers: Servers, tmp_path: Path
) -> None:
    cell = Faulty(ARRAY, transport, servers, tmp_path)
    cell.settings["max_missing_fraction"] = 1.0
    config, plan = cell.attempt()
    servers.control.add("status_404", service, "s0/1/1/1$")
    try:
        made, _ = cell.run(config, plan)
    finally:
        servers.control.clear()
    assert made.status == "failed"


def test_a_server_that_ignores_ranges_is_read_all_the_same(
    servers: Servers, tmp_path: Path
) -> None:
    cell = Faulty(FILE, "http", servers, tmp_path)
    servers.control.add("ignore_range", "mirror", FILE.name)
    try:
        config, plan = cell.attempt()
        assert plan.reader["way"] == "fetch"  # once and whole, not once for each range
        assert "the server gives no ranges of files: the file is fetched whole first" in plan.notes
        made, voxels = cell.run(config, plan)
    finally:
        servers.control.clear()
    assert made.status == "complete", made.error
    np.testing.assert_array_equal(voxels, cell.truth)


@pytest.mark.parametrize("kind", ["cut_226", "cut_426", "reply_425", "greeting_reset"])
@pytest.mark.parametrize("case", [FILE, SECTIONS], ids=lambda case: case.name)
def test_transfers_that_end_early_are_gone_on_with(
    case: Case, kind: str, servers: Servers, tmp_path: Path
) -> None:
    cell = Faulty(case, "ftp", servers, tmp_path)
    config, plan = cell.attempt()
    match = "" if kind == "greeting_reset" else case.name
    servers.control.add(kind, "ftp", match, first_n=2)
    try:
        made, voxels = cell.run(config, plan)
    finally:
        servers.control.clear()
    assert made.status == "complete", made.error
    np.testing.assert_array_equal(voxels, cell.truth)
