"""Asking the process of `structure` about a file."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lib.bytesource.base import ByteSource
from lib.concurrency import cancel
from lib.errors import FormatError

_SCRIPT = Path(__file__).with_name("structure.py")
_MOST_READ = 2 * 2**30
_MOST_ANSWER = 2**30


def datasets_of(source: ByteSource, path: str) -> dict[str, Any]:
    """Datasets at and below a path, and attributes of groups; see `structure.describe`.

    Raises
    ------
    FormatError
        HDF5's library cannot read the file, or something in it leads elsewhere.
    """
    answer: dict[str, Any] = json.loads(_ask(source, "describe", path))
    return answer


def chunks_of(source: ByteSource, path: str, axes: int) -> NDArray[np.uint64]:
    """A row for each chunk that is there: index on each axis, offset, length, filter mask."""
    return np.frombuffer(_ask(source, "chunks", path), "<u8").reshape(-1, axes + 3)


def _ask(source: ByteSource, ask: str, path: str) -> bytes:
    # no plug-in of the environment is looked for, and nothing of ours is handed on
    environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    environment |= {"HDF5_PLUGIN_PATH": "", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, "-s", str(_SCRIPT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd="/",
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        question = {"size": source.size, "ask": ask, "path": path}
        process.stdin.write(json.dumps(question).encode() + b"\n")
        process.stdin.flush()
        return _serve(source, process.stdin, process.stdout)
    except (BrokenPipeError, EOFError):
        process.wait()
        raise FormatError(
            f"HDF5's library ended with code {process.returncode} over this file",
            location=source.name,
        ) from None
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def _serve(source: ByteSource, to: IO[bytes], out: IO[bytes]) -> bytes:
    """Read the ranges that are asked for until there is an answer."""
    read = 0
    while True:
        cancel.check()
        letter, length = struct.unpack("<cQ", _exactly(out, 9))
        if length > _MOST_ANSWER:
            raise FormatError("the structure of the file is too large", location=source.name)
        body = _exactly(out, length)
        if letter == b"R":
            offset, count = struct.unpack("<QQ", body)
            read += count
            if read > _MOST_READ:
                raise FormatError("the structure of the file is too large", location=source.name)
            to.write(source.read(offset, count))
            to.flush()
        elif letter == b"E":
            raise FormatError(body.decode("utf-8", "replace"), location=source.name)
        else:
            return body


def _exactly(out: IO[bytes], length: int) -> bytes:
    data = out.read(length)
    if len(data) != length:
        raise EOFError
    return data
