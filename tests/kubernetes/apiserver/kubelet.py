"""Runs pods: one process for each container, its probes, its end, its restart."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kubernetes.apiserver.container import (
    ROOT,
    ContainerError,
    command,
    environment,
    mounts,
    volumes_of,
)
from tests.kubernetes.apiserver.kinds import POD
from tests.kubernetes.apiserver.store import Manifest, Store, now

MARK = "STANDIN_POD_UID"
KILL_S = 60.0  # what waits for a disk is not gone at once


@dataclass
class Running:
    """A pod that this node has taken."""

    ip: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    again_at: float = 0.0
    stop_at: float | None = None
    started: str = ""
    probed_at: float = 0.0
    ready: bool = False
    env: dict[str, str] = field(default_factory=dict)
    out_of_memory: bool = False
    last: dict[str, Any] = field(default_factory=dict)


class Kubelet:
    """One node, with room for every pod that asks for no particular one.

    Parameters
    ----------
    folder
        For logs, volumes and claims.
    network
        First three parts of the pods' addresses, all of them on the loopback: ``127.77.3``.
    client
        Environment for the pods of a service account whose token is mounted: how to reach the API.
    """

    def __init__(self, store: Store, folder: Path, network: str, hosts: Path, api: Any) -> None:
        self._store, self._folder, self._network = store, folder, network
        self._hosts, self._api = hosts, api
        self._count = 0
        self.assigned_id: int | None = None  # what a platform gives pods that bring no ids
        self.cordoned = False
        self.running: dict[str, Running] = {}

    def log_path(self, uid: str) -> Path:
        """Where the output of a pod lies."""
        return self._folder / "logs" / f"{uid}.log"

    def look(self) -> None:
        """One look at every pod."""
        pods = {pod["metadata"]["uid"]: pod for pod in self._store.list(POD)}
        for uid, pod in pods.items():
            self._look_at(uid, pod)
        for uid in set(self.running) - set(pods):  # deleted with no grace at all
            self._kill(uid)
            del self.running[uid]

    def out_of_memory(self, uid: str) -> None:
        """Kill every process of a pod, as the kernel does above the container's limit."""
        self.running[uid].out_of_memory = True
        _kill_all(members(uid))  # once: what comes then is the container that starts again

    def stop(self) -> None:
        """End every process of every pod."""
        for uid in list(self.running):
            self._kill(uid)

    def _look_at(self, uid: str, pod: Manifest) -> None:
        meta = pod["metadata"]
        mine = self.running.get(uid)
        if pod["status"]["phase"] in ("Succeeded", "Failed"):
            self._let_go(pod)
        elif mine is None:
            if "deletionTimestamp" in meta:
                self._status(pod, None, phase="Failed", code=143)
            elif pod["spec"].get("nodeSelector"):
                self._unschedulable(pod, "1 node(s) didn't match Pod's node selector")
            elif self.cordoned:
                self._unschedulable(pod, "1 node(s) were unschedulable")
            else:
                self._take(uid, pod)
        elif mine.process is None:
            if "deletionTimestamp" in meta:
                self._status(pod, mine, phase="Failed", code=143)
            elif time.monotonic() >= mine.again_at:
                self._start(uid, pod, mine)
        elif (code := mine.process.poll()) is not None:
            self._ended(uid, pod, mine, code)
        else:
            if "deletionTimestamp" in meta:
                self._ask_to_stop(uid, pod, mine)
            self._probe(pod, mine)

    def _let_go(self, pod: Manifest) -> None:
        meta = pod["metadata"]
        if "deletionTimestamp" in meta and not meta.get("finalizers"):
            self._store.remove(POD, meta["namespace"], meta["name"])

    def _take(self, uid: str, pod: Manifest) -> None:
        self._count += 1
        ip = f"{self._network}.{self._count % 250 + 2}"
        self.running[uid] = Running(ip, self._folder / "pods" / uid)
        self._start(uid, pod, self.running[uid])

    def _start(self, uid: str, pod: Manifest, mine: Running) -> None:
        container = pod["spec"]["containers"][0]
        try:
            given = environment(self._store, pod, container)
            where = mounts(self._store, pod, container, mine.folder, self._folder / "claims")
        except ContainerError as error:
            reason = {"reason": "CreateContainerConfigError", "message": str(error)}
            self._status(pod, mine, phase="Pending", waiting=reason)
            mine.again_at = time.monotonic() + 2
            return
        if self.assigned_id is not None and "runAsUser" in (pod["spec"]["securityContext"] or {}):
            raise ValueError(f"{pod['metadata']['name']} brings its own user: restricted-v2")
        words = command(container, given, where)
        mine.env = where.environment(given) | self._own(uid, pod, mine.ip)
        log = self.log_path(uid)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            mine.process = subprocess.Popen(
                [*self._become(pod, mine), *words],
                cwd=ROOT,
                env=mine.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        mine.started, mine.ready = now(), "readinessProbe" not in container
        self._status(pod, mine, phase="Running")

    def _become(self, pod: Manifest, mine: Running) -> list[str]:
        """Words before a command that make it run as the pod's user, where root runs the tests.

        It may read whatever root may, for the code lies in root's folders, and write its volumes.
        """
        if os.geteuid() != 0:
            return []
        context = pod["spec"].get("securityContext") or {}
        user = context.get("runAsUser") or self.assigned_id
        assert user, "no user is given, and this platform assigns none"
        group = context.get("runAsGroup") or 0
        fs_group = context.get("fsGroup") or self.assigned_id
        for place in volumes_of(pod, mine.folder, self._folder / "claims"):
            os.chown(place, -1, fs_group)
            place.chmod(0o2775)
        mine.folder.chmod(0o755)
        groups = f"--groups={fs_group}"
        able = [f"--{kind}=-all,+dac_read_search" for kind in ("inh-caps", "ambient-caps")]
        return ["setpriv", f"--reuid={user}", f"--regid={group}", groups, *able, "--"]

    def _own(self, uid: str, pod: Manifest, ip: str) -> dict[str, str]:
        """What a node gives a pod beside what the pod asks for."""
        own = {
            MARK: uid,
            "STANDIN_POD_IP": ip,
            "STANDIN_HOSTS": str(self._hosts),
            "PYTHONPATH": f"{Path(__file__).parent / 'site'}:{ROOT}",
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self._api.port),
            "HOSTNAME": pod["metadata"]["name"],
            "KUBECONFIG": os.devnull,
        }
        if pod["spec"].get("automountServiceAccountToken", True):
            account = pod["spec"].get("serviceAccountName", "default")
            own["KUBECONFIG"] = str(self._api.kubeconfig(pod["metadata"]["namespace"], account))
        return own

    def _ask_to_stop(self, uid: str, pod: Manifest, mine: Running) -> None:
        assert mine.process is not None
        grace = pod["metadata"].get("deletionGracePeriodSeconds", 30)
        if mine.stop_at is None:
            mine.stop_at = time.monotonic() + grace
            mine.process.send_signal(signal.SIGTERM if grace else signal.SIGKILL)
        elif time.monotonic() > mine.stop_at:
            self._kill(uid)

    def _ended(self, uid: str, pod: Manifest, mine: Running, code: int) -> None:
        code = 128 - code if code < 0 else code
        self._kill(uid)  # whatever the first process of the pod left behind
        mine.process = None
        policy = pod["spec"].get("restartPolicy", "Always")
        again = policy == "Always" or (policy == "OnFailure" and code)
        if "deletionTimestamp" in pod["metadata"] or not again:
            self._status(pod, mine, phase="Failed" if code else "Succeeded", code=code)
            return
        mine.restarts += 1
        mine.again_at = time.monotonic() + min(2.0**mine.restarts / 2, 30)
        mine.ready = False
        reason = _reason(code, mine)
        mine.last = {"terminated": {"exitCode": code, "reason": reason, "finishedAt": now()}}
        mine.out_of_memory = False
        why = {"reason": "CrashLoopBackOff", "message": f"exit code {code}"}
        self._status(pod, mine, phase="Running", waiting=why)

    def _probe(self, pod: Manifest, mine: Running) -> None:
        probe = pod["spec"]["containers"][0].get("readinessProbe")
        if probe is None or mine.ready or time.monotonic() < mine.probed_at:
            return
        mine.probed_at = time.monotonic() + 0.5
        if _passes(probe, pod["spec"]["containers"][0], mine.ip):
            mine.ready = True
            self._status(pod, mine, phase="Running")

    def _kill(self, uid: str) -> None:
        deadline = time.monotonic() + KILL_S
        while (left := members(uid)) and time.monotonic() < deadline:  # they may have begun others
            _kill_all(left)
            time.sleep(0.01)
        mine = self.running.get(uid)
        if mine is not None and mine.process is not None:
            mine.process.wait()

    def _unschedulable(self, pod: Manifest, why: str) -> None:
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": f"0/1 nodes are available: {why}.",
        }
        self._write(pod, {"phase": "Pending", "conditions": [condition]})

    def _status(
        self,
        pod: Manifest,
        mine: Running | None,
        *,
        phase: str,
        code: int | None = None,
        waiting: Mapping[str, str] | None = None,
    ) -> None:
        container = pod["spec"]["containers"][0]
        running = phase == "Running" and waiting is None
        ready = running and mine is not None and mine.ready
        state: dict[str, Any] = {"running": {"startedAt": mine.started if mine else now()}}
        if waiting is not None:
            state = {"waiting": dict(waiting)}
        elif code is not None:
            reason = _reason(code, mine)
            started = mine.started if mine and mine.started else now()
            state = {
                "terminated": {
                    "exitCode": code,
                    "reason": reason,
                    "startedAt": started,
                    "finishedAt": now(),
                }
            }
        flags = {
            "PodScheduled": True,
            "Initialized": True,
            "ContainersReady": ready,
            "Ready": ready,
        }
        status = {
            "phase": phase,
            "hostIP": "127.0.0.1",
            "startTime": pod["status"].get("startTime") or now(),
            "conditions": [{"type": key, "status": str(value)} for key, value in flags.items()],
            "containerStatuses": [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "imageID": container["image"],
                    "ready": ready,
                    "started": running,
                    "restartCount": mine.restarts if mine else 0,
                    "state": state,
                    "lastState": mine.last if mine else {},
                }
            ],
        }
        if mine is not None:
            status |= {"podIP": mine.ip, "podIPs": [{"ip": mine.ip}]}
        self._write(pod, status)

    def _write(self, pod: Manifest, status: Manifest) -> None:
        meta = pod["metadata"]
        if status != pod["status"]:
            self._store.change(
                POD, meta["namespace"], meta["name"], lambda m: m.update(status=status)
            )


def _reason(code: int, mine: Running | None) -> str:
    if mine is not None and mine.out_of_memory:
        return "OOMKilled"
    return "Error" if code else "Completed"


def _kill_all(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def members(uid: str) -> list[int]:
    """Processes that belong to a pod, also those that began a session of their own."""
    mark = f"{MARK}={uid}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def _passes(probe: Manifest, container: Manifest, ip: str) -> bool:
    what = probe.get("httpGet") or probe["tcpSocket"]
    ports = {port["name"]: port["containerPort"] for port in container.get("ports") or []}
    port = ports.get(what["port"], what["port"])
    try:
        if "httpGet" not in probe:
            socket.create_connection((ip, port), timeout=10).close()
            return True
        with urllib.request.urlopen(f"http://{ip}:{port}{what['path']}", timeout=10) as answer:
            return bool(answer.status < 400)
    except (OSError, http.client.HTTPException):  # one that ends in the middle of its answer
        return False
