"""Names of flow runs: what a person looks for in a list of them."""

from __future__ import annotations

from typing import Any

from prefect.runtime import flow_run

from lib.config_manager import ConfigManager


def source_run_name() -> str:
    """Source, accession and level, for example ``openorganelle jrc_hela-2 s1``."""
    parameters: dict[str, Any] = flow_run.get_parameters()
    config = parameters.get("config")
    given = config if isinstance(config, dict) else getattr(config, "__dict__", {})
    keys = ("entry_id", "source_id", "dataset_id", "image_ids", "instance", "scale_level", "box")
    words = [str(flow_run.get_flow_name())]
    words += [_short(given[key]) for key in keys if given.get(key)]
    return " ".join(words)


def parent_run_name() -> str:
    """Mode and sources, for example ``macroscope staged ebi+idr``."""
    parameters: dict[str, Any] = flow_run.get_parameters()
    mode = parameters.get("mode") or ConfigManager().load().settings.execution_mode
    return f"macroscope {mode} {_short(parameters.get('sources') or 'all')}"


def _short(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
