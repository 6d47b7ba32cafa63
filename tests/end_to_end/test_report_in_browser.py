"""What a person sees of the report: at a desk, on a phone, by keyboard, in the dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from emulators.tissue import tissue
from emulators.volumes import make_recorded_volume, plan_of
from lib.plan import About
from lib.present.preview import preview_key, render_preview
from lib.present.report import write_report
from lib.records.catalogue import consolidate
from lib.storage.open import open_store
from tests.kit.browser import Browser, find_chromium

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium: apt-get install chromium"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    data, metadata = open_store(str(root / "data")), open_store(str(root / "metadata"))
    voxels = tissue((0, 0, 0), (16, 60, 80), seed=3)
    long = "a_name_without_any_space_that_is_much_longer_than_a_telephone_is_wide_" * 3
    for source, name in (("ebi", "one"), ("openorganelle", "two")):
        about = About(title=f"{name} {long}", licence="CC0-1.0", citation=long, modality="FIB-SEM")
        plan = plan_of(voxels, source, name, (8.0, 8.0, 8.0), about=about)
        key = make_recorded_volume(data, voxels, plan)["files"]["volume"]
        data.put(preview_key(key), render_preview(data, key))
    data.put(f"idr/metadata_{long[:150]}.json", b"not JSON")
    result = consolidate(data, metadata)
    return root / "metadata" / write_report(data, metadata, result.catalog, result.report)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser(width=1280, height=900) as running:
        yield running


@pytest.mark.parametrize(
    ("width", "phone"), [(390, True), (320, True), (768, False), (1280, False)]
)
def test_nothing_sticks_out_at_any_width(
    width: int, phone: bool, report: Path, browser: Browser
) -> None:
    browser.resize(width, 844, mobile=phone)
    browser.open(report.as_uri())
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    outside = "[...document.querySelectorAll('main *')].filter(e => {const r = "
    outside += "e.getBoundingClientRect(); return r.width > 1 && r.right > innerWidth + 1})"
    assert browser.evaluate(f"{outside}.map(e => e.outerHTML.slice(0, 80))") == []


def test_pictures_and_rows_are_there_and_nothing_was_loaded(report: Path, browser: Browser) -> None:
    browser.resize(1280, 900)
    browser.requested.clear()
    browser.messages.clear()
    browser.open(report.as_uri())
    sizes = browser.evaluate("[...document.images].map(i => [i.naturalWidth, i.complete])")
    assert [complete for _, complete in sizes] == [True, True]
    assert min(width for width, _ in sizes) > 400
    assert browser.evaluate("document.querySelectorAll('#volumes ~ .cards article').length") == 2
    bars = "[...document.querySelectorAll('svg rect')].map(r => r.getBoundingClientRect().width)"
    assert min(browser.evaluate(bars)) > 0
    assert [url for url in browser.requested if url != report.as_uri()] == []
    assert browser.messages == []  # the page's own policy lets its script run


def test_the_keyboard_reaches_everything_and_shows_where_it_is(
    report: Path, browser: Browser
) -> None:
    browser.open("about:blank")
    browser.open(report.as_uri())
    reached = []
    for _ in range(40):
        browser.press("Tab")
        where = browser.evaluate(
            "(e => [e.tagName, (e.innerText || '').trim().slice(0, 30),"
            " getComputedStyle(e).outlineStyle, e.getBoundingClientRect().top >= 0])"
            "(document.activeElement)"
        )
        if where[0] == "BODY":
            break
        reached.append(where)
    assert reached[0][1] == "Skip to the volumes"
    assert all(outline == "solid" and visible for _, _, outline, visible in reached)
    kinds = [kind for kind, *_ in reached]
    assert kinds.count("BUTTON") == 2
    assert kinds.count("SUMMARY") == 2


def test_the_copy_button_says_what_it_did(report: Path, browser: Browser) -> None:
    browser.open(report.as_uri())
    browser.evaluate("document.querySelector('button').click()")
    said = browser.until("document.getElementById('said').textContent")
    assert said.endswith("macroscope view ebi/one.ome.zarr")


def test_a_dark_room_gets_a_dark_page(report: Path, browser: Browser) -> None:
    shades = []
    for scheme in ("light", "dark"):
        browser.prefer(prefers_color_scheme=scheme)
        browser.open(report.as_uri())
        shades.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    browser.prefer(prefers_color_scheme="light")
    assert shades == ["rgb(246, 247, 249)", "rgb(16, 20, 26)"]


def test_words_sift_the_volumes(report: Path, browser: Browser) -> None:
    browser.resize(1280, 900)
    browser.open(report.as_uri())
    shown = "[...document.querySelectorAll('article')].filter(a => a.offsetParent).length"
    assert browser.evaluate("document.getElementById('filter').offsetParent !== null")
    for words, left in (("", 2), ("openorganelle", 1), ("two FIB-SEM", 1), ("nothing of this", 0)):
        browser.evaluate(
            "(() => {const f = document.getElementById('filter'); "
            f"f.value = '{words}'; f.dispatchEvent(new Event('input')); return 0}})()"
        )
        assert browser.evaluate(shown) == left, words
        said = browser.evaluate("document.getElementById('left').textContent")
        assert said == (f"{left} shown" if words else "")
