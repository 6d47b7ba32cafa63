"""A bench for archives: plan, fetch, read and settle against the stand-ins, and the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray

from emulators import catalogue
from emulators.serving import Samples
from lib.archives.registry import REGISTRY, archive
from lib.archives.sessions import open_session
from lib.geometry import Box
from lib.plan import VolumePlan
from lib.rawfiles.files import RawFiles
from lib.storage.base import Store
from lib.storage.local import LocalStore
from lib.transport.partial import Fetched

# What a small machine needs beside the endpoints; a further archive needs nothing here.
SMALL: dict[str, dict[str, Any]] = {
    "flyem": {"crop_size": (70, 60, 50), "crop_origin": (18000, 20000, 20000)},
}
# Volumes that no file holds: made from coordinates.
VIRTUAL: dict[str, Callable[[Box], NDArray[Any]]] = {
    "flyem": lambda box: catalogue.dvid_voxels(box.start_zyx, box.shape_zyx),
}


class Bench:
    """One archive with one set of settings, in a store of its own."""

    def __init__(self, samples: Samples, folder: Path, name: str, **settings: Any) -> None:
        self.archive = archive(name)
        endpoints = samples.endpoints[name.upper()]
        quick = {"requests_per_second": 1000.0}
        given = {**quick, **SMALL.get(name, {}), **endpoints, **settings}
        self.config = self.archive.config_model(**given)
        self.scratch = folder / "scratch"
        self.store: Store = LocalStore(folder / "data")
        self._stack = ExitStack()
        self.session = self._stack.enter_context(
            open_session(self.config, name, scratch_dir=self.scratch)
        )
        self._raw: dict[str, RawFiles] = {}

    def close(self) -> None:
        self._stack.close()

    def plan(self) -> list[VolumePlan]:
        return self.archive.plan(self.config, self.session)

    def one_plan(self) -> VolumePlan:
        (plan,) = self.plan()
        return plan

    def raw(self, plan: VolumePlan) -> RawFiles:
        if plan.name not in self._raw:
            self._raw[plan.name] = RawFiles(
                self.store,
                plan.source,
                plan.source_id.replace("/", "_"),
                keep=self.config.keep_raw,
                scratch_dir=self.scratch,
            )
        return self._raw[plan.name]

    def fetch(self, plan: VolumePlan) -> None:
        self.archive.fetch(plan, self.config, self.session, self.raw(plan))

    def read(self, plan: VolumePlan, box: Box | None = None) -> NDArray[Any]:
        """Fetch, open, and read a box (by default all); every voxel must come exactly once."""
        self.fetch(plan)
        box = box or Box.whole(plan.shape_zyx)
        voxels = np.zeros(box.shape_zyx, plan.dtype)
        times = np.zeros(box.shape_zyx, np.uint8)
        with self.archive.open(plan, self.config, self.session, self.raw(plan)) as reader:
            assert reader.shape_zyx == plan.shape_zyx
            assert reader.dtype == np.dtype(plan.dtype)
            for block in reader.blocks(box):
                voxels[block.box.slices(box.start_zyx)] = block.data
                times[block.box.slices(box.start_zyx)] += 1
        assert (times == 1).all()
        return voxels

    def settle(self, plan: VolumePlan) -> list[Fetched]:
        return self.archive.settle(plan, self.config, self.session, self.raw(plan))

    def received(self) -> int:
        """Body bytes that came in over all services."""
        return sum(one["bytes_received"] for one in self.session.counters.snapshot().values())

    def downloads(self) -> list[str]:
        """Raw files in the store, without the notes beside them."""
        keys = [found.key for found in self.store.list()]
        return [key for key in keys if "/.fetched/" not in key]

    def leftovers(self) -> list[Path]:
        """Files in the scratch folder."""
        return [path for path in self.scratch.rglob("*") if path.is_file()]


def truth_of(plan: VolumePlan) -> NDArray[Any]:
    """The voxels that a plan must deliver, from the generators of the samples."""
    stand_in = REGISTRY[plan.source].load_stand_in()
    if stand_in is not None:
        return stand_in.truth(plan)
    if plan.source in VIRTUAL:
        assert plan.box_zyx is not None
        return VIRTUAL[plan.source](plan.box_zyx)
    parts = [urlsplit(file.url) for file in plan.files]
    where = [(p.netloc if p.scheme == "s3" else "") + unquote(p.path) for p in parts]
    fitting = [
        sample
        for sample in catalogue.samples().values()
        if sample.archive == plan.source
        and all(address.endswith(_tails(sample.paths)) for address in where)
    ]
    if len(fitting) > 1:  # several images in one file
        fitting = [s for s in fitting if s.key.rpartition("/")[2] in plan.source_id]
    (sample,) = fitting
    voxels = sample.truth()
    return voxels[plan.box_zyx.slices()] if plan.box_zyx is not None else voxels


def _tails(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Sample paths without the folder of their server."""
    return tuple(path.partition("/")[2] for path in paths)


@pytest.fixture
def bench(samples: Samples, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Make a bench: ``bench("ebi", protocol="https")``; all of a test share one store."""
    samples.control.clear()
    made: list[Bench] = []

    def make(name: str, **settings: Any) -> Bench:
        made.append(Bench(samples, tmp_path, name, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()
    samples.control.clear()


@pytest.fixture
def truth() -> Callable[[VolumePlan], NDArray[Any]]:
    return truth_of


@pytest.fixture
def published(samples: Samples) -> Callable[[str], Path]:
    """The stand-in's own file of a name, for tests that change or compare it."""

    def find(name: str) -> Path:
        (path,) = (p for p in samples.root.rglob("*") if p.is_file() and p.name == name)
        return path

    return find
