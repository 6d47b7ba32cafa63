"""Image and labels on one grid: cut, placed, written into the image's group, or refused by name."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from ome_zarr_models.v05.image import Image as OmeImage
from ome_zarr_models.v05.image_label import ImageLabel
from PIL import Image

from emulators.s3 import S3Server
from lib.archives.pairs import overlap_of
from lib.errors import ConfigError, GridMismatchError, UnsupportedFormatError
from lib.geometry import Box
from lib.ingest.context import VolumeRequest
from lib.ingest.life import make_volume
from lib.ingest.repair.volume import note_damage
from lib.ingest.stages import plan_source
from lib.plan import VolumePlan
from lib.present.described import describe, labels_inside
from lib.present.planes import planes_beneath, read_planes
from lib.present.viewer import serve
from lib.present.viewer_app import check_viewable
from lib.storage.base import StoreSettings
from lib.storage.open import open_store
from lib.verify.volume import verify_store
from tests.archives.test_labels import assert_levels

SHAPE = (20, 96, 100)


def write(
    path: Path,
    voxels: NDArray[Any],
    scale: tuple[float, float, float],
    at: tuple[float, float, float],
) -> str:
    """An NGFF 0.4 multiscale of one level; `at` is the centre of the first voxel."""
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("s0", data=voxels, chunks=(10, 50, 50))
    group.attrs["multiscales"] = [
        {
            "version": "0.4",
            "axes": [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"],
            "datasets": [
                {
                    "path": "s0",
                    "coordinateTransformations": [
                        {"type": "scale", "scale": [*scale]},
                        {"type": "translation", "translation": [*at]},
                    ],
                }
            ],
        }
    ]
    return str(path)


def grey(shape: tuple[int, int, int] = SHAPE) -> NDArray[Any]:
    return np.random.default_rng(1).integers(1, 255, shape).astype(np.uint8)


def ids(shape: tuple[int, int, int]) -> NDArray[Any]:
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    return ((z // 7) * 100 + (y // 9) * 10 + x // 11 + 2**53 + 1).astype(np.uint64)


def planned(one: Any, tmp_path: Path) -> list[VolumePlan]:
    found = plan_source(one.archive.name, one.config, tmp_path / "plan", one.store)
    return [*found.plans]


def made(one: Any, tmp_path: Path) -> list[dict[str, Any]]:
    return [one.complete_record(plan) for plan in planned(one, tmp_path)]


def test_labels_lie_in_the_group_of_their_image(bench: Any, tmp_path: Path) -> None:
    """Begun before the image and ending within it: cut to it, at its place, on its grid."""
    em = write(tmp_path / "em.zarr", grey(), (8.0, 4.0, 4.0), (80.0, 40.0, 40.0))
    segments = ids((16, 60, 40))
    seg = write(tmp_path / "seg.zarr", segments, (8.0, 4.0, 4.0), (64.0, 0.0, 80.0))
    one = bench("address", addresses=[em], labels=[seg])
    image, labels = made(one, tmp_path)
    volume = tmp_path / "data" / image["files"]["volume"]
    name = f"{labels['name']}.ome.zarr"
    assert labels["files"]["volume"] == f"{image['files']['volume']}/labels/{name}"
    truth = segments[2:, 10:]
    inside = volume / "labels" / name
    np.testing.assert_array_equal(zarr.open_array(inside / "0", mode="r")[:], truth)
    listed = json.loads((volume / "labels/zarr.json").read_text())["attributes"]["ome"]
    assert listed == {"version": "0.5", "labels": [inside.name]}
    ome = json.loads((inside / "zarr.json").read_text())["attributes"]["ome"]
    assert ome["image-label"]["source"] == {"image": "../../"}
    transforms = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert transforms[1]["translation"] == [80.0, 40.0, 80.0]
    pair = labels["additional_metadata"]["pair"]
    assert pair["overlap_voxels_of_image"] == str(Box((0, 0, 10), (14, 50, 50)))
    assert pair["overlap_start_nm"] == {"z": 76.0, "y": 38.0, "x": 78.0}
    assert any("voxels" in note and "nm" in note for note in labels["metadata"]["quality"]["notes"])
    assert labels["metadata"]["provenance"]["stated"]["kind"]["where"] == "labels"
    verdicts = verify_store(one.store, digests=True)
    assert [verdict.problems for verdict in verdicts] == [(), ()]
    (over,) = labels_inside(one.store, image["files"]["volume"])
    assert over.kind == "labels"
    assert describe(one.store, labels["files"]["volume"]).levels == over.levels
    with serve(one.store, [image["files"]["volume"]]) as running:
        fragment = unquote(urlsplit(running.url_for([image["files"]["volume"]])).fragment)
    layers = json.loads(fragment.removeprefix("!"))["layers"]
    assert [layer["type"] for layer in layers] == ["image", "segmentation"]
    assert layers[1]["source"].endswith(f"/labels/{name}/|zarr3:")
    again = [one.make(plan) for plan in planned(one, tmp_path)]
    assert [(result.status, result.made) for result in again] == [("complete", False)] * 2


def test_readers_see_the_labels_of_a_group(bench: Any, tmp_path: Path) -> None:
    """Consolidated metadata would list the image's levels alone, and readers believe it."""
    em = write(tmp_path / "em.zarr", grey(), (8.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    few = (ids(SHAPE) % np.uint64(9)).astype(np.uint16)
    seg = write(tmp_path / "seg.zarr", few, (8.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    one = bench("address", addresses=[em], labels=[seg])
    image, labels = made(one, tmp_path)
    volume = tmp_path / "data" / image["files"]["volume"]
    group = zarr.open_group(volume, mode="r")
    inside = group[f"labels/{labels['name']}.ome.zarr"]
    assert isinstance(inside, zarr.Group)
    ImageLabel.from_zarr(inside)
    assert OmeImage.from_zarr(group).labels is not None
    assert [verdict.problems for verdict in verify_store(one.store, digests=True)] == [(), ()]
    root = volume / "zarr.json"
    good = root.read_bytes()
    root.write_bytes(b"{}")
    note_damage(one.store, image["files"]["record"], [f"{image['files']['volume']}/zarr.json"])
    repaired = one.make(planned(one, tmp_path)[0])
    assert (repaired.status, repaired.repaired_files) == ("complete", 1), repaired
    assert root.read_bytes() == good


def test_labels_come_back_where_their_image_is_made_anew(bench: Any, tmp_path: Path) -> None:
    """The image's new tree takes the place of the old one, labels and all; the same run notices."""
    geometry = ((8.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    em = write(tmp_path / "em.zarr", grey(), *geometry)
    seg = write(tmp_path / "seg.zarr", ids(SHAPE), *geometry)
    one = bench("address", addresses=[em], labels=[seg])
    made(one, tmp_path)
    write(tmp_path / "em.zarr", grey()[::-1].copy(), *geometry)
    image, labels = made(one, tmp_path)
    data = tmp_path / "data"
    np.testing.assert_array_equal(
        zarr.open_array(data / image["files"]["volume"] / "0", mode="r")[:], grey()[::-1]
    )
    assert_levels(data / labels["files"]["volume"], ids(SHAPE))
    assert [verdict.problems for verdict in verify_store(one.store, digests=True)] == [(), ()]
    group = json.loads((data / image["files"]["volume"] / "labels/zarr.json").read_text())
    assert group["attributes"]["ome"]["labels"] == [f"{labels['name']}.ome.zarr"]


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_labels_that_went_with_an_image_made_anew_are_not_complete(
    bench: Any, tmp_path: Path, place: str
) -> None:
    """A run of the image alone replaced its volume, and the labels in it with it."""
    geometry = ((8.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    em = write(tmp_path / "em.zarr", grey(), *geometry)
    seg = write(tmp_path / "seg.zarr", ids(SHAPE), *geometry)
    with ExitStack() as stack:
        uri, access = str(tmp_path / "data"), StoreSettings()
        if place == "bucket":
            server = stack.enter_context(S3Server("pair-made-anew"))
            uri = f"s3://{server.bucket}/made"
            access = StoreSettings(
                endpoint_url=server.endpoint_url, key=server.key, secret=server.secret
            )
        store = open_store(uri, access)

        def run(**settings: Any) -> list[str]:
            one = bench("address", addresses=[em], **settings)
            found = []
            for plan in plan_source("address", one.config, tmp_path / "plan", store).plans:
                request = VolumeRequest(plan, one.config, uri, access, one.scratch, "a test")
                found.append(make_volume(request, "a test").status)
            return found

        assert run(labels=[seg]) == ["complete"] * 2
        (key,) = [item.key for item in store.list() if "metadata_seg" in item.key]
        write(tmp_path / "em.zarr", grey()[::-1].copy(), *geometry)
        assert run() == ["complete"]
        record = json.loads(store.get(key))
        assert record["status"] == "failed"
        assert "the image of these labels was made anew" in record["error"]["message"]
        assert not any(verdict.problems for verdict in verify_store(store, digests=True))
        assert run(labels=[seg]) == ["complete"] * 2
        assert json.loads(store.get(key))["status"] == "complete"
        assert [verdict.problems for verdict in verify_store(store, digests=True)] == [(), ()]


def test_a_damaged_shard_of_labels_inside_an_image_is_made_anew(bench: Any, tmp_path: Path) -> None:
    image = write(tmp_path / "em.zarr", grey(), (10.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    seg = write(tmp_path / "seg.zarr", ids(SHAPE), (10.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    one = bench("address", addresses=[image], labels=[seg])
    plans = planned(one, tmp_path)
    _, record = [one.complete_record(plan) for plan in plans]
    shard = tmp_path / "data" / record["files"]["volume"] / "0/c/0/0/0"
    good = shard.read_bytes()
    shard.write_bytes(bytes(len(good)))
    note_damage(one.store, record["files"]["record"], [f"{record['files']['volume']}/0/c/0/0/0"])
    repaired = one.make(plans[1])
    assert (repaired.status, repaired.repaired_files) == ("complete", 1), repaired
    assert shard.read_bytes() == good


def test_colours_are_those_of_the_ids_and_few(bench: Any, tmp_path: Path) -> None:
    """NGFF `image-label`: colours that viewers agree on, for ids that JavaScript tells apart."""
    voxels = np.arange(20 * 96 * 100, dtype=np.uint64).reshape(SHAPE)
    voxels[0, 0, 1] = 2**53 + 1
    image = write(tmp_path / "em.zarr", grey(), (10.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    seg = write(tmp_path / "seg.zarr", voxels, (10.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    few = write(tmp_path / "few.zarr", voxels % 7, (10.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    one = bench("address", addresses=[image], labels=[seg, few])
    told = []
    for record in made(one, tmp_path)[1:]:
        root = tmp_path / "data" / record["files"]["volume"]
        ome = json.loads((root / "zarr.json").read_text())["attributes"]["ome"]
        found = ome["image-label"].get("colors", [])
        told.append({entry["label-value"]: entry["rgba"] for entry in found})
        assert ome["image-label"]["source"] == {"image": "../../"}
        assert all(len(rgba) == 4 and min(rgba) >= 0 and max(rgba) < 256 for rgba in rgba_of(ome))
    many, some = told
    assert [*some] == [0, 1, 2, 3, 4, 5, 6]
    assert some[0] == [0, 0, 0, 0]  # background is clear
    assert len({tuple(rgba) for rgba in some.values()}) == 7
    assert many == {}  # a viewer would hide the ids that a list leaves out


def test_ids_that_javascript_would_misread_get_no_colours(bench: Any, tmp_path: Path) -> None:
    image = write(tmp_path / "em.zarr", grey(), (10.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    seg = write(tmp_path / "seg.zarr", ids(SHAPE) // 100, (10.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    big = write(tmp_path / "big.zarr", ids(SHAPE) // 100 + 2**60, (10.0, 4.0, 4.0), (0.0,) * 3)
    one = bench("address", addresses=[image], labels=[seg, big])
    told = []
    for record in made(one, tmp_path)[1:]:
        root = tmp_path / "data" / record["files"]["volume"]
        ome = json.loads((root / "zarr.json").read_text())["attributes"]["ome"]
        told.append("colors" in ome["image-label"])
        assert record["metadata"]["technical"]["labels"]["values"]
    assert told == [True, False]
    assert [verdict.problems for verdict in verify_store(one.store, digests=True)] == [()] * 3


def rgba_of(ome: dict[str, Any]) -> list[list[int]]:
    return [entry["rgba"] for entry in ome["image-label"].get("colors", [])]


def test_labels_of_another_resolution_keep_their_own(bench: Any, tmp_path: Path) -> None:
    """Twice as fine, their first centres half a voxel of their own before the image's edge."""
    em = write(tmp_path / "em.zarr", grey((10, 48, 50)), (8.0, 8.0, 8.0), (0.0, 0.0, 0.0))
    segments = ids(SHAPE)
    seg = write(tmp_path / "seg.zarr", segments, (4.0, 4.0, 4.0), (-2.0, -2.0, -2.0))
    image, labels = made(bench("address", addresses=[em], labels=[seg]), tmp_path)
    assert_levels(tmp_path / "data" / labels["files"]["volume"], segments)
    assert labels["metadata"]["core"]["voxel_size_nm"] == {"z": 4.0, "y": 4.0, "x": 4.0}
    overlap = labels["additional_metadata"]["pair"]
    assert overlap["overlap_voxels_of_image"] == str(Box((0, 0, 0), (10, 48, 50)))
    assert image["metadata"]["core"]["kind"] == "image"


def test_the_image_lies_beneath_its_labels_in_their_preview(bench: Any, tmp_path: Path) -> None:
    """The very planes: nearest voxels of the image, black where it has none."""
    em = write(tmp_path / "em.zarr", grey((10, 24, 25)), (8.0, 8.0, 8.0), (0.0, 0.0, 0.0))
    segments = ids((20, 48, 50)) % np.uint64(3)
    seg = write(tmp_path / "seg.zarr", segments, (4.0, 4.0, 4.0), (-2.0, -2.0, -2.0))
    one = bench("address", addresses=[em], labels=[seg])
    image, labels = made(one, tmp_path)
    volume = describe(one.store, labels["files"]["volume"])
    planes = read_planes(one.store, volume)
    under = planes_beneath(one.store, volume, planes, image["files"]["volume"])
    assert under is not None
    pixels = grey((10, 24, 25))[5].astype(float).repeat(2, 0).repeat(2, 1)
    assert np.corrcoef(under.xy.ravel(), pixels.ravel())[0, 1] > 0.99
    assert under.xz.shape == planes.xz.shape
    assert not any("drawn" in note for note in labels["metadata"]["quality"]["notes"])
    with Image.open(tmp_path / "data" / labels["files"]["preview"]) as drawn:
        seen = np.asarray(drawn.convert("RGB")).astype(int)
    spread = seen[60:200, 60:200].max(axis=2) - seen[60:200, 60:200].min(axis=2)
    assert (spread > 20).any()  # colours
    assert planes_beneath(one.store, volume, planes, None) is None


def test_a_box_of_the_image_is_that_of_its_labels(bench: Any, tmp_path: Path) -> None:
    em = write(tmp_path / "em.zarr", grey(), (8.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    segments = ids((20, 48, 50))
    seg = write(tmp_path / "seg.zarr", segments, (8.0, 8.0, 8.0), (0.0, 2.0, 2.0))
    one = bench("address", addresses=[em], labels=[seg], box="z=3:9,y=10:31,x=20:60")
    _, labels = made(one, tmp_path)
    volume = tmp_path / "data" / labels["files"]["volume"]
    np.testing.assert_array_equal(
        zarr.open_array(volume / "0", mode="r")[:], segments[3:9, 5:16, 10:30]
    )


def test_labels_that_say_nothing_but_have_the_images_shape_are_its(
    bench: Any, tmp_path: Path
) -> None:
    em = write(tmp_path / "em.zarr", grey(), (8.0, 4.0, 4.0), (80.0, 40.0, 40.0))
    zarr.create_array(tmp_path / "bare.zarr", data=ids(SHAPE), chunks=(10, 50, 50), zarr_format=2)
    one = bench("address", addresses=[em], labels=[str(tmp_path / "bare.zarr")])
    image, labels = planned(one, tmp_path)
    assert labels.voxel_nm_zyx == image.voxel_nm_zyx
    assert labels.origin_nm_zyx == image.origin_nm_zyx
    assert any("are the image's" in note for note in labels.notes)
    other = tmp_path / "other.zarr"
    zarr.create_array(other, data=ids((20, 96, 99)), chunks=(10, 50, 50), zarr_format=2)
    with pytest.raises(GridMismatchError, match="their shape"):
        planned(bench("address", addresses=[em], labels=[str(other)]), tmp_path)


def write_precomputed(
    path: Path, voxels: NDArray[Any], nm: float, offset: int, kind: str, scales: int = 1
) -> str:
    """Raw chunks of 32; coarser scales take every second voxel."""
    listed = []
    for number in range(scales):
        size, at = voxels.shape[::-1], offset >> number
        key, length = f"s{number}", nm * 2**number
        listed.append(
            {"key": key, "size": [*size], "resolution": [length] * 3, "voxel_offset": [at] * 3,
             "encoding": "raw", "chunk_sizes": [[32, 32, 32]]}
        )  # fmt: skip
        (path / key).mkdir(parents=True)
        for z, y, x in np.ndindex(*(-(-n // 32) for n in voxels.shape)):
            part = voxels[tuple(slice(32 * n, 32 * n + 32) for n in (z, y, x))]
            pairs = zip((x, y, z), part.shape[::-1], strict=True)
            name = "_".join(f"{at + 32 * n}-{at + 32 * n + k}" for n, k in pairs)
            (path / key / name).write_bytes(np.ascontiguousarray(part).tobytes())
        voxels = voxels[::2, ::2, ::2]
    info = {"type": kind, "data_type": voxels.dtype.name, "num_channels": 1, "scales": listed}
    (path / "info").write_text(json.dumps(info))
    return f"{path}|neuroglancer-precomputed:"


@pytest.mark.parametrize(
    ("nm", "offset", "level", "box"),
    [
        (8.0, 4, None, Box((0, 0, 0), (20, 48, 60))),  # labels twice as coarse
        (8.0, 4, "s1", Box((0, 0, 0), (10, 24, 30))),  # on the image's second scale
        (2.0, 16, None, Box((0, 0, 0), (5, 12, 15))),  # twice as fine
        (4.0, 8, None, Box((0, 0, 0), (10, 24, 30))),
    ],
)
def test_corners_meet_where_both_sources_count_from_corners(
    bench: Any, tmp_path: Path, nm: float, offset: int, level: str | None, box: Box
) -> None:
    """Each reader takes off half a voxel of its own finest scale, which differs (EM 4 nm, bodies
    8 nm in H01, 16 nm in FlyWire)."""
    em = write_precomputed(tmp_path / "em", grey((20, 48, 60)), 4.0, 8, "image", scales=2)
    segments = ids((10, 24, 30))
    seg = write_precomputed(tmp_path / "seg", segments, nm, offset, "segmentation")
    one = bench("address", addresses=[em], labels=[seg], scale_level=level)
    _, labels = made(one, tmp_path)
    inside = tmp_path / "data" / labels["files"]["volume"]
    np.testing.assert_array_equal(zarr.open_array(inside / "0", mode="r")[:], segments)
    pair = labels["additional_metadata"]["pair"]
    assert pair["overlap_voxels_of_image"] == str(box)
    # corners lie at 32 nm, and half a voxel of the image's finest scale is taken off both
    assert pair["overlap_start_nm"] == dict.fromkeys("zyx", 30.0)
    placed = json.loads((inside / "zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]
    assert placed["datasets"][0]["coordinateTransformations"][1]["translation"] == [30 + nm / 2] * 3
    told = [note for note in labels["metadata"]["quality"]["notes"] if "corners meet" in note]
    assert len(told) == (nm != 4.0)


def test_a_voxel_size_that_nobody_measured_pairs_nothing(bench: Any, tmp_path: Path) -> None:
    """1 nm stands for an unknown length: labels of 3 nm would seem to be three times as coarse."""
    tifffile.imwrite(tmp_path / "em.tif", grey(), photometric="minisblack")
    seg = write(tmp_path / "seg.zarr", ids(SHAPE), (3.0, 3.0, 3.0), (1.0, 1.0, 1.0))
    one = bench("address", addresses=[str(tmp_path / "em.tif")], labels=[seg])
    with pytest.raises(
        GridMismatchError, match=r"voxel size of the image \(the labels say 3, 3, 3"
    ):
        planned(one, tmp_path)
    given = {"addresses": [str(tmp_path / "em.tif")], "voxel_size_nm": (3.0, 3.0, 3.0)}
    with pytest.raises(GridMismatchError, match="beside the grid"):
        planned(bench("address", labels=[seg], **given), tmp_path)
    tifffile.imwrite(tmp_path / "seg.tif", ids(SHAPE).astype("u4"), photometric="minisblack")
    image, labels = planned(bench("address", labels=[str(tmp_path / "seg.tif")], **given), tmp_path)
    assert labels.voxel_nm_zyx == image.voxel_nm_zyx == (3.0, 3.0, 3.0)
    assert not any("stands in its place" in note for note in labels.notes)


def test_labels_that_state_some_other_length_are_not_the_images(bench: Any, tmp_path: Path) -> None:
    em = write(tmp_path / "em.zarr", grey(), (8.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    tifffile.imwrite(
        tmp_path / "seg.tif", ids(SHAPE).astype("u2"), imagej=True, resolution=(125.0, 125.0),
        metadata={"unit": "um", "axes": "ZYX"},
    )  # fmt: skip
    one = bench("address", addresses=[em], labels=[str(tmp_path / "seg.tif")])
    with pytest.raises(GridMismatchError, match="4 nm along y, of the labels 8 nm"):
        planned(one, tmp_path)


@pytest.mark.parametrize(
    ("scale", "at", "why"),
    [
        ((8.0, 4.0, 4.0), (0.0, 2.0, 0.0), "0.5 of a voxel beside the grid"),
        ((8.0, 4.0, 6.0), (0.0, 0.0, 0.0), "none is a whole number of the other"),
        ((8.0, 4.0, 4.0), (8000.0, 0.0, 0.0), "nothing in common along z"),
    ],
)
def test_what_lies_beside_the_grid_is_refused(
    bench: Any, tmp_path: Path, scale: Any, at: Any, why: str
) -> None:
    em = write(tmp_path / "em.zarr", grey(), (8.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    seg = write(tmp_path / "seg.zarr", ids(SHAPE), scale, at)
    with pytest.raises(GridMismatchError, match=why):
        planned(bench("address", addresses=[em], labels=[seg]), tmp_path)


def test_labels_that_the_viewer_cannot_show_are_left_out_of_it(
    bench: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It has no int64; nothing is shown rather than ids that are not there."""
    em = write(tmp_path / "em.zarr", grey(), (8.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    signed = (ids(SHAPE) % np.uint64(1000)).astype(np.int64) - 1
    seg = write(tmp_path / "seg.zarr", signed, (8.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    one = bench("address", addresses=[em], labels=[seg])
    image, labels = made(one, tmp_path)
    key = image["files"]["volume"]
    with serve(one.store, [key]) as running:
        fragment = unquote(urlsplit(running.url_for([key])).fragment)
    assert len(json.loads(fragment.removeprefix("!"))["layers"]) == 1
    assert "left out of the view: the viewer cannot show int64" in caplog.text
    with pytest.raises(UnsupportedFormatError, match="cannot show int64"):
        check_viewable(describe(one.store, labels["files"]["volume"]))


def test_signed_labels_without_a_negative_id_are_shown_as_unsigned(
    bench: Any, tmp_path: Path
) -> None:
    """The bytes are the same; the store itself is served as it is."""
    em = write(tmp_path / "em.zarr", grey(), (8.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    signed = (ids(SHAPE) + np.uint64(2**54)).astype(np.int64)
    seg = write(tmp_path / "seg.zarr", signed, (8.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    one = bench("address", addresses=[em], labels=[seg])
    image, labels = made(one, tmp_path)
    key = image["files"]["volume"]
    with serve(one.store, [key]) as running:
        fragment = unquote(urlsplit(running.url_for([key])).fragment)
        _, layer = json.loads(fragment.removeprefix("!"))["layers"]
        address = layer["source"].removesuffix("/|zarr3:")
        assert address.endswith(f"/unsigned/{labels['files']['volume']}")
        seen = zarr.open_group(address, mode="r")["0"]
        assert seen.dtype == np.uint64
        np.testing.assert_array_equal(seen[:].astype(np.int64), signed)
        stored = zarr.open_group(address.replace("/unsigned/", "/store/"), mode="r")["0"]
        assert stored.dtype == np.int64


def test_labels_belong_to_one_image(bench: Any, tmp_path: Path) -> None:
    two = [
        write(tmp_path / name, grey(), (8.0, 4.0, 4.0), (0.0, 0.0, 0.0))
        for name in ("a.zarr", "b.zarr")
    ]
    with pytest.raises(ConfigError, match="labels belong to one image"):
        planned(bench("address", addresses=two, labels=[two[0]]), tmp_path)


def test_labels_without_their_image_are_not_made(bench: Any, tmp_path: Path) -> None:
    em = write(tmp_path / "em.zarr", grey(), (8.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    seg = write(tmp_path / "seg.zarr", ids(SHAPE), (8.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    one = bench("address", addresses=[em], labels=[seg])
    _, labels = planned(one, tmp_path)
    result = one.make(labels)
    assert result.status == "failed"
    assert "the image of these labels was not made" in str(result.error)


def test_axes_in_another_order_are_noticed(bench: Any, tmp_path: Path) -> None:
    em = write(tmp_path / "em.zarr", grey((10, 60, 100)), (8.0, 8.0, 8.0), (0.0, 0.0, 0.0))
    seg = write(tmp_path / "seg.zarr", ids((100, 60, 10)), (8.0, 8.0, 8.0), (0.0, 0.0, 0.0))
    _, labels = planned(bench("address", addresses=[em], labels=[seg]), tmp_path)
    assert any("with their axes as xyz" in note for note in labels.notes)


def test_the_hemibrains_pair_lies_in_one_volume(bench: Any, tmp_path: Path) -> None:
    crop = {"crop_origin": (18010, 20000, 21003), "crop_size": (100, 70, 20)}
    one = bench("flyem", labels="15aee239283143c08b827177ebee01b3/segmentation", **crop)
    image, labels = planned(one, tmp_path)
    overlap = overlap_of(image, labels)
    assert overlap.labels == overlap.image == Box((0, 0, 0), (20, 70, 100))
    for plan in (image, labels):
        record = one.complete_record(plan)
    assert "/labels/" in record["files"]["volume"]
    assert [verdict.problems for verdict in verify_store(one.store, digests=True)] == [(), ()]
