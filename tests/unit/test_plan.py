"""What a plan says of its source, and that volumes of earlier versions are recognised by it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from lib.geometry import Box
from lib.plan import SourceGrid, VolumePlan, pack_holes, unpack_holes
from tests.kit.volume_kit import a_plan

# What `identity` gave for a box of an array of 4 x 6 x 8 chunks before the grid had a type.
OLD_READER = {
    "zarray": '{"chunks": [4, 6, 8]}',
    "separator": "/",
    "chunk_offset_zyx": [1, 0, 0],
    "chunks": 2,
    "holes": "eJxrAAAAgQCB",
    "coarser_steps_zyx": [[1, 2, 2]],
}


def test_holes_survive_packing() -> None:
    wanted = [(z, y, 0) for z in range(3) for y in range(5)]
    for holes in ([], [(0, 0, 0)], wanted[3:7], wanted):
        assert unpack_holes(pack_holes(holes, wanted), wanted) == frozenset(holes)


def test_a_grid_is_that_of_the_box() -> None:
    box = Box((4, 0, 3), (12, 5, 8))
    grid = SourceGrid.of_box(box, (4, 6, 8), {"id": "zstd"}, holes=[(2, 0, 0)])
    assert (grid.offset_zyx, grid.cells_zyx, grid.chunks) == ((1, 0, 0), (2, 1, 1), 2)
    assert grid.indices() == [(1, 0, 0), (2, 0, 0)]
    assert grid.missing() == {(2, 0, 0)}
    assert SourceGrid.model_validate_json(grid.model_dump_json()) == grid


def test_a_volume_that_was_made_before_the_grid_had_a_type_has_the_same_identity() -> None:
    plan = a_plan(
        (8, 3, 3),
        reader={key: OLD_READER[key] for key in ("zarray", "separator")},
        source_grid=SourceGrid.of_box(Box((4, 0, 3), (12, 5, 8)), (4, 6, 8), holes=[(1, 0, 0)]),
        downsample_steps=((1, 2, 2),),
    )
    decided = plan.identity()
    assert decided["reader"] == {**OLD_READER, "holes": plan.source_grid.holes}  # type: ignore[union-attr]
    assert "source_grid" not in decided
    assert "downsample_steps" not in decided


def test_a_stored_plan_of_an_earlier_version_keeps_its_steps_or_is_refused() -> None:
    document = a_plan((8, 8, 8)).model_dump(mode="json")
    del document["downsample_steps"], document["source_grid"]
    document["reader"] = {"shape_zyx": [8, 16, 16], "coarser_steps_zyx": [[1, 2, 2]]}
    old = VolumePlan.model_validate(document)
    assert old.downsample_steps == ((1, 2, 2),)
    assert old.identity()["reader"] == document["reader"]
    document["reader"] = OLD_READER
    with pytest.raises(ValidationError, match="plan again"):
        VolumePlan.model_validate(document)
