"""Entries of EMPIAR built like real ones: their names, folders, tags and traps, in small.

Accessions, folders and file names are those of public entries (as public code that reads them has
them); voxels and the texts are invented. Each entry says what must become of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from emulators.empiar_documents import entry_document, imageset_document, person_document
from emulators.tissue import labels, tissue
from lib.vocabulary import Kind

Json = dict[str, Any]
Voxels = NDArray[Any]
Shape = tuple[int, int, int]
VoxelNM = tuple[float | None, float | None, float | None]

_WORLD = "/empiar/world_availability"

HIDDEN = frozenset({f"{_WORLD}/13192/data/Stalker_SBF-SEM/Carotid2/Carotid2_Z0006.tif"})
"""Files that answer, and that the mirror's page of their folder lacks, as one host's did."""


@dataclass(frozen=True)
class EntryVolume:
    """A volume that an entry must become.

    Attributes
    ----------
    voxels
        z, y, x.
    voxel_nm_zyx
        None on an axis of which nobody says anything.
    labels_of
        Path of the images that these labels belong to.
    """

    voxels: Voxels
    voxel_nm_zyx: VoxelNM
    kind: Kind = "image"
    labels_of: str | None = None


@dataclass(frozen=True)
class BuiltEntry:
    """An entry: its document, how its files are laid down, and what must become of them.

    Attributes
    ----------
    volumes
        By their path below the entry, ``#`` for the number of a section.
    left_out
        Files that make no volume -> a word of the reason.
    """

    number: str
    title: str
    imagesets: tuple[Json, ...]
    write: Callable[[Path], None]
    volumes: Mapping[str, EntryVolume]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def document(self) -> Json:
        """What the API answers of it."""
        person = person_document("Example", "Example Institute", "Example Town", "0", "Germany")
        return entry_document(
            f"EMPIAR-{self.number}",
            self.title,
            "Example A",
            person,
            experiment_type="FIB-SEM",
            scale="cell",
            imagesets=[*self.imagesets],
        )


@cache
def entries() -> dict[str, BuiltEntry]:
    """All of them by number."""
    from emulators import empiar_labelled, empiar_stacks  # they are made of what is here

    made = [*empiar_stacks.entries(), *empiar_labelled.entries()]
    return {entry.number: entry for entry in made}


def documents() -> dict[str, Json]:
    """The API's answers, by accession."""
    return {f"EMPIAR-{number}": entry.document for number, entry in entries().items()}


def lay_entries(root: Path) -> None:
    """Write the files of all entries below the root of the stand-in's trees."""
    for number, entry in entries().items():
        folder = root / f"ftp{_WORLD}" / number
        folder.mkdir(parents=True, exist_ok=True)
        entry.write(folder)


# --- parts --------------------------------------------------------------------------------------


def imageset(directory: str, data_format: str, count: int, voxel_type: str, **more: Any) -> Json:
    """An image set as the API has it; ``nm`` is its pixel size in plane."""
    nm = more.pop("nm", None)
    angstrom = None if nm is None else nm * 10
    sizes = {"pixel_width": angstrom, "pixel_height": angstrom, "directory": directory}
    name = more.pop("name", directory.rpartition("/")[2])
    return imageset_document(name, data_format, count, voxel_type, **sizes, **more)


def em(seed: int, shape: Shape, dtype: str = "uint8") -> Voxels:
    """Voxels of an image."""
    return tissue((0, 0, 0), shape, seed=seed, dtype=dtype)


def cells(seed: int, shape: Shape, dtype: str = "uint8") -> Voxels:
    """Labels of the cells of the same seed's image."""
    return labels((0, 0, 0), shape, seed=seed, dtype=dtype)
