"""Archives' documents with anything changed in them: a named error or an answer, nothing else."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulators.dvid_documents import dvid_info
from emulators.empiar_documents import empiar_entry
from emulators.omero_documents import omero_image
from emulators.zarr_v2 import multiscale_attributes
from lib.archives.ebi.entry import parse_entry
from lib.archives.flyem.info import parse_info
from lib.archives.idr.omero import _image
from lib.errors import MacroscopeError
from lib.formats.zarr.array import parse_array
from lib.formats.zarr.ngff import parse_multiscale
from lib.safety import json_object
from lib.transport.ftp_wire import parse_list, parse_mlsd
from lib.transport.responses import parse_index

CASES = int(os.environ.get("FUZZ_CASES", "1500")) // 5
ACCESSION, IMAGE = "EMPIAR-11759", 9846137

ZARRAY = {
    "chunks": [64, 64, 64],
    "compressor": {"id": "zstd", "level": 1},
    "dimension_separator": "/",
    "dtype": "<i2",
    "fill_value": 0,
    "filters": None,
    "order": "C",
    "shape": [100, 90, 80],
    "zarr_format": 2,
}


def ngff(document: Any) -> Any:
    return parse_multiscale(json_object(json.dumps(document).encode(), ".zattrs", "x"), "x")


DOCUMENTS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "EMPIAR entry": (
        {ACCESSION: empiar_entry(ACCESSION)},
        lambda document: parse_entry(document, ACCESSION, "x"),
    ),
    "DVID info": (dvid_info(), lambda document: parse_info(document, "x")),
    "OMERO image": (omero_image(IMAGE), lambda document: _image(document, IMAGE, "x")),
    "NGFF attributes": (multiscale_attributes((8, 4, 4), (0, 2, 2), 4, "nanometer"), ngff),
    "Zarr array": (ZARRAY, lambda document: parse_array(json.dumps(document).encode(), "x")),
}

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=True),
    st.text(max_size=6),
    st.sampled_from(["", "nan", "-1", "../x", "\0", "1e999", "z", [], {}, [[]], [None], {"a": 1}]),
)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document, the whole of it first."""
    if isinstance(document, dict):
        inside = [p for key, value in document.items() for p in places(value, (*path, key))]
    elif isinstance(document, list):
        inside = [p for i, value in enumerate(document) for p in places(value, (*path, i))]
    else:
        inside = []
    return [path, *inside]


def changed(document: Any, path: tuple[Any, ...], value: Any, *, remove: bool) -> Any:
    if not path:
        return value
    whole = copy.deepcopy(document)
    parent = whole
    for key in path[:-1]:
        parent = parent[key]
    if remove:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return whole


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_any_change_to_a_document_is_refused_by_name_or_read(kind: str) -> None:
    original, parse = DOCUMENTS[kind]
    parse(original)  # whole, it is read

    @settings(max_examples=CASES, deadline=None, derandomize=True)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        document = original
        for _ in range(data.draw(st.integers(1, 3))):
            path = data.draw(st.sampled_from(places(document)))
            junk, remove = data.draw(JUNK), data.draw(st.booleans())
            document = changed(document, path, junk, remove=remove)
        try:
            parse(document)
        except MacroscopeError:
            return

    run()


@settings(max_examples=CASES, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                [
                    "-rw-r--r--    1 ftp      ftp      61440 Mar 09  2015 slice_0000.dm3",
                    "lrwxrwxrwx    1 ftp      ftp          9 Mar 09  2015 a -> ../../etc",
                    "drwxr-xr-x    2 ftp      ftp       4096 Mar 09 12:01 data",
                    "type=file;size=61440;modify=20150309120000; slice_0000.dm3",
                    "type=dir;modify=20150309120000; data",
                    "type=file;size=-1; x",
                    "total 12",
                ]
            ),
            st.text(max_size=60),
        ),
        max_size=8,
    )
)
def test_any_listing_is_read_or_refused(lines: list[str]) -> None:
    for parse in (parse_mlsd, parse_list):
        try:
            entries = parse(lines) or []
        except MacroscopeError:
            continue
        assert all(one.size is None or one.size >= 0 for one in entries)


@settings(max_examples=CASES, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                ['<a href="a.tif">a.tif</a> 2015-03-09 12:01  12M', '<a href="../">', "</a>", "<a",
                 '<a href="javascript:x">', '<a href="//h/x">', '<a href="%2e%2e%2fx">', "<!--"]
            ),
            st.text(max_size=30),
        ),
        max_size=10,
    ).map("\n".join)
)  # fmt: skip
def test_any_index_page_is_read_and_names_no_other_place(page: str) -> None:
    for entry in parse_index(page, "http://host/folder/"):
        assert entry.name not in ("", ".", "..")
        assert not {"/", "\0"} & set(entry.name)
