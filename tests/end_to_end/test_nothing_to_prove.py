"""A wrong address, an empty place or a lost record never looks like a store without a problem."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emulators.serving import Samples
from tests.end_to_end.bucket import Bucket
from tests.end_to_end.conftest import Command
from tests.faults.bench import Bench


@pytest.fixture(scope="module")
def finished(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with one volume of IDR's."""
    folder = tmp_path_factory.mktemp("finished")
    ended = Bench(samples, folder, "idr").run()
    assert ended.complete, ended.errors
    return folder / "data"


@pytest.fixture
def data(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "data")


def nothing(folder: Path) -> Path:
    return folder / "nowhere"


def empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def foreign(folder: Path) -> Path:
    place = empty(folder)
    (place / "notes.txt").write_text("x")
    return place


def a_file(folder: Path) -> Path:
    (folder / "file").write_text("x")
    return folder / "file"


PLACES: list[tuple[Callable[[Path], Path], str]] = [
    (nothing, "there is no such folder"),
    (empty, "holds no record and no volume"),
    (foreign, "neither a record"),
    (a_file, "this is a file"),
    (lambda folder: next((folder / "data").glob("idr/*.zarr")), "this is a volume"),
    (lambda folder: next((folder / "data").glob("idr/*.zarr")) / "0", "part of one"),
]


@pytest.mark.parametrize(("place", "says"), PLACES)
@pytest.mark.parametrize("more", [(), ("--quick",), ("--json",)])
def test_verify_of_nothing_fails_and_says_why(
    macroscope_here: Command,
    data: Path,
    tmp_path: Path,
    place: Callable[[Path], Path],
    says: str,
    more: tuple[str, ...],
) -> None:
    where = place(tmp_path)
    done = macroscope_here("verify", str(where), *more)
    assert done.returncode == 1
    assert "there is nothing to prove" in done.stderr and says in done.stderr
    assert str(where) in done.stderr


def test_verify_of_an_empty_prefix_and_of_a_bucket_that_is_not_there_fails(
    macroscope_here: Command, bucket: Bucket
) -> None:
    done = macroscope_here("verify", **bucket.environment())
    assert done.returncode == 1
    assert "there is nothing to prove: no object lies below this address" in done.stderr
    done = macroscope_here("verify", **bucket.environment(EM_DATA_DIR="s3://not-there/x"))
    assert done.returncode == 1 and "not-there" in done.stderr


def test_a_mistyped_source_is_not_a_store_without_problems(
    macroscope_here: Command, data: Path
) -> None:
    done = macroscope_here("verify", "--source", "idrr")
    assert done.returncode == 1
    assert "nothing to prove of idrr" in done.stderr and "The store holds idr" in done.stderr
    assert macroscope_here("verify", "--source", "idr").returncode == 0


def test_a_volume_whose_record_is_gone_is_named(macroscope_here: Command, data: Path) -> None:
    next(data.glob("idr/metadata_*.json")).unlink()
    volume = next(data.glob("idr/*.zarr")).name
    done = macroscope_here("verify")
    assert done.returncode == 1
    assert f"idr/{volume} has no record" in done.stdout
    assert "0 records, 1 volumes without one, 1 with problems" in done.stdout
    shown: dict[str, Any] = json.loads(macroscope_here("verify", "--json").stdout)
    (row,) = shown["records"]
    assert (row["status"], row["record"]) == ("no record", f"idr/{volume}")


@pytest.mark.parametrize("place", [nothing, empty])
def test_consolidate_writes_no_catalogue_of_nothing(
    macroscope_here: Command, tmp_path: Path, place: Callable[[Path], Path]
) -> None:
    where = place(tmp_path)
    done = macroscope_here("consolidate", EM_DATA_DIR=str(where))
    assert done.returncode == 1
    assert "there is nothing to catalogue" in done.stderr and str(where) in done.stderr
    assert not list(tmp_path.rglob("metadata_catalog_*"))


@pytest.mark.parametrize("place", [nothing, empty])
def test_view_of_nothing_says_why(
    macroscope_here: Command, tmp_path: Path, place: Callable[[Path], Path]
) -> None:
    where = place(tmp_path)
    done = macroscope_here("view", "--no-browser", EM_DATA_DIR=str(where))
    assert done.returncode == 1
    assert "there is nothing to view" in done.stderr and str(where) in done.stderr
