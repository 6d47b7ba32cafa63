"""Documents that are written from the code say what the code says now."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from docs import proof_table, record_reference, record_schema
from docs.config_reference import PATH, reference
from lib.config.loaders import LOADER_CONFIGS
from lib.config.settings import Settings

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "dependencies.md").read_text()

_spec = importlib.util.spec_from_file_location("dependencies", ROOT / "docs" / "dependencies.py")
assert _spec is not None
assert _spec.loader is not None
dependencies = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(dependencies)


def rows() -> dict[str, list[str]]:
    """Package -> the cells of its row."""
    lines = [line for line in PAGE.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {cell[0]: cell[1:] for cell in cells}


def test_the_configuration_reference_is_current() -> None:
    assert PATH.read_text(encoding="utf-8") == reference(), "run: make docs"


def test_the_schema_of_records_is_the_model_s() -> None:
    assert record_schema.PATH.read_text("utf-8") == record_schema.text(), "run: make docs"


def test_the_reference_of_records_is_current() -> None:
    text = record_reference.PATH.read_text("utf-8")
    assert text == record_reference.reference(), "run: make docs"
    assert "| `core.licence` |" in text


def test_the_table_of_proofs_is_current() -> None:
    text = proof_table.PATH.read_text("utf-8")
    assert text == proof_table.page(text), "run: make docs"
    assert text.count("`core.voxel_size_nm`") == 1


def test_every_setting_is_in_the_reference() -> None:
    text = reference()
    for field in Settings.model_fields.keys() - {"sources"}:
        assert f"| `{field}` | `EM_{field.upper()}` |" in text
    for name, model in LOADER_CONFIGS.items():
        own = model.__annotations__
        assert all(
            f"`sources.{name}.{field}` | `{name.upper()}_{field.upper()}`" in text for field in own
        )


def test_no_secret_has_a_default_in_the_reference() -> None:
    secrets = [
        line for line in reference().splitlines() if re.match(r"\| `\S*(secret|_key)`", line)
    ]
    assert len(secrets) == 6
    assert all(line.split("|")[4].strip() == "" for line in secrets)


@pytest.mark.parametrize("name", dependencies.direct() + dependencies.extras())
def test_every_direct_dependency_is_explained(name: str) -> None:
    purpose, instead, licence, _version, size = rows()[name]
    assert (purpose, instead) == {**dependencies.REASONS, **dependencies.EXTRAS}[name]
    assert licence == dependencies.licence(dependencies.distribution(name))
    assert float(size) >= 0


def test_nothing_that_is_gone_is_explained() -> None:
    assert set(dependencies.REASONS) == set(dependencies.direct())
    assert set(dependencies.EXTRAS) == set(dependencies.extras())


def test_copyleft_among_the_direct_dependencies_is_named() -> None:
    strict = re.compile(r"\bA?GPL", re.IGNORECASE)
    named = dependencies.direct() + dependencies.extras()
    assert [name for name in named if strict.search(rows()[name][2])] == ["ncempy"]
    assert "ncempy" in dependencies.extras()
    assert "`ncempy` is the one package that is under the GPL" in PAGE
