"""What a DVID request asks for, from its address; a wrong one is told as DVID tells it.

Triples in addresses are x_y_z; inside, everything is z, y, x.
"""

from __future__ import annotations

from dataclasses import dataclass

from emulators.documents import DVID_SIZE_XYZ

MOST_BYTES = 3 << 30
BLOCK = 64
_DIMS = {
    "0_1_2": (0, 1, 2),
    "vol": (0, 1, 2),
    "0_1": (0, 1),
    "xy": (0, 1),
    "0_2": (0, 2),
    "xz": (0, 2),
    "1_2": (1, 2),
    "yz": (1, 2),
}
EXTENT_ZYX = (DVID_SIZE_XYZ[2], DVID_SIZE_XYZ[1], DVID_SIZE_XYZ[0])


class BadRequest(Exception):
    """Ends as status 400 with this text."""


@dataclass(frozen=True)
class Crop:
    """A box of voxels; `plane_dims_xyz` names the axes of a 2-D request, first the wider one."""

    origin_zyx: tuple[int, int, int]
    shape_zyx: tuple[int, int, int]
    plane_dims_xyz: tuple[int, int] | None = None

    @property
    def count(self) -> int:
        """Voxels, and bytes."""
        depth, height, width = self.shape_zyx
        return depth * height * width


def numbers(text: str, count: int, what: str) -> tuple[int, ...]:
    """Underscore-joined integers."""
    try:
        found = tuple(int(part) for part in text.split("_"))
    except ValueError:
        raise BadRequest(f"Could not parse {what} {text!r}") from None
    if len(found) != count:
        raise BadRequest(f"Expected {count} numbers in {what}, got {text!r}")
    return found


def crop(parts: list[str]) -> Crop:
    """``{dims}/{size}/{offset}`` of a raw request.

    Raises
    ------
    BadRequest
        Something is missing, malformed or not positive, or the payload is beyond 3 GiB.
    """
    if len(parts) < 3:
        raise BadRequest("raw requires shape, size and offset: /raw/<dims>/<size>/<offset>")
    dims_text, size_text, offset_text = parts[:3]
    if dims_text not in _DIMS:
        raise BadRequest(f"Illegal dimensions {dims_text!r}")
    dims = _DIMS[dims_text]
    size = numbers(size_text, len(dims), "size")
    offset_xyz = numbers(offset_text, 3, "offset")
    if min(size) <= 0:
        raise BadRequest(f"Size must be positive, got {size_text}")
    shape_xyz = [1, 1, 1]
    for dim, length in zip(dims, size, strict=True):
        shape_xyz[dim] = length
    found = Crop(
        (offset_xyz[2], offset_xyz[1], offset_xyz[0]),
        (shape_xyz[2], shape_xyz[1], shape_xyz[0]),
        (dims[0], dims[1]) if len(dims) == 2 else None,
    )
    if found.count > MOST_BYTES:
        raise BadRequest(f"Requested payload ({found.count} bytes) exceeds {MOST_BYTES} bytes")
    return found


def blocks_of_box(size_text: str, offset_text: str) -> list[tuple[int, int, int]]:
    """Block coordinates (x, y, z) of a block-aligned box."""
    size = numbers(size_text, 3, "size")
    offset = numbers(offset_text, 3, "offset")
    if any(value % BLOCK for value in (*size, *offset)) or min(size) <= 0:
        raise BadRequest(
            f"subvolblocks: size {size_text} and offset {offset_text} must be aligned to blocks"
        )
    first = [value // BLOCK for value in offset]
    count = [value // BLOCK for value in size]
    return [
        (x, y, z)
        for z in range(first[2], first[2] + count[2])
        for y in range(first[1], first[1] + count[1])
        for x in range(first[0], first[0] + count[0])
    ]


def blocks_of_list(text: str) -> list[tuple[int, int, int]]:
    """Block coordinates of ``blocks=x,y,z,x,y,z...``."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise BadRequest(f"Could not parse block coordinates {text!r}") from None
    if len(found) % 3:
        raise BadRequest("Block coordinates must come in threes")
    return [(found[i], found[i + 1], found[i + 2]) for i in range(0, len(found), 3)]


def is_stored(block_xyz: tuple[int, int, int]) -> bool:
    """Whether a block lies inside the extents; others were never set."""
    last_xyz = [(size - 1) // BLOCK for size in DVID_SIZE_XYZ]
    return all(0 <= b <= most for b, most in zip(block_xyz, last_xyz, strict=True))
