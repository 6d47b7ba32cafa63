"""A request for one volume: its plan, the settings it is made with, and where it goes.

Requests travel to threads, processes and Dask workers on other hosts; each opens for itself what
the request names. Secrets travel inside it in memory only, never in a flow's parameters.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import SecretStr

from lib.config.loaders import LoaderConfig
from lib.plan import EARLIER_POOLING, VolumePlan
from lib.storage.base import StoreSettings
from lib.volumes.job import ENGINE_VERSION

_DECIDE_BYTES = ("output_format", "chunk_zyx", "shard_mb", "codec")


@dataclass(frozen=True, slots=True)
class VolumeRequest:
    """Everything needed to make one volume, anywhere."""

    plan: VolumePlan
    config: LoaderConfig
    data_uri: str
    store_settings: StoreSettings
    scratch_dir: Path
    holder: str  # who makes it: flow run, host, process

    @property
    def volume_key(self) -> str:
        """Source and name: what the lock, the record and the log call this volume."""
        return f"{self.plan.source}/{self.plan.name}"

    @property
    def identity(self) -> str:
        """sha256 over what decides the volume's bytes, as far as it is known before a fetch.

        A complete record with the same identity is this volume, made earlier.
        """
        decided = {
            "plan": self.plan.identity(),
            "config": {name: getattr(self.config, name) for name in _DECIDE_BYTES},
            "engine": ENGINE_VERSION,
        }
        return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()

    def making(self, identity: object) -> VolumeRequest | None:
        """This request, or as an earlier version took it, if it makes the volume of an identity.

        A volume that an earlier version completed is complete: its coarse levels hold ids of the
        level above by the rule of then. What is made or gone on with follows today's.
        """
        if identity == self.identity:
            return self
        pooling = self.plan.label_pooling
        if self.plan.kind == "labels" and not pooling.yielding:
            plan = self.plan.model_copy(update={"label_pooling": EARLIER_POOLING})
            earlier = replace(self, plan=plan)
            return earlier if identity == earlier.identity else None
        return None

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that must never be written down."""
        models = (self.config, self.store_settings)
        values = (getattr(model, field) for model in models for field in type(model).model_fields)
        return tuple(v.get_secret_value() for v in values if isinstance(v, SecretStr))
