"""A sixth archive is one module and one line of the registry; everything else finds it there."""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
import zarr
from prefect.flows import load_flow_from_entrypoint

from emulators.serving import Samples
from flows import sources
from flows.register import deployment_key, merge_overrides, with_registry
from lib.archives.registry import REGISTRY, archive, loader_configs
from lib.config.manager import ConfigManager, LoadedSettings
from lib.errors import ConfigError
from lib.execution import MODES, schedule
from lib.ingest.context import VolumeRequest
from lib.ingest.costs import cost_of
from lib.ingest.life import make_volume
from lib.ingest.stages import plan_source
from lib.present.report import write_report
from lib.records.catalogue import consolidate
from lib.storage.base import StoreSettings
from lib.storage.local import LocalStore
from lib.verify.volume import verify_store

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "docs" / "examples" / "toy_archive.py"
GUIDE = ROOT / "docs" / "adding-an-archive.md"
LINE = "toy_archive:Toy"
HERE = Path(__file__).parent


def load(path: Path) -> ModuleType:
    """A module of tests, whose folder is no package."""
    spec = importlib.util.spec_from_file_location(f"for_the_sixth_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CONFORMANCE = load(HERE / "test_conformance.py")
PROMISES = sorted(name for name in vars(CONFORMANCE) if name.startswith("test_"))


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module and the line, and no trace of them afterwards."""
    monkeypatch.syspath_prepend(str(MODULE.parent))
    monkeypatch.setitem(REGISTRY, "toy", LINE)
    yield
    archive.cache_clear()
    sources._flow_from_registry.cache_clear()
    sys.modules.pop("toy_archive", None)


@pytest.fixture
def samples(toy: None, samples: Samples) -> Iterator[Samples]:
    """Stand-ins that were started when the registry had the line already."""
    with Samples(samples.root, services=("http",)) as running:
        yield running


@pytest.fixture
def loaded(samples: Samples, tmp_path: Path) -> LoadedSettings:
    environ = {
        "EM_SERVICES": json.dumps({"TOY": samples.endpoints["TOY"]}),
        "EM_DATA_DIR": str(tmp_path / "data"),
        "TOY_REQUESTS_PER_SECOND": "1000",
    }
    return ConfigManager().load(environ=environ, dotenv=None, path=ROOT / "config/config.yaml")


def test_it_takes_a_hundred_lines() -> None:
    assert len(MODULE.read_text().splitlines()) <= 100


def test_the_guide_shows_what_is_run_here() -> None:
    assert f"```python\n{MODULE.read_text()}```" in GUIDE.read_text()
    assert f'"toy": "{LINE}",' in GUIDE.read_text()


@pytest.mark.parametrize("promise", PROMISES)
def test_it_keeps_the_promises_of_every_archive(
    promise: str, bench: Any, truth: Callable[..., Any]
) -> None:
    check = getattr(CONFORMANCE, promise)
    wanted = inspect.signature(check).parameters
    check(
        **{k: v for k, v in {"name": "toy", "bench": bench, "truth": truth}.items() if k in wanted}
    )


def test_its_settings_come_from_environment_yaml_and_parameters(tmp_path: Path) -> None:
    assert loader_configs()["toy"] is archive("toy").config_model
    path = tmp_path / "config.yaml"
    path.write_text("sources: {toy: {volume: slab, max_workers: 3}}")
    environ = {"TOY_VOLUME": "tile", "EM_SHARD_MB": "5"}
    config = ConfigManager().load(environ=environ, dotenv=None, path=path)
    toy = config.loader("toy", {"keep_raw": False})
    assert (toy.volume, toy.max_workers, toy.shard_mb) == ("tile", 3, 5.0)  # type: ignore[attr-defined]
    assert not toy.keep_raw
    with pytest.raises(ConfigError, match="TOY_VOLUMES"):
        ConfigManager().load(environ={"TOY_VOLUMES": "tile"}, dotenv=None, path=path)


def test_it_is_planned_made_verified_catalogued_and_reported(
    loaded: LoadedSettings, tmp_path: Path
) -> None:
    config = loaded.loader("toy")
    (plan,) = plan_source("toy", config, tmp_path).plans
    assert cost_of(plan, config, 1.5).download_bytes == 12 * 40 * 50 * 2

    data = tmp_path / "data"
    request = VolumeRequest(
        plan, config, str(data), StoreSettings(), tmp_path / "scratch", "a test"
    )
    made = make_volume(request, "a test")
    assert made.error is None
    assert made.status == "complete"
    voxels = zarr.open_group(data / "toy" / "brick.ome.zarr", mode="r")["0"][:]  # type: ignore[index]
    np.testing.assert_array_equal(voxels, np.arange(12 * 40 * 50).reshape(12, 40, 50))

    store = LocalStore(data)
    (verdict,) = verify_store(store)
    assert (verdict.status, verdict.problems) == ("complete", ())
    about = LocalStore(tmp_path / "metadata")
    result = consolidate(store, about)
    assert (result.valid, result.invalid) == (1, 0)
    page = about.get(write_report(store, about, result.catalog, result.report))
    assert b"A brick" in page
    assert b"toy" in page


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("mode", MODES.values(), ids=lambda mode: mode.name)
def test_every_mode_runs_it(mode: Any, heavy: bool) -> None:
    steps = schedule(mode, REGISTRY, {"toy"} if heavy else ())
    assert {step.source for step in steps} == set(REGISTRY)


def test_it_is_a_flow_and_a_deployment_of_its_own() -> None:
    prefect_yaml = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    document = with_registry(prefect_yaml, REGISTRY)
    merged = merge_overrides(document, {"toy/ingest": {"job_variables": {"memory_limit": "4Gi"}}})
    (mine,) = (i for i in merged["deployments"] if deployment_key(i) == "toy/ingest")
    assert mine["work_pool"]["job_variables"] == {
        "cpu_request": "1",
        "cpu_limit": "2",
        "memory_request": "2Gi",
        "memory_limit": "4Gi",
    }
    assert mine["tags"] == ["macroscope", "source", "toy"]
    flow = load_flow_from_entrypoint(mine["entrypoint"], use_placeholder_flow=False)
    assert flow.name == "toy"
    assert flow is sources.source_flow("toy")


def test_it_can_be_given_values_of_the_chart() -> None:
    schema = json.loads((ROOT / "helm" / "macroscope" / "values.schema.json").read_text())
    one = schema["properties"]["sources"]["additionalProperties"]
    assert one["required"] == ["enabled"]
    assert {"cpuRequest", "memory", "schedule", "parameters"} <= one["properties"].keys()
