"""The table of public volumes: every address resolves, and what it needs is tried by a cell."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from docs import reach
from lib.archives.address.grammar import is_named, parse_address
from lib.formats import registry

FORMATS = Path(__file__).parents[2] / "formats"
TRANSPORTS = importlib.import_module("tests.formats.servers").TRANSPORTS
VOLUMES = reach.volumes()
LOADED = [volume for volume in VOLUMES if not volume.why_not]
TRIED_AS = {"https": "http", "ftp": "ftp", "s3": "s3", "gs": "gs"}


def cells() -> set[tuple[str, str]]:
    """Format and transport of every cell of the conformance table."""
    found = set()
    names = sorted([*registry.FILE_FORMATS, *registry.TREE_FORMATS], key=len, reverse=True)
    for module in sorted(path.stem for path in FORMATS.glob("cases_*.py")):
        for case in importlib.import_module(f"tests.formats.{module}").CASES:
            form = next(name for name in names if case.name.startswith(name))
            found |= {(form, one) for one in case.transports if one in TRANSPORTS}
    return found


CELLS = cells()


def test_there_are_enough_of_them() -> None:
    assert len(VOLUMES) >= 80
    assert len({volume.address for volume in VOLUMES}) == len(VOLUMES)


@pytest.mark.parametrize("volume", VOLUMES, ids=lambda volume: volume.title)
def test_every_address_resolves_without_a_network(volume: reach.Volume) -> None:
    if is_named(volume.address):
        return
    address = parse_address(volume.address)
    words = [step.word for step in address.steps if step.word != "zip"]
    if words and not volume.why_not:
        assert volume.format in registry.named(words[-1])
    assert (volume.layout.startswith("zip")) == any(s.word == "zip" for s in address.steps)


@pytest.mark.parametrize("volume", LOADED, ids=lambda volume: volume.title)
def test_what_is_called_loaded_is_tried_by_a_conformance_cell(volume: reach.Volume) -> None:
    if is_named(volume.address):
        return  # tests/archives holds the archives themselves
    assert (volume.format, TRIED_AS[volume.transport]) in CELLS
    if volume.layout.startswith("zip"):
        assert (volume.format, "zip") in CELLS


def test_the_page_and_the_readme_are_current() -> None:
    assert reach.PAGE.read_text() == reach.page(), "run: make docs"
    assert reach.count() in reach.README.read_text()
