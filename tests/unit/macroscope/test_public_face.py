"""`import macroscope`: its names, what it costs, and plans as data."""

from __future__ import annotations

import dataclasses
import doctest
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tifffile
import yaml

import macroscope
from emulators.serving import Samples
from lib import errors as lib_errors
from lib.concurrency import cancel
from lib.ingest.result import VolumeResult
from macroscope import _ingest, _list, _plan, errors
from macroscope.errors import ConfigError, MacroscopeError, NotFoundError, PlanError, TransportError

NAMES = ["ingest", "list", "open", "plan", "search", "verify"]


@pytest.fixture
def archives(samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins as the archives, and an empty folder to work in."""
    monkeypatch.setenv("EM_SERVICES", json.dumps(samples.endpoints))
    monkeypatch.chdir(tmp_path)


def test_it_gives_these_functions_and_nothing_else() -> None:
    assert dir(macroscope) == sorted(macroscope.__all__) == NAMES
    for name in NAMES:
        function = getattr(macroscope, name)
        assert inspect.isfunction(function)
        assert ">>> import macroscope" in str(function.__doc__)
        hints = inspect.get_annotations(function)
        assert set(hints) == {*inspect.signature(function).parameters, "return"}
    assert (Path(macroscope.__file__).parent / "py.typed").is_file()


def test_every_named_error_is_there() -> None:
    named = {
        name
        for name, value in vars(lib_errors).items()
        if isinstance(value, type) and issubclass(value, MacroscopeError)
    }
    assert set(errors.__all__) == named | {"PlanError"}


def test_its_import_brings_no_heavy_library() -> None:
    heavy = ("prefect", "zarr", "numba", "numpy", "dask", "boto3", "fastapi", "pydantic")
    program = f"import macroscope, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_help_brings_no_heavy_library(arguments: list[str]) -> None:
    heavy = ("prefect", "zarr", "numba", "numpy", "dask", "boto3", "fastapi")
    command = [sys.executable, "-X", "importtime", "-m", "macroscope", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported
    assert sorted(imported & set(heavy)) == []


def test_planning_brings_no_prefect(samples: Samples, tmp_path: Path) -> None:
    program = (
        "import macroscope, sys; macroscope.plan(sources=['flyem']);"
        "print([m for m in ('prefect', 'dask', 'zarr', 'fastapi') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "EM_SERVICES": json.dumps(samples.endpoints)},
        capture_output=True,
        text=True,
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.usefixtures("archives")
def test_a_plan_is_data_and_nothing_is_written(tmp_path: Path) -> None:
    found = macroscope.plan(sources=["flyem", "idr"], box=None)
    assert [volume.source for volume in found.volumes] == ["flyem", "idr"]
    assert found.total["download_bytes"] == sum(v.download_bytes for v in found.volumes) > 0
    assert list(tmp_path.iterdir()) == []
    cut = macroscope.plan(sources=["openorganelle"], level="s1", box="z=0:10,y=0:20,x=0:30")
    assert cut.volumes[0].shape_zyx == (10, 20, 30)
    small = macroscope.plan(sources=["flyem"], settings={"flyem": {"crop_size": [32, 24, 16]}})
    assert small.volumes[0].shape_zyx == (16, 24, 32)


@pytest.mark.usefixtures("archives")
def test_settings_that_would_have_no_effect_are_refused() -> None:
    with pytest.raises(ConfigError, match="idr is none of the sources of this call"):
        macroscope.plan(sources=["flyem"], settings={"idr": {"image_ids": [1]}})


@pytest.mark.usefixtures("archives")
def test_a_file_of_datasets_is_planned_as_a_whole(tmp_path: Path) -> None:
    listed = [{"address": "epfl:", "name": "hippocampus"}, {"address": "/nowhere/x.tif"}]
    (tmp_path / "datasets.yaml").write_text(yaml.safe_dump({"datasets": listed}))
    with pytest.raises(PlanError, match="no such file") as failed:
        macroscope.plan(datasets="datasets.yaml")
    assert [volume.source for volume in failed.value.plan.volumes] == ["epfl"]


@pytest.mark.usefixtures("archives")
def test_what_cannot_be_planned_is_a_named_error_that_carries_the_rest() -> None:
    gone = {"openorganelle": {"dataset_id": "nowhere", "zarr_path": "em"}}
    with pytest.raises(NotFoundError):
        macroscope.plan(sources=["openorganelle"], settings=gone)
    with pytest.raises(PlanError) as failed:
        macroscope.plan(sources=["flyem", "openorganelle"], settings=gone)
    assert [volume.source for volume in failed.value.plan.volumes] == ["flyem"]
    assert [source for source, _ in failed.value.plan.errors] == ["openorganelle"]
    with pytest.raises(ConfigError, match="sources"):
        macroscope.plan(sources=["elsewhere"])
    with pytest.raises(NotFoundError, match="no such file"):
        macroscope.plan("/nowhere/x.tif")
    tifffile.imwrite("x.tif", np.zeros((3, 4, 6), np.uint8), photometric="minisblack")
    with pytest.raises(PlanError) as failed:
        macroscope.plan("/nowhere/x.tif", "x.tif", "/nowhere/y.tif")
    assert [volume.shape_zyx for volume in failed.value.plan.volumes] == [(3, 4, 6)]
    assert len(failed.value.plan.errors) == 2


def test_volumes_of_a_run_say_all_that_is_known_of_them() -> None:
    """Whatever a run comes to say of a volume, this class has to take."""
    fields = {one.name for one in dataclasses.fields(_ingest.IngestedVolume)} - {"source"}
    assert fields == VolumeResult.model_fields.keys() - {"store_requests"}


@pytest.mark.usefixtures("archives")
def test_a_stop_of_an_earlier_call_is_forgotten() -> None:
    cancel.request_stop()
    assert macroscope.plan(sources=["flyem"]).volumes
    assert not cancel.stop_requested()


@pytest.mark.usefixtures("archives")
def test_an_archive_that_cannot_be_asked_is_told_beside_those_that_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def away(*_: object) -> None:
        raise TransportError("the server is away")

    monkeypatch.setattr("lib.archives.bioimages.search", away)
    found = macroscope.search("hemibrain", archive=["reach", "bioimages"])
    assert [(one.archive, one.error is None) for one in found] == [
        ("reach", True),
        ("bioimages", False),
    ]
    with pytest.raises(TransportError, match="away"):
        macroscope.search("hemibrain", archive="bioimages")
    with pytest.raises(ConfigError, match="no word"):
        macroscope.search()
    with pytest.raises(NotFoundError):
        macroscope.list("/nowhere")


@pytest.mark.usefixtures("archives")
@pytest.mark.parametrize("module", [_plan, _list])
def test_the_examples_run(module: ModuleType) -> None:
    ran = doctest.testmod(module)
    assert (ran.failed, ran.attempted > 1) == (0, True)


def test_a_list_of_addresses_is_told_how_it_is_given() -> None:
    for call in (macroscope.plan, macroscope.ingest):
        with pytest.raises(TypeError, match=r"\*addresses"):
            call(["a.tif", "b.tif"])  # type: ignore[arg-type]
