"""Readers in place of others: a crop of a volume, and a section that an archive does not hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from lib.formats.base import Block, Layout, VolumeReader
from lib.formats.planes import check_box
from lib.geometry import Box, minimum, subtract


class CroppedReader(VolumeReader):
    """A box of another reader's volume, as a volume of its own.

    Counts voxels from the corner of `box`; only what is asked for is read.
    """

    def __init__(self, reader: VolumeReader, box: Box, name: str) -> None:
        check_box(box, reader.shape_zyx, name)
        self._reader, self._box, self._name = reader, box, name
        self.shape_zyx = box.shape_zyx
        self.dtype = reader.dtype
        chunk = minimum(reader.layout.chunk_zyx, box.shape_zyx)
        self.layout = replace(reader.layout, chunk_zyx=chunk)

    def __exit__(self, *details: object) -> None:
        self._reader.__exit__(None, None, None)

    def blocks(self, box: Box) -> Iterator[Block]:
        """Yield blocks that tile `box`; see `VolumeReader`."""
        check_box(box, self.shape_zyx, self._name)
        corner = self._box.start_zyx
        back = subtract((0, 0, 0), corner)
        for block in self._reader.blocks(box.shifted(corner)):
            yield replace(block, box=block.box.shifted(back))


class MissingSection(VolumeReader):
    """Zeros in place of a section that an archive lacks, named as missing in every block."""

    def __init__(self, name: str, shape_yx: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self._name = name
        self.shape_zyx = (1, *shape_yx)
        self.dtype = dtype
        self.layout = Layout((1, 1, shape_yx[1]), by_planes=True)

    def blocks(self, box: Box) -> Iterator[Block]:
        """Yield one block of zeros."""
        check_box(box, self.shape_zyx, self._name)
        if not box.empty:
            yield Block(box, np.zeros(box.shape_zyx, self.dtype), (self._name,))
