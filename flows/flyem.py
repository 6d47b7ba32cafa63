"""Crops of FlyEM's hemibrain from a DVID server."""

from __future__ import annotations

from prefect.client.schemas.objects import State

from flows.calling import SettingsOf, flow, source_run_name
from flows.ingest import as_state, ingest
from lib.config.loaders import FlyEMConfig
from lib.ingest.result import ProcessingResult


@flow(name="flyem", flow_run_name=source_run_name, description=__doc__)
def flyem(config: SettingsOf[FlyEMConfig] = None) -> ProcessingResult | State[ProcessingResult]:
    """Plan, fetch, convert, verify and record every volume that `config` names.

    Fields that are not set come from the environment, ``.env`` and ``config/config.yaml``.
    """
    return as_state(ingest("flyem", config))
