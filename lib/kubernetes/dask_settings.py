"""How the pods of a temporary Dask cluster shall look: typed, and read from one mounted file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lib.errors import ConfigError
from lib.kubernetes.pod_security import RUN_AS

# Not EM_...: those are settings of a run, and an unknown one among them is refused.
SETTINGS_VARIABLE = "MACROSCOPE_DASK_SETTINGS"
DEFAULT_SETTINGS = "/etc/macroscope/dask.json"  # where the chart and k8s/base mount the file


_FACTORS = {
    "": 1,
    **{suffix: 1000**power for power, suffix in enumerate("kMGTPE", start=1)},
    **{suffix + "i": 1024**power for power, suffix in enumerate("KMGTPE", start=1)},
}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)([a-zA-Z]*)")


def parse_bytes(quantity: str) -> int:
    """Bytes that a quantity names: ``"2Gi"`` is 2147483648, ``"1500M"`` is 1500000000.

    Raises
    ------
    ValueError
        Not a quantity of bytes, or none at all.
    """
    match = _QUANTITY.fullmatch(quantity.strip())
    if match is None or match[2] not in _FACTORS:
        raise ValueError(f"{quantity!r} is not a quantity of bytes such as 512Mi or 2Gi")
    value = int(float(match[1]) * _FACTORS[match[2]])
    if value < 1:
        raise ValueError(f"{quantity!r} is no memory at all")
    return value


class Resources(BaseModel):
    """CPU, memory and ephemeral disk of one container; what is requested is also the limit.

    ``cpu``, ``memory`` and ``ephemeral_storage`` are Kubernetes quantities (``500m``, ``2Gi``).
    The CPU limit may be left out (None), so that a pod may use idle cores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: str = "1"
    memory: str = "2Gi"
    ephemeral_storage: str = "1Gi"
    cpu_limit: str | None = None

    @field_validator("memory", "ephemeral_storage")
    @classmethod
    def _is_a_quantity(cls, value: str) -> str:
        parse_bytes(value)
        return value

    @property
    def memory_bytes(self) -> int:
        return parse_bytes(self.memory)

    def manifest(self) -> dict[str, dict[str, str]]:
        """The ``resources`` of a container. Memory is never overcommitted."""
        same = {"memory": self.memory, "ephemeral-storage": self.ephemeral_storage}
        limits = same if self.cpu_limit is None else {"cpu": self.cpu_limit, **same}
        return {"requests": {"cpu": self.cpu, **same}, "limits": dict(limits)}


class DaskSettings(BaseModel):
    """Everything about Dask pods that does not change from run to run.

    Field names are those of the chart's ``dask`` values, in snake case. Lists and mappings with
    ``Any`` inside are passed to Kubernetes as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    service_account: str = "macroscope-dask"
    workers: int = Field(default=2, ge=1, le=1000)
    adaptive_maximum: int | None = Field(default=None, ge=1)
    threads_per_worker: int = Field(default=1, ge=1)
    worker: Resources = Resources()
    scheduler: Resources = Resources(cpu="250m", memory="1Gi")
    idle_timeout_seconds: int = Field(default=300, ge=30)
    startup_timeout_seconds: int = Field(default=300, ge=10)
    death_timeout_seconds: int = Field(default=120, ge=10)
    env: tuple[dict[str, Any], ...] = ()
    env_from: tuple[dict[str, Any], ...] = ()
    volumes: tuple[dict[str, Any], ...] = ()
    volume_mounts: tuple[dict[str, Any], ...] = ()
    run_as_user: int | None = Field(default=RUN_AS, ge=1)
    run_as_group: int | None = Field(default=RUN_AS, ge=1)
    fs_group: int | None = Field(default=RUN_AS, ge=1)
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    affinity: dict[str, Any] = Field(default_factory=dict)
    priority_class: str | None = None


def load_settings(path: str | Path) -> DaskSettings:
    """Read the settings from a JSON file.

    Raises
    ------
    ConfigError
        The file is absent, not JSON, or holds an unknown or impossible setting.
    """
    try:
        return DaskSettings.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise ConfigError(
            f"the settings of the Dask pods cannot be read: {error.strerror}",
            location=str(path),
            advice=f"{SETTINGS_VARIABLE} must name the mounted file; EM_DASK=off does without Dask",
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the document"
        raise ConfigError(
            f"the settings of the Dask pods are wrong: {key}: {first['msg']}",
            location=str(path),
        ) from error
