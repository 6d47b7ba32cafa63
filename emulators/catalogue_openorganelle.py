"""Samples of OpenOrganelle: small Zarr v2 stores, each with another habit of the real ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from emulators.sample import Crop, Sample, TripleZYX, VoxelNM, tissue_crop
from emulators.tissue import labels
from emulators.zarr_v2 import (
    ZarrV2Layout,
    consolidate,
    level_crop,
    level_shape,
    mark_groups,
    write_multiscale,
)

_BUCKET = "s3/janelia-cosem-datasets"
_NACC_VOXEL = (2.96, 4.0, 4.0)


@dataclass(frozen=True)
class _Group:
    """One multiscale group of one data set."""

    dataset: str
    path: str
    shape_zyx: TripleZYX
    dtype: str
    voxel_nm_zyx: VoxelNM
    crop: Crop
    levels: int = 1
    offset_nm_zyx: VoxelNM = (0.0, 0.0, 0.0)
    layout: ZarrV2Layout = field(default_factory=ZarrV2Layout)
    corner: bool = False

    @property
    def store(self) -> str:
        return f"{_BUCKET}/{self.dataset}/{self.dataset}.zarr"

    def write(self, root: Path) -> None:
        """Write all levels, and ``.zgroup`` up to the root of the store."""
        group = root / self.store / self.path
        write_multiscale(
            group,
            self.crop,
            shape_zyx=self.shape_zyx,
            dtype=self.dtype,
            voxel_nm_zyx=self.voxel_nm_zyx,
            levels=self.levels,
            offset_nm_zyx=self.offset_nm_zyx,
            layout=self.layout,
            corner=self.corner,
        )
        mark_groups(root / self.store, group)


def _em(
    dataset: str, path: str, shape: TripleZYX, voxel: VoxelNM, seed: int, levels: int, **other: Any
) -> _Group:
    dtype = path.rpartition("-")[2]
    crop = tissue_crop(seed, dtype, voxel)
    return _Group(dataset, path, shape, dtype, voxel, crop, levels, **other)


def _nuclei(origin_zyx: TripleZYX, shape_zyx: TripleZYX) -> NDArray[Any]:
    """Labels of the same tissue at half the resolution, from voxel 2, 4, 6 on."""
    z, y, x = (o + first for o, first in zip(origin_zyx, (2, 4, 6), strict=True))
    voxel = (5.92, 8.0, 8.0)
    return labels((z, y, x), shape_zyx, seed=60, dtype="uint32", voxel_nm_zyx=voxel)


def _groups() -> list[_Group]:
    nacc, uint8 = "jrc_mus-nacc-2", "recon-1/em/fibsem-uint8"
    hole = ZarrV2Layout(holes=frozenset({(0, (0, 1, 0))}))
    return [
        _em(nacc, "recon-2/em/fibsem-int16", (40, 150, 140), _NACC_VOXEL, 60, 4),
        _Group(
            nacc,
            "recon-2/labels/inference/segmentations/nuc",
            (18, 70, 60),
            "uint32",
            (5.92, 8.0, 8.0),
            _nuclei,
            levels=2,
            offset_nm_zyx=(11.84, 32.0, 48.0),
            corner=True,
        ),
        _em("jrc_hela-2", uint8, (36, 100, 90), (5.24, 4.0, 4.0), 61, 3),
        _em(
            "jrc_macrophage-2",
            uint8,
            (30, 80, 100),
            (3.36, 4.0, 4.0),
            62,
            2,
            layout=ZarrV2Layout(codec="blosc", unit="micrometer"),
        ),
        _em(
            "jrc_jurkat-1",
            uint8,
            (34, 90, 70),
            (3.44, 4.0, 4.0),
            63,
            2,
            layout=ZarrV2Layout(codec="gzip", chunks_zyx=(32, 64, 48)),
        ),
        _em(
            "jrc_cos7-1",
            uint8,
            (28, 72, 84),
            (8.0, 8.0, 8.0),
            64,
            2,
            layout=ZarrV2Layout(codec="none", separator=".", unit=None),
        ),
        _em("jrc_sample-holes", uint8, (30, 100, 80), (4.0, 4.0, 4.0), 65, 1, layout=hole),
        _em(
            "jrc_sample-separator",
            uint8,
            (30, 100, 80),
            (4.0, 4.0, 4.0),
            66,
            1,
            layout=ZarrV2Layout(separator_key=False),
        ),
    ]


def openorganelle_samples() -> list[Sample]:
    """One volume per level of every group; the finest level's ``write`` lays down all of them.

    The truth of ``jrc_sample-holes`` is the volume without its hole.
    """
    return [
        _sample(group, level, group.write if level == 0 else None)
        for group in _groups()
        for level in range(group.levels)
    ]


def _sample(group: _Group, level: int, write: Callable[[Path], None] | None) -> Sample:
    z, y, x = (nm * 2**level for nm in group.voxel_nm_zyx)
    return Sample(
        f"openorganelle/{group.dataset}/{group.path}/s{level}",
        (f"{group.store}/{group.path}/s{level}",),
        level_shape(group.shape_zyx, level),
        group.dtype,
        (z, y, x),
        level_crop(group.crop, level, corner=group.corner),
        write,
    )


def finish_stores(root: Path) -> None:
    """Consolidate the one store that has ``.zmetadata``, and add a thumbnail beside another."""
    consolidate(root / _BUCKET / "jrc_hela-2" / "jrc_hela-2.zarr")
    (root / _BUCKET / "jrc_mus-nacc-2" / "thumbnail.jpg").write_bytes(b"\xff\xd8\xff\xd9")
