"""The servers of one session of benchmarks, near and far."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from benchmarks import sources
from benchmarks.measure import ROOT
from emulators.s3 import S3Server
from tests.kit.tls import certificates

FAR = (0.030, 20 * 2**20)
"""Seconds to the first byte and bytes a second of one connection, as to a public archive."""

NETWORKS = ("near", "far", "near-tls", "far-tls")


class Servers:
    """Starts each server when it is first asked for; a context manager, of the main thread.

    SIGTERM (of ``timeout``, for example) ends it as Ctrl-C does: else the servers would stay.
    """

    def __init__(self, cache: Path) -> None:
        cache.mkdir(parents=True, exist_ok=True)
        self._cache = cache
        self._stack = ExitStack()
        self._s3: S3Server | None = None
        self._far_s3: dict[str, str] = {}
        self.trust: dict[str, str] = {}
        """Environment in which every client trusts the object store's certificate."""
        self._files: dict[tuple[str, str], dict[str, int]] = {}

    def __enter__(self) -> Self:
        self._stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _leave))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def s3(self, network: str = "near") -> str:
        """Address of the object store."""
        server = self.s3_server()
        url = server.tls_url if network.endswith("-tls") else server.endpoint_url
        if network.startswith("near"):
            return url
        if url not in self._far_s3:
            scheme, _, address = url.partition("://")
            line = self._start("benchmarks.shaped", address, *map(str, FAR))
            self._far_s3[url] = f"{scheme}://127.0.0.1:{int(line)}"
        return self._far_s3[url]

    def s3_server(self) -> S3Server:
        """The object store itself."""
        if self._s3 is None:
            authority, certificate = certificates(self._cache)
            names = ("SSL_CERT_FILE", "TENSORSTORE_CA_BUNDLE")
            self.trust = dict.fromkeys(names, str(authority))
            server = S3Server(sources.BUCKET, data_dir=self._cache / "s3", certificate=certificate)
            self._s3 = self._stack.enter_context(server)
        return self._s3

    def files(self, ftp_folder: Path, network: str = "near") -> dict[str, int]:
        """Ports of ``http``, ``dvid``, ``mirror``, ``empiar`` and ``ftp``."""
        key = (str(ftp_folder), network)
        if key not in self._files:
            shape = (0.0, 0) if network == "near" else FAR
            (self._cache / "http").mkdir(parents=True, exist_ok=True)
            ftp_folder.mkdir(parents=True, exist_ok=True)
            line = self._start(
                "benchmarks.serve", str(self._cache / "http"), str(ftp_folder), *map(str, shape)
            )
            self._files[key] = json.loads(line)
        return self._files[key]

    def _start(self, module: str, *arguments: str) -> str:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self._stack.callback(_ending(process))
        assert process.stdout is not None
        return process.stdout.readline()


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _ending(process: subprocess.Popen[str]) -> Callable[[], None]:
    def end() -> None:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    return end
