"""What volumes and files are called: the one place where a name is made out of foreign text.

A name is for people. What a volume or a file *is*, its identity, is told by where the archive keeps
it; a name that two identities would share gets a short digest of each, never a counter, so that it
is the same in every run, whatever else is listed and in which order.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

MAX_NAME_BYTES = 200
"""Of a file's name: room for suffixes below the 255 bytes of common file systems."""
MAX_VOLUME_NAME = 200
"""Letters of a volume's name: room for ``metadata_``, ``.ome.zarr`` and temporary names."""

# Reserved on Windows and on SMB shares, with any suffix; a store may lie on one.
_RESERVED = re.compile(r"^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$", re.IGNORECASE)
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
# Control and format characters, lone surrogates, private use, separators of lines and words. The
# categories of these never change; those that are unassigned today may be letters tomorrow.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp", "Zs"})
_UNFIT = re.compile(r"[^A-Za-z0-9._+-]+")
_TIFF_SUFFIX = re.compile(r"(\.ome)?\.tiff?$", re.IGNORECASE)
_COUNTER = re.compile(r"[ _.-]+(slice|section|sec|image|img|z)$", re.IGNORECASE)
# ``metadata_<name>.json`` is a record, ``metadata_catalog_<time>.json`` a catalogue.
_OWN_FILES = re.compile(r"^(metadata|catalog)_", re.IGNORECASE)


# --- one name -------------------------------------------------------------------------------


def safe_name(name: str) -> str:
    """One path component made from an archive's name.

    Separators, characters that are not seen (control characters, no-break spaces, line separators)
    and characters that a common file system forbids become ``_``; a name that would still mean
    something else (``..``, ``NUL``, nothing) gets a leading ``_``; one that is too long is cut and
    ends in part of its digest. A safe name comes back unchanged.
    """
    text = unicodedata.normalize("NFC", name)
    text = "".join("_" if _is_invisible(letter) else letter for letter in text)
    text = _UNSAFE.sub("_", text).strip(" ").rstrip(". ")
    if not text or text.startswith(".") or _RESERVED.match(text):
        text = "_" + text
    raw = text.encode()
    if len(raw) <= MAX_NAME_BYTES:
        return text
    suffix = PurePosixPath(text).suffix
    tail = "~" + hashlib.sha256(raw).hexdigest()[:12] + (suffix if len(suffix) <= 16 else "")
    return raw[: MAX_NAME_BYTES - len(tail.encode())].decode(errors="ignore") + tail


def slug(text: str) -> str:
    """`text` in ASCII letters that need no quoting in paths, URLs and shells."""
    return _UNFIT.sub("_", text).strip("._-") or "volume"


def volume_name(text: str) -> str:
    """The name of a volume made from what an archive calls it: a `slug` of bounded length."""
    name = slug(text)
    if _OWN_FILES.match(name) or _RESERVED.match(name):
        name = f"volume_{name}"
    if len(name) <= MAX_VOLUME_NAME:
        return name
    return _with_mark(name, digest(text))


def without_tiff_suffix(name: str) -> str:
    """``a.ome.tiff [2]`` -> ``a [2]``."""
    stem, blank, rest = name.partition(" [")
    return _TIFF_SUFFIX.sub("", stem) + blank + rest


def stack_name(stem: str) -> str:
    """What numbered sections have in common, without the word that announces the number."""
    return slug(_COUNTER.sub("", stem))


# --- addresses as identities ----------------------------------------------------------------


def same_place(one: str, other: str) -> bool:
    """Whether two addresses may be one file of an archive, served by other protocols or hosts.

    The paths are compared, from their end; of a bucket, its name as well.
    """
    first, second = _place(one), _place(other)
    length = min(len(first), len(second))
    return first[len(first) - length :] == second[len(second) - length :]


def place_of(url: str) -> str:
    """What of an address stays, whoever serves the file."""
    return "/".join(_place(url))


def _place(url: str) -> list[str]:
    parts = urlsplit(url)
    path = [part for part in unquote(parts.path).split("/") if part]
    return [parts.netloc, *path] if parts.scheme == "s3" else path


# --- several names --------------------------------------------------------------------------


def folded(name: str) -> str:
    """What a file system that ignores case and Unicode form takes a name for."""
    return unicodedata.normalize("NFKC", name.casefold())


def digest(*identity: str) -> str:
    """Ten hexadecimal digits that stand for an identity."""
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:10]


def marked_volume_name(name: str, *identity: str) -> str:
    """A volume's name that no other identity has: `name` with a digest at its end."""
    return _with_mark(volume_name(name), digest(*identity))


def distinct_file_names(wanted: Mapping[str, str]) -> dict[str, str]:
    """Safe names of files, no two alike on a file system that ignores case.

    Parameters
    ----------
    wanted
        Identity of each file (its path in the archive) -> its own name.

    Returns
    -------
    dict
        Identity -> safe name. Whoever shares a name with another gets a digest into it.
    """
    safe = {identity: safe_name(name) for identity, name in wanted.items()}
    shared = Counter(folded(name) for name in safe.values())
    return {
        identity: name if shared[folded(name)] == 1 else marked_file_name(name, identity)
        for identity, name in safe.items()
    }


def marked_file_name(name: str, identity: str) -> str:
    """A file's name that no other file has: a digest of its identity before its suffixes."""
    stem, dot, suffix = safe_name(name).partition(".")
    mark = f"~{digest(identity)}{dot}{suffix}"
    room = MAX_NAME_BYTES - len(mark.encode())
    if room < 1:
        return safe_name(f"{digest(identity)}~{stem}{dot}{suffix}")
    return safe_name(stem.encode()[:room].decode(errors="ignore") + mark)


def _with_mark(name: str, mark: str) -> str:
    return f"{name[: MAX_VOLUME_NAME - len(mark) - 1].rstrip('._-')}-{mark}"


def _is_invisible(letter: str) -> bool:
    return letter != " " and unicodedata.category(letter) in _INVISIBLE
