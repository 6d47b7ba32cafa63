"""How the product is cut: modules of a readable length, and no fragment that one neighbour imports.

Arrows between packages are held by import-linter, dead code is found by vulture; see `make lint`.
"""

from __future__ import annotations

import ast
import subprocess
from collections import defaultdict
from functools import cache
from pathlib import Path

from tests.mutation.run import PARTS

ROOT = Path(__file__).parents[2]
PRODUCT = ("macroscope", "flows", "tasks", "lib")
LONGEST = 450

# Modules that only one neighbour imports, and are a concept of their own all the same.
CONCEPTS = {
    "a command of its own, or a program that is run by its path": (
        "flows.register", "flows.commands.prefect_process",
    ),
    "who runs when, apart from the flow that asks": ("flows.runners", "flows.sources"),
    "one thing that is asked of an archive: what it lists, what an entry's files are": (
        "lib.archives.address.folders", "lib.archives.address.plans",
        "lib.archives.address.reading",
        "lib.archives.flyem.info", "lib.archives.ebi.planning",
        "lib.archives.idr.files", "lib.archives.idr.listing",
        "lib.archives.openorganelle.crops", "lib.archives.openorganelle.listing",
    ),
    "reading voxels, where another module reads documents": (
        "lib.formats.dm.reader", "lib.formats.hdf5.reader",
        "lib.formats.n5.reader", "lib.formats.precomputed.reader", "lib.formats.zarr.v3_reader",
    ),
    "a part of a format with a specification of its own": (
        "lib.formats.dm.tags", "lib.formats.mrc.header", "lib.formats.n5.geometry",
        "lib.formats.tiff.ome_set", "lib.formats.tiff.ome_xml", "lib.formats.tiff.series",
    ),
    "how files are named, where another module makes volumes of them": ("lib.formats.numbering",),
    "a step of a volume's life or of its repair": (
        "lib.ingest.describe", "lib.ingest.kind", "lib.ingest.repair.from_source",
        "lib.ingest.repair.remake",
    ),
    "a document or picture of its own": (
        "lib.present.croissant", "lib.present.viewer_app",
    ),
    "the sections of a record": ("lib.records.sections",),
    "what a volume's documents are held against": ("lib.verify.documents",),
    "a lock, a lease or a protocol of the destination": ("lib.storage.s3", "lib.storage.s3_lease"),
    "a layer of a protocol, or a judgement on what it brought": (
        "lib.transport.ftp_wire", "lib.transport.second_look",
    ),
    "a pass of the engine": ("lib.volumes.transcode",),
}  # fmt: skip


@cache
def modules() -> dict[str, Path]:
    """The product's modules by their dotted names."""
    listed = subprocess.check_output(
        ["git", "ls-files", *(f"{one}/*.py" for one in PRODUCT)], cwd=ROOT
    )
    paths = [Path(line) for line in listed.decode().splitlines() if (ROOT / line).exists()]
    return {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def importers() -> dict[str, set[str]]:
    """Which modules import each; one that is named as text, by a registry, has that user, too."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, path in modules().items():
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                targets = [
                    *(whole & modules().keys()),
                    *([node.module] if whole - modules().keys() else ()),
                ]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found[node.value.partition(":")[0]].add("a registry")
                continue
            else:
                continue
            for target in targets:
                if target != name:
                    found[target].add(name)
    return found


def test_no_module_is_longer_than_can_be_read_at_once() -> None:
    lengths = {
        name: len((ROOT / path).read_text().splitlines()) for name, path in modules().items()
    }
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}


def test_what_one_neighbour_imports_is_a_concept_or_part_of_it() -> None:
    known = {name for names in CONCEPTS.values() for name in names}
    fragments = {}
    for name, by in importers().items():
        if name in modules() and len(by) == 1 and modules()[name].name != "__init__.py":
            (one,) = by
            if one.rpartition(".")[0] == name.rpartition(".")[0] and name not in known:
                fragments[name] = one
    assert fragments == {}, "put each into its importer, or say above why it is a concept"


def test_unit_tests_lie_where_the_product_lies() -> None:
    folders = {
        path.relative_to(ROOT / "tests" / "unit") for path in (ROOT / "tests/unit").rglob("*")
    }
    ours = {
        str(one)
        for one in folders
        if one.name != "__pycache__" and (ROOT / "tests/unit" / one).is_dir()
    }
    roots = ("", "lib", "docs", "flows/commands")
    strange = {one for one in ours if not any((ROOT / root / one).is_dir() for root in roots)}
    assert strange == set()


def test_no_concept_is_listed_that_is_gone() -> None:
    known = {name for names in CONCEPTS.values() for name in names}
    assert known - modules().keys() == set()


def test_mutants_are_made_of_modules_and_tried_by_tests_that_exist() -> None:
    named = [word for part in PARTS.values() for word in (*part.modules, *part.tests.split())]
    assert [word for word in named if word.endswith(".py") and not (ROOT / word).is_file()] == []
