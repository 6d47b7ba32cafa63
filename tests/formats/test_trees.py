"""What every tree promises, over real servers: absent is proven absent, ranges are exact."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulators.gcs import GcsApp
from lib.archives.address.grammar import parse_address, quoted
from lib.archives.address.places import open_place, open_tree
from lib.bytesource.bucket_tree import GcsTree
from lib.bytesource.tree import Tree, join, normal_key
from lib.config.loader_base import AddressConfig
from lib.errors import (
    AccessDeniedError,
    BadAnswerError,
    FormatError,
    IncompleteTransferError,
    MacroscopeError,
    NotFoundError,
    NotListableError,
    RequestRefusedError,
    SourceChangedError,
)
from lib.ingest.context import open_session
from lib.transport.session import Session
from tests.faults.bench import impatient
from tests.formats.servers import TRANSPORTS, Servers

NAMES = itertools.count()
CONTENT = {
    "a.bin": bytes(range(256)) * 1000,
    "empty": b"",
    "x.zarr/.zattrs": b"{}",
    "x.zarr/s0/0/0/1": b"chunk",
    "x.zarr/s0 copy/50% + a#b?.bin": b"a name to quote",
}


class Reach:
    """A folder with `CONTENT`, published, and the tree that leads there."""

    def __init__(self, servers: Servers, transport: str, content: dict[str, bytes]) -> None:
        name = f"tree-{next(NAMES)}"
        for key, data in content.items():
            path = servers.folder / name / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self.folder = servers.folder / name
        self.address, settings = servers.publish(name, transport)
        quick: dict[str, Any] = {"requests_per_second": 1000.0, "timeout_seconds": 60.0}
        self.config = AddressConfig(addresses=[self.address], **quick, **settings)
        self.session: Session = open_session(self.config, "address", scratch_dir=None)
        self.tree: Tree
        self.tree, self.root = open_tree(parse_address(self.address), self.config, self.session)

    def key(self, inner: str) -> str:
        return join(self.root, inner)


@pytest.fixture(params=TRANSPORTS)
def reach(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Reach]:
    one = Reach(servers, request.param, CONTENT)
    yield one
    one.session.close()


def test_an_object_comes_whole_and_in_ranges(reach: Reach) -> None:
    for key, data in CONTENT.items():
        assert bytes(reach.tree.get(reach.key(key)) or b"") == data, key
        info = reach.tree.head(reach.key(key))
        assert info is not None
        assert info.size == len(data)
    found = reach.tree.get_range(reach.key("a.bin"), 1000, 77)
    assert bytes(found or b"") == CONTENT["a.bin"][1000:1077]


def test_what_is_absent_is_none_and_not_an_error(reach: Reach) -> None:
    for key in ("b.bin", "x.zarr/s0/0/0/2", "no/such/folder/0"):
        assert reach.tree.get(reach.key(key)) is None
        assert reach.tree.get_range(reach.key(key), 0, 1) is None
        assert reach.tree.head(reach.key(key)) is None
        assert reach.tree.look(reach.key(key)) is None
        with pytest.raises(NotFoundError):
            reach.tree.source(reach.key(key))


def test_a_folder_is_no_object(reach: Reach) -> None:
    assert reach.tree.look(reach.key("x.zarr/s0")) is None


def test_a_listing_shows_one_level_or_all(reach: Reach) -> None:
    listing = reach.tree.list(reach.root)
    assert {one.key for one in listing.objects} == {reach.key("a.bin"), reach.key("empty")}
    assert listing.prefixes == (reach.key("x.zarr"),)
    inner = reach.tree.list(reach.key("x.zarr"))
    assert set(inner.prefixes) == {reach.key("x.zarr/s0"), reach.key("x.zarr/s0 copy")}
    found = {one.key: one.size for one in reach.tree.list_all(reach.root)}
    assert set(found) == {reach.key(key) for key in CONTENT}
    sizes = {reach.key(key): len(data) for key, data in CONTENT.items()}
    assert all(size in (None, sizes[key]) for key, size in found.items())
    # a prefix is a folder, never the beginning of a name
    only = {one.key for one in reach.tree.list_all(reach.key("x.zarr/s0"))}
    assert only == {reach.key("x.zarr/s0/0/0/1")}


def test_a_source_gives_exact_ranges_in_order(reach: Reach) -> None:
    data = CONTENT["a.bin"]
    source = reach.tree.source(reach.key("a.bin"))
    try:
        assert source.size == len(data)
        assert source.read(5, 10) == data[5:15]
        wanted = [(0, 7), (200_000, 1000), (3, 0), (len(data) - 1, 1)]
        views = [bytes(view) for view in source.ranges_ordered(wanted)]
        assert views == [data[start : start + length] for start, length in wanted]
        with pytest.raises(FormatError):
            source.read(len(data), 1)
    finally:
        source.close()


def test_more_than_the_caller_can_use_is_refused(reach: Reach) -> None:
    with pytest.raises(BadAnswerError):
        reach.tree.get(reach.key("a.bin"), 1000)


def test_jobs_run_in_order(reach: Reach) -> None:
    jobs = [lambda n=n: n for n in range(20)]  # type: ignore[misc]
    assert [*reach.tree.ordered(jobs)] == list(range(20))


@pytest.mark.parametrize("transport", ["file", "http", "gs", "ftp"])
def test_a_file_that_is_replaced_is_another_one(servers: Servers, transport: str) -> None:
    one = Reach(servers, transport, CONTENT)
    key = one.key("a.bin")
    source = one.tree.source(key)
    known = one.tree.head(key)
    for path in {one.folder / "a.bin", *servers.gcs.folder.glob(f"*/{one.folder.name}/a.bin")}:
        path.write_bytes(CONTENT["a.bin"][::-1][:-1])
    if transport != "ftp":  # which has nothing to tie two transfers to one version
        with pytest.raises((SourceChangedError, FormatError)):
            one.tree.source(key, known).read(0, 10) if transport == "file" else source.read(0, 10)
    assert one.tree.head(key) != known
    one.session.close()


def test_a_refusal_is_no_absence(servers: Servers) -> None:
    for rule in ("status_403", "status_500"):
        with impatient():
            one = Reach(servers, "http", CONTENT)
        servers.control.add(rule, "mirror", "x.zarr")
        try:
            for ask in (one.tree.get, one.tree.head, one.tree.look):
                with pytest.raises(MacroscopeError) as caught:
                    ask(one.key("x.zarr/s0/0/0/1"))
                assert not isinstance(caught.value, NotFoundError)
        finally:
            servers.control.clear()
            one.session.close()


def test_keys_that_lead_out_are_refused(servers: Servers) -> None:
    one = Reach(servers, "file", CONTENT)
    with pytest.raises(FormatError):
        one.tree.get(f"{one.root}/../../etc/passwd")
    assert normal_key("a/b", "../c/d") == "a/c/d"
    assert normal_key("a/b", "c") == "a/b/c"
    for relative in ("../../../x", "https://elsewhere/x", "a\0b"):
        with pytest.raises(FormatError):
            normal_key("a/b", relative)


def test_a_place_is_a_file_or_a_folder(reach: Reach) -> None:
    for text, is_file in ((f"{reach.address}a.bin", True), (f"{reach.address}x.zarr", False)):
        place = open_place(parse_address(text), reach.config, reach.session)
        assert (place.info is not None) == is_file


# --- Google Cloud Storage ---------------------------------------------------------------------


@pytest.fixture
def gcs(servers: Servers) -> Iterator[tuple[GcsApp, GcsTree]]:
    one = Reach(servers, "gs", CONTENT)
    app = servers.gcs
    assert isinstance(one.tree, GcsTree)
    yield app, one.tree
    app.unlisted.clear()
    app.requester_pays.clear()
    one.session.close()


def test_a_listing_is_read_past_an_empty_page(gcs: tuple[GcsApp, GcsTree]) -> None:
    app, tree = gcs
    for number in range(130):  # three pages, and an empty one before them
        app.put("conformance", f"many/{number:03d}", b"x")
    infos = [*tree.list_all("many")]
    assert [one.key for one in infos] == [f"many/{n:03d}" for n in range(130)]
    assert all(one.size == 1 and one.etag and one.checksum for one in infos)


def test_what_is_stored_compressed_is_unpacked_and_proven(gcs: tuple[GcsApp, GcsTree]) -> None:
    app, tree = gcs
    app.put("conformance", "packed", b"chunk " * 9000, "gzip")
    assert tree.get("packed") == b"chunk " * 9000
    assert tree.get_range("packed", 6, 5) == b"chunk"
    assert tree.source("packed").read(6, 5) == b"chunk"
    with pytest.raises(BadAnswerError):
        tree.get("packed", 5000)
    path = app.folder / "conformance/packed"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FormatError, match="cut short"):
        tree.get("packed")


def test_bytes_that_do_not_fit_the_digest_are_not_believed(gcs: tuple[GcsApp, GcsTree]) -> None:
    app, tree = gcs
    app.put("conformance", "wrong", b"chunk")
    app.damage["conformance/wrong"] = 2
    with pytest.raises(IncompleteTransferError, match="crc32c"):
        tree.get("wrong")
    app.damage.clear()
    assert tree.get("wrong") == b"chunk"


def test_a_bucket_may_be_read_and_not_listed(gcs: tuple[GcsApp, GcsTree]) -> None:
    app, tree = gcs
    app.put("conformance", "shown", b"1")
    app.unlisted.add("conformance")
    assert tree.get("shown") == b"1"
    with pytest.raises(NotListableError):
        tree.list("")
    with pytest.raises(NotListableError):
        [*tree.list_all("")]
    with pytest.raises(AccessDeniedError, match="not there"):
        tree.get("absent")  # 403 says nothing of absence


def test_a_bucket_whose_readers_pay_is_refused_by_name(gcs: tuple[GcsApp, GcsTree]) -> None:
    app, tree = gcs
    app.put("conformance", "shown", b"1")
    app.requester_pays.add("conformance")
    for ask in (tree.get, tree.head, tree.look):  # an answer to HEAD has no body to say it in
        with pytest.raises(RequestRefusedError, match="lets those pay"):
            ask("shown")
    with pytest.raises(RequestRefusedError, match="requester pays"):
        tree.list("")


def test_a_bucket_that_is_not_there_is_no_absence(
    gcs: tuple[GcsApp, GcsTree], servers: Servers
) -> None:
    config = AddressConfig(gs_endpoint_url=Reach(servers, "gs", CONTENT).config.gs_endpoint_url)
    with open_session(config, "address", scratch_dir=None) as session:
        tree, _ = open_tree(parse_address("gs://no-such-bucket/x"), config, session)
        for ask in (tree.get, tree.list):
            with pytest.raises(NotFoundError, match="no such bucket"):
                ask("x")


def test_names_of_a_bucket_are_names_whatever_they_hold(
    gcs: tuple[GcsApp, GcsTree], servers: Servers
) -> None:
    app, tree = gcs
    names = ("a b", "50%25", "a#1", "a?x=1", "a+b&c", "größe", "%7Ca", "a|b")
    for number, name in enumerate(names):
        app.put("conformance", f"names/{name}/x", bytes([number]))
        assert tree.get(f"names/{name}/x") == bytes([number])
        address = parse_address(f"gs://conformance/names/{quoted(name, 'gs://conformance')}")
        assert address.path == f"names/{name}"
        assert [one.key for one in tree.list(address.path).objects] == [f"names/{name}/x"]


def test_a_generation_that_is_gone_is_a_changed_source(gcs: tuple[GcsApp, GcsTree]) -> None:
    app, tree = gcs
    app.put("conformance", "replaced", bytes(300_000))
    source = tree.source("replaced")
    assert source.read(0, 5) == bytes(5)
    app.put("conformance", "replaced", b"1" * 300_000)
    with pytest.raises(SourceChangedError):
        source.read(200_000, 5)
    with pytest.raises(SourceChangedError):
        source.read_into(0, memoryview(bytearray(5)))


def test_a_file_of_the_disk_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    config = AddressConfig()
    with open_session(config, "address", scratch_dir=None) as session:
        place = open_place(parse_address(str(tmp_path / "a")), config, session)
        assert place.info is not None
        assert place.tree.list(f"{place.root}/b").objects == ()
