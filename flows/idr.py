"""Images of the Image Data Resource, over FTP or its HTTPS mirror."""

from __future__ import annotations

from prefect.client.schemas.objects import State

from flows.calling import SettingsOf, flow, source_run_name
from flows.ingest import as_state, ingest
from lib.config.loaders import IDRConfig
from lib.ingest.result import ProcessingResult


@flow(name="idr", flow_run_name=source_run_name, description=__doc__)
def idr(config: SettingsOf[IDRConfig] = None) -> ProcessingResult | State[ProcessingResult]:
    """Plan, fetch, convert, verify and record every volume that `config` names.

    Fields that are not set come from the environment, ``.env`` and ``config/config.yaml``.
    """
    return as_state(ingest("idr", config))
