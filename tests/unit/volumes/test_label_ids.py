"""Ids of labels: exact at every width, the same however they were cut, and none that was made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lib.errors import IntegrityError
from lib.storage.local import LocalStore
from lib.volumes import kernels, label_ids
from lib.volumes.job import ConcurrencyLimits
from lib.volumes.label_ids import (
    IdsAccumulator,
    count_ids,
    ids_of,
    merged,
    pack,
    require_among,
    unpack,
)
from tests.kit.volume_kit import ArrayReader, a_job, a_plan, make

DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]


def voxels(dtype: str, seed: int = 0) -> np.ndarray:
    info = np.iinfo(dtype)
    ids = np.array([info.min, info.max, 0, 1, info.max // 2 + 1], dtype)
    return ids[np.random.default_rng(seed).integers(0, 5, (6, 7, 8))]


@pytest.mark.parametrize("dtype", DTYPES)
def test_ids_are_those_of_numpy_and_survive_the_ledger(dtype: str) -> None:
    for one in (voxels(dtype), voxels(dtype)[1:5, 2:, ::2], np.zeros((2, 2, 2), dtype)):
        ids = ids_of(one)
        assert ids is not None
        np.testing.assert_array_equal(ids, np.unique(one))
        back = unpack(pack(ids), one.dtype)
        assert back is not None
        np.testing.assert_array_equal(back, ids)
        assert back.dtype == one.dtype
        assert count_ids(ids) == len(set(one.reshape(-1).tolist()) - {0})


def test_parts_merge_to_the_whole_whatever_their_order() -> None:
    whole = voxels("uint64", 3)
    one, other = IdsAccumulator(), IdsAccumulator()
    for part in np.split(whole, 6):
        one.add(part)
    for part in np.split(whole, 2):
        other.add(part[::-1])
    (ids, background), (same, again) = one.result(), other.result()
    assert ids is not None and same is not None
    np.testing.assert_array_equal(ids, same)
    assert background == again == int((whole == 0).sum())


def test_too_many_ids_are_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_ids, "MOST_IDS", 3)
    assert ids_of(np.arange(4).reshape(1, 2, 2)) is None
    assert merged([np.arange(2), np.arange(5, 7)]) is None
    assert merged([np.arange(2), None]) is None
    assert pack(None) is unpack(None, np.dtype("uint8")) is count_ids(None) is None
    require_among(None, np.arange(2), 1, "x")


def test_an_id_that_was_made_is_named() -> None:
    require_among(np.array([1, 3]), np.array([0, 1, 3]), 1, "x")
    with pytest.raises(IntegrityError, match=r"level 2 holds 1 ids .* such as 2"):
        require_among(np.array([1, 2]), np.array([1, 3]), 2, "x")


@pytest.mark.parametrize("shape", [(40, 70, 200), (8, 150, 150)])
def test_averaged_labels_are_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int]
) -> None:
    """Whatever would make ids, a volume with them never gets its name."""
    labels = (np.indices(shape).sum(axis=0) // 5 % 2 * 40 + 1).astype(np.uint16)
    plan = a_plan(shape, "uint16", kind="labels")
    store = LocalStore(tmp_path, durable=False)
    job = a_job(plan, ArrayReader(labels))
    original = kernels.pool

    def averaged(source, factor, target, *, labels):  # type: ignore[no-untyped-def]
        original(source, factor, target, labels=None)

    monkeypatch.setattr("lib.volumes.kernels.pool", averaged)
    with pytest.raises(IntegrityError, match="ids that the finer level does not have"):
        make(job, ArrayReader(labels), store, limits=ConcurrencyLimits(workers=1))
    assert store.size(f"{job.final_key}/zarr.json") is None
