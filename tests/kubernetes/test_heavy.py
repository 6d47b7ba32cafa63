"""Which volumes get a Dask cluster: those that are large by their plan, and no small one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.task_runners import ThreadPoolTaskRunner

from flows.ingest import Run
from lib.config.loaders import LoaderConfig
from lib.config.manager import ConfigManager
from lib.config.settings import Settings
from lib.execution import is_heavy
from lib.geometry import ShapeZYX
from lib.ingest.costs import planned_job
from lib.storage.base import StoreSettings
from tests.kit.volume_kit import a_plan

ROOT = Path(__file__).parents[2]
KIND = yaml.safe_load((ROOT / "k8s" / "kind-values.yaml").read_text())
# the archives' default volumes, as their metadata give them
PUBLIC: dict[str, tuple[ShapeZYX, str, bool]] = {
    "ebi": ((17, 5000, 5600), "uint8", False),
    "epfl": ((1065, 1536, 2048), "uint8", True),
    "flyem": ((1000, 1000, 1000), "uint8", True),
    "idr": ((200, 893, 895), "uint8", False),
    "openorganelle": ((564, 800, 1022), "int16", True),
}


def on_dask(source: str, shape: ShapeZYX, dtype: str, *, heavy: bool | None = None) -> bool:
    """Whether a flow would have a volume made on Dask, with the default threshold."""
    config = LoaderConfig(heavy=heavy)
    settings = Settings(dask="local")
    run = Run(source, config, settings, StoreSettings(), "a run", Path("/nowhere"))
    plan = a_plan(shape, dtype).model_copy(update={"source": source})
    return not isinstance(run.task_runner(planned_job(plan, config)), ThreadPoolTaskRunner)


@pytest.mark.parametrize("source", PUBLIC)
def test_the_plan_decides_and_not_the_archive(source: str) -> None:
    shape, dtype, heavy = PUBLIC[source]
    assert on_dask(source, shape, dtype) is heavy
    assert not on_dask(source, (16, 48, 64), dtype), "none that is small does"
    assert on_dask(source, (2000, 2000, 2000), dtype), "and any that is large"


def test_a_source_s_own_setting_is_stronger_than_its_size() -> None:
    assert on_dask("ebi", (16, 48, 64), "uint8", heavy=True)
    assert not on_dask("epfl", (1065, 1536, 2048), "uint8", heavy=False)


def test_a_single_shard_cannot_be_shared() -> None:
    many = math.prod((2000, 2000, 2000))
    assert not is_heavy(many, 1, wanted=None, min_bytes=1)
    assert is_heavy(many, 2, wanted=None, min_bytes=1)


def test_the_demo_gives_both_epfl_and_openorganelle_a_cluster(
    render: Callable[..., list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the stand-ins, whose volumes are far below the threshold."""
    objects = render(*(f"{key}={json.dumps(value)}" for key, value in KIND.items()))
    maps = {o["metadata"]["name"]: o["data"] for o in objects if o["kind"] == "ConfigMap"}
    path = tmp_path / "config.yaml"
    path.write_text(maps["macroscope-config"]["config.yaml"])
    settings = {
        "EM_CONFIG_PATH": str(path),
        "EM_DASK_MIN_MB": maps["macroscope-settings"]["EM_DASK_MIN_MB"],
    }
    services = {"EM_ARCHIVES": "samples", "EM_SERVICES": maps["macroscope-settings"]["EM_SERVICES"]}
    for name, value in (settings | services).items():
        monkeypatch.setenv(name, value)
    loaded = ConfigManager().load()
    heavy = {source for source in PUBLIC if loaded.loader(source).heavy}
    assert heavy == {"epfl", "openorganelle"}
    assert loaded.settings.dask_min_mb == 750.0
