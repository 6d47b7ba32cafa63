"""The .xml of BigDataViewer (SpimData): which file its voxels lie in, and their lengths.

Fields as SpimData's XML writer names them; sizes are x, y, z.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol
from xml.etree.ElementTree import Element

from lib.archives.address.places import Place
from lib.bytesource.tree import join
from lib.errors import AccessDeniedError, FormatError, NotFoundError, UnsupportedFormatError
from lib.formats.format import VolumeDescription, VoxelSize, positive
from lib.geometry import to_nm
from lib.safety import parse_xml

_MOST_BYTES = 16 * 2**20
_IN_HDF5 = re.compile(r"(?P<container>.+)/t\d{5}/s(?P<setup>\d{2,})/(?P<level>\d+)/cells")
_IN_N5 = re.compile(r"(?P<container>.+\.n5)/setup(?P<setup>\d+)/timepoint\d+/s(?P<level>\d+)")
_LOADERS = {"bdv.hdf5": "hdf5", "bdv.n5": "n5"}


class Found(Protocol):
    """What `calibrated` needs of a candidate."""

    @property
    def root(self) -> str: ...
    @property
    def volume(self) -> VolumeDescription: ...


def of_voxels(place: Place) -> Place:
    """The place of the voxels that a SpimData file belongs to; any other place as it is.

    Raises
    ------
    UnsupportedFormatError
        Its voxels are neither HDF5 nor N5, or do not lie beside it or below.
    NotFoundError
        They are not there.
    """
    if place.info is None or not place.root.lower().endswith(".xml"):
        return place
    root = _document(place, place.root)
    if root is None or root.tag != "SpimData":
        return place
    loader = root.find("SequenceDescription/ImageLoader")
    kind = None if loader is None else loader.get("format")
    name = None if loader is None else loader.findtext(_LOADERS.get(kind or "", "-"))
    if loader is None or name is None:
        raise UnsupportedFormatError(
            f"BigDataViewer's image loader {kind!r}; {' and '.join(_LOADERS)} are read",
            location=place.address,
        )
    name = name.strip().replace("\\", "/")
    base = (root.findtext("BasePath") or ".").strip()
    path = name if name.startswith("/") else f"{base}/{name}"
    parts = [part for part in path.rstrip("/").split("/") if part != "."]
    if not all(parts) or any(part == ".." or ":" in part for part in parts):
        raise UnsupportedFormatError(
            f"the voxels lie at {name!r}, neither beside the .xml nor below it",
            location=place.address,
            advice="Give the address of the .h5 or .n5",
        )
    key = join(place.root.rpartition("/")[0], "/".join(parts))
    info = place.tree.look(key) if _LOADERS[str(kind)] == "hdf5" else None
    if info is None and kind == "bdv.hdf5":
        raise NotFoundError(f"{name!r} is not there", location=place.address)
    address = place.address.rpartition("/")[0]
    for part in parts:
        address = replace(place, address=address).below(part)
    return replace(place, root=key, info=info, address=address)


def calibrated(place: Place, volumes: Iterable[Found]) -> list[VolumeDescription]:
    """Volumes with the lengths that the .xml beside their file states of them."""
    documents: dict[str, Element | None] = {}
    described = []
    for one in volumes:
        full = join(one.root, one.volume.path)
        found = _IN_HDF5.fullmatch(full) or _IN_N5.fullmatch(full)
        if found is None or one.volume.refused is not None:
            described.append(one.volume)
            continue
        key = found["container"].rpartition(".")[0] + ".xml"
        if key not in documents:
            documents[key] = _document(place, key)
        name = key.rpartition("/")[2]
        document, setup, level = documents[key], int(found["setup"]), int(found["level"])
        described.append(_with_lengths(one.volume, document, name, setup, level))
    return described


def _document(place: Place, key: str) -> Element | None:
    """An XML document; None where there is none that can be read."""
    try:
        data = place.tree.get(key, _MOST_BYTES)
        return None if data is None else parse_xml(bytes(data), _MOST_BYTES)
    except (AccessDeniedError, FormatError):
        return None


def _with_lengths(
    volume: VolumeDescription, document: Element | None, name: str, setup: int, level: int
) -> VolumeDescription:
    def noted(*notes: str) -> VolumeDescription:
        return replace(volume, notes=(*volume.notes, *notes))

    if document is None:
        return noted(f"BigDataViewer states lengths in {name}, which is not beside the file")
    views = document.iterfind("SequenceDescription/ViewSetups/ViewSetup")
    view = next((one for one in views if (one.findtext("id") or "").strip() == str(setup)), None)
    if view is None:
        return noted(f"{name} has no setup {setup}")
    size, lengths = _three(view.findtext("size")), _three(view.findtext("voxelSize/size"))
    unit = (view.findtext("voxelSize/unit") or "").strip()
    if level == 0 and size is not None and tuple(size[::-1]) != volume.shape_zyx:
        return noted(f"{name} says that setup {setup} has {size} voxels (x, y, z): not believed")
    if lengths is None or level > 0 or volume.voxel.known_nm_zyx is not None:
        return noted(f"{name} says voxels of {lengths} {unit} (x, y, z) of the finest level")
    x, y, z = (positive(to_nm(n, unit)) for n in lengths)
    if x is None or y is None or z is None:
        return noted(f"{name} says voxels of {lengths} {unit!r}: no length, so it is not taken")
    moved = noted(f"the places that {name} gives its views (ViewRegistrations) are not applied")
    return replace(moved, voxel=VoxelSize(z, y, x, f"voxelSize of {name}"))


def _three(text: str | None) -> list[float] | None:
    try:
        numbers = [float(n) for n in (text or "").split()]
    except ValueError:
        return None
    return numbers if len(numbers) == 3 else None
