"""Names of flow runs: what a person looks for in a list of them."""

from __future__ import annotations

import re
from typing import Any

from prefect.runtime import flow_run

from lib.config.manager import ConfigManager
from lib.errors import MacroscopeError
from lib.safety import redact

_TOLD = (
    "name",
    "accession",
    "source_id",
    "dataset_id",
    "image_ids",
    "uuid",
    "instance",
    "crop_size",
)
_LEVEL = ("scale_level", "box")


def source_run_name() -> str:
    """Source, accession and level, for example ``openorganelle jrc_hela-2 s1``."""
    source = str(flow_run.get_flow_name())
    try:
        config = ConfigManager().load().loader(source, flow_run.get_parameters().get("config"))
    except MacroscopeError:
        return source  # the flow itself will say what is wrong
    words = [
        _short(getattr(config, key)) for key in (*_TOLD, *_LEVEL) if getattr(config, key, None)
    ]
    addresses = getattr(config, "addresses", None) or []
    return " ".join([source, *_ends(addresses, 60), *words])


def parent_run_name() -> str:
    """Mode and sources, for example ``macroscope staged ebi+idr``."""
    parameters: dict[str, Any] = flow_run.get_parameters()
    mode = parameters.get("mode") or ConfigManager().load().settings.execution_mode
    addresses = parameters.get("addresses") or []
    datasets = parameters.get("datasets") or []
    shown = _ends(addresses, 40)
    many = [f"{len(datasets)} datasets"] if datasets else []
    named = [*(parameters.get("sources") or ()), *shown, *many]
    return f"macroscope {mode} {_short(named or 'all')}"


def _ends(addresses: list[str], letters: int) -> list[str]:
    """The ends of the first addresses, which tell more than their beginnings."""
    shown = [redact(one)[-letters:] for one in addresses[:2]]
    return [*shown, *(["..."] if len(addresses) > 2 else [])]


def _short(value: Any) -> str:
    """A setting in a few letters: sizes as ``96x80x72``, lists joined, versions cut."""
    if isinstance(value, tuple) and all(isinstance(n, int) for n in value):
        return "x".join(map(str, value))
    text = "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text[:8] if re.fullmatch(r"[0-9a-f]{32,}", text) else text
