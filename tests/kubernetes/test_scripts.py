"""The kind scripts, run against programs that only write down how they were called."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from lib.kubernetes.dask_cluster import restricted_pod
from tests.kubernetes.kube_checks import pod_specs, restricted_violations, validate

SECURITY = json.dumps(restricted_pod())
ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "k8s").rglob("*.sh"))


@pytest.fixture
def recorder(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """An environment whose docker, kind, kubectl and helm append their arguments to a file."""
    log = tmp_path / "calls"
    for name in ("docker", "kind", "kubectl", "helm"):
        path = tmp_path / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\ncat > /dev/null < /dev/null\n')
        path.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}, log


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_is_valid_shell(script: Path) -> None:
    done = subprocess.run(["sh", "-n", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "set -eu" in script.read_text()


def test_kind_up_builds_loads_and_installs_in_this_order(
    recorder: tuple[dict[str, str], Path], tmp_path: Path
) -> None:
    environ, log = recorder
    script = str(ROOT / "k8s" / "kind-up.sh")
    done = subprocess.run(["sh", script], cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    calls = log.read_text().splitlines()
    wanted = [
        "kind create cluster",
        "docker build --build-arg LOCK=samples --tag macroscope:0.1.0",
        "kind load docker-image macroscope:0.1.0",
        "kubectl label namespace em pod-security.kubernetes.io/enforce=restricted",
        "kubectl apply --server-side -f helm/macroscope/crds",
        "helm upgrade --install macroscope helm/macroscope --namespace em",
    ]
    places = [next(i for i, call in enumerate(calls) if call.startswith(w)) for w in wanted]
    assert places == sorted(places)
    assert "image.repository=macroscope --set-string image.tag=0.1.0" in calls[places[-1]]


def test_kind_up_says_which_program_is_missing(tmp_path: Path) -> None:
    environ = {**os.environ, "CONTAINER_ENGINE": "no-such-engine"}
    script = str(ROOT / "k8s" / "kind-up.sh")
    done = subprocess.run(["sh", script], env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "kind-up needs no-such-engine\n")


def test_image_is_built_only_when_asked_for(recorder: tuple[dict[str, str], Path]) -> None:
    environ, log = recorder
    command = ["sh", str(ROOT / "k8s" / "image.sh"), "build"]
    quiet = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert quiet.stdout.strip() == "macroscope:0.1.0"
    assert not log.exists()
    asked = {**environ, "MACROSCOPE_BUILD_IMAGE": "1", "MACROSCOPE_IMAGE": "r.example/m:2"}
    subprocess.run(command, cwd=ROOT, env=asked, check=True, capture_output=True)
    assert log.read_text() == "docker build --build-arg LOCK=image --tag r.example/m:2 .\n"


def test_store_get_reads_the_claim_from_a_restricted_pod_that_it_takes_away_again(
    tmp_path: Path,
) -> None:
    store = tmp_path / "store"
    (store / "data" / "ebi").mkdir(parents=True)
    (store / "data" / "ebi" / "v.ome.zarr").write_text("voxels")
    fake = f"""#!/bin/sh
    shift 4  # --context, --namespace
    case "$1" in
      get) case "$*" in
        *securityContext*) printf '%s' '{SECURITY}' ;;
        *"-o name") printf 'deployment.apps/mine-macroscope-worker' ;;
        *persistentvolumeclaim*) printf 'mine-macroscope-data' ;;
        *) printf 'macroscope:0.1.0' ;;
      esac ;;
      create) cat > {tmp_path}/pod.yaml ;;
      exec) tar -C {store} -cf - data ;;
      delete) echo "$*" > {tmp_path}/deleted ;;
    esac
    """
    (tmp_path / "kubectl").write_text(fake)
    (tmp_path / "kubectl").chmod(0o755)
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["sh", str(ROOT / "k8s" / "store-get.sh"), "data", str(tmp_path / "here")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here" / "data" / "ebi" / "v.ome.zarr").read_text() == "voxels"
    pod = yaml.safe_load((tmp_path / "pod.yaml").read_text())
    validate(pod)
    assert [bad for _, spec in pod_specs(pod) for bad in restricted_violations(spec)] == []
    mounts = {mount["name"]: mount for mount in pod["spec"]["containers"][0]["volumeMounts"]}
    assert mounts["data"]["readOnly"] is True
    assert (tmp_path / "deleted").read_text().startswith(f"delete pod {pod['metadata']['name']}")
