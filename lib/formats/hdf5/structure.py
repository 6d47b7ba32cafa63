"""The process that lets HDF5's library look at a file: its structure, never a voxel.

The library is C code that follows the offsets of whatever file it is given, and a file may name
other files of this machine. So it runs in a process of its own, with bounded memory and time, sees
the file only through ranges that its parent reads for it, and follows nothing that leads elsewhere.

It is run by its path and imports nothing of this project. Messages to the parent: a letter, a
length of eight bytes, and a body. ``R`` asks for a range (offset and length, little-endian), which
the parent answers with the bytes; ``J`` is a JSON result, ``B`` a table of numbers, ``E`` an error.
"""

from __future__ import annotations

import io
import json
import re
import resource
import struct
import sys
from typing import Any, BinaryIO

_MEMORY_BYTES = 4 * 2**30
_CPU_S = 120
_MOST_OBJECTS = 20_000
_MOST_CHUNKS = 8 * 10**6
_BLOCK = 64 * 2**10
_KEPT = 256
_ATTRIBUTES = 64
_MOST_LINKS = 16
_VELOX = re.compile(r"/Data/Image/[0-9a-f]{32}/Data")  # frames stand last
_MOST_COORDINATES = 10**6


class Pipe(io.RawIOBase):
    """The file, as ranges that the parent reads; small reads come out of blocks that are kept."""

    def __init__(self, out: BinaryIO, back: BinaryIO, size: int) -> None:
        self._out, self._back, self._size = out, back, size
        self._at = 0
        self._blocks: dict[int, bytes] = {}

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        stop = min(self._at + len(view), self._size)
        done = 0
        while self._at + done < stop:
            at = self._at + done
            block = self._block(at // _BLOCK)
            inside = at % _BLOCK
            piece = block[inside : inside + stop - at]
            view[done : done + len(piece)] = piece
            done += len(piece)
        self._at += done
        return done

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            start = number * _BLOCK
            length = min(_BLOCK, self._size - start)
            send(self._out, b"R", struct.pack("<QQ", start, length))
            data = self._back.read(length)
            if len(data) != length:
                raise OSError("the parent went away")
            while len(self._blocks) >= _KEPT:
                self._blocks.pop(next(iter(self._blocks)))
            self._blocks[number] = data
        return self._blocks[number]


def send(out: BinaryIO, letter: bytes, body: bytes) -> None:
    """Write one message."""
    out.write(letter + struct.pack("<Q", len(body)) + body)
    out.flush()


def plain(value: Any) -> Any:
    """An attribute as JSON: short numbers, lists and text; None for anything else."""
    import numpy as np

    if isinstance(value, bytes):
        return value[:200].decode("utf-8", "replace")
    if isinstance(value, str):
        return value[:200]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, np.ndarray) and value.size <= 64:
        if value.dtype.kind == "S":  # Imaris writes text as an array of single characters
            return b"".join(value.reshape(-1).tolist())[:200].decode("latin-1")
        return [plain(one) for one in value.reshape(-1).tolist()]
    return value if isinstance(value, int | float | bool) else None


def attributes(node: Any) -> dict[str, Any]:
    """The attributes of an object that can be read and are short."""
    found: dict[str, Any] = {}
    for name in list(node.attrs.keys())[:_ATTRIBUTES]:
        try:
            value = plain(node.attrs[name])
        except (OSError, TypeError, ValueError):
            continue
        if value is not None:
            found[str(name)[:100]] = value
    return found


def refusal(dataset: Any) -> str | None:
    """Why a dataset is not read; None where it is."""
    if dataset.external:
        return "its voxels lie in other files (external storage)"
    if dataset.is_virtual:
        return "it is a virtual dataset, made from others"
    if dataset.dtype.kind not in "uifb" or dataset.dtype.names is not None:
        return f"its values are {dataset.dtype}, no plain numbers"
    if dataset.dtype.itemsize > 8:
        return f"its values are {dataset.dtype}"
    if not plainly_stored(dataset):
        return f"its values are stored in other bits than those of {dataset.dtype}"
    return None


def plainly_stored(dataset: Any) -> bool:
    """Whether a value's bytes are those of its dtype: HDF5 may place it in some of their bits."""
    from h5py import h5t

    stored, dtype = dataset.id.get_type(), dataset.dtype
    if isinstance(stored, h5t.TypeEnumID):
        stored = stored.get_super()
    if stored.get_size() != dtype.itemsize:
        return False
    if isinstance(stored, h5t.TypeFloatID):
        return bool(stored.equal(h5t.py_create(dtype)))
    if not isinstance(stored, h5t.TypeIntegerID):  # bits
        return True
    whole = stored.get_precision() == 8 * dtype.itemsize
    signed = stored.get_sign() != h5t.SGN_NONE  # whose sign is not spread over the bits left
    return bool(stored.get_offset() == 0 and (whole or not signed))


def axis_names(dataset: Any) -> list[str] | None:
    """Names of the axes: ilastik's ``axistags``, labels of dimensions, or of their scales."""
    if dataset.ndim == 3 and _VELOX.fullmatch(dataset.name or ""):
        return ["y", "x", "t"]
    try:
        tags = dataset.attrs.get("axistags")
        if isinstance(tags, str | bytes):
            return [str(axis["key"])[:20] for axis in json.loads(tags)["axes"]]
        names = [
            dim.label or (dim[0].name.rpartition("/")[2] if len(dim) else "")
            for dim in dataset.dims
        ]
    except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError):
        return None
    return [str(name)[:20] for name in names] if any(names) else None


def coordinates(dataset: Any) -> list[list[Any] | None]:
    """Of each axis: name, first value, step and unit, by the array that holds its coordinates.

    Scales of dimensions (netCDF), datasets that the group names as ``axes`` (NeXus), or ``dim1``,
    ``dim2``, ... beside it (EMD of NCEM).
    """
    found: list[list[Any] | None] = []
    for place, count in enumerate(dataset.shape):
        try:
            named = dataset.parent.attrs.get("axes")
            scale = dataset.dims[place][0] if len(dataset.dims[place]) else None
            if scale is None and named is not None and len(named) == dataset.ndim:
                scale = lookup(dataset.parent, str(plain(named[place])).replace("/", ""))
            if scale is None:
                scale = lookup(dataset.parent, f"dim{place + 1}")
            found.append(None if scale is None else evenly(scale, count))
        except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError):
            found.append(None)
    return found


def evenly(scale: Any, count: int) -> list[Any] | None:
    """What `coordinates` says of an axis whose values are evenly spaced; no filter is run."""
    import numpy as np

    whole = scale.ndim == 1 and scale.dtype.kind in "uif" and scale.size in (count, 2)
    if not whole or not 2 <= scale.size <= _MOST_COORDINATES or refusal(scale) is not None:
        return None
    if scale.id.get_create_plist().get_nfilters():
        return None
    values = np.asarray(scale[:], float)
    step = float(values[-1] - values[0]) / (len(values) - 1)
    if not step > 0 or not np.allclose(np.diff(values), step, rtol=1e-2, atol=0):
        return None
    name = plain(scale.attrs.get("name")) or scale.name.rpartition("/")[2]
    unit = str(plain(scale.attrs.get("units")) or "").strip("[]").replace("_", "")
    return [str(name)[:20], float(values[0]), step, unit[:40]]


def described(path: str, dataset: Any) -> dict[str, Any]:
    """What the parent must know of a dataset."""
    import h5py

    why = refusal(dataset)
    found: dict[str, Any] = {
        "path": path,
        "shape": [int(n) for n in dataset.shape],
        "dtype": dataset.dtype.str if why is None else "",
        "attributes": attributes(dataset),
        "names": axis_names(dataset),
        "coordinates": coordinates(dataset),
        "refused": why,
    }
    if why is not None:
        return found
    properties = dataset.id.get_create_plist()
    layout = properties.get_layout()
    found["chunks"] = [int(n) for n in dataset.chunks] if dataset.chunks else None
    found["offset"] = dataset.id.get_offset() if layout == h5py.h5d.CONTIGUOUS else None
    pipeline = [properties.get_filter(i) for i in range(properties.get_nfilters())]
    found["filters"] = [[code, [int(n) for n in values]] for code, _, values, _ in pipeline]
    fill = dataset.fillvalue
    found["fill"] = fill.item() if hasattr(fill, "item") else fill
    if isinstance(found["fill"], float) and found["fill"] != found["fill"]:
        found["fill"] = "NaN"
    if layout == h5py.h5d.COMPACT:
        found["refused"] = "it is stored inside the file's own structure (compact)"
    return found


def lookup(file: Any, path: str) -> Any:
    """An object by its path, every link on the way looked at before it is followed."""
    import h5py

    node, links = file, 0
    parts = [part for part in path.split("/") if part]
    while parts:
        name = parts.pop(0)
        if not isinstance(node, h5py.Group):
            return None
        link = node.get(name, getlink=True)
        if link is None:
            return None
        if isinstance(link, h5py.SoftLink):
            links += 1
            if links > _MOST_LINKS:
                raise ValueError(f"the links at {name!r} lead in a circle")
            node = file if link.path.startswith("/") else node
            parts = [part for part in link.path.split("/") if part not in ("", ".")] + parts
        elif isinstance(link, h5py.HardLink):
            node = node[name]
        else:
            raise ValueError(
                f"{name!r} is a link that leads to another file, which has an address of its own"
            )
    return node


def describe(file: Any, path: str) -> dict[str, Any]:
    """All datasets at and below a path, and the attributes of the groups above them."""
    import h5py

    start = lookup(file, path)
    if start is None:
        return {"found": False, "children": sorted(file.keys())[:50]}
    datasets: list[dict[str, Any]] = []
    groups: dict[str, dict[str, Any]] = {}
    count = 0

    def visit(name: str, node: Any) -> None:
        nonlocal count
        count += 1
        if count > _MOST_OBJECTS:
            raise ValueError(f"the file holds more than {_MOST_OBJECTS} objects; name a dataset")
        where = "/".join(part for part in (path.strip("/"), name) if part)
        if isinstance(node, h5py.Dataset):
            datasets.append(described(where, node))
        else:
            groups[where] = attributes(node)

    visit("", start)
    if isinstance(start, h5py.Group):
        start.visititems(visit)
    return {"found": True, "datasets": datasets, "groups": groups}


def chunk_table(file: Any, path: str) -> bytes:
    """Index on each axis, offset, length and filter mask of each chunk that is there."""
    import numpy as np

    dataset = lookup(file, path)
    if refusal(dataset) is not None:
        raise ValueError("the dataset is not the one that was planned")
    chunks = dataset.chunks
    rows: list[tuple[int, ...]] = []

    def visit(chunk: Any) -> None:
        if len(rows) >= _MOST_CHUNKS:
            raise ValueError(f"the dataset has more than {_MOST_CHUNKS} chunks")
        index = [at // n for at, n in zip(chunk.chunk_offset, chunks, strict=True)]
        rows.append((*index, chunk.byte_offset, chunk.size, chunk.filter_mask))

    dataset.id.chunk_iter(visit)
    return np.array(rows, "<u8").tobytes()


def main() -> None:
    """Answer one question about one file, then end."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    out, back = sys.stdout.buffer, sys.stdin.buffer
    sys.stdout = sys.stderr
    question = json.loads(back.readline())
    try:
        import h5py

        # No filter is ever run here, so no plug-in can be loaded either.
        with h5py.File(Pipe(out, back, question["size"]), "r") as file:
            if question["ask"] == "chunks":
                send(out, b"B", chunk_table(file, question["path"]))
            else:
                send(out, b"J", json.dumps(describe(file, question["path"])).encode())
    except Exception as error:
        text = str(error)
        if not isinstance(error, ValueError):  # which are our own
            said = text.strip("\"'")
            text = f"HDF5's library says: {said or type(error).__name__}"
        send(out, b"E", text[:500].encode("utf-8", "replace"))


if __name__ == "__main__":
    main()
