"""The rules of grouping as a table: names, sizes and headers in, volumes and reasons out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from lib.archives.ebi.entry import parse_entry
from lib.archives.ebi.files import find_files
from lib.archives.ebi.grouping import Sorting, sort_files
from lib.archives.ebi.planning import positions_in_names, stated_in_names, thickness_in_text
from lib.archives.ebi.volumes import claims_about, kinds_of, pair_up, why_none
from lib.archives.selection import Selection
from lib.errors import FormatError
from lib.formats.format import VolumeDescription
from lib.plan import SourceFile
from lib.transport.ftp import FtpEntry

Shape = tuple[int, int, int]


def plane(y: int = 4, x: int = 5, dtype: str = "uint8") -> VolumeDescription:
    return VolumeDescription("", {}, (1, y, x), dtype)


def block(z: int, y: int = 4, x: int = 5, dtype: str = "uint8", path: str = "") -> Any:
    return VolumeDescription(path, {}, (z, y, x), dtype)


def run(pattern: str, numbers: Sequence[int]) -> list[str]:
    return [pattern.format(n) for n in numbers]


@dataclass(frozen=True)
class Row:
    """One rule: what lies there, and what it must become.

    ``like`` gives what the header of a file says, by the beginning of its path; the first that fits
    counts. ``volumes`` maps each volume's path to its z, y, x; ``left_out`` each refused file to a
    word of the reason.
    """

    name: str
    files: Sequence[str]
    volumes: Mapping[str, Shape]
    left_out: Mapping[str, str] = field(default_factory=dict)
    like: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    categories: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    assemble: str = "auto"


ROWS = [
    Row("one running number", run("data/s_{:04d}.tif", range(7)), {"data/s_#.tif": (7, 4, 5)}),
    Row(
        "sorted by number and not by text",
        run("data/s{}.tif", (1, 2, 10)),
        {"data/s#.tif": (10, 4, 5)},
        places={"data/s#.tif": (0, 1, 9)},
    ),
    Row(
        "a position that follows the number",
        ["data/slice_00288_z=1.4263um.tif", "data/slice_00289_z=1.4313um.tif",
         "data/slice_00290_z=1.4362um.tif", "data/slice_00291_z=1.4412um.tif"],
        {"data/slice_#_z=1.*um.tif": (4, 4, 5)},
    ),
    Row(
        "runs of a cell that begin again, of other frame sizes",
        run("data/r01a_00_s_{:04d}.dm4", range(3)) + run("data/r01b_00_s_{:04d}.dm4", range(4)),
        {"data/r01a_00_s_#.dm4": (3, 4, 5), "data/r01b_00_s_#.dm4": (4, 8, 8)},
        like={"data/r01b": plane(8, 8)},
    ),
    Row(
        "a run of another size under the same name",
        run("data/s_{:03d}.tif", range(9)),
        {"data/s_#.tif": (5, 4, 5), "data/s_#from5.tif": (4, 8, 8)},
        like={f"data/s_{n:03d}": plane(8, 8) for n in range(5, 9)},
        sizes={f"data/s_{n:03d}": 900 for n in range(5, 9)},
    ),
    Row(
        "one section of another size",
        run("data/s_{:03d}.tif", range(6)),
        {"data/s_#.tif": (6, 4, 5), "data/s_002.tif": (1, 8, 8)},
        like={"data/s_002": plane(8, 8)},
        sizes={"data/s_002": 900},
        places={"data/s_#.tif": (0, 1, 3, 4, 5)},
    ),
    Row(
        "a gap",
        run("data/s_{}.tif", (1, 2, 4, 5)),
        {"data/s_#.tif": (5, 4, 5)},
        places={"data/s_#.tif": (0, 1, 3, 4)},
    ),
    Row("equal steps are no gap", run("data/s_{}.tif", (10, 20, 30)), {"data/s_#.tif": (3, 4, 5)}),
    Row(
        "blanks and nested folders",
        run("data/a b/c - Raw/8x8x8nm.{:04d}.tif", range(3))
        + run("data/a b/e/8x8x8nm.{:04d}.tif", range(2)),
        {"data/a b/c - Raw/8x8x8nm.#.tif": (3, 4, 5), "data/a b/e/8x8x8nm.#.tif": (2, 4, 5)},
    ),
    Row(
        "another suffix is another stack",
        run("data/s_{}.tif", range(2)) + run("data/s_{}.png", range(2)),
        {"data/s_#.tif": (2, 4, 5), "data/s_#.png": (2, 4, 5)},
    ),
    Row(
        "micrographs and tilt series are no volumes",
        [*run("data/mic/m_{}.mrc", range(3)), *run("data/vol/s_{}.mrc", range(3))],
        {"data/vol/s_#.mrc": (3, 4, 5)},
        {f"data/mic/m_{n}.mrc": "micrographs" for n in range(3)},
        categories={"data/mic": "micrographs - single frame", "data/vol": "reconstructed volumes"},
    ),
    Row(
        "but each file is one where the user says so",
        run("data/m_{}.mrc", range(2)),
        {"data/m_0.mrc": (1, 4, 5), "data/m_1.mrc": (1, 4, 5)},
        categories={"data": "tilt series"},
        assemble="files",
    ),
    Row(
        "files of several planes are volumes, however they are numbered",
        run("data/v_{}.mrc", range(2)),
        {"data/v_0.mrc": (7, 4, 5), "data/v_1.mrc": (7, 4, 5)},
        like={"data/": block(7)},
    ),
    Row(
        "a file of several volumes is as many",
        ["data/both.h5"],
        {"data/both.h5|raw": (7, 4, 5), "data/both.h5|labels": (7, 4, 5)},
        like={"data/": [block(7, path="raw"), block(7, path="labels")]},
    ),
    Row(
        "one bad file costs its own place",
        run("data/s_{}.tif", range(5)),
        {"data/s_#.tif": (5, 4, 5)},
        {"data/s_2.tif": "damaged"},
        like={"data/s_2": FormatError("damaged")},
        sizes={"data/s_2": 77},
        places={"data/s_#.tif": (0, 1, 3, 4)},
    ),
    Row(
        "tiles of sections",
        [f"data/Section{s:03d}_x{x}_y{y}.tif" for s in (1, 2, 3) for x in (1, 2) for y in (1, 2)],
        {f"data/Section#_x{x}_y{y}.tif": (3, 4, 5) for x in (1, 2) for y in (1, 2)},
    ),
    Row(
        "tiles whose section stands last",
        [f"data/Tile_r{r}-c{c}_S_{s:03d}_77.tif" for s in (1, 2) for r in (1, 2) for c in (1, 2)],
        {f"data/Tile_r{r}-c{c}_S_#_77.tif": (2, 4, 5) for r in (1, 2) for c in (1, 2)},
    ),
    Row(
        "tiles of one section are no stack",
        [f"data/007/Tile_{r}_{c}.tif" for r in (1, 2) for c in (1, 2)],
        {f"data/007/Tile_{r}_{c}.tif": (1, 4, 5) for r in (1, 2) for c in (1, 2)},
    ),
    Row(
        "tiles of one row neither",
        run("data/Tile_001-{:03d}-000000_0-000.tif", range(1, 4)),
        {f"data/Tile_001-{n:03d}-000000_0-000.tif": (1, 4, 5) for n in range(1, 4)},
    ),
    Row(
        "channels behind the section",
        [f"data/img_z{z:03d}_ch{c:02d}.tif" for z in range(6) for c in (0, 1)],
        {f"data/img_z#_ch{c:02d}.tif": (6, 4, 5) for c in (0, 1)},
    ),
    Row(
        "channels of one section are no stack",
        run("data/img_z012_ch{:02d}.tif", range(3)),
        {f"data/img_z012_ch{c:02d}.tif": (1, 4, 5) for c in range(3)},
    ),
    Row(
        "time points of sections, and a number of channels that is always one",
        [f"data/T{t:04d}_Z{z:03d}_C01.tif" for t in (0, 1) for z in range(4)],
        {f"data/T000{t}_Z#_C01.tif": (4, 4, 5) for t in (0, 1)},
    ),
    Row(
        "two detectors by words",
        [f"data/s_{n:03d}_{c}.tif" for n in range(4) for c in ("BSE", "SE")],
        {"data/s_#_BSE.tif": (4, 4, 5), "data/s_#_SE.tif": (4, 4, 5)},
    ),
    Row(
        "stage positions noted of each section",
        [f"data/z{n:03d}_X{100 + n * 37 % 11}_Y{n * 53 % 7}.tif" for n in range(8)],
        {"data/z#_X*_Y*.tif": (8, 4, 5)},
    ),
    Row(
        "positions across a point",
        [f"data/c_z{n * 0.05:.2f}um.tif" for n in range(17, 23)],
        {"data/c_z#um.tif": (6, 4, 5)},
        places={"data/c_z#um.tif": (0, 1, 2, 3, 4, 5)},
    ),
    Row(
        "positions of other widths, one of which is absent",
        [f"data/s_z={z}.tif" for z in ("0.5", "0.75", "1.0", "1.5", "1.75")],
        {"data/s_z=#.tif": (6, 4, 5)},
        places={"data/s_z=#.tif": (0, 1, 2, 4, 5)},
    ),
    Row(
        "positions that are not quite even",
        [f"data/s_z{z}um.tif" for z in ("9.985", "9.990", "9.9951", "10.0", "10.0049")],
        {"data/s_z#um.tif": (5, 4, 5)},
    ),
    Row(
        "numbers behind a point are no positions without a z or a unit",
        [f"data/cell{c}.{n:04d}.tif" for c in (1, 2) for n in range(3)],
        {"data/cell1.#.tif": (3, 4, 5), "data/cell2.#.tif": (3, 4, 5)},
    ),
    Row(
        "positions that fall",
        [f"data/s_{n:04d}_z={10 - n * 0.005:.4f}um.tif" for n in range(6)],
        {"data/s_#_z=*.*um.tif": (6, 4, 5)},
    ),
    Row(
        "days of recording within a stack",
        [f"data/hela_{n:04d}_2019081{1 + n // 2}.tif" for n in range(6)],
        {"data/hela_#_*.tif": (6, 4, 5)},
    ),
    Row(
        "from two digits to three, and from one to two",
        run("data/a{:02d}.tif", range(97, 103)) + run("data/b{}.tif", range(8, 12)),
        {"data/a#.tif": (6, 4, 5), "data/b#.tif": (4, 4, 5)},
    ),
    Row(
        "suffixes of one format are one stack",
        ["data/a_1.tif", "data/a_2.TIF", "data/a_3.tiff", "data/a_4.tif"],
        {"data/a_#.tif": (4, 4, 5)},
    ),
    Row(
        "but not where one number has both",
        [f"data/a_{n}.{end}" for n in range(3) for end in ("tif", "tiff")],
        {"data/a_#.tif": (3, 4, 5), "data/a_#.tiff": (3, 4, 5)},
    ),
    Row(
        "packed files",
        run("data/s_{:04d}.tif.gz", range(4)),
        {"data/s_#.tif.gz": (4, 4, 5)},
    ),
    Row(
        "copies and second tries are in no stack",
        [*run("data/s_{:04d}.tif", range(4)), "data/s_0002 copy.tif", "data/s_0003b.tif"],
        {"data/s_#.tif": (4, 4, 5), "data/s_0002 copy.tif": (1, 4, 5),
         "data/s_0003b.tif": (1, 4, 5)},
    ),
    Row(
        "thumbnails beside and below",
        [*run("data/s_{}.tif", range(3)), *run("data/s_{}_thumb.jpg", range(2)),
         "data/Thumbnails/s_0.tif"],
        {"data/s_#.tif": (3, 4, 5)},
        {"data/s_0_thumb.jpg": "'thumb'", "data/s_1_thumb.jpg": "'thumb'",
         "data/Thumbnails/s_0.tif": "'thumbnails'"},
    ),
    Row(
        "frames of another size between the sections",
        run("data/s_{}.tif", range(8)),
        {"data/s_#.tif": (4, 9, 9), "data/s_#from1.tif": (4, 4, 5)},
        like={f"data/s_{n}": plane(9, 9) for n in range(0, 8, 2)},
        sizes={f"data/s_{n}": 900 for n in range(0, 8, 2)},
    ),
    Row(
        "tilt series, what is reconstructed of them, and what lies beside",
        [f"data/TS_{n:02d}.{end}" for n in (1, 2) for end in ("st", "rec")],
        {f"data/TS_{n:02d}.{end}": (9, 4, 5) for n in (1, 2) for end in ("st", "rec")},
        like={"data/": block(9)},
    ),
    Row(
        "an overview beside the sections",
        [*run("data/g1_{:04d}.dm4", range(4)), "data/g1_overview.dm4"],
        {"data/g1_#.dm4": (4, 4, 5), "data/g1_overview.dm4": (1, 9, 9)},
        like={"data/g1_overview": plane(9, 9)},
    ),
    Row(
        "labels beside their sections, by the end and by the beginning of their names",
        [*run("data/s_{}.tif", range(4)), *run("data/s_{}_seg.tif", range(4)),
         *run("data/mask_s_{}.tif", range(2))],
        {"data/s_#.tif": (4, 4, 5), "data/s_#_seg.tif": (4, 4, 5),
         "data/mask_s_#.tif": (2, 4, 5)},
    ),
    Row(
        "angles of tilt series, with and without a number",
        [f"data/TS_01_{a}.tif" for a in ("-60.0", "-30.0", "0.0", "30.0")]
        + [f"data/L2_{n:03d}[{a}].mrc" for n, a in enumerate(("-3.00", "0.00", "3.00"))]
        + [f"data/z{n}.tif" for n in (-1, 0, 1)],
        {},
        {f"data/TS_01_{a}.tif": "signs" for a in ("-60.0", "-30.0", "0.0", "30.0")}
        | {f"data/L2_{n:03d}[{a}].mrc": "signs" for n, a in enumerate(("-3.00", "0.00", "3.00"))}
        | {f"data/z{n}.tif": "signs" for n in (-1, 0, 1)},
    ),
    Row("dashes are no signs", run("data/s_-{}.tif", range(3)), {"data/s_-#.tif": (3, 4, 5)}),
    Row(
        "tilt in the path",
        [*run("data/TiltSeries/a_{:03d}.tif", range(3)), *run("data/tilt_{}.tif", range(2)),
         "data/TiltSeries/a.rec", *run("data/tilt-corrected/s_{}.tif", range(3))],
        {"data/TiltSeries/a.rec": (9, 4, 5), "data/tilt-corrected/s_#.tif": (3, 4, 5)},
        {f"data/TiltSeries/a_{n:03d}.tif": "tilt series" for n in range(3)}
        | {f"data/tilt_{n}.tif": "tilt series" for n in range(2)},
        like={"data/TiltSeries/a.rec": block(9)},
    ),
    Row(
        "movies and references of a detector",
        ["data/a_1_fractions.tiff", "data/a_2_movie.tif", "data/p.mrcs", "data/CountRef_m1.tif",
         "data/gain_ref.mrc", *run("data/again_{}.tif", range(2))],
        {"data/again_#.tif": (2, 4, 5)},
        {"data/a_1_fractions.tiff": "'fractions'", "data/a_2_movie.tif": "'movie'",
         "data/p.mrcs": "'.mrcs'", "data/CountRef_m1.tif": "'CountRef'",
         "data/gain_ref.mrc": "'gain'"},
    ),
    Row(
        "one section of each cell, whose numbers rise with the cells'",
        [f"data/cell{c}_slice{n}.tif" for c, n in ((1, 2), (2, 5), (3, 9))],
        {f"data/cell{c}_slice{n}.tif": (1, 4, 5) for c, n in ((1, 2), (2, 5), (3, 9))},
    ),
    Row(
        "cells whose sections are numbered on, and runs of one stack",
        [f"data/cell{1 + n // 3}_s{n:02d}.tif" for n in range(6)]
        + [f"data/run{1 + n // 3}_s{n:02d}.tif" for n in range(6)],
        {"data/cell1_s#.tif": (3, 4, 5), "data/cell2_s#.tif": (3, 4, 5),
         "data/run*_s#.tif": (6, 4, 5)},
    ),
    Row(
        "animals are no sections, and four digits of a cell are",
        [*run("data/mouse{}.tif", range(1, 4)), *run("data/U2OS_cell_{:04d}.tif", range(3))],
        {"data/mouse1.tif": (1, 4, 5), "data/mouse2.tif": (1, 4, 5),
         "data/mouse3.tif": (1, 4, 5), "data/U2OS_cell_#.tif": (3, 4, 5)},
    ),
    Row(
        "neither are figures, versions and half maps",
        [*run("data/figure{}.png", (1, 2)), *run("data/map_v{}.mrc", (1, 2)),
         *run("data/half{}.mrc", (1, 2))],
        {f"data/{name}{n}.mrc": (1, 4, 5) for name in ("map_v", "half") for n in (1, 2)},
        {f"data/figure{n}.png": "no volume" for n in (1, 2)},
    ),
    Row(
        "but where a stack is demanded",
        run("data/mouse{}.tif", range(1, 4)), {"data/mouse#.tif": (3, 4, 5)}, assemble="stack",
    ),
    Row(
        "the volume behind the section, with a word and without",
        [f"data/{n:03d}_vol{v}.tif" for v in (1, 2, 3) for n in range(2)]
        + [f"data/a_{n:04d}_{v}.tif" for v in (1, 2) for n in range(4 * v)],
        {"data/#_vol1.tif": (2, 4, 5), "data/#_vol2.tif": (2, 4, 5), "data/#_vol3.tif": (2, 4, 5),
         "data/a_#_1.tif": (4, 4, 5), "data/a_#_2.tif": (8, 4, 5)},
    ),
    Row(
        "magnifications and energies",
        [f"data/img_{m}x_{n}.tif" for m in (500, 1000) for n in range(3)]
        + [f"data/s_{e}eV.tif" for e in (700, 705)],
        {"data/img_500x_#.tif": (3, 4, 5), "data/img_1000x_#.tif": (3, 4, 5),
         "data/s_700eV.tif": (1, 4, 5), "data/s_705eV.tif": (1, 4, 5)},
    ),
    Row(
        "times of recording noted of each section",
        [f"data/s_{n:03d}_2019-08-01_12-{n * 7:02d}-{n * 13 % 60:02d}.tif" for n in range(8)]
        + [f"data/r{r}_{n:03d}_2019080{r}_12{n * 7:02d}{n * 13 % 60:02d}.tif"
           for r in (1, 2) for n in range(8)],
        {"data/s_#_*.tif": (8, 4, 5), "data/r1_#_*.tif": (8, 4, 5), "data/r2_#_*.tif": (8, 4, 5)},
    ),
    Row(
        "nothing but times of recording, and a count that looks like them",
        [f"data/i_20190801_12{n * 7:02d}30.tif" for n in (1, 2, 5)]
        + run("data/20190801_{:06d}.tif", range(3)),
        {f"data/i_20190801_12{n * 7:02d}30.tif": (1, 4, 5) for n in (1, 2, 5)}
        | {"data/20190801_#.tif": (3, 4, 5)},
    ),
    Row(
        "tiles whose section is said twice (Maps), and their energies",
        [f"data/Tile_00{x}-001-{n:06d}_0-000.s{n + 1:04d}_e0{e}.tif"
         for x in (1, 2) for e in (1, 2) for n in range(4)],
        {f"data/Tile_00{x}-001-#_0-000.s*_e0{e}.tif": (4, 4, 5) for x in (1, 2) for e in (1, 2)},
    ),
    Row(
        "detectors, energies, lengths and depths of bits behind a plain number",
        [f"data/a_{n}_SE{d}.tif" for n in range(5) for d in (1, 2)]
        + [f"data/b_{n}_{nm}nm.tif" for n in range(5) for nm in (5, 10)]
        + [f"data/k{n}_{bits}bit.tif" for n in range(5) for bits in (8, 16)]
        + [f"data/d_{n}_of_{most}.tif" for most in (4, 5) for n in range(most)],
        {f"data/a_#_SE{d}.tif": (5, 4, 5) for d in (1, 2)}
        | {f"data/b_#_{nm}nm.tif": (5, 4, 5) for nm in (5, 10)}
        | {f"data/k#_{bits}bit.tif": (5, 4, 5) for bits in (8, 16)}
        | {f"data/d_#_of_{most}.tif": (most, 4, 5) for most in (4, 5)},
    ),
    Row(
        "a plain number with far more values than the other",
        [f"data/a_{n}_{c}.tif" for n in range(9) for c in (1, 2, 3)],
        {f"data/a_#_{c}.tif": (9, 4, 5) for c in (1, 2, 3)},
    ),
    Row(
        "two plain numbers of which nothing says which counts",
        [f"data/m_{y}_{x}.tif" for y in range(3) for x in range(4)],
        {f"data/m_{y}_{x}.tif": (1, 4, 5) for y in range(3) for x in range(4)},
    ),
    Row(
        "but the last where a stack is demanded",
        [f"data/m_{y}_{x}.tif" for y in range(3) for x in range(4)],
        {f"data/m_{y}_#.tif": (4, 4, 5) for y in range(3)},
        assemble="stack",
    ),
    Row(
        "angles of one sign, whose numbers have a point",
        [f"data/L1_{a}.0.tif" for a in (0, 3, 6)] + [f"data/x_{a}.tif" for a in ("0.01", "3.02")],
        {},
        {f"data/L1_{a}.0.tif": "have a point" for a in (0, 3, 6)}
        | {f"data/x_{a}.tif": "have a point" for a in ("0.01", "3.02")},
    ),
    Row(
        "volumes whose names have a point, and one that has it in all",
        [*run("data/v_{}.5.mrc", (1, 2)), *run("data/a1.5_{:03d}.tif", range(3))],
        {"data/v_1.5.mrc": (7, 4, 5), "data/v_2.5.mrc": (7, 4, 5), "data/a1.5_#.tif": (3, 4, 5)},
        like={"data/v": block(7)},
    ),
    Row(
        "working distances noted of each section",
        [f"data/s_{n:03d}_WD{wd}.tif" for n, wd in enumerate((5.1, 5.2, 5.15, 5.3, 5.1))]
        + [f"data/u_{n:03d}_{wd}mm.tif" for n, wd in enumerate((5.1, 5.2, 5.15, 5.3, 5.1))],
        {"data/s_#_WD5.*.tif": (5, 4, 5), "data/u_#_*mm.tif": (5, 4, 5)},
    ),
    Row(
        "tilt series by their number or as projections, and time series",
        [*run("data/TS_03/a_{:03d}.mrc", range(3)), *run("data/ct/proj_{:04d}.tif", range(3)),
         *run("data/ts_{:03d}.tif", range(3)), *run("data/proj1/s_{:03d}.tif", range(3))],
        {"data/ts_#.tif": (3, 4, 5), "data/proj1/s_#.tif": (3, 4, 5)},
        {f"data/TS_03/a_{n:03d}.mrc": "'TS_03'" for n in range(3)}
        | {f"data/ct/proj_{n:04d}.tif": "'proj_'" for n in range(3)},
    ),
    Row(
        "days on which a count begins again, and on which it goes on",
        [f"data/2019060{d}_sample_{n:03d}.tif" for d in (1, 2) for n in range(3)]
        + [f"data/a_{n:03d}_2019-06-0{1 + n // 2}.tif" for n in range(5)]
        + [f"data/2019060{1 + n // 2}_sample{n:03d}.tif" for n in range(5)],
        {f"data/2019060{d}_sample_#.tif": (3, 4, 5) for d in (1, 2)}
        | {"data/a_#_2019-06-*.tif": (5, 4, 5), "data/*_sample#.tif": (5, 4, 5)},
    ),
    Row(
        "a day behind the count, and nothing but days",
        [f"data/s{n:03d}_0{d}0619.tif" for d in (1, 2) for n in range(3)]
        + [f"data/day_2019060{d}.tif" for d in (1, 2)] + [f"data/2019-06-0{d}.tif" for d in (1, 2)],
        {f"data/s#_0{d}0619.tif": (3, 4, 5) for d in (1, 2)}
        | {f"data/day_2019060{d}.tif": (1, 4, 5) for d in (1, 2)}
        | {f"data/2019-06-0{d}.tif": (1, 4, 5) for d in (1, 2)},
    ),
    Row(
        "a count beside times of day without seconds, and times that look like days",
        [f"data/a_{n:04d}_20190601_{n * 7 % 24:02d}{n * 11 % 60:02d}.dm4" for n in range(8)]
        + [f"data/M_0305{s:02d}_0-0-{x}.tif" for s in (1, 2, 3) for x in (0, 1)],
        {"data/a_#_20190601_*.dm4": (8, 4, 5)}
        | {f"data/M_#_0-0-{x}.tif": (3, 4, 5) for x in (0, 1)},
    ),
    Row("a lone picture", ["data/preview.png"], {}, {"data/preview.png": "no volume"}),
]  # fmt: skip


def sorted_row(row: Row) -> Sorting:
    sets = [
        {"category": category, "directory": folder, "data_format": "MRC"}
        for folder, category in row.categories.items()
    ]
    entry = parse_entry({"EMPIAR-1": {"imagesets": sets}}, "EMPIAR-1", "where")

    def of(path: str, known: Mapping[str, Any], default: Any) -> Any:
        return next((value for start, value in known.items() if path.startswith(start)), default)

    def describe(path: str) -> Sequence[VolumeDescription]:
        found = of(path, row.like, plane())
        if isinstance(found, FormatError):
            raise found
        return found if isinstance(found, list) else [found]

    return sort_files(
        {path: of(path, row.sizes, 500) for path in row.files},
        describe,
        row.assemble,
        why_none=lambda path: why_none(path, entry.imagesets),
    )


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_what_belongs_together(row: Row) -> None:
    sorting = sorted_row(row)
    assert {volume.path: volume.shape_zyx for volume in sorting.volumes} == row.volumes
    assert sorting.refused.keys() == row.left_out.keys()
    assert all(word in sorting.refused[path] for path, word in row.left_out.items())
    used = [name for volume in sorting.volumes for name in volume.names]
    assert set(used) | set(sorting.refused) == set(row.files), "each file is somewhere"
    for volume in sorting.volumes:
        if volume.path in row.places:
            assert volume.places == row.places[volume.path]


def test_only_a_plane_is_said_to_be_no_section() -> None:
    like = {"data/cell1_em": block(6)}
    row = Row("", ["data/cell1_em.tif", "data/img_ch1.tif"], {}, like=like)
    volume, plane = sorted_row(row).volumes
    assert volume.notes == ()
    assert plane.notes == ("in no stack: the number behind 'ch' counts no sections",)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([f"data/m_{y}_{x}.tif" for y in range(3) for x in range(4)], "which counts sections"),
        (run("data/day_2019060{}.tif", (1, 2)), "a date counts no sections"),
        ([f"data/x_{n:03d}[{n * 3}.0].mrc" for n in range(4)], "where it is an angle"),
        (run("data/s_{:03d}_WD5.1.tif", range(3)), ""),
        (run("data/sec_{0:04d}/sec_{0:04d}.tif", range(3)), "only files of one folder make a"),
        (run("data/sec_{:04d}/image.tif", range(3)), "one of 3 in as many folders"),
    ],
)
def test_what_a_number_may_be_is_noted(files: list[str], said: str) -> None:
    (first, *_) = sorted_row(Row("", files, {})).volumes
    assert said in "; ".join(first.notes) if said else first.notes == ()


# --- labels -------------------------------------------------------------------------------------


def kinds(files: Mapping[str, VolumeDescription]) -> dict[str, str]:
    sorting = sort_files(dict.fromkeys(files, 500), lambda name: [files[name]], "auto")
    return {path: known.kind for path, known in kinds_of(sorting.volumes).items()}


@pytest.mark.parametrize(
    ("path", "dtype", "kind"),
    [
        ("data/Images/cell_0001.mrc", "uint8", "image"),
        ("data/Labels/Labels_cell_0001.mrc", "uint8", "labels"),
        ("data/FIB-SEM Raw and Segmentation Data/6461 - Raw/x.mrc", "uint8", "image"),
        ("data/FIB-SEM Raw and Segmentation Data/6461 - Segmentation/x.mrc", "uint8", "labels"),
        ("data/set_mito_segmentation_h5/0000.mrc", "uint32", "labels"),
        ("data/x.tif", "uint32", "labels"),
        ("data/x.tif", "int64", "labels"),
        ("data/x.mrc", "uint32", "image"),  # counts of electrons
        ("data/x.dm4", "uint32", "image"),
        ("data/x.mrc", "uint8", "image"),
        ("data/labels/distance.mrc", "float32", "image"),
        ("data/SetN/x ORGANELLE CLASS LABELS.mrc", "uint8", "labels"),
        ("data/masks/a.mrc", "int16", "labels"),
    ],
)
def test_labels_are_told_by_names_and_types(path: str, dtype: str, kind: str) -> None:
    assert kinds({path: block(6, dtype=dtype)}) == {path: kind}


def test_a_file_called_after_another_and_an_organelle_is_labels_of_it() -> None:
    files = {
        "data/F107_A1_bin2.mrc": block(6),
        "data/F107_A1_bin2_nuclei.mrc": block(6),
        "data/F107_A1_bin2_entotic_cell.mrc": block(6),
        "data/F107_A1_bin2_denoised.mrc": block(6),
        "data/F107_A1_bin2_actin.mrc": block(6, 9, 9),
        "data/hela_em.tif": block(5),
        "data/hela_mito.tif": block(5),
    }
    assert {p.partition("/")[2] for p, kind in kinds(files).items() if kind == "labels"} == {
        "F107_A1_bin2_nuclei.mrc", "F107_A1_bin2_entotic_cell.mrc", "hela_mito.tif",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (["data/cell_1_EM.tif"], ["data/cell_01_EM_seg.tif"]),
        (["data/em.tif"], ["data/em_labels.tif", "data/em_semantic.tif"]),
        (["data/imagesTr/em_1.nii.gz"], ["data/labelsTr/em_1.nii.gz"]),
        (["data/imagesTr/em_1_0000.nii.gz"], ["data/labelsTr/em_1.nii.gz"]),
        (["data/x/image_1.tif"], ["data/masks/image_1.tif"]),
        (["data/mito_segmentation/em.tif"], ["data/mito_segmentation/em_seg.tif"]),
        (["data/labels/raw_1.tif", "data/images/raw_1.tif"], []),
    ],
)
def test_labels_that_are_called_after_their_images(images: list[str], labels: list[str]) -> None:
    """Words for both: labels that were pooled as an image would get ids that do not exist."""
    found = kinds({path: block(6) for path in (*images, *labels)})
    assert found == dict.fromkeys(images, "image") | dict.fromkeys(labels, "labels")


def paired(files: Mapping[str, VolumeDescription]) -> dict[str, tuple[str | None, int, str]]:
    sorting = sort_files(dict.fromkeys(files, 500), lambda name: [files[name]], "auto")
    known = kinds_of(sorting.volumes)
    pairs = pair_up(sorting.volumes, known)
    return {path: (pair.image, pair.first_z, pair.note) for path, pair in pairs.items()}


RAW, LABELS = "data/raw/s_{:04d}.tif", "data/seg/s_{:04d}.tif"


def stacks(
    raw: Sequence[int], labels: Sequence[int], of: VolumeDescription | None = None
) -> dict[str, VolumeDescription]:
    known = dict.fromkeys(run(RAW, raw), plane())
    return known | dict.fromkeys(run(LABELS, labels), of or plane())


@pytest.mark.parametrize(
    ("files", "image", "first_z", "word"),
    [
        (stacks(range(6), range(6)), "data/raw/s_#.tif", 0, "section by section"),
        (stacks(range(1, 7), range(6)), "data/raw/s_#.tif", 0, "count from 0, the images from 1"),
        (stacks(range(1, 9), range(1, 5)), "data/raw/s_#.tif", 0, "sections 0 to 3 of 8"),
        (stacks(range(1, 9), range(3, 6)), "data/raw/s_#.tif", 2, "sections 2 to 4 of 8"),
        (stacks(range(1, 9), range(4)), None, 0, "nothing says how they lie"),
        (stacks(range(100, 106), range(6)), None, 0, "nothing says how they lie"),
        (stacks(range(6), range(6), plane(8, 8)), None, 0, "(4, 5) (y, x), those of the labels"),
    ],
)
def test_labels_are_paired_where_grid_and_numbers_agree(
    files: dict[str, VolumeDescription], image: str | None, first_z: int, word: str
) -> None:
    ((found, start, note),) = paired(files).values()
    assert (found, start) == (image, first_z)
    assert word in note


def test_labels_belong_to_the_nearest_images_that_fit() -> None:
    files = {
        f"data/{cell}/{kind}/x.tif": block(depth)
        for cell, depth in (("one", 5), ("two", 5), ("three", 6))
        for kind in ("raw", "labels")
    }
    assert {path: pair[0] for path, pair in paired(files).items()} == {
        f"data/{cell}/labels/x.tif": f"data/{cell}/raw/x.tif" for cell in ("one", "two", "three")
    }


# --- sizes that nobody measures -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "nm"),
    [
        ("data/20140801_hela-wt_xy5z8nm_as/slice_#.tif", (8.0, 5.0, 5.0)),
        ("data/Raw/Gunes_WT1_8x8x8nm_3MHz.#.tif", (8.0, 8.0, 8.0)),
        ("data/4x4x40nm/a.tif", (40.0, 4.0, 4.0)),
        ("data/40x4x4nm/a.tif", (40.0, 4.0, 4.0)),
        ("data/4x5x6nm/a.tif", None),
        ("data/5632x5632x100/a.tif", None),
        ("data/a.tif", None),
    ],
)
def test_sizes_in_names(path: str, nm: tuple[float, ...] | None) -> None:
    claim = stated_in_names(path)
    assert (claim and claim.nm_zyx) == nm


def test_positions_in_names_give_the_mean_distance_and_its_spread() -> None:
    known = {288: "1.4263", 2534: "12.6376", 3979: "19.8626"}
    names = [f"slice_{n:05d}_z={z}um.tif" for n, z in known.items()]
    claim = positions_in_names(names, [0, 2246, 3691])
    assert claim is not None and claim.nm_zyx == (4.99493, None, None)
    assert "4.992 to 5 nm" in claim.where
    assert positions_in_names(["a_1.tif", "a_2.tif"], [0, 1]) is None
    across = positions_in_names(["c_z0.95um.tif", "c_z1.00um.tif", "c_z1.10um.tif"], [0, 1, 3])
    assert across is not None and across.nm_zyx == (50.0, None, None)
    assert positions_in_names(["xy5z8nm_1.tif", "xy5z8nm_2.tif"], [0, 1]) is None


@pytest.mark.parametrize(
    ("text", "nm"),
    [
        ("8nm/px in xy, 50nm per section; Magellan400", 50.0),
        ("Section thickness was 200 nm.", 200.0),
        ("voxels of 10 nm, z-step of 0.02 µm", 20.0),
        ("65 nm pixels, 200 nm thick sections", 200.0),
        ("50 nm per section; 60 nm per section", None),
        ("a resolution of 5 nm", None),
        ("", None),
    ],
)
def test_a_thickness_in_a_text(text: str, nm: float | None) -> None:
    claim = thickness_in_text(text)
    assert (claim and claim.nm_zyx[0]) == nm


def test_the_image_set_of_a_folder_speaks_of_the_files_below_it() -> None:
    sets = [
        {"directory": "/data/a", "data_format": "TIFF", "pixel_width": 50.0},
        {"directory": "/data/b", "data_format": "TIFF", "pixel_width": 80.0},
    ]
    entry = parse_entry({"EMPIAR-1": {"imagesets": sets}}, "EMPIAR-1", "where")

    for folder, nm in (("data/a", 5.0), ("data/b", 8.0)):
        claims = claims_about([f"{folder}/x/s_1.tif"], entry.imagesets, 2)
        assert claims is not None and claims.pixel_nm_yx[1] == nm


def test_what_macos_puts_beside_files_is_no_section() -> None:
    class Tree:
        ways, failed = ("https", "ftp"), ()

        def side_by_side(self, jobs: Sequence[Any]) -> list[Any]:
            return [job() for job in jobs]

        def folder(self, path: str) -> Any:
            names = ["s_1.tif", "._s_1.tif", "s_2.tif", "._s_2.tif", "Thumbs.db", "readme.txt"]
            return [FtpEntry(name, False, 1000, "2024-01-01T00:00:00Z") for name in names], ()

        def listed(self, path: str, name: str, entry: FtpEntry) -> SourceFile:
            return SourceFile(url=f"https://h{path}", name=name, size=entry.size)

    tree: Any = Tree()
    found = find_files(tree, "/empiar/1", (), Selection())
    assert {*found.files} == {"data/s_1.tif", "data/s_2.tif"}
    assert {*found.others} == {"._s_1.tif", "._s_2.tif", "Thumbs.db", "readme.txt"}


def test_files_beyond_those_that_are_looked_at_have_the_reason_of_all() -> None:
    files = [f"data/m_{y}_{x}.tif" for y in range(15) for x in range(16)]
    made = sorted_row(Row("", files, {}))
    assert len(made.volumes) == 200
    assert all("which counts sections" in why and "include" in why for why in made.refused.values())


class _Folders:
    """A tree of an entry's files, as `find_files` asks it."""

    ways, failed = ("https", "ftp"), ()

    def __init__(self, files: Sequence[str]) -> None:
        self._files, self.asked = files, list[str]()

    def side_by_side(self, jobs: Sequence[Any]) -> list[Any]:
        return [job() for job in jobs]

    def folder(self, path: str) -> Any:
        self.asked.append(path)
        start = path.removeprefix("/empiar/1/") + "/"
        below = [name.removeprefix(start) for name in self._files if name.startswith(start)]
        parts = {rest.partition("/")[0]: "/" in rest for rest in below}
        return [FtpEntry(name, is_dir, None if is_dir else 9) for name, is_dir in parts.items()], ()

    def listed(self, path: str, name: str, entry: FtpEntry) -> SourceFile:
        return SourceFile(url=f"https://h{path}", name=name, size=entry.size)


@pytest.mark.parametrize(
    ("tiles", "above", "word"),
    [
        ([f"data/em/{z}/{y}_{x}_{s}.jpg" for z in range(40) for y, x, s in ((0, 0, 0), (0, 1, 0))],
         "data/em/", "viewer"),
        ([f"data/em/{s}/{z}/{y}/1.png" for s in (0, 1) for z in range(9) for y in (0, 1)],
         "data/em/", "viewer"),
        ([f"data/em/{s}/{z}/0_{x}.png" for s in (0, 1) for z in range(9) for x in (0, 1)],
         "data/em/", "viewer"),
        ([f"data/em/000012/001_000012_{t:03d}_2019-06-01T1200451{t}0.png" for t in range(3)],
         "data/em/000012/", "multi-beam"),
    ],
)  # fmt: skip
def test_tiles_of_a_tree_are_refused_once_and_never_stacked(
    tiles: list[str], above: str, word: str
) -> None:
    beside = ["data/em/s_1.tif", "data/3/1_2.tif", "data/12/3/0001.tif", "data/12/3/4.tif"]
    tree: Any = _Folders([*tiles, *beside])
    found = find_files(tree, "/empiar/1", (), Selection())
    assert {*found.files} == {*beside}
    assert [*found.refused] == [above]
    assert word in found.refused[above] and "not put together" in found.refused[above]
    assert len(tree.asked) < 45, "it is not walked to its end"
    named = find_files(tree, "/empiar/1", (), Selection(), only=tiles[0].rpartition("/")[0])
    assert not named.refused


def test_hidden_files_are_no_sections() -> None:
    hidden = ["data/.s_001.tif", "data/~s_001.tif", "data/@eaDir/s.tif", "data/$RECYCLE.BIN/s.tif"]
    tree: Any = _Folders([*run("data/s_{:03d}.tif", (1, 2)), *hidden])
    assert {*find_files(tree, "/empiar/1", (), Selection()).files} == {
        "data/s_001.tif", "data/s_002.tif",
    }  # fmt: skip


# --- planning costs what it must ----------------------------------------------------------------


def test_twenty_thousand_sections_are_planned_from_their_listing_and_two_headers() -> None:
    """No request for a file by itself; a step that compares each name with each takes minutes."""
    names = [f"slice_{n:05d}_z={n * 0.005:.4f}um.tif" for n in range(20_000)]

    class Tree:
        ways, failed = ("https", "ftp"), ()

        def side_by_side(self, jobs: Sequence[Any]) -> list[Any]:
            return [job() for job in jobs]

        def folder(self, path: str) -> Any:
            return [FtpEntry(name, False, 1000, "2024-01-01T00:00:00Z") for name in names], ()

        def listed(self, path: str, name: str, entry: FtpEntry) -> SourceFile:
            return SourceFile(url=f"https://h{path}", name=name, size=entry.size)

    asked: list[str] = []

    def describe(path: str) -> Sequence[VolumeDescription]:
        asked.append(path)
        return [plane()]

    tree: Any = Tree()
    found = find_files(tree, "/empiar/1", (), Selection())
    sizes = {path: file.size for path, file in found.files.items()}
    (volume,) = sort_files(sizes, describe, "auto").volumes
    assert volume.shape_zyx == (20_000, 4, 5)
    assert len(asked) == 2
    ahead: list[str] = []

    def look_ahead(paths: Sequence[str]) -> dict[str, Sequence[VolumeDescription] | FormatError]:
        ahead.extend(paths)
        return {path: [plane()] for path in paths}

    sort_files(sizes, describe, "auto", look_ahead=look_ahead)
    assert (ahead, len(asked)) == (asked, 2), "side by side are read the same, and no others"


@pytest.mark.parametrize(
    ("files", "stem", "earlier"),
    [
        (run("data/a/mito_segment_h5/{:04d}.h5", range(4)), "mito_segment_h5", "sections"),
        (run("data/x/raw.zip/{:04d}.tif", range(4)), "raw", "sections"),
        (run("data/{:04d}.tif", range(4)), "sections", ""),
        (run("data/a/cell_{:04d}.tif", range(4)), "cell", ""),
        ([f"data/slice_{n:05d}_z=1.4{n}26um.tif" for n in range(4)], "slice", "slice__z_1.um"),
    ],
)
def test_a_stack_is_called_by_what_says_what_it_is(
    files: list[str], stem: str, earlier: str
) -> None:
    (volume,) = sort_files(dict.fromkeys(files, 20), lambda path: [plane()], "auto").volumes
    assert (volume.stem, volume.earlier_stem) == (stem, earlier)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (["data/cell1_em.tif", "data/cell2_em.tif"],
         ["data/cell1_mito.tif", "data/cell2_mito.tif"]),
        (["data/raw/v_2.tif", "data/raw/v_10.tif"], ["data/seg/v_02.tif", "data/seg/v_10.tif"]),
        (["data/sampleA_raw.tif", "data/sampleB_raw.tif"],
         ["data/sampleA_labels.tif", "data/sampleB_labels.tif"]),
        (["data/raw/c1_#.tif", "data/raw/c2_#.tif"],
         ["data/masks/c1_#.tif", "data/masks/c2_#.tif"]),
    ],
)  # fmt: skip
def test_labels_belong_to_the_images_of_their_own_number(
    images: list[str], labels: list[str]
) -> None:
    files = {
        path.replace("#", f"{n:03d}"): plane() if "#" in path else block(6)
        for path in (*images, *labels)
        for n in range(3)
    }
    found = {path: image for path, (image, _, _) in paired(files).items()}
    assert found == dict(zip(labels, images, strict=True))


@pytest.mark.parametrize(
    ("images", "labels", "first_z", "why"),
    [
        (range(31), (0, 10, 20, 30), None, "steps of 1, the labels in steps of 10"),
        (range(31), (5, 15, 25), None, "steps of 10"),
        (range(0, 40, 10), (10, 20), 1, "sections 1 to 2 of 4"),
        (range(31), (0, 10, 25), 0, "sections 0 to 25 of 31"),
        (range(0, 40, 10), range(4), 0, "numbered in steps of 1, the images of 10"),
    ],
)
def test_labels_of_every_tenth_section_do_not_lie_on_ten_neighbours(
    images: Sequence[int], labels: Sequence[int], first_z: int | None, why: str
) -> None:
    """Equal steps close up, so that the labels' sections would lie on others of the images."""
    files = dict.fromkeys(
        [*run("data/raw/s_{:03d}.tif", images), *run("data/seg/s_{:03d}.tif", labels)], plane()
    )
    ((image, start, note),) = paired(files).values()
    assert (image, start) == ((None, 0) if first_z is None else ("data/raw/s_#.tif", first_z))
    assert why in note


@pytest.mark.parametrize(
    ("files", "why"),
    [
        (["data/raw/cell1.tif", "data/labels/cell2.tif"], "its name says '1'"),
        (["data/em_A.tif", "data/seg_B.tif"], "its name says 'a'"),
        (["data/em_A.tif", "data/em_B.tif", "data/seg.tif"], "2 fit alike"),
    ],
)
def test_labels_of_another_thing_or_of_any_stay_alone(files: list[str], why: str) -> None:
    ((image, _, note),) = paired({path: block(6) for path in files}).values()
    assert image is None
    assert why in note
