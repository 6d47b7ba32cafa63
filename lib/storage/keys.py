"""The names of objects: what is allowed, what is reserved, and where unfinished trees lie."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Collection, Sequence

from lib.errors import DestinationError
from lib.storage.base import Buffer

LOCKS = ".locks"  # folder of lock files and leases, beside the volumes that they guard
PARTIAL = ".partial"  # folder of trees that are not published yet, beside their final names

_LABELS = "labels"
VOLUME_SUFFIXES = (".ome.zarr", ".npy")
_STRIPPED = (".ome.zarr", ".zarr", ".npy")
_TEMPORARY = re.compile(r"^\.(?P<name>.*)\.[0-9a-f]{12}\.(?P<kind>tmp|old|gone)$")
_LONGEST_STEM = 120  # bytes; leaves room for the marks of a temporary name in a file's 255
_DIGITS = 12


def check_key(key: str) -> str:
    """Return `key` if it may name an object, else raise `DestinationError`.

    Refused are absolute keys, empty parts, ``.`` and ``..``, NUL and other control characters,
    backslashes, and the names that stores keep for themselves (locks, temporary files).
    """
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise _refused(key, "is not a relative path of named parts")
    if "\\" in key or any(ord(letter) < 32 or ord(letter) == 127 for letter in key):
        raise _refused(key, "holds a backslash or a control character")
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in key):
        raise _refused(key, "is not valid Unicode")
    if any(is_reserved(part) for part in parts):
        raise _refused(key, "uses a name that the store keeps for itself")
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix` if it may name a folder; ``""`` is the whole store."""
    return check_key(prefix) if prefix else prefix


def is_reserved(part: str) -> bool:
    """Whether a part of a key is a lock folder or a temporary name; listings leave these out."""
    return part == LOCKS or temporary_of(part) is not None


def temporary_name(name: str, kind: str) -> str:
    """Make a fresh temporary name: ``tmp`` being written, ``old`` moved aside, ``gone`` deleted."""
    if kind != "old":  # only a tree moved aside is traced back to its name
        name = _shortened(name)
    return f".{name}.{secrets.token_hex(6)}.{kind}"


def temporary_of(part: str) -> tuple[str, str] | None:
    """Split a temporary name into the (perhaps shortened) name and its kind, or return None."""
    match = _TEMPORARY.match(part)
    return (match["name"], match["kind"]) if match else None


def is_shortened(found: str, names: Collection[str]) -> bool:
    """Whether the name found by `temporary_of` stands for one of `names`."""
    return found in names or found in {_shortened(name) for name in names}


def _shortened(name: str) -> str:
    """A long name cut, its digest at the end: two volumes may begin alike for 120 bytes."""
    raw = name.encode()
    if len(raw) <= _LONGEST_STEM:
        return name
    room = _LONGEST_STEM - _DIGITS - 1
    return f"{raw[:room].decode(errors='ignore')}~{hashlib.sha256(raw).hexdigest()[:_DIGITS]}"


def labels_of(volume: str) -> str:
    """The group of an OME-Zarr in which its label images lie: each a volume of its own."""
    return f"{volume}/{_LABELS}"


def image_of(volume: str) -> str | None:
    """The OME-Zarr in whose group of labels a volume lies: ``ebi/x.ome.zarr/labels/y.ome.zarr``."""
    group = volume.rpartition("/")[0]
    image = group.removesuffix(f"/{_LABELS}")
    return image if image != group and image.endswith(VOLUME_SUFFIXES[0]) else None


def partial_key(final: str) -> str:
    """``data/ebi/x.ome.zarr`` -> ``data/ebi/.partial/x/x.ome.zarr``; labels beside their image."""
    folder, _, name = check_key(final).rpartition("/")
    if (image := image_of(final)) is not None:
        folder = image.rpartition("/")[0]
    stem = next((name.removesuffix(s) for s in _STRIPPED if name.endswith(s)), name) or name
    return f"{folder}/{PARTIAL}/{stem}/{name}" if folder else f"{PARTIAL}/{stem}/{name}"


def state_key(volume: str) -> str:
    """``ebi/x`` -> ``ebi/.partial/x``: the ledger of a volume, and on a folder its staging tree."""
    return partial_key(volume + VOLUME_SUFFIXES[0]).rpartition("/")[0]


def lock_key(key: str, suffix: str) -> str:
    """``data/ebi/x`` -> ``data/ebi/.locks/x<suffix>``."""
    folder, _, name = check_key(key).rpartition("/")
    return f"{folder}/{LOCKS}/{name}{suffix}" if folder else f"{LOCKS}/{name}{suffix}"


def byte_views(data: Buffer | Sequence[Buffer]) -> list[memoryview]:
    """View one or several buffers as flat bytes, without copying; empty ones are left out.

    Raises
    ------
    TypeError
        A buffer is not C-contiguous.
    """
    buffers = [data] if isinstance(data, bytes | bytearray | memoryview) else data
    views = (memoryview(buffer) for buffer in buffers)
    return [view.cast("B") for view in views if view.nbytes]


def _refused(key: str, why: str) -> DestinationError:
    return DestinationError(
        f"the name {key[:200]!r} {why} and is refused",
        advice="Choose another name, or report the archive that gave it",
    )
