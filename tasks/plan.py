"""What there is, and what it will cost: the first step of every run."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from lib.config.loaders import LoaderConfig
from lib.ingest.stages import Sources, plan_source
from lib.storage.open import open_store
from lib.storage.settings import StoreSettings
from tasks.limits import rate_limited
from tasks.retrying import RETRIES, cancellable


@task(name="plan", task_run_name="plan {source}", tags=["plan"], **RETRIES)
@cancellable
@rate_limited
def plan(
    source: str,
    config: LoaderConfig,
    scratch_dir: Path,
    data_uri: str,
    store_settings: StoreSettings,
) -> Sources:
    """Ask one archive for everything that `config` names; metadata only.

    The store is asked for the names that its records hold.
    """
    return plan_source(source, config, scratch_dir, open_store(data_uri, store_settings))
