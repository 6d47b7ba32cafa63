"""Shared by the unit tests of readers, and of what writes to an object store."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emulators.control import Control
from emulators.http_side import HttpSide
from emulators.s3 import S3Server
from emulators.s3_proxy import S3Proxy
from lib.formats.base import VolumeReader
from lib.geometry import Box
from lib.storage.base import StoreSettings

AssertVoxels = Callable[[VolumeReader, NDArray[Any]], None]


@pytest.fixture
def assert_voxels() -> AssertVoxels:
    """Compare a reader with the volume (z, y, x) it should give: whole, and in random boxes."""

    def compare(reader: VolumeReader, volume: NDArray[Any], boxes: int = 12) -> None:
        assert reader.shape_zyx == volume.shape
        assert reader.dtype == volume.dtype
        assert reader.dtype.isnative
        random = np.random.default_rng(20)
        whole = Box.whole(reader.shape_zyx)
        for number in range(boxes):
            box = whole if number == 0 else _random_box(random, reader)
            voxels = np.zeros(box.shape_zyx, reader.dtype)
            times = np.zeros(box.shape_zyx, np.uint8)
            for block in reader.blocks(box):
                assert block.data.shape == block.box.shape_zyx
                assert block.data.dtype == reader.dtype
                assert block.data.nbytes <= 16 * 2**20
                voxels[block.box.slices(box.start_zyx)] = block.data
                times[block.box.slices(box.start_zyx)] += 1
            assert np.all(times == 1), f"blocks do not tile {box}"
            np.testing.assert_array_equal(voxels, volume[box.slices()])

    return compare


def _random_box(random: np.random.Generator, reader: VolumeReader) -> Box:
    start, stop = [], []
    for size in reader.shape_zyx:
        a, b = sorted(random.choice(size + 1, 2, replace=False).tolist())
        start.append(a)
        stop.append(b)
    return Box(tuple(start), tuple(stop))  # type: ignore[arg-type]


class Destination:
    """A real S3 server with authentication, and a second way to it that can let clients down."""

    bucket = "volumes"
    key = "destination-key"
    secret = "destination-secret"

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.control = Control()
        self.side = HttpSide(self.control)
        self.side.start()
        proxy = S3Proxy(server.endpoint_url)
        self.side.at_end(proxy.close)
        self.faulty_port = self.side.add("destination", proxy)

    def settings(self, *, faulty: bool = False, **changes: Any) -> StoreSettings:
        """Settings of a client, by the straight way or by the faulty one."""
        endpoint = f"127.0.0.1:{self.faulty_port}" if faulty else self.server.endpoint_url
        given = {"endpoint_url": endpoint, "key": self.key, "secret": self.secret, **changes}
        return StoreSettings(**given)


@pytest.fixture(scope="session")
def destination_server() -> Iterator[Destination]:
    with S3Server(Destination.bucket, Destination.key, Destination.secret) as server:
        running = Destination(server)
        yield running
        running.side.stop()


@pytest.fixture
def destination(destination_server: Destination) -> Iterator[Destination]:
    """The S3 server, without faults to begin with."""
    destination_server.control.clear()
    yield destination_server
    destination_server.control.clear()


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The address of moto's S3 server, with the bucket ``volumes``; any key and secret will do."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    urllib.request.urlopen(
        urllib.request.Request(f"http://{host}:{port}/volumes", method="PUT")
    ).close()
    yield f"http://{host}:{port}"
    server.stop()
