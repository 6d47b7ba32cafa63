"""What a person sees in the viewer: tissue, in the right place, size and contrast."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lib.present.browser import Browser, find_chromium
from lib.present.viewer import Viewer, serve
from lib.samples.tissue import labels, tissue
from lib.samples.volumes import make_volume, plan_of
from lib.storage.open import open_store

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium: apt-get install chromium"
)

SHAPE, VOXEL = (24, 160, 200), (40.0, 10.0, 10.0)
EM, CELLS, OTHER = "ebi/em.ome.zarr", "ebi/em_cells.ome.zarr", "idr/other.ome.zarr"
WIDTH, HEIGHT = 1280, 800
# the first of four panes, without its frame, its tool buttons and its scale bar
PANE = (slice(100, 370), slice(110, 580))


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    store = open_store(str(tmp_path_factory.mktemp("seen")))
    for key, seed, dtype in ((EM, 3, "int16"), (OTHER, 8, "float32")):
        source, _, name = key.removesuffix(".ome.zarr").partition("/")
        voxels = tissue((0, 0, 0), SHAPE, seed=seed, dtype=dtype, voxel_nm_zyx=VOXEL)
        make_volume(store, voxels, plan_of(voxels, source, name, VOXEL))
    cells = labels((0, 0, 0), SHAPE, seed=3, dtype="uint64", voxel_nm_zyx=VOXEL)
    make_volume(store, cells, plan_of(cells, "ebi", "em_cells", VOXEL, kind="labels"))
    with serve(store, [EM, CELLS, OTHER]) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser(width=WIDTH, height=HEIGHT) as running:
        yield running


def look(browser: Browser, url: str) -> NDArray[np.uint8]:
    """The page as it is once everything is drawn."""
    browser.open("about:blank")  # two links differ behind the # only, which is no new page
    browser.open(url)
    browser.until("window.viewer && viewer.isReady()")
    browser.until("document.querySelector('.neuroglancer-status-container')?.innerText.trim()===''")
    with Image.open(io.BytesIO(browser.screenshot())) as image:
        return np.asarray(image.convert("RGB"))


def test_the_viewer_shows_the_volumes_own_tissue(volumes: Viewer, browser: Browser) -> None:
    shown = look(browser, volumes.url_for([EM]))
    seen = shown[PANE].astype(int)
    assert np.ptp(seen, axis=2).max() < 140  # grey, but for the frame
    grey = seen[..., 0]
    assert grey.std() > 30
    # one voxel is 1.8 pixels wide (200 voxels on 360 pixels) and the middle lies on the pane's
    truth = tissue((12, 0, 0), (1, *SHAPE[1:]), seed=3, dtype="int16", voxel_nm_zyx=VOXEL)[0]
    correlation = best_match(shown, truth)
    assert correlation > 0.97


def best_match(shown: NDArray[np.uint8], truth: NDArray[np.int16]) -> float:
    """How well a plane is found in the first pane, at exactly the scale that the link asks for."""
    high, wide = (round(n * 1.8) for n in truth.shape)
    with Image.fromarray(truth.astype(np.float32)) as plane:
        expected = np.asarray(plane.resize((wide, high), Image.Resampling.NEAREST))
    pane = shown[48:421, 0:640, 0].astype(float)
    top, left = (pane.shape[0] - high) // 2, (pane.shape[1] - wide) // 2
    inner = (slice(8, -60), slice(8, -8))
    return max(
        float(
            np.corrcoef(
                expected[inner].ravel(),
                pane[top + dy : top + dy + high, left + dx : left + dx + wide][inner].ravel(),
            )[0, 1]
        )
        for dy in range(-3, 4)
        for dx in range(-3, 4)
    )


def test_its_scale_bar_is_as_long_as_it_says(volumes: Viewer, browser: Browser) -> None:
    shown = look(browser, volumes.url_for([EM]))
    corner = (shown[380:421, 0:130] > 250).all(axis=2)
    longest = max(int(np.count_nonzero(row)) for row in corner)
    nanometres = longest * browser.evaluate("viewer.crossSectionScale.value") * 1e9
    round_lengths = [m * 10**d for d in range(5) for m in (1, 1.5, 2, 3, 5, 7.5)]
    assert min(abs(nanometres / length - 1) for length in round_lengths) < 0.03


def test_the_axes_have_their_physical_scale(volumes: Viewer, browser: Browser) -> None:
    look(browser, volumes.url_for([EM]))
    space = browser.evaluate(
        "(s => ({names: s.names, scales: [...s.scales], units: s.units,"
        " upper: [...s.bounds.upperBounds]}))(viewer.coordinateSpace.value)"
    )
    assert space["names"] == ["x", "y", "z"]
    assert space["scales"] == pytest.approx([10e-9, 10e-9, 40e-9])
    assert space["units"] == ["m", "m", "m"]
    # the first voxel's centre is the origin, so the volume ends half a voxel earlier
    assert space["upper"] == pytest.approx([199.5, 159.5, 23.5], abs=0.51)


def test_labels_lie_in_colour_over_the_tissue(volumes: Viewer, browser: Browser) -> None:
    shown = look(browser, volumes.url_for([EM, CELLS]))[PANE].astype(int)
    colourful = np.ptp(shown, axis=2) > 25
    assert 0.2 < colourful.mean() < 0.99
    hues = {tuple(c) for c in shown[colourful] // 48}
    assert len(hues) > 12
    plain = look(browser, volumes.url_for([EM]))[PANE].astype(int)
    both = np.corrcoef(shown.mean(axis=2).ravel(), plain.mean(axis=2).ravel())[0, 1]
    assert both > 0.6  # the tissue shines through


def test_several_volumes_are_shown_side_by_side(volumes: Viewer, browser: Browser) -> None:
    shown = look(browser, volumes.url)
    for left in (20, 660):
        pane = shown[120:360, left : left + 280].mean(axis=2)
        assert pane.std() > 25
    names = browser.evaluate(
        "[...document.querySelectorAll('.neuroglancer-layer-item-label')].map(e => e.innerText)"
    )
    assert sorted(names) == ["em", "em_cells", "other"]


def test_the_viewer_asks_nobody_but_us_and_nothing_fails(volumes: Viewer, browser: Browser) -> None:
    browser.requested.clear()
    browser.messages.clear()
    look(browser, volumes.url)
    assert browser.requested
    foreign = [url for url in browser.requested if not url.startswith(volumes.address + "/")]
    assert [url for url in foreign if url != "about:blank"] == []
    assert browser.messages == []


def test_a_link_survives_being_written_down(volumes: Viewer, browser: Browser) -> None:
    """The short address leads to the same view."""
    browser.open("about:blank")
    browser.open(volumes.address)
    state: dict[str, Any] = browser.until("window.viewer && viewer.state.toJSON()")
    assert [layer["name"] for layer in state["layers"]] == ["em", "other", "em_cells"]
    assert json.dumps(state["layout"]).count('"viewer"') == 2


def test_the_store_is_as_it_was(volumes: Viewer, tmp_path: Path) -> None:
    store = volumes._store
    assert not [item.key for item in store.list() if "state" in item.key]
