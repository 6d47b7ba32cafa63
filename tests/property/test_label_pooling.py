"""Whatever the labels, no coarser level holds an id that the finer one lacks."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lib.plan import LabelPooling
from lib.volumes import kernels

DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
EDGES = [0, 1, 3, 2**53, 2**53 + 1, 2**63 - 1, 2**64 - 1, -1, -(2**63)]


@st.composite
def labels(draw: st.DrawFn) -> Any:
    """Few ids, the awkward ones among them, so that there are ties."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    info = np.iinfo(dtype)
    edges = [value for value in EDGES if info.min <= value <= info.max]
    ids = st.one_of(st.sampled_from(edges), st.integers(int(info.min), int(info.max)))
    few = draw(st.lists(ids, min_size=1, max_size=4))
    shape = draw(st.tuples(*[st.integers(1, 7)] * 3))
    return draw(arrays.arrays(dtype, shape, elements=st.sampled_from(few)))


@given(
    labels(),
    st.tuples(*[st.integers(1, 2)] * 3),
    st.sets(st.sampled_from(EDGES), max_size=3),
)
def test_no_id_appears_that_the_finer_level_does_not_have(
    voxels: Any, factor: tuple[int, int, int], yielding: set[int]
) -> None:
    rule = LabelPooling(yielding=tuple(yielding))
    while max(voxels.shape) > 1 and max(factor) > 1:
        coarse = np.empty(kernels.pooled_shape(voxels.shape, factor), voxels.dtype)
        kernels.pool(voxels, factor, coarse, labels=rule)
        assert set(coarse.reshape(-1).tolist()) <= set(voxels.reshape(-1).tolist())
        for at in np.ndindex(coarse.shape):
            part = tuple(slice(i * f, i * f + f) for i, f in zip(at, factor, strict=True))
            assert coarse[at] in voxels[part]
        if coarse.shape == voxels.shape:
            break
        voxels = coarse
