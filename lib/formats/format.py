"""What a format is: it says which volumes lie in a file or a tree, and opens one of them.

A format knows no archive and no protocol: it reads a `ByteSource` or a `Tree`. An archive knows no
format: it asks `lib.formats.registry`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from lib.about import Stated
from lib.bytesource.base import ByteSource
from lib.bytesource.tree import Tree
from lib.errors import NotFoundError
from lib.formats.base import VolumeReader
from lib.geometry import Box, LengthsZYX, ShapeZYX, nm_per, to_nm, zyx
from lib.plan import SourceGrid
from lib.vocabulary import Kind


@dataclass(frozen=True, slots=True)
class VoxelSize:
    """Lengths in nanometres, None where the file does not say; nothing is guessed.

    Attributes
    ----------
    provenance
        Which fields of the file the lengths came from.
    assumed
        Those of the axes ``zyx`` whose length rests on a default: a number without a unit, say.
    """

    z_nm: float | None = None
    y_nm: float | None = None
    x_nm: float | None = None
    provenance: str | None = None
    assumed: str = ""

    @property
    def known_nm_zyx(self) -> LengthsZYX | None:
        """All three lengths, or None if one is unknown."""
        if self.z_nm is None or self.y_nm is None or self.x_nm is None:
            return None
        return (self.z_nm, self.y_nm, self.x_nm)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the centre of the first voxel lies; both None where the file does not say.

    Attributes
    ----------
    voxels_zyx
        In voxels: a file that counts from elsewhere, or says which voxel is zero.
    nm_zyx
        In nanometres.
    provenance
        Which fields of the file say so.
    axes
        Those of the axes ``zyx`` of which they speak; zero stands for the others.
    """

    voxels_zyx: LengthsZYX | None = None
    nm_zyx: LengthsZYX | None = None
    provenance: str | None = None
    axes: str = "zyx"

    @property
    def stated(self) -> bool:
        return self.voxels_zyx is not None or self.nm_zyx is not None

    def at(self, voxel_nm_zyx: LengthsZYX) -> LengthsZYX:
        """In nanometres, for voxels of this size; the zero point where nothing is stated."""
        if self.nm_zyx is not None:
            return self.nm_zyx
        pairs = zip(self.voxels_zyx or (0.0, 0.0, 0.0), voxel_nm_zyx, strict=True)
        return zyx(float(f"{n * length:.9g}") + 0.0 for n, length in pairs)


def positive(value: float | None) -> float | None:
    """`value` if it can be the length of a voxel, else None."""
    return value if value is not None and math.isfinite(value) and value > 0 else None


def stated_nm(text: str, unit: str) -> float | None:
    """A voxel's length in nm out of the words of a file; None where they are none."""
    try:
        return positive(to_nm(float(text), unit))
    except ValueError:
        return None


def pixel_nm(per_unit: float | None, unit: str) -> float | None:
    """Length of a pixel in nm where a file gives pixels per `unit`; None where that is nothing.

    Nine digits are kept: a ratio of two 32-bit integers has no more, and 1/50 µm shall be 20 nm.
    """
    unit_nm = nm_per(unit)
    if positive(per_unit) is None or per_unit is None or unit_nm is None:
        return None
    return positive(float(f"{unit_nm / per_unit:.9g}"))


HEAD_BYTES = 2**16 + 8
"""How much of a file's beginning a format may look at to recognise it."""


Handle = dict[str, Any]
"""Whatever a format's `open` needs to find the same voxels again: plain JSON, without words."""

CHOICES = ("mrc_mode0", "mrc_sections")
"""Keys of `Options.choices`: a format that uses one keeps it in its handle."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may choose where a container holds more than one volume.

    Attributes
    ----------
    level
        Scale level: its number (``0`` or ``s0`` is the finest) or its own name; None: the finest.
    channel, time
        Numbers from 0; None where there is only one.
    choices
        What single formats ask the user, by the name of the setting (``mrc_mode0``).
    """

    level: str | None = None
    channel: int | None = None
    time: int | None = None
    choices: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VolumeDescription:
    """One volume that a container holds, by its metadata alone.

    Attributes
    ----------
    path
        Where it lies inside the container, as the address's pipeline writes it: ``em/s0``,
        ``volumes/raw``, ``1/c0``; empty where the container is the volume.
    handle
        Whatever `open` needs to find these voxels again: plain JSON. It decides the volume's
        identity, so no words about the volume belong in it.
    dtype
        numpy name, native byte order.
    voxel
        What the container says; None on an axis of which it says nothing.
    origin_nm_zyx
        Centre of the first voxel, None where the container does not say.
    origin
        The same where a container says more than nanometres of it, or which field says it.
    corner_nm_zyx
        Of containers that count from corners: half a voxel of their finest scale, which was taken
        off the centre, so that all their levels lie on one grid.
    kind, kind_evidence
        Image or labels where that can be told, and by what; None where it cannot.
    level, levels
        Name of this scale level, and of all there are, finest first; None and empty where the
        container has no levels.
    chunk_zyx
        Voxels of a stored chunk; None where the voxels are rows of planes.
    needs_file
        Whether the file must lie on this machine before it can be read: it is compressed as a
        whole.
    beside
        Names of further files of the same folder in which voxels lie: `FileFormat.survey` and
        `FileFormat.open` are given all of them, as `JoinedBytes`.
    lossy
        How voxels were compressed with loss (``"jpeg"``), or None.
    acquired
        ISO 8601, or None.
    signedness
        Who decided between signed and unsigned bytes, where a file leaves that open.
    about
        What the container says of title, licence, citation, doi, organism, modality, description.
    notes
        Doubts, for the record.
    extra
        Chosen facts about the recording; never a whole tag dump.
    refused
        Why this volume cannot be opened, in one sentence; None where it can.
    """

    path: str
    handle: Handle
    shape_zyx: ShapeZYX
    dtype: str
    voxel: VoxelSize = field(default_factory=VoxelSize)
    origin_nm_zyx: LengthsZYX | None = None
    origin: Origin | None = None
    corner_nm_zyx: LengthsZYX | None = None
    kind: Kind | None = None
    kind_evidence: str | None = None
    level: str | None = None
    levels: tuple[str, ...] = ()
    chunk_zyx: ShapeZYX | None = None
    needs_file: bool = False
    beside: tuple[str, ...] = ()
    lossy: str | None = None
    acquired: str | None = None
    signedness: Stated[str] | None = None
    about: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """What reading a box of a volume takes, and what the store says of the bytes.

    Attributes
    ----------
    grid
        The chunks, holes included; None where the voxels are rows of planes.
    nbytes, requests
        Of all that `VolumeReader.blocks` over the box will fetch.
    etag
        Identity of the stored bytes: changes when any chunk or document does. None where the
        container is one file, whose own identity is enough.
    notes
        For the record: what could not be told, absences that are legitimate, what proves the bytes.
    """

    grid: SourceGrid | None
    nbytes: int
    requests: int
    etag: str | None = None
    notes: tuple[str, ...] = ()


class FileFormat(Protocol):
    """Volumes in one file. `FileFormatBase` answers what most leave alone."""

    name: ClassVar[str]  # the word in an address's pipeline: "tiff"
    title: ClassVar[str]  # for people: "TIFF, BigTIFF, OME-TIFF, ImageJ"
    container: ClassVar[Literal["file"]]
    suffixes: ClassVar[tuple[str, ...]]  # lower case, with the dot; candidates, never proof
    sections: ClassVar[bool]  # numbered files of one plane each may make a volume
    headers: ClassVar[tuple[str, ...]]  # suffixes of files whose voxels lie in others beside them

    def fits(self, head: bytes, name: str) -> bool:
        """Whether a file that begins with `head` (up to `HEAD_BYTES`) is of this format."""
        ...

    def describe(self, source: ByteSource, path: str, options: Options) -> list[VolumeDescription]:
        """The volumes at `path` (empty: all) inside the file; reads metadata only.

        Raises
        ------
        FormatError, UnsupportedFormatError, NotFoundError
        """
        ...

    def survey(self, source: ByteSource, volume: VolumeDescription, box: Box) -> Survey:
        """What reading a box takes; metadata only."""
        ...

    def open(self, source: ByteSource, handle: Handle, scratch: Path | None = None) -> VolumeReader:
        """A reader of the whole volume; it closes `source`.

        Parameters
        ----------
        scratch
            A folder for temporary files, where the file must be unpacked.
        """
        ...

    def check_whole(self, path: Path, handle: Handle, name: str) -> tuple[str, ...]:
        """What a second reader says otherwise about a file that lies on this machine."""
        ...


class TreeFormat(Protocol):
    """Volumes in a tree of objects."""

    name: ClassVar[str]
    title: ClassVar[str]
    container: ClassVar[Literal["tree"]]
    markers: ClassVar[tuple[str, ...]]  # names of which one lies in a group or array of its kind

    def fits(self, tree: Tree, path: str) -> bool:
        """Whether a group or array of this format lies at `path`, by its documents."""
        ...

    def describe(
        self, tree: Tree, root: str, path: str, options: Options
    ) -> list[VolumeDescription]:
        """The volumes at and below a path: one for each multiscale, at one level, or bare array.

        Parameters
        ----------
        root
            Key of the container in the tree.
        path
            Inside the container; empty for all of it. ``VolumeDescription.path`` is of this kind.

        Raises
        ------
        NotFoundError
            Nothing is there, or the level is not; the error lists what there is.
        FormatError, UnsupportedFormatError
        """
        ...

    def survey(self, tree: Tree, root: str, volume: VolumeDescription, box: Box) -> Survey:
        """Which chunks of a box are there, and what they weigh; lists, reads no voxels."""
        ...

    def open(
        self, tree: Tree, root: str, handle: Handle, box: Box, grid: SourceGrid | None = None
    ) -> VolumeReader:
        """A reader of `box` (in the array's voxels); its blocks count from the box's corner.

        Parameters
        ----------
        grid
            Of the survey: which chunks are known to be absent.
        """
        ...


def only_path(path: str, source: ByteSource) -> None:
    """Raise `NotFoundError` for a path inside a file that is its one volume."""
    if path:
        raise NotFoundError(
            f"there is no {path!r} inside: the file is its one volume",
            location=source.name,
            advice="Leave out what follows the colon",
        )


class FileFormatBase:
    """What formats of planes need not say for themselves."""

    container: ClassVar[Literal["file"]] = "file"
    sections: ClassVar[bool] = False
    headers: ClassVar[tuple[str, ...]] = ()

    def survey(self, source: ByteSource, volume: VolumeDescription, box: Box) -> Survey:
        """All bytes, or the share of the box's planes, in the largest ranges."""
        nbytes = source.size
        if box.shape_zyx[0] < volume.shape_zyx[0]:
            nbytes = -(-nbytes * box.shape_zyx[0] // volume.shape_zyx[0])
        return Survey(None, nbytes, -(-nbytes // source.range_bytes))

    def check_whole(self, path: Path, handle: Handle, name: str) -> tuple[str, ...]:
        return ()
