"""What is known of a volume before a voxel of it is read: plain data that every layer may hold.

An archive makes a `VolumePlan`; jobs, records, raw files and workers on other hosts are told by it.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Collection, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from lib.about import About as About  # also known by this name
from lib.about import Provenance, assumed_axes
from lib.geometry import Box, LengthsZYX, ShapeZYX
from lib.vocabulary import Kind


class FrozenModel(BaseModel):
    """Frozen, JSON-able, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class SourceFile:
    """One file, or one array of objects, that a volume is made from.

    A plan holds thousands of them, so that each is as small as it can be.
    """

    url: str
    name: str
    size: int | None = None
    etag: str | None = None
    last_modified: str | None = None
    publisher_checksum: str | None = None  # "md5:...", or None where the publisher gives none


class SourceGrid(FrozenModel):
    """The chunks of the source that a volume is made from.

    Attributes
    ----------
    chunk_zyx
        Voxels of a whole chunk.
    offset_zyx
        Index, in the source's own grid, of the chunk that holds the volume's first voxel.
    cells_zyx
        Chunks along each axis that hold voxels of the volume.
    codec
        How a stored chunk is compressed, in numcodecs' words (``{"id": "zstd", "level": 1}``, or
        ``{"id": "jpeg"}`` for what numcodecs does not have); empty where it is not.
    holes
        Chunks that the source does not hold; see `pack_holes`.
    listed
        Whether the holes are known from a listing; else a chunk's absence shows when it is read.
    absent
        What an absent chunk means: a ``hole`` in the data; ``background`` that the format does not
        store; or ``unwritten``: the format reads it as a fill value that the array states, and many
        writers leave such chunks out, so it is background unless data border on it.
    """

    chunk_zyx: ShapeZYX
    offset_zyx: ShapeZYX
    cells_zyx: ShapeZYX
    codec: dict[str, Any] = Field(default_factory=dict)
    holes: str = ""
    listed: bool = True
    absent: Literal["hole", "background", "unwritten", "empty"] = "hole"

    @classmethod
    def of_box(
        cls,
        box: Box,
        chunk_zyx: ShapeZYX,
        codec: dict[str, Any] | None = None,
        holes: Collection[ShapeZYX] = (),
        absent: Literal["hole", "background", "unwritten"] = "hole",
    ) -> SourceGrid:
        """The grid of a box of the source, whose first chunk begins at voxel 0.

        Parameters
        ----------
        holes
            Indices, in the source's own grid, of chunks that are not there.
        """
        cells = box.cells(chunk_zyx)
        grid = cls(
            chunk_zyx=chunk_zyx,
            offset_zyx=cells.start_zyx,
            cells_zyx=cells.shape_zyx,
            codec=codec or {},
            absent=absent,
        )
        return grid.with_holes(holes) if holes else grid

    def with_holes(self, holes: Collection[ShapeZYX]) -> SourceGrid:
        """The same grid, of whose chunks these are not there."""
        return self.model_copy(update={"holes": pack_holes(holes, self.indices())})

    @property
    def chunks(self) -> int:
        """How many chunks hold voxels of the volume."""
        return math.prod(self.cells_zyx)

    def indices(self) -> list[ShapeZYX]:
        """Indices of all chunks in the source's own grid, in C order."""
        return Box.whole(self.cells_zyx).shifted(self.offset_zyx).indices()

    def missing(self) -> frozenset[ShapeZYX]:
        """Indices, in the source's own grid, of the chunks that the source does not hold."""
        return unpack_holes(self.holes, self.indices()) if self.holes else frozenset()

    def known_missing(self) -> frozenset[ShapeZYX] | None:
        """The same; None where nothing listed the source's objects, so that any may be missing."""
        return self.missing() if self.listed else None


def absent_note(absent: int, wanted: int, value: int | float = 0) -> tuple[str, ...]:
    """What a record says of chunks that the source does not hold; nothing where it holds all."""
    said = f"{value:g}" if isinstance(value, float) else value
    return (f"{absent} of {wanted} chunks are absent, read as {said}",) if absent else ()


def pack_holes(holes: Collection[ShapeZYX], wanted: Sequence[ShapeZYX]) -> str:
    """Holes as a compressed bitmap over the wanted chunks; empty for none."""
    if not holes:
        return ""
    absent = set(holes)
    bits = np.packbits(np.fromiter((i in absent for i in wanted), bool, len(wanted)))
    return base64.b64encode(zlib.compress(bits.tobytes())).decode()


def unpack_holes(packed: str, wanted: Sequence[ShapeZYX]) -> frozenset[ShapeZYX]:
    """Inverse of `pack_holes`."""
    if not packed:
        return frozenset()
    raw = zlib.decompress(base64.b64decode(packed))
    bits = np.unpackbits(np.frombuffer(raw, np.uint8), count=len(wanted))
    return frozenset(index for index, bit in zip(wanted, bits, strict=True) if bit)


class LabelPooling(FrozenModel):
    """How a coarser voxel of labels gets its id: the most frequent one among its children.

    Attributes
    ----------
    ties
        Which of several that are as frequent. ``largest`` is what earlier versions took: their
        volumes are known, proven and repaired by it, and none is made by it any more.
    yielding
        Ids that lose to every other, however frequent: background, or voxels that nobody annotated.
    """

    ties: Literal["smallest", "largest"] = "smallest"
    yielding: tuple[int, ...] = ()


EARLIER_POOLING = LabelPooling(ties="largest")


class VolumePlan(FrozenModel):
    """One volume to be made.

    ``reader`` is private to the archive: whatever its ``open`` needs to find the voxels again.
    ``shape_zyx``, ``origin_nm_zyx`` and the voxel size describe what will be delivered, that is,
    the ``box_zyx`` of the source where only a part was chosen.
    """

    source: str  # the registry name
    source_id: str  # the accession as the archive writes it
    # Where the archive keeps it: with ``source`` it tells the volume from all others, save parts
    # and coarser forms of it. None: accession, ``internal_path`` and name do so.
    source_path: str | None = None
    name: str  # file stem, stable from run to run; for people, and made the volume's own at ingest
    # what earlier versions called it: a volume that the store has under such a name keeps that
    earlier_names: tuple[str, ...] = ()
    shape_zyx: ShapeZYX
    dtype: str  # numpy name, native byte order: "uint8", "int16", ...
    voxel_nm_zyx: LengthsZYX
    voxel_size_provenance: str  # "file", "api", "configuration", ...
    voxel_size_approximate: bool = False
    origin_nm_zyx: LengthsZYX = (0.0, 0.0, 0.0)  # centre of the first voxel
    # of sources that count from corners: half a voxel of their finest scale, which was taken off
    corner_nm_zyx: LengthsZYX | None = None
    box_zyx: Box | None = None  # the chosen part, in the source's own voxels
    kind: Kind = "image"
    # by what the source itself states the kind; None: it does not, see `lib.ingest.kind`
    kind_evidence: str | None = None
    label_pooling: LabelPooling = LabelPooling()
    # of labels that belong to an image: where the source keeps that, and the key of its OME-Zarr
    image_path: str | None = None
    within: str | None = None
    labelled: bool = False  # an image whose run brings labels that will lie in its volume
    scale_level: str | None = None
    internal_path: str | None = None
    reader: dict[str, Any]
    source_grid: SourceGrid | None = None  # of sources that are read chunk by chunk
    sections: int | None = None  # of a stack of files, those that the archive lacks included
    # each step by which the voxels are pooled on the way, finest axes first
    downsample_steps: tuple[ShapeZYX, ...] = ()
    # whole files, read plane by plane, which ``keep_raw`` keeps; or boxes, asked for one by one
    stored_as: Literal["files", "boxes"] = "files"
    files: tuple[SourceFile, ...]
    about: About
    download_bytes: int  # what a run will fetch for this volume
    download_requests: int
    notes: tuple[str, ...] = ()  # disagreements and doubts, copied to the record
    stated: dict[str, Provenance] = Field(default_factory=dict)  # who states the geometry
    # label images that are made with this image, under its lock and in its record
    members: tuple[VolumePlan, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _as_written_before(cls, data: Any) -> Any:
        """Plans of earlier versions kept grid and steps among the archive's private notes."""
        if not isinstance(data, dict) or not isinstance(data.get("reader"), dict):
            return data
        reader = dict(data["reader"])
        if "chunk_offset_zyx" in reader and data.get("source_grid") is None:
            raise ValueError("a plan of an earlier version, without its grid: plan again")
        if _OLD_STEPS not in reader:
            return data
        return {**data, "reader": reader, "downsample_steps": reader.pop(_OLD_STEPS)}

    @property
    def assumed_axes(self) -> str:
        """Of ``zyx``, those whose voxel length nobody states: 1 nm stands in its place."""
        return assumed_axes(self.stated)

    @property
    def labels(self) -> LabelPooling | None:
        """How coarser levels take their ids; None for images, which are averaged."""
        return self.label_pooling if self.kind == "labels" else None

    @property
    def path_in_source(self) -> str:
        """Where the archive keeps the volume: ``source_path``, or what stands for it."""
        parts = (self.source_id, self.internal_path, self.name)
        return self.source_path or "/".join(part for part in parts if part)

    def identity(self) -> dict[str, Any]:
        """What decides the voxels: not the words about them, nor the server that gave them.

        Grid and steps appear under the names that earlier versions gave them, so that a volume
        that was made then is recognised.
        """
        words = {"about", "notes", "stated", "download_bytes", "download_requests", "stored_as"}
        words |= {"source_path", "earlier_names"}  # tells volumes apart, and decides no voxel
        words |= {"kind_evidence", "image_path", "corner_nm_zyx", "labelled"}
        words |= {"within"} if self.within is None else set()
        if self.labels in (None, EARLIER_POOLING):
            words |= {"label_pooling"}  # decides nothing, or is from before it was stated
        typed = {"source_grid", "sections", "downsample_steps", "members"}
        decided = self.model_dump(mode="json", exclude=words | typed)
        for file in decided["files"]:
            del file["url"]
        grid = self.source_grid
        if grid is not None:
            decided["reader"] |= {
                "chunk_offset_zyx": [*grid.offset_zyx],
                "chunks": grid.chunks,
                "holes": grid.holes,
            }
        if self.downsample_steps:
            decided["reader"][_OLD_STEPS] = [[*step] for step in self.downsample_steps]
        if self.members:
            decided["members"] = [member.identity() for member in self.members]
        return decided

    @property
    def alone(self) -> VolumePlan:
        """The image of a group by itself: its voxels do not depend on its label images."""
        return self.model_copy(update={"members": ()}) if self.members else self


_OLD_STEPS = "coarser_steps_zyx"
