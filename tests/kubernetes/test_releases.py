"""Releases by the real helm, in a stand-in cluster that runs no pod: what an upgrade changes."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.register import _parser
from tests.kit.documents import documents
from tests.kubernetes.apiserver.cluster import Cluster
from tests.kubernetes.apiserver.kinds import JOB, SECRET, by_manifest, changed_for_good
from tests.kubernetes.kube_binaries import program
from tests.kubernetes.releases import CHART, CHART_0_1_0, FLAGS, Release
from tests.kubernetes.test_chart import BUCKET

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]
Helm = Callable[..., "subprocess.CompletedProcess[str]"]
OPEN, ASKING = "server.auth.generate=false", "server.auth.generate=true"
READERS = ("server", "worker")


@pytest.fixture
def release(tmp_path: Path) -> Iterator[Release]:
    """Nothing yet, in a cluster whose node takes no pod."""
    with Cluster(tmp_path / "cluster") as cluster:
        cluster.kubelet.cordoned = True
        yield Release(cluster)


def test_the_fixture_is_the_chart_of_0_1_0(helm: Helm) -> None:
    shown = helm("show", "chart", str(CHART_0_1_0))
    assert yaml.safe_load(shown.stdout)["version"] == "0.1.0"


@pytest.mark.parametrize(
    "sets",
    [(), ('server={"database":{"existingSecret":"pg"}}', *BUCKET, "worker.replicas=2")],
    ids=["defaults", "postgresql and bucket"],
)
def test_an_upgrade_from_0_1_0_changes_nothing_that_kubernetes_fixes(
    helm: Helm, render: Render, sets: tuple[str, ...]
) -> None:
    flags = [part for text in sets for part in ("--set-json", text)]
    done = helm("template", "macroscope", str(CHART_0_1_0), "--namespace", "em", *flags)
    old = {(o["kind"], o["metadata"]["name"]): o for o in documents(done.stdout)}
    new = {(o["kind"], o["metadata"]["name"]): o for o in render(*sets)}
    assert set(old) <= set(new)
    for key, manifest in old.items():
        if key[0] != "Job":  # hooks, and a Job for each revision
            assert changed_for_good(by_manifest(manifest), manifest, new[key]) == "", key
    for key, manifest in new.items():
        if key[0] == "Deployment":
            selected = manifest["spec"]["selector"]["matchLabels"]
            assert selected.items() <= manifest["spec"]["template"]["metadata"]["labels"].items()


def test_helm_upgrades_0_1_0_in_place(release: Release) -> None:
    assert release.put("install", chart=CHART_0_1_0, hooks=False) == ""
    claim = release.find("PersistentVolumeClaim", "macroscope-data")
    assert release.put("upgrade", hooks=False) == ""
    assert release.find("PersistentVolumeClaim", "macroscope-data") == claim
    assert release.password().startswith("macroscope:")


def test_the_password_that_was_made_outlives_upgrades_which_then_restart_nothing(
    release: Release,
) -> None:
    release.put("install", hooks=False)
    password, before = release.password(), [release.template(name) for name in READERS]
    assert release.put("upgrade", hooks=False) == ""
    assert release.password() == password
    assert [release.template(name) for name in READERS] == before


def test_a_secret_that_changed_restarts_what_reads_it_at_the_next_upgrade(
    release: Release,
) -> None:
    named = 'prefect={"existingSecret":"mine","authStringKey":"auth"}'
    release.keep_secret("mine", auth="me:one")
    release.put("install", named, hooks=False)
    before = {name: release.template(name) for name in (*READERS, "operator")}
    assert release.put("upgrade", named, hooks=False) == ""
    assert {name: release.template(name) for name in before} == before
    release.keep_secret("mine", auth="me:two")
    assert release.put("upgrade", named, hooks=False) == ""
    changed = {name for name in before if release.template(name) != before[name]}
    assert changed == set(READERS)


def test_a_password_that_was_deleted_is_made_anew(release: Release) -> None:
    release.put("install", hooks=False)
    password, before = release.password(), [release.template(name) for name in READERS]
    release.cluster.delete(SECRET, "macroscope-prefect")
    release.put("upgrade", hooks=False)
    assert release.password() != password
    assert all(release.template(name) != old for name, old in zip(READERS, before, strict=True))


def test_no_upgrade_shuts_out_the_runs_at_work(release: Release) -> None:
    """Their pods have no password, or the old one, until they end."""
    release.put("install", chart=CHART_0_1_0, hooks=False)
    run_at_work(release, "wise-fox", "macroscope")
    refusal = release.put("upgrade", hooks=False)
    assert "gets a password with this upgrade" in refusal
    assert "wise-fox" in refusal
    assert release.put("upgrade", OPEN, hooks=False) == ""
    release.cluster.delete(JOB, "wise-fox")
    run_at_work(release, "of-another-release", "other")
    assert release.put("upgrade", ASKING, hooks=False) == ""
    run_at_work(release, "calm-owl", "macroscope")
    assert release.put("upgrade", hooks=False) == ""
    release.cluster.delete(SECRET, "macroscope-prefect")
    refusal = release.put("upgrade", hooks=False)
    assert "changes with this upgrade" in refusal
    assert "calm-owl" in refusal


def test_what_the_notes_say_can_be_run(release: Release, tmp_path: Path) -> None:
    """The password of the UI, and a registration by hand with the chart's own job template."""
    quiet = ("--no-hooks", "--set", "register.enabled=false")
    notes = release.helm("install", "macroscope", str(CHART), *FLAGS, *quiet).stdout
    folder = Path(program("kubectl")).parent
    environ = {"PATH": f"{folder}:/usr/bin:/bin", "KUBECONFIG": str(release.cluster.kubeconfig())}

    def run(command: str) -> str:
        done = subprocess.run(
            ["sh", "-ec", command], cwd=tmp_path, env=environ, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    [password] = re.findall(r"it asks for: +(kubectl .*)", notes)
    assert run(password) == release.password()
    [loop] = re.findall(r"^ *for file in .*?done$", notes, re.M | re.S)
    run(loop)
    template = json.loads((tmp_path / "job-template.json").read_text())
    assert template["variables"]["properties"]["service_account_name"]["default"].endswith("-flow")
    assert "macroscope/full" in yaml.safe_load((tmp_path / "overrides.yaml").read_text())
    [command] = re.findall(r"python -m (flows\.register .*?\\\n.*)", notes)
    options = command.replace("\\", "").split()[1:]
    assert _parser().parse_args(options).overrides == Path("overrides.yaml")


def test_a_second_release_in_the_namespace_is_told_what_it_shares(release: Release) -> None:
    """One operator serves all Dask clusters of a namespace; names are cut to 40 letters."""
    long = "electron-microscopy-of-the-whole-laboratory"
    assert release.put("install", hooks=False) == ""

    def install(name: str, *words: str) -> str:
        done = release.helm("install", name, str(CHART), *FLAGS, "--no-hooks", *words)
        return done.stderr if done.returncode else ""  # where it installs, it may tell of its waits

    assert 'Release "macroscope" has a Dask operator in this namespace' in install("second")
    alone = ("--set", "operator.enabled=false")
    assert install("second", *alone) == ""
    assert install(f"{long}-a", *alone) == ""
    # helm says whose they are, and nothing is taken over
    assert f'current value is "{long}-a"' in install(f"{long}-b", *alone)
    assert install(f"{long}-b", *alone, "--set", "fullnameOverride=b") == ""


def run_at_work(release: Release, name: str, instance: str) -> None:
    """A flow's Job, as Prefect's worker makes it."""
    labels = {"macroscope/part": "flow", "app.kubernetes.io/instance": instance}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "flow", "image": "x"}], "restartPolicy": "Never"},
    }
    made = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}}
    release.cluster.apply({**made, "spec": {"template": template}})
    release.cluster.wait(
        lambda: release.cluster.store.get(JOB, "em", name)["status"].get("active"), 300, "at work"
    )
