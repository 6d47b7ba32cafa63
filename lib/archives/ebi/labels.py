"""Which volumes of an entry are labels, and which images they belong to.

An entry does not say so. What tells it, in this order: the words of the nearest file or folder name
that has any, an integer type that only labels have, a file that is called like another and an
organelle. Numbers with a point are never labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lib.about import Provenance, Source
from lib.archives.ebi.grouping import Volume
from lib.vocabulary import Kind


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_LABELS = _set(
    "label labels labelled labeled seg segs segmentation segmentations segmented mask masks gt "
    "groundtruth annotation annotations annotated instance instances classes"
)
_IMAGES = _set(
    "raw em image images source grayscale greyscale original originals clahe overview "
    "aligned recorded"
)
_ORGANELLES = _set(
    "mito mitos mitochondria mitochondrion nucleus nuclei nuclear er golgi actin membrane "
    "membranes vesicle vesicles lysosome lysosomes peroxisome peroxisomes lipid lipids axon axons "
    "synapse synapses microtubule microtubules endosome endosomes cell cells granules ccp np ld "
    "vessel vessels"
)
_WORD = re.compile(r"[a-z]+", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


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
    for name in reversed(where):
        words = {word.lower() for word in _words(name)}
        labels, images = words & _LABELS, words & _IMAGES
        if labels and not images:
            return Known("labels", f"{name!r} speaks of {min(labels)!r}", "name")
        if images and not labels:
            return Known("image", f"{name!r} speaks of {min(images)!r}", "name")
    if dtype.itemsize >= 4 and dtype.kind == "u":
        return Known("labels", f"voxels are {dtype.name}")
    like = _called_after(volume, volumes)
    if like is not None:
        why = f"it is called after an organelle and {like!r}, of the same size"
        return Known("labels", why, "name")
    return Known("image")


def _words(name: str) -> list[str]:
    """The words of a name: parted by what is no letter, or by a capital."""
    return [word for part in _WORD.findall(name) for word in _CAMEL.split(part)]


def _called_after(volume: Volume, volumes: Sequence[Volume]) -> str | None:
    """The volume of which this one has the name, and at its end an organelle's."""
    folder, _, name = volume.path.rpartition("/")
    stem = name.rpartition(".")[0] or name
    own = {word.lower() for word in _words(stem)}
    for other in volumes:
        beside, _, called = other.path.rpartition("/")
        base = called.rpartition(".")[0] or called
        if other is volume or beside != folder or other.shape_zyx != volume.shape_zyx:
            continue
        base_without = re.sub(r"[_-](em|raw|image)$", "", base, flags=re.IGNORECASE)
        rest = stem.removeprefix(base_without)
        if rest != stem and {w.lower() for w in _words(rest)} & own & _ORGANELLES:
            return called
    return None


# --- pairs ----------------------------------------------------------------------------------


def _pairing(labels: Volume, images: Sequence[Volume]) -> Pairing:
    """The nearest images that fit; where none does, why the nearest does not."""
    ranked = sorted(images, key=lambda image: (-_nearness(labels, image), image.path))
    reasons: list[str] = []
    for image in ranked:
        fit = _fit(labels, image)
        if isinstance(fit, Pairing):
            return fit
        reasons.append(f"{image.path}: {fit}")
    if not reasons:
        return Pairing(None, 0, "labels without images: the entry has none beside them")
    return Pairing(None, 0, f"paired with no images; nearest is {reasons[0]}")


def _nearness(one: Volume, other: Volume) -> float:
    """How many folders two volumes share, and how alike their names are."""
    first, second = one.path.split("/"), other.path.split("/")
    shared = 0
    for a, b in zip(first[:-1], second[:-1], strict=False):
        if a != b:
            break
        shared += 1
    words = [{w.lower() for w in _words(p)} - _LABELS - _IMAGES for p in (one.path, other.path)]
    union = words[0] | words[1]
    return shared + (len(words[0] & words[1]) / len(union) if union else 0.0)


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
    if depth == count and first - other in (0, 1, -1):
        shift = "" if first == other else f": they count from {other}, the images from {first}"
        note = f"labels of {image.path}, section by section{shift}"
        return Pairing(image.path, 0, note)
    step = max(1, (image.numbers[-1] - first) // max(1, image.places[-1]))
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
