"""prefect.yaml and its registration, up to the server."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from prefect.cli.deploy._config import _load_deploy_configs_and_actions
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings
from rich.console import Console

from flows.register import (
    deployment_key,
    ensure_pool,
    for_folder,
    job_template,
    main,
    merge_overrides,
    retire_schedules,
    with_registry,
)
from lib.archives.registry import REGISTRY
from lib.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    return loaded


def test_prefect_itself_reads_every_deployment(document: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "prefect.yaml"
    path.write_text(yaml.safe_dump(with_registry(document, REGISTRY)))
    configs, actions = _load_deploy_configs_and_actions(prefect_file=path, console=Console())
    assert {deployment_key(config) for config in configs} == {
        "macroscope/full",
        "consolidate/catalog",
        *(f"{name}/ingest" for name in REGISTRY),
    }
    assert all(actions[kind] for kind in ("build", "push", "pull"))


def test_work_pool_has_a_default_that_the_environment_can_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("PREFECT_DEPLOYMENTS_DEFAULT_WORK_POOL_NAME", raising=False)
    settings = type(get_current_settings())
    assert settings().deployments.default_work_pool_name == "macroscope"
    monkeypatch.setenv("PREFECT_DEPLOYMENTS_DEFAULT_WORK_POOL_NAME", "other")
    assert settings().deployments.default_work_pool_name == "other"


def test_every_deployment_has_limits_tags_and_known_job_variables(
    document: dict[str, Any],
) -> None:
    known = set(job_template("kubernetes", None)["variables"]["properties"])
    for item in document["deployments"]:
        assert item["concurrency_limit"]["collision_strategy"] == "ENQUEUE"
        assert item["tags"]
        assert item["description"]
        assert set(item["work_pool"]["job_variables"]) <= known
        assert "name" not in item["work_pool"]


def test_overrides_merge_into_what_is_there(document: dict[str, Any]) -> None:
    merged = merge_overrides(
        document,
        {
            "ebi/ingest": {"job_variables": {"memory_limit": "8Gi"}, "parameters": {"a": 1}},
            "epfl/ingest": {"enabled": False},
            "idr/ingest": {"schedules": [{"cron": "0 3 * * *"}]},
        },
    )
    found = {deployment_key(item): item for item in merged["deployments"]}
    assert "epfl/ingest" not in found
    assert found["ebi/ingest"]["work_pool"]["job_variables"]["memory_limit"] == "8Gi"
    assert found["ebi/ingest"]["work_pool"]["job_variables"]["cpu_request"] == "1"
    assert found["ebi/ingest"]["parameters"] == {"a": 1}
    assert found["idr/ingest"]["schedules"] == [{"slug": "registered-1", "cron": "0 3 * * *"}]
    assert found["flyem/ingest"]["work_pool"]["job_variables"]["memory_limit"] == "2Gi"


class Schedules:
    """A Prefect API that knows two deployments, each with schedules of some slugs."""

    def __init__(self, *slugs: str | None) -> None:
        self.left = {key: list(slugs) for key in ("ebi/ingest", "idr/ingest")}

    def read_deployment_by_name(self, key: str) -> Any:
        if key not in self.left:
            raise ObjectNotFound(ValueError("404"))
        found = [SimpleNamespace(slug=slug, id=slug) for slug in self.left[key]]
        return SimpleNamespace(id=key, schedules=found)

    def delete_deployment_schedule(self, deployment: str, schedule: str | None) -> None:
        self.left[deployment].remove(schedule)


def test_schedules_that_are_no_longer_asked_for_go_and_those_of_a_person_stay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client: Any = Schedules("registered-1", None)
    asked = {"ebi/ingest": {"schedules": [{"cron": "0 3 * * *"}]}}
    everything = ("ebi/ingest", "idr/ingest", "epfl/ingest")
    retire_schedules(client, everything, asked)
    assert client.left == {"ebi/ingest": ["registered-1", None], "idr/ingest": [None]}
    assert "prefect deployment schedule delete idr/ingest" in caplog.text
    retire_schedules(client, everything, {"ebi/ingest": {"enabled": False}})
    assert client.left == {"ebi/ingest": [], "idr/ingest": [None]}


class Pools:
    """A Prefect API with one work pool."""

    def __init__(self, template: dict[str, Any], *, paused: bool) -> None:
        self.pool = SimpleNamespace(
            type="kubernetes", is_paused=paused, base_job_template=copy.deepcopy(template)
        )

    def read_work_pool(self, name: str) -> Any:
        return self.pool

    def update_work_pool(self, name: str, change: Any) -> None:
        self.pool.base_job_template = change.base_job_template


def test_two_installations_do_not_share_a_work_pool() -> None:
    """The clean-up of each looks for the Jobs of all runs of the pool in its own namespace."""
    ours = job_template("kubernetes", None)
    theirs = copy.deepcopy(ours)
    theirs["variables"]["properties"]["namespace"]["default"] = "theirs"
    of_prefect = {"variables": {"properties": {"namespace": {"default": "default"}}}}
    used: Any = Pools(theirs, paused=False)
    with pytest.raises(ConfigError, match="in namespace 'theirs', not 'em'") as refused:
        ensure_pool(used, "macroscope", "kubernetes", ours)
    assert "prefect work-pool pause macroscope" in refused.value.advice
    assert used.pool.base_job_template == theirs
    left: Any = Pools(theirs, paused=True)  # as an uninstall leaves it
    made: Any = Pools(of_prefect, paused=False)  # by a worker that was up before the registration
    again: Any = Pools(ours, paused=False)
    for pools in (left, made, again):
        ensure_pool(pools, "macroscope", "kubernetes", ours, resume=True)
        assert pools.pool.base_job_template == ours


def test_unknown_deployments_and_keys_are_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"no deployment 'eby/ingest'; there are .*ebi/ingest"):
        merge_overrides(document, {"eby/ingest": {}})
    with pytest.raises(ConfigError, match="cannot override memory"):
        merge_overrides(document, {"ebi/ingest": {"memory": "1Gi"}})


def test_process_pool_gets_prefects_own_template() -> None:
    assert "stream_output" in job_template("process", None)["variables"]["properties"]


def test_a_configuration_that_runs_would_refuse_is_refused_before_anything_is_registered(
    tmp_path: Path,
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("sources: {epfl: {hevy: true}}\n")
    with pytest.raises(ConfigError, match="hevy"):
        main(["--config", str(path), "--wait-seconds", "0"])


def test_a_mirror_with_a_mistake_is_refused_before_its_first_night(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}\n")
    listed: list[dict[str, Any]] = [
        {"address": "empiar:10310", "levle": "s1"},
        {"address": "idr:9846137", "group": "cells"},
        {"group": "no address"},
    ]
    overrides = {
        "macroscope/full": {"parameters": {"datasets": listed}},
        "idr/ingest": {"parameters": {"config": {"image_ids": ["nine"]}}},
    }
    path = tmp_path / "overrides.yaml"
    arguments = ["--config", str(tmp_path / "config.yaml"), "--overrides", str(path)]
    path.write_text(yaml.safe_dump(overrides))
    with pytest.raises(ConfigError) as refused:
        main([*arguments, "--wait-seconds", "0"])
    said = str(refused.value)
    assert "dataset 1: levle: there is no such option" in said and "level" in said
    assert "dataset 3: address" in said and "image_ids" in said
    listed[:] = [{"address": "empiar:10310", "set": {"box": "z=9"}}]
    path.write_text(yaml.safe_dump({"macroscope/full": {"parameters": {"datasets": listed}}}))
    with pytest.raises(ConfigError, match=r"dataset 1: .*box"):
        main([*arguments, "--wait-seconds", "0"])


def test_the_chart_lets_the_registration_check_what_runs_read(
    render: Callable[..., list[dict[str, Any]]],
) -> None:
    objects = {f"{o['kind']}/{o['metadata']['name']}": o for o in render()}
    pod = objects["Job/macroscope-register"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    [argument] = [word for word in container["args"] if word.startswith("--config=")]
    folder, _, file = argument.removeprefix("--config=").rpartition("/")
    [name] = [m["name"] for m in container["volumeMounts"] if m["mountPath"] == folder]
    [volume] = [v["configMap"]["name"] for v in pod["volumes"] if v["name"] == name]
    assert file in objects[f"ConfigMap/{volume}"]["data"]


def test_without_a_server_nothing_is_registered_with_one_that_ends_at_once() -> None:
    nameless = temporary_settings(updates={PREFECT_API_URL: None})
    with nameless, pytest.raises(ConfigError, match="no Prefect server is named") as caught:
        main([])
    assert "macroscope up" in str(caught.value)


def test_a_folder_without_the_script_of_the_image_registers_without_it(tmp_path: Path) -> None:
    """As where the wheel is installed: nothing there builds an image."""
    document = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    assert for_folder(document, ROOT) == document
    alone = for_folder(document, tmp_path)
    assert [step["id"] for steps in alone["build"] for step in steps.values()] == ["home"]
    assert alone["push"] == []
    assert alone["pull"] == document["pull"]
