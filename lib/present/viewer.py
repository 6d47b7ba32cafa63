"""Looking at volumes in the browser: a read-only Neuroglancer server on the loopback.

It shows some volumes, or the page of a whole store, from which each is opened.

The client comes out of the ``neuroglancer`` package, so nothing is loaded from elsewhere. The same
server reads a folder and an object store, whose credentials never leave this process. Pictures of
the page come one by one as they are looked at, so that a page of thousands of volumes is small.
Texts of archives are untrusted: everything is escaped, and no script but the page's own runs.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from urllib.parse import quote

import uvicorn

from lib.errors import (
    ConfigError,
    DestinationError,
    MacroscopeError,
    NotFoundError,
    RecordError,
    UnsupportedFormatError,
)
from lib.present import formatting
from lib.present.described import ZARR, DescribedVolume, describe, labels_inside
from lib.present.preview import preview_key
from lib.present.report import environment, policy_of, text_of
from lib.present.rows import publisher, rows
from lib.present.viewer_app import (
    UNSIGNED,
    check_viewable,
    fragment,
    is_unsigned_inside,
    viewer_app,
    viewer_state,
)
from lib.records.lifecycle import RecordDict, read_json, record_for
from lib.records.model import Record
from lib.storage.base import Store, StoredObject
from lib.storage.keys import contents, image_of, record_of, require_contents

_AT_ONCE = 16
"""Records that are read at once: from a bucket each is a request."""


@dataclass(frozen=True, slots=True)
class StoreContents:
    """What a store holds, for its page.

    Attributes
    ----------
    complete
        Volumes that can be looked at, sorted by source and name.
    unfinished
        Those whose records say something else than complete.
    problems
        Records that cannot be read, and volumes without one, in words.
    """

    uri: str
    complete: tuple[Record, ...]
    unfinished: tuple[Record, ...]
    problems: tuple[str, ...]

    @property
    def viewable(self) -> tuple[str, ...]:
        """Keys of the volumes that a viewer can be asked for."""
        keys = (record.files.volume for record in self.complete)
        return tuple(key for key in keys if key is not None and key.endswith(ZARR))


def read_contents(store: Store) -> StoreContents:
    """Read every record of a store.

    Raises
    ------
    AccessDeniedError, DestinationError
        The store cannot be listed.
    """
    found = contents(store)
    there = set(found.volumes)

    def read(item: StoredObject) -> tuple[str, RecordDict | MacroscopeError]:
        try:
            return item.key, read_json(store, item.key, item.size)
        except MacroscopeError as error:
            return item.key, error

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="records") as pool:
        records = list(pool.map(read, found.records))
    complete, unfinished, problems, vouched = [], [], [], set[str]()
    for key, record in records:
        vouched.add(key)
        if isinstance(record, MacroscopeError):
            problems.append(f"{key} cannot be read: {record.message}")
            continue
        told = Record.read(record)
        if told.status != "complete":
            unfinished.append(told)
        elif (volume := told.files.volume) is not None and _is_there(store, volume, there):
            vouched.add(record_of(volume))
            complete.append(told)
        else:
            problems.append(f"{key} says complete, but {volume} is not there")
    problems += [f"{key} has no record" for key in found.volumes if record_of(key) not in vouched]

    def order(record: Record) -> tuple[str, str]:
        return record.source, record.name

    return StoreContents(
        store.uri,
        tuple(sorted(complete, key=order)),
        tuple(sorted(unfinished, key=order)),
        tuple(problems),
    )


def _is_there(store: Store, volume: str, listed: set[str]) -> bool:
    """Labels of an image lie inside it, where no listing of folders looks."""
    if image_of(volume) is None:
        return volume in listed
    return store.size(f"{volume}/zarr.json") is not None


def page_html(found: StoreContents) -> tuple[bytes, str]:
    """The page, and the Content-Security-Policy to send with it."""
    templates = environment()
    script = text_of(templates, "store.js.jinja")
    page = templates.get_template("store.html.jinja").render(
        found=found,
        stored=sum(record.stored_bytes for record in found.complete),
        viewable=set(found.viewable),
        picture=lambda record: f"/preview/{quote(preview_key(record.files.volume))}",
        publisher=publisher,
        rows=rows,
        formatting=formatting,
        script=script,
        style=text_of(templates, "report.css.jinja"),
    )
    policy = policy_of(script, "'self'", "'self'") + "; frame-ancestors 'none'"
    return page.encode(), policy


_LOOPBACK = "127.0.0.1"

_log = logging.getLogger(__name__)


def serve(store: Store, volume_keys: Sequence[str], *, port: int = 0) -> Viewer:
    """Make a viewer of some volumes; it serves from ``with`` (or `Viewer.start`) on.

    Parameters
    ----------
    volume_keys
        As in the catalogue: ``ebi/EMPIAR-11759.ome.zarr``. Nothing else of the store is served.
    port
        Of the loopback, for there is no password; 0 takes a free one.

    Raises
    ------
    ConfigError
        No volume is named, or this installation has no Neuroglancer client (the container image).
    NotFoundError
        A volume is not in the store, or not finished.
    UnsupportedFormatError
        A volume cannot be shown (``.npy``, a dtype such as float64).
    """
    _require_client()
    if not volume_keys:
        raise ConfigError(
            "no volume to view", location="volume", advice="Name one; the catalogue lists them"
        )
    for key in volume_keys:
        _viewable(store, key)
    return Viewer(store, volume_keys, port=port)


def serve_store(store: Store, *, port: int = 0) -> Viewer:
    """Make a viewer of a whole store: its address leads to a page of all volumes.

    Of a folder the page is made anew each time that it is asked for; of a bucket once.

    Raises
    ------
    ConfigError
        This installation has no Neuroglancer client.
    NothingThereError
        The store holds neither a record nor a volume.
    """
    _require_client()
    require_contents(store, "view")
    return Viewer(store, (), port=port, whole=True)


def _require_client() -> None:
    if find_spec("neuroglancer") is None:
        raise ConfigError(
            "this installation cannot show volumes: the package neuroglancer is not in it",
            location="macroscope view",
            advice="The container image leaves it out. View from a desk: install macroscope there, "
            "and name the bucket (EM_DATA_DIR=s3://...) or a copy of the claim's data folder; "
            "k8s/store-get.sh fetches one",
        )


class Viewer:
    """A running viewer; use as a context manager."""

    def __init__(
        self,
        store: Store,
        volume_keys: Sequence[str],
        *,
        port: int,
        whole: bool = False,
    ) -> None:
        self._store, self._port = store, port
        self._keys, self._whole = tuple(volume_keys), whole
        self._contents = read_contents(store) if whole else None
        self._reading = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = asyncio.Event()

    def __enter__(self) -> Viewer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The link that shows all volumes: side by side, or the page of the store."""
        return f"{self.address}/" if self._whole else self.url_for(self._keys)

    @property
    def served(self) -> tuple[str, ...]:
        """Keys of the volumes that are served."""
        return self._keys if self._contents is None else self._contents.viewable

    @property
    def address(self) -> str:
        """Scheme, host and port; it leads to `url`."""
        return f"http://{_LOOPBACK}:{self._port}"

    def url_for(self, volume_keys: Sequence[str]) -> str:
        """The link that shows some of the volumes, and the labels inside them over each.

        Raises
        ------
        NotFoundError
            One of them is not served.
        IntegrityError, UnsupportedFormatError
            One cannot be shown.
        """
        served = self.served
        unknown = [key for key in volume_keys if key not in served]
        if unknown or not volume_keys:
            raise NotFoundError(
                f"not served here: {', '.join(unknown) or 'no volume'}",
                advice=f"Served are {', '.join(served[:20])}{', ...' * (len(served) > 20)}",
            )
        found: dict[str, DescribedVolume] = {}
        for key in volume_keys:
            image = image_of(key)
            if image is not None and image in served:  # labels are seen over what they label
                found.setdefault(image, _viewable(self._store, image))
            found.setdefault(key, _viewable(self._store, key))
            found |= {one.key: one for one in _labels_over(self._store, key)}
        volumes = list(found.values())
        sources = [
            f"{self.address}/{_way_to(self._store, volume)}/{quote(volume.key)}"
            for volume in volumes
        ]
        return f"{self.address}/v/volumes/#{fragment(viewer_state(volumes, sources))}"

    def start(self) -> None:
        """Begin to serve; returns when the port listens.

        Raises
        ------
        DestinationError
            The port cannot be had.
        """
        listening = _listen(self._port)
        self._port = listening.getsockname()[1]
        app = viewer_app(
            self._store,
            lambda: frozenset(self.served),
            hosts=[_LOOPBACK, "localhost"],
            link=lambda keys: self.url_for(keys or self._keys),
            page=self._page if self._whole else None,
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

    def _page(self) -> tuple[bytes, str]:
        with self._reading:
            if self._contents is None or self._store.local_path("x") is not None:
                self._contents = read_contents(self._store)
            return page_html(self._contents)

    def _run(self, listening: socket.socket) -> None:
        async def main() -> None:
            serving = asyncio.create_task(self._server.serve([listening]))
            while not self._server.should_exit and not serving.done():
                await asyncio.sleep(0.05)
            self._stopped.set()  # open event streams end, so that the server need not wait
            await serving

        asyncio.run(main())


def _labels_over(store: Store, key: str) -> list[DescribedVolume]:
    """The labels inside a volume that can be shown; of others it is said that they are left out."""
    shown = []
    for volume in labels_inside(store, key):
        try:
            check_viewable(volume, _smallest(store, volume))
        except UnsupportedFormatError as error:
            _log.warning("left out of the view: %s", error)
        else:
            shown.append(volume)
    return shown


def _viewable(store: Store, key: str) -> DescribedVolume:
    try:
        volume = describe(store, key)
    except NotFoundError as error:
        raise NotFoundError(
            "there is no such finished volume",
            location=key,
            advice="The catalogue lists the volumes; one that is being made has to finish first",
        ) from error
    check_viewable(volume, _smallest(store, volume))
    return volume


def _way_to(store: Store, volume: DescribedVolume) -> str:
    return UNSIGNED if is_unsigned_inside(volume, _smallest(store, volume)) else "store"


def _smallest(store: Store, volume: DescribedVolume) -> int | None:
    """The smallest id of labels of int64, as their record says it: the others are shown anyway."""
    if volume.kind != "labels" or volume.dtype.name != "int64":
        return None
    try:
        record = record_for(store, volume.key) or {}
    except RecordError:
        return None
    least = record.get("metadata", {}).get("technical", {}).get("global_min")
    return least if isinstance(least, int) else None


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((_LOOPBACK, port), backlog=128)
    except OSError as error:
        raise DestinationError(
            f"cannot listen on {_LOOPBACK}:{port}: {error.strerror}",
            advice="Choose another --port, or leave it out to take a free one",
        ) from error
