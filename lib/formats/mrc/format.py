"""MRC and its kin as a file format of the registry, compressed as a whole or not."""

from __future__ import annotations

import bz2
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from lib.bytesource.base import ByteSource, MemoryBytes
from lib.errors import ConfigError, FormatError
from lib.formats.base import delivered_dtype
from lib.formats.format import FileFormatBase, Options, VolumeDescription, only_path
from lib.formats.mrc.header import HEADER_BYTES, Mode0, MrcChoices, Sections, parse_header
from lib.formats.mrc.reader import MrcReader, MrcVolume, open_mrc
from lib.plan import SourceGrid

_SUFFIXES = (".mrc", ".rec", ".st", ".ali", ".map", ".mrcs", ".ccp4")
_PACKED = (".gz", ".bz2")
_MOST_PACKED_HEADER = 2**20  # a bzip2 block of 900 kB comes out whole or not at all
_KNOWN_MODES = frozenset({0, 1, 2, 3, 4, 6, 12, 16, 101})
_MOST_VOXELS_AN_AXIS = 2**24


class MrcFormat(FileFormatBase):
    """One volume a file; the choices ``mrc_mode0`` and ``mrc_sections`` settle open questions."""

    name: ClassVar[str] = "mrc"
    title: ClassVar[str] = "MRC, REC, ST, ALI, MAP, MRCS, CCP4 (also .gz, .bz2)"
    suffixes: ClassVar[tuple[str, ...]] = (
        *_SUFFIXES,
        *(suffix + packed for suffix in _SUFFIXES for packed in _PACKED),
    )
    sections: ClassVar[bool] = True

    def fits(self, head: bytes, name: str) -> bool:
        if packing(head):
            begun = _beginning(head)
            named = name.lower().endswith(self.suffixes)
            return _looks_like(begun, named=named) if begun else named
        return _looks_like(head, named=name.lower().endswith(self.suffixes))

    def describe(
        self, source: ByteSource, path: str, options: Options
    ) -> Sequence[VolumeDescription]:
        only_path(path, source)
        choices = _choices(options.choices)
        packed = packing(source.read(0, min(3, source.size)))
        if packed:
            header = parse_header(unpacked_header(source), choices)
            dtype = delivered_dtype(header.stored)
            notes = header.notes
        else:
            volume = open_mrc(source, choices=choices)
            header, dtype, notes = volume.header, volume.dtype, volume.notes
        return [
            VolumeDescription(
                path="",
                handle=dict(options.choices),
                shape_zyx=header.shape_zyx,
                dtype=dtype.name,
                voxel=header.voxel,
                origin=header.origin,
                needs_file=packed,
                notes=notes,
                signedness=header.signedness,
            )
        ]

    def open(
        self,
        source: ByteSource,
        handle: dict[str, Any],
        *,
        grid: SourceGrid | None = None,
        scratch: Path | None = None,
    ) -> MrcReader:
        return MrcReader(_opened(source, handle, scratch))


def _opened(source: ByteSource, handle: dict[str, Any], scratch: Path | None) -> MrcVolume:
    choices = _choices(handle)
    if not packing(source.read(0, min(3, source.size))):
        return open_mrc(source, choices=choices)
    if scratch is None:
        raise ConfigError(
            "the MRC file is compressed and there is no scratch folder to unpack it to",
            location=source.name,
        )
    scratch.mkdir(parents=True, exist_ok=True)
    unpacked = scratch / f"{uuid.uuid4().hex}.unpacked"
    try:
        return open_mrc(source, scratch=unpacked, choices=choices)
    finally:
        unpacked.unlink(missing_ok=True)  # the volume holds it open
        source.close()


def _choices(given: Any) -> MrcChoices:
    return MrcChoices(
        cast(Mode0, given.get("mrc_mode0", "auto")),
        cast("Sections | None", given.get("mrc_sections")),
        given.get("stated_dtype"),
    )


def packing(head: bytes) -> bool:
    """Whether a file begins as gzip or bzip2 does."""
    return head[:2] == b"\x1f\x8b" or head[:3] == b"BZh"


def unpacked_header(source: ByteSource) -> ByteSource:
    """The MRC header out of the beginning of a compressed file.

    Raises
    ------
    FormatError
    """
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


def _looks_like(head: bytes, *, named: bool) -> bool:
    """A header with its stamp, or, under a name of the kind, one that makes sense without it."""
    if len(head) < HEADER_BYTES:
        return False
    for order in ("<", ">"):
        words = np.frombuffer(head[:16], np.dtype(f"{order}i4")).tolist()
        sizes = all(0 < size <= _MOST_VOXELS_AN_AXIS for size in words[:3])
        if sizes and words[3] in _KNOWN_MODES:
            return named or head[208:211] == b"MAP"
    return False
