"""Remote files: few requests to open one, all bytes kept in one pass, nothing past the end."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulators.dm import write_dm
from emulators.tiff import write_imagej_tiff, write_itk_tiff
from lib.archives.epfl import EPFL
from lib.bytesource.remote import HttpBytes
from lib.errors import FormatError, SourceChangedError
from lib.formats.dm.reader import DmReader, open_dm
from lib.formats.tiff.reader import TiffReader, open_tiff
from lib.geometry import Box
from lib.transport.http import RemoteFile
from lib.transport.session import Session

SHAPE = (20, 192, 512)


class Folder:
    """A loopback server of byte ranges, and what it was asked for."""

    def __init__(self, root: Path) -> None:
        self.ranges: list[tuple[int, int]] = []
        self.etag = '"1"'
        folder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                """Tests are quiet."""

            def do_HEAD(self) -> None:
                self._head(200, len((root / self.path[1:]).read_bytes()))

            def do_GET(self) -> None:
                content = (root / self.path[1:]).read_bytes()
                match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
                assert match is not None
                first, last = int(match[1]), int(match[2])
                folder.ranges.append((first, last + 1))
                where = f"bytes {first}-{last}/{len(content)}"
                self._head(206, last + 1 - first, ("Content-Range", where))
                self.wfile.write(content[first : last + 1])

            def _head(self, status: int, length: int, *more: tuple[str, str]) -> None:
                self.send_response(status)
                for key, value in (("Content-Length", str(length)), ("ETag", folder.etag), *more):
                    self.send_header(key, value)
                self.end_headers()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    served = Folder(tmp_path)
    yield served
    served.close()


@pytest.fixture
def session() -> Iterator[Session]:
    with Session("epfl", limits=EPFL.services) as running:
        yield running


def opened(session: Session, folder: Folder, name: str, **options: Any) -> HttpBytes:
    remote = session.http("epfl").head(f"{folder.url}/{name}")
    return HttpBytes(session, "epfl", remote, **options)


def volume() -> Any:
    return np.random.default_rng(8).integers(0, 255, SHAPE, dtype=np.uint8)


@pytest.mark.parametrize(("writer", "requests"), [(write_itk_tiff, 3), (write_imagej_tiff, 2)])
def test_a_tiff_opens_with_few_requests_and_reads_in_ranges(
    tmp_path: Path,
    folder: Folder,
    session: Session,
    writer: Callable[..., None],
    requests: int,
    assert_voxels: Callable[..., None],
) -> None:
    writer(tmp_path / "a.tif", SHAPE, volume())
    found = open_tiff(opened(session, folder, "a.tif"))
    assert len(folder.ranges) <= requests
    folder.ranges.clear()
    reader = TiffReader(found)
    assert_voxels(reader, volume(), boxes=1)
    assert len(folder.ranges) == 1
    assert_voxels(reader, volume(), boxes=4)


def test_what_is_fetched_can_be_kept_in_the_same_pass(
    tmp_path: Path, folder: Folder, session: Session
) -> None:
    write_itk_tiff(tmp_path / "a.tif", SHAPE, volume())
    content = (tmp_path / "a.tif").read_bytes()
    kept = bytearray(len(content))

    def keep(offset: int, view: memoryview) -> None:
        kept[offset : offset + len(view)] = view

    reader = TiffReader(open_tiff(opened(session, folder, "a.tif", tee=keep)))
    for _ in reader.blocks(Box.whole(SHAPE)):
        pass
    assert bytes(kept) == content


def test_a_remote_dm_file(
    tmp_path: Path, folder: Folder, session: Session, assert_voxels: Callable[..., None]
) -> None:
    write_dm(tmp_path / "a.dm4", volume(), version=4, pixel_size_zyx=(1.0, 1.0, 1.0), unit="nm")
    image = open_dm(opened(session, folder, "a.dm4"))
    assert len(folder.ranges) <= 2
    assert_voxels(DmReader(image), volume(), boxes=3)


def test_nothing_is_asked_for_past_the_end(
    tmp_path: Path, folder: Folder, session: Session
) -> None:
    (tmp_path / "a.bin").write_bytes(b"0123456789")
    source = opened(session, folder, "a.bin")
    assert source.read(8, 2) == b"89"
    folder.ranges.clear()
    with pytest.raises(FormatError, match="cut short"):
        source.read(8, 3)
    with pytest.raises(FormatError, match="cut short"):
        list(source.ranges_ordered([(5, 6)]))
    assert folder.ranges == []


# --- slow servers ------------------------------------------------------------------------------


@pytest.mark.parametrize("last_bytes", [None, 20_000])
def test_the_last_ranges_of_a_file_are_small_where_that_is_asked_for(
    last_bytes: int | None, session: Session, folder: Folder, tmp_path: Path
) -> None:
    content = np.random.default_rng(2).bytes(1_000_000)
    (tmp_path / "file").write_bytes(content)
    teed, followed = bytearray(len(content)), list[tuple[int, int]]()

    def tee(offset: int, view: memoryview) -> None:
        teed[offset : offset + len(view)] = view

    source = opened(
        session,
        folder,
        "file",
        tee=tee,
        follow=lambda offset, view: followed.append((offset, len(view))),
        last_bytes=last_bytes,
    )
    wanted = [(at, min(150_000, len(content) - at)) for at in range(0, len(content), 150_000)]
    came = [bytes(view) for view in source.ranges_ordered(wanted)]
    assert came == [content[at : at + length] for at, length in wanted]
    assert (bytes(teed), followed) == (content, wanted)
    asked = sorted(folder.ranges)
    if last_bytes is None:
        assert asked == [(at, at + length) for at, length in wanted]
        return
    assert asked[0] == (0, 150_000)  # far from the end
    lengths = [stop - start for start, stop in asked]
    assert min(lengths) >= last_bytes
    assert lengths[-1] < 2 * last_bytes
    assert [start for start, _ in asked[1:]] == [stop for _, stop in asked[:-1]]


def test_ranges_of_a_file_without_a_known_tag_are_held_against_the_first_answer(
    session: Session, folder: Folder, tmp_path: Path
) -> None:
    """As of a file that only a listing of names and sizes described."""
    (tmp_path / "file").write_bytes(bytes(1000))
    remote = RemoteFile(f"{folder.url}/file", 1000)
    source = HttpBytes(session, "epfl", remote)
    buffer = memoryview(bytearray(10))
    source.read_into(0, buffer)
    source.read_into(500, buffer)
    folder.etag = '"2"'
    with pytest.raises(SourceChangedError):
        source.read_into(700, buffer)
