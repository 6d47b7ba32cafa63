"""Volumes that are plain rows of planes behind a header: NRRD, NIfTI, AmiraMesh."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lib.bytesource.base import ByteSource, LocalBytes
from lib.errors import ConfigError, FormatError
from lib.formats.base import Block, Layout, VolumeReader
from lib.formats.planes import check_box, plane_blocks
from lib.geometry import Box, ShapeZYX


class RawPlanes(VolumeReader):
    """Voxels of a volume whose planes follow each other from one offset. Thread-safe.

    Parameters
    ----------
    offset
        Of the first voxel in the file.
    stored
        dtype in the file's byte order.

    Raises
    ------
    FormatError
        The file ends before the last voxel.
    """

    def __init__(
        self, source: ByteSource, offset: int, shape_zyx: ShapeZYX, stored: np.dtype[Any]
    ) -> None:
        check_whole_file(source, offset, shape_zyx, stored)
        self._source, self._offset, self._stored = source, offset, stored
        self.shape_zyx, self.dtype = shape_zyx, stored.newbyteorder("=")
        _, height, width = shape_zyx
        remote = source.remote
        self.layout = Layout(
            (1, height if remote else 1, width), random_access=not remote, by_planes=True
        )

    def __exit__(self, *_: object) -> None:
        self._source.close()

    def blocks(self, box: Box) -> Iterator[Block]:
        """Yield blocks of at most one range that tile `box`; see `VolumeReader`."""
        check_box(box, self.shape_zyx, self._source.name)
        yield from plane_blocks(
            self._source,
            box,
            data_offset=self._offset,
            shape_zyx=self.shape_zyx,
            stored=self._stored,
        )


def check_whole_file(
    source: ByteSource, offset: int, shape_zyx: ShapeZYX, stored: np.dtype[Any]
) -> None:
    """Raise `FormatError` where a file ends before its last voxel."""
    stop = offset + math.prod(shape_zyx) * stored.itemsize
    if stop > source.size:
        raise FormatError(
            f"the header asks for {stop} bytes, the file has {source.size}: it is cut short or its "
            "header is damaged",
            location=source.name,
        )


def unpacked_file(
    source: ByteSource, scratch: Path | None, unpack: Callable[[Path], LocalBytes]
) -> LocalBytes:
    """A scratch file that `unpack` makes; it goes with the reader that holds it open.

    Raises
    ------
    ConfigError
        There is no scratch folder.
    """
    if scratch is None:
        raise ConfigError(
            "the file is compressed and there is no scratch folder to unpack it to",
            location=source.name,
        )
    scratch.mkdir(parents=True, exist_ok=True)
    target = scratch / f"{uuid.uuid4().hex}.unpacked"
    try:
        return unpack(target)
    finally:
        target.unlink(missing_ok=True)
        source.close()
