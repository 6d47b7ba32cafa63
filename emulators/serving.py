"""All stand-in archives together: build the data, start the servers, say where they are."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import threading
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from emulators.control import Control

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from starlette.types import ASGIApp

    from emulators.http_side import HttpSide
    from emulators.s3 import S3Server
    from lib.archives.registry import StandIn

Side = Literal["ftp", "http", "s3"]
TripleZYX = tuple[int, int, int]
BUCKET = "janelia-cosem-datasets"
_EPFL_FILE = "/groups/c/cv/cvlab-unit/www/data/%20ElectronMicroscopy_Hippocampus/volumedata.tif"
# Offsets from `base_port`, so that a Kubernetes Service can name each of them.
_OFFSETS = {"ftp": 0, "mirror": 1, "epfl": 2, "empiar": 3, "omero": 4, "dvid": 5, "s3": 6}
_PASSIVE_OFFSET, _PASSIVE_COUNT = 20, 40
_FURTHER_OFFSET = len(_OFFSETS)  # stand-ins that the registry names, in its order


class Samples:
    """Five archives in small, on this machine, speaking the real protocols.

    Parameters
    ----------
    root
        Folder for the data; completed where something is missing, kept on exit. ``None`` is a
        temporary one.
    host
        Address to bind; ``0.0.0.0`` in a pod.
    services
        Which sides to start.
    public_host
        The name under which clients reach `host`; by default `host` itself.
    base_port
        First of a fixed range of ports; 0 takes free ones.

    Examples
    --------
    >>> with Samples() as samples:                              # doctest: +SKIP
    ...     samples.control.add("status_503", "mirror", first_n=2)
    ...     plan(samples.endpoints["EBI"])
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        host: str = "127.0.0.1",
        services: Collection[Side] = ("ftp", "http", "s3"),
        public_host: str | None = None,
        base_port: int = 0,
    ) -> None:
        self.control = Control()
        self.root = root if root is not None else Path()
        self.ports: dict[str, int] = {}
        self._temporary = root is None
        self._host = host
        self._public = public_host or ("127.0.0.1" if host in ("0.0.0.0", "::") else host)
        self._services = frozenset(services)
        self._base_port = base_port
        self._stack = ExitStack()
        self._http: HttpSide
        self.s3: S3Server | None = None
        self._further: dict[str, StandIn] = {}

    def __enter__(self) -> Self:
        from emulators.catalogue import build

        with ExitStack() as stack:
            if self._temporary:
                folder = tempfile.TemporaryDirectory(prefix="samples-", ignore_cleanup_errors=True)
                self.root = Path(stack.enter_context(folder))
            launched = self._launch_s3(stack) if "s3" in self._services else None
            build(self.root)
            self._start_http(stack)
            self._start_ftp(stack)
            if launched is not None and self.s3 is not None:
                launched.result()
                self.s3.load(self.root / "s3")
                self.put_before(self.s3, "s3", self._port("s3"))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # --- where everything is

    def address(self, service: str) -> str:
        """``host:port`` of a service."""
        return f"{self._public}:{self.ports[service]}"

    def url(self, service: str) -> str:
        """Root address of an HTTP service, without a slash at the end."""
        return f"http://{self.address(service)}"

    @property
    def control_url(self) -> str:
        """Address under which ``/_control/faults`` and the like are found."""
        return self.url(next(name for name in self.ports if name != "ftp"))

    @property
    def endpoints(self) -> dict[str, dict[str, str]]:
        """Settings of each loader that lead it here instead of to the real archive."""
        found: dict[str, dict[str, str]] = {
            name: {} for name in ("EBI", "EPFL", "FLYEM", "IDR", "OPENORGANELLE")
        }
        if "ftp" in self.ports:
            found["EBI"]["ftp_server"] = self.address("ftp")
            found["IDR"]["ftp_host"] = self.address("ftp")
        if "dvid" in self.ports:
            found["FLYEM"]["dvid_server"] = self.url("dvid")
        if "mirror" in self.ports:
            found["EBI"]["https_base_url"] = self.url("mirror")
            found["EBI"]["api_base_url"] = self.url("empiar") + "/empiar/api"
            found["EBI"]["search_base_url"] = self.url("empiar") + "/ebisearch/ws/rest"
            found["SEARCH"] = {"biostudies_url": self.url("empiar") + "/biostudies/api/v1"}
            found["EPFL"]["download_url"] = self.url("epfl") + _EPFL_FILE
            found["IDR"]["https_base_url"] = self.url("mirror")
            found["IDR"]["api_base_url"] = self.url("omero")
        if "s3" in self.ports:
            found["OPENORGANELLE"]["s3_uri"] = f"s3://{BUCKET}"
            found["OPENORGANELLE"]["s3_endpoint_url"] = self.url("s3")
        for name, stand_in in self._further.items():
            found[name.upper()] = {stand_in.setting: self.url(name)}
        return found

    # --- starting

    def _port(self, service: str) -> int:
        return self._base_port + _OFFSETS[service] if self._base_port else 0

    def _start_http(self, stack: ExitStack) -> None:
        from emulators.http_side import HttpSide

        self._http = HttpSide(self.control, self._host)
        self._http.start()
        stack.callback(self._http.stop)
        if "http" in self._services:
            for service, app in self._applications().items():
                self.ports[service] = self._http.add(service, app, self._port(service))
            self._start_further()

    def _start_further(self) -> None:
        """The stand-ins of archives that bring their own."""
        from lib.archives.registry import REGISTRY, stand_in

        for name in REGISTRY:
            if (further := stand_in(name)) is not None:
                offset = _FURTHER_OFFSET + len(self._further)
                port = self._base_port + offset if self._base_port else 0
                self.ports[name] = self._http.add(name, further.app, port)
                self._further[name] = further

    def _applications(self) -> dict[str, ASGIApp]:
        from emulators.dvid import DvidApp
        from emulators.empiar import empiar_app
        from emulators.mirror import mirror_app
        from emulators.omero import omero_app

        return {
            "mirror": mirror_app(self.root / "ftp"),
            "epfl": mirror_app(self.root / "epfl"),
            "empiar": empiar_app(),
            "omero": omero_app(),
            "dvid": DvidApp(self.control, _hemibrain),
        }

    def _launch_s3(self, stack: ExitStack) -> Future[None]:
        """Start the object store while data and other servers are made; it takes the longest."""
        from emulators.s3 import S3Server

        self.s3 = S3Server(BUCKET)
        stack.callback(self.s3.stop)
        pool = stack.enter_context(ThreadPoolExecutor(1))
        return pool.submit(self.s3.start)

    def put_before(self, server: S3Server, service: str = "destination", port: int = 0) -> str:
        """Put faults and counters in front of an S3 server; returns the address to use instead.

        Parameters
        ----------
        server
            A running server; its credentials stay valid on the new address.
        service
            The name by which rules and counters know it.
        port
            Where to listen; 0 takes a free port.
        """
        from emulators.s3_proxy import S3Proxy

        proxy = S3Proxy(server.endpoint_url, server.buckets)
        self._http.at_end(proxy.close)
        self.ports[service] = self._http.add(service, proxy, port)
        return self.url(service)

    def _start_ftp(self, stack: ExitStack) -> None:
        if "ftp" not in self._services:
            return
        from emulators.ftp import FtpSide

        passive = None
        if self._base_port:
            first = self._base_port + _PASSIVE_OFFSET
            passive = range(first, first + _PASSIVE_COUNT)
        port = self._port("ftp")
        ftp = FtpSide(self.root / "ftp", self.control, self._host, port, passive)
        ftp.start()
        stack.callback(ftp.stop)
        self.ports["ftp"] = ftp.port


def _hemibrain(origin_zyx: TripleZYX, shape_zyx: TripleZYX) -> NDArray[np.uint8]:
    """Voxels of the virtual volume; their compiler takes a second to import, so it comes last."""
    from emulators.catalogue import dvid_voxels

    return dvid_voxels(origin_zyx, shape_zyx)


def serve_forever(samples: Samples) -> None:
    """Run until SIGINT or SIGTERM; the endpoints go to standard output as one line of JSON."""
    stop = threading.Event()

    def on_signal(*_: Any) -> None:
        stop.set()

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with samples:
            answer = {**samples.endpoints, "control_url": samples.control_url}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
            while not stop.wait(0.5):
                pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
