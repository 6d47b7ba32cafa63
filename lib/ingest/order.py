"""A work order: one planned volume, the settings it is made with, and where it goes.

Orders travel to threads, processes and Dask workers on other hosts; each opens for itself what the
order names. Secrets travel inside it in memory only, never in a flow's parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib.archives.base import VolumePlan
from lib.loader_config import LoaderConfig
from lib.storage.open import StoreSettings


@dataclass(frozen=True, slots=True)
class WorkOrder:
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
