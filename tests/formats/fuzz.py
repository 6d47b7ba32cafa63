"""``python -m tests.formats.fuzz``: damaged inputs for every format, through its own code.

Each input is one that a row of the conformance table writes, small, with one damage. It must end
in a named error or in an array, within bounded memory and time, and nothing that was cut off, or is
not there, may come out as voxels without being counted. A process that ends, any other exception,
or a wait of half a minute is a failure, and is kept as a file.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from lib.bytesource.base import ByteSource, FilePart, JoinedBytes, MemoryBytes
from lib.bytesource.zip_tree import ZipTree
from lib.errors import FormatError, MacroscopeError
from lib.formats import registry
from lib.formats.format import Options, VolumeDescription
from lib.geometry import Box
from tests.formats.case import Case
from tests.kit.memory_tree import MemoryObjects

ADDRESS_SPACE = 6 * 2**30
PATIENCE_S = 30
_MOST_VOXELS = 2**22  # a larger array, that a changed header promises, is read in its corner only
_NUMBERS = (0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1,
            2**40, 2**63, 2**64 - 1)  # fmt: skip
_WORDS = ("0", "-1", "1", "99999999999", "4294967296", "1e309", "NaN", "null", "[]", "{}", '"x"',
          "true", "0.5", "../..", "")  # fmt: skip
_SMALL: dict[str, dict[str, Any]] = {
    "cases_tiff": {"SHAPE": (5, 17, 21)},
    "cases_hdf5": {"SHAPE": (9, 17, 18)},
    "cases_dm": {"SHAPE": (2, 9, 7)},
    "cases_mrc": {"SHAPE": (3, 9, 7)},
}
_CUTS = frozenset({"cut", "empty"})


@dataclass(frozen=True)
class Seed:
    """A good input: files, and what must come out of them undamaged."""

    name: str
    format: str
    files: dict[str, bytes]
    root: str
    path: str
    options: Options
    truth: Any


@dataclass
class Outcome:
    """What became of the inputs of one format."""

    format: str
    inputs: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def line(self) -> dict[str, Any]:
        """Plain, for a file of results."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        return {
            "format": self.format,
            "inputs": self.inputs,
            **{end: self.ends[end] for end in ("named error", "exact", "other voxels")},
            "failures": len(self.failures),
            "seconds": round(self.seconds),
            "peak_mib": peak,
        }


class HangingError(Exception):
    """Not done in time."""


def names() -> list[str]:
    """Every format, and the container that is none."""
    return [*registry.FILE_FORMATS, *registry.TREE_FORMATS, "zip"]


def seeds(form: str, scratch: Path) -> list[Seed]:
    """Small inputs of a format, by the rows of the conformance table."""
    if form == "zip":
        return [_zipped(scratch)]
    found = []
    for module in sorted(Path(__file__).parent.glob("cases_*.py")):
        cases = import_module(f"tests.formats.{module.stem}")
        small = _SMALL.get(module.stem, {"SHAPE": (5, 9, 7)})
        before = {name: getattr(cases, name) for name in small if hasattr(cases, name)}
        for name in before:
            setattr(cases, name, small[name])
        try:
            for case in cases.CASES:
                # an .xml of BigDataViewer is of no format, it names files
                if case.name.startswith(f"{form}-") and not case.address.endswith(".xml"):
                    folder = scratch / case.name
                    folder.mkdir()
                    found += _seed(case, form, folder)
        finally:
            for name, value in before.items():
                setattr(cases, name, value)
    assert found, form
    return found


def _seed(case: Case, form: str, folder: Path) -> list[Seed]:
    try:
        truth = case.write(folder)
    except (ValueError, OSError):  # a row whose other numbers do not fit a small shape
        return []
    place, _, step = case.address.partition("|")
    options = Options(channel=case.settings.get("channel"), time=case.settings.get("time"))
    options = Options(case.settings.get("scale_level"), options.channel, options.time)
    path = step.partition(":")[2].strip("/")
    if form in registry.TREE_FORMATS:
        files = _files(folder)
        return [Seed(case.name, form, files, place.strip("/"), path, options, truth)]
    files = _files(folder)
    if place in files:
        seed = Seed(case.name, form, {place: files[place]}, place, path, options, truth)
        described = registry.file_format(form).describe(
            MemoryBytes(files[place], name=place), path, options
        )
        return [replace(seed, files={name: files[name] for name in (place, *described[0].beside)})]
    first = min(files)  # one section
    return [Seed(case.name, form, {first: files[first]}, first, "", options, truth[:1])]


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _zipped(scratch: Path) -> Seed:
    import zipfile

    target = scratch / "a.zip"
    truth = {f"s/{n}.tif": bytes(range(n, n + 200)) for n in range(4)}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, (name, data) in enumerate(truth.items()):
            archive.writestr(name, data, zipfile.ZIP_STORED if number % 2 else None)
    return Seed("zip", "zip", {"a.zip": target.read_bytes()}, "a.zip", "", Options(), truth)


# --- damage -----------------------------------------------------------------------------------


def damaged(seed: Seed, draw: random.Random) -> tuple[str, dict[str, bytes]]:
    """What was done, and the files afterwards."""
    files = dict(seed.files)
    name = draw.choice(sorted(files))
    if len(files) > 1 and draw.random() < 0.4:  # documents decide most, and chunks are many
        name = draw.choice([one for one in sorted(files) if _is_text(files[one])] or [name])
    data = bytearray(files[name])
    kind = draw.choice(_KINDS if len(files) > 1 else _KINDS[:-1])
    if kind == "absent":
        del files[name]
        return kind, files
    if kind == "word" and not (_is_text(bytes(data[:512])) or data[:1] in (b"O", b"<")):
        kind = "bytes"
    _DAMAGE[kind](data, draw)
    files[name] = bytes(data)
    return kind, files


def _is_text(data: bytes) -> bool:
    return data[:1] in (b"{", b"#", b"N") and b"\0" not in data[:256]


def _at(data: bytearray, draw: random.Random) -> int:
    """A place: half of the time near the beginning, where headers are."""
    most = len(data) if draw.random() < 0.5 else min(len(data), 512)
    return draw.randrange(max(1, most))


def _bytes(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.randint(1, 6)):
        if data:
            data[_at(data, draw)] = draw.randrange(256)


def _bit(data: bytearray, draw: random.Random) -> None:
    if data:
        data[_at(data, draw)] ^= 1 << draw.randrange(8)


def _number(data: bytearray, draw: random.Random) -> None:
    width, order = draw.choice((1, 2, 4, 8)), draw.choice(("little", "big"))
    value = draw.choice(_NUMBERS) & (2 ** (8 * width) - 1)
    at = _at(data, draw)
    data[at : at + width] = value.to_bytes(width, order)  # type: ignore[arg-type]


def _cut(data: bytearray, draw: random.Random) -> None:
    del data[draw.randrange(max(1, len(data))) :]


def _empty(data: bytearray, draw: random.Random) -> None:
    data.clear()


def _splice(data: bytearray, draw: random.Random) -> None:
    at, length = _at(data, draw), draw.randint(1, 40)
    piece = data[at : at + length]
    if draw.random() < 0.5:
        del data[at : at + length]
    else:
        data[at:at] = piece * draw.randint(1, 3)


def _word(data: bytearray, draw: random.Random) -> None:
    places = [*re.finditer(rb'-?\d+(?:\.\d+)?|"[^"]{0,40}"|null|true|false', bytes(data))]
    if places:
        place = draw.choice(places)
        data[place.start() : place.end()] = draw.choice(_WORDS).encode()


_DAMAGE: dict[str, Callable[[bytearray, random.Random], None]] = {
    "bytes": _bytes, "bit": _bit, "number": _number, "splice": _splice, "word": _word,
    "cut": _cut, "empty": _empty,
}  # fmt: skip
_KINDS = (*_DAMAGE, "word", "number", "absent")


# --- reading ----------------------------------------------------------------------------------


def read(seed: Seed, files: dict[str, bytes], scratch: Path) -> tuple[Any, int]:
    """The voxels, or the members, that come out, and how many pieces are said to be missing."""
    if seed.format == "zip":
        tree = ZipTree(MemoryBytes(files["a.zip"]), MemoryObjects({}))
        return {one.key: bytes(tree.get(one.key, 2**20) or b"") for one in tree.list_all()}, 0
    if seed.format in registry.TREE_FORMATS:
        return _of_tree(seed, MemoryObjects(files))
    if seed.root not in files:
        raise FormatError(f"{seed.root} is not there")
    reads = registry.file_format(seed.format)
    source: ByteSource = MemoryBytes(files[seed.root], name=seed.root)
    volume = _first(reads.describe(source, seed.path, seed.options))
    if volume.beside:
        absent = [name for name in volume.beside if name not in files]
        if absent:
            raise FormatError(f"{absent[0]} is not there")
        parts = [
            FilePart(name, len(files[name]), partial(MemoryBytes, files[name], name=name))
            for name in (seed.root, *volume.beside)
        ]
        source = JoinedBytes(parts, seed.root)
    box = _corner(volume.shape_zyx)
    reads.survey(source, volume, box)
    with reads.open(source, volume.handle, scratch) as reader:
        return _blocks(reader, box)


def _of_tree(seed: Seed, tree: MemoryObjects) -> tuple[Any, int]:
    reads = registry.tree_format(seed.format)
    volume = _first(reads.describe(tree, seed.root, seed.path, seed.options))
    box = _corner(volume.shape_zyx)
    survey = reads.survey(tree, seed.root, volume, box)
    with reads.open(tree, seed.root, volume.handle, box=box, grid=survey.grid) as reader:
        return _blocks(reader, Box.whole(box.shape_zyx))


def _first(volumes: Sequence[VolumeDescription]) -> VolumeDescription:
    """The first volume that is not refused."""
    for one in volumes:
        if one.refused is None:
            return one
    raise FormatError(str(volumes[0].refused))


def _corner(shape: Any) -> Box:
    z, y, x = shape
    if z * y * x > _MOST_VOXELS:
        z, y, x = min(z, 4), min(y, 64), min(x, 64)
    return Box((0, 0, 0), (z, y, x))


def _blocks(reader: Any, box: Box) -> tuple[Any, int]:
    out = np.zeros(box.shape_zyx, reader.dtype)
    missing: set[str] = set()
    for block in reader.blocks(box):
        out[block.box.slices()] = block.data
        missing.update(block.missing)
    return out, len(missing)


def _same(found: Any, truth: Any) -> bool:
    if isinstance(truth, dict):
        return bool(found == truth)
    return found.shape == truth.shape and np.array_equal(
        found, truth, equal_nan=found.dtype.kind == "f"
    )


# --- runs -------------------------------------------------------------------------------------


class _Patience:
    """Raises `HangingError` after a while, but not for a machine that stood still meanwhile."""

    def __init__(self) -> None:
        self._alarms, self._began = 0, time.process_time()

    def __call__(self, *_: object) -> None:
        self._alarms += 1
        if self._alarms > 5 or time.process_time() - self._began > PATIENCE_S / 2:
            raise HangingError


def fuzz(form: str, count: int, start: int, keep: Path | None = None) -> Outcome:
    """Try so many damaged inputs of a format."""
    outcome, began = Outcome(form), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scratch = Path(folder)
        good = seeds(form, scratch)
        for seed in good:  # what is unharmed must be read, or nothing below means anything
            found, _ = read(seed, seed.files, scratch)
            assert _same(found, seed.truth), seed.name
        for number in range(start, start + count):
            draw = random.Random(f"{form} {number}")
            seed = draw.choice(good)
            kind, files = damaged(seed, draw)
            end = _tried(seed, kind, files, scratch)
            outcome.inputs += 1
            outcome.ends[end.partition(":")[0]] += 1
            if end.startswith("failure"):
                outcome.failures.append(f"{form} {number} ({seed.name}, {kind}) {end}")
                if keep is not None:
                    _kept(keep / f"{form}-{number}", files, end)
    outcome.seconds = time.monotonic() - began
    return outcome


def _tried(seed: Seed, kind: str, files: dict[str, bytes], scratch: Path) -> str:
    before = signal.signal(signal.SIGALRM, _Patience())
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S, PATIENCE_S)
    try:
        found, missing = read(seed, files, scratch)
    except MacroscopeError:
        return "named error"
    except HangingError:
        return f"failure: not done within {PATIENCE_S} s"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"failure: {type(error).__name__}: {error} at {last.filename}:{last.lineno}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if _same(found, seed.truth):
        return "exact"
    if (kind in _CUTS or kind == "absent") and not missing and not _is_document(seed, files):
        return f"failure: other voxels without a word after {kind}"
    if seed.format == "zip" and isinstance(found, dict):
        wrong = [key for key in found if key in seed.truth and found[key] != seed.truth[key]]
        if wrong:
            return f"failure: {wrong} differ under a checksum"
    return "other voxels"


def _is_document(seed: Seed, files: dict[str, bytes]) -> bool:
    """Whether the file that was changed is a document, whose loss may make another volume."""
    changed = [name for name in seed.files if files.get(name) != seed.files[name]]
    return all(_is_text(seed.files[name]) for name in changed)


def _kept(folder: Path, files: dict[str, bytes], end: str) -> None:
    for name, data in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    (folder / "why.txt").write_text(end)


def ask_in_forks() -> None:
    """Let HDF5's questions be answered in a fork: an interpreter for each would take half a second.

    It ends as the process that it stands for would, and sees what that would see.
    """
    from lib.formats.hdf5 import format as hdf5_format
    from tests.kit.forked import Forked

    hdf5_format.subprocess.Popen = Forked  # type: ignore[attr-defined,misc,assignment]


def main() -> int:
    """Entry point; exit code 1 where an input failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="formats, separated by commas; all by default")
    parser.add_argument("--inputs", type=int, default=1000, help="of each format")
    parser.add_argument("--start", type=int, default=0, help="number of the first input")
    parser.add_argument("--keep", type=Path, help="folder for inputs that fail")
    parser.add_argument("--results", type=Path, help="file to add a line for each format to")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    ask_in_forks()
    failed = 0
    for form in given.only.split(",") if given.only else names():
        outcome = fuzz(form, given.inputs, given.start, given.keep)
        line = json.dumps(outcome.line())
        print(line, flush=True)
        for one in outcome.failures[:20]:
            print(f"  {one[:300]}", flush=True)
        if given.results:
            with given.results.open("a") as file:
                file.write(line + "\n")
        failed += len(outcome.failures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
