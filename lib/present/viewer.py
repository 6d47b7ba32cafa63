"""Looking at volumes in the browser: a read-only Neuroglancer server on the loopback.

The client comes out of the ``neuroglancer`` package, so nothing is loaded from elsewhere. The same
server reads a folder and an object store, whose credentials never leave this process.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from types import TracebackType
from urllib.parse import quote

import uvicorn

from lib.errors import ConfigError, DestinationError, NotFoundError
from lib.present.described import ZARR, DescribedVolume, describe
from lib.present.viewer_app import viewer_app
from lib.present.viewer_state import check_viewable, fragment, viewer_state
from lib.storage.base import Store

_LOOPBACK = ["127.0.0.1", "localhost"]


def find_volumes(store: Store) -> Iterator[str]:
    """Keys of all finished OME-Zarr volumes of a store; unfinished ones have no root document."""
    for found in store.list():
        volume, inner, rest = found.key.partition(f"{ZARR}/")
        if rest == "zarr.json" and not any(part.startswith(".") for part in volume.split("/")):
            yield volume + inner.rstrip("/")


def serve(
    store: Store, volume_keys: Sequence[str], *, host: str = "127.0.0.1", port: int = 0
) -> Viewer:
    """Make a viewer of some volumes; it serves from ``with`` (or `Viewer.start`) on.

    Parameters
    ----------
    volume_keys
        As in the catalogue: ``ebi/EMPIAR-11759.ome.zarr``. Nothing else of the store is served.
    host
        The loopback unless told otherwise: there is no password.
    port
        0 takes a free one.

    Raises
    ------
    ConfigError
        No volume is named, or this installation has no Neuroglancer client (the container image).
    NotFoundError
        A volume is not in the store, or not finished.
    UnsupportedFormatError
        A volume cannot be shown (``.npy``, a dtype such as float64).
    """
    if find_spec("neuroglancer") is None:
        raise ConfigError(
            "this installation cannot show volumes: the package neuroglancer is not in it",
            location="macroscope view",
            advice="The container image leaves it out. View from a desk: install macroscope there, "
            "and name the bucket (EM_DATA_DIR=s3://...) or a copy of the claim's data folder; "
            "k8s/store-get.sh fetches one",
        )
    if not volume_keys:
        raise ConfigError(
            "no volume to view", location="volume", advice="Name one; the catalogue lists them"
        )
    return Viewer(store, [_viewable(store, key) for key in volume_keys], host=host, port=port)


class Viewer:
    """A running viewer; use as a context manager."""

    def __init__(
        self, store: Store, volumes: Sequence[DescribedVolume], *, host: str, port: int
    ) -> None:
        self._store, self._host, self._port = store, host, port
        self._volumes = {volume.key: volume for volume in volumes}
        self._thread: threading.Thread | None = None
        self._stopped = asyncio.Event()

    def __enter__(self) -> Viewer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The link that shows all volumes."""
        return self.url_for(list(self._volumes))

    @property
    def address(self) -> str:
        """Scheme, host and port; it leads to `url`."""
        return f"http://{_named(self._host)}:{self._port}"

    def url_for(self, volume_keys: Sequence[str]) -> str:
        """The link that shows some of the volumes.

        Raises
        ------
        NotFoundError
            One of them is not served.
        """
        unknown = [key for key in volume_keys if key not in self._volumes]
        if unknown or not volume_keys:
            raise NotFoundError(
                f"not served here: {', '.join(unknown) or 'no volume'}",
                advice=f"Served are {', '.join(self._volumes)}",
            )
        volumes = [self._volumes[key] for key in volume_keys]
        sources = [f"{self.address}/store/{quote(key)}" for key in volume_keys]
        return f"{self.address}/v/volumes/#{fragment(viewer_state(volumes, sources))}"

    def start(self) -> None:
        """Begin to serve; returns when the port listens.

        Raises
        ------
        DestinationError
            The port cannot be had.
        """
        listening = _listen(self._host, self._port)
        self._port = listening.getsockname()[1]
        everywhere = self._host in ("0.0.0.0", "::")
        app = viewer_app(
            self._store,
            frozenset(self._volumes),
            hosts=["*"] if everywhere else [*_LOOPBACK, self._host],
            start=lambda: self.url,
            stopped=self._stopped,
        )
        self._server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=2)
        )
        self._thread = threading.Thread(
            target=self._run, args=(listening,), name="viewer", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Serve until `stop`, Ctrl-C or the end of the process."""
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(0.5)

    def stop(self) -> None:
        """Stop serving and close the port; safe to repeat."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._server.should_exit = True
        thread.join()

    def _run(self, listening: socket.socket) -> None:
        async def main() -> None:
            serving = asyncio.create_task(self._server.serve([listening]))
            while not self._server.should_exit and not serving.done():
                await asyncio.sleep(0.05)
            self._stopped.set()  # open event streams end, so that the server need not wait
            await serving

        asyncio.run(main())


def _viewable(store: Store, key: str) -> DescribedVolume:
    try:
        volume = describe(store, key)
    except NotFoundError as error:
        raise NotFoundError(
            "there is no such finished volume",
            location=key,
            advice="The catalogue lists the volumes; one that is being made has to finish first",
        ) from error
    check_viewable(volume)
    return volume


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=128)
    except OSError as error:
        raise DestinationError(
            f"cannot listen on {host}:{port}: {error.strerror}",
            advice="Choose another --port, or leave it out to take a free one",
        ) from error


def _named(host: str) -> str:
    return socket.gethostname() if host in ("0.0.0.0", "::") else host
