"""Plain manifests: what `kubectl kustomize` makes of k8s/ is what the chart makes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from k8s.render import KIND_VALUES, SECRET, helm_template, plain
from k8s.render import render as render_manifests
from tests.kit.documents import documents
from tests.kubernetes.kube_binaries import program
from tests.kubernetes.kube_checks import pod_specs, restricted_violations, validate

K8S = Path(__file__).parents[2] / "k8s"


def kustomize(folder: str) -> list[dict[str, Any]]:
    command = [program("kubectl"), "kustomize", str(K8S / folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return documents(done.stdout)


def test_generated_manifests_are_current() -> None:
    wanted = render_manifests(program("helm"))
    folders = (K8S / "base", K8S / "overlays")
    there = {
        str(path.relative_to(K8S)): path.read_text()
        for folder in folders
        for path in folder.rglob("*.yaml")
    }
    assert there == wanted, "run: python k8s/render.py"


@pytest.mark.parametrize(
    ("folder", "values"),
    [("base", ()), ("overlays/kind", ("--values", str(KIND_VALUES)))],
)
def test_kustomize_builds_what_the_chart_renders(folder: str, values: tuple[str, ...]) -> None:
    wanted = plain(helm_template(program("helm"), *SECRET, *values))
    built = {f"{o['kind']}/{o['metadata']['name']}": o for o in kustomize(folder)}
    namespace = built.pop("Namespace/em")
    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    for manifest in built.values():
        assert manifest["metadata"].pop("namespace") == "em"
    assert built == wanted


def test_kind_overlay_is_valid_and_restricted() -> None:
    for manifest in kustomize("overlays/kind"):
        validate(manifest)
        for name, pod in pod_specs(manifest):
            assert restricted_violations(pod) == [], name
