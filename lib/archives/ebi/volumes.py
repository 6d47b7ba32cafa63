"""What the archive's own words and the files say of a volume, and where they contradict.

Which volumes of an entry are labels, and which images they belong to: an entry does not say so.
What tells it, in this order: the words of the nearest file or folder name that has any, an integer
type that only labels have, a file that is called like another and an organelle. Numbers with a
point are never labels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lib.about import Provenance, Source
from lib.archives.ebi.entry import ImageSet
from lib.archives.ebi.grouping import Volume
from lib.formats.format import Origin, VolumeDescription, VoxelSize
from lib.plan import VolumePlan
from lib.vocabulary import (
    IMAGE_WORDS,
    LABEL_WORDS,
    Kind,
    any_image,
    kind_of_words,
    labels_by_type,
    words_of,
)

_VOLUMES = "reconstructed volumes"  # of EMPIAR's categories, those whose sections lie at a z
# and those whose files are no sections, however they are numbered
_THUMBNAILS = frozenset({"thumb", "thumbs", "thumbnail", "thumbnails"})
_NO_SECTIONS = ("micrograph", "tilt series", "particle", "class average", "diffraction", "subtomo")
_FRAMES = re.compile(
    r"(?<![a-z])(?:fractions|movies?|gain|(?:gain|super|count|dark)[ _-]?ref)(?![a-z])"
    r"|\.mrcs(?=$|\.gz$|\.bz2$)",
    re.IGNORECASE,
)
# formats that have several names
_MRC = frozenset({"MRC", "REC", "ST", "ALI", "MAP"})
_ALIKE = (
    frozenset({"TIF", "TIFF", "BTF"}),
    frozenset({"H5", "HDF5", "HDF", "IMS"}),
    frozenset({"JPG", "JPEG"}),
)


def claims_about(
    names: Sequence[str], imagesets: Sequence[ImageSet], volumes: int
) -> ImageSet | None:
    """The image set that speaks of these files; None where that cannot be told.

    That of their folder and format, where there is one; a lone one speaks of a lone volume,
    whatever it says of the format.
    """
    fitting = [s for s in imagesets if _names_format(names[0], s)]
    here = [s for s in _of_folder(names[0], imagesets) if s in fitting]
    if len(here) == 1:
        return here[0]
    if len(fitting) == 1:
        return fitting[0]
    if len(imagesets) == 1 and volumes == 1:
        return imagesets[0]
    return None


def _names_format(name: str, imageset: ImageSet) -> bool:
    """Whether the image set's format is a file's own, a tilt series being no other MRC file."""
    suffix = name.upper().rpartition(".")[2]
    formats = set(imageset.data_format.upper().split())
    return any(suffix in alike and formats & alike for alike in (*_ALIKE, {suffix}))


def _is_of_format(name: str, imageset: ImageSet) -> bool:
    stem, _, suffix = name.upper().rpartition(".")
    if suffix in ("GZ", "BZ2"):
        name, suffix = stem, stem.rpartition(".")[2]
    formats = set(imageset.data_format.upper().split())
    return _names_format(name, imageset) or (suffix in _MRC and bool(formats & _MRC))


def stated_dtype(name: str, imagesets: Sequence[ImageSet]) -> str | None:
    """The voxel type that all image sets of a file's format agree on; None where they do not.

    A lone image set speaks of every file.
    """
    dtypes = {imageset.dtype for imageset in _speaking_of(name, imagesets)}
    return dtypes.pop() if len(dtypes) == 1 else None


def stated_category(name: str, imagesets: Sequence[ImageSet]) -> str:
    """The category that all image sets of a file's format agree on; empty where they do not."""
    categories = {imageset.category for imageset in _speaking_of(name, imagesets)}
    return categories.pop() if len(categories) == 1 else ""


def why_none(name: str, imagesets: Sequence[ImageSet]) -> str:
    """Why the archive's words or its own name speak against a file; empty where they do not."""
    if thumbs := {*words_of(name)} & _THUMBNAILS:
        return f"{min(thumbs)!r} in its path: a small copy (assemble=files takes each file)"
    if found := _FRAMES.search(name.rpartition("/")[2]):
        return (
            f"{found[0]!r} in its name: frames of a movie, particles or a detector's reference, "
            "which are no volume (assemble=files takes each file)"
        )
    categories = {imageset.category for imageset in _speaking_of(name, imagesets)}
    if categories and all(any(w in c.lower() for w in _NO_SECTIONS) for c in categories):
        said = ", ".join(sorted(repr(category) for category in categories))
        return (
            f"the archive calls the images {said}, which are no volume (assemble=files takes each "
            "file, assemble=stack puts them together)"
        )
    return ""


def _of_folder(name: str, imagesets: Sequence[ImageSet]) -> list[ImageSet]:
    """The image sets of the nearest folder above a file that has any."""
    above = [s for s in imagesets if name.startswith(f"{s.folder}/")]
    nearest = max((len(s.folder) for s in above), default=0)
    return [s for s in above if len(s.folder) == nearest]


def _speaking_of(name: str, imagesets: Sequence[ImageSet]) -> list[ImageSet]:
    """Image sets of the file's folder and format, as far as any is."""
    here = _of_folder(name, imagesets) or [*imagesets]
    return [s for s in here if _is_of_format(name, s)] or here


def of_category(voxel: VoxelSize, category: str) -> tuple[VoxelSize, tuple[str, ...]]:
    """A file's voxel size in the light of the image set's category, and what that says otherwise.

    The images of a tilt series lie at no z, whatever length a header gives their cell.
    """
    if not category or category.lower() == _VOLUMES:
        return voxel, ()
    note = f"the API calls the images {category!r}"
    if "tilt series" in category.lower() and voxel.z_nm is not None:
        note += f": they lie at no z, and the file's step of {voxel.z_nm:g} nm is left out"
        voxel = replace(voxel, z_nm=None)
    return voxel, (note,)


def other_geometry(facts: VolumeDescription, plan: VolumePlan) -> list[str]:
    """Where a file of a plan has voxels of another size, or a plane in another place.

    The plan was made from the first file's header; of a stack, each other section is read when it
    has come.
    """
    notes = []
    own = zip("zyx", (facts.voxel.z_nm, facts.voxel.y_nm, facts.voxel.x_nm), strict=True)
    for (axis, length), planned in zip(own, plan.voxel_nm_zyx, strict=True):
        by = plan.stated.get(f"voxel_size_nm.{axis}")
        if by is None or by.source != "file":
            continue
        if length is None or not math.isclose(length, planned, rel_tol=1e-6):
            said = "no size" if length is None else f"{length:g} nm"
            notes.append(f"{said} along {axis}, the first file of the volume {planned:g} nm")
    if plan.reader["places"] is not None:
        placed = (facts.origin or Origin()).at(plan.voxel_nm_zyx)
        start = plan.box_zyx.start_zyx if plan.box_zyx else (0, 0, 0)
        for n, name in ((1, "y"), (2, "x")):
            first = plan.origin_nm_zyx[n] - start[n] * plan.voxel_nm_zyx[n]
            if not math.isclose(placed[n], first, rel_tol=1e-6, abs_tol=1e-6):
                notes.append(
                    f"begins at {name} {placed[n]:g} nm, the first file of the stack at "
                    f"{first:g} nm; the sections are not shifted"
                )
    return notes


def disagreements(claims: ImageSet, volume: Volume, every: int) -> tuple[str, ...]:
    """Where the API contradicts the files about size, type and number; the files are right.

    Parameters
    ----------
    every
        Files in all volumes of the image set, which may be runs, or images and their labels.
    """
    notes = []
    height, width = volume.shape_zyx[1:]
    stated = (claims.width, claims.height)
    if None not in stated and stated != (width, height):
        notes.append(
            f"the API says {claims.width} x {claims.height} pixels (x, y), the file "
            f"{width} x {height}; the file's size was taken"
        )
    if claims.dtype is not None and claims.dtype != volume.facts.dtype:
        notes.append(f"the API says {claims.dtype} voxels, the file {volume.facts.dtype}")
    if volume.stacked and claims.images not in (None, len(volume.names), every):
        note = f"the API says {claims.images} images, there are {len(volume.names)}"
        more = f", and {every} in all volumes of the image set"
        notes.append(note + (more if every != len(volume.names) else ""))
    return tuple(notes)


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_IMAGES = IMAGE_WORDS | _set("source original originals clahe overview aligned recorded")
_ORGANELLES = _set(
    "mito mitos mitochondria mitochondrion nucleus nuclei nuclear er golgi actin membrane "
    "membranes vesicle vesicles lysosome lysosomes peroxisome peroxisomes lipid lipids axon axons "
    "synapse synapses microtubule microtubules endosome endosomes cell cells granules ccp np ld "
    "vessel vessels"
)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_MARK = re.compile(r"(?<![0-9])[0-9]{1,5}(?![0-9])|(?<![A-Za-z])[A-Za-z](?![A-Za-z])")


@dataclass(frozen=True, slots=True)
class Known:
    """What a volume is, and by what that is known; the evidence is None where nothing says it."""

    kind: Kind
    evidence: str | None = None
    by: Source = "file"

    @property
    def stated(self) -> dict[str, Provenance]:
        """Who says it, as a plan has it."""
        if self.evidence is None:
            return {}
        return {"kind": Provenance(source=self.by, where=self.evidence)}


@dataclass(frozen=True, slots=True)
class Pairing:
    """The images that a volume of labels belongs to.

    Attributes
    ----------
    image
        Path of the images' volume; None where none fits.
    first_z
        Section of the images on which the first section of labels lies.
    note
        How that was found, or why there is none; for the record.
    """

    image: str | None
    first_z: int
    note: str


def kinds_of(volumes: Sequence[Volume]) -> dict[str, Known]:
    """Image or labels, of each volume by its path."""
    return {volume.path: _kind(volume, volumes) for volume in volumes}


def pair_up(volumes: Sequence[Volume], kinds: Mapping[str, Known]) -> dict[str, Pairing]:
    """The images of each volume of labels, by the labels' path.

    The nearest in name and folder whose sections have the labels' size and numbers. Labels that
    count from 0 where as many images count from 1 belong together in their order.
    """
    images = [volume for volume in volumes if kinds[volume.path].kind == "image"]
    return {
        volume.path: _pairing(volume, images)
        for volume in volumes
        if kinds[volume.path].kind == "labels"
    }


# --- kinds ----------------------------------------------------------------------------------


def _kind(volume: Volume, volumes: Sequence[Volume]) -> Known:
    dtype = np.dtype(volume.facts.dtype)
    if volume.facts.kind is not None:
        return Known(volume.facts.kind, volume.facts.kind_evidence)
    if dtype.kind not in "iu":
        return Known("image", f"voxels are {dtype.name}")
    where = [*volume.path.replace("|", "/").split("/")]
    own = _kind_of_file(where, volumes)
    if own is not None:
        return own
    for name in reversed(where[:-1]):
        words = {*words_of(name)}
        labels, images = words & LABEL_WORDS, words & _IMAGES
        if labels and not images:
            return Known("labels", f"{name!r} speaks of {min(labels)!r}", "name")
        if images and not labels:
            return Known("image", f"{name!r} speaks of {min(images)!r}", "name")
    if labels_by_type(dtype.name, volume.names[:1]):
        return Known("labels", f"voxels are {dtype.name}")
    like = _called_after(volume, volumes)
    if like is not None:
        why = f"it is called after an organelle and {like!r}, of the same size"
        return Known("labels", why, "name")
    return Known("image")


def _kind_of_file(where: Sequence[str], volumes: Sequence[Volume]) -> Known | None:
    """What the name of a file says, with its folder's where the name is that of any image."""
    *folders, name = where
    words = words_of(name)
    kind = kind_of_words(words, _IMAGES)
    if kind == "labels":
        word = min({*words} & LABEL_WORDS)
        return Known("labels", f"{name!r} speaks of {word!r}", "name")
    if kind is None:
        return None
    folder = folders[-1] if folders else ""
    above = {*words_of(folder)}
    if any_image(words, _IMAGES) and above & LABEL_WORDS and not above & _IMAGES:
        twin = next((v.path for v in volumes if _is_twin(v.path, where)), None)
        if twin is None:
            return Known("image")  # in doubt, which a note says
        why = f"{folder!r} speaks of {min(above & LABEL_WORDS)!r}, and {twin!r} is called alike"
        return Known("labels", why, "name")
    return Known("image", f"{name!r} speaks of {min({*words} & _IMAGES)!r}", "name")


def _is_twin(path: str, where: Sequence[str]) -> bool:
    """Whether a volume is called like the file at `where`, in a folder without labels' words.

    Suffixes, and a channel's number at the end of an image's name, may differ.
    """
    *folders, name = path.replace("|", "/").split("/")
    words = {word for folder in folders[-1:] for word in words_of(folder)}
    stem, other = (re.sub(r"(?:_0000)?(?:\.[a-z0-9]+){1,2}$", "", n, flags=re.I)
                   for n in (name, where[-1]))  # fmt: skip
    return stem == other and folders != [*where[:-1]] and not words & LABEL_WORDS


def _called_after(volume: Volume, volumes: Sequence[Volume]) -> str | None:
    """The volume of which this one has the name, and at its end an organelle's."""
    folder, _, name = volume.path.rpartition("/")
    stem = name.rpartition(".")[0] or name
    own = {*words_of(stem)}
    for other in volumes:
        beside, _, called = other.path.rpartition("/")
        base = called.rpartition(".")[0] or called
        if other is volume or beside != folder or other.shape_zyx != volume.shape_zyx:
            continue
        base_without = re.sub(r"[_-](em|raw|image)$", "", base, flags=re.IGNORECASE)
        rest = stem.removeprefix(base_without)
        if rest != stem and {*words_of(rest)} & own & _ORGANELLES:
            return called
    return None


# --- pairs ----------------------------------------------------------------------------------


def _pairing(labels: Volume, images: Sequence[Volume]) -> Pairing:
    """The nearest images that fit; where none or several do, why."""
    ranked = sorted(images, key=lambda image: (-_nearness(labels, image), image.path))
    fitting: list[tuple[float, Pairing]] = []
    reasons: list[str] = []
    for image in ranked:
        near = _nearness(labels, image)
        if fitting and near < fitting[0][0]:
            break
        fit = _other_thing(labels, image) or _fit(labels, image)
        if isinstance(fit, Pairing):
            fitting.append((near, fit))
        else:
            reasons.append(f"{image.path}: {fit}")
    if len(fitting) == 1:
        return fitting[0][1]
    if fitting:
        some = ", ".join(str(fit.image) for _, fit in fitting[:5])
        return Pairing(None, 0, f"paired with no images: {len(fitting)} fit alike, such as {some}")
    if not reasons:
        return Pairing(None, 0, "labels without images: the entry has none beside them")
    return Pairing(None, 0, f"paired with no images; nearest is {reasons[0]}")


def _nearness(one: Volume, other: Volume) -> float:
    """How many folders two volumes share, and how alike their names and numbers are."""
    first, second = one.path.split("/"), other.path.split("/")
    shared = 0
    for a, b in zip(first[:-1], second[:-1], strict=False):
        if a != b:
            break
        shared += 1
    words = [{*words_of(p)} - LABEL_WORDS - _IMAGES for p in (one.path, other.path)]
    return shared + _alike(*words) + _alike(_marks(one), _marks(other))


def _alike(one: set[str], other: set[str]) -> float:
    union = one | other
    return len(one & other) / len(union) if union else 0.0


def _marks(volume: Volume) -> set[str]:
    """What tells things of one name apart: numbers, no dates among them, and lone letters."""
    folder, _, name = volume.path.rpartition("/")
    plain = _CAMEL.sub(" ", f"{folder}/{name.rpartition('.')[0] or name}")
    return {mark.lower().lstrip("0") or "0" for mark in _MARK.findall(plain)}


def _other_thing(labels: Volume, image: Volume) -> str:
    """Why labels are of something else than images that are called alike: ``cell1``, ``cell2``."""
    own, other = _marks(labels) - _marks(image), _marks(image) - _marks(labels)
    kinds = LABEL_WORDS | _IMAGES | _ORGANELLES
    words = [{w for w in words_of(v.path) if len(w) > 1} - kinds for v in (labels, image)]
    if not (own and other) or words[0] != words[1]:
        return ""
    return f"its name says {min(other)!r} where that of the labels says {min(own)!r}"


def _fit(labels: Volume, image: Volume) -> Pairing | str:
    """How labels lie on images, or why they do not."""
    size, own = image.shape_zyx[1:], labels.shape_zyx[1:]
    if size != own:
        return f"its sections are {size} (y, x), those of the labels {own}"
    depth, count = image.shape_zyx[0], labels.shape_zyx[0]
    if not (labels.stacked and image.stacked):
        if depth != count:
            return f"it has {depth} sections, the labels {count}"
        return Pairing(image.path, 0, f"labels of {image.path}, of the same size")
    first, other = image.numbers[0], labels.numbers[0]
    step, own_step = _step(image), _step(labels)
    if depth == count and first - other in (0, 1, -1):
        shift = "" if first == other else f": they count from {other}, the images from {first}"
        if step != own_step:
            shift += f": they are numbered in steps of {own_step}, the images of {step}"
        note = f"labels of {image.path}, section by section{shift}"
        return Pairing(image.path, 0, note)
    if step != own_step:
        return f"it is numbered in steps of {step}, the labels in steps of {own_step}"
    start, rest = divmod(other - first, step)
    if rest == 0 and start >= 0 and start + count <= depth:
        note = (
            f"labels of {image.path} by their numbers: sections {start} to {start + count - 1} of "
            f"{depth}; the others have no labels"
        )
        return Pairing(image.path, start, note)
    return (
        f"it has sections {first} to {image.numbers[-1]}, the labels {other} to "
        f"{labels.numbers[-1]}, and nothing says how they lie"
    )


def _step(stack: Volume) -> int:
    """By how much the numbers of neighbours differ."""
    return max(1, (stack.numbers[-1] - stack.numbers[0]) // max(1, stack.places[-1]))
