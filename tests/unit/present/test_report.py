"""The report: everything is in it, nothing of it runs or loads, and everybody can read it."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from emulators.tissue import tissue
from emulators.volumes import make_recorded_volume, plan_of
from lib.errors import TransportError
from lib.plan import About
from lib.present.formatting import duration_text, shape_text, size_text, voxel_text
from lib.present.preview import preview_key, render_preview
from lib.present.report import report_html, source_times, write_report
from lib.present.rows import how_to_cite
from lib.records.catalogue import consolidate
from lib.records.manager import MetadataManager
from lib.records.model import Record
from lib.storage.open import open_store

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
NOW = datetime(2026, 11, 21, 10, 52, 54, tzinfo=UTC)
_VOID = {"meta", "img", "link", "br", "input"}


class Page(HTMLParser):
    """The elements of a page: tag, attributes and text, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[int] = []
        self.feed(text)
        assert not self._open, "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))
        if tag not in _VOID:
            self._open.append(len(self.found) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.found[self._open.pop()][0] == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        for index in self._open:
            self.found[index][2].append(data)

    def all(self, *tags: str) -> Iterator[tuple[str, dict[str, str | None], str]]:
        for tag, attributes, text in self.found:
            if tag in tags:
                yield tag, attributes, " ".join(" ".join(text).split())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report over a good, a hostile and a failed volume, and a record that is not valid."""
    root = tmp_path_factory.mktemp("report")
    data, metadata = open_store(str(root / "data")), open_store(str(root / "metadata"))
    voxels = tissue((0, 0, 0), (12, 40, 60), seed=3)
    good = About(
        title="Cerebral organoid",
        modality="FIB-SEM",
        organism="Homo sapiens",
        licence="CC0-1.0",
        authors=("A. Author",),
        doi="10.6019/EMPIAR-11759",
    )
    bad = About(
        title=HOSTILE, description=HOSTILE, organism=HOSTILE, citation=HOSTILE, licence=HOSTILE
    )
    for source, name, about in (("ebi", "EMPIAR-11759", good), ("idr", "hostile", bad)):
        plan = plan_of(voxels, source, name, (50.0, 8.0, 8.0), about=about)
        record = make_recorded_volume(data, voxels, plan, seconds=12.5)
        key = record["files"]["volume"]
        data.put(preview_key(key), render_preview(data, key))
    manager = MetadataManager(data)
    failed = manager.move(manager.begin("flyem", "hemibrain", "crop"), "processing")
    error = TransportError("the server answered 503 six times", unit="tile 3/0/1")
    manager.move(failed, "failed", error=error)
    failed = manager.move(manager.begin("flyem", "hemibrain", "other"), "processing")
    manager.move(failed, "failed", error=RuntimeError("has no place and no advice"))
    data.put("idr/metadata_broken.json", b'{"schema_version": "3.0", "status": "done"}')
    result = consolidate(data, metadata, NOW)
    key = write_report(data, metadata, result.catalog, result.report)
    assert key == "report_20261121T105254Z.html"
    assert write_report(data, metadata, result.catalog, result.report) != key
    return metadata.get(key).decode()


@pytest.fixture(scope="module")
def page(written: str) -> Page:
    return Page(written)


def test_every_volume_has_its_picture_size_voxel_licence_and_citation(page: Page) -> None:
    cards = [text for _, _, text in page.all("article")]
    assert len(cards) == 4
    (card,) = [text for text in cards if "EMPIAR-11759" in text]
    for expected in (
        "Cerebral organoid",
        "12 × 40 × 60",
        "50 × 8 × 8 nm",
        "uint8",
        "28.8 kB",
        "CC0-1.0",
        "A. Author. Cerebral organoid. EMPIAR, EMBL-EBI, EMPIAR-11759. https://doi.org/10.6019/",
        "100 %",
        "macroscope view ebi/EMPIAR-11759.ome.zarr",
    ):
        assert expected in card
    pictures = [attributes for _, attributes, _ in page.all("img")]
    assert len(pictures) == 2
    for attributes in pictures:
        head, _, data = str(attributes["src"]).partition(",")
        assert head == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.size == (int(attributes["width"] or 0), int(attributes["height"] or 0))
            assert np.asarray(image.convert("L")).std() > 20
        assert "Middle planes xy, yz and xz of" in str(attributes["alt"])


def test_every_error_of_every_record_is_shown(page: Page) -> None:
    attention = next(text for _, _, text in page.all("section"))
    assert "the server answered 503 six times" in attention
    assert "tile 3/0/1" in attention
    assert "has no place and no advice" in attention
    assert "Run again: finished work is kept" in attention
    rows = [text for _, _, text in page.all("tr") if "metadata_broken.json" in text]
    assert len(rows) == 1
    for field in ("'source' is a required property", "'done' is not one of"):
        assert field in rows[0]
        assert field in attention


def test_a_complete_volume_has_the_command_that_shows_it(page: Page) -> None:
    copies = [a["data-copy"] for _, a, _ in page.all("button")]
    assert copies == [
        "macroscope view ebi/EMPIAR-11759.ome.zarr",
        "macroscope view idr/hostile.ome.zarr",
    ]


def test_texts_of_archives_stay_texts(page: Page, written: str) -> None:
    assert len(list(page.all("script"))) == 1
    assert not [a for _, a, _ in page.found if any(name.startswith("on") for name in a)]
    for _, attributes, _ in page.all("a"):
        assert str(attributes["href"]).startswith(("#", "http://", "https://"))
    assert any(HOSTILE in text for _, _, text in page.all("h3"))
    assert "<script>alert" not in written


def test_nothing_is_loaded_and_no_other_script_may_run(page: Page, written: str) -> None:
    for tag, attributes, _ in page.found:
        assert tag not in ("link", "iframe", "object", "embed", "form", "base")
        if "src" in attributes:
            assert str(attributes["src"]).startswith("data:")
    assert "url(" not in written
    assert "@import" not in written
    policy = next(
        str(a["content"]) for _, a, _ in page.all("meta") if a.get("http-equiv") is not None
    )
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/]+=*'", policy)


def test_a_screen_reader_finds_its_way(page: Page) -> None:
    tags = [tag for tag, _, _ in page.found]
    for landmark in ("header", "nav", "main", "footer"):
        assert tags.count(landmark) == 1
    assert next(a for _, a, _ in page.all("html"))["lang"] == "en"
    levels = [int(tag[1]) for tag, _, _ in page.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    ids = [a["id"] for _, a, _ in page.found if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes, _ in page.found:
        assert set((attributes.get("aria-labelledby") or "").split()) <= set(ids)
        if tag == "th":
            assert attributes.get("scope") in ("row", "col")
        if tag == "img":
            assert attributes.get("alt")
        if tag == "svg":
            assert attributes.get("role") == "img"
        if tag == "a" and str(attributes["href"]).startswith("#"):
            assert str(attributes["href"])[1:] in ids
    assert all(text for _, _, text in page.all("caption", "title", "desc", "h2", "h3", "a"))


@pytest.mark.parametrize("scheme", [0, 1])
def test_colours_have_the_contrast_that_wcag_asks_for(scheme: int, written: str) -> None:
    block = re.findall(r":root \{(.*?)\}", written, re.DOTALL)[scheme]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))

    def luminance(colour: str) -> float:
        parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    def contrast(a: str, b: str) -> float:
        high, low = sorted((luminance(colours[a]), luminance(colours[b])), reverse=True)
        return (high + 0.05) / (low + 0.05)

    texts = [(ink, back) for ink in ("ink", "soft", "accent") for back in ("paper", "card")]
    texts += [("on-accent", "accent"), ("good", "good-back"), ("bad", "bad-back")]
    texts += [
        ("warn", "warn-back"),
        ("ink", "bad-back"),
        ("ink", "warn-back"),
        ("soft", "bad-back"),
    ]
    assert {pair: contrast(*pair) for pair in texts if contrast(*pair) < 4.5} == {}
    assert min(contrast("time", "card"), contrast("rate", "card")) >= 3  # graphics


def test_motion_schemes_focus_and_narrow_screens_are_thought_of(written: str) -> None:
    for words in ("prefers-color-scheme: dark", "prefers-reduced-motion", ":focus-visible"):
        assert words in written
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in written


def test_the_chart_draws_the_recorded_times_and_rates(page: Page) -> None:
    def timed(source: str, seconds: float | None, received: int) -> Any:
        provenance = {"seconds": seconds, "bytes": received}
        return Record.read({"source": source, "metadata": {"provenance": provenance}})

    rows = source_times(
        timed(*given)
        for given in (
            ("ebi", 10, 50_000_000),
            ("ebi", 10, 50_000_000),
            ("idr", 5, 50_000_000),
            ("old", None, 1),
        )
    )
    assert [(r.source, r.volumes, r.seconds, r.received) for r in rows] == [
        ("ebi", 2, 20, 100_000_000),
        ("idr", 1, 5, 50_000_000),
    ]
    (long, slow), (short, fast) = rows[0].bars, rows[1].bars
    assert short.width == pytest.approx(long.width / 4)
    assert slow.width == pytest.approx(fast.width / 2)
    assert (long.text, fast.text) == ("20 s", "10.0 MB/s")
    assert "ebi: 12 s" in next(text for _, _, text in page.all("desc"))


def test_an_empty_store_has_a_report() -> None:
    text = report_html({"records": []}, {"results": []}, pictures={}, now=NOW).decode()
    assert "There are no volumes in this store yet" in text


def test_a_damaged_or_missing_preview_leaves_the_rest(tmp_path: Path) -> None:
    record = {"source": "ebi", "name": "a", "status": "complete", "files": {"volume": "ebi/a.npy"}}
    catalog = {"records": [{"path": "p", "record": record}]}
    for pictures in ({}, {"ebi/a.npy": b"\x89PNG\r\n\x1a\nbroken"}):
        text = report_html(catalog, {"results": []}, pictures=pictures, now=NOW).decode()
        assert "No picture" in text


def test_older_records_are_shown_with_what_they_have() -> None:
    old = {
        "source": "epfl",
        "source_id": "EPFL-Hippocampus",
        "status": "complete",
        "description": "old",
        "voxel_size_nm": [5.0, 5.0, 5.0],
        "files": [],
        "metadata": {},
    }
    read = Record.read(old)
    assert (read.voxel_nm_zyx, read.core.description) == ((5.0, 5.0, 5.0), "old")
    assert read.core.licence is None
    assert how_to_cite(read).startswith("EPFL-Hippocampus. CVLab, EPFL, EPFL-Hippocampus")
    catalog = {"records": [{"path": "p", "record": old}]}
    assert "EPFL-Hippocampus" in report_html(catalog, {}, pictures={}, now=NOW).decode()


def test_numbers_are_written_as_people_read_them() -> None:
    sizes = [0, 999, 1000, 4_567_890, 99_960_000, 999_600_000, 3.2e12]
    assert [size_text(n) for n in sizes] == [
        "0 B",
        "999 B",
        "1.00 kB",
        "4.57 MB",
        "100 MB",
        "1.00 GB",
        "3.20 TB",
    ]
    times = [0.04, 9.94, 12.5, 59.7, 185, 7800, None]
    assert [duration_text(t) for t in times] == [
        "0.0 s",
        "9.9 s",
        "12 s",
        "1 min 0 s",
        "3 min 5 s",
        "2 h 10 min",
        "unknown",
    ]
    assert shape_text((24, 400, 400)) == "24 × 400 × 400"
    assert voxel_text((8.0, 8.0, 8.0)) == "8 nm"
    assert voxel_text((50.0, 7.99825, 8.0)) == "50 × 7.99825 × 8 nm"
    assert voxel_text((1.0, 7.99825, 8.0), "z") == "? × 7.99825 × 8 nm"
    assert voxel_text((1.0, 1.0, 1.0), "zyx") == voxel_text(None) == "unknown"
