"""What a store does not hold: background where the format says so, a failure where it does not."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.errors import AccessDeniedError
from tests.formats import cases_n5, cases_precomputed, cases_zarr2, cases_zarr3
from tests.formats.case import Case
from tests.formats.servers import Servers
from tests.formats.test_faults import Faulty

SHARDS: dict[str, Any] = cases_precomputed._IDENTITY
# formats that leave out chunks of nothing but 0; the object of the chunk that is left out
UNSTORED = {
    "n5": (Case("gaps-n5", cases_n5.holes, "bare|n5:"), "bare/0/0/0$"),
    "precomputed": (
        Case("gaps-precomputed", partial(cases_precomputed.holes, None), "em|precomputed:"),
        "em/s0/5-21_-3-13_100-108$",
    ),
    "precomputed-sharded": (
        Case("gaps-sharded", partial(cases_precomputed.holes, SHARDS), "em|precomputed:"),
        r"em/s0/0\.shard$",
    ),
}
NOTE = "1 of 27 chunks are absent, read as 0"


@pytest.mark.parametrize("name", UNSTORED)
def test_absence_is_counted_where_nothing_lists(
    name: str, servers: Servers, tmp_path: Path
) -> None:
    """No ``max_missing_fraction``: the web server shows no index, and its 404 proves absence."""
    case, _ = UNSTORED[name]
    cell = Faulty(case, "http", servers, tmp_path)
    servers.control.add("status_403", "mirror", rf"{case.name}.*/$")
    try:
        plan, record, voxels = cell.make()
    finally:
        servers.control.clear()
    np.testing.assert_array_equal(voxels, cell.truth)
    assert plan.source_grid is not None
    assert plan.source_grid.absent == "background"
    quality = record["metadata"]["quality"]
    assert quality["missing_chunks_total"] == 1
    assert quality["notes"].count(NOTE) == 1


@pytest.mark.parametrize("name", UNSTORED)
def test_a_refusal_is_no_absence(name: str, servers: Servers, tmp_path: Path) -> None:
    """Neuroglancer and cloud-volume read 403 as absent."""
    case, key = UNSTORED[name]
    cell = Faulty(case, "http", servers, tmp_path)
    cell.settings["max_missing_fraction"] = 1.0
    servers.control.add("status_403", "mirror", rf"{case.name}.*/$")
    config, plan = cell.attempt()
    servers.control.add("status_403", "mirror", rf"{case.name}-http/{key}")
    try:
        made, _ = cell.run(config, plan)
    finally:
        servers.control.clear()
    assert made.status == "failed"
    assert "403" in made.error or "refuses" in made.error


def test_a_bucket_that_says_403_for_what_is_absent_fails_by_name(
    servers: Servers, tmp_path: Path
) -> None:
    cell = Faulty(UNSTORED["n5"][0], "gs", servers, tmp_path)
    whole = Faulty(Case("whole-n5", cases_n5.pyramid, "x.n5|n5:em"), "gs", servers, tmp_path)
    servers.gcs.unlisted.add("conformance")
    try:
        with pytest.raises(AccessDeniedError, match="of objects that are not there"):
            cell.plan()
        # what a bucket that is not listed holds whole can be read, though it refuses each probe
        made, voxels = whole.run(*whole.attempt())
    finally:
        servers.gcs.unlisted.clear()
    assert made.status == "complete", made.error
    np.testing.assert_array_equal(voxels, whole.truth)


# Zarr: chunks of the fill value may be left out, but then no data border on them
LEFT_OUT = {
    "zarr2": (cases_zarr2.surrounded, "bare|zarr2:", "bare/1/0/0"),
    "zarr3": (cases_zarr3.surrounded, "bare|zarr3:", "bare/c/1/0/0"),
}


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "not-listed"])
@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_chunk_that_was_lost_is_no_black(
    name: str, listed: bool, servers: Servers, tmp_path: Path
) -> None:
    write, inner, lost = LEFT_OUT[name]
    cell = Faulty(Case(f"lost-{name}-{listed}", write, inner), "http", servers, tmp_path)
    if not listed:
        servers.control.add("status_403", "mirror", rf"{cell.case.name}.*/$")
    try:
        config, plan = cell.attempt()
        assert plan.source_grid is not None
        assert (plan.source_grid.absent, plan.source_grid.listed) == ("unwritten", listed)
        made, voxels = cell.run(config, plan)
        assert made.status == "complete", made.error
        np.testing.assert_array_equal(voxels, cell.truth)
        (servers.folder / f"{cell.case.name}-http" / lost).unlink()
        again = Faulty(cell.case, "http", servers, tmp_path / "again")
        made, _ = again.run(*again.attempt())
    finally:
        servers.control.clear()
    assert made.status == "failed"
    assert "of 27 chunks, and data border on 1/0/0" in made.error
    assert "--set max_missing_fraction=0." in made.error


def test_without_a_fill_value_nothing_may_be_absent(servers: Servers, tmp_path: Path) -> None:
    """What such a chunk holds is undefined, and tensorstore leaves none out then."""
    case = Case("no-fill-value", cases_zarr2.surrounded, "bare|zarr2:")
    cell = Faulty(case, "http", servers, tmp_path)
    document = servers.folder / f"{case.name}-http/bare/.zarray"
    document.write_text(document.read_text().replace('"fill_value": 0', '"fill_value": null'))
    made, _ = cell.run(*cell.attempt())
    assert made.status == "failed"
    assert "lacks 15 of 27 chunks" in made.error


@pytest.mark.parametrize("name", UNSTORED)
def test_a_volume_of_which_nothing_is_stored_fails(
    name: str, servers: Servers, tmp_path: Path
) -> None:
    """A placeholder scale, a wrong key, an upload that never was."""
    case, _ = UNSTORED[name]
    cell = Faulty(case, "http", servers, tmp_path)
    data = rf"{case.name}-http/(bare/\d|em/s0/)"
    servers.control.add("status_404", "mirror", data)
    try:
        made, _ = cell.run(*cell.attempt())
    finally:
        servers.control.clear()
    assert made.status == "failed"
    assert "holds none of the 27 chunks" in made.error


LISTED_SHORT = {
    "zarr2": (Case("short-zarr2", cases_zarr2.multiscale, "x.zarr|zarr2:em"), "s0/1/1"),
    "zarr3": (Case("short-zarr3", cases_zarr3.two_levels, "x.zarr"), "s0/c/0/0"),
    "n5": (Case("short-n5", cases_n5.pyramid, "x.n5"), "s0/1/1"),
    "precomputed": (Case("short-precomputed", partial(cases_precomputed.raw, "uint8"), "em"), ""),
}


@pytest.mark.parametrize("name", LISTED_SHORT)
def test_an_index_page_that_leaves_out_a_chunk_makes_no_hole(
    name: str, servers: Servers, tmp_path: Path
) -> None:
    """A mirror's page lacks a file that it answers: the chunk would be read as background."""
    case, folder = LISTED_SHORT[name]
    cell = Faulty(case, "http", servers, tmp_path)
    cell.settings["max_missing_fraction"] = 1.0
    place = servers.folder / f"{case.name}-http"
    chunk = next(
        path
        for path in sorted(place.rglob("*"))
        if path.is_file() and folder in path.parent.as_posix() and _is_chunk(path.name)
    )
    hidden = chunk.with_name(f".{chunk.name}")
    chunk.rename(hidden)  # not on the page while the plan is made
    config, plan = cell.attempt()
    hidden.rename(chunk)
    made, _ = cell.run(config, plan)
    assert made.status == "failed"
    assert "a chunk that the listing leaves out is there" in made.error


def _is_chunk(name: str) -> bool:
    return name.isdecimal() or name.count("_") == 2
