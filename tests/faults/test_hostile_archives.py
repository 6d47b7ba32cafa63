"""Archives that lie and attack: nothing leaves the destination, grows without bound, or leaks."""

from __future__ import annotations

import gzip
import json
import logging
import os
import resource
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import obstore
import pytest
import tifffile
from pydantic import SecretStr

from emulators.mrc import write_mrc
from emulators.serving import BUCKET, Samples
from lib.errors import ConfigError, FormatError, MacroscopeError
from lib.storage.base import StoreSettings
from tests.faults.bench import Bench, Ended
from tests.kit.restored import restored

ENTRY = "99666"
HOSTILE_LINKS = (
    "../../../outside.mrc", "/etc/outside.mrc", "..%2f..%2foutside.mrc", "%2e%2e/outside.mrc",
    "..%5coutside.mrc", "nul%00byte.mrc", "http://127.0.0.1:9/other.mrc", "//127.0.0.1:9/x.mrc",
    "file:///etc/passwd.mrc", "%2Fetc%2Fpasswd.mrc", "..mrc",
)  # fmt: skip
ODD_LINKS = (
    "Volume.mrc", "volume.MRC", "con.mrc", "%24(touch%20pwned).mrc", "-rf.mrc", "new%0Aline.mrc",
    "%E2%80%AEgnp.mrc", "a" * 240 + ".mrc",
)  # fmt: skip


@contextmanager
def measured() -> Iterator[Callable[[], int]]:
    """The most bytes that Python held at once inside the block."""
    peaks: list[int] = []
    tracemalloc.start()
    try:
        yield lambda: peaks[0]
    finally:
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()


@contextmanager
def server(answer: Callable[[str], tuple[str, bytes] | None]) -> Iterator[str]:
    """An archive of the attacker's: ``answer(path)`` gives media type and body."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = answer(self.path)
            kind, body = found or ("text/plain", b"not found")
            start, stop, status = 0, len(body), 200 if found else 404
            if found and (span := self.headers.get("Range")):
                first, _, last = span.removeprefix("bytes=").partition("-")
                start, stop, status = int(first), min(int(last or stop) + 1, stop), 206
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(stop - start))
            self.send_header("Last-Modified", "Mon, 15 Jan 2024 12:00:00 GMT")
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(body)}")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[start:stop])

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=running.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}"
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def entry(
    links: tuple[str, ...], files: dict[str, bytes]
) -> Callable[[str], tuple[str, bytes] | None]:
    """An EMPIAR of one entry whose index page holds any links; unknown names get one file."""
    document = {f"EMPIAR-{ENTRY}": {"title": "t", "imagesets": []}}
    page = "".join(f'<a href="{link}">x</a>\n' for link in links)
    folder = f"/empiar/world_availability/{ENTRY}/data/"

    def answer(path: str) -> tuple[str, bytes] | None:
        if path.startswith("/empiar/api/entry/"):
            return "application/json", json.dumps(document).encode()
        if path == folder:
            return "text/html", f"<html><body>{page}</body></html>".encode()
        name = path.removeprefix(folder)
        if path.startswith(folder) and (name in files or "*" in files):
            return "application/octet-stream", files.get(name) or files["*"]
        return None

    return answer


def bring(samples: Samples, folder: Path, root: str, **settings: object) -> tuple[Bench, Ended]:
    bench = Bench(
        samples, folder, "ebi", entry_id=ENTRY, protocol="https", assemble="files", box=None,
        api_base_url=f"{root}/empiar/api", https_base_url=root, **settings,
    )  # fmt: skip
    return bench, bench.run()


@pytest.fixture
def volume(tmp_path: Path) -> bytes:
    path = tmp_path / "given.mrc"
    write_mrc(path, np.arange(4 * 8 * 8, dtype=np.int16).reshape(4, 8, 8), voxel_nm_zyx=(1, 1, 1))
    return path.read_bytes()


def test_names_of_an_index_page_never_leave_the_destination(
    samples: Samples, tmp_path: Path, volume: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "deep" / "inside"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    with server(entry((*HOSTILE_LINKS, *ODD_LINKS), {"*": volume})) as root:
        bench, ended = bring(samples, place, root)
    assert ended.complete, ended.errors
    assert len(ended.plans) == len(ODD_LINKS) - 1  # a name with a line break is refused
    made = [Path(folder, name) for folder, _, names in os.walk(tmp_path) for name in names]
    assert {p for p in made if place / "data" not in p.parents} == {tmp_path / "given.mrc"}
    names = [path.name for path in made]
    assert not [name for name in names if "\n" in name or "\0" in name or len(name.encode()) > 255]
    folded = [str(path).casefold() for path in made]
    assert len(set(folded)) == len(folded), "two files that a case-blind file system would merge"
    for plan in ended.plans:
        assert bench.problems(plan) == []


def test_a_symbolic_link_among_the_archives_files_is_not_followed_out_of_it(
    samples: Samples, tmp_path: Path
) -> None:
    folder = samples.root / "ftp/empiar/world_availability/99001/data"
    outside = tmp_path / "outside.mrc"
    outside.write_bytes(b"private")
    link = folder / "linked.mrc"
    link.symlink_to(outside)
    try:
        ended = Bench(
            samples, tmp_path, "ebi", entry_id="99001", protocol="ftp", assemble="files", box=None
        ).run(dry_run=True)
    finally:
        link.unlink()
    assert not [plan for plan in ended.plans if "linked" in plan.name]


def test_a_link_in_the_destination_is_not_written_through(samples: Samples, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "data" / "epfl").symlink_to(outside)
    ended = Bench(samples, tmp_path, "epfl").run()
    assert isinstance(ended.error, MacroscopeError)
    assert not list(outside.iterdir())


def test_a_header_that_claims_a_huge_volume_is_refused_before_anything_is_allocated(
    samples: Samples, tmp_path: Path, volume: bytes
) -> None:
    huge = np.array([2**30, 2**30, 2**30], "<i4").tobytes() + volume[12:]
    with measured() as peak, server(entry(("huge.mrc",), {"huge.mrc": huge})) as root:
        _, ended = bring(samples, tmp_path, root)
    assert isinstance(ended.error, FormatError)
    assert peak() < 64 * 2**20


def test_a_compressed_bomb_is_stopped_at_the_size_that_its_header_claims(
    samples: Samples, tmp_path: Path, volume: bytes
) -> None:
    bomb = gzip.compress(volume + bytes(256 * 2**20), 9)
    assert len(bomb) < 2**20
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with measured() as peak, server(entry(("bomb.mrc.gz",), {"bomb.mrc.gz": bomb})) as root:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 2**20, hard))  # of unpacked files
        try:
            _, ended = bring(samples, tmp_path, root)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(ended.error, FormatError)
    assert "unpacks to far more bytes" in str(ended.error)
    assert peak() < 64 * 2**20


ENTITIES = (
    '<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9))
    + ']><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<Image ID="Image:0" Name="&j;"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" '
    'SizeX="8" SizeY="8" SizeZ="4" SizeC="1" SizeT="1"><TiffData/></Pixels></Image></OME>'
)
EXTERNAL = ENTITIES.replace('<!ENTITY a "ha">', '<!ENTITY a SYSTEM "file:///etc/passwd">')


HARMLESS = ENTITIES.replace("&j;", "&a;")
UNUSED = ENTITIES.replace("&j;", "plain")


@pytest.mark.parametrize(
    "xml",
    [ENTITIES, EXTERNAL, HARMLESS, UNUSED],
    ids=["bomb", "external", "one entity", "entities unused"],
)
def test_ome_xml_with_entities_is_refused(xml: str, samples: Samples, tmp_path: Path) -> None:
    (path,) = samples.root.rglob("deflate.ome.tiff")
    image = next(i for i in _images() if i[1].endswith("deflate.ome.tiff"))[0]
    with restored(path):
        tifffile.imwrite(
            path,
            np.zeros((4, 8, 8), np.uint8),
            photometric="minisblack",
            description=xml,
            metadata=None,
        )
        with measured() as peak:
            ended = Bench(samples, tmp_path, "idr", image_ids=[image], protocol="https").run()
    assert isinstance(ended.error, FormatError)
    assert "OME-XML of the file is invalid (DTDForbidden" in str(ended.error)
    assert "root:" not in str(ended.error)
    assert peak() < 64 * 2**20


def _images() -> list[tuple[int, str]]:
    from emulators.omero_documents import OMERO_IMAGES

    return [(image.image_id, image.path) for image in OMERO_IMAGES.values()]


@pytest.mark.parametrize(
    "changed",
    [
        {"shape": [10**9, 10**9, 10**9], "chunks": [1, 1, 1]},
        {"shape": [10**15, 10**15, 10**15]},
        {"chunks": [2**20, 2**20, 2**20]},
        {"shape": [-1, 5, 5]},
        {"chunks": [0, 64, 64]},
    ],
    ids=["many chunks", "huge", "huge chunks", "negative", "empty chunks"],
)
def test_a_zarr_array_of_impossible_size_is_refused(
    changed: dict[str, list[int]], samples: Samples, tmp_path: Path
) -> None:
    assert samples.s3 is not None
    store = samples.s3.store(BUCKET)
    key = "jrc_sample-separator/jrc_sample-separator.zarr/recon-1/em/fibsem-uint8/s0/.zarray"
    before = bytes(obstore.get(store, key).bytes())
    obstore.put(store, key, json.dumps({**json.loads(before), **changed}).encode())
    where = {"dataset_id": "jrc_sample-separator", "zarr_path": "recon-1/em", "scale_level": "s0"}
    try:
        with measured() as peak:
            ended = Bench(samples, tmp_path, "openorganelle", **where).run()
    finally:
        obstore.put(store, key, before)
    assert isinstance(ended.error, MacroscopeError), ended
    assert peak() < 64 * 2**20


# --- secrets --------------------------------------------------------------------------------

PASSWORD, SIGNATURE, SECRET = "pa55-in-the-address", "51gnature-in-the-query", "53cret-key"


def test_no_secret_is_written_down_anywhere(
    samples: Samples, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Logs, records, volumes, errors and the printed forms of settings, of good and bad runs."""
    caplog.set_level(logging.DEBUG)
    control, file = samples.control, samples.endpoints["EPFL"]["download_url"]
    said: list[str] = []
    for place, skipped in (("good", None), ("bad", 4)):
        control.clear()
        signed = f"{file}?X-Amz-Signature={SIGNATURE}"
        control.add("redirect", "epfl", r"volumedata\.tif$", location=signed)
        if skipped is not None:
            control.add("status_503", "epfl", "Signature", skip=skipped)
        ended = Bench(samples, tmp_path / place, "epfl").run()
        assert ended.complete == (skipped is None)
        assert control.faults.fired()["redirect"]
        said += [repr(ended), *map(str, ended.errors), *(repr(e) for e in ended.errors)]
    control.clear()
    control.add("redirect", "epfl", location=f"http://198.51.100.1/x?X-Amz-Signature={SIGNATURE}")
    astray = Bench(samples, tmp_path / "astray", "epfl").run()
    assert "198.51.100.1/x" in str(astray.error)
    said += [repr(astray), str(astray.error)]
    for address in (file.replace("//", f"//user:{PASSWORD}@", 1), signed):
        refused = Bench(samples, tmp_path / "refused", "epfl", download_url=address).run()
        assert isinstance(refused.error, ConfigError)
        said += [repr(refused), str(refused.error)]
    samples.control.clear()
    key = {"s3_key": "AKIAWRONG", "s3_secret": SECRET, "s3_anonymous": False}
    wrong = Bench(samples, tmp_path / "s3", "openorganelle", **key).run()
    settings = StoreSettings(
        endpoint_url="127.0.0.1:9", key=SecretStr("k"), secret=SecretStr(SECRET)
    )
    said += [repr(wrong), *map(str, wrong.errors), repr(settings), settings.model_dump_json()]
    said += [record.getMessage() for record in caplog.records] + [caplog.text]
    said += [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    for secret in (PASSWORD, SIGNATURE, SECRET):
        found = [
            text[max(0, (at := text.find(secret)) - 200) : at + 60]
            for text in said
            if secret in text
        ]
        assert not found, found[:2]
