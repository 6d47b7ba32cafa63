"""Image and labels of three archives in the viewer: under the pointer is the id of that voxel."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from emulators.dvid_labels import dvid_labels
from emulators.s3 import S3Server
from emulators.serving import Samples
from lib.archives.registry import archive
from lib.ingest.context import VolumeRequest
from lib.ingest.life import make_volume
from lib.ingest.stages import plan_source
from lib.plan import VolumePlan
from lib.present.viewer import serve
from lib.storage.base import StoreSettings
from lib.storage.local import LocalStore
from tests.archives import test_crop_sets as crop_sets
from tests.kit.browser import Browser, find_chromium

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium"),
]

Truth = Callable[[VolumePlan], NDArray[Any]]
CROP = {"crop_origin": (18010, 20000, 21003), "crop_size": (90, 70, 40)}


def lay(path: Path, voxels: NDArray[Any], voxel_nm: float, at: float) -> str:
    """An NGFF 0.4 multiscale of one level; `at` is the centre of its first cube on each axis."""
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("s0", data=voxels, chunks=(16, 32, 32))
    axes = [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"]
    steps = [
        {"type": kind, kind: [length] * 3}
        for kind, length in (("scale", voxel_nm), ("translation", at))
    ]
    levels = [{"path": "s0", "coordinateTransformations": steps}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": levels}]
    return str(path)


def ids(shape: tuple[int, int, int]) -> NDArray[Any]:
    """Neighbours differ along every axis, and lie beyond what floats hold exactly."""
    z, y, x = np.indices(shape, np.uint64)
    return z * np.uint64(10_007) + y * np.uint64(101) + x + np.uint64(2**53 + 1)


def by_address(
    samples: Samples, crops: S3Server, folder: Path
) -> tuple[str, dict[str, Any], Truth]:
    """Labels twice as fine as the image, begun before it: half a voxel and a crop apart."""
    em = np.random.default_rng(1).integers(1, 255, (20, 30, 40)).astype(np.uint8)
    fine = ids((48, 64, 84))
    addresses = [lay(folder / "em.zarr", em, 8.0, 160.0)]
    labels = [lay(folder / "seg.zarr", fine, 4.0, 160.0 - 2.0 - 16.0)]

    def truth(plan: VolumePlan) -> NDArray[Any]:
        assert plan.box_zyx is not None
        return fine[plan.box_zyx.slices()]

    return "address", {"addresses": addresses, "labels": labels}, truth


def by_dvid(samples: Samples, crops: S3Server, folder: Path) -> tuple[str, dict[str, Any], Truth]:
    settings = {"labels": "15aee239283143c08b827177ebee01b3/segmentation", **CROP}
    origin, size = CROP["crop_origin"][::-1], CROP["crop_size"][::-1]
    truth = dvid_labels(origin, size)  # type: ignore[arg-type]
    return "flyem", {**samples.endpoints["FLYEM"], **settings}, lambda plan: truth


def by_crop(samples: Samples, crops: S3Server, folder: Path) -> tuple[str, dict[str, Any], Truth]:
    """Ground truth at twice the EM's resolution, with EM around it."""
    settings = {
        "s3_uri": f"s3://{crops.bucket}",
        "s3_endpoint_url": crops.endpoint_url,
        "dataset_id": "cells",
        "zarr_path": f"{crop_sets.CROP}/mito",
        "with_em": True,
        "padding": 4,
    }
    return "openorganelle", settings, lambda plan: crop_sets.classes()["mito"]


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server("seen-crops") as server:
        crop_sets.lay_data_set(server, tmp_path_factory.mktemp("crops"))
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser(width=1280, height=800) as running:
        yield running


@pytest.mark.parametrize("source", [by_address, by_dvid, by_crop])
def test_the_id_under_the_pointer_is_that_of_the_voxel(
    samples: Samples, crops: S3Server, browser: Browser, tmp_path: Path, source: Any
) -> None:
    name, settings, truth = source(samples, crops, tmp_path)
    config = archive(name).config_model(**settings)
    data = tmp_path / "data"
    store = LocalStore(data)
    plans = plan_source(name, config, tmp_path / "scratch", store).plans
    for plan in plans:
        request = VolumeRequest(plan, config, str(data), StoreSettings(), tmp_path / "s", "a test")
        result = make_volume(request, "a test")
        assert result.status == "complete", result.error
    image, labels = plans if len(plans) == 2 else (plans[0], *plans[0].members)
    key, voxels = f"{image.source}/{image.name}.ome.zarr", truth(labels)
    with serve(store, [key]) as viewer:
        browser.open("about:blank")
        browser.open(viewer.url_for([key]))
        browser.until("window.viewer && viewer.isReady()")
        unit = image.voxel_nm_zyx
        middle = [n // 2 for n in voxels.shape]
        for step in (-3, -1, 0, 1, 2):
            index = [m + step for m in middle]
            centre = [
                (labels.origin_nm_zyx[n] + index[n] * labels.voxel_nm_zyx[n]) / unit[n]
                for n in range(3)
            ]
            seen = seen_at(browser, centre[::-1])
            assert seen == str(int(voxels[tuple(index)])), (index, centre)


def seen_at(browser: Browser, position_xyz: list[float]) -> str:
    """What the labels' layer says of a place, once its chunk is there."""
    browser.evaluate(f"viewer.position.value = new Float32Array({json.dumps(position_xyz)})")
    layer = "viewer.layerManager.managedLayers.find(l => l.layer.type === 'segmentation').layer"
    place = f"new Float32Array({json.dumps(position_xyz)})"
    value = f"{layer}.getValueAt({place}, {{pickedRenderLayer: null, pickedValue: 0n}})"
    browser.until(f"viewer.isReady() && {value} != null")
    return str(browser.evaluate(f"String({value}.value ?? {value})"))
