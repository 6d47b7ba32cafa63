"""A Dask cluster is asked to go until the API server takes it, and no longer than the run has."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import httpx
import kr8s
import pytest
from dask_kubernetes.operator import KubeCluster

from lib.concurrency import cancel as stopping
from lib.kubernetes import kube_cluster
from lib.kubernetes.kube_cluster import PatientKubeCluster


class Api:
    """An API server with one cluster, which is away for a while; time passes in its sleeps only."""

    def __init__(self, away_s: float, going_s: float, refuses: bool = False) -> None:
        self.now = 0.0
        self.deleted_at: float | None = None
        self._away_s, self._going_s, self._refuses = away_s, going_s, refuses
        self.raw: dict[str, Any] = {"metadata": {}}

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    async def get(self, name: str, namespace: str) -> Api:
        if self.now < self._away_s:
            raise httpx.ConnectError("All connection attempts failed")
        if self.deleted_at is not None and self.now > self.deleted_at + self._going_s:
            raise kr8s.NotFoundError(name)
        return self

    async def delete(self) -> None:
        if self._refuses:
            answer = httpx.Response(403)
            raise kr8s.ServerError("forbidden", status="403", response=answer)
        self.deleted_at = self.now
        self.raw["metadata"]["deletionTimestamp"] = "now"


def close(monkeypatch: pytest.MonkeyPatch, api: Api) -> None:
    async def nothing(self: Any) -> None:
        assert not self.shutdown_on_close, "the wheel's own deletion gives up at once"

    monkeypatch.setattr(KubeCluster, "_close", nothing)
    monkeypatch.setattr(kube_cluster, "DaskCluster", api)
    waits = SimpleNamespace(sleep=api.sleep, wait_for=asyncio.wait_for)
    monkeypatch.setattr(kube_cluster, "asyncio", waits)
    monkeypatch.setattr(kube_cluster, "time", SimpleNamespace(monotonic=lambda: api.now))
    cluster = object.__new__(PatientKubeCluster)
    cluster.__dict__.update(
        _cluster_info={"name": "em-epfl-0-1"},
        namespace="em",
        shutdown_on_close=True,
        _close_timeout=60,
        _delete_timeout=600,
    )
    asyncio.run(cluster._close())
    assert cluster.shutdown_on_close


def test_an_api_server_that_is_away_for_minutes_still_gets_the_deletion(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    api = Api(away_s=300, going_s=5)
    close(monkeypatch, api)
    assert api.deleted_at == pytest.approx(300)
    assert "left to" not in caplog.text


def test_a_cluster_that_does_not_go_is_left_to_the_clean_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    api = Api(away_s=100, going_s=1000)
    close(monkeypatch, api)
    assert api.now == pytest.approx(160, abs=2)
    assert "is still being deleted; left to Kubernetes and the clean-up" in caplog.text


def test_a_run_that_is_asked_to_stop_waits_no_longer_than_it_has(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stopping.request_stop()
    api = Api(away_s=300, going_s=5)
    close(monkeypatch, api)
    assert api.now <= kube_cluster.STOPPING_S + kube_cluster.AGAIN_S
    assert "could not be deleted: ConnectError" in caplog.text


def test_a_refusal_is_not_asked_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        api = Api(away_s=0, going_s=5, refuses=True)
        close(monkeypatch, api)
    assert api.now == 0
    assert "forbidden" in caplog.text
