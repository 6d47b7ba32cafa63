"""Damaged files of every format: a named error or a whole volume, never more than that.

``FUZZ_CASES`` sets the number of cases; the default is small. One case can be repeated with
``python tests/property/fuzz_readers.py --cases 1 --first N``.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lib.errors import FormatError
from lib.formats.sections import group_sections
from lib.formats.tiff.ome_xml import parse_ome
from lib.formats.tiff.vendor import parse_imagej
from lib.geometry import to_nm

CASES = int(os.environ.get("FUZZ_CASES", "1500"))
HYPOTHESIS_CASES = max(100, CASES // 15)
SCRIPT = Path(__file__).with_name("fuzz_readers.py")

XML = st.lists(
    st.sampled_from(
        [
            "<OME>", "</OME>", "<Image>", '<Image Name="a">', "</Image>", "</Pixels>",
            "<TiffData/>",
            '<Pixels SizeX="4" SizeY="4" SizeZ="2" SizeC="1" SizeT="1" DimensionOrder="XYZCT">',
            '<Pixels SizeX="-1">', '<TiffData IFD="99999999999" FirstZ="7" PlaneCount="3">',
            "</TiffData>", '<UUID FileName="../x">', "urn:uuid:1", "</UUID>", "<BinaryOnly/>",
            '<!DOCTYPE a [<!ENTITY b "c">]>', "&b;", "&#0;", "<?xml version='1.0'?>", "\0", "é",
        ]
    ),
    max_size=14,
).map("".join)  # fmt: skip


def test_damaged_files_give_a_named_error_or_a_whole_volume() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--cases", str(CASES)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240 + CASES,
        cwd=SCRIPT.parents[2],
    )
    assert done.returncode == 0, f"the readers took the process down: {done.stderr[-2000:]}"
    result = json.loads(done.stdout)
    assert result["broken"] == [], "\n".join(case["why"] for case in result["broken"][:5])
    assert result["cases"] == CASES
    assert {"FormatError", "read"} <= result["outcomes"].keys()


@settings(max_examples=HYPOTHESIS_CASES, deadline=None, derandomize=True)
@given(XML | st.text(max_size=200))
def test_any_xml_is_read_or_refused(text: str) -> None:
    try:
        document = parse_ome(text, "test")
    except FormatError:
        return
    assert all(size > 0 for image in document.images for size in image.size.values())


@settings(max_examples=HYPOTHESIS_CASES, deadline=None, derandomize=True)
@given(
    st.dictionaries(
        st.sampled_from(["images", "channels", "slices", "frames", "unit", "spacing"]),
        st.integers(-2, 10**12).map(str) | st.text(max_size=8),
    )
)
def test_any_imagej_description_is_read_or_refused(values: dict[str, str]) -> None:
    text = "ImageJ=1.52p\n" + "\n".join(f"{key}={value}" for key, value in values.items())
    try:
        header = parse_imagej(text, "test")
    except FormatError:
        return
    assert header is not None
    assert header.channels * header.slices * header.frames == header.images > 0


@settings(max_examples=HYPOTHESIS_CASES, deadline=None, derandomize=True)
@given(st.floats(), st.text(max_size=12))
def test_any_unit_is_converted_or_unknown(value: float, unit: str) -> None:
    assert to_nm(value, unit) is None or math.isfinite(value)


NAMES = st.lists(st.from_regex(r"\A[ab]_?[0-9]{0,3}(c[0-9]{1,2})?\.(dm3|tif)\Z"), unique=True)


@settings(max_examples=HYPOTHESIS_CASES, deadline=None, derandomize=True)
@given(NAMES)
def test_grouping_into_stacks_loses_no_file(names: list[str]) -> None:
    groups, singles = group_sections(names)
    assert len({group.pattern for group in groups}) == len(groups)
    assert sorted([*singles, *(name for group in groups for name in group.names)]) == sorted(names)
    for group in groups:
        assert list(group.numbers) == sorted(set(group.numbers))
        everything = set(range(group.numbers[0], group.numbers[-1] + 1))
        assert set(group.missing) == everything - set(group.numbers)
