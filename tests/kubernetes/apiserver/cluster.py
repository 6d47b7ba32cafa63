"""A whole stand-in cluster: API, control plane and one node, in threads of this process."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import yaml
from aiohttp import web

from tests.kubernetes.apiserver import kinds
from tests.kubernetes.apiserver.access import ADMIN, Access
from tests.kubernetes.apiserver.controllers import is_ready, reconcile
from tests.kubernetes.apiserver.kinds import POD, SERVICE, Kind
from tests.kubernetes.apiserver.kubelet import Kubelet, members
from tests.kubernetes.apiserver.store import ApiError, Manifest, Store
from tests.kubernetes.apiserver.web import Admission, Api

_networks = itertools.count(1)
LOOK_S = 0.2


class Cluster:
    """Keeps objects and runs pods, from ``with`` to its end; then every process of a pod is gone.

    Parameters
    ----------
    folder
        For kubeconfigs, logs, volumes and claims.
    admission
        Says why an object is refused, or None.
    """

    def __init__(self, folder: Path, admission: Admission = lambda _: None) -> None:
        self.folder = folder
        self.store = Store()
        self.access = Access(self.store)
        self.port = 0
        network = f"127.{os.getpid() % 200 + 20}.{next(_networks) % 250}"
        self._hosts = folder / "hosts.json"
        self.kubelet = Kubelet(self.store, folder, network, self._hosts, self)
        self.api = Api(self.store, self.access, admission, self.kubelet.log_path)
        self._loop = asyncio.new_event_loop()
        self._runner: web.AppRunner | None = None
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._serve, name="stand-in API"),
            threading.Thread(target=self._control, name="stand-in control plane"),
        ]
        self._up = threading.Event()
        self.troubles: list[BaseException] = []

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_hosts()
        self._threads[0].start()
        assert self._up.wait(120)
        self._threads[1].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._threads[1].join()
        self.kubelet.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._threads[0].join()
        assert not self.troubles, self.troubles

    def kubeconfig(self, namespace: str = "em", account: str = "") -> Path:
        """A kubeconfig for a service account, or for the administrator."""
        path = self.folder / f"kubeconfig-{account or ADMIN}.yaml"
        token = f"{namespace}:{account}" if account else ADMIN
        port = self.port if account else self.api.admin_port  # Go's clients send no token over HTTP
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [
                {"name": "x", "context": {"cluster": "c", "user": "u", "namespace": namespace}}
            ],
            "current-context": "x",
        }
        _write(path, yaml.safe_dump(document))
        return path

    def apply(self, manifest: Manifest, namespace: str = "em") -> Manifest:
        """Make an object, as an administrator."""
        return self.store.create(manifest, namespace)

    def pods(self, namespace: str = "em", **labels: str) -> list[Manifest]:
        """Pods with some labels (``__`` for a slash, ``_`` for a dash)."""
        wanted = {key.replace("__", "/").replace("_", "-"): v for key, v in labels.items()}
        return [
            pod
            for pod in self.store.list(POD, namespace)
            if wanted.items() <= (pod["metadata"].get("labels") or {}).items()
        ]

    def log(self, pod: Manifest) -> str:
        """What a pod has printed."""
        path = self.kubelet.log_path(pod["metadata"]["uid"])
        return path.read_text(errors="replace") if path.exists() else ""

    def environment(self, pod: Manifest) -> dict[str, str]:
        """The environment in which a pod runs, for a command beside it (``kubectl exec``)."""
        return dict(self.kubelet.running[pod["metadata"]["uid"]].env)

    def address(self, pod: Manifest) -> str:
        """The pod's own address."""
        return self.kubelet.running[pod["metadata"]["uid"]].ip

    def processes(self, pod: Manifest) -> list[int]:
        """Processes of a pod that still run."""
        return members(pod["metadata"]["uid"])

    def delete(self, kind: Kind, name: str, namespace: str = "em", **how: Any) -> None:
        """Delete an object, as ``kubectl delete`` does; ``grace_seconds=0`` forces it."""
        self.store.delete(kind, namespace, name, **({"propagation": "Background"} | how))

    def out_of_memory(self, pod: Manifest) -> None:
        """Kill a pod's container for its memory: SIGKILL, 137, OOMKilled."""
        self.kubelet.out_of_memory(pod["metadata"]["uid"])

    @contextmanager
    def drained(self) -> Iterator[None]:
        """Evict every pod, and take no new one until the block ends."""
        self.kubelet.cordoned = True
        gone = {pod["metadata"]["uid"]: pod for pod in self.store.list(POD)}
        for pod in gone.values():
            with suppress(ApiError):  # one that went by itself
                self.delete(POD, pod["metadata"]["name"], pod["metadata"]["namespace"])
        self.wait(lambda: not gone.keys() & self.kubelet.running.keys(), 900, "node drained")
        try:
            yield
        finally:
            self.kubelet.cordoned = False

    def wait(self, what: Callable[[], Any], seconds: float, doing: str) -> Any:
        """Wait until something is so, and return it; an AssertionError says what was not."""
        deadline = time.monotonic() + seconds
        while not (found := what()):
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {doing}"
            time.sleep(LOOK_S)
        return found

    @contextmanager
    def away(self) -> Iterator[None]:
        """The API server does not answer, and has hung up on everybody."""
        self.api.away = True
        self._loop.call_soon_threadsafe(self.api.hang_up)
        try:
            yield
        finally:
            self.api.away = False

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._up.set()
        self._loop.run_forever()
        self.api.hang_up()
        assert self._runner is not None
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    async def _start(self) -> None:
        self._runner = web.AppRunner(
            self.api.application(), access_log=None, shutdown_timeout=1, handler_cancellation=True
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port, self.api.admin_port = (address[1] for address in self._runner.addresses)

    def _control(self) -> None:
        while not self._stop.wait(LOOK_S):
            try:
                with self.store.lock:  # nobody deletes what it has just listed
                    reconcile(self.store)
                self.kubelet.look()
                self._write_hosts()
            except BaseException as error:
                self.troubles.append(error)
                raise

    def _write_hosts(self) -> None:
        """Names of Services and the pods behind them; a Service without a pod refuses."""
        services: dict[str, str] = {}
        for service in self.store.list(SERVICE):
            name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
            ip = self._endpoint(service) or "127.255.255.253"
            for alias in (name, f"{name}.{namespace}", f"{name}.{namespace}.svc.cluster.local"):
                services[alias] = ip
        _write(self._hosts, json.dumps({"services": services, "namespaces": ["em"]}))

    def _endpoint(self, service: Manifest) -> str | None:
        selector = (service["spec"].get("selector") or {}).items()
        for pod in self.store.list(POD, service["metadata"]["namespace"]):
            alive = "deletionTimestamp" not in pod["metadata"] and is_ready(pod)
            if alive and selector <= (pod["metadata"].get("labels") or {}).items():
                return self.address(pod)
        return None


def _write(path: Path, text: str) -> None:
    """Write what pods read at any moment: nobody sees half of it."""
    if not path.exists() or path.read_text() != text:
        other = path.with_suffix(f".{threading.get_ident()}")  # a test writes some, too
        other.write_text(text)
        other.replace(path)


__all__ = ["Cluster", "kinds"]
