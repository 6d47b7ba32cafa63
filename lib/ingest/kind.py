"""Whether voxels are an image or labels: the one place where that is decided.

Images are averaged on their way to coarser levels, labels take an id that is there; the wrong one
gives ids that do not exist, or images of noise. So it is decided once, before anything is named or
made, from (the first that speaks): the setting ``kind``; what the source itself states
(``VolumePlan.kind_evidence``: NGFF ``image-label``, precomputed ``type``, a DVID type); the data
type; the names of file and folder. What decided is in the plan's ``stated`` and in the record;
where nothing is certain a note says so, and how to say otherwise.
"""

from __future__ import annotations

import itertools
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import unquote, urlsplit

import numpy as np

from lib.about import Provenance
from lib.config.loaders import LoaderConfig
from lib.errors import ConfigError
from lib.plan import VolumePlan
from lib.vocabulary import (
    IMAGE_WORDS,
    LABEL_WORDS,
    Kind,
    any_image,
    from_detector,
    kind_of_words,
    labels_by_type,
    words_of,
)
from lib.volumes.statistics import Statistics

FEW_VALUES = 32
"""At most so many values in all are those of classes or masks, rather than of a detector."""

AS_INTEGERS = "if these are, write them as integers (numpy's astype('uint32')) and bring that in"

_PAIRS = (("ground", "truth"), ("neuron", "ids"))
_FOLDERS = 2
_FOUND_BY_NAME = ("address", "ebi", "epfl", "idr")
"""Sources in which anything may lie: the name of a file is all that tells."""


def settle_kind(plan: VolumePlan, config: LoaderConfig) -> VolumePlan:
    """The same plan with its kind decided, how labels are pooled, who decided, and any doubt.

    Raises
    ------
    ConfigError
        Labels are demanded of voxels that are no integers.
    """
    wanted = "labels" if plan.image_path is not None else config.kind
    kind, by, notes = _decide(plan, wanted)
    pooling = plan.label_pooling.model_copy(update={"yielding": tuple(config.yielding_labels)})
    return plan.model_copy(
        update={
            "kind": kind,
            "label_pooling": pooling,
            "stated": {**plan.stated, "kind": by},
            "notes": (*plan.notes, *notes),
        }
    )


def doubts_of_values(plan: VolumePlan, statistics: Statistics) -> list[str]:
    """What the voxels say against a kind that nothing but their type or names decided.

    And of labels that some may be none: a value that often means "not annotated".
    """
    if plan.kind == "labels":
        return [*_not_annotated(plan, statistics), *_doubts_of_kind(plan, statistics)]
    return _doubts_of_kind(plan, statistics)


def _not_annotated(plan: VolumePlan, statistics: Statistics) -> list[str]:
    dtype = np.dtype(plan.dtype)
    if dtype.kind not in "iu" or statistics.minimum is None or statistics.maximum is None:
        return []
    highest = int(np.iinfo(dtype).max)
    marks = [-1] if dtype.kind == "i" else [highest] if dtype.itemsize > 2 else []
    drawn = plan.about.extra.get("image_label") or {}
    named = (row for row in drawn.get("properties") or () if row.get("class") == "unknown")
    marks += [row["label-value"] for row in named]
    ends = {int(statistics.minimum), int(statistics.maximum)} - {*plan.label_pooling.yielding}
    return [
        f"{mark} occurs, which often means that nothing is annotated there: in coarser levels it "
        f"counts as any id; where it should lose to every other, set yielding_labels to {mark} and "
        "run again"
        for mark in marks
        if mark in ends
    ]


def _doubts_of_kind(plan: VolumePlan, statistics: Statistics) -> list[str]:
    by = plan.stated.get("kind")
    if by is None or by.source in ("configuration", "api", "archive") or plan.kind_evidence:
        return []
    values = _values_of(statistics) if np.dtype(plan.dtype).kind in "iu" else None
    if values is None and plan.kind == "image":
        return _lone_values(plan, statistics)
    if values is None or len(values) < 2:
        return []
    shown = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
    if plan.kind == "image" and len(values) <= FEW_VALUES:
        return [
            f"only {len(values)} values occur ({shown}): if they are labels, set kind to labels "
            "and run again, for coarser levels of an image are averages"
        ]
    if plan.kind == "labels" and len(values) > 200 and np.dtype(plan.dtype).itemsize == 1:
        return [
            f"{len(values)} of 256 values occur: if this is an image, set kind to image and run "
            "again"
        ]
    return []


def _lone_values(plan: VolumePlan, statistics: Statistics) -> list[str]:
    """The same of values too far apart for a bin each: no detector leaves gaps around every one."""
    bins = statistics.histogram
    few = max(1, statistics.finite // 1000)  # less than that are single voxels gone wrong
    if sum(count >= few for count in bins.counts) < 3:
        return []
    places = [place for place, count in enumerate(bins.counts) if count]
    apart = all(b - a > 1 for a, b in itertools.pairwise(places))
    if np.dtype(plan.dtype).kind not in "iu" or not apart or len(places) > FEW_VALUES:
        return []
    shown = ", ".join(str((bins.first + place) << bins.exponent) for place in places[:8])
    return [
        f"values occur in {len(places)} places only, far apart (near {shown}): if they are labels, "
        "set kind to labels and run again, for coarser levels of an image are averages"
    ]


def _values_of(statistics: Statistics) -> list[int] | None:
    """The values that occur, where the histogram has a bin for each; else None."""
    bins = statistics.histogram
    if bins.exponent != 0:
        return None
    return [bins.first + place for place, count in enumerate(bins.counts) if count]


def _decide(
    plan: VolumePlan, wanted: Literal["auto", "image", "labels"]
) -> tuple[Kind, Provenance, tuple[str, ...]]:
    evidence = plan.kind_evidence or ("the archive" if plan.kind == "labels" else None)
    integers = np.dtype(plan.dtype).kind in "iu"
    if wanted != "auto":
        if wanted == "labels" and not integers:
            raise ConfigError(
                f"labels are integers, and {plan.name} holds {plan.dtype}",
                archive=plan.source,
                location=plan.path_in_source,
                advice=f"I{AS_INTEGERS[1:]}; or set kind to image or auto"
                if plan.image_path is None
                else "Name labels of integers, or bring these in as a volume of their own",
            )
        where = "labels" if plan.image_path is not None else "kind"
        by = Provenance(source="configuration", where=where)
        if plan.image_path is not None and plan.kind_evidence and plan.kind == "labels":
            by = Provenance(source="file", where=plan.kind_evidence)
        if evidence and plan.kind != wanted:
            note = f"the settings say {wanted}, the data {plan.kind} ({evidence})"
            return wanted, by, (note,)
        return wanted, by, ()
    if evidence and plan.kind == "labels" and not integers:
        note = f"stated to be labels ({evidence}); voxels of {plan.dtype} are taken for an image"
        return "image", Provenance(source="file", where=f"data type {plan.dtype}"), (note,)
    by_type = Provenance(source="file", where=f"data type {plan.dtype}")
    if evidence:
        by = plan.stated.get("kind", Provenance(source="file", where=evidence))
        return plan.kind, by, () if integers else _named_like_labels(plan)
    if not integers:
        return "image", by_type, _named_like_labels(plan)
    return _by_type_and_names(plan)


def _named_like_labels(plan: VolumePlan) -> tuple[str, ...]:
    """What is to be said of voxels with a point whose names speak of labels."""
    named, kind = _named(plan)
    if kind != "labels":
        return ()
    return (
        f"an image by its data type, {plan.dtype}, although {named} speaks of labels: coarser "
        f"levels are averages. Labels are whole numbers: {AS_INTEGERS}",
    )


def _by_type_and_names(plan: VolumePlan) -> tuple[Kind, Provenance, tuple[str, ...]]:
    """For integers of which nobody says what they are."""
    dtype = np.dtype(plan.dtype)
    named, kind = _named(plan)
    if kind == "labels":
        note = f"taken for labels, because of {named}; set kind to image if that is wrong"
        return "labels", Provenance(source="name", where=f"of {named}"), (note,)
    detector = any(from_detector(file.name) for file in plan.files)
    if labels_by_type(dtype.name, [file.name for file in plan.files]):
        by = Provenance(source="file", where=f"data type {dtype.name}")
        note = f"taken for labels by their data type, {dtype.name}; set kind to image if wrong"
        return "labels", by, (note,)
    assumed = Provenance(source="assumed")
    if kind == "image":
        return "image", Provenance(source="name", where=f"of {named}"), ()
    if named:
        note = (
            f"an image is assumed, although {named} speaks of labels, too; set kind to labels if "
            "it is none"
        )
        return "image", assumed, (note,)
    if plan.source == "address" or (dtype.itemsize >= 4 and not detector):
        note = (
            "nothing says whether the voxels are an image or labels: an image is assumed; set "
            "kind to labels if they are"
        )
        return "image", assumed, (note,)
    return "image", assumed, ()


def _named(plan: VolumePlan) -> tuple[str, Kind | None]:
    """Which name speaks of labels or images (empty: none), and of what; None: of both, or none.

    The innermost name that speaks at all decides: a ``raw`` in a ``segmentation.zarr`` is an image.
    """
    if plan.source not in _FOUND_BY_NAME:
        return "", None
    for path in _paths(plan):
        *folders, name = PurePosixPath(path).parts[-_FOLDERS - 1 :] or ("",)
        own = _words(name)
        if kind_of_words(own) == "labels":
            return f"the name {name!r}", "labels"
        above = {*_words(folders[-1])} if folders else set()
        if any_image(own) and _speaks_of_labels(above) and not above & IMAGE_WORDS:
            return f"the folder {folders[-1]!r}", None
        for said, what in ((name, "name"), *((folder, "folder") for folder in reversed(folders))):
            words = {*_words(said)}
            if _speaks_of_labels(words):
                return f"the {what} {said!r}", None if words & IMAGE_WORDS else "labels"
            if words & IMAGE_WORDS:
                return f"the {what} {said!r}", "image"
    imageset = str(plan.about.extra.get("imageset") or "")
    words = {*_words(imageset)}
    if _speaks_of_labels(words):
        called = f"the image set's name {imageset!r}"
        return called, None if words & IMAGE_WORDS else "labels"
    return "", None


def _paths(plan: VolumePlan) -> list[str]:
    """Paths that the volume is known by: inside its container, then of its place and files."""
    urls = [unquote(urlsplit(file.url).path) for file in plan.files[:1]]
    place = plan.path_in_source.partition("|")[0].rstrip("/")
    paths = [plan.internal_path, place, *urls, *(file.name for file in plan.files[:1])]
    return [path for path in paths if path]


def _words(name: str) -> list[str]:
    """``trainingGroundTruth_01.tif`` -> training, ground, truth."""
    return [word for word in words_of(name) if word not in ("tif", "tiff", "ome")]


def _speaks_of_labels(words: set[str]) -> bool:
    return bool(words & LABEL_WORDS) or any(words.issuperset(pair) for pair in _PAIRS)
