"""Descriptions for other machines, each checked by the validator of its own specification."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any, ClassVar

import mlcroissant
import numpy as np
import pytest
from rocrate_validator import models, services
from rocrate_validator.utils.http import HttpRequester

from emulators.volumes import make_recorded_volume, plan_of
from lib.plan import About
from lib.present.crate import address, crate_document, crate_key, encode
from lib.present.croissant import croissant_document
from lib.present.report import present
from lib.records.catalogue import consolidate
from lib.records.lifecycle import RecordDict
from lib.storage.open import open_store

_SCHEMA = "http://schema.org/"
# the terms of the RO-Crate 1.2 context that crates here may use; another one would not resolve
_TERMS = """
    CreateAction CreativeWork Dataset Organization Person PropertyValue ScholarlyArticle
    Taxon about author citation contentSize creditText datePublished description
    encodingFormat endTime hasPart identifier keywords license measurementTechnique
    mentions name object propertyID publisher result sha256 size unitText url value
    variableMeasured
"""
_CONTEXT = {term: _SCHEMA + term for term in _TERMS.split()} | {
    "File": _SCHEMA + "MediaObject",
    "conformsTo": "http://purl.org/dc/terms/conformsTo",
}


class _Answer:
    status_code = 200
    headers: ClassVar[dict[str, str]] = {"Content-Type": "application/ld+json"}
    text = json.dumps({"@context": _CONTEXT})
    content = text.encode()

    def json(self) -> dict[str, Any]:
        return {"@context": _CONTEXT}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The validator wants the context from the network; it gets it from here."""
    logging.getLogger("rocrate_validator").setLevel(logging.ERROR)

    def get(self: HttpRequester, url: str, **options: Any) -> _Answer:
        assert url == "https://w3id.org/ro/crate/1.2/context"
        return _Answer()

    monkeypatch.setattr(HttpRequester, "get", get, raising=False)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[RecordDict]:
    """Everything said of a volume, nothing said, and a volume that is not finished."""
    store = open_store(str(tmp_path_factory.mktemp("crates")))
    voxels = np.arange(4 * 6 * 8, dtype=np.uint8).reshape(4, 6, 8)
    rich = About(
        title='Cerebral organoid "A" <b>',
        description="FIB-SEM of an organoid",
        modality="FIB-SEM",
        organism="Homo sapiens",
        authors=("A. Author", "B. Author"),
        licence="CC0-1.0",
        doi="10.6019/EMPIAR-11759",
        release_date="2024-03-01",
    )
    voxel = (50.0, 10.0, 10.0)
    full = make_recorded_volume(store, voxels, plan_of(voxels, "ebi", "full", voxel, about=rich))
    bare = make_recorded_volume(
        store,
        voxels,
        plan_of(voxels, "epfl", "bare µm", voxel, about=About()),
        output_format="npy",
    )
    return [full, bare, {**full, "status": "failed", "name": "half"}]


def problems(document: dict[str, Any]) -> list[str]:
    settings = services.ValidationSettings(
        rocrate_uri=".",
        profile_identifier="ro-crate-1.2",
        requirement_severity=models.Severity.REQUIRED,
        packaging_mode="detached",
    )
    result = services.validate_metadata_as_dict(document, settings)
    return [str(issue.message) for issue in result.get_issues()]


@pytest.mark.parametrize("which", [0, pytest.param(1, marks=pytest.mark.long)])
def test_the_ro_crate_validator_accepts_every_crate(
    which: int, records: list[RecordDict], offline: None
) -> None:
    document = crate_document(records[which], "/data/of ours")
    assert problems(json.loads(encode(document))) == []


@pytest.mark.long
def test_the_validator_sees_what_a_crate_lacks(records: list[RecordDict], offline: None) -> None:
    document = crate_document(records[0], "/data")
    root = {key: document["@graph"][1][key] for key in ("@id", "@type", "name", "description")}
    small = {**document, "@graph": [document["@graph"][0], root]}  # small, because it takes long
    assert any("datePublished" in text for text in problems(small))


def test_a_crate_tells_licence_organism_modality_citation_voxel_size_and_digest(
    records: list[RecordDict],
) -> None:
    document = crate_document(records[0], "s3://bucket/data")
    by_id = {entity["@id"]: entity for entity in document["@graph"]}
    root = by_id[by_id["ro-crate-metadata.json"]["about"]["@id"]]
    assert root["@id"] == f"urn:uuid:{records[0]['id']}"
    assert root["license"]["@id"] == "https://spdx.org/licenses/CC0-1.0"
    assert by_id[root["about"]["@id"]]["name"] == "Homo sapiens"
    assert by_id[root["citation"]["@id"]]["@type"] == "ScholarlyArticle"
    assert "EMPIAR-11759" in root["creditText"]
    volume = by_id["s3://bucket/data/ebi/full.ome.zarr/"]
    assert volume["measurementTechnique"] == "FIB-SEM"
    sizes = [by_id[f"#voxel-size-{axis}"] for axis in "zyx"]
    assert [(s["value"], s["unitText"]) for s in sizes] == [
        (50.0, "nanometer"),
        (10.0, "nanometer"),
        (10.0, "nanometer"),
    ]
    sums = by_id["s3://bucket/data/ebi/full.ome.zarr.SHA256SUMS"]
    assert sums["sha256"] == records[0]["metadata"]["technical"]["sha256"]
    assert by_id["#conversion"]["result"]["@id"] == volume["@id"]


def test_a_licence_that_nobody_states_is_not_invented(records: list[RecordDict]) -> None:
    graph = crate_document(records[1], "/data")["@graph"]
    licences = {entity["license"]["@id"] for entity in graph if "license" in entity}
    assert licences == {"#licence-not-stated"}
    assert croissant_document(records[1:], "/data", date="2026-11-21")["license"] == "not stated"
    mixed = croissant_document(records, "/data", date="2026-11-21")["license"]
    assert mixed == ["https://spdx.org/licenses/CC0-1.0", "not stated for some volumes"]


def test_a_crate_lies_beside_its_volume_and_is_the_same_every_time(
    records: list[RecordDict],
) -> None:
    assert crate_key("ebi/full.ome.zarr") == "ebi/full-ro-crate-metadata.json"
    twice = {encode(crate_document(records[0], "/data")) for _ in range(2)}
    assert len(twice) == 1
    assert address("/a b", "c d") == "file:///a%20b/c%20d"


def test_a_run_with_nothing_to_do_writes_no_crate_anew(tmp_path: Path) -> None:
    data, metadata = open_store(str(tmp_path / "data")), open_store(str(tmp_path / "metadata"))
    voxels = np.ones((4, 16, 16), np.uint8)
    record = make_recorded_volume(data, voxels, plan_of(voxels, "ebi", "one", (8.0, 8.0, 8.0)))
    key = crate_key(record["files"]["volume"])
    moments = []
    for _ in range(2):
        present(data, metadata, consolidate(data, metadata))
        moments.append((tmp_path / "data" / key).stat().st_ino)  # a file that is put is a new one
    assert moments[0] == moments[1]
    data.put(key, b"{}")
    present(data, metadata, consolidate(data, metadata))
    assert json.loads(data.get(key)) != {}


def test_croissants_own_library_reads_the_index(
    records: list[RecordDict], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    document = croissant_document(records, "s3://bucket/data", date="2026-11-21")
    path = tmp_path / "croissant.json"
    path.write_bytes(encode(document))
    dataset = mlcroissant.Dataset(jsonld=path)
    assert dataset.metadata.issues.report() == ""
    assert not caplog.records
    rows = {row["volumes/path"]: row for row in dataset.records("volumes")}
    assert list(rows) == ["ebi/full.ome.zarr", "epfl/bare µm.npy"]  # not the failed one
    row = rows["ebi/full.ome.zarr"]
    assert [row[f"volumes/voxels_{axis}"] for axis in "zyx"] == [4, 6, 8]
    assert [row[f"volumes/voxel_nm_{axis}"] for axis in "zyx"] == [50.0, 10.0, 10.0]
    assert row["volumes/sha256"] == records[0]["metadata"]["technical"]["sha256"]
    files = {entry["@type"]: entry for entry in document["distribution"]}
    assert files["cr:FileSet"]["includes"] == "ebi/full.ome.zarr/**"
    npy = next(e for e in document["distribution"] if e["encodingFormat"] == "application/x-npy")
    assert npy["contentUrl"] == "s3://bucket/data/epfl/bare%20%C2%B5m.npy"
    assert re.fullmatch(r"[\w.-]+", npy["@id"], re.ASCII)


def test_an_empty_store_has_an_index_too() -> None:
    document = croissant_document([], "/data", date="2026-11-21")
    assert document["distribution"] == []
    assert "recordSet" not in document
