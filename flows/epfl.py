"""EPFL CVLab's hippocampus, a multi-page TIFF over HTTPS."""

from __future__ import annotations

from prefect.client.schemas.objects import State

from flows.calling import SettingsOf, flow, source_run_name
from flows.ingest import as_state, ingest
from lib.config.loaders import EPFLConfig
from lib.ingest.result import ProcessingResult


@flow(name="epfl", flow_run_name=source_run_name, description=__doc__)
def epfl(config: SettingsOf[EPFLConfig] = None) -> ProcessingResult | State[ProcessingResult]:
    """Plan, fetch, convert, verify and record every volume that `config` names.

    Fields that are not set come from the environment, ``.env`` and ``config/config.yaml``.
    """
    return as_state(ingest("epfl", config))
