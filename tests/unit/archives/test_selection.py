"""Patterns choose files; what cannot be made keeps none of the others from being made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lib.archives.selection import Selection, matches, plan_each
from lib.config.loaders import EBIConfig
from lib.config.manager import ConfigManager
from lib.errors import ConfigError, FormatError, NotFoundError, TransportError
from lib.plan import VolumePlan
from tests.kit.volume_kit import a_plan


@pytest.mark.parametrize(
    ("path", "pattern", "fits"),
    [
        ("data/sub/a.mrc", "*.mrc", True),
        ("data/sub/a.mrc", "a.mrc", True),
        ("data/sub/a.mrc", "sub/a.mrc", False),
        ("data/sub/a.mrc", "*/sub/*", True),
        ("data/sub/a.mrc", "data/*.mrc", True),
        ("data/sub/a.mrc", "A.mrc", False),
        ("data/a1.mrc", "a[0-9].mrc", True),
        ("data/a[1].mrc", "a[[]1].mrc", True),
        ("data/e\u0301.mrc", "\u00e9.mrc", True),
        ("em/fibsem/s1", "s1", True),
    ],
)
def test_a_pattern_is_a_shells(path: str, pattern: str, fits: bool) -> None:
    assert matches(path, pattern) is fits


def test_exclude_is_stronger_than_include() -> None:
    selection = Selection(("a*",), ("*_bad",))
    assert [selection.takes(path) for path in ("a_1", "a_bad", "b_1")] == [True, False, False]
    assert Selection().takes("anything")


@pytest.mark.parametrize(
    ("given", "patterns"),
    [
        ("a.mrc, b*.mrc", ["a.mrc", "b*.mrc"]),
        ("[ab]*.mrc", ["[ab]*.mrc"]),
        ('["a,b.mrc", "c"]', ["a,b.mrc", "c"]),
        ("[1]", ["[1]"]),
        (["a", "b,c"], ["a", "b,c"]),
    ],
)
def test_patterns_are_read_from_text_and_lists(given: Any, patterns: list[str]) -> None:
    assert EBIConfig(exclude=given).exclude == patterns
    if isinstance(given, str):
        loaded = ConfigManager().load(environ={"EBI_EXCLUDE": given}, dotenv=None)
        assert loaded.loader("ebi").exclude == patterns  # type: ignore[attr-defined]


def test_sources_that_list_nothing_have_no_patterns() -> None:
    for name in ("EPFL_EXCLUDE", "FLYEM_INCLUDE", "EM_EXCLUDE"):
        with pytest.raises(ConfigError, match="no such setting"):
            ConfigManager().load(environ={name: "x"}, dotenv=None)


# --- each stands alone


def plans(item: str) -> Iterator[VolumePlan]:
    yield a_plan((1, 2, 3), name=item)
    if item.startswith("bad"):
        raise FormatError("it is damaged")
    if item == "gone":
        raise NotFoundError("it is not there")
    if item == "away":
        raise TransportError("the server is away")


def test_what_fails_is_told_by_the_others() -> None:
    (plan,) = plan_each(["bad", "good", "gone"], plans, lambda item: f"file {item}")
    assert plan.name == "good"
    assert plan.notes == (
        "file bad was left out: it is damaged",
        "file gone was left out: it is not there",
    )


def test_where_nothing_is_left_the_first_reason_is_the_sources() -> None:
    with pytest.raises(FormatError, match="damaged"):
        plan_each(["bad", "gone"], plans, str)


def test_what_was_asked_for_by_name_must_be_made() -> None:
    with pytest.raises(NotFoundError):
        plan_each(["good", "gone"], plans, str, must=lambda item: item == "gone")


def test_a_server_that_is_away_leaves_nothing_out() -> None:
    with pytest.raises(TransportError):
        plan_each(["good", "away"], plans, str)


def test_the_notes_of_thousands_stay_short() -> None:
    (plan,) = plan_each([*(f"bad{n}" for n in range(3000)), "good"], plans, str)
    assert len(plan.notes) == 51
    assert plan.notes[-1] == "2950 more were left out"
