"""How an entry was understood, as rows for people: volumes, their files, and what is left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from lib.archives.ebi.grouping import Volume
from lib.archives.ebi.planning import Planner, printable
from lib.archives.listed import Item, VoxelZYX, planned_row, refused
from lib.errors import FormatError
from lib.plan import VolumePlan


def rows_of(planner: Planner, plans: Sequence[VolumePlan], failed: FormatError) -> list[Item]:
    """A row for each volume, with the files that make it; then one for each file that makes none.

    Parameters
    ----------
    failed
        Why there is no volume, where there is none.
    """
    accession, entry_id = planner.entry.accession, planner.config.entry_id
    by_path = {plan.source_path: plan for plan in plans}
    told = {*planner.found.notes, *planner.left_out_notes()}
    rows = []
    for volume in planner.sorting.volumes:
        plan = by_path.get(f"{accession}/{printable(volume.path)}")
        if plan is not None:
            rows.append(_row(entry_id, volume, plan, told))
    rows += _left_out(entry_id, planner.refused())
    if not rows:
        title = planner.entry.about.title or accession
        rows.append(refused(f"empiar:{entry_id}", title, failed.message, "entry"))
    return [row.model_copy(update={"notes": (*row.notes, *planner.found.notes)}) for row in rows]


def _left_out(entry_id: str, reasons: Mapping[str, str]) -> list[Item]:
    """A row for each file that makes no volume; files of one folder and one reason have one."""
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path, why in reasons.items():
        alike[path.rstrip("/").rpartition("/")[0], why].append(path)
    rows = []
    for (folder, why), paths in alike.items():
        if len(paths) == 1:
            name = paths[0].rstrip("/").rpartition("/")[2]
            rows.append(refused(f"empiar:{entry_id}/{paths[0]}", name, why))
            continue
        first, last = (path.rpartition("/")[2] for path in (min(paths), max(paths)))
        name = f"{len(paths)} files, {first} to {last}"
        rows.append(refused(f"empiar:{entry_id}/{folder}", name, why, "folder"))
    return rows


def _row(entry_id: str, volume: Volume, plan: VolumePlan, told: set[str]) -> Item:
    where = volume.names[0]
    files = printable(where)
    if volume.stacked:
        where = where.rpartition("/")[0]
        last = printable(volume.names[-1].rpartition("/")[2])
        files = f"{len(volume.names)} files, {files} to {last}"
    lengths = zip("zyx", plan.voxel_nm_zyx, strict=True)
    z, y, x = (
        None if plan.stated[f"voxel_size_nm.{axis}"].source == "assumed" else length
        for axis, length in lengths
    )
    voxel: VoxelZYX | None = None if (z, y, x) == (None, None, None) else (z, y, x)
    row = planned_row(plan, f"empiar:{entry_id}/{printable(where)}")
    notes = (files, *(note for note in plan.notes if note not in told))
    return row.model_copy(update={"voxel_nm_zyx": voxel, "notes": notes})
