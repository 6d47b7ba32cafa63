"""One volume among those that a TIFF holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from lib.errors import OutOfBoundsError, UnsupportedFormatError
from lib.formats.calibration import Origin, VoxelSize


@dataclass(frozen=True, slots=True)
class Series:
    """Planes of one volume.

    Attributes
    ----------
    size_tzc
        Time points, slices, channels.
    planes_tzc
        Page of each plane in C order of `size_tzc`; -1 where the file does not have it.
    stacked
        One page stands for all planes, which follow it without directories of their own.
    stated_planes
        Planes by the file's own claim; None where it makes none.
    origin
        Where the file puts the first voxel.
    facts
        Chosen facts about the recording; never a whole tag.
    refused
        Why the series is not converted; None where it is.
    """

    kind: Literal["ome", "imagej", "pages"]
    size_tzc: tuple[int, int, int]
    planes_tzc: Sequence[int]
    voxel: VoxelSize
    stacked: bool = False
    stated_planes: int | None = None
    name: str | None = None
    acquired: str | None = None
    notes: tuple[str, ...] = ()
    origin: Origin = field(default_factory=Origin)
    facts: dict[str, str | int | float] = field(default_factory=dict)
    refused: str | None = None

    def planes_z(self, channel: int | None, time: int | None, location: str) -> Sequence[int]:
        """Pages of one channel and time point, by z.

        Raises
        ------
        UnsupportedFormatError
            There are several channels or time points and none was chosen, or the series is of
            a kind that is not converted.
        OutOfBoundsError
            The chosen one is not there.
        """
        if self.refused is not None:
            raise UnsupportedFormatError(self.refused, location=location)
        times, slices, channels = self.size_tzc
        t = _choose("time", "time point", time, times, location)
        c = _choose("channel", "channel", channel, channels, location)
        if times == channels == 1:
            return self.planes_tzc
        start = t * slices * channels + c
        return self.planes_tzc[start : start + (slices - 1) * channels + 1 : channels]


def _choose(setting: str, what: str, chosen: int | None, count: int, location: str) -> int:
    if chosen is None:
        if count > 1:
            raise UnsupportedFormatError(
                f"the file has {count} {what}s, and a volume has one",
                location=location,
                advice=f"Choose one by number: {setting}=0 to {count - 1}",
            )
        return 0
    if not 0 <= chosen < count:
        raise OutOfBoundsError(f"{what} {chosen} of {count} was chosen", location=location)
    return chosen
