"""Files of electron microscopes: what each holds, told from its beginning or from all of it."""

from __future__ import annotations

import bz2
import uuid
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lib.bytesource.base import ByteSource, LocalBytes, MemoryBytes
from lib.errors import FormatError
from lib.formats.base import delivered_dtype
from lib.formats.calibration import Origin, VoxelSize
from lib.formats.dm.cross_check import second_opinion
from lib.formats.dm.reader import DmReader, open_dm
from lib.formats.mrc.header import HEADER_BYTES, MrcChoices, MrcHeader, parse_header
from lib.formats.mrc.reader import MrcReader, MrcVolume, open_mrc
from lib.geometry import ShapeZYX
from lib.provenance import Stated

_DM = (".dm3", ".dm4")
_MRC = (".mrc", ".rec", ".st", ".ali", ".map")
_PACKED = (".gz", ".bz2")
_MOST_PACKED_HEADER = 2**20  # a bzip2 block of 900 kB comes out whole or not at all

Kind = Literal["dm", "mrc"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file says of its volume; a single section has z = 1.

    Attributes
    ----------
    dtype
        numpy name, native byte order.
    acquired
        ISO 8601 date or time, or None.
    extra
        Chosen facts about the recording; never a whole tag dump.
    signedness
        Who decided between signed and unsigned bytes, where a file leaves that open.
    """

    shape_zyx: ShapeZYX
    dtype: str
    voxel: VoxelSize
    notes: tuple[str, ...] = ()
    acquired: str | None = None
    extra: dict[str, str | int | float] = field(default_factory=dict)
    origin: Origin = field(default_factory=Origin)
    signedness: Stated[str] | None = None


def kind_of(name: str) -> Kind | None:
    """The format by a file's name; None where it is not converted.

    DM3 and DM4 are told apart by their content, because either is found under both names.
    """
    lower = name.lower()
    if lower.endswith(_DM):
        return "dm"
    if lower.endswith(_MRC) or is_packed(name):
        return "mrc"
    return None


def is_packed(name: str) -> bool:
    """Whether the file is an MRC file compressed as a whole."""
    stem, dot, suffix = name.lower().rpartition(".")
    return dot + suffix in _PACKED and stem.endswith(_MRC)


def read_facts(source: ByteSource, name: str, mrc: MrcChoices | None = None) -> Facts:
    """Describe a file from its metadata; its voxels are not read.

    Parameters
    ----------
    mrc
        How to read what the header of an MRC file leaves open.

    Raises
    ------
    FormatError, UnsupportedFormatError
    """
    if kind_of(name) == "dm":
        image = open_dm(source)
        return Facts(
            image.shape_zyx,
            image.dtype.name,
            image.voxel,
            image.notes,
            image.acquired,
            image.facts,
            image.origin,
        )
    if is_packed(name):
        source = _unpacked_header(source)
        header = parse_header(source, mrc)
        return _mrc_facts(header, delivered_dtype(header.stored), header.notes)
    volume = open_mrc(source, choices=mrc)
    return _mrc_facts(volume.header, volume.dtype, volume.notes)


def _mrc_facts(header: MrcHeader, dtype: np.dtype[Any], notes: tuple[str, ...]) -> Facts:
    return Facts(
        header.shape_zyx,
        dtype.name,
        header.voxel,
        notes,
        origin=header.origin,
        signedness=header.signedness,
    )


def check_whole(
    path: Path, name: str, scratch: Path, mrc: MrcChoices | None = None
) -> tuple[Facts, tuple[str, ...]]:
    """Parse a file that arrived, to its end, and ask a second reader where there is one.

    Returns
    -------
    What the file says, and where the second reader disagrees.

    Raises
    ------
    FormatError, UnsupportedFormatError
    """
    reader = open_file(path, name, scratch, mrc)
    with reader:
        if isinstance(reader, DmReader):
            source, opinion = reader.image.source, second_opinion(path, reader.image)
            return read_facts(source, name), opinion
        volume: MrcVolume = reader.volume
        return _mrc_facts(volume.header, volume.dtype, volume.notes), ()


def open_file(
    path: Path, name: str, scratch: Path, mrc: MrcChoices | None = None
) -> DmReader | MrcReader:
    """A reader of a whole file on this machine; `scratch` is where packed ones are unpacked."""
    if kind_of(name) == "dm":
        return DmReader(open_dm(LocalBytes(path, name=name)))
    return _open_mrc(path, name, scratch, mrc)


def _open_mrc(path: Path, name: str, scratch: Path, mrc: MrcChoices | None) -> MrcReader:
    unpacked = scratch / f"{uuid.uuid4().hex}.unpacked"
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        source = LocalBytes(path, name=name)
        return MrcReader(open_mrc(source, scratch=unpacked, choices=mrc))
    finally:
        unpacked.unlink(missing_ok=True)  # the reader holds it open


def _unpacked_header(source: ByteSource) -> ByteSource:
    """The MRC header out of the beginning of a compressed file."""
    data = source.read(0, min(source.size, 2 * HEADER_BYTES))
    header = _beginning(data)
    if len(header) < HEADER_BYTES and len(data) < source.size:
        header = _beginning(source.read(0, min(source.size, _MOST_PACKED_HEADER)))
    if len(header) < HEADER_BYTES:
        raise FormatError("the compressed file holds no MRC header", location=source.name)
    return MemoryBytes(header, name=source.name)


def _beginning(data: bytes) -> bytes:
    try:
        if data[:2] == b"\x1f\x8b":
            return zlib.decompressobj(31).decompress(data, HEADER_BYTES)
        if data[:3] == b"BZh":
            return bz2.BZ2Decompressor().decompress(data, HEADER_BYTES)
    except (zlib.error, OSError, ValueError):
        pass
    return b""
