"""Where a campaign reads from and writes to: stand-in archives, a folder or a bucket."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emulators.s3 import S3Server
from lib.storage.base import Store, StoreSettings
from lib.storage.open import open_store
from tests.chaos.worker import Task


@contextmanager
def stand_ins(folder: Path, first_byte_s: float = 0.0) -> Iterator[dict[str, dict[str, str]]]:
    """The five archives, in a process of their own; yields their endpoints.

    Parameters
    ----------
    first_byte_s
        How long each answer keeps its client waiting.
    """
    command = [sys.executable, "-m", "flows.cli", "samples", "--root", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            endpoints = json.loads(process.stdout.readline())
            _set_up(endpoints.pop("control_url"), first_byte_s)
            yield endpoints
        finally:
            process.terminate()


def _set_up(control_url: str, first_byte_s: float) -> None:
    """The DVID of a campaign takes several requests at once: killed clients' linger for a while."""
    slow = {"*": {"first_byte_s": first_byte_s}}
    settings = json.dumps({"dvid_max_throttled": 64, "latency": slow}).encode()
    request = urllib.request.Request(f"{control_url}/_control/settings", settings)
    with urllib.request.urlopen(request) as answer:
        answer.read()


class Destination:
    """Where rounds put their volumes: folders, or prefixes of one bucket."""

    def __init__(self, folder: Path, server: S3Server | None) -> None:
        self._folder, self._server = folder, server
        self.formats = ("zarr",) if server is not None else ("zarr", "npy")

    def uri(self, name: str) -> str:
        if self._server is not None:
            return f"s3://{self._server.bucket}/{name}"
        return str(self._folder / name)

    def settings(self) -> dict[str, Any]:
        if self._server is None:
            return {}
        return {
            "endpoint_url": self._server.endpoint_url,
            "key": self._server.key,
            "secret": self._server.secret,
        }

    def task(
        self,
        name: str,
        output_format: str,
        endpoints: dict[str, dict[str, str]],
        here: Path,
        on_dask: tuple[str, ...] = (),
        settings: dict[str, dict[str, Any]] | None = None,
        **store: Any,
    ) -> Task:
        """One attempt at a round, with its notes and its scratch folder in `here`."""
        return Task(
            endpoints=endpoints,
            data_uri=self.uri(name),
            output_format=output_format,
            scratch=str(here / "scratch"),
            log=str(here / "log"),
            store={**self.settings(), **store},
            on_dask=on_dask,
            settings=settings or {},
        )

    def store(self, name: str) -> Store:
        return open_store(self.uri(name), StoreSettings(**self.settings()))

    def drop(self, name: str) -> None:
        """Forget a round; a bucket goes as a whole at the end."""
        if self._server is None:
            shutil.rmtree(self._folder / name)

    def rubbish(self, name: str) -> list[str]:
        """Files that no listing of the store shows: locks and temporary files left behind."""
        if self._server is not None:
            return []
        folder, shown = self._folder / name, {item.key for item in self.store(name).list()}
        there = (
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        )
        return sorted(key for key in there if key not in shown)


@contextmanager
def bucket_where_wanted(destination: str) -> Iterator[S3Server | None]:
    if destination != "s3":
        yield None
        return
    with S3Server("chaos", "chaos-key", "chaos-secret") as server:
        yield server
