"""Change the code in small ways, one at a time, and see whether a test notices.

    python -m tests.mutation.run [--every N] [part ...]

Every mutant of a part runs against that part's fastest tests, in a copy of the working tree; what
survives is printed as a diff. ``--every 4`` tries one mutant of four. docs/testing.md says what is
known of the survivors. cosmic-ray makes the mutants; it lives in an environment of its own, where
`make mutants` puts it.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FORKS = Path(__file__).with_name("forkserver.py")
TOOL = Path(os.environ.get("COSMIC_RAY", ROOT / ".macroscope" / "mutants" / "bin"))


@dataclass(frozen=True)
class Part:
    """Modules, the tests that must notice, and how long a mutant may take at least (seconds)."""

    modules: tuple[str, ...]
    tests: str
    patience: int


PARTS = {
    "grid": Part(
        ("lib/volumes/grid.py", "lib/geometry.py"),
        "tests/unit/test_geometry.py tests/unit/volumes/test_grid.py"
        " tests/unit/volumes/test_levels.py tests/property/test_shard_grid_properties.py"
        " -k 'not any and not tiles and not boxes or test_geometry'",
        60,
    ),
    "shards": Part(("lib/volumes/shardfile.py",), "tests/unit/volumes/test_shardfile.py", 60),
    "ledger": Part(("lib/volumes/ledger.py",), "tests/unit/volumes/test_ledger.py", 60),
    "sums": Part(
        ("lib/verify/beside.py",),
        "tests/unit/verify/test_beside.py tests/unit/verify/test_volume.py",
        60,
    ),
    "streams": Part(("lib/storage/digests.py",), "tests/unit/storage/test_digests.py", 30),
    "finish": Part(("lib/volumes/finish.py",), "tests/unit/volumes/test_finish.py", 60),
    "records": Part(
        ("lib/records/lifecycle.py",),
        "tests/unit/records/test_records.py tests/unit/records/test_record_errors.py",
        60,
    ),
    "moves": Part(
        ("lib/records/manager.py",),
        "tests/unit/records/test_record_steps.py tests/unit/records/test_record_errors.py"
        " tests/unit/records/test_records.py tests/property/test_record_moves.py",
        90,
    ),
}

#: What changes nothing that can be observed, or is no mistake that anybody makes.
LEFT_OUT = (
    "core/RemoveDecorator",  # caches and dataclasses
    "core/ReplaceBinaryOperator_BitOr_.*",  # unions of types, never evaluated
    "core/ReplaceBinaryOperator_.*_(BitAnd|BitOr|BitXor|LShift|RShift|Pow)",
    "core/ReplaceComparisonOperator_.*_(Is|IsNot)$(?<!Is_IsNot)(?<!IsNot_Is)",
    "core/ReplaceComparisonOperator_(Is|IsNot)_(Eq|NotEq|Lt|LtE|Gt|GtE)",
)


def command_of(part: Part) -> str:
    """What runs the part's tests."""
    options = "-x -q -p no:cacheprovider"
    return f"{sys.executable} -IS {FORKS} ask forks {options} {part.tests}"


def config(part: Part, patience: float) -> str:
    """The part as cosmic-ray reads it."""
    return "\n".join(
        (
            "[cosmic-ray]",
            f"module-path = {json.dumps(part.modules)}",
            f"timeout = {patience:.1f}",
            "excluded-modules = []",
            f"test-command = {json.dumps(command_of(part))}",
            "[cosmic-ray.distributor]",
            'name = "local"',
            "[cosmic-ray.filters.operators-filter]",
            f"exclude-operators = {json.dumps(LEFT_OUT)}",
        )
    )


def copy_of_the_tree(folder: Path) -> None:
    """What git knows or would take; the mutants are written into the copy."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in names.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def sample(session: Path, every: int) -> None:
    """Leave each `every`-th mutant of those that were made, the first included."""
    with closing(sqlite3.connect(session)) as database, database:
        told = "select job_id from mutation_specs order by module_path, start_pos_row, rowid"
        jobs = [job for (job,) in database.execute(told)]
        for number, job in enumerate(jobs):
            if number % every:
                database.execute("delete from mutation_specs where job_id = ?", (job,))
                database.execute("delete from work_items where job_id = ?", (job,))


def unchanged_s(name: str, folder: Path, environ: dict[str, str]) -> float:
    """How long the part's tests take where nothing is changed, which they must pass."""
    start = time.monotonic()
    done = subprocess.run(shlex.split(command_of(PARTS[name])), cwd=folder, env=environ)
    if done.returncode:
        raise SystemExit(f"{name}: its tests fail without a mutant ({done.returncode})")
    return time.monotonic() - start


def run(name: str, folder: Path, every: int) -> Counter[str]:
    """Make and try the mutants of one part; print those that no test noticed."""
    part = PARTS[name]
    (folder / "part.toml").write_text(config(part, part.patience))

    # What does not change is compiled once. Mutants are not: one of the same second and size would
    # be taken for the one before.
    compileall.compile_dir(folder / "lib", quiet=1)
    environ = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}

    def tool(program: str, *words: str) -> str:
        command = [str(TOOL / program), *words]
        done = subprocess.run(command, cwd=folder, env=environ, text=True, capture_output=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
        return done.stdout

    session = f"{name}.sqlite"
    tool("cosmic-ray", "init", "part.toml", session)
    sample(folder / session, every)
    tool("cr-filter-operators", session, "part.toml")
    serve = [sys.executable, str(FORKS), "serve", "forks"]
    with subprocess.Popen(serve, cwd=folder, env=environ) as forks:
        try:
            while not (folder / "forks").exists():
                time.sleep(0.1)
            # a machine that is busy must not make a survivor look like a loop without an end
            patience = max(part.patience, 10 * unchanged_s(name, folder, environ))
            (folder / "part.toml").write_text(config(part, patience))
            tool("cosmic-ray", "exec", "part.toml", session)
        finally:
            forks.terminate()
    ended: Counter[str] = Counter()
    for line in tool("cosmic-ray", "dump", session).splitlines():
        _, result = json.loads(line)
        if result is None or result["worker_outcome"] == "skipped":
            continue
        outcome = result["test_outcome"] or result["worker_outcome"]
        ended[outcome] += 1
        if outcome == "survived":
            print(result["diff"], flush=True)
    return ended


def main() -> None:
    """Run the parts that are named, or all."""
    parser = argparse.ArgumentParser(description="Change the code: does a test notice?")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--every", type=int, default=1, help="try one mutant of so many")
    asked = parser.parse_args()
    for name in asked.parts or PARTS:
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
            copy_of_the_tree(Path(folder))
            ended = run(name, Path(folder), asked.every)
        print(f"{name}: {ended.total()} mutants, {dict(ended)}", flush=True)


if __name__ == "__main__":
    main()
