"""What a reader is: bounded blocks of voxels, in the order in which the source stores them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lib.compression import Encoded
from lib.errors import UnsupportedFormatError
from lib.geometry import Box, ShapeZYX


def delivered_dtype(stored: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which a reader hands on stored voxels: in native byte order, nothing rounded.

    float16 becomes float32, which holds each of its values: neither the compiled loops nor every
    reader of Zarr v3 has float16.
    """
    if stored.kind == "f" and stored.itemsize == 2:
        return np.dtype(np.float32)
    return stored.newbyteorder("=")


WIDENED = "float16 voxels are widened to float32"


@dataclass(frozen=True, slots=True)
class Block:
    """Some voxels and where they lie.

    ``data`` has the shape of ``box`` (z, y, x) and the reader's dtype in native byte order. It may
    be a view of a buffer that the reader uses again: it is valid until the next block is asked for.
    ``missing`` names pieces that the archive does not hold; their voxels are the fill value.
    """

    box: Box
    data: NDArray[Any]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """How the source stores its voxels; the planner fits the shard grid to it.

    Attributes
    ----------
    chunk_zyx
        The smallest piece that is read as a whole: a TIFF page or strip, a DM section, a Zarr
        chunk, a DVID tile.
    random_access
        True where a box costs about its own voxels (a local file, chunks, tiles); False where a
        box costs its whole planes (pages fetched from a remote file).
    by_planes
        The file is a row of planes (TIFF, DM, MRC). Shards are then as wide as the planes wherever
        the file lies: a run that goes on with a file that has arrived meanwhile must find the grid
        that was begun while it was read from afar.
    max_tile_zyx
        The largest box that one request may ask for, where the archive sets one (DVID: 256^3).
    """

    chunk_zyx: ShapeZYX
    random_access: bool = True
    max_tile_zyx: ShapeZYX | None = None
    by_planes: bool = False


class VolumeReader(AbstractContextManager["VolumeReader"], Protocol):
    """Reads one planned volume. Thread-safe: several boxes are read at once.

    Attributes
    ----------
    values
        How the file stores values, where that changes what they mean (``white is zero``); None
        where nobody says. Sections of one stack must agree in it.
    """

    shape_zyx: ShapeZYX
    dtype: np.dtype[Any]
    layout: Layout
    values: str | None = None

    def __exit__(self, *_: object) -> None:
        """Close what the reader itself holds open: nothing, where it does not say otherwise."""
        return

    def blocks(self, box: Box) -> Iterator[Block]:
        """Yield blocks that tile `box` exactly: no gap, no overlap, nothing outside.

        A reader checks everything it can while it reads (byte counts, page counts, entity tags)
        and raises a named error rather than yield doubtful voxels.
        """
        ...


def check_values(known: set[str], reader: VolumeReader, block: Block, name: str) -> None:
    """Hold how a section stores its values against the others; what is all 0 fits to any.

    Parameters
    ----------
    known
        What was seen of the stack; filled by the first section that is not empty.

    Raises
    ------
    UnsupportedFormatError
        Others store them in another way.
    """
    if reader.values is None or reader.values in known or not block.data.any():
        return
    if known:
        raise UnsupportedFormatError(
            f"its values are stored as {reader.values}, those of other sections as {min(known)}",
            location=name,
            advice="Make all sections alike, or leave it out by a narrower address",
        )
    known.add(reader.values)


@dataclass(frozen=True, slots=True)
class ChunkCodec:
    """The compression of a stored chunk in numcodecs' words: ``{"id": "zstd", "level": 1}``."""

    config: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class ChunkReader(Protocol):
    """Additionally offered by readers of chunks: each can be converted alone, or passed through."""

    chunk_zyx: ShapeZYX
    aligned: bool  # the volume begins where a chunk begins
    codec: ChunkCodec
    fill_value: int | float
    pass_through: bool  # aligned; byte order, codec and order are valid in a Zarr v3 shard

    def encoded_chunk(self, index_zyx: ShapeZYX) -> Encoded | None:
        """The stored bytes of one chunk of the source's grid; None where the archive has none."""
        ...

    def encoded_chunks(self, indices: Sequence[ShapeZYX]) -> Sequence[Encoded | None]:
        """The same of several, one after another, by one thread."""
        ...

    def expect(self, indices: Iterable[ShapeZYX]) -> None:
        """Hear which chunks will be asked for soon: a reader may fetch neighbours together."""
        ...

    def decoded_chunk(self, encoded: Encoded, index_zyx: ShapeZYX) -> NDArray[Any]:
        """Its voxels, shape ``chunk_zyx``, whatever lies past the volume's edge."""
        ...
