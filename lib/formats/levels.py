"""Choosing a scale level by number or by name, the same way for every format."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lib.errors import NotFoundError

_NUMBER = re.compile(r"s?(\d{1,2})")


def choose_level_name(names: Sequence[str], wanted: str | None, where: str) -> str:
    """The name of a level, of those there are, finest first.

    Parameters
    ----------
    wanted
        A level's own name, or its number (``0`` and ``s0`` are the finest); None: the finest.

    Raises
    ------
    NotFoundError
        There is no such level; the error lists what there is.
    """
    if wanted is None:
        return names[0]
    if wanted in names:
        return wanted
    number = _NUMBER.fullmatch(wanted)
    if number is not None and int(number[1]) < len(names):
        return names[int(number[1])]
    raise NotFoundError(
        f"there is no level {wanted}", location=where, advice=f"There are: {', '.join(names)}"
    )
