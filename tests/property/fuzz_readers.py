"""Feed damaged files to the readers under a memory limit; run as a script by `test_parser_fuzz`.

Prints one JSON object: cases run, outcomes by class, and the cases that broke a promise.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import random
import re
import resource
import signal
import struct
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from emulators.dm import Section, write_dm
from emulators.mrc import write_mrc
from emulators.ome_tiff import write_big_tiff, write_companion_member, write_ome_tiff
from emulators.tiff import write_imagej_tiff, write_itk_tiff
from lib.bytesource.base import MemoryBytes
from lib.errors import MacroscopeError
from lib.formats.base import VolumeReader
from lib.formats.dm.reader import DmReader, open_dm
from lib.formats.mrc.format import MrcReader, open_mrc
from lib.formats.tiff.reader import TiffReader, open_tiff
from lib.geometry import Box

MEMORY_BYTES = 256 * 2**20  # above what the process has after its imports
SECONDS_A_CASE = 60
LARGEST_READ_BYTES = 64 * 2**20
SIZES = (2, 3, 5, 6, 24, 40, 96, 512, 960, 1920, 2880, 5760, 8192, 49152)  # of the seeds below

Open = Callable[[MemoryBytes, Path], VolumeReader]
Seed = tuple[str, bytes, Open]


class Remote(MemoryBytes):
    """Claims to be remote, so that pages are extrapolated."""

    remote = True


def seeds(folder: Path) -> list[Seed]:
    """Small whole files of every format, in the archives' own layouts."""
    random_voxels = np.random.default_rng(1)
    small = random_voxels.integers(0, 100, (3, 24, 40), dtype=np.uint8)
    paged = random_voxels.integers(0, 100, (6, 96, 512), dtype=np.uint8)
    wide = small.astype(np.uint16)
    cells = (50.0, 8.0, 8.0)

    def dm(version: int) -> Callable[[Path], None]:
        return lambda path: write_dm(
            path, small, version=version, pixel_size_zyx=cells, unit="nm", section=Section(1)
        )

    def mrc(permuted: bool) -> Callable[[Path], None]:
        return lambda path: write_mrc(
            path, small.astype(np.int16), voxel_nm_zyx=cells, permuted=permuted
        )

    def ome(**options: Any) -> Callable[[Path], None]:
        return lambda path: write_ome_tiff(path, [wide, wide], voxel_nm_zyx=cells, **options)

    def tiff(source: MemoryBytes, _: Path) -> VolumeReader:
        return TiffReader(open_tiff(source))

    def open_mrc_in(source: MemoryBytes, scratch: Path) -> VolumeReader:
        return MrcReader(open_mrc(source, scratch=scratch))

    writers: list[tuple[str, Callable[[Path], None], Open]] = [
        ("dm3", dm(3), lambda source, _: DmReader(open_dm(source))),
        ("dm4", dm(4), lambda source, _: DmReader(open_dm(source))),
        ("mrc", mrc(False), open_mrc_in),
        ("permuted.mrc", mrc(True), open_mrc_in),
        ("mrc.gz", mrc(False), open_mrc_in),
        ("mrc.bz2", mrc(False), open_mrc_in),
        ("itk.tif", lambda path: write_itk_tiff(path, paged.shape, paged), tiff),
        ("imagej.tif", lambda path: write_imagej_tiff(path, small.shape, small), tiff),
        ("big.tif", lambda path: write_big_tiff(path, wide), tiff),
        ("ome.tif", ome(), tiff),
        ("lzw.ome.tif", ome(compression="lzw"), tiff),
        ("zlib.ome.tif", ome(compression="zlib", levels=2, big=True), tiff),
        ("companion.ome.tif", lambda path: write_companion_member(path, small), tiff),
        ("claims.tif", lambda path: write_big_tiff(path, wide), tiff),
    ]
    found = []
    for name, write, opener in writers:
        path = folder / f"seed.{name}"
        write(path)
        found.append((name, path.read_bytes(), opener))
    return found


def with_claims(rng: random.Random) -> bytes:
    """A whole TIFF of three pages whose description claims what it likes."""

    def number() -> int:
        return rng.choice((0, 1, 1, 2, 3, 3, 4, 2**31, 10**9, 10**11, 10**13))

    sizes = " ".join(f'Size{axis}="{number()}"' for axis in "ZCT")
    order = rng.choice(("XYZCT", "XYCZT", "XYTZC", "ZYX"))
    data = "".join(
        f'<TiffData IFD="{number()}" FirstZ="{number()}" PlaneCount="{number()}"/>'
        for _ in range(rng.randrange(3))
    )
    description = rng.choice(
        (
            f'<OME><Image><Pixels DimensionOrder="{order}" Type="uint8" SizeX="8" SizeY="4" '
            f"{sizes}>{data}</Pixels></Image></OME>",
            f"ImageJ=1.52p\nimages={number()}\nslices={number()}\nchannels={number()}\n",
            json.dumps({"shape": [number(), 4, 8]}),
        )
    )
    file = io.BytesIO()
    pages = np.zeros((rng.choice((1, 3)), 4, 8), np.uint8)
    tifffile.imwrite(file, pages, description=description, metadata=None, photometric="minisblack")
    return file.getvalue()


def damaged(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """One to three kinds of damage; the words say which."""
    data = bytearray(content)
    words = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kind = rng.choice(
            ("cut", "flip", "number", "size", "size", "size", "insert", "delete", "copy")
        )
        words.append(kind)
        at = _place(len(data), rng)
        if kind == "cut":
            del data[rng.randrange(len(data) + 1) :]
        elif kind == "flip":
            for _ in range(rng.randint(1, 6)):
                if data:
                    data[_place(len(data), rng)] ^= 1 << rng.randrange(8)
        elif kind == "number":
            code = rng.choice("BHIQ")
            top = 2 ** (8 * struct.calcsize("=" + code)) - 1
            number = rng.choice(
                (0, 1, 2, top, top // 2, top // 2 + 1, len(data), rng.randint(0, top))
            )
            packed = struct.pack(rng.choice("<>") + code, min(number, top))
            data[at : at + len(packed)] = packed
        elif kind == "size":
            _change_size(data, rng)
        elif kind == "insert":
            data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8, 100)))
        elif kind == "delete":
            del data[at : at + rng.choice((1, 2, 4, 8, 100))]
        else:
            start = _place(len(data), rng)
            data[at:at] = data[start : start + rng.choice((12, 20, 100))]
    return "+".join(words), bytes(data)


def _change_size(data: bytearray, rng: random.Random) -> None:
    """Find one of the seeds' own sizes as a number or as digits, and make it another."""
    old = rng.choice(SIZES)
    new = rng.choice((0, old - 1, old + 1, 2 * old, 2**16 - 1, 2**31 - 1, 2**32 - 1))
    form = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q", "text"))
    if form == "text":
        pattern, replacement = str(old).encode(), str(new).encode()
    else:
        top = 2 ** (8 * struct.calcsize(form)) - 1
        pattern, replacement = struct.pack(form, old), struct.pack(form, min(new, top))
    places = [match.start() for match in re.finditer(re.escape(pattern), data)]
    if places:
        at = rng.choice(places)
        data[at : at + len(pattern)] = replacement


def _place(length: int, rng: random.Random) -> int:
    """Mostly where headers and directories are: near either end."""
    near = rng.randrange(3)
    reach = min(length, 2048)
    place = rng.randrange(max(1, reach if near < 2 else length))
    return max(0, length - 1 - place) if near == 1 else place


def outcome(seed: Seed, content: bytes, damage: str, remote: bool, scratch: Path) -> str:
    """Name of the error, or ``read``; raises AssertionError for a broken promise."""
    _, whole, opener = seed
    try:
        reader = opener((Remote if remote else MemoryBytes)(content), scratch)
        box = Box.whole(reader.shape_zyx)
        size = math.prod(reader.shape_zyx) * reader.dtype.itemsize
        assert size <= 2000 * len(content) + 4096, f"{size} bytes out of {len(content)}"
        if size > LARGEST_READ_BYTES:
            return "large"
        voxels = 0
        for block in reader.blocks(box):
            assert block.data.shape == block.box.shape_zyx
            assert box.contains(block.box)
            voxels += block.data.size
        assert voxels == box.voxels, f"{voxels} of {box.voxels} voxels"
    except MacroscopeError as error:
        return type(error).__name__
    finally:
        scratch.unlink(missing_ok=True)
    if damage == "cut":
        expected = opener(MemoryBytes(whole), scratch)
        scratch.unlink(missing_ok=True)
        same = reader.shape_zyx == expected.shape_zyx and reader.dtype == expected.dtype
        assert same, "a cut file gave another volume"
        box = Box.whole(expected.shape_zyx)
        for one, other in zip(reader.blocks(box), expected.blocks(box), strict=True):
            assert np.array_equal(one.data, other.data), "a cut file gave other voxels"
    return "read"


def _too_slow(*_: object) -> None:
    raise AssertionError(f"more than {SECONDS_A_CASE} s")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, required=True)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    arguments = parser.parse_args()
    signal.signal(signal.SIGALRM, _too_slow)
    outcomes: Counter[str] = Counter()
    broken: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        files = seeds(Path(folder))
        scratch = Path(folder) / "scratch"
        for seed in files:  # whole files must pass before damaged ones mean anything
            if not seed[0].startswith("companion"):
                assert outcome(seed, seed[1], "none", False, scratch) == "read", seed[0]
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
        for case in range(arguments.first, arguments.first + arguments.cases):
            rng = random.Random(case)
            seed = files[case % len(files)]
            if seed[0] == "claims.tif":
                damage, content = "claims", with_claims(rng)
            else:
                damage, content = damaged(seed[1], rng)
            signal.alarm(SECONDS_A_CASE)
            try:
                outcomes[outcome(seed, content, damage, rng.random() < 0.3, scratch)] += 1
            except Exception:
                broken.append(
                    {
                        "case": case,
                        "file": seed[0],
                        "damage": damage,
                        "why": traceback.format_exc(limit=-4),
                    }
                )
            finally:
                signal.alarm(0)
    print(json.dumps({"cases": arguments.cases, "outcomes": outcomes, "broken": broken}))


if __name__ == "__main__":
    main()
