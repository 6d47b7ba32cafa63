"""Metrics: counted from records and from a real Prefect server, scraped by a real Prometheus."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families

from flows.commands.server import comes_true
from flows.exporter import StoreCollector, Tally, tally
from lib.errors import TransportError
from lib.storage.open import open_store
from lib.transport.environment import free_ports
from tests.kit.prefect_server import ask, prefect_server

ROOT = Path(__file__).parents[2]
FILES = ROOT / "helm" / "macroscope" / "files"
WAIT_S = 300


def record(source: str, name: str, status: str, **more: Any) -> dict[str, Any]:
    return {"source": source, "name": name, "status": status, **more}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Records of one complete, one failed and one damaged volume."""
    folder = tmp_path / "data" / "ebi"
    folder.mkdir(parents=True)
    done = record(
        "ebi",
        "a",
        "complete",
        updated_at="2026-11-28T18:43:36.529Z",
        metadata={
            "core": {"volume_shape": [100, 128, 130]},
            "technical": {"file_size_bytes": 5000, "shard": [100, 64, 64]},
            "provenance": {"bytes": 7000, "requests": 12, "seconds": 3.4},
        },
    )
    failed = record("ebi", "b", "failed", error={"type": "TransportError"})
    for document in (done, failed):
        path = folder / f"metadata_{document['name']}.json"
        path.write_text(json.dumps(document))
    (folder / "metadata_c.json").write_text('{"source": ')
    return tmp_path / "data"


def test_records_are_counted_by_status_error_and_source(store: Path) -> None:
    found = tally(open_store(str(store)))
    assert found.volumes == {("ebi", "complete"): 1, ("ebi", "failed"): 1}
    assert found.failures == {("ebi", "TransportError"): 1}
    assert (found.stored_bytes, found.fetched_bytes) == ({"ebi": 5000}, {"ebi": 7000})
    assert (found.requests, found.shards) == ({"ebi": 12}, {"ebi": 6})
    assert found.completed_at == {"ebi": pytest.approx(1795891416.529)}
    assert found.unreadable == 1
    assert found.free_bytes is not None


@contextmanager
def exporter(environ: dict[str, str], store: Path, folder: Path) -> Iterator[str]:
    """The exporter as its pod runs it; yields its address."""
    (port,) = free_ports("127.0.0.1", 1)
    command = [sys.executable, "-m", "flows.exporter", "--host=127.0.0.1", f"--port={port}"]
    env = environ | {"EM_DATA_DIR": str(store), "PYTHONPATH": str(ROOT)}
    with (folder / "exporter.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--store-seconds=1"], cwd=folder, env=env, stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}/metrics"
    try:
        assert comes_true(lambda: requests.get(url, timeout=120).ok, WAIT_S)
        yield url
    finally:
        process.terminate()
        assert process.wait(WAIT_S) == 0, (folder / "exporter.log").read_text()


def scraped(url: str) -> dict[tuple[str, ...], float]:
    """Name and values of labels (labels in alphabetical order) to value."""
    text = requests.get(url, timeout=WAIT_S).text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def settled(url: str, prefect: float) -> dict[tuple[str, ...], float]:
    """One scrape, with the store counted and the Prefect API up (1) or away (0).

    The exporter answers before its first look at the store, and a server that is busy, or whose
    database is locked, is away for a moment.
    """
    found: dict[tuple[str, ...], float] = {}

    def seen() -> bool:
        nonlocal found
        found = scraped(url)
        ups = found["macroscope_prefect_up",], found["macroscope_store_up",]
        return ups == (prefect, 1)

    assert comes_true(seen, WAIT_S), found
    return found


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Of the clients of a server with runs in several states."""
    with prefect_server(tmp_path) as found:
        url = found["PREFECT_API_URL"]
        ask(url, "work_pools/", {"name": "macroscope", "type": "process", "is_paused": True})
        flow = ask(url, "flows/", {"name": "ebi"})["id"]
        made = {"name": "ingest", "flow_id": flow, "work_pool_name": "macroscope"}
        deployment = ask(url, "deployments/", made)["id"]
        for state in ("COMPLETED", "FAILED", "FAILED", "SCHEDULED", "RUNNING"):
            run = ask(url, f"deployments/{deployment}/create_flow_run", {})["id"]
            # one whose time has come is called Late by a server that is busy
            later = {"scheduled_time": "2100-01-01T00:00:00Z"} if state == "SCHEDULED" else {}
            asked = {"state": {"type": state, "state_details": later}, "force": True}
            ask(url, f"flow_runs/{run}/set_state", asked)
        yield found


@pytest.mark.long
def test_a_real_prometheus_scrapes_runs_and_volumes(
    environ: dict[str, str], store: Path, tmp_path: Path
) -> None:
    with exporter(environ, store, tmp_path) as url:
        found = settled(url, 1)
        expected = {
            ("macroscope_prefect_up",): 1,
            ("macroscope_work_pool_paused", "macroscope"): 1,
            ("macroscope_workers_online", "macroscope"): 0,
            ("macroscope_flow_runs", "ebi/ingest", "Scheduled"): 1,
            ("macroscope_flow_runs", "ebi/ingest", "Running"): 1,
            ("macroscope_flow_runs_ended_total", "ebi/ingest", "failed"): 2,
            ("macroscope_flow_runs_ended_total", "ebi/ingest", "completed"): 1,
            ("macroscope_store_up",): 1,
            ("macroscope_volumes", "ebi", "complete"): 1,
            ("macroscope_volume_failures", "TransportError", "ebi"): 1,
            ("macroscope_records_unreadable",): 1,
        }
        assert {name: found.get(name) for name in expected} == expected
        assert {sample[0] for sample in found} >= named_in_rules_and_dashboard()
        promtool = shutil.which("promtool")
        if promtool is None:
            pytest.skip("no Prometheus here")
        text = requests.get(url, timeout=WAIT_S).content
        lint = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True)
        assert lint.returncode == 0, lint.stderr.decode()
        with prometheus(url, tmp_path) as address:
            asked = {"query": 'macroscope_volumes{status="complete"}'}

            def seen() -> bool:
                answer = requests.get(f"{address}/api/v1/query", asked, timeout=120).json()
                return [one["value"][1] for one in answer["data"]["result"]] == ["1"]

            assert comes_true(seen, WAIT_S)
            groups = requests.get(f"{address}/api/v1/rules", timeout=120).json()["data"]["groups"]
            assert {rule["health"] for rule in groups[0]["rules"]} <= {"ok", "unknown"}
            assert len(groups[0]["rules"]) == len(rules())


@contextmanager
def prometheus(target: str, folder: Path) -> Iterator[str]:
    """A Prometheus that scrapes one target every few seconds, with the chart's rules."""
    (port,) = free_ports("127.0.0.1", 1)
    place = target.removeprefix("http://").partition("/")[0]
    config = {
        "global": {"scrape_interval": "5s", "scrape_timeout": "5s", "evaluation_interval": "1s"},
        "rule_files": [str(FILES / "alerts.yaml")],
        "scrape_configs": [{"job_name": "m", "static_configs": [{"targets": [place]}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}"]
    command += [f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        assert comes_true(lambda: requests.get(f"{address}/-/ready", timeout=60).ok, WAIT_S)
        yield address
    finally:
        process.terminate()
        process.wait(WAIT_S)


@pytest.mark.long
def test_a_prefect_server_that_is_away_is_said_to_be_so(store: Path, tmp_path: Path) -> None:
    (port,) = free_ports("127.0.0.1", 1)
    environ = {**os.environ, "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    with exporter(environ, store, tmp_path) as url:
        found = settled(url, 0)
    assert found["macroscope_volumes", "ebi", "complete"] == 1
    assert not [name for name in found if name[0].startswith("macroscope_flow_runs")]


def test_a_store_that_is_away_is_said_to_be_so_beside_what_was_counted_before(store: Path) -> None:
    looks = iter([lambda: tally(open_store(str(store))), away])
    collector = StoreCollector(lambda: next(looks)(), 1)

    def value(name: str) -> list[float]:
        families = {family.name: family for family in collector.collect()}
        return [s.value for s in families[name].samples] if name in families else []

    collector.look()
    assert (value("macroscope_store_up"), value("macroscope_stored_bytes")) == ([1], [5000])
    collector.look()
    assert (value("macroscope_store_up"), value("macroscope_stored_bytes")) == ([0], [5000])


def away() -> Tally:
    raise TransportError("the bucket does not answer")


def rules() -> list[dict[str, Any]]:
    """The alerts."""
    [group] = yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def named_in_rules_and_dashboard() -> set[str]:
    """Metrics that a rule or a panel asks for."""
    panels = json.loads((FILES / "dashboard.json").read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    asked += [rule["expr"] for rule in rules()]
    named = {name for text in asked for name in re.findall(r"macroscope_\w+", text)}
    return named - {"macroscope_flow_runs_restarted"}  # no run of the test began twice


def test_every_alert_has_a_page_and_every_page_an_alert() -> None:
    linked = {rule["annotations"]["runbook_url"].rpartition("/")[2] for rule in rules()}
    assert linked == {f"{rule['alert']}.md" for rule in rules()}
    assert linked == {path.name for path in (ROOT / "docs" / "runbooks").glob("*.md")}


def test_rules_fire_when_they_should(tmp_path: Path) -> None:
    promtool = shutil.which("promtool") or pytest.skip("no Prometheus here")
    command = [promtool, "check", "rules", str(FILES / "alerts.yaml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    series = {
        "macroscope_prefect_up": "0x700",
        'macroscope_work_pool_paused{pool="p"}': "1x700",
        'macroscope_workers_online{pool="p"}': "0x700",
        'macroscope_flow_runs{deployment="ebi/ingest",state="Late"}': "2x700",
        'macroscope_flow_runs_ended_total{deployment="ebi/ingest",state="failed"}': "0x30 1x670",
        'macroscope_last_success_timestamp_seconds{deployment="e",scheduled="true"}': "-800000x700",
        'macroscope_last_success_timestamp_seconds{deployment="n",scheduled="false"}': "-8e5x700",
        'macroscope_volumes{source="ebi",status="failed"}': "3x700",
        "macroscope_destination_free_bytes": "1e9x700",
        "macroscope_store_up": "0x700",
    }
    firing = {rule["alert"] for rule in rules()} - {"MacroscopeExporterAbsent"}
    well = {
        "macroscope_prefect_up": "1x700",
        'macroscope_work_pool_paused{pool="p"}': "0x700",
        'macroscope_workers_online{pool="p"}': "1x700",
        'macroscope_flow_runs_ended_total{deployment="e",state="completed"}': "0+1x700",
        'macroscope_volumes{source="ebi",status="complete"}': "3x700",
        "macroscope_destination_free_bytes": "1e12x700",
        "macroscope_store_up": "1x700",
        "macroscope_records_unreadable": "0x700",
    }
    tests = [case(series, firing), case(well, set()), case({}, {"MacroscopeExporterAbsent"})]
    document = {"rule_files": [str(FILES / "alerts.yaml")], "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(document))
    command = [promtool, "test", "rules", str(tmp_path / "tests.yaml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def case(series: dict[str, str], firing: set[str]) -> dict[str, Any]:
    """At 75 minutes these alerts fire, and no other."""
    counted = [
        {
            "expr": f'count(ALERTS{{alertname="{rule["alert"]}",alertstate="firing"}}) > 0',
            "eval_time": "75m",
            "exp_samples": [{"labels": "{}", "value": 1}] if rule["alert"] in firing else [],
        }
        for rule in rules()
    ]
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": text} for name, text in series.items()],
        "promql_expr_test": counted,
    }
