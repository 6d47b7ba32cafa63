"""Pictures of volumes: true proportions, a right scale bar, honest contrast, bounded reading."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from emulators.tissue import tissue
from emulators.volumes import make_volume, plan_of
from lib.errors import IntegrityError, NotFoundError, UnsupportedFormatError
from lib.present import preview
from lib.present.described import DescribedLevel, DescribedVolume, describe
from lib.present.drawing import colours, grey, length_text, measured, round_length, window_of
from lib.present.planes import READ_BYTES, choose_level, chunks_touched, read_planes
from lib.present.preview import draw_thumbnail, preview_key, render_preview
from lib.storage.open import open_store
from lib.volumes.grid import ShardGrid, plan_levels

SHAPE, VOXEL = (20, 60, 90), (40.0, 8.0, 8.0)


def picture(data: bytes, form: str = "PNG") -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == form
        return np.asarray(image.convert("RGB"))


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and length of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], mask.astype(int), [0]))))
    return [(int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


@pytest.fixture(scope="module")
def one_label(tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.uint8]:
    """The preview of a volume that is one label through and through: three plain rectangles."""
    store = open_store(str(tmp_path_factory.mktemp("label")))
    voxels = np.full(SHAPE, 7, np.uint32)
    done = make_volume(store, voxels, plan_of(voxels, "idr", "label", VOXEL, kind="labels"))
    return picture(render_preview(store, done.volume_key))


def rectangles(page: NDArray[np.uint8]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    body = (page == colours(np.array([7]))[0]).all(axis=2)
    wide, high = runs(body.sum(axis=0) > 9), runs(body.sum(axis=1) > 9)
    return wide, high


def test_the_three_planes_have_one_scale_and_the_volumes_proportions(
    one_label: NDArray[np.uint8],
) -> None:
    (_, x), (_, z_right) = rectangles(one_label)[0]
    (_, y), (_, z_below) = rectangles(one_label)[1]
    z_nm, y_nm, x_nm = (n * v for n, v in zip(SHAPE, VOXEL, strict=True))
    assert abs(y - x * y_nm / x_nm) <= 1
    assert abs(z_right - x * z_nm / x_nm) <= 1
    assert abs(z_below - z_right) <= 1


def test_the_scale_bar_is_as_long_as_it_says(one_label: NDArray[np.uint8]) -> None:
    (left, width), _ = rectangles(one_label)[0]
    (top, height), _ = rectangles(one_label)[1]
    plane = one_label[top : top + height, left : left + width]
    bars = [run for row in plane[-20:] for run in runs((row == 255).all(axis=1))]
    longest = max(length for _, length in bars)
    nm_per_pixel = SHAPE[2] * VOXEL[2] / width
    assert abs(longest - 200.0 / nm_per_pixel) <= 1  # 720 nm wide: the round third is 200 nm


@pytest.mark.parametrize(
    ("most", "length"), [(1, 1), (1.99, 1), (2, 2), (4.9, 2), (7, 5), (333, 200), (0.07, 0.05)]
)
def test_scale_bars_have_round_lengths(most: float, length: float) -> None:
    assert round_length(most) == pytest.approx(length)


def test_lengths_are_written_in_the_unit_that_reads_best() -> None:
    texts = [length_text(nm) for nm in (0.5, 5, 200, 1000, 50_000, 2e6)]
    assert texts == ["0.5 nm", "5 nm", "200 nm", "1 µm", "50 µm", "2 mm"]


def test_a_npy_and_an_ome_zarr_of_the_same_voxels_give_the_same_picture(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    voxels = tissue((0, 0, 0), SHAPE, seed=2, dtype="int16")
    plan = plan_of(voxels, "ebi", "same", VOXEL)
    zarr = make_volume(store, voxels, plan)
    npy = make_volume(store, voxels, plan, output_format="npy")
    shown = {
        render_preview(store, done.volume_key, statistics=done.statistics, voxel_nm_zyx=VOXEL)
        for done in (zarr, npy)
    }
    assert len(shown) == 1
    assert preview_key(zarr.volume_key) == preview_key(npy.volume_key) == "ebi/same.preview.png"
    without = picture(render_preview(store, npy.volume_key))
    assert without.shape != picture(shown.pop()).shape  # no record: drawn in voxels


def test_a_length_that_nobody_states_is_not_drawn_as_a_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 nm stands in its place, in the heading and under the scale bar."""
    store = open_store(str(tmp_path))
    voxels = tissue((0, 0, 0), SHAPE, seed=2, dtype="uint8")
    done = make_volume(store, voxels, plan_of(voxels, "address", "plain", (1.0, 1.0, 1.0)))
    written: list[str] = []
    monkeypatch.setattr(preview, "write", lambda _draw, _at, text, *_, **__: written.append(text))
    render_preview(store, done.volume_key)
    assert any("1 nm" in text for text in written)
    written.clear()
    render_preview(store, done.volume_key, assumed_axes="zyx")
    assert any("voxel size unknown" in text for text in written)
    assert any(text.endswith(" voxels") for text in written)
    assert not any(text.endswith(" nm") for text in written)


def test_the_planes_are_the_volumes_own_voxels(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    voxels = tissue((0, 0, 0), SHAPE, seed=4, dtype="uint16")
    for output_format in ("zarr", "npy"):
        done = make_volume(
            store,
            voxels,
            plan_of(voxels, "ebi", "own", VOXEL),
            output_format=output_format,  # type: ignore[arg-type]
        )
        planes = read_planes(store, describe(store, done.volume_key))
        np.testing.assert_array_equal(planes.xy, voxels[10])
        np.testing.assert_array_equal(planes.xz, voxels[:, 30])
        np.testing.assert_array_equal(planes.yz, voxels[:, :, 45])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint64", "float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 40, 50), (3, 1, 50), (30, 40, 1), (1, 1, 1)])
def test_every_dtype_and_shape_gives_a_picture(
    dtype: str, shape: tuple[int, int, int], tmp_path: Path
) -> None:
    store = open_store(str(tmp_path))
    voxels = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
    if voxels.dtype.kind == "f":
        voxels.flat[0] = np.nan
        voxels.flat[-1] = np.inf if voxels.size > 1 else 1.0
    key = "epfl/odd.npy"
    data = io.BytesIO()
    np.save(data, voxels)
    store.put(key, data.getvalue())
    assert picture(render_preview(store, key, voxel_nm_zyx=VOXEL)).shape[0] > 200


def test_contrast_ignores_a_few_extreme_voxels() -> None:
    values = tissue((0, 0, 0), (8, 64, 64), seed=1, dtype="uint16").astype(np.float32)
    low, high = window_of(measured(values))
    values[0, 0, :4] = 60_000, -60_000, np.nan, np.inf
    shown = window_of(measured(values))
    assert shown[0] == pytest.approx(low, abs=0.1 * (high - low))
    assert shown[1] == pytest.approx(high, abs=0.1 * (high - low))
    shades = grey(np.array([-1.0, 0.0, 2.0, 5.0, 6.0, np.nan]), (0.0, 5.0))
    assert shades.tolist() == [0, 0, 102, 255, 255, 0]


def test_labels_have_colours_of_their_own_and_keep_them() -> None:
    shown = colours(np.arange(1, 301, dtype=np.uint64).reshape(15, 20))
    assert len({tuple(c) for c in shown.reshape(-1, 3)}) == 300
    assert colours(np.array([[0, 2**63 + 5, 9]], np.uint64))[0, 0].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(colours(np.array([9]))[0], shown.reshape(-1, 3)[8])


@pytest.mark.parametrize("itemsize", [1, 2, 8])
def test_however_large_the_volume_little_of_it_is_read(itemsize: int) -> None:
    base = ShardGrid((30_000, 30_000, 30_000), (64, 64, 64), (256, 256, 256))
    levels = tuple(
        DescribedLevel(n.index, n.grid, n.scale_nm_zyx, n.translation_nm_zyx, {}, 0)
        for n in plan_levels(base, (8.0, 8.0, 8.0), (0.0, 0.0, 0.0))
    )
    volume = DescribedVolume(
        "a/b.ome.zarr", "image", np.dtype(f"u{itemsize}"), base.shape_zyx, (8.0,) * 3, levels
    )
    grid = choose_level(volume, most_pixels=1024).grid
    chunk = math.prod(grid.chunk_zyx) * itemsize
    assert chunks_touched(grid) * chunk <= READ_BYTES
    assert max(grid.shape_zyx) >= 100  # and yet there is something to see


def test_a_thumbnail_is_small_and_has_the_planes_proportions(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    voxels = tissue((0, 0, 0), SHAPE, seed=2)
    done = make_volume(store, voxels, plan_of(voxels, "ebi", "t", (8.0, 4.0, 8.0)))
    volume = describe(store, done.volume_key)
    small = draw_thumbnail(volume, read_planes(store, volume))
    shown = picture(small.jpeg, "JPEG")
    assert shown.shape == (round(192 * 60 * 4 / (90 * 8)), 192, 3)
    assert (small.height, small.width) == shown.shape[:2]
    assert shown.std() > 20


def test_a_volume_on_an_object_store_gives_the_same_picture(
    tmp_path: Path, destination: Any
) -> None:
    voxels = tissue((0, 0, 0), SHAPE, seed=2)
    folder = open_store(str(tmp_path))
    bucket = open_store(f"s3://{destination.bucket}/preview", destination.settings())
    plan = plan_of(voxels, "ebi", "remote", VOXEL)
    keys = [make_volume(store, voxels, plan).volume_key for store in (folder, bucket)]
    assert render_preview(folder, keys[0]) == render_preview(bucket, keys[1])


def test_what_is_no_finished_volume_is_refused_by_name(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    with pytest.raises(NotFoundError, match="absent"):
        render_preview(store, "ebi/absent.ome.zarr")
    with pytest.raises(NotFoundError, match="no such volume"):
        render_preview(store, "ebi/absent.npy")
    with pytest.raises(UnsupportedFormatError, match=r"ebi/notes\.txt"):
        render_preview(store, "ebi/notes.txt")
    for text in (b"{", b"[]", b"{}", json.dumps({"attributes": {"ome": {}}}).encode()):
        store.put("ebi/broken.ome.zarr/zarr.json", text)
        with pytest.raises(IntegrityError, match="broken"):
            render_preview(store, "ebi/broken.ome.zarr")
    store.put("ebi/broken.npy", b"\x93NUMPY\x01\x00\x10\x00 not a header")
    with pytest.raises(IntegrityError, match=r"broken\.npy"):
        render_preview(store, "ebi/broken.npy")
