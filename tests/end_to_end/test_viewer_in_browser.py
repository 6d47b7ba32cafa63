"""What a person sees in the viewer: tissue, in the right place, size and contrast."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from emulators.tissue import labels, tissue
from emulators.volumes import make_recorded_volume, make_volume, plan_of
from lib.plan import About
from lib.present.preview import preview_key, render_preview
from lib.present.viewer import Viewer, serve, serve_store
from lib.storage.open import open_store
from tests.kit.browser import Browser, find_chromium

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium: apt-get install chromium"
)

SHAPE, VOXEL = (24, 160, 200), (40.0, 10.0, 10.0)
EM, CELLS, OTHER = "ebi/em.ome.zarr", "ebi/em_cells.ome.zarr", "idr/other.ome.zarr"
WIDTH, HEIGHT = 1280, 800
NM_PER_PIXEL = 2000 / 360  # the longest side, 200 voxels of 10 nm, takes 360 pixels
PANE = (slice(48, 421), slice(0, 640))  # the first of four, showing xy
INSIDE = (slice(100, 370), slice(150, 490))  # of the tissue in it, without the frame


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
    browser.settle()  # ready is what will be drawn in the next frame
    with Image.open(io.BytesIO(browser.screenshot())) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def tissue_seen(volumes: Viewer, browser: Browser) -> NDArray[np.uint8]:
    return look(browser, volumes.url_for([EM]))


def test_the_viewer_shows_the_volumes_own_tissue_at_the_right_scale(
    tissue_seen: NDArray[np.uint8],
) -> None:
    seen = tissue_seen[INSIDE].astype(int)
    assert np.ptp(seen, axis=2).max() == 0  # grey
    assert seen.std() > 30
    planes = tissue((11, 0, 0), (3, *SHAPE[1:]), seed=3, dtype="int16", voxel_nm_zyx=VOXEL)
    before, middle, after = (best_match(tissue_seen, plane) for plane in planes)
    assert middle > 0.9  # pixels and voxels do not share their grid: not 1
    assert max(before, after) < 0.5


def best_match(shown: NDArray[np.uint8], truth: NDArray[np.int16]) -> float:
    """How well a plane is found in the middle of the first pane, at the scale of the link."""
    high, wide = (round(n * VOXEL[2] / NM_PER_PIXEL) for n in truth.shape)
    plane = Image.fromarray(truth.astype(np.float32))
    expected = np.asarray(plane.resize((wide, high), Image.Resampling.NEAREST))
    pane = shown[(*PANE, 0)].astype(float)
    top, left = (pane.shape[0] - high) // 2, (pane.shape[1] - wide) // 2
    inner = (slice(8, -8), slice(8, -8))
    found = []
    for dy in range(-3, 4):
        for dx in range(-3, 4):
            part = pane[top + dy : top + dy + high, left + dx : left + dx + wide]
            found.append(np.corrcoef(expected[inner].ravel(), part[inner].ravel())[0, 1])
    return float(max(found))


def test_its_scale_bar_is_500_nm_long(tissue_seen: NDArray[np.uint8]) -> None:
    corner = (tissue_seen[380:421, 0:130] > 250).all(axis=2)
    longest = max(int(np.count_nonzero(row)) for row in corner)
    assert longest * NM_PER_PIXEL == pytest.approx(500, rel=0.03)


def test_the_axes_have_their_physical_scale(
    tissue_seen: NDArray[np.uint8], browser: Browser
) -> None:
    space = browser.evaluate(
        "(s => ({names: s.names, scales: [...s.scales], units: s.units,"
        " upper: [...s.bounds.upperBounds]}))(viewer.coordinateSpace.value)"
    )
    assert space["names"] == ["x", "y", "z"]
    assert space["scales"] == pytest.approx([10e-9, 10e-9, 40e-9])
    assert space["units"] == ["m", "m", "m"]
    # the first voxel's centre is the origin, so the volume ends half a voxel earlier
    assert space["upper"] == pytest.approx([199.5, 159.5, 23.5], abs=0.51)


def test_labels_lie_in_colour_over_the_tissue(
    tissue_seen: NDArray[np.uint8], volumes: Viewer, browser: Browser
) -> None:
    shown = look(browser, volumes.url_for([EM, CELLS]))[INSIDE].astype(int)
    colourful = np.ptp(shown, axis=2) > 25
    assert 0.2 < colourful.mean() < 0.99
    hues = {tuple(c) for c in shown[colourful] // 48}
    assert len(hues) > 12
    plain = tissue_seen[INSIDE].astype(int)
    both = np.corrcoef(shown.mean(axis=2).ravel(), plain.mean(axis=2).ravel())[0, 1]
    assert both > 0.6  # the tissue shines through


def test_several_volumes_stand_side_by_side_and_nobody_else_is_asked(
    volumes: Viewer, browser: Browser
) -> None:
    browser.open("about:blank")
    browser.requested.clear()
    browser.messages.clear()
    shown = look(browser, volumes.url)
    for left in (20, 660):
        assert shown[120:350, left : left + 280].mean(axis=2).std() > 25
    names = browser.evaluate(
        "[...document.querySelectorAll('.neuroglancer-layer-item-label')].map(e => e.innerText)"
    )
    assert sorted(names) == ["em", "em_cells", "other"]
    asked = [url for url in browser.requested if url != "about:blank"]
    assert asked
    assert [url for url in asked if not url.startswith(volumes.address + "/")] == []
    assert browser.messages == []


def test_the_short_address_leads_to_the_same_view(volumes: Viewer, browser: Browser) -> None:
    browser.open("about:blank")
    browser.open(volumes.address)
    state: dict[str, Any] = browser.until("window.viewer && viewer.state.toJSON()")
    assert [layer["name"] for layer in state["layers"]] == ["em", "other", "em_cells"]
    assert json.dumps(state["layout"]).count('"viewer"') == 2


@pytest.fixture(scope="module")
def whole_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    store = open_store(str(tmp_path_factory.mktemp("page")))
    for source, name in (("ebi", "em"), ("idr", "other")):
        voxels = tissue((0, 0, 0), SHAPE, seed=3, dtype="int16", voxel_nm_zyx=VOXEL)
        plan = plan_of(voxels, source, name, VOXEL, about=About(title=f"Tissue of {source}"))
        key = make_recorded_volume(store, voxels, plan)["files"]["volume"]
        store.put(preview_key(key), render_preview(store, key))
    with serve_store(store) as running:
        yield running


SHOWN = "[...document.querySelectorAll('article')].filter(a => !a.hidden).map(a => a.ariaLabel)"


@pytest.mark.long
def test_the_page_of_a_store_filters_and_a_click_opens_a_volume(
    whole_store: Viewer, browser: Browser
) -> None:
    browser.open("about:blank")
    browser.messages.clear()
    browser.open(whole_store.address)
    browser.until("document.images.length == 2 && [...document.images].every(i => i.naturalWidth)")
    browser.requested.clear()  # of pages before
    assert browser.evaluate(SHOWN) == ["em", "other"]
    browser.evaluate(
        "(w => { w.value = 'TISSUE idr'; w.dispatchEvent(new Event('input')) })"
        "(document.getElementById('words'))"
    )
    assert browser.evaluate(SHOWN) == ["other"]
    assert browser.evaluate("document.getElementById('shown').innerText") == "1 of 2 volumes"
    browser.evaluate("document.querySelector('article:not([hidden]) a.button').click()")
    state: dict[str, Any] = browser.until("window.viewer && viewer.state.toJSON()")
    assert [layer["name"] for layer in state["layers"]] == ["other"]
    browser.until("viewer.isReady()")
    asked = [url for url in browser.requested if url != "about:blank"]
    assert [url for url in asked if not url.startswith(whole_store.address)] == []
    assert browser.messages == []
