"""A mirror's nodes disagree about a file; a volume of it is known all the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lib.ingest.describe import _fetched_file
from lib.ingest.naming import as_noted
from lib.plan import About, SourceFile, VolumePlan
from lib.transport.partial import Fetched

MONDAY, A_SECOND_LATER, TUESDAY = (
    "Mon, 01 Jan 2024 10:00:00 GMT",
    "Mon, 01 Jan 2024 10:00:01 GMT",
    "Tue, 02 Jan 2024 10:00:00 GMT",
)


def a_plan(*files: SourceFile) -> VolumePlan:
    return VolumePlan(
        source="epfl",
        source_id="a",
        name="a",
        shape_zyx=(4, 4, 4),
        dtype="uint8",
        voxel_nm_zyx=(5.0, 5.0, 5.0),
        voxel_size_provenance="file",
        reader={},
        files=files,
        about=About(),
        download_bytes=1,
        download_requests=1,
    )


def a_file(etag: str | None = '"a"', date: str | None = MONDAY, **more: Any) -> SourceFile:
    given = {"url": "https://x/a.tif", "name": "a.tif", "size": 7, **more}
    return SourceFile(etag=etag, last_modified=date, **given)


def a_record(*files: SourceFile) -> dict[str, Any]:
    listed = [
        {
            "name": file.name,
            "url": file.url,
            "size": file.size,
            "etag": file.etag,
            "last_modified": file.last_modified,
            "publisher_checksum": "publisher gives none",
        }
        for file in files
    ]
    return {"metadata": {"provenance": {"source_files": listed}}}


@pytest.mark.parametrize(
    ("etag", "date"),
    [('"b"', MONDAY), ('"b"', A_SECOND_LATER), ('"a"', TUESDAY), (None, A_SECOND_LATER)],
)
def test_what_may_be_another_nodes_word_gives_the_same_identity(
    etag: str | None, date: str | None
) -> None:
    before, now = a_plan(a_file()), a_plan(a_file(etag, date))
    assert now.identity() != before.identity()
    assert as_noted(now, a_record(a_file())).identity() == before.identity()


@pytest.mark.parametrize(
    "file",
    [
        a_file('"b"', TUESDAY),
        a_file('"b"', None),
        a_file(size=8),
        a_file('"b"', url="https://x/b.tif"),
    ],
)
def test_another_file_stays_another_one(file: SourceFile) -> None:
    plan = a_plan(file)
    assert as_noted(plan, a_record(a_file())) == plan


def test_all_files_have_to_fit() -> None:
    second = a_file('"c"', MONDAY, url="https://x/c.tif", name="c.tif")
    now = a_plan(a_file('"b"'), replace(second, size=8))
    assert as_noted(now, a_record(a_file(), second)) == now
    assert as_noted(now, a_record(a_file())) == now
    for damaged in ({}, {"metadata": {}}, {"metadata": {"provenance": {"source_files": [1, 2]}}}):
        assert as_noted(now, damaged) == now


def test_tags_of_stores_and_times_of_ftp_are_no_weak_facts() -> None:
    for url in ("s3://bucket/a", "ftp://host/a"):
        plan = a_plan(a_file('"b"', url=url))
        assert as_noted(plan, a_record(a_file(url=url))) == plan


@pytest.mark.parametrize("planned", [a_file(), a_file(None), a_file('"a"', None)])
@pytest.mark.parametrize("etag", [None, '"b"'])
def test_a_kept_file_that_came_another_way_leaves_the_identity_as_planned(
    planned: SourceFile, etag: str | None
) -> None:
    plan = a_plan(planned)
    ftp = Fetched(Path("a.tif"), 7, "0" * 64, etag, "2024-01-01T10:00:00Z")
    record = {"metadata": {"provenance": {"source_files": [_fetched_file(planned, ftp, None)]}}}
    assert as_noted(plan, record).identity() == plan.identity()
