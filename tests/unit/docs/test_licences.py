"""Every package that is shipped has a licence that allows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs import licences

REQUIREMENTS = Path(__file__).parents[3] / "requirements"


@pytest.mark.parametrize("name", licences.shipped())
def test_what_is_shipped_may_be(name: str) -> None:
    assert licences.problem(name) is None


def test_the_one_exception_is_shipped_nowhere() -> None:
    assert licences.problem("ncempy") is not None
    for lock in ("run.lock", "image.lock", "samples.lock"):
        assert not re.search(r"^ncempy==", (REQUIREMENTS / lock).read_text(), re.M)


@pytest.mark.parametrize(
    "words", ["GPL-3.0-only", "AGPL-3.0", "CC-BY-NC-4.0", "not stated", "LGPL-3.0"]
)
def test_what_may_not_be_is_refused(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(licences.LOOKED_UP, "numpy", words)
    assert licences.problem("numpy") == f"numpy: {words}"
