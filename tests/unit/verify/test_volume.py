"""`macroscope verify` finds whatever was changed in a finished store, and says what it is."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emulators.serving import Samples
from lib.errors import NothingThereError
from lib.storage.local import LocalStore
from lib.verify.volume import NO_RECORD, Verdict, require_proof, verify_store
from tests.faults.bench import Bench

Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def finished(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Format -> a finished store of one volume of IDR's."""
    stores = {}
    for output_format in ("zarr", "npy"):
        folder = tmp_path_factory.mktemp(output_format)
        ended = Bench(samples, folder, "idr", output_format=output_format).run()
        assert ended.complete, ended.errors
        stores[output_format] = folder / "data"
    return stores


def verdict(folder: Path, *, digests: bool = True) -> Verdict:
    (one,) = verify_store(LocalStore(folder), digests=digests)
    return one


def only(folder: Path, pattern: str) -> Path:
    return sorted(folder.glob(f"idr/{pattern}"))[0]


def flip(pattern: str) -> Damage:
    """Change one bit in the middle of a file; its size stays."""

    def damage(folder: Path) -> None:
        path = only(folder, pattern)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    return damage


def cut(pattern: str) -> Damage:
    def damage(folder: Path) -> None:
        path = only(folder, pattern)
        path.write_bytes(path.read_bytes()[:-1])

    return damage


def remove(pattern: str) -> Damage:
    return lambda folder: only(folder, pattern).unlink()


def add(name: str) -> Damage:
    return lambda folder: (only(folder, "*.ome.zarr") / name).write_bytes(b"foreign")


def edit(pattern: str, change: Callable[[Any], None]) -> Damage:
    def damage(folder: Path) -> None:
        path = only(folder, pattern)
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    return damage


def drop_line(folder: Path) -> None:
    """A shard and its line both gone: the list agrees with itself, the grid does not."""
    sums = only(folder, "*.SHA256SUMS")
    lines = sums.read_text().splitlines(keepends=True)
    (shard,) = [line for line in lines if line.rstrip().endswith("/0/c/0/0/0")]
    sums.write_text("".join(line for line in lines if line != shard))
    only(folder, "*.ome.zarr/0/c/0/0/0").unlink()


def forget_a_shard(folder: Path) -> None:
    """The same, and the record vouches for the shorter list: only the grid tells."""
    drop_line(folder)
    sha256 = hashlib.sha256(only(folder, "*.SHA256SUMS").read_bytes()).hexdigest()
    change = {"sha256": sha256}
    edit("metadata_*.json", lambda d: d["metadata"]["technical"].update(change))(folder)


def test_a_finished_store_holds(finished: dict[str, Path]) -> None:
    for folder in finished.values():
        assert verdict(folder).status == "complete"
        assert verdict(folder).problems == ()
        assert verdict(folder, digests=False).problems == ()


@pytest.mark.parametrize(
    ("output_format", "damage", "says"),
    [
        ("zarr", flip("*.ome.zarr/0/c/0/0/0"), "are not those that were written"),
        ("zarr", flip("*.ome.zarr/1/c/0/0/0"), "are not those that were written"),
        ("zarr", flip("downloads/*/*.tif"), "are not those that were written"),
        ("zarr", cut("*.ome.zarr/0/c/0/0/0"), "0/c/0/0/0"),
        ("zarr", remove("*.ome.zarr/0/c/0/0/0"), "0/c/0/0/0"),
        ("zarr", remove("*.ome.zarr/zarr.json"), "zarr.json"),
        ("zarr", remove("*.SHA256SUMS"), "SHA256SUMS"),
        ("zarr", flip("*.SHA256SUMS"), "SHA256SUMS"),
        ("zarr", drop_line, "SHA256SUMS"),
        ("zarr", forget_a_shard, "1 of 1 shards of level 0 are not listed"),
        ("zarr", add("0/c/0/0/9"), "0/c/0/0/9"),
        ("zarr", remove("downloads/*/*.tif"), "is absent"),
        (
            "zarr",
            edit("*.ome.zarr/0/zarr.json", lambda d: d.update(shape=[1, 2, 3])),
            "the record",
        ),
        (
            "zarr",
            edit("*.ome.zarr/zarr.json", lambda d: d["attributes"]["ome"].pop("multiscales")),
            "OME metadata is not valid",
        ),
        ("zarr", edit("metadata_*.json", lambda d: d.pop("source_id")), "source_id"),
        ("zarr", edit("metadata_*.json", lambda d: d.update(status="done")), "done"),
        ("npy", flip("*.npy"), "are not those that were written"),
        ("npy", cut("*.npy"), ".npy"),
        ("npy", remove("*.npy"), ".npy"),
        (
            "npy",
            edit("metadata_*.json", lambda d: d["metadata"]["core"].update(data_type="int16")),
            "int16",
        ),
    ],
)
def test_every_change_is_found_and_named(
    finished: dict[str, Path], tmp_path: Path, output_format: str, damage: Damage, says: str
) -> None:
    folder = shutil.copytree(finished[output_format], tmp_path / "data")
    damage(folder)
    problems = verdict(folder).problems
    assert any(says in problem for problem in problems), problems


@pytest.mark.parametrize(
    "damage", [cut("*.ome.zarr/0/c/0/0/0"), remove("*.ome.zarr/0/c/0/0/0"), drop_line]
)
def test_a_hole_is_found_from_the_listing_alone(
    finished: dict[str, Path], tmp_path: Path, damage: Damage
) -> None:
    folder = shutil.copytree(finished["zarr"], tmp_path / "data")
    damage(folder)
    assert verdict(folder, digests=False).problems


@pytest.mark.parametrize("output_format", ["zarr", "npy"])
def test_a_volume_without_a_record_is_named(
    finished: dict[str, Path], tmp_path: Path, output_format: str
) -> None:
    folder = shutil.copytree(finished[output_format], tmp_path / "data")
    only(folder, "metadata_*.json").unlink()
    found = verdict(folder)
    assert found.status == NO_RECORD
    assert found.record_key.startswith("idr/")
    assert "has no record (idr/metadata_" in found.problems[0]


def test_a_volume_whose_record_is_not_complete_is_no_volume_without_one(
    finished: dict[str, Path], tmp_path: Path
) -> None:
    """A run to a bucket makes it under its final name."""
    folder = shutil.copytree(finished["zarr"], tmp_path / "data")
    change = {"status": "processing", "files": {"record": "x"}}
    edit("metadata_*.json", lambda d: d.update(change))(folder)
    assert [one.status for one in verify_store(LocalStore(folder))] == ["processing"]


def test_raw_files_are_neither_records_nor_volumes(
    finished: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(finished["zarr"], tmp_path / "data")
    for name in ("metadata_x.json", "x.npy", "x.zarr/zarr.json"):
        path = folder / "idr/downloads" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"?")
    assert [one.status for one in verify_store(LocalStore(folder))] == ["complete"]


@pytest.mark.parametrize("sources", [("idr",), ("idr", "ebi")])
def test_only_sources_that_were_asked_for_are_looked_at(
    finished: dict[str, Path], tmp_path: Path, sources: tuple[str, ...]
) -> None:
    folder = shutil.copytree(finished["zarr"], tmp_path / "data")
    shutil.copytree(folder / "idr", folder / "epfl")
    found = [*verify_store(LocalStore(folder), digests=False, sources=sources)]
    assert [one.record_key.partition("/")[0] for one in found] == ["idr"]
    if sources == ("idr",):
        require_proof(LocalStore(folder), found, sources)
    else:
        with pytest.raises(NothingThereError, match="nothing to prove of ebi") as caught:
            require_proof(LocalStore(folder), found, sources)
        assert caught.value.advice == "The store holds epfl, idr"


def test_a_record_that_is_no_json_is_told_and_stops_no_other(
    finished: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(finished["zarr"], tmp_path / "data")
    (folder / "idr" / "metadata_broken.json").write_text("{")
    verdicts = {one.status: one for one in verify_store(LocalStore(folder))}
    assert verdicts["unreadable"].problems
    assert verdicts["complete"].problems == ()
