"""The screenshots of the README, taken of a run on the stand-in archives: ``make pictures``."""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

from lib.present.viewer import serve
from lib.storage.open import open_store
from tests.end_to_end.finished_run import FinishedRun, click, finished_run, log_in, shown
from tests.kit.browser import Browser

FOLDER = Path(__file__).with_name("pictures")
COLOURS = 64
SHOWN_IN_VIEWER = ("openorganelle", "idr")


def save(name: str, png: bytes) -> None:
    """Store a screenshot, small enough for a repository."""
    with Image.open(io.BytesIO(png)) as image:
        small = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    path = FOLDER / f"{name}.png"
    small.save(path, optimize=True)
    print(f"{path}: {small.width} x {small.height}, {path.stat().st_size / 1000:.0f} kB")


def prefect_run(browser: Browser, run: FinishedRun) -> None:
    """The page of the run: its sources in time, and what each came to."""
    browser.resize(1280, 860)
    browser.open(f"{run.ui}/runs/flow-run/{run.run['id']}")
    shown(browser, "macroscope staged all", "Subflow Runs")
    click(browser, "Artifacts")
    shown(browser, "volumes", "mode staged")
    browser.settle()
    save("prefect-run", browser.screenshot())


def report(browser: Browser, run: FinishedRun, *, width: int = 1280, suffix: str = "") -> None:
    """The report that the run wrote."""
    (page,) = (run.folder / "metadata").glob("report_*.html")
    browser.resize(width, 900, mobile=width < 600)
    browser.open(page.as_uri())
    browser.settle()
    save("report" + suffix, browser.screenshot())


def viewer(browser: Browser, run: FinishedRun, *, width: int = 1280, suffix: str = "") -> None:
    """Two volumes in the viewer."""
    store = open_store(str(run.folder / "data"))
    found = {path.parent.name: path for path in (run.folder / "data").glob("*/*.ome.zarr")}
    keys = [f"{source}/{found[source].name}" for source in SHOWN_IN_VIEWER]
    with serve(store, keys) as running:
        browser.resize(width, 800, mobile=width < 600)
        browser.open(running.url)
        browser.until("window.viewer && viewer.isReady()")
        browser.settle()
        save("viewer" + suffix, browser.screenshot())


def main() -> int:
    """Make them all; ``--phone`` adds report and viewer as a phone shows them."""
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="macroscope-") as folder,
        finished_run(Path(folder)) as run,
        Browser() as browser,
    ):
        log_in(browser, run)
        prefect_run(browser, run)
        report(browser, run)
        viewer(browser, run)
        if "--phone" in sys.argv:
            report(browser, run, width=390, suffix="-phone")
            viewer(browser, run, width=390, suffix="-phone")
    return 0


if __name__ == "__main__":
    sys.exit(main())
