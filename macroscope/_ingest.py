"""`macroscope.ingest`: the flow, in a process of its own, and what it returns.

Prefect reads its settings once in a process, takes its signals, and its server needs a place to
live. In another process none of that reaches the caller's: neither a notebook's event loop, nor a
thread, nor a script without a ``__main__`` guard, nor flows of the caller's own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lib.errors import MacroscopeError, NotFoundError
from macroscope._settings import Address, SourceSettings, addresses_of

if TYPE_CHECKING:
    from lib.geometry import LengthsZYX, ShapeZYX
    from lib.ingest.result import ProcessingResult, ProgressEvent
    from macroscope._open import OpenVolume


@dataclass(frozen=True, slots=True)
class IngestedVolume:
    """What a run came to for one volume.

    Attributes
    ----------
    source, source_id, name
        The archive, its accession or address, and the volume's name in the store.
    status
        ``complete``, ``failed``, ``cancelled`` or ``skipped``.
    shape_zyx, voxel_nm_zyx
        Voxels, and the size of one in nm.
    assumed_axes
        Of ``zyx``, those whose length nobody states: 1 nm stands in its place.
    stored_bytes
        As stored, all levels included.
    seconds
        What it took.
    made
        False where it was complete already.
    repaired_files
        Of a complete volume that was damaged: how many files were made anew.
    metadata_path
        Address of its record; None where there is none.
    error
        What went wrong, and what to do about it.
    """

    source: str
    source_id: str
    name: str
    status: str
    shape_zyx: ShapeZYX
    voxel_nm_zyx: LengthsZYX
    assumed_axes: str
    stored_bytes: int
    seconds: float
    made: bool
    repaired_files: int
    metadata_path: str | None
    error: str | None

    def open(self) -> OpenVolume:
        """Open it.

        Raises
        ------
        NotFoundError
            It did not become complete.
        """
        from macroscope._open import open

        if self.status != "complete" or self.metadata_path is None:
            raise NotFoundError(
                f"the volume is not complete: {self.status}",
                archive=self.source,
                location=self.name,
                advice=self.error or "Run again: finished work is kept",
            )
        return open(self.metadata_path)


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What a run came to.

    Attributes
    ----------
    volumes
        All of them, those that failed included.
    sources
        The same by source, with the errors of sources of which nothing is known.
    report
        Address of the page that shows the store; None where none was written.
    """

    volumes: tuple[IngestedVolume, ...]
    sources: tuple[ProcessingResult, ...]
    report: str | None = None


def result_of(sources: Iterable[ProcessingResult], report: str | None) -> IngestResult:
    """The result of a run from those of its sources."""
    found = tuple(sources)
    volumes = tuple(
        IngestedVolume(one.source, **volume.model_dump(exclude={"store_requests"}))
        for one in found
        for volume in one.volumes
    )
    return IngestResult(volumes, found, report)


_END_S = 60.0
"""How long a run that is told to end may take to let go of its volumes."""
_TOLD_LINES = 5


def ingest(
    *addresses: Address,
    sources: Sequence[str] | None = None,
    level: str | Sequence[str] | None = None,
    box: str | None = None,
    kind: str | None = None,
    name: str | None = None,
    voxel_size_nm: Sequence[float] | None = None,
    labels: Address | Sequence[Address] | None = None,
    with_em: bool = False,
    padding: int | None = None,
    title: str | None = None,
    licence: str | None = None,
    citation: str | None = None,
    output_format: str | None = None,
    settings: SourceSettings | None = None,
    datasets: Address | None = None,
    mode: str | None = None,
    data_dir: Address | None = None,
    archives: str | None = None,
    progress: Callable[[ProgressEvent], object] | None = None,
) -> IngestResult:
    """Bring volumes into the store, prove them, and catalogue it.

    What is complete already is recognised; what was begun is gone on with. The run is a flow run of
    the Prefect server that ``PREFECT_API_URL`` or the profile names, else of one that lasts as long
    as the run.

    Parameters
    ----------
    addresses
        Volumes by their addresses: ``empiar:10310``, ``s3://bucket/x.zarr|zarr:em``, a path.
    sources
        Archives by their names, with their default volumes; all five where neither they nor
        addresses are given.
    level
        Scale level (``s0``, ``s1``, ...) of sources that have them.
    box
        Part of the volume: ``"z=0:64,y=100:300,x=0:2400nm"``.
    kind, name, voxel_size_nm, title, licence, citation
        Of a volume that is known by its address only: ``image`` or ``labels``, its name, its voxel
        size in nm, z, y, x, and what its record says of it.
    labels
        Labels that belong to the volume of an address: their addresses (at hemibrain an instance).
    with_em, padding
        With a crop of labels of OpenOrganelle: bring the EM around it, with so many of its voxels
        on each side, and all classes of the crop as label images in it.
    output_format
        ``zarr`` (OME-Zarr 0.5) or ``npy``.
    settings
        Further settings of single sources, as in docs/configuration.md:
        ``{"flyem": {"crop_size": [256, 256, 256]}}``.
    datasets
        A file of many volumes with their options, ``datasets.yaml``.
    mode
        The order of the sources, by its name: ``staged`` for example.
    data_dir
        Folder or ``s3://bucket/prefix`` of the store.
    archives
        ``public``, or ``samples`` for stand-ins that are started for this call.
    progress
        Called twice a second, in the caller's thread, with how far a volume is: ``volume``,
        ``done_shards``, ``total_shards``, ``received_bytes``, ``expected_bytes``.

    Raises
    ------
    IngestError
        Something failed; the error carries the results of all.
    ConfigError
        A setting is wrong; nothing was begun.
    StoppedError
        The run was cancelled from outside.
    MacroscopeError
        The destination cannot be written to, or the Prefect server does not answer.
    KeyboardInterrupt
        Ctrl-C; the run has ended then, and the next one goes on with it.

    Examples
    --------
    >>> import macroscope
    >>> result = macroscope.ingest(sources=["flyem"], archives="samples", data_dir="data")
    >>> volume = result.volumes[0]
    >>> volume.status, volume.shape_zyx
    ('complete', (72, 80, 96))
    >>> volume.open().levels[1][0, :2, :2].shape
    (2, 2)
    """
    from lib.ingest.result import ProcessingResult
    from macroscope import errors

    request = {
        "addresses": addresses_of(addresses),
        "sources": list(sources) if sources else None,
        "datasets": None if datasets is None else os.fspath(datasets),
        "mode": mode,
        "archives": archives,
        "data_dir": None if data_dir is None else os.fspath(data_dir),
        "level": [level] if isinstance(level, str) else list(level or ()),
        "common": {"box": box, "output_format": output_format},
        "about": {
            "kind": kind,
            "name": name,
            "voxel_size_nm": None if voxel_size_nm is None else list(voxel_size_nm),
            "labels": addresses_of(labels),
            "with_em": with_em or None,
            "padding": padding,
            "title": title,
            "licence": licence,
            "citation": citation,
        },
        "settings": {source: dict(own) for source, own in (settings or {}).items()},
    }
    answer = _run(json.dumps(request, default=str), progress)
    if "error" in answer:
        raise _error_of(answer["error"])
    found = [ProcessingResult.model_validate(one) for one in answer["results"]]
    result = result_of(found, answer["report"])
    if answer["failed"] is None:
        return result
    error = errors.IngestError(answer["failed"])
    error.results = result
    raise error


def _run(request: str, progress: Callable[[ProgressEvent], object] | None) -> dict[str, Any]:
    """Send a request to a process of its own, and return its answer.

    Raises
    ------
    MacroscopeError
        It ended without one.
    """
    with tempfile.TemporaryFile("w+b") as said:
        process = subprocess.Popen(
            # -P: a module of the caller's folder is none of ours
            [sys.executable, "-P", "-m", "flows.commands.child"],
            stdin=subprocess.PIPE,  # stays open: it closes when this process ends, however it does
            stdout=subprocess.PIPE,
            stderr=said,
            env=_environment(),
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C comes through this process
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            answer = _answer(process.stdin, process.stdout, request, progress)
            with suppress(subprocess.TimeoutExpired):  # it has something to clear away still
                process.wait(_END_S)
        finally:
            _end(process)
        if answer is not None:
            return answer
        said.seek(0)
        last = said.read().decode(errors="replace").strip().splitlines()[-_TOLD_LINES:]
        raise MacroscopeError(
            f"the run ended without a result, with exit code {process.returncode}: "
            + " | ".join(last),
            advice="Run again: finished work is kept",
            retryable=True,
        )


def _answer(
    requests: IO[str],
    answers: IO[str],
    request: str,
    progress: Callable[[ProgressEvent], object] | None,
) -> dict[str, Any] | None:
    try:
        requests.write(request + "\n")
        requests.flush()
    except BrokenPipeError:
        return None
    from lib.ingest.result import ProgressEvent

    for line in answers:
        told: dict[str, Any] = json.loads(line)
        if "progress" not in told:
            return told
        if progress is not None:
            progress(ProgressEvent(**told["progress"]))
    return None


def _end(process: subprocess.Popen[str]) -> None:
    """End it where it still runs, and wait for that: its volumes are then let go."""
    try:
        if process.poll() is None:
            process.terminate()
            process.wait(_END_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # what was not sent any more
                pipe.close()


def _environment() -> dict[str, str]:
    """This process's, in which the packages are found where they were found here."""
    root = str(Path(__file__).resolve().parents[1])
    paths = [root, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def _error_of(told: Mapping[str, Any]) -> MacroscopeError:
    """A named error as it was raised in the other process."""
    module, _, name = str(told["class"]).rpartition(".")
    kind = getattr(import_module(module), name)
    assert issubclass(kind, MacroscopeError)
    fields = ("archive", "location", "unit", "advice", "retryable")
    error: MacroscopeError = kind(told["message"], **{field: told[field] for field in fields})
    return error
