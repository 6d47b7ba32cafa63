"""Files and arrays that people would call alike are volumes of their own, each complete."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emulators.dm import write_dm
from emulators.mrc import write_mrc
from emulators.s3 import S3Server
from emulators.serving import Samples
from lib.archives.ebi.entry import parse_entry
from lib.archives.ebi.files import find_files
from lib.archives.selection import Selection
from lib.plan import SourceFile
from lib.safety import folded
from lib.transport.ftp import FtpEntry
from lib.verify.volume import verify_store
from tests.faults.bench import Bench

Voxels = NDArray[Any]


def volume(seed: int, shape: tuple[int, int, int] = (2, 5, 6)) -> Voxels:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def data(samples: Samples) -> Iterator[Path]:
    """The folder of entry 11759, empty, and as it was after the test."""
    folder = samples.root / "ftp/empiar/world_availability/11759/data"
    kept = folder.with_name("kept")
    folder.rename(kept)
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)
    kept.rename(folder)


def made(bench: Bench, **settings: Any) -> dict[str, Voxels]:
    """Run, hold every volume against its own record, and tell the voxels by first file."""
    ended = bench.run(**settings)
    assert ended.errors == []
    assert [result.error for result in ended.results] == [None] * len(ended.plans)
    assert len({folded(plan.name) for plan in ended.plans}) == len(ended.plans)
    assert [v.problems for v in verify_store(bench.store())] == [()] * len(ended.plans)
    for plan in ended.plans:
        (file,) = bench.record(plan)["metadata"]["provenance"]["source_files"]
        assert len(file["sha256"]) == 64
        assert [file["key"]] if "key" in file else bench.record(plan)["files"]["raw"] == []
    return {plan.files[0].url.rpartition("/")[2]: bench.voxels(plan) for plan in ended.plans}


@pytest.mark.parametrize("keep_raw", [True, False])
@pytest.mark.parametrize(
    "files",
    [
        ("x.1.mrc", "x_1.mrc"),
        ("a b.mrc", "a_b.mrc", "a.b.mrc", "A_b.mrc"),
        ("数据.mrc", "试样.mrc"),
        ("a\u00a0b.mrc", "a\u3000b.mrc", "a b.mrc", "a\u2028b.mrc"),
        ("e\u0301.mrc", "\u00e9.mrc"),
    ],
)
def test_files_of_one_entry(
    samples: Samples, data: Path, tmp_path: Path, files: tuple[str, ...], keep_raw: bool
) -> None:
    for seed, file in enumerate(files):
        write_mrc(data / file, volume(seed), voxel_nm_zyx=(4.0, 4.0, 4.0))
    bench = Bench(samples, tmp_path, "ebi", box=None, keep_raw=keep_raw)
    found = made(bench)
    assert len(found) == len(files)
    expected = [volume(seed) for seed in range(len(files))]
    for voxels in expected:
        assert sum(np.array_equal(voxels, other) for other in found.values()) == 1
    again = bench.run()
    assert [result.made for result in again.results] == [False] * len(files)


def test_a_second_file_of_the_name_comes_to_the_archive_after_the_first_was_made(
    samples: Samples, data: Path, tmp_path: Path
) -> None:
    bench = Bench(samples, tmp_path, "ebi", box=None)
    write_mrc(data / "x.1.mrc", volume(1), voxel_nm_zyx=(4.0, 4.0, 4.0))
    (first,) = bench.run().plans
    write_mrc(data / "x_1.mrc", volume(2), voxel_nm_zyx=(4.0, 4.0, 4.0))
    found = made(bench)
    np.testing.assert_array_equal(found["x.1.mrc"], volume(1))
    np.testing.assert_array_equal(found["x_1.mrc"], volume(2))
    ended = bench.run()
    assert first.name in [plan.name for plan in ended.plans]
    assert [result.made for result in ended.results] == [False, False]


def test_the_same_name_once_of_one_file_and_then_of_another(
    samples: Samples, data: Path, tmp_path: Path
) -> None:
    bench = Bench(samples, tmp_path, "ebi", box=None)
    for seed, file in enumerate(("x.1.mrc", "x_1.mrc")):
        path = data / file
        write_mrc(path, volume(seed), voxel_nm_zyx=(4.0, 4.0, 4.0))
        assert bench.run().complete
        path.unlink()
    verdicts = list(verify_store(bench.store()))
    assert [(v.status, v.problems) for v in verdicts] == [("complete", ())] * 2


def test_sections_of_two_formats_and_with_two_words_for_section(
    samples: Samples, data: Path, tmp_path: Path
) -> None:
    for number in (1, 2, 3):
        plane = volume(number)[0]
        write_mrc(data / f"cell_slice_{number}.mrc", plane[None], voxel_nm_zyx=(4.0, 4.0, 4.0))
        for word in ("slice", "image"):
            name = f"cell_{word}_{number}.dm3"
            write_dm(data / name, (plane * 99).astype(np.int16), pixel_size_zyx=(0.004, 0.004))
    ended = Bench(samples, tmp_path, "ebi", box=None).run()
    assert ended.complete
    assert [plan.shape_zyx for plan in ended.plans] == [(3, 5, 6)] * 3
    assert len({plan.name for plan in ended.plans}) == 3


def test_long_names_of_files(samples: Samples, data: Path, tmp_path: Path) -> None:
    for seed, end in enumerate("ab"):
        path = data / ("x" * 240 + end + ".mrc")
        write_mrc(path, volume(seed), voxel_nm_zyx=(4.0, 4.0, 4.0))
    assert len(made(Bench(samples, tmp_path, "ebi", box=None))) == 2


# --- listings


class Listing:
    """A file tree with one folder."""

    ways = ("ftp",)
    failed = ()

    def __init__(self, *names: str) -> None:
        self.names = names

    def side_by_side(self, jobs: Sequence[Any]) -> list[Any]:
        return [job() for job in jobs]

    def folder(self, path: str) -> tuple[list[FtpEntry], tuple[str, ...]]:
        return [FtpEntry(name, False, 100) for name in self.names], ()

    def listed(self, path: str, name: str, entry: FtpEntry) -> SourceFile:
        return SourceFile(url=f"ftp://h{path}", name=name, size=entry.size)


def test_a_name_that_no_server_can_be_asked_for_is_left_out_by_name() -> None:
    entry = parse_entry({"EMPIAR-1": {}}, "EMPIAR-1", "where")
    tree: Any = Listing("a\0b.mrc", "good.mrc", "line\r\nbreak.dm3")
    found = find_files(tree, "/empiar/1", entry.imagesets, Selection())
    assert list(found.files) == ["data/good.mrc"]
    assert found.refused == {
        "a_b.mrc": "its name holds a control character",
        "line__break.dm3": "its name holds a control character",
    }


def test_files_of_two_folders_keep_names_that_do_not_depend_on_the_listing() -> None:
    sets = [{"directory": f"/data/{folder}"} for folder in ("b", "a")]
    entry = parse_entry({"EMPIAR-1": {"imagesets": sets}}, "EMPIAR-1", "where")
    tree: Any = Listing("x_1.mrc", "x_2.mrc")
    found = find_files(tree, "/empiar/1", entry.imagesets, Selection()).files
    assert len({file.name for file in found.values()}) == 4
    other: Any = Listing("x_2.mrc", "x_1.mrc", "y.mrc")
    assert (
        find_files(other, "/empiar/1", entry.imagesets, Selection()).files.items() >= found.items()
    )


# --- arrays of a Zarr

ARRAY = {
    "zarr_format": 2,
    "shape": [4, 4, 4],
    "chunks": [4, 4, 4],
    "dtype": "|u1",
    "compressor": None,
    "filters": None,
    "order": "C",
    "fill_value": 0,
    "dimension_separator": "/",
}


def test_arrays_whose_paths_differ_in_what_a_name_cannot_hold(
    samples: Samples, tmp_path: Path
) -> None:
    with S3Server("alike") as server:
        store = server.store()
        paths = ("em/a_b", "em/a/b")
        for seed, path in enumerate(paths, start=1):
            store.put(f"set/set.zarr/{path}/.zarray", json.dumps(ARRAY).encode())
            store.put(f"set/set.zarr/{path}/0/0/0", bytes([seed]) * 64)
        place = {"s3_uri": f"s3://{server.bucket}", "s3_endpoint_url": server.endpoint_url}
        bench = Bench(
            samples, tmp_path, "openorganelle", dataset_id="set", zarr_path=[*paths], **place
        )
        ended = bench.run()
        assert ended.complete
        values = {plan.internal_path: int(bench.voxels(plan)[0, 0, 0]) for plan in ended.plans}
        assert values == {"em/a_b": 1, "em/a/b": 2}
        # one of them in a store of its own has the plain name, and keeps it beside the other
        alone = Bench(samples, tmp_path / "alone", "openorganelle", dataset_id="set", **place)
        (first,) = alone.run(zarr_path="em/a_b").plans
        (second,) = alone.run(zarr_path="em/a/b").plans
        assert first.name == "set_em_a_b"
        assert second.name.startswith("set_em_a_b-")
