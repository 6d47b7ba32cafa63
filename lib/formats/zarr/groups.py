"""What a group's own attributes say of the groups below it, where nothing lists them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_MOST_SERIES = 1000


def named_children(attributes: dict[str, Any], there: Callable[[str], bool]) -> list[str]:
    """Children that a group names: its labels, and the images of a bioformats2raw container.

    Parameters
    ----------
    attributes
        Of the group; NGFF 0.5 has these keys below ``ome``.
    there
        Whether a child is a group or an array: the images are 0, 1, ... as far as they go.
    """
    ome = attributes.get("ome")
    said = ome if isinstance(ome, dict) else attributes
    labels = said.get("labels")
    found = [str(name) for name in labels] if isinstance(labels, list) else []
    if "bioformats2raw.layout" in said:
        for number in range(_MOST_SERIES):
            if not there(str(number)):
                break
            found.append(str(number))
    return found
