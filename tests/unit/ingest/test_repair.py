"""A repair that is killed between any two writes leaves a volume that is known to be damaged."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emulators.serving import Samples
from lib.config.errors import build
from lib.config.loaders import LOADER_CONFIGS
from lib.errors import IntegrityError, RecordError
from lib.ingest.context import VolumeRequest
from lib.ingest.repair.volume import Repair, note_damage, repair_volume
from lib.records.manager import MetadataManager
from lib.storage.base import StoreSettings
from lib.storage.local import LocalStore
from lib.verify.beside import is_intact
from lib.verify.volume import verify_store
from tests.faults.bench import Bench


class Killed(BaseException):
    """Nothing catches this, as nothing catches SIGKILL."""


class Fused(LocalStore):
    """A folder whose writer is killed at the n-th write, before or after it took effect."""

    def __init__(self, root: Path, writes: int = -1, *, after: bool = False) -> None:
        super().__init__(root, durable=False)
        self.left, self.after, self.dead = writes, after, False

    def put(self, key: str, data: Any, **how: Any) -> None:
        if self.dead:
            raise Killed
        self.left -= 1
        if self.left == -1 and not self.after:
            self.dead = True
            raise Killed
        super().put(key, data, **how)
        if self.left == -1:
            self.dead = True
            raise Killed


class Volume:
    """One finished volume of OpenOrganelle's, and the request that makes it."""

    def __init__(self, bench: Bench) -> None:
        ended = bench.run()
        assert ended.complete, ended.errors
        self.folder = Path(bench.uri)
        (self.plan,) = ended.plans
        self.config = build(LOADER_CONFIGS[bench.source], bench.settings)
        self.name = f"{self.plan.source}/{self.plan.name}"
        self.record_key = f"{self.plan.source}/metadata_{self.plan.name}.json"
        self.key = f"{self.name}.ome.zarr"

    def request(self, folder: Path) -> VolumeRequest:
        uri, settings = str(folder / "data"), StoreSettings(durable=False)
        return VolumeRequest(self.plan, self.config, uri, settings, folder / "scratch", "a test")


@pytest.fixture(scope="module")
def volume(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> Volume:
    return Volume(Bench(samples, tmp_path_factory.mktemp("made"), "openorganelle"))


@pytest.fixture
def folder(volume: Volume, tmp_path: Path) -> Path:
    shutil.copytree(volume.folder, tmp_path / "data")
    return tmp_path


def tree(folder: Path) -> dict[str, str]:
    """Everything but records."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("metadata_")
    }


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x80
    path.write_bytes(data)


def damage(volume: Volume, folder: Path) -> set[str]:
    """A shard of each level, a document and the preview."""
    names = {f"{volume.key}/0/c/0/0/1", f"{volume.key}/1/c/0/1/1", f"{volume.key}/1/zarr.json"}
    names.add(f"{volume.name}.preview.png")
    for name in names:
        flip(folder / "data" / name)
    return names


def repair(volume: Volume, folder: Path, store: LocalStore) -> Repair:
    return repair_volume(
        store,
        volume.record_key,
        lambda: volume.request(folder),
        by="a test",
        volume_key=volume.name,
    )


def record_of(volume: Volume, folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "data" / volume.record_key).read_text()))


def is_noticed(volume: Volume, folder: Path) -> bool:
    """Whether a quick verify and a run both see that something is wrong."""
    store = LocalStore(folder / "data", durable=False)
    (quick,) = verify_store(store, digests=False)
    try:
        is_intact(store, record_of(volume, folder))
    except IntegrityError:
        return bool(quick.problems)
    return False


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("writes", range(7))
def test_a_repair_that_is_killed_is_noticed_and_gone_on_with(
    volume: Volume, folder: Path, writes: int, after: bool
) -> None:
    before = tree(folder / "data")
    damage(volume, folder)
    damaged = tree(folder / "data")
    store = Fused(folder / "data", writes, after=after)
    killed = True
    try:
        repair(volume, folder, store)
        killed = False
    except Killed:
        pass
    assert killed == (writes < 6), "a note, four files, the history"
    now = {key: value for key, value in tree(folder / "data").items() if ".partial" not in key}
    untouched, whole = now == damaged, now == before
    assert record_of(volume, folder)["status"] == "complete"
    if not whole:
        assert is_noticed(volume, folder) or (untouched and writes == 0)
    ended = repair(volume, folder, LocalStore(folder / "data", durable=False))
    assert ended.problems == ()
    assert tree(folder / "data") == before
    assert not is_noticed(volume, folder)
    assert not list((folder / "data").rglob(".partial"))


def test_the_record_tells_what_was_damaged_until_all_of_it_is_right(
    volume: Volume, folder: Path
) -> None:
    names = damage(volume, folder)
    with pytest.raises(Killed):
        repair(volume, folder, Fused(folder / "data", 3))
    record = record_of(volume, folder)
    assert set(record["metadata"]["quality"]["damaged"]) == names
    assert "repairs" not in record["metadata"]["provenance"]
    repair(volume, folder, LocalStore(folder / "data", durable=False))
    record = record_of(volume, folder)
    assert record["metadata"]["quality"]["damaged"] == []
    (told,) = record["metadata"]["provenance"]["repairs"]
    assert set(told["files"]) <= names and told["by"] == "a test"


def test_the_rest_of_the_record_stays_as_it_was(volume: Volume, folder: Path) -> None:
    before = record_of(volume, folder)
    damage(volume, folder)
    repair(volume, folder, LocalStore(folder / "data", durable=False))
    after = record_of(volume, folder)
    (told,) = after["metadata"]["provenance"].pop("repairs")
    assert told["files"] == {
        f"{volume.key}/0/c/0/0/1": "source",
        f"{volume.key}/1/c/0/1/1": "finer level",
        f"{volume.key}/1/zarr.json": "record",
        f"{volume.name}.preview.png": "volume",
    }
    before["updated_at"] = after["updated_at"]
    assert after == before


def test_a_second_repair_is_a_second_line_of_history(volume: Volume, folder: Path) -> None:
    for name in (f"{volume.key}/1/c/0/0/0", f"{volume.key}/1/c/0/0/1"):
        flip(folder / "data" / name)
        repair(volume, folder, LocalStore(folder / "data", durable=False))
    repairs = record_of(volume, folder)["metadata"]["provenance"]["repairs"]
    assert [[*one["files"]] for one in repairs] == [
        [f"{volume.key}/1/c/0/0/0"],
        [f"{volume.key}/1/c/0/0/1"],
    ]


def test_a_store_that_gives_other_bytes_than_it_was_given_is_named(
    volume: Volume, folder: Path
) -> None:
    class Rotten(LocalStore):
        def put(self, key: str, data: Any, **how: Any) -> None:
            super().put(key, data, **how)
            if "/c/" in key:
                flip(Path(self.root, key))

    flip(folder / "data" / volume.key / "1/c/0/0/0")
    with pytest.raises(IntegrityError, match="reads otherwise"):
        repair(volume, folder, Rotten(folder / "data", durable=False))
    assert is_noticed(volume, folder)


def invert_codec(record: dict[str, Any]) -> None:
    record["additional_metadata"]["fingerprint"] = "0" * 64


def test_settings_that_make_another_volume_are_refused(volume: Volume, folder: Path) -> None:
    key = volume.key + "/0/c/0/0/0"
    flip(folder / "data" / key)
    path = folder / "data" / volume.record_key
    record = record_of(volume, folder)
    invert_codec(record)
    path.write_text(json.dumps(record))
    damaged = tree(folder / "data")
    with pytest.raises(IntegrityError, match="make another volume"):
        repair(volume, folder, LocalStore(folder / "data", durable=False))
    assert tree(folder / "data") == damaged


def test_what_was_found_is_noted_once(volume: Volume, folder: Path) -> None:
    store = LocalStore(folder / "data", durable=False)
    first = note_damage(store, volume.record_key, ["b", "a"])
    assert first["metadata"]["quality"]["damaged"] == ["a", "b"]
    assert note_damage(store, volume.record_key, ["a", "b"]) == first


@pytest.mark.parametrize("status", ["pending", "processing", "saving-data"])
def test_only_a_finished_record_is_amended(volume: Volume, folder: Path, status: str) -> None:
    manager = MetadataManager(LocalStore(folder / "data", durable=False))
    record = manager.load(volume.record_key)
    steps: list[Callable[[Any], Any]] = [
        lambda r: manager.move(r, "pending"),
        lambda r: manager.move(r, "processing"),
        lambda r: manager.move(r, "saving-data"),
    ]
    for step in steps:
        record = step(record)
        if record["status"] == status:
            break
    with pytest.raises(RecordError, match="moves on"):
        manager.amend(record, quality={"damaged": []})


@pytest.mark.parametrize("key", ["volume", "sums"])
def test_a_record_that_leads_out_of_the_store_does_not_block_its_volume(
    samples: Samples, volume: Volume, folder: Path, key: str
) -> None:
    """As after an edit by hand: the volume is made anew, and the record is right again."""
    before = record_of(volume, folder)
    files = {**before["files"], key: f"../{before['files'][key]}"}
    path = folder / "data" / volume.record_key
    path.write_text(json.dumps({**before, "files": files}))
    ended = Bench(samples, folder, "openorganelle").run()
    assert ended.complete, ended.errors
    assert record_of(volume, folder)["files"] == before["files"]
