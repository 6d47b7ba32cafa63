"""A section of a stack costs few bytes, so that 20,000 of them take as much memory as 500."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import ref

import pytest

from lib.about import About
from lib.ingest import describe
from lib.plan import SourceFile, VolumePlan
from lib.rawfiles.files import RawFiles
from lib.rawfiles.ranged import ArrivingFiles, PlannedSections
from lib.records import manager as managing
from lib.records.manager import MetadataManager
from lib.storage.local import LocalStore
from lib.transport.partial import Fetched, PartialFile

SECTIONS = 500
SHA256 = "0123456789abcdef" * 4


def plan_of(count: int) -> VolumePlan:
    """A stack whose texts are objects of their own, as those of a listing are."""
    files = tuple(
        SourceFile(
            url=f"https://ftp.ebi.ac.uk/empiar/world_availability/99001/data/slice_{n:05d}.tif",
            name=f"slice_{n:05d}.tif",
            size=1000 + n,
            last_modified=f"2020-01-01T{n // 3600:02d}:{n // 60 % 60:02d}:{n % 60:02d}Z",
        )
        for n in range(count)
    )
    return VolumePlan(
        source="ebi", source_id="EMPIAR-99001", name="x", shape_zyx=(count, 8, 8), dtype="uint8",
        voxel_nm_zyx=(1.0, 1.0, 1.0), voxel_size_provenance="file", files=files,
        reader={"places": [*range(count)], "first_z": 0, "depth": count},
        about=About(title="x"), download_bytes=0, download_requests=0,
    )  # fmt: skip


def grown(make: Callable[[], Any]) -> tuple[int, int, Any]:
    """Bytes that are held after a call, bytes at its peak, and what it made."""
    gc.collect()
    tracemalloc.start()
    try:
        made = make()
        peak = tracemalloc.get_traced_memory()[1]
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    return held, peak, made


def test_the_plan_of_a_section_is_small() -> None:
    held, _, plan = grown(lambda: plan_of(SECTIONS))
    assert held / len(plan.files) < 500


def test_files_that_came_are_held_by_their_names_alone(tmp_path: Path) -> None:
    plan = plan_of(SECTIONS)
    folder = tmp_path / "ebi/downloads/x"
    (folder / ".fetched").mkdir(parents=True)
    for file in plan.files:
        (folder / file.name).touch()

    def come() -> object:
        raw = RawFiles(LocalStore(tmp_path), "ebi", "x", keep=True, scratch_dir=tmp_path)
        arriving = ArrivingFiles(SECTIONS, lambda n: None, 2)
        sections = PlannedSections(plan, (8, 8), lambda n: pytest.fail("not read"))
        for number, file in enumerate(plan.files):
            arriving.wait_for(number)
            raw.remember(file, Fetched(raw.path(file), 0, SHA256))
        arriving.close()
        return raw, arriving, sections

    held, _, _ = grown(come)
    assert held / SECTIONS < 400


def test_a_record_of_many_files_checks_and_copies_them_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = plan_of(SECTIONS), LocalStore(tmp_path)
    clock = [0.0]
    manager = MetadataManager(store, clock=lambda: clock[0])
    record = manager.begin(
        "ebi", "EMPIAR-99001", "x", core=describe.core(plan), provenance=describe.provenance(plan)
    )
    checked: list[int] = []
    check, parse = managing.check_schema, managing.parse_json

    def counted(record: dict[str, Any], location: str) -> None:
        checked.append(len(record["metadata"]["provenance"]["source_files"]))
        check(record, location)

    monkeypatch.setattr(managing, "check_schema", counted)
    monkeypatch.setattr(managing, "parse_json", lambda *_: pytest.fail("what it wrote itself"))

    def go_on() -> dict[str, Any]:
        moved = manager.move(record, "processing")
        clock[0] += 10.0
        return manager.progress(moved, 50.0, "convert")

    held, peak, moved = grown(go_on)
    assert checked == [0, 0]
    assert held / SECTIONS < 100
    assert peak / SECTIONS < 4 * len(store.get("ebi/metadata_x.json")) / SECTIONS
    monkeypatch.setattr(managing, "parse_json", parse)
    stored = MetadataManager(store).load("ebi/metadata_x.json")
    assert stored == moved
    assert len(stored["metadata"]["provenance"]["source_files"]) == SECTIONS


def test_a_file_that_came_leaves_its_buffer_at_once(tmp_path: Path) -> None:
    gc.disable()  # which would find it too, some sections later
    try:
        part = PartialFile(tmp_path / "v", {"url": "u", "size": 3, "etag": None})
        with part:
            part.write(b"abc")
            part.finish(3)
        assert part.sha256.hexdigest().startswith("ba7816bf")
        gone = ref(part)
        del part
        assert gone() is None
    finally:
        gc.enable()
