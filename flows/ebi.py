"""EMPIAR entries at EMBL-EBI, over FTP or its HTTPS mirror."""

from __future__ import annotations

from prefect.client.schemas.objects import State

from flows.calling import SettingsOf, flow, source_run_name
from flows.ingest import as_state, ingest
from lib.config.loaders import EBIConfig
from lib.ingest.result import ProcessingResult


@flow(name="ebi", flow_run_name=source_run_name, description=__doc__)
def ebi(config: SettingsOf[EBIConfig] = None) -> ProcessingResult | State[ProcessingResult]:
    """Plan, fetch, convert, verify and record every volume that `config` names.

    Fields that are not set come from the environment, ``.env`` and ``config/config.yaml``.
    """
    return as_state(ingest("ebi", config))
