"""Planes of one series that were named one by one: a pattern that a shell took apart."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lib.formats.sections import group_sections
from lib.plan import VolumePlan

_told = logging.getLogger("macroscope")  # what a run has to tell, see `flows.logs`


def name_series(plans: Sequence[VolumePlan]) -> list[VolumePlan]:
    """The plans, with a note on each that is a plane of a numbered series.

    ``run slice_*.tif`` without quotes reaches us as a list of files, and each of them is a volume
    of one plane: what the user meant is told once, and stands in every record.
    """
    planes = {
        plan.reader["place"]: plan
        for plan in plans
        if plan.reader["container"] == "file" and plan.shape_zyx[0] == 1
    }
    groups, _ = group_sections(planes)
    advice: dict[str, str] = {}
    for group in groups:
        pattern = group.pattern.replace("#", "*")
        text = (
            f"{len(group.names)} planes of one numbered series were named one by one, and each is "
            f"a volume: '{pattern}', in quotes, is one volume of them"
        )
        _told.warning("%s", text)
        advice |= dict.fromkeys(group.names, text)
    return [
        plan.model_copy(update={"notes": (*plan.notes, advice[plan.reader["place"]])})
        if planes.get(plan.reader["place"]) is plan and plan.reader["place"] in advice
        else plan
        for plan in plans
    ]
