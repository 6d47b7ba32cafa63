"""A writer whose lease is over changes nothing: not by what it does next, nor by what is under way.

Against two real servers: SeaweedFS, and moto, which looks at no signature's end. What is on its way
is held at a gate before the server, and let through when another run has long taken over.
"""

from __future__ import annotations

import asyncio
import mmap
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs

import pytest
from starlette.types import Receive, Scope, Send

from emulators.control import Control
from emulators.http_side import HttpSide
from emulators.s3_proxy import S3Proxy
from lib.errors import AlreadyExistsError, DestinationBusyError, RecordError
from lib.records.manager import MetadataManager
from lib.storage import base, s3_lease
from lib.storage.base import StoreSettings
from lib.storage.keys import byte_views, lock_key
from lib.storage.s3 import S3Store
from lib.storage.s3_objects import access_of, endpoint_of
from lib.transport.s3.address import aws_session

VOLUME, TREE = "ebi/x", "ebi/x.ome.zarr"
PAUSED_S = 2.0  # the lease of a paused run
SHARD, ROOT, SUMS = f"{TREE}/0/c/0/0/0", f"{TREE}/zarr.json", f"{TREE}.SHA256SUMS"
Write = Callable[[S3Store], Any]


class Held:
    """Requests that match wait here, whole, until they are let go."""

    def __init__(self, upstream: str) -> None:
        self._proxy = S3Proxy(upstream)
        self.match = ""
        self.ends: list[datetime] = []
        self.lasting: list[int] = []  # seconds for which each signature is good
        self._go = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = f"{scope['method']} {scope['path']}?{scope['query_string'].decode()}"
        if not (self.match and re.search(self.match, asked)):
            return await self._proxy(scope, receive, send)
        messages = [await receive()]
        while messages[-1].get("more_body"):
            messages.append(await receive())
        given = parse_qs(scope["query_string"].decode())
        signed = datetime.strptime(given["X-Amz-Date"][0], "%Y%m%dT%H%M%S%z")
        self.lasting.append(int(given["X-Amz-Expires"][0]))
        self.ends.append(signed + timedelta(seconds=self.lasting[-1]))
        while not self._go.is_set():
            await asyncio.sleep(0.01)

        async def again() -> Any:
            return messages.pop(0)

        return await self._proxy(scope, again, send)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._go.set()  # a test that fails does not wait for what it holds

    def wait(self, number: int = 1) -> None:
        """Until so many are held."""
        for _ in range(6000):
            if len(self.ends) >= number:
                return
            time.sleep(0.01)
        raise AssertionError(f"{len(self.ends)} requests came")

    def let_go(self) -> None:
        """When the signatures of what is held have ended, as they have for anything that late."""
        time.sleep(max(0.0, (max(self.ends) - datetime.now(UTC)).total_seconds() + 1))
        self._go.set()

    def let_go_now(self) -> None:
        self._go.set()

    async def close(self) -> None:
        self._go.set()
        await self._proxy.close()


class Place:
    """A bucket, with a straight way and one through a gate."""

    def __init__(self, endpoint: str, key: str, secret: str) -> None:
        self.side = HttpSide(Control())
        self.side.start()
        self.gate = Held(endpoint)
        self.side.at_end(self.gate.close)
        port = self.side.add("destination", self.gate)
        self._given = {"key": key, "secret": secret, "attempts": 1}
        self.lease_seconds = 60.0  # a busy machine must not end it
        self._ways = {"straight": endpoint, "gate": f"http://127.0.0.1:{port}"}
        self.uri = f"s3://volumes/{time.monotonic_ns()}"

    def store(self, way: str = "straight", **more: Any) -> S3Store:
        given = {**self._given, "lease_seconds": self.lease_seconds, **more}
        given["endpoint_url"] = self._ways[way]
        return S3Store(self.uri, StoreSettings(**given))


@pytest.fixture
def places(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Place]]:
    # The holder of another host: whether its process lives is not known here.
    monkeypatch.setattr(s3_lease, "process_identity", lambda pid: None)
    made: list[Place] = []

    def make(server: str) -> Place:
        if server == "moto":
            made.append(Place(request.getfixturevalue("moto"), "k", "s"))
        else:
            given = request.getfixturevalue("destination")
            made.append(Place(given.server.endpoint_url, given.key, given.secret))
        return made[-1]

    yield make
    for place in made:
        place.side.stop()


@pytest.fixture(params=["seaweedfs", "moto"])
def place(request: pytest.FixtureRequest, places: Callable[[str], Place]) -> Place:
    return places(request.param)


def content(store: S3Store) -> dict[str, bytes]:
    return {item.key: store.get(item.key) for item in store.list()}


def paused(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> s3_lease.Lease:
    """A lease that is taken and never renewed, as by a process that was paused."""
    with monkeypatch.context() as patch:
        patch.setattr(s3_lease.Lease, "_beat", lambda self: None)
        lease = store.lock(VOLUME, "paused run")
        lease.__enter__()
    assert isinstance(lease, s3_lease.Lease)
    return lease


def make_volume(store: S3Store, what: bytes) -> None:
    """What a run does: it discards what is there, then writes its own."""
    store.delete_tree(TREE)
    for key in (SHARD, f"{TREE}/0/c/0/0/1", f"{TREE}/0/zarr.json", ROOT, SUMS):
        store.put(key, what)


CHANGES: dict[str, Write] = {
    "a shard": lambda store: store.put(SHARD, b"stale"),
    "the root document": lambda store: store.put(ROOT, b"stale"),
    "a draft": lambda store: store.draft(SHARD).commit(),
    "a creation": lambda store: store.put("ebi/new", b"stale", create=True),
    "a delete": lambda store: store.delete(ROOT),
    "a discard": lambda store: store.delete_tree(TREE),
    "the ledger's end": lambda store: store.delete_tree("ebi/.partial/x"),
    "a sweep": lambda store: store.sweep_temporaries(TREE),
    "a record": lambda store: MetadataManager(store).begin("ebi", "1", "x"),
}


def test_nothing_is_changed_once_the_lease_is_over(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = place.store(lease_seconds=1.0)
    paused(stale, monkeypatch)
    place.store().put("ebi/.partial/x/job.json", b"stale")
    client = aws_session(access_of(stale.settings)).client(
        "s3", endpoint_url=endpoint_of(stale.settings), region_name="us-east-1"
    )
    prefix = place.uri.removeprefix("s3://volumes/")
    client.create_multipart_upload(Bucket="volumes", Key=f"{prefix}/{SHARD}")
    client.close()
    taker = place.store()
    with taker.lock(VOLUME, "next run"):
        make_volume(taker, b"right")
        before = content(taker)
        for what, change in CHANGES.items():
            with pytest.raises(DestinationBusyError, match="the lease on ebi/x is over"):
                change(stale)
            assert content(taker) == before, what
    assert taker.sweep_temporaries(TREE) == 1  # nor was the other run's upload aborted


def test_a_writer_that_nobody_took_over_from_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a laptop's sleep: the term has passed, the lease is still the same object."""
    store = place.store()
    lease = paused(store, monkeypatch)
    real = base.clock
    monkeypatch.setattr(s3_lease, "clock", lambda: real() + 3600)
    store.put(SHARD, b"1")
    assert lease.left() > 0
    lease.__exit__(None, None, None)
    assert content(place.store()) == {SHARD: b"1"}


def stale_replace(store: S3Store) -> None:
    found = store.get_versioned("ebi/metadata_x.json")
    store.put("ebi/metadata_x.json", b"stale", replaces=found.version)


def test_a_run_paused_while_it_takes_its_lease_does_not_blame_the_server(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run has had the lease meanwhile and has ended: there is none any more."""
    stale, taker = place.store(), place.store()
    real, clock = s3_lease.Lease._require_conditions, base.clock

    def later(self: s3_lease.Lease) -> None:
        taker._writes.delete_each(taker._objects.listing("ebi/.locks"))
        monkeypatch.setattr(s3_lease, "clock", lambda: clock() + 3600)
        real(self)

    monkeypatch.setattr(s3_lease.Lease, "_require_conditions", later)
    with pytest.raises(DestinationBusyError, match="worked on by another run"):
        stale.lock(VOLUME, "paused run").__enter__()
    assert taker._objects.listing("") == []


IN_FLIGHT: dict[str, Write] = {
    "PUT .*/0/c/0/0/0": lambda store: store.put(SHARD, b"stale"),
    "PUT .*/0/zarr.json": lambda store: store.put(f"{TREE}/0/zarr.json", b"stale"),
    "PUT .*x.ome.zarr/zarr.json": lambda store: store.put(ROOT, b"stale"),
    "PUT .*SHA256SUMS": lambda store: store.put(SUMS, b"stale"),
    "PUT .*/metadata_x": stale_replace,
}
DISCARD: dict[str, Write] = {"(DELETE|POST) ": lambda store: store.delete_tree(TREE)}
FOREIGN: dict[str, Write] = {
    "PUT .*/0/c/7/7/7": lambda store: store.put(f"{TREE}/0/c/7/7/7", b"stale")
}


@pytest.mark.parametrize("then", ["right", "old"])
@pytest.mark.parametrize("server", ["seaweedfs", "moto"])
def test_what_is_under_way_when_another_run_takes_over_changes_nothing(
    server: str, then: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`then`: the next run makes other bytes than there were, or the very same as there were.

    moto looks at no signature's end. There a delete cannot tell the old from the same again, and
    nothing can tell that a shard is one that the next run does not have.
    """
    place = request.getfixturevalue("places")(server)
    writes = {**IN_FLIGHT, **DISCARD, **FOREIGN}
    if server == "moto":
        writes = {**IN_FLIGHT, **(DISCARD if then == "right" else {})}
    before = place.store()
    make_volume(before, b"old")
    before.put("ebi/metadata_x.json", b"old record")
    stale = place.store("gate", lease_seconds=PAUSED_S)
    lease = paused(stale, monkeypatch)
    place.gate.match = "|".join(writes)
    taker = place.store()
    with ThreadPoolExecutor(len(writes)) as pool, place.gate:
        flying = []
        with monkeypatch.context() as patch:  # so that each is sent, however busy the machine
            patch.setattr(lease, "left", lambda: PAUSED_S)
            for number, write in enumerate(writes.values(), start=1):
                flying.append(pool.submit(write, stale))
                place.gate.wait(number)
        with taker.lock(VOLUME, "next run"):
            make_volume(taker, then.encode())
            record = taker.get_versioned("ebi/metadata_x.json")
            taker.put("ebi/metadata_x.json", b"new record", replaces=record.version)
            complete = content(taker)
            assert max(place.gate.lasting) <= PAUSED_S + 1
            place.gate.let_go()
            for what, one in zip(writes, flying, strict=True):
                with pytest.raises((DestinationBusyError, AlreadyExistsError)):
                    print(what, one.result(60))
    assert content(taker) == complete


def test_a_shard_that_lands_before_ours_is_replaced(place: Place) -> None:
    place.store().put(SHARD, b"stale")
    taker = place.store()
    with taker.lock(VOLUME, "next run"):
        taker.put(SHARD, b"right")
    assert taker.get(SHARD) == b"right"


@pytest.mark.parametrize("parts_above", [2**29, 5 * 2**20])
def test_a_buffer_is_free_when_its_write_has_ended_in_whichever_way(
    place: Place, parts_above: int, tmp_path: Path
) -> None:
    """A mapped file can be closed; a shard's bytes do not wait for the garbage collector."""
    path = tmp_path / "raw"
    path.write_bytes(bytes(6 * 2**20))
    place.store().put("ebi/raw/x", b"of an earlier run")
    store = place.store(multipart_above=parts_above)
    with store.lock(VOLUME, "this run"), path.open("rb") as file:
        with mapped(file) as view:
            store.put("ebi/raw/x", view)  # refused at first, being there already
        with pytest.raises(AlreadyExistsError), mapped(file) as view:
            store.put("ebi/raw/x", view, create=True)
    assert place.store().size("ebi/raw/x") == 6 * 2**20


@contextmanager
def mapped(file: BinaryIO) -> Iterator[memoryview]:
    """The bytes of a file; its end is an error where somebody still holds some of them."""
    content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with content, memoryview(content) as view:
        yield view


def test_a_half_sent_shard_is_never_completed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease ends while the body is on its way: its last pieces are not sent."""
    store = place.store()
    lease = paused(store, monkeypatch)
    asked = 0

    def left() -> float:
        nonlocal asked
        asked += 1
        return 1.0 if asked < 4 else 0.0

    monkeypatch.setattr(lease, "left", left)
    with pytest.raises(DestinationBusyError):
        store.put(SHARD, bytes(2**21))
    assert asked == 4
    assert content(place.store()) == {}


@pytest.mark.parametrize("size", [3, 2**20])
def test_a_request_begins_when_the_first_piece_of_its_body_is_sent(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Whoever is paused before that begins late, and is refused for it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = StoreSettings(
            endpoint_url=f"127.0.0.1:{server.getsockname()[1]}", key="k", secret="s", attempts=1
        )
        store = S3Store("s3://volumes", settings)
        began: list[bool] = []
        connections: list[socket.socket] = []

        def left(location: str) -> float:
            if select.select([server], [], [], 0)[0]:
                connections.append(server.accept()[0])
            began.append(bool(select.select(connections, [], [], 0)[0]))
            if len(began) == 2:  # once before it is signed, once before the first piece
                raise DestinationBusyError("over", location=location)
            return 60.0

        monkeypatch.setattr(store._fence, "left", left)
        with pytest.raises(DestinationBusyError):
            store.put(SHARD, bytes(size))
    for connection in connections:
        connection.close()
    assert began == [False, False]


def test_parts_and_the_end_of_an_upload_need_the_lease_too(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lib.storage import s3_writes

    monkeypatch.setattr(s3_writes, "_PART", 5 * 2**20)
    pieces = 2 * -(-5 * 2**20 // (256 * 2**10))  # of two parts
    for allowed in (1, 3, 2 + pieces):
        store = place.store(multipart_above=5 * 2**20)
        lease = paused(store, monkeypatch)
        asked = 0

        def left(allowed: int = allowed) -> float:
            nonlocal asked
            asked += 1
            return 1.0 if asked <= allowed else 0.0

        monkeypatch.setattr(lease, "left", left)
        with pytest.raises(DestinationBusyError):
            store.put(f"{SHARD}{allowed}", bytes(10 * 2**20))
        assert content(place.store()) == {}
        place.uri += "x"  # the lease lasts for a while


def test_an_upload_in_parts_does_not_replace_what_came_meanwhile(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lib.storage import s3_writes

    monkeypatch.setattr(s3_writes, "_PART", 5 * 2**20)
    store = place.store("gate", multipart_above=5 * 2**20)
    place.gate.match = "POST .*uploadId"
    with ThreadPoolExecutor(1) as pool:
        flying = pool.submit(store.put, SHARD, bytes(6 * 2**20), create=True)
        place.gate.wait()
        place.store().put(SHARD, b"right")
        place.gate.let_go_now()
        with pytest.raises(AlreadyExistsError):
            flying.result(60)
    assert content(place.store()) == {SHARD: b"right"}


def test_a_worker_writes_only_while_the_lease_of_its_run_lasts(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.lease_seconds = 60.0
    worker, run = place.store(), place.store()
    with run.lock(VOLUME, "this run"):
        worker.follow(VOLUME, "this run")
        worker.put(SHARD, b"1")
        stranger = place.store()
        stranger.follow(VOLUME, "another run")
        with pytest.raises(DestinationBusyError):
            stranger.put(SHARD, b"2")
        name, unfenced = lock_key(VOLUME, ".lease"), place.store()._writes
        unfenced.put(name, byte_views(b'{"run": "next run"}'), None)
        real = base.clock
        monkeypatch.setattr(s3_lease, "clock", lambda: real() + 11)  # a sixth of the term later
        with pytest.raises(DestinationBusyError):
            worker.put(SHARD, b"3")
        unfenced.delete_each(place.store()._objects.listing("ebi/.locks"))
        late = place.store()
        late.follow(VOLUME, "this run")
        with pytest.raises(DestinationBusyError):
            late.put(SHARD, b"4")
    assert content(place.store()) == {SHARD: b"1"}


def test_a_record_that_another_run_changed_between_look_and_write_is_not_replaced(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = place.store()
    manager = MetadataManager(store)
    record = manager.begin("ebi", "1", "x")
    theirs = MetadataManager(place.store())
    real = S3Store.get_versioned

    def overtaken(self: S3Store, key: str) -> Any:
        found = real(self, key)
        if self is store:
            theirs.begin("ebi", "1", "x")
        return found

    monkeypatch.setattr(S3Store, "get_versioned", overtaken)
    with pytest.raises(RecordError, match="another run has changed it"):
        manager.move(record, "processing")
    assert theirs.load(manager.key(record))["status"] == "pending"
