"""Every format from every transport, through the real ingest path, voxel by voxel.

A row is a `Case` in a module ``cases_<format>.py`` beside this one; nothing else is needed.
"""

from __future__ import annotations

import random
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import zarr

from lib.config.loader_base import AddressConfig
from lib.formats import registry
from lib.ingest.context import VolumeRequest
from lib.ingest.life import make_volume
from lib.ingest.stages import plan_source
from lib.plan import VolumePlan
from lib.records.manager import MetadataManager
from lib.storage.base import StoreSettings
from lib.storage.local import LocalStore
from tests.formats.case import Case
from tests.formats.servers import TRANSPORTS, Servers

MODULES = sorted(path.stem for path in Path(__file__).parent.glob("cases_*.py"))
CASES: list[Case] = [
    case for name in MODULES for case in import_module(f"tests.formats.{name}").CASES
]
CELLS = [
    pytest.param(case, transport, id=f"{case.name}-{transport}")
    for case in CASES
    for transport in case.transports
    if transport in TRANSPORTS
]


class Cell:
    """A case, published over a transport."""

    def __init__(self, case: Case, transport: str, servers: Servers, scratch: Path) -> None:
        self.case, self.scratch = case, scratch
        name = f"{case.name}-{transport}"
        folder = servers.folder / name
        marker = servers.folder / f".{name}"
        folder.mkdir(exist_ok=True)
        self.truth = case.write(folder) if not marker.exists() else np.load(marker)
        if not marker.exists():
            with marker.open("wb") as file:
                np.save(file, self.truth)
        base, settings = servers.publish(name, transport)
        inner = case.address
        place = f"{base}{quote(inner, safe='/*|:.') if transport in ('http', 'ftp') else inner}"
        self.settings: dict[str, Any] = {
            "addresses": [place],
            "requests_per_second": 1000.0,
            **settings,
            **case.settings,
        }

    def config(self, **more: Any) -> AddressConfig:
        return AddressConfig(**{**self.settings, **more})

    def plan(self, **more: Any) -> VolumePlan:
        (plan,) = plan_source("address", self.config(**more), self.scratch).plans
        return plan

    def make(self, **more: Any) -> tuple[VolumePlan, dict[str, Any], Any]:
        """Plan, ingest, and read back level 0: plan, record, voxels."""
        config, plan = self.config(**more), self.plan(**more)
        data = self.scratch / "data"
        request = VolumeRequest(
            plan, config, str(data), StoreSettings(), self.scratch / "s", "a test"
        )
        made = make_volume(request, "a test")
        assert made.error is None, made.error
        assert made.status == "complete"
        volume = data / "address" / f"{plan.name}.ome.zarr"
        voxels = zarr.open_group(volume, mode="r")["0"][:]  # type: ignore[index]
        record = MetadataManager(LocalStore(data)).load(f"address/metadata_{plan.name}.json")
        return plan, record, voxels


@pytest.fixture
def cell(case: Case, transport: str, servers: Servers, tmp_path: Path) -> Cell:
    return Cell(case, transport, servers, tmp_path)


@pytest.mark.parametrize(("case", "transport"), CELLS)
def test_every_voxel_comes_out(cell: Cell, case: Case) -> None:
    plan, record, voxels = cell.make()
    assert plan.dtype == cell.truth.dtype.name
    np.testing.assert_array_equal(voxels, cell.truth)
    for field, expected in case.expect.items():
        assert getattr(plan, field) == expected, field
    quality = record["metadata"]["quality"]
    assert quality["missing_chunks_total"] == case.missing
    for note in case.notes:
        assert quality["notes"].count(note) == 1, note
    received = record["metadata"]["provenance"]["bytes"]
    assert received == pytest.approx(plan.download_bytes, rel=case.within, abs=16 * 2**10)


@pytest.mark.parametrize(("case", "transport"), CELLS)
def test_a_box_is_the_same_voxels(cell: Cell, case: Case) -> None:
    draw = random.Random(case.name)
    pairs = [sorted(draw.sample(range(n + 1), 2)) for n in cell.truth.shape]
    box = ",".join(f"{axis}={a}:{b}" for axis, (a, b) in zip("zyx", pairs, strict=True))
    _, _, voxels = cell.make(box=box, max_missing_fraction=1.0, allow_empty=True)
    np.testing.assert_array_equal(voxels, cell.truth[tuple(slice(a, b) for a, b in pairs)])


def test_every_format_has_a_row() -> None:
    rows = {case.name.partition("-")[0] for case in CASES}
    names = {*registry.FILE_FORMATS, *registry.TREE_FORMATS}
    assert {name.partition("-")[0] for name in names} <= rows
