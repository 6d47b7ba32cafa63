"""One row of the conformance table: a format, how to write it, and the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

LISTED = ("file", "http", "s3", "zip")
"""Stores that list what they hold and give ranges."""

EVERYWHERE = ("file", "http", "s3", "gs", "ftp", "zip")


@dataclass(frozen=True)
class Case:
    """A row; `test_conformance` makes a cell of it for each transport.

    Attributes
    ----------
    name
        Of the cell; begins with the format.
    write
        Writes the files below a folder and returns the voxels (z, y, x) that must come out.
    address
        What follows the folder's address: ``stack.tif``, ``x.zarr|zarr2:em/s1``, ``|tiff:``.
    transports
        Where it is read from; names of `servers.TRANSPORTS`.
    settings
        Further fields of `AddressConfig`.
    expect
        Fields that the plan must have: ``{"kind": "labels", "voxel_nm_zyx": (40.0, 4.0, 4.0)}``.
    missing
        Chunks that the source does not hold, as the record counts them.
    notes
        What the record must say, each once.
    within
        The share by which downloads may differ from the plan.
    """

    name: str
    write: Callable[[Path], NDArray[Any]]
    address: str
    transports: tuple[str, ...] = EVERYWHERE
    settings: dict[str, Any] = field(default_factory=dict)
    expect: dict[str, Any] = field(default_factory=dict)
    missing: int = 0
    notes: tuple[str, ...] = ()
    within: float = 0.1
