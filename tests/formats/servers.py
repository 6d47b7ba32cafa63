"""The transports of the conformance table: real servers on the loopback, one folder behind all."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from emulators.control import Control
from emulators.ftp import FtpSide
from emulators.gcs import GcsApp
from emulators.http_side import HttpSide
from emulators.mirror import mirror_app
from emulators.s3 import S3Server

TRANSPORTS = ("file", "http", "s3", "gs", "ftp", "zip")
"""Those that the address archive reads by now."""

BUCKET = "conformance"


class Servers:
    """One folder, seen through every transport.

    Attributes
    ----------
    gcs
        The stand-in of Google Cloud Storage, with its switches.
    control
        Rules that make the HTTP server fail; see `emulators.control`.
    """

    def __init__(
        self, folder: Path, ports: dict[str, int], gcs: GcsApp, s3: S3Server, control: Control
    ) -> None:
        self.folder, self.gcs, self.control = folder, gcs, control
        self._ports, self._s3 = ports, s3

    def publish(self, name: str, transport: str) -> tuple[str, dict[str, str]]:
        """Address of a folder below `folder` over a transport, and the settings it takes."""
        if transport == "file":
            return f"file://{self.folder / name}/", {}
        if transport == "http":
            return f"http://127.0.0.1:{self._ports['http']}/{name}/", {}
        if transport == "s3":
            self._upload(name)
            return f"s3://{BUCKET}/{name}/", {"s3_endpoint_url": self._s3.endpoint_url}
        if transport == "gs":
            target = self.gcs.folder / BUCKET / name
            shutil.copytree(self.folder / name, target, dirs_exist_ok=True)
            return f"gs://{BUCKET}/{name}/", {
                "gs_endpoint_url": f"http://127.0.0.1:{self._ports['gs']}"
            }
        if transport == "ftp":
            return f"ftp://127.0.0.1:{self._ports['ftp']}/{name}/", {}
        if transport == "zip":
            path = self.folder / f"{name}.zip"
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for file in sorted((self.folder / name).rglob("*")):
                    if file.is_file():
                        archive.write(file, file.relative_to(self.folder / name).as_posix())
            return f"file://{path}|zip:", {}
        raise ValueError(transport)

    def _upload(self, name: str) -> None:
        store = self._s3.store()
        for file in sorted((self.folder / name).rglob("*")):
            if file.is_file():
                store.put(file.relative_to(self.folder).as_posix(), file.read_bytes())


@contextmanager
def serving(folder: Path) -> Iterator[Servers]:
    """Start every server; all end with the block."""
    control = Control()
    side = HttpSide(control)
    with ExitStack() as stack:
        s3 = stack.enter_context(S3Server(BUCKET))
        side.start()
        stack.callback(side.stop)
        ports = {"http": side.add("mirror", mirror_app(folder))}
        gcs = GcsApp(folder / ".gcs", page=50)
        ports["gs"] = side.add("gs", gcs)
        ftp = FtpSide(folder, control)
        ftp.start()
        stack.callback(ftp.stop)
        ports["ftp"] = ftp.port
        yield Servers(folder, ports, gcs, s3, control)
