"""A field is shown wherever its mark says so, without another line anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest

import tasks.artifacts
from emulators.volumes import make_recorded_volume, plan_of
from lib.plan import About
from lib.present.crate import crate_document
from lib.present.croissant import croissant_document
from lib.present.report import report_html
from lib.present.rows import rows, value_text
from lib.records.fields import Form, Lengths
from lib.records.lifecycle import RecordDict
from lib.records.manager import utc_now
from lib.records.model import Record, record_fields
from lib.storage.open import open_store

SHOWN = [field for field in record_fields() if field.shown is not None]


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> RecordDict:
    """A complete record in which most fields have a value."""
    store = open_store(str(tmp_path_factory.mktemp("rows")))
    voxels = np.arange(4 * 6 * 8, dtype=np.uint8).reshape(4, 6, 8)
    about = About(
        title="Organoid",
        modality="FIB-SEM",
        organism="Homo sapiens",
        specimen="brain | cortex",
        authors=("A. Author", "B. Author"),
        licence="CC0-1.0",
        doi="10.6019/EMPIAR-11759",
        imaging_date="2018",
        release_date="2024-03-01",
    )
    plan = plan_of(voxels, "ebi", "full", (50.0, 10.0, 10.0), about=about)
    return make_recorded_volume(store, voxels, plan, seconds=12.5)


def test_a_length_that_nobody_states_is_shown_nowhere_as_a_measurement(
    document: RecordDict,
) -> None:
    changed = json.loads(json.dumps(document))
    changed["metadata"]["core"]["voxel_size_nm"]["z"] = 1.0
    changed["metadata"]["provenance"]["stated"] = {"voxel_size_nm.z": {"source": "assumed"}}
    read = Record.read(changed)
    assert {row.text for row in rows(read, "card") if row.label == "Voxel size"} == {
        "? × 10 × 10 nm"
    }
    crate = json.dumps(crate_document(changed, base_uri="data"))
    assert "? x 10 x 10 nm each" in crate
    assert "#voxel-size-y" in crate and "#voxel-size-z" not in crate
    assert "#voxel-size-z" in json.dumps(crate_document(document, base_uri="data"))


def test_the_report_shows_every_field_that_is_marked_for_it(document: RecordDict) -> None:
    catalog = {"records": [{"path": "p", "record": document}]}
    page = report_html(catalog, {"results": []}, pictures={}, now=utc_now()).decode()
    read = Record.read(document)
    found = rows(read, "card") + rows(read, "details")
    assert {"Voxel size", "Specimen", "Licence", "Completeness", "SHA-256"} <= {
        row.label for row in found
    }
    for row in found:
        assert f"<dt>{row.label}</dt>" in page
        assert row.text in page


def test_the_artifact_shows_every_field_that_is_marked_for_it(
    document: RecordDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}
    context = SimpleNamespace(store=SimpleNamespace(uri="/data"))
    monkeypatch.setattr(tasks.artifacts, "volume_context", lambda request: context)
    monkeypatch.setattr(tasks.artifacts, "stored_picture", lambda *given: None)
    monkeypatch.setattr(
        tasks.artifacts,
        "create_markdown_artifact",
        lambda text, **more: told.update(text=text, **more),
    )
    request: Any = None
    tasks.artifacts.show_record(request, document)
    for row in rows(Record.read(document), "artifact"):
        assert f"| **{row.label}** | " in told["text"]
    assert "| **Specimen** | brain \\| cortex |" in told["text"], "one cell, whatever it says"
    assert "| **Stored at** | `/data/ebi/full.ome.zarr` |" in told["text"]
    assert "4 × 6 × 8, uint8, 50 × 10 × 10 nm" in told["description"]


def test_crate_and_index_have_every_field_that_is_marked_for_them(document: RecordDict) -> None:
    graph = crate_document(document, "/data")["@graph"]
    (volume,) = (one for one in graph if one["@id"].endswith("full.ome.zarr/"))
    measured = {one["name"] for one in graph if one["@type"] == "PropertyValue"}
    (table,) = croissant_document([document], "/data", date="2026-11-21")["recordSet"]
    columns = {column["name"] for column in table["field"]}
    assert set(table["data"][0]) == {f"volumes/{name}" for name in columns}
    for field in SHOWN:
        shown, value = field.shown, field.of(Record.read(document))
        assert shown is not None
        if shown.crate == "property" and value is not None:
            assert {shown.label, f"{shown.label} z"} & measured
        elif shown.crate and value is not None:
            assert volume[shown.crate] == str(value)
        if shown.column:
            assert {shown.column, f"{shown.column}_z"} & columns


def test_a_record_that_says_nothing_has_no_empty_rows() -> None:
    read = Record.read({"source": "ebi", "source_id": "EMPIAR-1"})
    assert [(row.label, row.text) for row in rows(read, "card")] == [("Licence", "none stated")]
    assert [row.text for row in rows(read, "details")] == ["EMPIAR-1"]


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        ("text", "words", "words"),
        ("shape", (24, 400, 400), "24 × 400 × 400"),
        ("lengths", Lengths(x=8, y=8, z=50), "50 × 8 × 8 nm"),
        ("nm", 12.5, "12.5 nm"),
        ("bytes", 4_567_890, "4.57 MB"),
        ("share", 0.0, "0 %"),
        ("duration", 185, "3 min 5 s"),
        ("count", 0, ""),
        ("count", 3, "3"),
        ("names", [*"abcdefg"], "a, b, c, d, e and 2 more"),
        ("sentences", ["One", "two"], "One; two"),
        ("licence", "CC0-1.0", "CC0-1.0"),
        ("doi", "10.1234/x", "10.1234/x"),
        ("address", "ftp://x/y", "ftp://x/y"),
        ("code", "ab", "ab"),
    ],
)
def test_values_read_as_their_form_says(form: Form, value: Any, text: str) -> None:
    assert value_text(value, form) == text
    assert value_text(None, form) == ""


def test_every_form_is_tried() -> None:
    mark = test_values_read_as_their_form_says.pytestmark[0]
    assert {given[0] for given in mark.args[1]} == set(get_args(Form))


def test_older_records_are_read_as_far_as_they_say_it() -> None:
    folder = Path(__file__).parents[2] / "fixtures" / "records_v2"
    top = Record.read(json.loads((folder / "openorganelle_top_level.json").read_text()))
    assert (top.shape_zyx, top.voxel_nm_zyx) == ((398, 1042, 1166), (2.96, 4.0, 4.0))
    assert top.core.description == "Mouse nucleus accumbens"
    assert top.core.imaging_start_date == "Mon Mar 09 2015"
    flat = Record.read(json.loads((folder / "ebi_bare_lists.json").read_text()))
    assert (flat.shape_zyx, flat.voxel_nm_zyx) == (None, None), "two axes are no volume"
    assert flat.files.volume == "data/ebi/section_17.npy"
    assert flat.quality.missing_chunks is None
