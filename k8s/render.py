"""Write k8s/base and k8s/overlays/kind from the chart, for those who want plain manifests.

python k8s/render.py  writes them with the helm that HELM names (helm)

The chart is the one source of the manifests. What helm alone understands is left out: hooks,
tests, its labels. The registration stays, as a Job to be applied again after a change. Dask's
custom resource definitions are applied from the chart's folder, for they exceed what a client-side
apply can carry.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
CHART = HERE.parent / "helm" / "macroscope"
NAMESPACE, RELEASE = "em", "macroscope"
# A password cannot be made by plain manifests; docs/kubernetes.md has the command that does.
SECRET = (
    "--set=prefect.existingSecret=macroscope-prefect",
    "--set=prefect.authStringKey=auth-string",
)
KIND_VALUES = HERE / "kind-values.yaml"
Manifest = dict[str, Any]
Files = dict[str, str]  # path below k8s/ -> content


class _Blocks(yaml.SafeDumper):
    """Multi-line text as a block, so that a diff shows lines."""


_Blocks.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def helm_template(helm: str, *arguments: str) -> list[Manifest]:
    """All objects that the chart renders, hooks included."""
    command = [helm, "template", RELEASE, str(CHART), "--namespace", NAMESPACE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, ten times as fast
    return [document for document in yaml.load_all(done.stdout, loader) if document]


def plain(objects: list[Manifest]) -> dict[str, Manifest]:
    """Without what only helm understands; ``Kind/name`` to object."""
    found = {}
    for manifest in objects:
        meta = manifest["metadata"]
        annotations = meta.pop("annotations", {})
        hook = annotations.get("helm.sh/hook", "")
        if hook in ("test", "pre-delete"):
            continue
        if kept := {k: v for k, v in annotations.items() if not k.startswith("helm.sh/")}:
            meta["annotations"] = kept
        meta["labels"].pop("helm.sh/chart")
        meta["labels"]["app.kubernetes.io/managed-by"] = "kustomize"
        found[f"{manifest['kind']}/{meta['name']}"] = manifest
    return found


def by_component(objects: Mapping[str, Manifest]) -> dict[str, list[Manifest]]:
    """Objects by the part that they belong to, which is also the name of their file."""
    parts: dict[str, list[Manifest]] = {}
    for key in sorted(objects):
        part = objects[key]["metadata"]["labels"]["app.kubernetes.io/component"]
        parts.setdefault(part, []).append(objects[key])
    return parts


def _dump(*documents: Any) -> str:
    return yaml.dump_all(documents, Dumper=_Blocks, sort_keys=False, width=100)


def _kustomization(**fields: Any) -> str:
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    return "# Written by k8s/render.py.\n" + _dump(head | fields)


def render(helm: str) -> Files:
    """Every generated file below k8s/."""
    base = plain(helm_template(helm, *SECRET))
    kind = plain(helm_template(helm, *SECRET, "--values", str(KIND_VALUES)))
    parts = by_component(base)
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": NAMESPACE,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        },
    }
    files: Files = {"base/namespace.yaml": _dump(namespace)}
    files |= {f"base/{part}.yaml": _dump(*objects) for part, objects in parts.items()}
    files["base/kustomization.yaml"] = _kustomization(
        namespace=NAMESPACE,
        resources=["namespace.yaml", *(f"{part}.yaml" for part in parts)],
    )
    added = [kind[key] for key in sorted(kind) if key not in base]
    changed = [kind[key] for key in sorted(kind) if key in base and kind[key] != base[key]]
    files["overlays/kind/added.yaml"] = _dump(*added)
    files["overlays/kind/changed.yaml"] = _dump(*changed)
    files["overlays/kind/kustomization.yaml"] = _kustomization(
        namespace=NAMESPACE,
        resources=["../../base", "added.yaml"],
        patches=[{"path": "changed.yaml"}],
    )
    return files


def main() -> int:
    """Write the files; returns the exit code."""
    files = render(os.environ.get("HELM", "helm"))
    for folder in (HERE / "base", HERE / "overlays" / "kind"):
        shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        path = HERE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    print(json.dumps({"written": len(files)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
