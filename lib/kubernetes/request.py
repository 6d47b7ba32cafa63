"""What a task runner has to be told to get a source its own cluster: one call, from the pod."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib.kubernetes.dask_cluster import Owner, cluster_name, cluster_spec
from lib.kubernetes.dask_settings import DEFAULT_SETTINGS, SETTINGS_VARIABLE, load_settings

CLUSTER_CLASS = "lib.kubernetes.kube_cluster.PatientKubeCluster"


def cluster_request(
    source: str, flow_run_id: str, run_count: int, environ: Mapping[str, str]
) -> dict[str, Any]:
    """Keyword arguments of a ``DaskTaskRunner`` (or of anything that starts clusters by class).

    Parameters
    ----------
    source
        Registry name of the archive; part of the cluster's name.
    flow_run_id, run_count
        The run and which attempt it is: each attempt gets a cluster of another name.
    environ
        The pod's environment: downward API, job's flow run, and where the settings lie.

    Raises
    ------
    ConfigError
        This is no pod of the job template, or the settings are absent or wrong.
    """
    owner = Owner.from_environment(environ)
    settings = load_settings(environ.get(SETTINGS_VARIABLE, DEFAULT_SETTINGS))
    spec = cluster_spec(cluster_name(source, flow_run_id, run_count), settings, owner)
    arguments: dict[str, Any] = {
        "cluster_class": CLUSTER_CLASS,
        "cluster_kwargs": {
            "custom_cluster_spec": spec,
            "namespace": owner.namespace,
            "startup_timeout_seconds": settings.startup_timeout_seconds,
        },
    }
    if settings.adaptive_maximum is not None:
        arguments["adapt_kwargs"] = {
            "minimum": settings.workers,
            "maximum": settings.adaptive_maximum,
        }
    return arguments
