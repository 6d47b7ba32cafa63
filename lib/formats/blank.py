"""A section that an archive does not hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lib.formats.base import Block, Layout, VolumeReader
from lib.formats.planes import check_box
from lib.geometry import Box


class BlankSection(VolumeReader):
    """Zeros in place of a section, named as missing in every block."""

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
