"""Two thousand volumes: the report and the page of the store stay small, and find each of them."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from emulators.tissue import tissue
from emulators.volumes import make_recorded_volume, plan_of
from lib.plan import About
from lib.present.preview import preview_key, render_preview
from lib.present.report import write_report
from lib.present.viewer import Viewer, serve_store
from lib.records.catalogue import consolidate
from lib.storage.base import Store
from lib.storage.keys import record_of
from lib.storage.open import open_store
from tests.kit.browser import Browser, find_chromium

COUNT = 2000
MOST_BYTES = 5_000_000
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium"),
]


@dataclass(frozen=True)
class Many:
    store: Store
    report: Path
    viewer: Viewer


def name_of(number: int) -> str:
    return f"EMPIAR-11759_a_volume_of_a_long_list_{number:05d}"


def fill(store: Store, folder: Path) -> None:
    """One volume that is whole; of the others the record and the root document."""
    voxels = tissue((0, 0, 0), (12, 40, 60), seed=3)
    about = About(title="Hippocampus", licence="CC0-1.0", citation="Author, a paper. 2021")
    made = make_recorded_volume(store, voxels, plan_of(voxels, "ebi", "x", (8.0,) * 3, about=about))
    key = made["files"]["volume"]
    picture, root = render_preview(store, key), store.get(f"{key}/zarr.json")
    store.put(preview_key(key), picture)
    for number in range(1, COUNT):
        record: dict[str, Any] = copy.deepcopy(made)
        name = name_of(number)
        record |= {"id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)), "name": name}
        record["metadata"]["core"] |= {
            "title": f"Hippocampus of the mouse number {number}",
            "citation": f"Author {number}, a paper with a title of many words. Journal {number}",
        }
        volume = f"ebi/{name}.ome.zarr"
        record["additional_metadata"]["source_digest"] = f"{number:064x}"
        record["files"] |= {"volume": volume, "preview": preview_key(volume)}
        (folder / volume).mkdir()  # by hand: the store's own way is durable, and slow for so many
        (folder / volume / "zarr.json").write_bytes(root)
        (folder / record_of(volume)).write_text(json.dumps(record))
        (folder / preview_key(volume)).write_bytes(picture)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Many]:
    root = tmp_path_factory.mktemp("many")
    store, metadata = open_store(str(root / "data")), open_store(str(root / "metadata"))
    fill(store, root / "data")
    found = consolidate(store, metadata)
    assert (found.valid, found.invalid) == (COUNT, 0)
    report = write_report(store, metadata, found.catalog, found.report)
    with serve_store(store) as viewer:
        yield Many(store, root / "metadata" / report, viewer)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser(width=1280, height=900) as running:
        yield running


def sift(browser: Browser, field: str, words: str) -> None:
    browser.evaluate(
        f"(f => {{ f.value = {json.dumps(words)}; f.dispatchEvent(new Event('input')); return 0 }})"
        f"(document.getElementById('{field}'))"
    )


def test_the_report_is_small_and_its_filter_finds_any_volume(many: Many, browser: Browser) -> None:
    assert many.report.stat().st_size < MOST_BYTES
    browser.open("about:blank")
    browser.messages.clear()
    browser.open(many.report.as_uri())
    seen = "[...document.querySelectorAll('#rows tbody tr')].filter(e => e.offsetParent)"
    assert browser.evaluate(f"{seen}.length") == COUNT
    sift(browser, "filter", "list_01873")
    assert browser.evaluate(f"{seen}.map(e => e.cells[0].innerText.trim())") == [name_of(1873)]
    assert browser.evaluate("document.getElementById('left').textContent") == "1 shown"
    sift(browser, "filter", "ebi long_list_000")
    assert browser.evaluate(f"{seen}.length") == 99
    assert browser.evaluate("document.getElementById('left').textContent") == "99 shown"
    sift(browser, "filter", "")
    assert browser.evaluate(f"{seen}.length") == COUNT
    assert browser.messages == []


def test_the_page_of_the_store_is_small_and_its_filter_finds_any_volume(
    many: Many, browser: Browser
) -> None:
    page = requests.get(many.viewer.url, timeout=120)
    assert page.ok and len(page.content) < MOST_BYTES
    browser.open("about:blank")
    browser.messages.clear()
    browser.requested.clear()
    browser.open(many.viewer.url)
    seen = "[...document.querySelectorAll('article')].filter(e => e.offsetParent)"
    assert browser.evaluate(f"{seen}.length") == COUNT
    asked = {url for url in browser.requested if "/preview/" in url}
    assert len(asked) < 100  # pictures come as they are looked at
    sift(browser, "words", "hippocampus 1872")
    assert browser.evaluate(f"{seen}.map(e => e.ariaLabel)") == [name_of(1872)]
    assert browser.evaluate("document.getElementById('shown').innerText") == "1 of 2000 volumes"
    browser.until(f"{seen}[0].querySelector('img').naturalWidth > 100")
    link = f"/open?volume=ebi/{name_of(1872)}.ome.zarr"
    href = browser.evaluate(f"{seen}[0].querySelector('a.button').getAttribute('href')")
    assert href.replace("%2F", "/") == link
    assert browser.messages == []


def test_of_the_store_one_volume_is_opened_by_a_click(many: Many, browser: Browser) -> None:
    browser.open(many.viewer.url)
    browser.evaluate("document.querySelector('article[aria-label=x] a.button').click()")
    state = browser.until("window.viewer && viewer.state.toJSON()")
    assert [layer["name"] for layer in state["layers"]] == ["x"]
