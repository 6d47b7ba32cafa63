"""Each field of a record that can be proven is refuted by a change of exactly that."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from emulators.s3 import S3Server
from emulators.serving import Samples
from lib.archives.registry import archive
from lib.ingest.context import VolumeRequest
from lib.ingest.life import make_volume
from lib.ingest.stages import plan_source
from lib.records.manager import schema
from lib.storage.base import StoreSettings
from lib.storage.local import LocalStore
from lib.verify.findings import PROOFS
from lib.verify.volume import Verdict, verify_store
from tests.archives import test_crop_sets as crop_sets
from tests.faults.bench import Bench

Damage = Callable[[Path], None]
MADE: dict[str, dict[str, Any]] = {
    "zarr": {"source": "idr"},
    "npy": {"source": "idr", "output_format": "npy"},
    "labels": {"source": "idr", "kind": "labels"},
    "group": {
        "source": "openorganelle",
        "dataset_id": "cells",
        "zarr_path": crop_sets.CROP,
        "with_em": True,
    },
    "holes": {
        "source": "openorganelle",
        "dataset_id": "jrc_sample-holes",
        "zarr_path": "recon-1/em",
        "scale_level": "s0",
        "max_missing_fraction": 0.5,
    },
}


@pytest.fixture(scope="module")
def stores(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished volume of each kind."""
    found = {}
    with S3Server("facts") as crops:
        crop_sets.lay_data_set(crops, tmp_path_factory.mktemp("crops"))
        place = {"s3_uri": f"s3://{crops.bucket}", "s3_endpoint_url": crops.endpoint_url}
        for name, settings in MADE.items():
            folder = tmp_path_factory.mktemp(name)
            where = place if name == "group" else {}
            ended = Bench(samples, folder, **settings, **where).run()
            assert ended.complete, ended.errors
            found[name] = folder / "data"
    with_checksum(found["zarr"])
    found["many"] = many_ids(tmp_path_factory.mktemp("many"))
    return found


def many_ids(folder: Path) -> Path:
    """Labels of more ids than are counted."""
    ids = folder / "ids.tif"
    tifffile.imwrite(ids, np.arange(9 * 360 * 360, dtype=np.uint32).reshape(9, 360, 360))
    chosen = {"addresses": [str(ids)], "kind": "labels", "output_format": "npy"}
    config = archive("address").config_model(**chosen)
    (plan,) = plan_source("address", config, folder / "scratch").plans
    data = str(folder / "data")
    request = VolumeRequest(plan, config, data, StoreSettings(), folder / "scratch", "a test")
    assert make_volume(request, "a test").status == "complete"
    return folder / "data"


def with_checksum(folder: Path) -> None:
    """As if the publisher had given a checksum of its file."""
    (raw,) = folder.glob("idr/downloads/*/*.tif")
    md5 = hashlib.md5(raw.read_bytes()).hexdigest()

    def change(record: Any) -> None:
        (file,) = record["metadata"]["provenance"]["source_files"]
        file["publisher_checksum"] = f"md5:{md5}"

    edit(change)(folder)


def one(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(f"*/{pattern}")
    return path


def verdict(folder: Path, *, digests: bool = True) -> Verdict:
    (found,) = verify_store(LocalStore(folder), digests=digests)
    return found


# --- damages ----------------------------------------------------------------------------------


def edit(change: Callable[[Any], None], pattern: str = "metadata_*.json") -> Damage:
    def damage(folder: Path) -> None:
        path = one(folder, pattern)
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    return damage


def put(dotted: str, value: Any) -> Damage:
    """Give a field of the record another value; ``[]`` is the first of a list."""

    def change(record: Any) -> None:
        *where, last = dotted.replace("[]", ".0").split(".")
        for part in where:
            record = record[int(part) if part.isdigit() else part]
        assert record[last] != value
        record[last] = value

    return edit(change)


def core(name: str, value: Any) -> Damage:
    return put(f"metadata.core.{name}", value)


def technical(name: str, value: Any) -> Damage:
    return put(f"metadata.technical.{name}", value)


def flip(pattern: str) -> Damage:
    def damage(folder: Path) -> None:
        path = one(folder, pattern)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    return damage


def remove(pattern: str) -> Damage:
    return lambda folder: one(folder, pattern).unlink()


def both(*damages: Damage) -> Damage:
    def damage(folder: Path) -> None:
        for each in damages:
            each(folder)

    return damage


def forget_the_holes(record: Any) -> None:
    """A record that says nothing is missing, where a chunk of the archive was."""
    record["metadata"]["quality"] |= {
        "missing_chunks": [],
        "missing_chunks_total": 0,
        "completeness_score": 1.0,
    }


def move_record(folder: Path) -> None:
    path = one(folder, "metadata_*.json")
    path.rename(path.with_name("metadata_other.json"))


def drop_a_level(record: Any) -> None:
    record["metadata"]["technical"]["levels"].pop()


ZYX = {"z": 1.0, "y": 2.0, "x": 3.0}
DAMAGES: dict[str, tuple[str, Damage]] = {
    "id": ("zarr", put("id", "00000000-0000-5000-8000-000000000000")),
    "schema_version": ("zarr", put("schema_version", "3.7")),
    "source": ("zarr", put("source", "epfl")),
    "source_id": ("zarr", put("source_id", "another")),
    "name": ("zarr", put("name", "another")),
    "status": ("zarr", put("status", "finished")),
    "progress": ("zarr", put("progress", {"percentage": 99, "current_step": None})),
    "error": ("zarr", put("error", {"type": "X", "message": "y"})),
    "core.volume_shape": ("zarr", core("volume_shape", [1, 2, 3])),
    "core.voxel_size_nm": ("zarr", core("voxel_size_nm", ZYX)),
    "core.data_type": ("zarr", core("data_type", "int8")),
    "core.kind": ("zarr", core("kind", "labels")),
    "technical.format": ("zarr", technical("format", "npy")),
    "technical.file_size_bytes": ("zarr", technical("file_size_bytes", 7)),
    "technical.sha256": ("zarr", technical("sha256", "0" * 64)),
    "technical.compression": ("zarr", technical("compression", "blosc")),
    "technical.compression_level": ("zarr", technical("compression_level", 9)),
    "technical.chunk_size": ("zarr", technical("chunk_size", [1, 2, 3])),
    "technical.shard": ("zarr", technical("shard", [1, 2, 3])),
    "technical.global_mean": ("zarr", technical("global_mean", 12.5)),
    "technical.global_min": ("zarr", technical("global_min", -5)),
    "technical.global_max": ("zarr", technical("global_max", -5)),
    "technical.histogram": (
        "zarr",
        technical("histogram", {"counts": [1, 2], "first": 0.0, "bin_width": 1.0}),
    ),
    "technical.labels.ties": ("labels", technical("labels.ties", "largest")),
    "technical.labels.yielding": ("labels", technical("labels.yielding", [7])),
    "technical.labels.ids": ("labels", technical("labels.ids", 1)),
    "technical.labels.largest": ("labels", technical("labels.largest", 1)),
    "technical.labels.background_fraction": ("labels", technical("labels.background_fraction", 1)),
    "technical.labels.ids_of_levels": ("labels", technical("labels.ids_of_levels", [1, 1])),
    "technical.labels.ids_above": ("many", technical("labels.ids_above", 7)),
    "technical.labels.values": ("labels", technical("labels.values", [0, 1])),
    "technical.label_images": ("group", technical("label_images", ["another"])),
    "members[].name": ("group", put("members[].name", "another")),
    "members[].metadata": ("group", put("members[].metadata.technical.global_max", 1)),
    "members[].files": ("group", remove("*.ome.zarr/labels/*.nuc.ome.zarr/0/c/0/0/0")),
    "technical.dimensions_nm": ("zarr", technical("dimensions_nm", ZYX)),
    "technical.axes": ("zarr", technical("axes", ["x", "y", "z"])),
    "technical.translation": ("zarr", technical("translation", ZYX)),
    "technical.levels": ("npy", technical("levels", [{"path": "0", "shape": [1, 2, 3]}])),
    "technical.levels[].path": ("zarr", edit(drop_a_level)),
    "technical.levels[].shape": ("zarr", technical("levels[].shape", [1, 2, 3])),
    "technical.levels[].chunk_size": ("zarr", technical("levels[].chunk_size", [1, 2, 3])),
    "technical.levels[].shard": ("zarr", technical("levels[].shard", [1, 2, 3])),
    "technical.levels[].scale_nm": ("zarr", technical("levels[].scale_nm", ZYX)),
    "technical.levels[].translation_nm": ("zarr", technical("levels[].translation_nm", ZYX)),
    "provenance.source_files[].key": (
        "zarr",
        put("metadata.provenance.source_files[].key", "idr/downloads/x/y"),
    ),
    "provenance.source_files[].size": (
        "zarr",
        put("metadata.provenance.source_files[].size", 12345),
    ),
    "provenance.source_files[].sha256": (
        "zarr",
        put("metadata.provenance.source_files[].sha256", "0" * 64),
    ),
    "provenance.source_files[].publisher_checksum": (
        "zarr",
        put("metadata.provenance.source_files[].publisher_checksum", f"md5:{'0' * 32}"),
    ),
    "quality.completeness_score": ("zarr", put("metadata.quality.completeness_score", 0.5)),
    "quality.missing_chunks": ("holes", put("metadata.quality.missing_chunks", [])),
    "quality.missing_chunks_total": ("holes", edit(forget_the_holes)),
    "quality.damaged": ("zarr", put("metadata.quality.damaged", ["idr/x.ome.zarr/0/c/0/0/0"])),
    "files.volume": ("zarr", remove("*.ome.zarr/1/c/0/0/0")),
    "files.record": ("zarr", put("files.record", "idr/metadata_other.json")),
    "files.preview": ("zarr", remove("*.preview.png")),
    "files.preview_sha256": ("zarr", flip("*.preview.png")),
    "files.sums": ("zarr", flip("*.ome.zarr/1/c/0/0/0")),
    "files.raw": ("zarr", remove("downloads/*/*.tif")),
}


def test_every_proof_has_a_damage() -> None:
    assert set(DAMAGES) == {name for name, proof in PROOFS.items() if proof.how}


@pytest.mark.parametrize("fact", DAMAGES)
def test_a_change_of_a_field_is_found(stores: dict[str, Path], tmp_path: Path, fact: str) -> None:
    made, damage = DAMAGES[fact]
    before = verdict(stores[made])
    assert before.problems == ()
    assert fact in before.facts.proven or fact == "error", "which is null where all is well"
    folder = shutil.copytree(stores[made], tmp_path / "data")
    damage(folder)
    after = verdict(folder)
    assert after.problems
    assert fact not in after.facts.proven


# --- other damage -----------------------------------------------------------------------------


def relabel(folder: Path) -> None:
    """Change a document, and the list and record with it: only the other documents tell."""
    volume, sums = one(folder, "*.ome.zarr"), one(folder, "*.SHA256SUMS")
    path = volume / "zarr.json"
    document = json.loads(path.read_text())
    first = document["attributes"]["ome"]["multiscales"][0]["datasets"][0]
    first["coordinateTransformations"][0]["scale"] = [1.0, 1.0, 1.0]
    vouch(folder, path, json.dumps(document).encode(), sums)


def vouch(folder: Path, path: Path, data: bytes, sums: Path) -> None:
    grown = len(data) - path.stat().st_size
    old = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(data)
    sums.write_text(sums.read_text().replace(old, hashlib.sha256(data).hexdigest()))

    def change(record: Any) -> None:
        stated = record["metadata"]["technical"]
        stated["sha256"] = hashlib.sha256(sums.read_bytes()).hexdigest()
        stated["file_size_bytes"] += grown

    edit(change)(folder)


def drop_coarse_level(folder: Path) -> None:
    """The coarse level gone from disk, list and size, but not from the record."""
    volume, sums = one(folder, "*.ome.zarr"), one(folder, "*.SHA256SUMS")
    gone = sum(path.stat().st_size for path in volume.glob("1/**/*") if path.is_file())
    shutil.rmtree(volume / "1")
    kept = [line for line in sums.read_text().splitlines(True) if ".zarr/1/" not in line]
    sums.write_text("".join(kept))

    def change(record: Any) -> None:
        stated = record["metadata"]["technical"]
        stated["sha256"] = hashlib.sha256(sums.read_bytes()).hexdigest()
        stated["file_size_bytes"] -= gone

    edit(change)(folder)


def other_crate(folder: Path) -> None:
    volume = one(folder, "*.ome.zarr").name.removesuffix(".ome.zarr")
    text = json.dumps({"@graph": [{"@id": "urn:uuid:0"}]})
    (folder / "idr" / f"{volume}-ro-crate-metadata.json").write_text(text)


def broken_crate(folder: Path) -> None:
    volume = one(folder, "*.ome.zarr").name.removesuffix(".ome.zarr")
    (folder / "idr" / f"{volume}-ro-crate-metadata.json").write_text("{")


def stale_copy(folder: Path) -> None:
    """The consolidated metadata say something else than the level itself."""
    path = one(folder, "*.ome.zarr") / "zarr.json"
    document = json.loads(path.read_text())
    document["consolidated_metadata"]["metadata"]["1"]["fill_value"] = 7
    vouch(folder, path, json.dumps(document).encode(), one(folder, "*.SHA256SUMS"))


def unlisted_thumbnail(folder: Path) -> None:
    path = one(folder, "*.ome.zarr") / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["thumbnails"][0]["path"] = "thumbnails/other.jpg"
    vouch(folder, path, json.dumps(document).encode(), one(folder, "*.SHA256SUMS"))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (relabel, "voxel_size_nm is [1.0, 1.0, 1.0] in the OME metadata"),
        (drop_coarse_level, "holds levels ['0']"),
        (move_record, "the record lies at idr/metadata_other.json"),
        (other_crate, "describes another volume"),
        (broken_crate, "is no RO-Crate"),
        (stale_copy, "says something else of level 1"),
        (unlisted_thumbnail, "names a picture that is not listed"),
        (flip("*.ome.zarr/thumbnails/xy.jpg"), "thumbnails/xy.jpg are not those that were"),
        (remove("*.ome.zarr/thumbnails/xy.jpg"), "thumbnails/xy.jpg"),
    ],
)
def test_what_stands_beside_is_held_too(
    stores: dict[str, Path], tmp_path: Path, damage: Damage, says: str
) -> None:
    folder = shutil.copytree(stores["zarr"], tmp_path / "data")
    damage(folder)
    problems = verdict(folder).problems
    assert any(says in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("made", "damage", "fact"),
    [
        ("npy", core("volume_shape", [1, 2, 3]), "core.volume_shape"),
        ("npy", core("data_type", "int8"), "core.data_type"),
        ("npy", technical("compression", "zstd"), "technical.compression"),
        ("npy", technical("global_mean", 1.5), "technical.global_mean"),
        ("npy", technical("dimensions_nm", ZYX), "technical.dimensions_nm"),
        ("npy", flip("*.npy"), "technical.sha256"),
        ("npy", technical("sha256", "0" * 64), "technical.sha256"),
        ("holes", technical("global_max", 3), "technical.global_max"),
        ("holes", put("metadata.quality.missing_chunks_total", 2), "quality.missing_chunks_total"),
        (
            "holes",
            put("metadata.quality.completeness_score", 1.0),
            "quality.completeness_score",
        ),
    ],
)
def test_other_formats_and_volumes_with_holes_are_held_too(
    stores: dict[str, Path], tmp_path: Path, made: str, damage: Damage, fact: str
) -> None:
    assert fact in verdict(stores[made]).facts.proven
    folder = shutil.copytree(stores[made], tmp_path / "data")
    damage(folder)
    after = verdict(folder)
    assert after.problems and fact not in after.facts.proven


def test_listings_and_documents_are_read_without_reading_every_byte(
    stores: dict[str, Path],
) -> None:
    quick, deep = verdict(stores["zarr"], digests=False).facts, verdict(stores["zarr"]).facts
    assert set(quick.unread) == {name for name in deep.proven if PROOFS[name].deep} - {
        "technical.sha256"  # which is that of a list
    }
    assert set(quick.proven) | set(quick.unread) == set(deep.proven)
    assert quick.not_provable == deep.not_provable
    assert deep.unread == ()


@pytest.mark.parametrize("made", MADE)
def test_what_is_not_proven_says_why(stores: dict[str, Path], made: str) -> None:
    facts = verdict(stores[made]).facts
    assert facts.not_provable and all(facts.not_provable.values())
    if made == "npy":
        assert facts.not_provable["core.voxel_size_nm"] == PROOFS["core.voxel_size_nm"].why_not


def test_raw_files_that_were_not_kept_cannot_be_proven(samples: Samples, tmp_path: Path) -> None:
    ended = Bench(samples, tmp_path, "idr", keep_raw=False).run()
    assert ended.complete, ended.errors
    found = verdict(tmp_path / "data")
    assert found.problems == ()
    assert "not kept" in found.facts.not_provable["provenance.source_files[].sha256"]


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["metadata"]["technical"].pop("levels"),
        lambda record: record["metadata"]["technical"].pop("format"),
        lambda record: record["metadata"]["technical"].update(levels=[]),
        lambda record: record["metadata"]["technical"].update(chunk_size=None),
        lambda record: record["files"].update(volume="idr"),
        lambda record: record["files"].update(volume="../x"),
        lambda record: record["files"].update(raw=["../../x"]),
        lambda record: record["files"].update(preview="/etc/passwd"),
    ],
)
def test_a_record_of_no_known_form_is_a_problem_and_no_traceback(
    stores: dict[str, Path], tmp_path: Path, change: Callable[[Any], None]
) -> None:
    folder = shutil.copytree(stores["zarr"], tmp_path / "data")
    edit(change)(folder)
    list(verify_store(LocalStore(folder)))


# --- the table --------------------------------------------------------------------------------

#: Objects of the schema that are one fact: of lengths, of counts, of the form of a run.
ONE = {"progress", "error", "additional_metadata", "provenance.stated", "provenance.software"} | {
    "technical.histogram",
    "provenance.store_requests",
    "provenance.requests",
}


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """The definition that a node refers to, null beside it or not; else the node itself."""
    node = next(iter(node.get("anyOf", [])), node)
    found: dict[str, Any] = schema()["$defs"].get(node.get("$ref", "").rpartition("/")[2], node)
    return found


def fields(node: dict[str, Any], name: str = "") -> Iterator[str]:
    """Names of all fields that the schema has of a record, as the table has them."""
    node = resolved(node)
    short = name.removeprefix("metadata.")
    members = node.get("properties", {})
    items = resolved(node.get("items", {}))
    if short in ONE or set(members) == {"x", "y", "z"}:
        yield short
    elif members:
        for key, member in members.items():
            yield from fields(member, f"{name}.{key}" if name else key)
    elif "properties" in items:
        yield short
        yield from fields(items, f"{name}[]")
    else:
        yield short


def test_the_table_has_every_field_of_the_schema() -> None:
    assert set(PROOFS) == set(fields(schema()["$defs"]["Record"]))


def test_every_field_says_how_it_is_proven_or_why_not() -> None:
    for name, proof in PROOFS.items():
        assert proof.how or proof.why_not, name
        assert proof.why_not or not proof.deep, name
