"""FTP: sizes hold whatever the server says, names survive, and one connection does for all."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emulators.control import Control
from emulators.ftp import FtpSide
from lib.concurrency import cancel as stopping
from lib.errors import (
    AccessDeniedError,
    ConfigError,
    IncompleteTransferError,
    MacroscopeError,
    NotFoundError,
    RequestRefusedError,
    SourceChangedError,
    StoppedError,
    TransportError,
)
from lib.transport.ftp import FtpClient, FtpEntry
from lib.transport.ftp_wire import parse_list, parse_mlsd, parse_time
from lib.transport.limits import Limits
from lib.transport.session import Session

QUICK = Limits(2, None, 20.0, 30.0, 3, 0.005, 64 * 1024)
# For what waits until it ends; a busy machine may let it end once more, and is tried again.
STALLED = replace(QUICK, read_timeout_s=1.0, tries=10)
DATA = bytes(range(256)) * 4096  # 1 MiB
FOLDER = "/empiar/data"
FILE = f"{FOLDER}/slice_0000.dm3"
ODD = " two  spaces -> ü.dm3"


class Served:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.control = Control()
        self.side = FtpSide(root, self.control)
        self.side.start()
        self.address = f"127.0.0.1:{self.side.port}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("ftp")
    folder = root / FOLDER.lstrip("/")
    (folder / "nested").mkdir(parents=True)
    (folder / "slice_0000.dm3").write_bytes(DATA)
    (folder / ODD).write_bytes(b"odd")
    (folder / "empty").write_bytes(b"")
    os.utime(folder / "slice_0000.dm3", (1528748810, 1528748810))
    served = Served(root)
    yield served
    served.side.stop()


@pytest.fixture
def session(control: Control, request: pytest.FixtureRequest) -> Iterator[Session]:
    limits = STALLED if "stall" in request.node.name else QUICK
    with Session("ebi", limits={"ebi-ftp": limits}) as session:
        yield session


@pytest.fixture
def client(session: Session, served: Served) -> FtpClient:
    return session.ftp("ebi-ftp", served.address)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def commands(control: Control, name: str) -> int:
    return sum(line.method == name for line in control.counters.log("ftp"))


# --- listings -------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [{"MLST", "MLSD"}, set()], ids=["MLSD", "LIST"])
def test_entries_tell_files_folders_and_sizes(client: FtpClient, words: set[str]) -> None:
    client._features = frozenset(words)
    found = {entry.name: (entry.is_dir, entry.size) for entry in client.entries(FOLDER)}
    if not words:  # LIST cannot tell this name from a symbolic link's arrow; it is a plain file
        assert ODD in found
    assert found == {
        "slice_0000.dm3": (False, len(DATA)),
        ODD: (False, 3),
        "empty": (False, 0),
        "nested": (True, None),
    }


def test_a_server_with_neither_mlsd_nor_unix_listings_is_listed_by_names(
    client: FtpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client._features = frozenset()
    monkeypatch.setattr("lib.transport.ftp.parse_list", lambda lines: None)
    found = {entry.name: (entry.is_dir, entry.size) for entry in client.entries(FOLDER)}
    assert found == {
        "slice_0000.dm3": (False, len(DATA)),
        ODD: (False, 3),
        "empty": (False, 0),
        "nested": (True, None),
    }


def test_features_are_asked_for(client: FtpClient, control: Control) -> None:
    client.entries(FOLDER)
    assert commands(control, "MLSD") == 1


def test_unix_lines_keep_their_names() -> None:
    lines = [
        "total 12",
        "drwxr-xr-x    2 ftp      ftp          4096 Jun 11  2018 trakem2.15.98",
        "-rw-rw-r--    1 1006     993      30395520 Jan 15 10:02  leading and  double.dm3",
        "lrwxrwxrwx    1 ftp      ftp             9 Jan 15 10:02 link -> target",
    ]
    assert parse_list(lines) == [
        FtpEntry("trakem2.15.98", True),
        FtpEntry(" leading and  double.dm3", False, 30395520),
        FtpEntry("link", False),
    ]
    assert parse_list(["06-11-18  10:27PM       <DIR>          data"]) is None


def test_mlsd_lines_keep_their_names() -> None:
    lines = [
        "type=cdir;modify=20180611222716; .",
        "Type=file;Size=7;Modify=20180611222716.123;UNIX.mode=0644;  a; b=c",
        "type=OS.unix=slink:/etc/passwd; link",
    ]
    assert parse_mlsd(lines) == [
        FtpEntry(" a; b=c", False, 7, "2018-06-11T22:27:16Z"),
        FtpEntry("link", False),
    ]


def test_times_that_are_none_are_none() -> None:
    assert parse_time("yesterday") is None


# --- sizes and dates ------------------------------------------------------------------------


def test_size_and_date(client: FtpClient) -> None:
    assert client.size(FILE) == len(DATA)
    assert client.modified(FILE) == "2018-06-11T20:26:50Z"


def test_size_comes_from_the_listing_where_the_server_refuses_it(
    client: FtpClient, control: Control
) -> None:
    control.add("size_refused", "ftp")
    assert client.size(FILE) == len(DATA)


@pytest.mark.parametrize("path", [f"{FOLDER}/absent", "/absent/x", f"{FOLDER}/nested"])
def test_what_is_no_file_is_not_found_and_not_asked_for_again(
    client: FtpClient, control: Control, path: str
) -> None:
    with pytest.raises(NotFoundError) as caught:
        client.size(path)
    assert path in str(caught.value)
    assert commands(control, "SIZE") == 1


def test_a_path_cannot_smuggle_a_command(client: FtpClient) -> None:
    with pytest.raises(RequestRefusedError, match="control character"):
        client.size("/x\r\nDELE /empiar")


# --- downloads ------------------------------------------------------------------------------


def test_a_download_is_whole_and_hashed(client: FtpClient, tmp_path: Path, each_block: Any) -> None:
    counted: list[int] = []
    each_block(counted.append)
    fetched = client.download(FILE, tmp_path / "new" / "s.dm3")
    assert fetched.path.read_bytes() == DATA
    assert (fetched.size, fetched.sha256, sum(counted)) == (len(DATA), sha(DATA), len(DATA))
    assert fetched.last_modified == "2018-06-11T20:26:50Z"
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["s.dm3"]


def test_odd_names_and_empty_files_are_downloaded(client: FtpClient, tmp_path: Path) -> None:
    assert client.download(f"{FOLDER}/{ODD}", tmp_path / "odd").sha256 == sha(b"odd")
    assert client.download(f"{FOLDER}/empty", tmp_path / "empty").size == 0


@pytest.mark.parametrize(("start", "length"), [(0, 100), (70_001, 400_000), (len(DATA) - 9, 9)])
def test_a_range_fills_exactly_the_buffer(client: FtpClient, start: int, length: int) -> None:
    for _ in range(2):  # the connection is fit for use after a transfer that was broken off
        buffer = bytearray(length)
        client.read_range_into(FILE, start, memoryview(buffer))
        assert buffer == DATA[start : start + length]


def test_a_range_past_the_end_is_incomplete(client: FtpClient) -> None:
    with pytest.raises(IncompleteTransferError):
        client.read_range_into(FILE, len(DATA) - 9, memoryview(bytearray(10)))


def test_one_connection_serves_all_files(
    client: FtpClient, control: Control, tmp_path: Path
) -> None:
    client.entries(FOLDER)
    for number in range(3):
        client.download(FILE, tmp_path / str(number))
    assert commands(control, "PASS") == 1


@pytest.mark.parametrize("kind", ["cut_226", "cut_426", "stall"])
def test_a_cut_transfer_goes_on_where_it_was(
    client: FtpClient, control: Control, tmp_path: Path, kind: str
) -> None:
    control.add(kind, "ftp", first_n=2, after_bytes=300_000)
    assert client.download(FILE, tmp_path / "s").sha256 == sha(DATA)
    assert (tmp_path / "s").read_bytes() == DATA
    assert control.faults.fired() == {kind: 2}
    goes_on = commands(control, "REST")
    assert goes_on == 2 or (kind == "stall" and goes_on > 2)


@pytest.mark.parametrize(
    "kind", ["greeting_reset", "reply_421", "reply_425", "login_incorrect", "epsv_for_pasv"]
)
def test_a_passing_fault_is_overcome(
    client: FtpClient, control: Control, tmp_path: Path, kind: str
) -> None:
    control.add(kind, "ftp", first_n=1)
    assert client.download(FILE, tmp_path / "s").sha256 == sha(DATA)


@pytest.mark.parametrize("kind", ["private_pasv", "epsv_for_pasv"])
def test_strange_passive_replies_are_overcome_even_if_they_last(
    client: FtpClient, control: Control, tmp_path: Path, kind: str
) -> None:
    control.add(kind, "ftp")
    assert client.download(FILE, tmp_path / "s").sha256 == sha(DATA)


def test_a_server_without_rest_starts_over(
    client: FtpClient, control: Control, tmp_path: Path
) -> None:
    control.add("cut_426", "ftp", first_n=1, after_bytes=300_000)
    control.add("rest_refused", "ftp")
    assert client.download(FILE, tmp_path / "s").sha256 == sha(DATA)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("cut_226", IncompleteTransferError),
        ("cut_426", TransportError),
        ("reply_421", TransportError),
        ("login_incorrect", AccessDeniedError),
        ("reply_550", NotFoundError),
    ],
)
def test_a_lasting_fault_ends_in_a_named_error_and_no_file(
    client: FtpClient,
    control: Control,
    tmp_path: Path,
    kind: str,
    error: type[MacroscopeError],
) -> None:
    control.add(kind, "ftp", after_bytes=1000)
    with pytest.raises(error) as caught:
        client.download(FILE, tmp_path / "s")
    assert not (tmp_path / "s").exists()
    assert caught.value.archive == "ebi"
    assert FILE in str(caught.value)


def test_login_is_tried_twice_only(client: FtpClient, control: Control) -> None:
    control.add("login_incorrect", "ftp")
    with pytest.raises(AccessDeniedError):
        client.entries(FOLDER)
    assert commands(control, "PASS") == 2


def leave_part(served: Served, path: Path) -> int:
    served.control.add("cut_426", "ftp", after_bytes=400_000)
    with (
        Session("ebi", limits={"ebi-ftp": Limits(2, tries=1)}) as session,
        pytest.raises(TransportError),
    ):
        session.ftp("ebi-ftp", served.address).download(FILE, path)
    served.control.clear()
    size = path.with_name(path.name + ".partial").stat().st_size
    assert 0 < size < len(DATA)
    return size


def test_a_later_run_goes_on_and_hashes_what_was_there(
    client: FtpClient, served: Served, control: Control, tmp_path: Path, each_block: Any
) -> None:
    size = leave_part(served, tmp_path / "s")
    received: list[int] = []
    each_block(received.append)
    assert client.download(FILE, tmp_path / "s").sha256 == sha(DATA)
    assert sum(received) == len(DATA) - size


def test_a_later_run_discards_the_part_of_an_older_file(
    client: FtpClient, served: Served, tmp_path: Path
) -> None:
    leave_part(served, tmp_path / "s")
    changed = served.root / FILE.lstrip("/")
    try:
        changed.write_bytes(DATA[::-1])
        assert client.download(FILE, tmp_path / "s").sha256 == sha(DATA[::-1])
    finally:
        changed.write_bytes(DATA)
        os.utime(changed, (1528748810, 1528748810))


def test_a_file_that_changes_under_the_download_is_not_mixed(
    client: FtpClient, served: Served, control: Control, tmp_path: Path, each_block: Any
) -> None:
    changed = served.root / FILE.lstrip("/")
    control.add("cut_426", "ftp", first_n=1, after_bytes=300_000)

    def change(count: int) -> None:
        changed.write_bytes(DATA + b"more")

    try:
        each_block(change)
        with pytest.raises(SourceChangedError):
            client.download(FILE, tmp_path / "s")
        assert list(tmp_path.iterdir()) == []
    finally:
        changed.write_bytes(DATA)
        os.utime(changed, (1528748810, 1528748810))


# --- manners --------------------------------------------------------------------------------


def test_connections_stay_under_the_limit_and_are_given_back(
    served: Served, control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib.transport.ftp._IDLE_S", 0.05)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            session = Session(f"archive-{number}", limits={"ebi-ftp": QUICK})
            session.ftp("ebi-ftp", served.address).download(FILE, tmp_path / str(number))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert control.counters.tally("ftp").peak <= 2
    assert all((tmp_path / str(number)).read_bytes() == DATA for number in range(6))


def test_a_stop_wakes_a_transfer_that_waits(
    served: Served, control: Control, tmp_path: Path
) -> None:
    control.add("stall", "ftp", seconds=3600)
    threading.Timer(0.3, stopping.request_stop).start()
    limits = {"ebi-ftp": Limits(2, None, 20.0, 3600.0)}
    try:
        with Session("ebi", limits=limits) as session, pytest.raises(StoppedError):
            session.ftp("ebi-ftp", served.address).download(FILE, tmp_path / "s")
    finally:
        stopping.reset()


@pytest.mark.parametrize("address", ["", "host:", "host:0", "host:x", ":21"])
def test_a_wrong_address_is_a_wrong_setting(session: Session, address: str) -> None:
    with pytest.raises(ConfigError):
        session.ftp("ebi-ftp", address)
