"""The HTTP side: paths, verbs, watches."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from tests.kubernetes.apiserver import kinds, protobuf
from tests.kubernetes.apiserver.access import ADMIN, Access, Request
from tests.kubernetes.apiserver.kinds import POD, Kind, changed_for_good
from tests.kubernetes.apiserver.selecting import at, matches_fields, matches_labels, patched
from tests.kubernetes.apiserver.store import ApiError, Change, Manifest, Store

Admission = Callable[[Manifest], str | None]
VERSION = {"major": "1", "minor": "36", "gitVersion": "v1.36.2"}


class Api:
    """The API of one stand-in cluster.

    Parameters
    ----------
    admission
        Says why an object that is about to be made is refused, or None.
    log_path
        Where the output of a pod lies, by its UID.
    """

    def __init__(
        self, store: Store, access: Access, admission: Admission, log_path: Callable[[str], Path]
    ) -> None:
        self._store, self._access = store, access
        self._admission, self._log_path = admission, log_path
        self.away = False
        self.admin_port = 0  # where whoever asks is the administrator, as behind ``kubectl proxy``
        self.seen: list[str] = []
        self._watches: set[asyncio.Task[Any]] = set()

    def application(self) -> web.Application:
        """The application to serve."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    def hang_up(self) -> None:
        """End every watch, as a server does that goes away."""
        for task in list(self._watches):
            task.cancel()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.away:
            assert request.transport is not None
            request.transport.abort()
            return web.Response(status=503)
        try:
            return await self._route(request)
        except ApiError as error:
            return web.json_response(error.document(), status=error.status)

    async def _route(self, request: web.Request) -> web.StreamResponse:
        parts = [part for part in request.path.split("/") if part]
        match parts:
            case ["version"]:
                return web.json_response(VERSION)
            case ["healthz"] | ["readyz"] | ["livez"]:
                return web.Response(text="ok")
            case ["api"]:
                return web.json_response(kinds.api_versions())
            case ["apis"]:
                return web.json_response(kinds.api_groups())
            case ["openapi", "v3", *place] if described := kinds.openapi("/".join(place)):
                return web.json_response(described)
            case ["api", version, *rest]:
                group = ""
            case ["apis", group, version, *rest]:
                pass
            case _:
                raise ApiError(404, "NotFound", "the server could not find the requested resource")
        if not rest:
            if (listed := kinds.api_resources(group, version)) is None:
                raise ApiError(404, "NotFound", f"no group {group}/{version}")
            return web.json_response(listed)
        return await self._resource(request, group, version, rest)

    async def _resource(
        self, request: web.Request, group: str, version: str, rest: list[str]
    ) -> web.StreamResponse:
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        kind = kinds.by_path(group, version, rest[0])
        if kind is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        name = rest[1] if len(rest) > 1 else ""
        more = rest[2] if len(rest) > 2 else ""
        if more and more not in kind.subresources:
            raise ApiError(404, "NotFound", f"{kind.plural} have no {more}")
        watching = request.query.get("watch", "").lower() in ("1", "true")
        verb = _verb(request.method, name, watching)
        self._allow(request, Request(verb, kind, namespace, more))
        if "sendInitialEvents" in request.query:  # as of an API server without streaming lists
            raise ApiError(422, "Invalid", "sendInitialEvents is forbidden for watch")
        if watching:
            return await self._watch(request, kind, namespace, name)
        if request.method == "GET" and more == "log":
            return self._logs(namespace, name)
        body = await _body(request)
        if request.method == "POST" and "dryRun" in request.query:
            return web.json_response(body, status=201)
        match request.method:
            case "GET" if name:
                return web.json_response(_shown(self._store.get(kind, namespace, name), more))
            case "GET":
                return web.json_response(self._list(request, kind, namespace))
            case "POST" if not name:
                return web.json_response(self._create(kind, namespace, body), status=201)
            case "PATCH" | "PUT":
                how = request.content_type if request.method == "PATCH" else "put"
                if "apply-patch" in how and self._store.find(kind, namespace, name) is None:
                    return web.json_response(self._create(kind, namespace, body), status=201)
                done = self._edit(kind, (namespace, name), more, body, how)
                return web.json_response(_shown(done, more))
            case "DELETE" if name:
                return web.json_response(self._delete(request, kind, namespace, name, body))
        raise ApiError(405, "MethodNotAllowed", f"{request.method} is not done here")

    def _allow(self, request: web.Request, asked: Request) -> None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        assert request.transport is not None
        if request.transport.get_extra_info("sockname")[1] == self.admin_port:
            token = ADMIN
        self.seen.append(f"{token} {asked.verb} {asked.resource}")
        self._access.check(token, asked)

    def _create(self, kind: Kind, namespace: str, body: Manifest) -> Manifest:
        body = {"apiVersion": kind.api_version, "kind": kind.name} | body
        if why := self._admission(body):
            raise ApiError(403, "Forbidden", why)
        return self._store.create(body, namespace)

    def _edit(self, kind: Kind, where: tuple[str, str], more: str, body: Any, how: str) -> Manifest:
        with self._store.lock:
            old = self._store.get(kind, *where)
            if more == "scale":
                body = {"spec": {_replicas_field(kind): at(body, "spec.replicas")}}
                body = _nested(body) if kind.group == "kubernetes.dask.org" else body
            try:
                if how == "put" or "apply-patch" in how:
                    new = {**body, "metadata": {**_kept(old), **body["metadata"]}}
                else:
                    new = patched(old, body, how)
            except ValueError as error:
                raise ApiError(422, "Invalid", str(error)) from None
            asked = new["metadata"].get("resourceVersion")
            if asked not in (None, old["metadata"]["resourceVersion"]):
                raise ApiError(409, "Conflict", "the object has been modified")
            if more == "status":
                new = {**old, "status": new.get("status") or {}}
            elif "status" in kind.subresources:
                new = {**new, "status": old.get("status") or {}}
            if fixed := changed_for_good(kind, old, new):
                text = (
                    f"{kind.name}.{kind.group} {where[1]!r} is invalid: {fixed}: field is immutable"
                )
                raise ApiError(422, "Invalid", text)
            if old.get("spec") != new.get("spec"):
                new["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1
            return self._store.replace(kind, old, new)

    def _delete(
        self, request: web.Request, kind: Kind, namespace: str, name: str, body: Manifest
    ) -> Manifest:
        given = body.get("gracePeriodSeconds", request.query.get("gracePeriodSeconds"))
        return self._store.delete(
            kind,
            namespace,
            name,
            propagation=body.get("propagationPolicy") or request.query.get("propagationPolicy"),
            grace_seconds=None if given is None else float(given),
        )

    def _list(self, request: web.Request, kind: Kind, namespace: str) -> Manifest:
        with self._store.lock:
            items = [m for m in self._store.list(kind, namespace) if _selected(request, m)]
            version = str(self._store.version)
        return {
            "kind": f"{kind.name}List",
            "apiVersion": kind.api_version,
            "metadata": {"resourceVersion": version},
            "items": items,
        }

    def _logs(self, namespace: str, name: str) -> web.Response:
        pod = self._store.get(POD, namespace, name)
        path = self._log_path(pod["metadata"]["uid"])
        return web.Response(text=path.read_text(errors="replace") if path.exists() else "")

    async def _watch(
        self, request: web.Request, kind: Kind, namespace: str, name: str
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        with contextlib.suppress(ConnectionError):  # the client may be gone already
            await response.prepare(request)
        task = asyncio.ensure_future(self._stream(request, response, kind, (namespace, name)))
        self._watches.add(task)
        seconds = float(request.query.get("timeoutSeconds") or 1800)
        try:
            with contextlib.suppress(TimeoutError, ConnectionError, asyncio.CancelledError):
                await asyncio.wait_for(task, seconds)
        finally:
            self._watches.discard(task)
        if self.away and request.transport is not None:
            request.transport.abort()
        return response

    async def _stream(
        self, request: web.Request, response: web.StreamResponse, kind: Kind, where: tuple[str, str]
    ) -> None:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Change] = asyncio.Queue()

        def tell(change: Change) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, change)

        def wanted(manifest: Manifest | None) -> bool:
            if manifest is None or where[0] not in ("", manifest["metadata"].get("namespace")):
                return False
            return where[1] in ("", manifest["metadata"]["name"]) and _selected(request, manifest)

        async def send(what: str, manifest: Manifest) -> None:
            await response.write(json.dumps({"type": what, "object": manifest}).encode() + b"\n")

        since = request.query.get("resourceVersion") or "0"
        with self._store.lock:
            missed = self._store.changes_since(int(since) or self._store.version, tell)
            first = self._store.list(kind) if since == "0" else []
        try:
            for manifest in filter(wanted, first):
                await send("ADDED", manifest)
            for change in missed:
                queue.put_nowait(change)
            while True:
                _, changed, old, new = await queue.get()
                if changed != kind:
                    continue
                if new is not None and wanted(new):
                    await send("MODIFIED" if wanted(old) else "ADDED", new)
                elif old is not None and wanted(old):
                    await send("DELETED", new or old)
        finally:
            self._store.forget(tell)


async def _body(request: web.Request) -> Any:
    """What was sent, in any of the three forms of the API's clients."""
    if not request.can_read_body:
        return {}
    if "protobuf" in request.content_type:
        return protobuf.secret(await request.read())
    text = await request.text()
    return yaml.safe_load(text) if "yaml" in request.content_type else json.loads(text)


def _verb(method: str, name: str, watching: bool) -> str:
    if watching:
        return "watch"
    if method == "GET":
        return "get" if name else "list"
    if method == "DELETE":
        return "delete" if name else "deletecollection"
    return {"POST": "create", "PATCH": "patch", "PUT": "update"}.get(method, method.lower())


def _selected(request: web.Request, manifest: Manifest) -> bool:
    return matches_labels(manifest, request.query.get("labelSelector", "")) and matches_fields(
        manifest, request.query.get("fieldSelector", "")
    )


def _kept(old: Manifest) -> Manifest:
    """Of an object that is replaced: what its new version does not say, and must keep."""
    wanted = ("uid", "creationTimestamp", "generation", "ownerReferences", "finalizers")
    return {key: value for key, value in old["metadata"].items() if key in wanted}


def _replicas_field(kind: Kind) -> str:
    return "worker" if kind.group == "kubernetes.dask.org" else "replicas"


def _nested(body: Manifest) -> Manifest:
    """Dask's worker groups count their workers at ``spec.worker.replicas``."""
    return {"spec": {"worker": {"replicas": body["spec"]["worker"]}}}


def _shown(manifest: Manifest, more: str) -> Manifest:
    if more != "scale":
        return manifest
    replicas = at(manifest, "spec.replicas") or at(manifest, "spec.worker.replicas") or 0
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {"name": manifest["metadata"]["name"]},
        "spec": {"replicas": replicas},
        "status": {"replicas": replicas},
    }
