"""The stand-in archives speak as the real ones do, to clients that know nothing of them."""

from __future__ import annotations

import contextlib
import ftplib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
import requests
import tifffile
from numcodecs.lz4 import LZ4
from obstore.store import S3Store
from PIL import Image

import emulators.s3
from emulators.catalogue import dvid_voxels
from emulators.control import Control
from emulators.s3 import S3Server
from emulators.serving import Samples

UUID = "a89eb3af216a46cdba81204d8f954786"
DATA = "/empiar/world_availability/11759/data"
SLICE = f"{DATA}/F57-8_test1_3VBSED_slice_0003.dm3"
ZARR = "jrc_mus-nacc-2/jrc_mus-nacc-2.zarr/recon-2/em/fibsem-int16"
REPO = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("faults")


@pytest.fixture
def mirror(samples: Samples) -> str:
    return samples.endpoints["EBI"]["https_base_url"]


@pytest.fixture
def dvid(samples: Samples) -> str:
    return samples.endpoints["FLYEM"]["dvid_server"]


@pytest.fixture
def slice_bytes(samples: Samples) -> bytes:
    return (samples.root / f"ftp{SLICE}").read_bytes()


def connect(samples: Samples, timeout: float = 60) -> ftplib.FTP:
    host, port = samples.endpoints["EBI"]["ftp_server"].split(":")
    ftp = ftplib.FTP(timeout=timeout)
    ftp.connect(host, int(port))
    return ftp


def anonymous_store(samples: Samples) -> S3Store:
    return S3Store(
        "janelia-cosem-datasets",
        endpoint=samples.endpoints["OPENORGANELLE"]["s3_endpoint_url"],
        skip_signature=True,
        region="us-east-1",
        client_options={"allow_http": True},
    )


# --- FTP ------------------------------------------------------------------------------------


def test_ftp_greets_in_several_lines_and_words_replies_as_vsftpd(samples: Samples) -> None:
    ftp = connect(samples)
    greeting = (ftp.welcome or "").splitlines()
    assert (greeting[0], greeting[-1]) == ("220-Welcome to ftp.ebi.ac.uk", "220 ")
    assert ftp.login() == "230 Login successful."
    assert ftp.cwd(DATA) == "250 Directory successfully changed."
    assert ftp.pwd() == DATA
    assert ftp.sendcmd("PASV").startswith("227 Entering Passive Mode (127,0,0,1,")
    assert ftp.quit() == "221 Goodbye."


def test_ftp_answers_size_in_both_modes_and_refuses_it_for_folders(
    samples: Samples, slice_bytes: bytes
) -> None:
    ftp = connect(samples)
    ftp.login()
    for mode in "AI":
        ftp.voidcmd(f"TYPE {mode}")
        assert ftp.size(SLICE) == len(slice_bytes)
    with pytest.raises(ftplib.error_perm, match="550 Could not get file size"):
        ftp.size(DATA)
    assert re.fullmatch(r"213 \d{14}", ftp.sendcmd(f"MDTM {SLICE}"))


def test_ftp_lists_the_same_names_in_all_three_ways(samples: Samples) -> None:
    ftp = connect(samples)
    ftp.login()
    ftp.cwd(DATA)
    names = set(ftp.nlst())
    lines: list[str] = []
    ftp.retrlines("LIST", lines.append)
    machine = dict(ftp.mlsd())
    assert len(names) == 18
    assert {line.split(maxsplit=8)[8] for line in lines} == names
    assert {name for name, facts in machine.items() if facts["type"] in ("file", "dir")} == names
    assert sum(facts["type"] == "dir" for facts in machine.values()) == 1


def test_ftp_resumes_in_binary_mode_over_both_passive_commands(
    samples: Samples, faults: Control, slice_bytes: bytes
) -> None:
    ftp = connect(samples)
    ftp.login()
    for family in (ftp.af, 10):  # ftplib sends EPSV where it believes in IPv6
        ftp.af = family
        got = io.BytesIO()
        ftp.retrbinary(f"RETR {SLICE}", got.write, rest=1000)
        assert got.getvalue() == slice_bytes[1000:]
    used = faults.counters.tally("ftp").methods
    assert (used["PASV"], used["EPSV"], used["REST"]) == (1, 1, 2)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("greeting_reset", ConnectionResetError),
        ("reply_421", r"421 There are too many connections"),
        ("login_incorrect", "530 Login incorrect"),
        ("size_refused", "550 Could not get file size"),
        ("rest_refused", "502"),
        ("reply_425", "425 Failed to establish connection"),
        ("cut_426", "426"),
        ("reset", ConnectionResetError),
        ("stall", TimeoutError),
        ("epsv_for_pasv", "229"),
    ],
)
def test_ftp_fault_strikes_once_and_then_all_is_well(
    samples: Samples, faults: Control, slice_bytes: bytes, kind: str, error: Any
) -> None:
    faults.add(kind, "ftp", first_n=1, seconds=3600)

    def fetch(timeout: float = 60) -> bytes:
        ftp = connect(samples)
        ftp.login()
        ftp.voidcmd("TYPE I")
        ftp.size(SLICE)
        ftp.timeout = timeout  # of the transfer alone: what comes before may be late
        got = io.BytesIO()
        ftp.retrbinary(f"RETR {SLICE}", got.write, rest=100)
        ftp.close()
        return got.getvalue()

    if isinstance(error, str):
        with pytest.raises(ftplib.Error, match=error):
            fetch()
    else:
        with pytest.raises(error):
            fetch(1 if kind == "stall" else 60)
    assert fetch() == slice_bytes[100:]
    assert faults.faults.fired() == {kind: 1}


def test_ftp_can_end_early_and_still_say_226(
    samples: Samples, faults: Control, slice_bytes: bytes
) -> None:
    faults.add("cut_226", "ftp", after_bytes=777)
    ftp = connect(samples)
    ftp.login()
    got = io.BytesIO()
    assert ftp.retrbinary(f"RETR {SLICE}", got.write).startswith("226")
    assert got.getvalue() == slice_bytes[:777]
    assert ftp.size(SLICE) == len(slice_bytes)


def test_ftp_can_send_wrong_bytes_of_the_right_length(
    samples: Samples, faults: Control, slice_bytes: bytes
) -> None:
    faults.add("wrong_bytes", "ftp", after_bytes=500, count=3)
    ftp = connect(samples)
    ftp.login()
    got = io.BytesIO()
    ftp.retrbinary(f"RETR {SLICE}", got.write)
    wrong = [i for i, (a, b) in enumerate(zip(got.getvalue(), slice_bytes, strict=True)) if a != b]
    assert wrong == [500, 501, 502]


def test_ftp_can_shorten_listings_and_name_a_private_address(
    samples: Samples, faults: Control
) -> None:
    faults.add("short_list", "ftp")
    faults.add("private_pasv", "ftp")
    ftp = connect(samples)
    ftp.login()
    assert len(ftp.nlst(DATA)) == 9
    assert ftp.sendcmd("PASV").startswith("227 Entering Passive Mode (10,34,22,86,")


# --- the mirror -----------------------------------------------------------------------------


def test_index_page_has_sort_anchors_an_absolute_parent_and_relative_names(mirror: str) -> None:
    page = requests.get(f"{mirror}{DATA}", timeout=60)
    assert page.url.endswith("/data/")
    anchors = re.findall(r'<a href="([^"]*)">', page.text)
    assert anchors[:4] == ["?C=N;O=D", "?C=M;O=A", "?C=S;O=A", "?C=D;O=A"]
    assert anchors[4] == "/empiar/world_availability/11759/"
    assert len(anchors[5:]) == 18
    assert sum(anchor.endswith("/") for anchor in anchors[5:]) == 1


def test_mirror_gives_ranges_as_apache_does(mirror: str, slice_bytes: bytes) -> None:
    url = f"{mirror}{SLICE}"
    head = requests.head(url, timeout=60)
    assert head.headers["content-length"] == str(len(slice_bytes))
    assert head.headers["accept-ranges"] == "bytes"
    assert head.headers["last-modified"].endswith("GMT")
    part = requests.get(url, headers={"Range": "bytes=10-99"}, timeout=60)
    assert (part.status_code, part.content) == (206, slice_bytes[10:100])
    assert part.headers["content-range"] == f"bytes 10-99/{len(slice_bytes)}"
    assert part.headers["etag"] == head.headers["etag"]
    tail = requests.get(url, headers={"Range": "bytes=-7"}, timeout=60)
    assert tail.content == slice_bytes[-7:]
    past = requests.get(url, headers={"Range": f"bytes={len(slice_bytes)}-"}, timeout=60)
    assert past.status_code == 416
    assert past.headers["content-range"] == f"bytes */{len(slice_bytes)}"
    assert requests.get(url, timeout=60).content == slice_bytes


def test_mirror_does_not_leave_its_folder(mirror: str) -> None:
    for path in ("/../epfl/", "/%2e%2e/epfl/", "/..%2f..%2f..%2f..%2fetc/passwd", "/none"):
        request = requests.Request("GET", mirror).prepare()
        request.url = mirror + path
        assert requests.Session().send(request, timeout=60).status_code == 404


def test_epfl_folder_begins_with_a_space(samples: Samples) -> None:
    answer = requests.get(samples.endpoints["EPFL"]["download_url"], timeout=60)
    with tifffile.TiffFile(io.BytesIO(answer.content)) as tif:
        tags = tif.pages.first.tags
        assert tags["Software"].value == "InsightToolkit"
        assert len(tif.pages) == tags["PageNumber"].value[1]


@pytest.mark.parametrize(
    ("kind", "parameters", "status", "header"),
    [
        ("status_503", {"retry_after": 2}, 503, ("retry-after", "2")),
        ("status_503", {}, 503, ("retry-after", None)),
        ("status_429", {"retry_after": 1}, 429, ("retry-after", "1")),
        ("status_500", {}, 500, ("retry-after", None)),
        ("status_403", {}, 403, ("retry-after", None)),
        ("status_404", {}, 404, ("retry-after", None)),
        ("hide", {}, 404, ("retry-after", None)),
        ("html_200", {}, 200, ("content-type", "text/html; charset=utf-8")),
        ("redirect", {"location": "http://169.254.169.254/"}, 302, ("location", "http://169.254.169.254/")),
    ],
)  # fmt: skip
def test_status_faults_strike_the_first_requests_only(
    mirror: str,
    faults: Control,
    slice_bytes: bytes,
    kind: str,
    parameters: dict[str, Any],
    status: int,
    header: tuple[str, str | None],
) -> None:
    faults.add(kind, "mirror", r"slice_0003", first_n=2, **parameters)
    for _ in range(2):
        answer = requests.get(f"{mirror}{SLICE}", timeout=60, allow_redirects=False)
        assert answer.status_code == status
        assert answer.headers.get(header[0]) == header[1]
        assert answer.content != slice_bytes
    assert requests.get(f"{mirror}{SLICE}", timeout=60).content == slice_bytes


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("reset", "reset by peer"),
        ("short_body", "IncompleteRead"),
        ("stall", "timed out"),
    ],
)
def test_body_faults_break_off_in_the_middle(
    mirror: str, faults: Control, slice_bytes: bytes, kind: str, error: str
) -> None:
    faults.add(kind, "mirror", first_n=1, after_bytes=1234, seconds=3600)
    got = bytearray()

    def read_on(answer: requests.Response) -> None:
        for block in answer.iter_content(1):
            got.extend(block)

    answer = requests.get(f"{mirror}{SLICE}", timeout=60, stream=True)
    assert answer.headers["content-length"] == str(len(slice_bytes))
    if kind == "stall":  # only now: the answer's begin may be as late as it likes
        answer.raw.connection.sock.settimeout(2)
    with pytest.raises(requests.RequestException, match=error):
        read_on(answer)
    answer.close()
    assert bytes(got) == slice_bytes[: len(got)]
    assert len(got) <= 1234
    assert requests.get(f"{mirror}{SLICE}", timeout=60).content == slice_bytes


def test_before_means_that_nothing_is_answered(mirror: str, faults: Control) -> None:
    faults.add("reset", "mirror", first_n=1, before=True)
    with pytest.raises(requests.ConnectionError):
        requests.head(mirror, timeout=60)
    assert faults.counters.tally("mirror").bytes_served == 0


def test_wrong_bytes_keep_the_length(mirror: str, faults: Control, slice_bytes: bytes) -> None:
    faults.add("wrong_bytes", "mirror", after_bytes=10, count=2)
    got = requests.get(f"{mirror}{SLICE}", headers={"Range": "bytes=100-199"}, timeout=60).content
    wrong = [i for i, (a, b) in enumerate(zip(got, slice_bytes[100:200], strict=True)) if a != b]
    assert wrong == [10, 11]


def test_an_ignored_range_is_a_whole_body_of_status_200(
    mirror: str, faults: Control, slice_bytes: bytes
) -> None:
    faults.add("ignore_range", "mirror")
    answer = requests.get(f"{mirror}{SLICE}", headers={"Range": "bytes=5-9"}, timeout=60)
    assert (answer.status_code, answer.content) == (200, slice_bytes)


def test_a_changed_file_has_another_etag_from_the_second_request_on(
    mirror: str, faults: Control
) -> None:
    faults.add("changed_etag", "mirror", "slice_0003")
    first, second = (requests.head(f"{mirror}{SLICE}", timeout=60) for _ in range(2))
    assert first.headers["etag"] != second.headers["etag"]
    condition = {"If-Match": first.headers["etag"]}
    assert requests.get(f"{mirror}{SLICE}", headers=condition, timeout=60).status_code == 412
    other = SLICE.replace("0003", "0004")
    assert len({requests.head(f"{mirror}{other}", timeout=60).headers["etag"] for _ in "ab"}) == 1


def test_rules_can_skip_repeat_and_count_each_path(mirror: str, faults: Control) -> None:
    faults.add("status_500", "mirror", "slice", skip=1, every=2, first_n=2)
    url = f"{mirror}{SLICE}"
    seen = [requests.head(url, timeout=60).status_code for _ in range(7)]
    assert seen == [200, 500, 200, 500, 200, 200, 200]
    faults.clear()
    faults.add("status_500", "mirror", per_path=True, first_n=1)
    paths = [url, url, url.replace("0003", "0005"), url]
    assert [requests.head(p, timeout=60).status_code for p in paths] == [500, 200, 500, 200]


# --- the JSON services ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["11759", "EMPIAR-11759"])
@pytest.mark.parametrize("end", ["", "/"])
def test_empiar_knows_an_entry_by_number_and_accession(
    samples: Samples, name: str, end: str
) -> None:
    url = f"{samples.endpoints['EBI']['api_base_url']}/entry/{name}{end}"
    entry = requests.get(url, timeout=60).json()
    assert list(entry) == ["EMPIAR-11759"]
    assert entry["EMPIAR-11759"]["imagesets"][0]["image_width"] == "5628"


def test_empiar_words_a_missing_entry_and_takes_lists(samples: Samples) -> None:
    api = samples.endpoints["EBI"]["api_base_url"]
    missing = requests.get(f"{api}/entry/1/", timeout=60)
    assert (missing.status_code, missing.text) == (404, '{"detail":"Not found."}')
    several = requests.post(f"{api}/entry/", data="11758-11760, EMPIAR-99001", timeout=60)
    assert sorted(several.json()) == ["EMPIAR-11759", "EMPIAR-99001"]


def test_json_can_lose_its_optional_keys(samples: Samples, faults: Control) -> None:
    faults.add("missing_json_keys", "empiar", keys=["citation", "pixel_width"])
    url = f"{samples.endpoints['EBI']['api_base_url']}/entry/11759/"
    text = requests.get(url, timeout=60).text
    assert "citation" not in text
    assert "pixel_width" not in text
    assert json.loads(text)["EMPIAR-11759"]["title"]


def test_omero_answers_about_an_image_its_files_and_its_annotations(samples: Samples) -> None:
    host = samples.endpoints["IDR"]["api_base_url"]
    answer = requests.get(f"{host}/api/v0/m/images/9846137/", timeout=60)
    assert "x-omero-apiversion" in answer.headers
    image = answer.json()["data"]
    assert image["url:datasets"].startswith(host)
    paths = requests.get(f"{host}/webgateway/original_file_paths/9846137/", timeout=60).json()
    below = paths["client"][0].removeprefix("uod/idr/filesets/")
    mirror = samples.endpoints["IDR"]["https_base_url"]
    file = requests.get(f"{mirror}/pub/databases/IDR/{below}", timeout=60)
    with tifffile.TiffFile(io.BytesIO(file.content)) as tif:
        pixels = image["Pixels"]
        shape = (pixels["SizeZ"], pixels["SizeY"], pixels["SizeX"])
        assert tif.series[0].shape == shape
    data = requests.get(f"{host}/webgateway/imgData/9846137/", timeout=60).json()
    assert data["size"]["width"] == pixels["SizeX"]
    query = {"type": "map", "image": "9846137"}
    notes = requests.get(f"{host}/webclient/api/annotations/", params=query, timeout=60).json()
    assert any("Organism" in str(note["values"]) for note in notes["annotations"])


def test_omero_pages_lists_and_refuses_as_it_does(samples: Samples) -> None:
    host = samples.endpoints["IDR"]["api_base_url"]
    page = requests.get(f"{host}/api/v0/m/datasets/10740/images/?limit=1", timeout=60).json()
    assert page["meta"] == {"offset": 0, "limit": 1, "maxLimit": 1000, "totalCount": 2}
    assert len(page["data"]) == 1
    missing = requests.get(f"{host}/api/v0/m/images/77/", timeout=60)
    assert (missing.status_code, missing.json()["message"]) == (404, "Image 77 not found")
    download = requests.get(f"{host}/webclient/render_image_download/9846137/", timeout=60)
    assert download.status_code == 403


# --- DVID -----------------------------------------------------------------------------------


def crop(dvid: str, size_xyz: str, offset_xyz: str, query: str = "") -> requests.Response:
    url = f"{dvid}/api/node/{UUID}/grayscale/raw/0_1_2/{size_xyz}/{offset_xyz}{query}"
    return requests.get(url, timeout=60)


def test_dvid_crops_are_x_fastest_and_black_outside(dvid: str) -> None:
    answer = crop(dvid, "30_20_10", "34412_2000_3000")
    assert answer.headers["content-type"] == "application/octet-stream"
    voxels = np.frombuffer(answer.content, np.uint8).reshape(10, 20, 30)
    assert np.array_equal(voxels, dvid_voxels((3000, 2000, 34412), (10, 20, 30)))
    assert voxels[:, :, :20].all()
    assert not voxels[:, :, 20:].any()


@pytest.mark.parametrize(
    ("dims", "size", "shape_zyx"),
    [("xy", "30_20", (1, 20, 30)), ("0_2", "30_10", (10, 1, 30)), ("yz", "20_10", (10, 20, 1))],
)
def test_dvid_planes_are_png(
    dvid: str, dims: str, size: str, shape_zyx: tuple[int, int, int]
) -> None:
    url = f"{dvid}/api/node/a89e/grayscale/raw/{dims}/{size}/100_200_300"
    picture = np.asarray(Image.open(io.BytesIO(requests.get(url, timeout=60).content)))
    assert np.array_equal(picture, dvid_voxels((300, 200, 100), shape_zyx).squeeze())


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/help", 200),
        ("/api/server/info", 200),
        ("/api/node/a89e:master/grayscale/info", 200),
        ("/api/node/ffff/grayscale/info", 400),
        ("/api/node/a89e/nothing/info", 400),
        ("/api/node/a89e/grayscale/sparsevol/1", 400),
        ("/api/node/a89e/grayscale/raw/0_1_2/64_64/0_0_0", 400),
        ("/api/node/a89e/grayscale/raw/0_1_2/64_64_64", 400),
        ("/api/node/a89e/grayscale/raw/0_1_2/2000_2000_2000/0_0_0", 400),
        ("/api/node/a89e/grayscale/subvolblocks/64_64_64/1_0_0?compression=uncompressed", 400),
        ("/api/node/a89e/grayscale/subvolblocks/64_64_64/0_0_0?compression=jpeg", 400),
        ("/nothing", 404),
    ],
)
def test_dvid_says_400_where_others_say_404(dvid: str, path: str, status: int) -> None:
    answer = requests.get(dvid + path, timeout=60)
    assert answer.status_code == status
    if status == 400:
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.text.strip().endswith(f"({path.partition('?')[0]}).")


def test_dvid_block_streams_leave_out_what_was_never_set(dvid: str) -> None:
    url = f"{dvid}/api/node/a89e/grayscale/specificblocks"
    query = {"blocks": "1,2,3,9999,0,0", "compression": "uncompressed"}
    stream = requests.get(url, params=query, timeout=60).content
    assert np.frombuffer(stream[:16], "<i4").tolist() == [1, 2, 3, 64**3]
    voxels = np.frombuffer(stream[16:], np.uint8).reshape(64, 64, 64)
    assert np.array_equal(voxels, dvid_voxels((192, 128, 64), (64, 64, 64)))
    stored = requests.get(url, params={"blocks": "1,2,3"}, timeout=60).content
    assert LZ4().decode(stored[16:]) == stream[16:]


def test_dvid_throttles_only_those_who_ask(dvid: str, faults: Control) -> None:
    for query, expected in (("?throttle=true", [200, 503]), ("", [200, 200])):
        for answers_after_s in (0.3, 2.0, 15.0):  # until it is so long that both are there at once
            faults.counters.clear()
            faults.set_latency("dvid", first_byte_s=answers_after_s)
            with ThreadPoolExecutor(2) as pool:
                asked = [pool.submit(crop, dvid, "8_8_8", "0_0_0", query) for _ in range(2)]
            if faults.counters.tally("dvid").peak == 2:
                break
        assert sorted(answer.result().status_code for answer in asked) == expected


def test_dvid_can_lose_a_block_and_err_late(dvid: str, faults: Control) -> None:
    faults.add("background", "dvid", first_n=1)
    voxels = np.frombuffer(crop(dvid, "128_128_128", "0_0_0").content, np.uint8)
    dark = voxels.reshape(128, 128, 128) == 0
    assert dark.sum() == 64**3
    assert dark[64:, 64:, 64:].all()
    faults.add("late_error", "dvid", "subvolblocks")
    url = f"{dvid}/api/node/a89e/grayscale/subvolblocks/128_64_64/0_0_0"
    answer = requests.get(url, params={"compression": "uncompressed"}, timeout=60)
    assert answer.status_code == 200
    assert answer.content.endswith(b"deadline exceeded\n")
    assert len(answer.content) < 2 * (64**3 + 16)


# --- S3 -------------------------------------------------------------------------------------


def test_s3_gives_objects_ranges_and_listings_to_anybody(samples: Samples) -> None:
    store = anonymous_store(samples)
    key = f"{ZARR}/s0/.zarray"
    expected = (samples.root / "s3/janelia-cosem-datasets" / key).read_bytes()
    assert bytes(obstore.get(store, key).bytes()) == expected
    assert bytes(obstore.get_range(store, key, start=3, end=9)) == expected[3:9]
    found = obstore.list_with_delimiter(store, prefix=ZARR)
    assert f"{ZARR}/s0" in found["common_prefixes"]
    url = f"{samples.endpoints['OPENORGANELLE']['s3_endpoint_url']}/janelia-cosem-datasets"
    missing = requests.head(f"{url}/none", timeout=60)
    assert (missing.status_code, missing.content) == (404, b"")
    assert "<Code>NoSuchKey</Code>" in requests.get(f"{url}/none", timeout=60).text
    assert requests.put(f"{url}/none", data=b"x", timeout=60).status_code == 403
    host = {"Host": "janelia-cosem-datasets.localhost"}
    root = samples.endpoints["OPENORGANELLE"]["s3_endpoint_url"]
    assert requests.get(f"{root}/{key}", headers=host, timeout=60).content == expected


def test_s3_faults_are_told_as_s3_tells_them(samples: Samples, faults: Control) -> None:
    url = f"{samples.url('s3')}/janelia-cosem-datasets/{ZARR}/s0/.zarray"
    codes = {403: "AccessDenied", 404: "NoSuchKey", 500: "InternalError", 503: "SlowDown"}
    for status, code in codes.items():
        faults.add(f"status_{status}", "s3", first_n=1)
        answer = requests.get(url, timeout=60)
        assert (answer.status_code, f"<Code>{code}</Code>" in answer.text) == (status, True)
        faults.clear()


def test_s3_metadata_can_be_hidden_or_robbed_of_its_separator(
    samples: Samples, faults: Control
) -> None:
    store = anonymous_store(samples)
    key = f"{ZARR}/s0/.zarray"
    faults.add("missing_json_keys", "s3", r"\.zarray$", keys=["dimension_separator"])
    content = json.loads(bytes(obstore.get(store, key).bytes()))
    assert "dimension_separator" not in content
    assert content["zarr_format"] == 2
    faults.clear()
    faults.add("hide", "s3", r"/s0/\.zarray$")
    with pytest.raises(FileNotFoundError):
        obstore.get(store, key)
    listed = {entry["path"] for page in obstore.list(store, prefix=f"{ZARR}") for entry in page}
    assert key not in listed
    assert f"{ZARR}/s1/.zarray" in listed


def test_an_authenticated_destination_keeps_the_object_whose_reply_was_lost(
    samples: Samples, faults: Control
) -> None:
    with S3Server("dest-bucket", key="some-key", secret="some-secret") as server:
        endpoint = samples.put_before(server)
        store = S3Store(
            "dest-bucket",
            endpoint=endpoint,
            access_key_id="some-key",
            secret_access_key="some-secret",
            region="us-east-1",
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )
        assert requests.get(f"{endpoint}/dest-bucket/a", timeout=60).status_code == 403
        big = os.urandom(12_000_000)  # several parts
        obstore.put(store, "big", big)
        assert bytes(obstore.get(store, "big").bytes()) == big
        faults.add("lost_reply", "destination", "lost", first_n=1)
        with pytest.raises(Exception, match="error sending request"):
            obstore.put(store, "lost", b"stored all the same", use_multipart=False)
        assert bytes(obstore.get(store, "lost").bytes()) == b"stored all the same"
        faults.add("reset", "destination", "never", methods=["PUT"], before=True)
        with pytest.raises(Exception, match="error sending request"):
            obstore.put(store, "never", b"x", use_multipart=False)
        with pytest.raises(FileNotFoundError):
            obstore.get(store, "never")


def test_a_kept_data_folder_has_its_objects_again(tmp_path: Path) -> None:
    for turn in range(2):
        with S3Server("kept", key="some-key", secret="some-secret", data_dir=tmp_path) as server:
            if turn == 0:
                obstore.put(server.store(), "a", b"1")
            assert bytes(obstore.get(server.store(), "a").bytes()) == b"1"


# --- counters, control, latency -------------------------------------------------------------


def test_counters_tell_requests_bytes_and_concurrency(
    samples: Samples, mirror: str, slice_bytes: bytes
) -> None:
    requests.delete(f"{samples.control_url}/_control/counters", timeout=60)
    requests.get(f"{mirror}{SLICE}", timeout=60)
    requests.get(f"{mirror}{SLICE}", headers={"Range": "bytes=0-9"}, timeout=60)
    first, second = connect(samples), connect(samples)
    first.login()
    first.retrbinary(f"RETR {SLICE}", lambda _: None)
    answer = requests.get(f"{samples.control_url}/_control/counters", timeout=60).json()
    first.quit()
    second.close()
    assert answer["services"]["mirror"]["methods"] == {"GET": 2}
    assert answer["services"]["mirror"]["bytes_served"] == len(slice_bytes) + 10
    assert answer["services"]["mirror"]["open"] == 0
    assert answer["services"]["ftp"]["peak"] >= 2
    assert answer["services"]["ftp"]["bytes_served"] == len(slice_bytes)
    assert ["GET", SLICE, "bytes=0-9"] in [
        [line["method"], line["path"], line["range"]] for line in answer["log"]
    ]


def test_one_after_the_other_never_counts_as_two_at_once(
    samples: Samples, faults: Control, mirror: str
) -> None:
    key = f"{samples.url('s3')}/janelia-cosem-datasets/{ZARR}/s0/.zarray"
    voxels = f"{samples.url('dvid')}/api/node/a89e/grayscale/raw/0_1_2/8_8_8/0_0_0"
    faults.add("stall", "mirror", skip=9, every=10, seconds=3600)
    for number in range(1, 21):
        requests.get(key, timeout=60)
        requests.get(voxels, timeout=60)
        requests.head(f"{mirror}{SLICE}", timeout=60)
        with contextlib.suppress(requests.RequestException):
            requests.get(f"{mirror}{SLICE}", timeout=60 if number % 10 else 2)
        ftp = connect(samples)
        ftp.login()
        ftp.close()
    peaks = {name: faults.counters.tally(name).peak for name in ("s3", "dvid", "mirror", "ftp")}
    assert peaks == {"s3": 1, "dvid": 1, "mirror": 1, "ftp": 1}
    assert faults.faults.fired() == {"stall": 2}


def test_faults_can_be_set_and_cleared_over_http(samples: Samples, mirror: str) -> None:
    url = f"{samples.control_url}/_control/faults"
    rules = [{"service": "mirror", "kind": "status_503", "match": "slice"}]
    assert requests.post(url, json=rules, timeout=60).status_code == 200
    assert requests.head(f"{mirror}{SLICE}", timeout=60).status_code == 503
    assert requests.delete(url, timeout=60).json()["rules"] == []
    assert requests.head(f"{mirror}{SLICE}", timeout=60).status_code == 200
    assert requests.post(url, json=[{"kind": "no such kind"}], timeout=60).status_code == 422


def test_latency_slows_a_connection_down(
    samples: Samples, faults: Control, mirror: str, slice_bytes: bytes
) -> None:
    faults.set_latency(first_byte_s=0.05, bytes_per_second=len(slice_bytes) * 4)
    answer = requests.get(f"{mirror}{SLICE}", timeout=60)
    assert answer.content == slice_bytes
    assert answer.elapsed.total_seconds() >= 0.05
    ftp = connect(samples)
    ftp.login()
    got = io.BytesIO()
    ftp.retrbinary(f"RETR {SLICE}", got.write)
    assert got.getvalue() == slice_bytes


# --- starting and stopping ------------------------------------------------------------------

SERVE = """
import sys
from pathlib import Path
from emulators.serving import Samples, serve_forever
serve_forever(Samples(Path(sys.argv[1])))
"""
SERVE_S3 = """
import time
from emulators.s3 import S3Server
with S3Server() as server:
    print(server.endpoint_url, flush=True)
    time.sleep(60)
"""


def test_a_signal_stops_everything_that_was_started(samples: Samples) -> None:
    process = _python(SERVE, str(samples.root))
    assert process.stdout is not None
    found = json.loads(process.stdout.readline())
    endpoints = [found["EBI"]["https_base_url"], found["OPENORGANELLE"]["s3_endpoint_url"]]
    assert requests.get(endpoints[0], timeout=60).status_code == 200
    servers = _descendants(process.pid)
    assert len(servers) >= 2  # the watchdog and the object store
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    _assert_ended(servers)
    for endpoint in endpoints:
        with pytest.raises(requests.ConnectionError):
            requests.get(endpoint, timeout=1)


def test_an_object_store_does_not_outlive_a_killed_owner() -> None:
    process = _python(SERVE_S3)
    assert process.stdout is not None
    endpoint = process.stdout.readline().strip()
    servers = _descendants(process.pid)
    folder = next(Path("/proc", str(pid), "cwd").resolve() for pid in servers)
    assert folder.joinpath("server.log").exists()
    process.kill()
    process.wait(60)
    _assert_ended(servers)
    assert not folder.exists()
    with pytest.raises(requests.ConnectionError):
        requests.get(endpoint, timeout=1)


def _python(program: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True)


def _assert_ended(pids: list[int]) -> None:
    for _ in range(2400):
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return
        time.sleep(0.05)
    pytest.fail(f"still running: {pids}")


def _descendants(pid: int) -> list[int]:
    children: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that has ended since
            children += map(int, path.read_text().split())
    return [*children, *(grandchild for child in children for grandchild in _descendants(child))]


def test_the_s3_program_unpacks_itself_before_its_time_to_answer_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the image it is packed: the first call of all is one that nobody is in a hurry for."""
    calls, program = tmp_path / "calls", tmp_path / "weed"
    program.write_text(f'#!/bin/sh\necho "$1" >> {calls}\nexec {emulators.s3._weed()} "$@"\n')
    program.chmod(0o755)
    emulators.s3._weed.cache_clear()
    monkeypatch.setattr(emulators.s3.sys, "executable", str(tmp_path / "python"))
    try:
        with emulators.s3.S3Server("samples"):
            assert calls.read_text().split()[0] == "version"
    finally:
        emulators.s3._weed.cache_clear()
