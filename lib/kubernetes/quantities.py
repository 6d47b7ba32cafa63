"""Kubernetes quantities of bytes, such as ``512Mi``."""

from __future__ import annotations

import re

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
