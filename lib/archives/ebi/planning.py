"""From the files of an entry to the plans of its volumes.

Voxel sizes stand in names and in the text of an entry, too: ``20140801_hela-wt_xy5z8nm_as`` (5 nm
in plane, 8 nm along z), ``8x8x8nm``, ``z=12.6376um`` in the name of each section, "50 nm per
section" in the description of an image set. Nothing is read that could be understood in two ways.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lib.about import Provenance
from lib.archives.ebi.entry import EmpiarEntry, ImageSet
from lib.archives.ebi.files import EntryFiles
from lib.archives.ebi.grouping import Sorting, Volume
from lib.archives.ebi.reading import BY_NAME, range_wise, rows_wise
from lib.archives.ebi.tree import EbiTree
from lib.archives.ebi.volumes import (
    Known,
    Pairing,
    claims_about,
    disagreements,
    of_category,
    stated_category,
)
from lib.archives.selection import Crop, choose_crop, left_out_notes
from lib.archives.voxels import CatalogueZYX, Claim, Voxel, decide_voxel
from lib.config.loaders import EBIConfig
from lib.errors import NotFoundError
from lib.formats import registry
from lib.formats.format import Origin, Survey
from lib.geometry import to_nm
from lib.plan import About, SourceFile, VolumePlan
from lib.safety import slug

_FLOAT = r"(\d+(?:\.\d+)?)"
_UNIT = r"(nm|um|µm|μm)"
_XY_Z = re.compile(rf"(?<![A-Za-z])xy[ _=-]?{_FLOAT}[ _-]?z[ _=-]?{_FLOAT}[ _]?{_UNIT}", re.I)
_THREE = re.compile(rf"(?<![\d.]){_FLOAT}[ _]?x[ _]?{_FLOAT}[ _]?x[ _]?{_FLOAT}[ _]?{_UNIT}", re.I)
_POSITION = re.compile(rf"(?<![A-Za-z])z[ _]?[=-]?[ _]?{_FLOAT}[ _]?{_UNIT}", re.IGNORECASE)
_THICKNESS = (
    re.compile(rf"{_FLOAT}\s?{_UNIT}\s?(?:per|/)\s?(?:section|slice|cut)\b", re.IGNORECASE),
    re.compile(
        rf"\b(?:section|slice|cutting)[- ](?:thickness|spacing|interval)\s?"
        rf"(?:was|is|of|=|:)?\s?{_FLOAT}\s?{_UNIT}\b",
        re.IGNORECASE,
    ),
    re.compile(
        rf"\bz[- ](?:step|spacing|resolution|interval)(?: size)?\s?(?:was|is|of|=|:)?\s?"
        rf"{_FLOAT}\s?{_UNIT}\b",
        re.IGNORECASE,
    ),
    re.compile(
        rf"{_FLOAT}\s?{_UNIT}[- ](?:thick )?(?:sections|slices|section thickness|"
        rf"slice thickness|in z)\b",
        re.IGNORECASE,
    ),
)


def stated_in_names(path: str) -> Claim | None:
    """The voxel size in the nearest file or folder name that has one, z, y, x in nm.

    Of three different lengths the one that stands alone is z: ``4x4x40nm`` and ``40x4x4nm``.
    """
    for name in reversed(path.split("/")):
        match = _XY_Z.search(name)
        if match is not None:
            xy, z = _nm(match[1], match[3]), _nm(match[2], match[3])
            return Claim((z, xy, xy), "name", f"{match[0]!r} in {name!r}")
        match = _THREE.search(name)
        if match is None:
            continue
        a, b, c = (_nm(match[n], match[4]) for n in (1, 2, 3))
        if a == b:
            return Claim((c, b, a), "name", f"{match[0]!r} in {name!r}")
        if b == c:
            return Claim((a, b, c), "name", f"{match[0]!r} in {name!r}")
    return None


def positions_in_names(names: Sequence[str], places: Sequence[int]) -> Claim | None:
    """The mean distance of sections whose names say where each lies.

    Parameters
    ----------
    places
        z of each section, in sections.
    """
    matches = [_POSITION.search(name.rpartition("/")[2]) for name in names]
    found = [_nm(m[1], m[2]) for m in matches if m is not None]
    heights = [height for height in found if height is not None]
    if len(heights) < 2 or len(heights) != len(names):
        return None
    step = abs(heights[-1] - heights[0]) / (places[-1] - places[0])
    each = [
        abs(b - a) / (q - p)
        for a, b, p, q in zip(heights, heights[1:], places, places[1:], strict=False)
    ]
    spread = f", {min(each):.4g} to {max(each):.4g} nm" if max(each) - min(each) > 1e-6 else ""
    where = f"mean distance of the positions behind z in the names of {len(names)} sections{spread}"
    return Claim((float(f"{step:.6g}"), None, None), "name", where, 0.02) if step else None


def thickness_in_text(text: str) -> Claim | None:
    """The section thickness that a description states; None where it states several."""
    found = {
        _nm(match[1], match[2]): match[0] for words in _THICKNESS for match in words.finditer(text)
    }
    if len(found) != 1:
        return None
    ((nm, said),) = found.items()
    where = f"{said!r} in the description of the image set"
    return Claim((nm, None, None), "api", where) if nm else None


def _nm(number: str, unit: str) -> float | None:
    return to_nm(float(number), unit)


SOURCE = "ebi"
_FTP_COMMANDS = 3  # of one file: SIZE, MDTM, RETR
_SHOWN = 50
_HEADER_BYTES = 2**17  # that opening a file by ranges reads before its voxels


@dataclass(slots=True)
class Planner:
    """Makes plans of an entry's volumes; images before the labels that belong to them.

    Attributes
    ----------
    formats
        Name of the format of each file that was described, by its path.
    """

    config: EBIConfig
    entry: EmpiarEntry
    tree: EbiTree
    found: EntryFiles
    sorting: Sorting
    formats: Mapping[str, str]
    kinds: Mapping[str, Known]
    pairs: Mapping[str, Pairing]
    _voxels: dict[str, Voxel] = field(default_factory=dict)

    def plan(self, volume: Volume) -> VolumePlan:
        """The plan of one volume.

        Raises
        ------
        NotFoundError, OutOfBoundsError
            The chosen box has no section, or leaves the volume.
        """
        config, entry, known = self.config, self.entry, self.kinds[volume.path]
        claims = self._claims(volume)
        category = stated_category(volume.names[0], entry.imagesets)
        voxel, notes = self._voxel(volume, claims, category)
        crop = choose_crop(config.box, volume.shape_zyx, voxel.nm_zyx, voxel.origin_nm_zyx)
        names, reader = _chosen(volume, crop)
        reader |= self._format_of(volume)
        files = tuple(self.found.files[name] for name in names)
        survey = self._survey(volume, crop, files)
        nbytes, requests, cost_notes = _cost(files, crop, volume, survey)
        notes = [*volume.notes, *notes, *voxel.notes, *self._found_notes(volume), *cost_notes]
        if survey is not None:
            notes += survey.notes
        if claims is not None and known.kind == "image":
            notes += disagreements(claims, volume, self._images_of(claims))
        if known.kind == "labels":
            notes += [f"labels: {known.evidence}", self.pairs[volume.path].note]
        marks = f"{entry.accession}/{printable(volume.path)}"
        grid = None if survey is None else survey.grid
        return VolumePlan(
            source=SOURCE,
            source_id=entry.accession,
            source_path=marks,
            name=f"{entry.accession}_{slug(volume.stem)}{crop.suffix}",
            earlier_names=_earlier_names(entry.accession, volume, crop),
            shape_zyx=crop.box.shape_zyx,
            dtype=volume.facts.dtype,
            voxel_nm_zyx=voxel.nm_zyx,
            voxel_size_provenance=voxel.provenance,
            voxel_size_approximate=voxel.approximate,
            origin_nm_zyx=crop.origin_nm_zyx,
            box_zyx=crop.chosen,
            kind=known.kind,
            kind_evidence=known.evidence,
            internal_path=volume.inner or None,
            reader=reader,
            source_grid=grid,
            stored_as="files" if grid is None else "boxes",
            sections=reader.get("depth"),
            files=files,
            about=self._about(volume, claims),
            download_bytes=nbytes,
            download_requests=requests,
            notes=tuple(notes),
            stated=voxel.stated | known.stated | _signedness(volume),
        )

    def refused(self) -> dict[str, str]:
        """Files of a convertible kind that are in no volume, with the reason."""
        refused = {**self.found.refused, **self.sorting.refused}
        return {printable(path): why for path, why in refused.items()}

    def left_out_notes(self) -> list[str]:
        """The same, as notes of a record."""
        return left_out_notes(self.refused())

    # --- inside -----------------------------------------------------------------------------

    def _found_notes(self, volume: Volume) -> list[str]:
        """Notes of the listing: those of its folders, and those that are no other volume's."""
        volumes = [{name.rpartition("/")[0] for name in v.names} for v in self.sorting.volumes]
        here = {name.rpartition("/")[0] for name in volume.names}
        others = set[str]().union(*volumes) - here
        found = self.found.of_folder.items()
        own = [note for folder, notes in found if folder not in others for note in notes]
        return [*self.found.notes, *own]

    def _claims(self, volume: Volume) -> ImageSet | None:
        return claims_about(volume.names, self.entry.imagesets, len(self.sorting.volumes))

    def _images_of(self, claims: ImageSet) -> int:
        """Files in all volumes of which an image set speaks."""
        volumes = self.sorting.volumes
        return sum(len(v.names) for v in volumes if self._claims(v) == claims)

    def _voxel(
        self, volume: Volume, claims: ImageSet | None, category: str
    ) -> tuple[Voxel, list[str]]:
        """Voxel size and place: the file's, the API's, then names, texts and the images' own."""
        pixel_yx = claims.pixel_nm_yx if claims is not None else (None, None)
        own, notes = of_category(volume.facts.voxel, category)
        further = [
            positions_in_names(volume.names, volume.places) if volume.stacked else None,
            stated_in_names(volume.path),
            thickness_in_text(claims.details) if claims is not None else None,
        ]
        said = [claim for claim in further if claim is not None]
        images_only = any("stack of images" in note for note in volume.facts.notes)
        if "tilt series" in category.lower() or images_only:  # they lie at no z, whoever gives one
            said = []
        origin = volume.facts.origin or Origin(
            nm_zyx=volume.facts.origin_nm_zyx, provenance=volume.facts.voxel.provenance
        )
        catalogue: CatalogueZYX = (None, *pixel_yx)
        pairing = self.pairs.get(volume.path)
        images = None if pairing is None else self._voxels.get(pairing.image or "")
        if pairing is not None and images is not None:
            said += _as_the_images(pairing, images)
            if not origin.stated:
                z, y, x = images.origin_nm_zyx
                shifted = (z + pairing.first_z * images.nm_zyx[0], y, x)
                origin = Origin(nm_zyx=shifted, provenance="the images that the labels belong to")
        voxel = decide_voxel(own, catalogue, "the API", origin, said)
        self._voxels[volume.path] = voxel
        return voxel, [*notes]

    def _format_of(self, volume: Volume) -> dict[str, Any]:
        """How the files are opened again, where their names do not tell."""
        name = self.formats[volume.names[0]]
        if name in BY_NAME and not volume.inner:
            return {}
        known: dict[str, Any] = {"format": name, "handle": volume.facts.handle}
        return known | ({"whole": True} if volume.facts.needs_file else {})

    def _survey(self, volume: Volume, crop: Crop, files: Sequence[SourceFile]) -> Survey | None:
        """What reading by ranges takes; None where the files are brought."""
        if volume.stacked or volume.facts.needs_file or not self.tree.ranged(files[0]):
            return None
        if not range_wise(files[0], crop.chosen):
            return None
        fmt = registry.file_format(self.formats[volume.names[0]])
        with closing(self.tree.source(files[0])) as source:
            return fmt.survey(source, volume.facts, crop.box)

    def _about(self, volume: Volume, claims: ImageSet | None) -> About:
        about = self.entry.about
        left_out = [*self.found.others, *self.refused()]
        extra: dict[str, Any] = {**about.extra, "unsupported_files": left_out[:_SHOWN]}
        extra |= volume.facts.extra
        if claims is not None and claims.name:
            extra["imageset"] = claims.name
        if category := stated_category(volume.names[0], self.entry.imagesets):
            extra["imageset_category"] = category
        if volume.numbers:
            extra["section_numbers"] = [volume.numbers[0], volume.numbers[-1]]
        pairing = self.pairs.get(volume.path)
        if pairing is not None and pairing.image is not None:
            extra["labels_of"] = {
                "volume": f"{self.entry.accession}/{printable(pairing.image)}",
                "first_section": pairing.first_z,
            }
        changes: dict[str, Any] = {"extra": extra}
        if volume.facts.acquired is not None:
            changes["imaging_date"] = volume.facts.acquired
            where = f"header of {volume.names[0]}"
            changes["stated"] = {"imaging_date": Provenance(source="file", where=where)}
        if claims is not None and claims.details:
            changes["description"] = claims.details
        return about.revised(**changes)


def _earlier_names(accession: str, volume: Volume, crop: Crop) -> tuple[str, ...]:
    earlier = volume.earlier_stem
    return (f"{accession}_{slug(earlier)}{crop.suffix}",) if earlier else ()


def printable(path: str) -> str:
    """A path of bytes that are no UTF-8, without losing what tells it from another."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _as_the_images(pairing: Pairing, images: Voxel) -> list[Claim]:
    """The images' lengths as a claim about the labels, each with the images' own source."""
    claims = []
    for n, axis in enumerate("zyx"):
        by = images.stated[f"voxel_size_nm.{axis}"]
        if by.source != "assumed":
            z, y, x = (images.nm_zyx[k] if k == n else None for k in range(3))
            claims.append(Claim((z, y, x), by.source, f"the images {pairing.image}"))
    return claims


def _signedness(volume: Volume) -> dict[str, Provenance]:
    by = volume.facts.signedness
    return {} if by is None else {"data_type": by.provenance}


def _cost(
    files: Sequence[SourceFile], crop: Crop, volume: Volume, survey: Survey | None
) -> tuple[int, int, tuple[str, ...]]:
    """Bytes and requests of a run, and what has to be said of them."""
    if survey is not None:
        header = min(_HEADER_BYTES, files[0].size or 0)
        return survey.nbytes + header, survey.requests + 1, ()
    known = [file.size for file in files if file.size is not None]
    nbytes = sum(known)
    notes: tuple[str, ...] = ()
    if len(known) < len(files):
        raw = math.prod(volume.shape_zyx) * np.dtype(volume.facts.dtype).itemsize
        mean = nbytes // len(known) if known else raw // max(1, len(files))
        nbytes += mean * (len(files) - len(known))
        notes = (f"the bytes to fetch are estimated: {len(files) - len(known)} sizes are unknown",)
    by_ftp = sum(file.url.startswith("ftp:") for file in files)
    unknown = sum(file.size is None for file in files)
    requests = _FTP_COMMANDS * by_ftp + len(files) - by_ftp + unknown
    height = volume.shape_zyx[1]
    if volume.stacked and rows_wise(files[0], crop.chosen, height):
        share = crop.box.shape_zyx[1] / height
        header = min(_HEADER_BYTES, files[0].size or 0)
        return int(nbytes * share) + header * len(files), 2 * len(files), notes
    return nbytes, requests, notes


def _chosen(volume: Volume, crop: Crop) -> tuple[list[str], dict[str, Any]]:
    """Files that the crop needs, and what opening must know of them."""
    reader: dict[str, Any] = {"places": None, "first_z": 0}
    if not volume.stacked:
        reader["file_shape_zyx"] = list(volume.shape_zyx)
        return [*volume.names], reader
    first, stop = crop.box.start_zyx[0], crop.box.stop_zyx[0]
    pairs = zip(volume.places, volume.names, strict=True)
    inside = [(place, name) for place, name in pairs if first <= place < stop]
    if not inside:
        raise NotFoundError(
            f"the archive holds no section from {first} to {stop - 1}", location="box"
        )
    reader["file_shape_zyx"] = [1, *volume.shape_zyx[1:]]
    reader["places"] = [place - first for place, _ in inside]
    reader["first_z"], reader["depth"] = first, stop - first
    return [name for _, name in inside], reader
