"""The data set of patches in docs/examples: what a loader asks of it."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from emulators.tissue import tissue
from emulators.volumes import make_recorded_volume, plan_of
from lib.storage.open import open_store

VOXELS = tissue((0, 0, 0), (20, 50, 64), seed=5)


def test_every_whole_patch_comes_once_and_survives_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "docs" / "examples"))
    from patches import Patches

    store = open_store(str(tmp_path / "data"))
    make_recorded_volume(store, VOXELS, plan_of(VOXELS, "ebi", "em", (30.0, 8.0, 8.0)))
    patches = Patches("em", (8, 16, 32), data_dir=tmp_path / "data")
    assert len(patches) == 2 * 3 * 2
    again = pickle.loads(pickle.dumps(patches))
    for number, (z, y, x) in enumerate(np.ndindex(2, 3, 2)):
        expected = VOXELS[z * 8 :, y * 16 :, x * 32 :][:8, :16, :32]
        np.testing.assert_array_equal(again[number][0], expected)
    with pytest.raises(IndexError):
        patches[len(patches)]
    assert Patches("em", (8, 16, 32), data_dir=tmp_path / "data", transform=np.mean)[0].ndim == 0
