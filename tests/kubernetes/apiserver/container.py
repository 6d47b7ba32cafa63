"""A container's command and environment, made to run on this machine as a plain process.

There are no mounts: every path below a mount is rewritten to the folder that stands for the volume,
in the environment and in the arguments.
"""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.kubernetes.apiserver.kinds import CONFIGMAP, SECRET
from tests.kubernetes.apiserver.selecting import at
from tests.kubernetes.apiserver.store import Manifest, Store

ROOT = Path(__file__).parents[3]
HOME = "/opt/macroscope"
_ENV = re.compile(r"^ENV ((?:.*\\\n)*.*)$", re.MULTILINE)


class ContainerError(Exception):
    """The container cannot be made: something that it names is not there."""


def image_environment() -> dict[str, str]:
    """The ENV of the one image, from the Dockerfile."""
    found = _ENV.search((ROOT / "Dockerfile").read_text())
    assert found is not None
    words = found[1].replace("\\\n", " ").split()
    return dict(word.split("=", 1) for word in words)


def environment(store: Store, pod: Manifest, container: Manifest) -> dict[str, str]:
    """Image, envFrom and env, the later over the earlier; paths still as in the pod.

    Raises
    ------
    ContainerError
        A ConfigMap or Secret that is not optional is not there.
    """
    found = image_environment()
    namespace = pod["metadata"]["namespace"]
    for source in container.get("envFrom") or []:
        for key, kind in (("configMapRef", CONFIGMAP), ("secretRef", SECRET)):
            if key in source:
                found |= _data(store, kind.name, namespace, source[key])
    for entry in container.get("env") or []:
        if "valueFrom" in entry:
            found |= _value_from(store, pod, entry)
        else:
            found[entry["name"]] = _expanded(str(entry.get("value") or ""), found)
    return found


def _value_from(store: Store, pod: Manifest, entry: Manifest) -> dict[str, str]:
    source = entry["valueFrom"]
    if "fieldRef" in source:
        return {entry["name"]: str(at(pod, source["fieldRef"]["fieldPath"]) or "")}
    for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        if key in source:
            reference = source[key]
            data = _data(store, kind, pod["metadata"]["namespace"], reference)
            if reference["key"] in data:
                return {entry["name"]: data[reference["key"]]}
            if not reference.get("optional"):
                raise ContainerError(f"{kind} {reference['name']} has no key {reference['key']}")
    return {}


def _data(store: Store, kind: str, namespace: str, reference: Manifest) -> dict[str, str]:
    found = store.find(CONFIGMAP if kind == "ConfigMap" else SECRET, namespace, reference["name"])
    if found is None:
        if reference.get("optional"):
            return {}
        raise ContainerError(f'{kind.lower()} "{reference["name"]}" not found')
    data = {key: str(value) for key, value in (found.get("data") or {}).items()}
    if kind == "Secret":
        data = {key: base64.b64decode(value).decode() for key, value in data.items()}
        data |= {key: str(value) for key, value in (found.get("stringData") or {}).items()}
    return data


def mounts(store: Store, pod: Manifest, container: Manifest, folder: Path, claims: Path) -> Mounts:
    """Lay out the volumes of a container below ``folder`` (claims: below ``claims``)."""
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes") or []}
    places = {HOME: ROOT}
    for mount in container.get("volumeMounts") or []:
        volume = volumes[mount["name"]]
        if claim := at(volume, "persistentVolumeClaim.claimName"):
            place = claims / claim
        else:
            place = folder / mount["name"]
        place.mkdir(parents=True, exist_ok=True)
        if "configMap" in volume:
            data = _data(store, "ConfigMap", pod["metadata"]["namespace"], volume["configMap"])
            for name, text in data.items():
                (place / name).write_text(text)
        places[mount["mountPath"]] = place
    # a worker hands its own settings to the pods that it starts, and so the folder of its /tmp
    foreign = re.compile(rf"{re.escape(str(folder.parent))}/[0-9a-f-]{{36}}/tmp")
    return Mounts(places, foreign)


def volumes_of(pod: Manifest, folder: Path, claims: Path) -> list[Path]:
    """The folders of a pod's volumes that it may write: claims and empty ones."""
    found = []
    for volume in pod["spec"].get("volumes") or []:
        claim = at(volume, "persistentVolumeClaim.claimName")
        place = claims / claim if claim else folder / volume["name"]
        if place.exists() and (claim or "emptyDir" in volume):
            found.append(place)
    return found


class Mounts:
    """Where the paths of a container are on this machine."""

    def __init__(self, places: Mapping[str, Path], foreign: re.Pattern[str]) -> None:
        self._places, self._foreign = dict(places), foreign
        paths = "|".join(re.escape(path) for path in sorted(places, key=len, reverse=True))
        self._path = re.compile(rf"(?<![\w.-])({paths})(?=[/\"',:;\s]|$)")

    def here(self, text: str) -> str:
        """A text with every path below a mount rewritten."""
        text = self._foreign.sub("/tmp", text)
        return self._path.sub(lambda found: str(self._places[found[1]]), text)

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """An environment with its paths rewritten, and this machine's interpreter first in PATH."""
        found = {name: self.here(value) for name, value in given.items()}
        found["PATH"] = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
        found["TMPDIR"] = str(self._places.get("/tmp", "/tmp"))
        return found


def command(container: Manifest, env: Mapping[str, str], where: Mounts) -> list[str]:
    """The words to run."""
    words: Iterable[str] = [*(container.get("command") or []), *(container.get("args") or [])]
    return [where.here(_expanded(str(word), env)) for word in words]


def _expanded(text: str, env: Mapping[str, str]) -> str:
    return re.sub(r"\$\((\w+)\)", lambda found: env.get(found[1], found[0]), text)
