"""Every entry of the stand-in, from its accession to voxels in the store: nothing is lost."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import zarr

from emulators.empiar_entries import HIDDEN, entries
from lib.archives.ebi.archive import EBI
from lib.archives.ebi.tree import EbiTree
from lib.errors import UnsupportedFormatError

NUMBERS = sorted(entries())


def voxel_of(plan: Any) -> tuple[float | None, ...]:
    return tuple(
        None if plan.stated[f"voxel_size_nm.{axis}"].source == "assumed" else nm
        for axis, nm in zip("zyx", plan.voxel_nm_zyx, strict=True)
    )


@pytest.mark.parametrize("number", NUMBERS)
def test_an_entry_becomes_its_volumes_voxel_by_voxel(number: str, bench: Any) -> None:
    entry, one = entries()[number], bench("ebi", entry_id=number)
    if not entry.volumes:
        with pytest.raises(UnsupportedFormatError, match="no volume"):
            one.plan()
        return
    plans = {plan.source_path.removeprefix(f"EMPIAR-{number}/"): plan for plan in one.plan()}
    assert plans.keys() == entry.volumes.keys()
    for path, volume in entry.volumes.items():
        plan = plans[path]
        assert (plan.kind, plan.shape_zyx) == (volume.kind, volume.voxels.shape), path
        assert voxel_of(plan) == pytest.approx(volume.voxel_nm_zyx), path
        assert plan.dtype == volume.voxels.dtype.name
        labels_of = plan.about.extra.get("labels_of", {}).get("volume")
        assert labels_of == (volume.labels_of and f"EMPIAR-{number}/{volume.labels_of}"), path
        record = one.complete_record(plan)
        made = zarr.open_array(f"{one.store.uri}/ebi/{plan.name}.ome.zarr/0", mode="r")[:]
        np.testing.assert_array_equal(np.asarray(made), volume.voxels)
        assert len(record["metadata"]["provenance"]["source_files"]) == len(plan.files)


@pytest.mark.parametrize("number", NUMBERS)
def test_what_makes_no_volume_is_shown_with_its_reason(number: str, bench: Any) -> None:
    entry, one = entries()[number], bench("ebi", entry_id=number)
    rows = EBI().listing(number, one.config, one.session)
    volumes = [row for row in rows if row.what == "volume" and row.loadable]
    assert len(volumes) == len(entry.volumes)
    for path, word in entry.left_out.items():
        folder = path.rpartition("/")[0]
        (row,) = (
            row
            for row in rows
            if row.address in (f"empiar:{number}/{path}", f"empiar:{number}/{folder}")
            and row.loadable is False
        )
        assert word in (row.why_not or "")
    assert any(row.loadable is False for row in rows) == bool(entry.left_out)
    # each builds as many images as its API says, in runs or beside labels: nothing is to be feared
    assert not any("the API says" in note and "images" in note for r in rows for note in r.notes)
    for row in volumes:
        assert row.notes[0].startswith(("data/", f"{row.shape_zyx[0]} files, data/"))
    for row in volumes[-1:]:  # what is shown can be asked for alone
        folder = row.address.partition("/")[2]
        assert row.name in {
            plan.name for plan in bench("ebi", entry_id=number, folder=folder).plan()
        }


@pytest.mark.parametrize("ask", ["listing_by", "folder", "metadata"])
def test_listings_and_headers_of_an_entry_are_asked_for_side_by_side(
    ask: str, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two protocols' listings, folders beside each other, and headers of several volumes."""
    asks, inside, met = getattr(EbiTree, ask), set[int](), threading.Event()

    def with_another(tree: EbiTree, *what: Any) -> Any:
        if ask == "folder" and what[0].count("/") < 6:  # the folders above, one in another
            return asks(tree, *what)
        inside.add(threading.get_ident())
        if len(inside) > 1:
            met.set()
        met.wait(60)
        inside.discard(threading.get_ident())
        return asks(tree, *what)

    monkeypatch.setattr(EbiTree, ask, with_another)
    assert len(bench("ebi", entry_id="10982").plan()) == 12
    assert met.is_set()


def test_a_page_that_lacks_a_file_is_completed(bench: Any, faults: Any) -> None:
    (name,) = (path.rpartition("/")[2] for path in HIDDEN)
    one = bench("ebi", entry_id="13192", folder="data/Stalker_SBF-SEM/Carotid2")
    plan = one.one_plan()
    others = [plan for plan in bench("ebi", entry_id="13192").plan() if "gallery" in plan.name]
    assert others and not any(name in note for plan in others for note in plan.notes)
    assert [file.name for file in plan.files].count(name) == 1
    assert any(f"{name} of" in note and "mirror's page" in note for note in plan.notes)
    one = bench("ebi", entry_id="13192", folder="data/Stalker_SBF-SEM/Carotid2", protocol="https")
    alone = one.one_plan()
    assert len(alone.files) == 8 and all(file.url.startswith("http") for file in alone.files)
    assert any("mirror's page" in note and name in note for note in alone.notes)
    faults.add("login_incorrect", "ftp")  # nobody else tells: the run of numbers does
    one = bench("ebi", entry_id="13192")
    vessel = next(plan for plan in one.plan() if "Carotid2" in plan.name)
    assert len(vessel.files) == 8
    assert any("no listing shows" in note and name in note for note in vessel.notes)


@pytest.mark.parametrize("number", ["10791", "11380", "12535"])
def test_a_box_brings_the_sections_that_it_needs(number: str, bench: Any) -> None:
    entry = entries()[number]
    one = bench("ebi", entry_id=number, box="z=1:4,y=3:20,x=5:25")
    for plan in one.plan():
        path = plan.source_path.removeprefix(f"EMPIAR-{number}/")
        expected = entry.volumes[path].voxels[1:4, 3:20, 5:25]
        np.testing.assert_array_equal(one.read(plan), expected)
        assert len(plan.files) == (3 if "#" in path else 1)


def test_rows_of_large_sections_come_by_ranges(
    bench: Any, monkeypatch: pytest.MonkeyPatch, faults: Any
) -> None:
    monkeypatch.setattr("lib.archives.ebi.reading.ROWS_BYTES", 1)
    entry = entries()["10310"]
    one = bench("ebi", entry_id="10310", box="z=2:9,y=4:20")
    plan = one.one_plan()
    (volume,) = entry.volumes.values()
    np.testing.assert_array_equal(one.read(plan), volume.voxels[2:9, 4:20])
    assert one.verify_source_unchanged(plan) == []
    assert one.downloads() == one.leftovers() == []


@pytest.mark.parametrize(("number", "box"), [("11380", None), ("11380", "z=2:5"), ("10982", None)])
def test_a_large_file_is_read_by_ranges_and_kept(
    bench: Any, monkeypatch: pytest.MonkeyPatch, number: str, box: str | None
) -> None:
    monkeypatch.setattr("lib.archives.ebi.reading.RANGED_BYTES", 1)
    entry = entries()[number]
    one = bench("ebi", entry_id=number, box=box)
    for plan in one.plan():
        volume = entry.volumes[plan.source_path.removeprefix(f"EMPIAR-{number}/")]
        wanted = volume.voxels[2:5] if box else volume.voxels
        np.testing.assert_array_equal(one.read(plan), wanted)
        kept = one.verify_source_unchanged(plan)
        assert [len(fetched.sha256) for fetched in kept] == ([] if box else [64])
