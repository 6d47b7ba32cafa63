"""Image or labels: one rule for every source, and what decided it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lib.config.loaders import LoaderConfig
from lib.errors import ConfigError
from lib.ingest.kind import doubts_of_values, settle_kind
from lib.plan import SourceFile, VolumePlan
from lib.volumes.statistics import Statistics, StatisticsAccumulator, of_chunk, of_value_counts
from tests.kit.volume_kit import a_plan


def plan_of(file: str, dtype: str = "uint8", source: str = "ebi", **more: Any) -> VolumePlan:
    plan = a_plan((4, 5, 6), dtype)
    files = (SourceFile(url=f"https://host/data/{file}", name=file.rpartition("/")[2]),)
    update = {"source": source, "source_path": f"EMPIAR-1/data/{file}", "files": files}
    return plan.model_copy(update={**update, **more})


def settled(plan: VolumePlan, **settings: Any) -> VolumePlan:
    return settle_kind(plan, LoaderConfig(**settings))


@pytest.mark.parametrize(
    ("file", "dtype", "kind", "by", "noted"),
    [
        ("volume.tif", "uint8", "image", "assumed", False),
        ("training_groundtruth.tif", "uint8", "labels", "name", True),
        ("mito_mask.tif", "uint8", "labels", "name", True),
        ("seg_0001.tif", "uint16", "labels", "name", True),
        ("labels/plane.tif", "int32", "labels", "name", True),
        ("GroundTruth/plane_01.tif", "uint8", "labels", "name", True),
        ("raw/plane.tif", "uint8", "image", "name", False),
        ("labels/raw_plane.tif", "uint8", "image", "name", False),
        ("raw_and_labels.tif", "uint8", "image", "assumed", True),
        ("cell_01_EM_seg.tif", "uint8", "labels", "name", True),
        ("imagesAndMasks.tif", "uint8", "labels", "name", True),
        ("seg_em.tif", "uint8", "image", "assumed", True),
        ("em_semantic.tif", "uint8", "labels", "name", True),
        ("labels/image_1.tif", "uint8", "image", "assumed", True),
        ("images/image_1.tif", "uint8", "image", "name", False),
        ("segment.tif", "uint8", "image", "assumed", False),
        ("counts.tif", "float32", "image", "file", False),
        ("bodies.tif", "uint64", "labels", "file", True),
        ("bodies.tif", "uint32", "labels", "file", True),
        ("counts.dm4", "uint32", "image", "assumed", False),
        ("plane.tif", "int32", "image", "assumed", True),
    ],
)
def test_names_and_data_types_decide_where_nobody_says(
    file: str, dtype: str, kind: str, by: str, noted: bool
) -> None:
    plan = settled(plan_of(file, dtype))
    assert (plan.kind, plan.stated["kind"].source, bool(plan.notes)) == (kind, by, noted)
    assert not noted or "set kind to" in plan.notes[-1]


@pytest.mark.parametrize("evidence", [None, "voxels are float32"])
def test_voxels_with_a_point_that_are_called_labels_are_noted(evidence: str | None) -> None:
    """Their coarser levels are averages: where they are ids, that has to be said."""
    plan = settled(plan_of("masks/plane.tif", "float32", kind_evidence=evidence))
    assert plan.kind == "image"
    (note,) = plan.notes
    assert "although the folder 'masks' speaks of labels" in note
    assert "astype('uint32')" in note  # what helps: no setting does


def test_the_name_inside_a_container_comes_before_the_containers() -> None:
    inside = plan_of("segmentation.zarr", source="address", internal_path="em/raw")
    assert settled(inside).kind == "image"
    assert settled(inside.model_copy(update={"internal_path": "labels/cells"})).kind == "labels"


def test_the_archives_image_set_may_say_it() -> None:
    plan = plan_of("plane.tif")
    about = plan.about.revised(extra={"imageset": "Segmentation of mitochondria"})
    assert settled(plan.model_copy(update={"about": about})).kind == "labels"


def test_what_the_source_states_comes_before_names() -> None:
    plan = plan_of("labels/x.tif", kind_evidence="info type image")
    assert settled(plan).kind == "image"
    assert settled(plan).stated["kind"].where == "info type image"
    stated = plan_of("x.tif", kind="labels", kind_evidence="image-label")
    assert settled(stated).kind == "labels"
    assert not settled(stated).notes


def test_the_setting_comes_first_and_a_contradiction_is_noted() -> None:
    plan = settled(plan_of("x.tif", kind="labels", kind_evidence="image-label"), kind="image")
    assert (plan.kind, plan.stated["kind"].source) == ("image", "configuration")
    assert plan.notes == ("the settings say image, the data labels (image-label)",)


def test_labels_that_are_no_integers_are_refused_or_taken_for_an_image() -> None:
    with pytest.raises(ConfigError, match="labels are integers, and volume holds float32"):
        settled(plan_of("x.tif", "float32"), kind="labels")
    scalar = settled(plan_of("x.tif", "float32", kind="labels", kind_evidence="a group of labels"))
    assert scalar.kind == "image"
    assert "float32 are taken for an image" in scalar.notes[-1]


def test_the_rule_of_pooling_is_part_of_what_a_volume_is() -> None:
    plan = settled(plan_of("mask.tif"))
    yielding = settled(plan_of("mask.tif"), yielding_labels=[0])
    assert plan.labels is not None
    assert yielding.labels is not None
    assert yielding.labels.yielding == (0,)
    assert plan.identity() != yielding.identity()
    image = settled(plan_of("x.tif"))
    assert image.labels is None
    assert image.identity() == settled(plan_of("x.tif"), yielding_labels=[0]).identity()


def test_images_are_the_volumes_that_they_were() -> None:
    """Of an image nothing new is in the identity: complete volumes of before are recognised."""
    assert not {"label_pooling", "kind_evidence"} & settled(plan_of("x.tif")).identity().keys()


def statistics(values: list[int], dtype: str = "uint8") -> Statistics:
    tally = StatisticsAccumulator(np.dtype(dtype))
    tally.add(0, np.array([[values * 20]], dtype))
    return tally.result()


def test_voxels_that_look_like_labels_are_told() -> None:
    plan = settled(plan_of("x.tif"))
    (doubt,) = doubts_of_values(plan, statistics([0, 255, 3]))
    assert "only 3 values occur (0, 3, 255)" in doubt
    assert not doubts_of_values(plan, statistics(list(range(60))))
    assert not doubts_of_values(plan, statistics([7]))
    assert not doubts_of_values(settled(plan_of("x.tif"), kind="image"), statistics([0, 255]))
    assert not doubts_of_values(plan, of_value_counts(np.zeros(256, np.int64), np.dtype("uint8")))


@pytest.mark.parametrize(
    ("dtype", "values", "mark"),
    [
        ("int16", [-1, 0, 5], -1),
        ("int64", [-2, 0, 5], None),
        ("uint64", [0, 7, 2**64 - 1], 2**64 - 1),
        ("uint8", [0, 255], None),  # a mask
    ],
)
def test_a_value_that_often_means_not_annotated_is_told(
    dtype: str, values: list[int], mark: int | None
) -> None:
    """It votes as any id does in coarser levels, unless the settings say otherwise."""
    found = of_chunk(np.array([[values]], dtype))
    told = doubts_of_values(settled(plan_of("mask.tif", dtype), kind="labels"), found)
    assert [doubt.split()[0] for doubt in told] == ([] if mark is None else [str(mark)])
    if mark is not None:
        yielding = {"kind": "labels", "yielding_labels": [mark]}
        assert not doubts_of_values(settled(plan_of("mask.tif", dtype), **yielding), found)


def test_a_class_that_is_said_to_be_unknown_is_told() -> None:
    plan = settled(plan_of("mask.tif"), kind="labels")
    rows = {"properties": [{"label-value": 255, "class": "unknown"}]}
    plan = plan.model_copy(update={"about": plan.about.revised(extra={"image_label": rows})})
    (doubt,) = doubts_of_values(plan, statistics([0, 1, 255]))
    assert doubt.startswith("255 occurs")


def test_ids_far_apart_look_like_labels_too() -> None:
    """Too far for a bin each; a picture with one hot pixel is none of them."""
    plan = settled(plan_of("x.tif", "int32"))
    ids = of_chunk(np.array([[[0, 70_000, 900_000, 2**24] * 9]], np.int32))
    (doubt,) = doubts_of_values(plan, ids)
    assert "values occur in 4 places only" in doubt
    grey = np.arange(5000, dtype=np.int32).reshape(5, 10, 100)
    grey[0, 0, :2] = 2**30, -(2**29)
    assert not doubts_of_values(plan, of_chunk(grey + 2**20))


def test_a_mask_with_all_greys_is_told() -> None:
    plan = settled(plan_of("mask.tif"))
    (doubt,) = doubts_of_values(plan, statistics(list(range(256))))
    assert "set kind to image" in doubt
    wide = settled(plan_of("x.tif", "int32"))
    assert not doubts_of_values(wide, of_chunk(np.array([[[0, 1 << 30]]], np.int32)))


@pytest.mark.parametrize(
    ("path", "advice"),
    [(None, "If these are, write them"), ("ebi/em.ome.zarr", "Name labels of integers")],
)
def test_floats_where_labels_are_demanded_are_refused_with_what_helps(
    path: str | None, advice: str
) -> None:
    plan = plan_of("x.tif", "float32", image_path=path)
    with pytest.raises(ConfigError, match="labels are integers") as caught:
        settled(plan, kind="labels")
    assert (caught.value.advice or "").startswith(advice)
