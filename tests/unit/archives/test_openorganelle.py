"""OpenOrganelle: what is found, where it lies, which chunks it lacks, and what changed since."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest

from emulators import catalogue
from emulators.control import Control
from emulators.serving import BUCKET, Samples
from emulators.zarr_v2 import ZarrV2Layout, consolidate, mark_groups, write_multiscale
from lib.archives.openorganelle.archive import OpenOrganelle
from lib.config.loaders import OpenOrganelleConfig
from lib.errors import (
    BadAnswerError,
    FormatError,
    MacroscopeError,
    NotFoundError,
    OutOfBoundsError,
    SourceChangedError,
    TransportError,
    UnsupportedFormatError,
)
from lib.formats.zarr.format import ZarrReader
from lib.geometry import Box
from lib.plan import VolumePlan
from lib.rawfiles.files import RawFiles
from lib.storage.local import LocalStore
from lib.transport.limits import Limits
from lib.transport.session import Session

EM = "recon-1/em/fibsem-uint8"
NACC = "recon-2/em/fibsem-int16"
NUCLEI = "recon-2/labels/inference/segmentations/nuc"
SHAPE = (20, 33, 40)


def gradient(origin: tuple[int, int, int], shape: tuple[int, int, int]) -> Any:
    z, y, x = (np.arange(o, o + n) for o, n in zip(origin, shape, strict=True))
    return (z[:, None, None] * 5 + y[:, None] * 3 + x + 1).astype(np.uint8)


class Place:
    """The archive, with quick limits, against the running server."""

    def __init__(self, samples: Samples, folder: Path) -> None:
        self.samples, self.archive = samples, OpenOrganelle()
        self.session = Session("openorganelle", limits={"s3": Limits(4, None, 60.0, 60.0, 2, 0.01)})
        store = LocalStore(folder / "raw")
        self.raw = RawFiles(store, "openorganelle", "x", keep=False, scratch_dir=folder)

    def config(
        self, dataset: str, path: Any = EM, level: Any = "s0", **more: Any
    ) -> OpenOrganelleConfig:
        endpoints = self.samples.endpoints["OPENORGANELLE"]
        given = {"dataset_id": dataset, "zarr_path": path, "scale_level": level}
        return OpenOrganelleConfig(**(endpoints | given | more))

    def plans(self, dataset: str, *given: Any, **more: Any) -> list[VolumePlan]:
        return self.archive.plan(self.config(dataset, *given, **more), self.session)

    def plan(self, dataset: str, *given: Any, **more: Any) -> VolumePlan:
        (plan,) = self.plans(dataset, *given, **more)
        return plan

    def open(self, plan: VolumePlan) -> ZarrReader:
        return self.archive.open(
            plan, self.config(plan.source_id.split("/")[0]), self.session, self.raw
        )

    def verify_source_unchanged(self, plan: VolumePlan) -> None:
        config = self.config(plan.source_id.split("/")[0])
        self.archive.verify_source_unchanged(plan, config, self.session, self.raw)

    def voxels(self, plan: VolumePlan) -> Any:
        reader = self.open(plan)
        box = Box.whole(reader.shape_zyx)
        voxels = np.empty(box.shape_zyx, reader.dtype)
        for block in reader.blocks(box):
            voxels[block.box.slices()] = block.data
        return voxels

    def objects(self, dataset: str) -> Any:
        assert self.samples.s3 is not None
        return self.samples.s3.store(prefix=f"{dataset}/{dataset}.zarr")


@pytest.fixture
def place(samples: Samples, faults: Control, tmp_path: Path) -> Place:
    return Place(samples, tmp_path)


@pytest.fixture
def own(place: Place, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A small data set of this test alone, to be tampered with: two levels below ``em/a``."""
    dataset = f"jrc_own-{zlib.crc32(request.node.name.encode())}"
    root = tmp_path / "s3" / BUCKET / dataset / f"{dataset}.zarr"
    write_multiscale(
        root / "em/a",
        gradient,
        shape_zyx=SHAPE,
        dtype="uint8",
        voxel_nm_zyx=(6.0, 5.0, 4.0),
        levels=2,
        offset_nm_zyx=(1.0, 2.0, 3.0),
        layout=ZarrV2Layout(chunks_zyx=(8, 16, 16)),
    )
    mark_groups(root, root / "em/a")
    if "consolidated" in request.node.name:
        consolidate(root)
    assert place.samples.s3 is not None
    place.samples.s3.load(tmp_path / "s3")
    yield dataset
    store = place.objects(dataset)
    obstore.delete(store, [o["path"] for page in obstore.list(store) for o in page])


def put(place: Place, dataset: str, key: str, document: Any) -> None:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    obstore.put(place.objects(dataset), key, data)


def get(place: Place, dataset: str, key: str) -> Any:
    return json.loads(bytes(obstore.get(place.objects(dataset), key).bytes()))


# --- finding ---------------------------------------------------------------------------------


def beside(place: Place, dataset: str, attributes: Any = None) -> None:
    """A second multiscale, ``em/b``, of the level s0 alone."""
    for name in (".zgroup", ".zattrs"):
        given = attributes if name == ".zattrs" else None
        put(place, dataset, f"em/b/{name}", given or get(place, dataset, f"em/a/{name}"))
    put(place, dataset, "em/b/s0/.zarray", get(place, dataset, "em/a/s0/.zarray"))
    put(place, dataset, "em/b/s0/0/0/0", bytes(obstore.get(
        place.objects(dataset), "em/a/s0/0/0/0").bytes()))  # fmt: skip


def test_arrays_are_chosen_by_their_paths(place: Place, own: str) -> None:
    beside(place, own)
    paths = [plan.internal_path for plan in place.plans(own, "em")]
    assert paths == ["em/a/s0", "em/b/s0"]
    for settings in ({"include": ["*/a/*"]}, {"exclude": ["em/b/s0"]}):
        plan = place.plan(own, "em", **settings)
        assert plan.internal_path == "em/a/s0"
        assert "include and exclude leave out 1 of 2" in plan.notes
    with pytest.raises(NotFoundError, match="none of 2 paths, such as em/a/s0"):
        place.plans(own, "em", include=["labels/*"])


def test_a_multiscale_without_the_level_leaves_the_others(place: Place, own: str) -> None:
    beside(place, own)
    plan = place.plan(own, "em", "s1")
    assert plan.internal_path == "em/a/s1"
    assert any("em/b/s1 was left out: em/b has no level s1" in note for note in plan.notes)
    with pytest.raises(NotFoundError, match="no level s1"):
        place.plans(own, ["em/a", "em/b"], "s1")


@pytest.mark.parametrize("fault", ["array", "group"])
def test_an_array_that_cannot_be_read_leaves_the_others(place: Place, own: str, fault: str) -> None:
    beside(place, own, b"{" if fault == "group" else None)
    if fault == "array":
        put(place, own, "em/b/s0/.zarray", b"{")
    plan = place.plan(own, "em")
    assert plan.internal_path == "em/a/s0"
    assert any(note.startswith("em/b") and "was left out" in note for note in plan.notes)
    with pytest.raises(FormatError):
        place.plans(own, "em/b")


@pytest.mark.parametrize("path", ["recon-1", "recon-1/em", EM, f"/{EM}/", f"{EM}/s0"])
@pytest.mark.parametrize("dataset", ["jrc_hela-2", "jrc_macrophage-2"])  # consolidated, and not
def test_a_volume_is_found_by_group_multiscale_and_array(
    place: Place, dataset: str, path: str
) -> None:
    plan = place.plan(dataset, path)
    assert plan.internal_path == f"{EM}/s0"
    assert plan.scale_level == "s0"
    assert plan.source_id == f"{dataset}/{EM}/s0"
    assert plan.name == f"{dataset}_recon-1_em_fibsem-uint8_s0"
    assert plan.kind == "image"
    truth = catalogue.truth(f"openorganelle/{dataset}/{EM}/s0")
    assert plan.shape_zyx == truth.shape
    np.testing.assert_array_equal(place.voxels(plan), truth)


def test_the_data_sets_own_em_is_found_without_a_path(place: Place) -> None:
    assert place.plan("jrc_mus-nacc-2", None).internal_path == f"{NACC}/s0"


def test_levels_are_chosen_one_several_or_all(place: Place) -> None:
    def levels(level: Any) -> list[str | None]:
        return [plan.scale_level for plan in place.plans("jrc_mus-nacc-2", NACC, level)]

    assert levels("s2") == ["s2"]
    assert levels(["s1", "s3"]) == ["s1", "s3"]
    assert levels("all") == ["s0", "s1", "s2", "s3"]


def test_several_paths_give_several_volumes_each_once(place: Place) -> None:
    plans = place.plans("jrc_mus-nacc-2", [NACC, NUCLEI, f"{NACC}/s1", "recon-2/em"], "s1")
    assert [plan.internal_path for plan in plans] == [f"{NACC}/s1", f"{NUCLEI}/s1"]
    assert [plan.kind for plan in plans] == ["image", "labels"]
    assert len({plan.name for plan in plans}) == 2


def test_everything_below_a_group_is_found(place: Place) -> None:
    found = {plan.internal_path for plan in place.plans("jrc_mus-nacc-2", "recon-2", "s0")}
    assert found == {f"{NACC}/s0", f"{NUCLEI}/s0"}


def test_labels_are_known_by_their_path_and_by_their_attributes(place: Place, own: str) -> None:
    assert place.plan("jrc_mus-nacc-2", NUCLEI).kind == "labels"
    assert place.plan(own, "em/a").kind == "image"
    attributes = get(place, own, "em/a/.zattrs")
    put(place, own, "em/a/.zattrs", attributes | {"image-label": {"version": "0.4"}})
    assert place.plan(own, "em/a").kind == "labels"


@pytest.mark.parametrize(
    ("path", "level", "named"),
    [
        ("recon-9", "s0", "recon-1"),
        ("recon-1/em/tem-uint8", "s0", "fibsem-uint8"),
        (EM, "s7", "s0, s1, s2"),
        (EM, ["s0", "s9"], "s0, s1, s2"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(
    place: Place, path: str, level: Any, named: str
) -> None:
    with pytest.raises(NotFoundError) as caught:
        place.plans("jrc_hela-2", path, level)
    assert named in caught.value.advice
    assert caught.value.archive == "openorganelle"
    assert "jrc_hela-2.zarr" in (caught.value.location or "")


def test_a_data_set_that_does_not_exist_is_not_found(place: Place) -> None:
    with pytest.raises(NotFoundError) as caught:
        place.plans("jrc_nothing-1", "recon-1")
    assert "nothing" in caught.value.advice


def test_a_multiscale_that_names_a_level_it_lacks_is_not_believed(place: Place, own: str) -> None:
    obstore.delete(place.objects(own), "em/a/s1/.zarray")
    with pytest.raises(NotFoundError, match="no level s1"):
        place.plans(own, "em/a", "s1")


def test_looking_for_multiscales_stays_out_of_the_chunks(
    place: Place, own: str, faults: Control
) -> None:
    """An array that no multiscale names has thousands of folders below it."""
    obstore.delete(place.objects(own), "em/a/.zattrs")
    faults.counters.clear()
    with pytest.raises(NotFoundError):
        place.plans(own, "em")
    assert faults.counters.snapshot()["services"]["s3"]["requests"] < 20


# --- where it lies ---------------------------------------------------------------------------


def test_each_level_has_its_own_voxel_size_and_translation(place: Place, own: str) -> None:
    fine, coarse = place.plans(own, "em/a", "all")
    assert (fine.voxel_nm_zyx, fine.origin_nm_zyx) == ((6.0, 5.0, 4.0), (1.0, 2.0, 3.0))
    assert (coarse.voxel_nm_zyx, coarse.origin_nm_zyx) == ((12.0, 10.0, 8.0), (4.0, 4.5, 5.0))
    assert fine.voxel_size_provenance == "file"
    assert not fine.voxel_size_approximate


def test_micrometres_become_nanometres_and_a_missing_unit_is_noted(place: Place) -> None:
    assert place.plan("jrc_macrophage-2").voxel_nm_zyx == pytest.approx((3.36, 4.0, 4.0))
    unstated = place.plan("jrc_cos7-1")
    assert unstated.voxel_nm_zyx == pytest.approx((8.0, 8.0, 8.0))
    assert any("unit" in note for note in unstated.notes)
    assert (unstated.voxel_size_provenance, unstated.voxel_size_approximate) == ("assumed", True)
    assert not any("unit" in note for note in place.plan("jrc_hela-2").notes)


def test_the_outer_transformation_is_multiplied_in(place: Place, own: str) -> None:
    attributes = get(place, own, "em/a/.zattrs")
    attributes["multiscales"][0]["coordinateTransformations"] = [
        {"type": "scale", "scale": [2.0, 3.0, 10.0]},
        {"type": "translation", "translation": [100.0, 0.0, 0.5]},
    ]
    put(place, own, "em/a/.zattrs", attributes)
    plan = place.plan(own, "em/a", "s1")
    assert plan.voxel_nm_zyx == (24.0, 30.0, 80.0)
    assert plan.origin_nm_zyx == (108.0, 13.5, 50.5)


def test_a_voxel_size_from_the_settings_counts_for_the_finest_level(place: Place, own: str) -> None:
    plans = place.plans(own, "em/a", "all", voxel_size=(60.0, 10.0, 4.0))
    assert [plan.voxel_nm_zyx for plan in plans] == [(60.0, 10.0, 4.0), (120.0, 20.0, 8.0)]
    assert {plan.voxel_size_provenance for plan in plans} == {"configuration"}


def test_an_array_that_no_multiscale_names_has_no_known_voxel_size(place: Place, own: str) -> None:
    obstore.delete(place.objects(own), "em/a/.zattrs")
    plan = place.plan(own, "em/a/s0")
    assert plan.voxel_size_approximate
    assert plan.voxel_size_provenance == "assumed"
    assert any("unknown" in note for note in plan.notes)
    known = place.plan(own, "em/a/s0", voxel_size=(9.0, 8.0, 7.0))
    assert known.voxel_nm_zyx == (9.0, 8.0, 7.0)
    assert not known.voxel_size_approximate


def test_a_level_without_a_scale_has_no_known_voxel_size(place: Place, own: str) -> None:
    attributes = get(place, own, "em/a/.zattrs")
    datasets = attributes["multiscales"][0]["datasets"]
    datasets[1]["coordinateTransformations"] = datasets[1]["coordinateTransformations"][1:]
    put(place, own, "em/a/.zattrs", attributes)
    fine, coarse = place.plans(own, "em/a", "all")
    assert (fine.voxel_size_provenance, fine.voxel_size_approximate) == ("file", False)
    assert (coarse.voxel_size_provenance, coarse.voxel_size_approximate) == ("assumed", True)
    assert coarse.voxel_nm_zyx == (1.0, 1.0, 1.0)
    assert coarse.origin_nm_zyx == (4.0, 4.5, 5.0)
    assert coarse.stated["voxel_size_nm.x"].source == "assumed"
    assert coarse.stated["translation.x"].source == "file"
    assert any("no scale" in note for note in coarse.notes)
    given = place.plans(own, "em/a", "all", voxel_size=(60.0, 10.0, 4.0))
    assert [plan.voxel_size_approximate for plan in given] == [False, True]


def test_a_dataset_deep_below_its_multiscale_has_its_scale(place: Place, own: str) -> None:
    attributes = get(place, own, "em/a/.zattrs")
    (dataset, _) = attributes["multiscales"][0]["datasets"]
    dataset["path"] = "a/s0"
    put(place, own, "em/.zattrs", attributes)
    obstore.delete(place.objects(own), "em/a/.zattrs")
    plan = place.plan(own, "em/a/s0")
    assert (plan.voxel_nm_zyx, plan.origin_nm_zyx) == ((6.0, 5.0, 4.0), (1.0, 2.0, 3.0))
    assert (plan.voxel_size_provenance, plan.scale_level) == ("file", "a/s0")


def test_a_plane_of_two_axes_is_one_plane_of_unknown_thickness(place: Place, own: str) -> None:
    axes = [{"name": n, "type": "space", "unit": "nanometer"} for n in "yx"]
    scale = [{"type": "scale", "scale": [5.0, 4.0]}]
    datasets = [{"path": "s0", "coordinateTransformations": scale}]
    put(place, own, "flat/.zattrs", {"multiscales": [{"axes": axes, "datasets": datasets}]})
    zarray = get(place, own, "em/a/s0/.zarray") | {"shape": [33, 40], "chunks": [33, 40]}
    put(place, own, "flat/s0/.zarray", zarray | {"compressor": None})
    voxels = np.arange(33 * 40, dtype=np.uint8)
    put(place, own, "flat/s0/0/0", voxels.tobytes())
    plan = place.plan(own, "flat", "s0")
    assert (plan.shape_zyx, plan.voxel_nm_zyx) == ((1, 33, 40), (1.0, 5.0, 4.0))
    assert (plan.voxel_size_provenance, plan.voxel_size_approximate) == ("file, z unknown", True)
    np.testing.assert_array_equal(place.voxels(plan), voxels.reshape(1, 33, 40))
    put(place, own, "flat/s0/.zarray", get(place, own, "em/a/s0/.zarray"))
    with pytest.raises(FormatError, match="3 axes, its multiscale 2"):
        place.plan(own, "flat", "s0")


def test_licence_and_doi_are_known_with_their_source_or_not_at_all(place: Place, own: str) -> None:
    silent = place.plan(own, "em/a").about
    assert silent.licence is silent.doi is silent.organism is silent.modality is None
    words = {"license": "CC BY 4.0", "DOI": "https://doi.org/10.25378/janelia.1", "organism": "x"}
    put(place, own, "em/a/.zattrs", get(place, own, "em/a/.zattrs") | words)
    about = place.plan(own, "em/a").about
    assert (about.licence, about.doi, about.organism) == ("CC-BY-4.0", "10.25378/janelia.1", "x")
    assert about.stated["licence"].said == "CC BY 4.0"
    assert about.origin.source == "file"
    hela = place.plan("jrc_hela-2").about
    assert hela.licence is None
    assert (hela.modality, hela.stated["modality"].source) == ("FIB-SEM", "name")
    nacc = place.plan("jrc_mus-nacc-2", NACC).about
    assert (nacc.licence, nacc.doi) == ("CC-BY-4.0", "10.25378/janelia.24222898")
    assert nacc.origin.source == "archive"
    assert place.plans("jrc_mus-nacc-2", NUCLEI, "all")[0].about.doi is None


def test_a_box_is_a_volume_of_its_own(place: Place, own: str) -> None:
    whole = place.plan(own, "em/a")
    part = place.plan(own, "em/a", box="z=8:20,y=5:33,x=64:80nm")
    assert part.box_zyx == Box((8, 5, 16), (20, 33, 20))
    assert part.shape_zyx == (12, 28, 4)
    assert part.origin_nm_zyx == (1.0 + 8 * 6, 2.0 + 5 * 5, 3.0 + 16 * 4)
    assert part.name != whole.name
    assert part.files[0].etag != whole.files[0].etag
    assert part.download_bytes < whole.download_bytes
    # chunks; then the document, the array's listing and one of each plane once more
    assert part.download_requests == 2 * 3 * 1 + 2 + 2
    np.testing.assert_array_equal(place.voxels(part), gradient((8, 5, 16), (12, 28, 4)))
    with pytest.raises(OutOfBoundsError):
        place.plans(own, "em/a", box="z=8:21")


# --- chunks ----------------------------------------------------------------------------------


def test_what_a_plan_says_a_run_costs_is_what_it_costs(
    place: Place, own: str, faults: Control
) -> None:
    plan = place.plan(own, "em/a")
    assert plan.download_requests == 3 * 3 * 3 + 2 + 3
    faults.counters.clear()
    np.testing.assert_array_equal(place.voxels(plan), gradient((0, 0, 0), SHAPE))
    assert faults.counters.snapshot()["services"]["s3"]["requests"] == 27
    place.verify_source_unchanged(plan)
    assert faults.counters.snapshot()["services"]["s3"]["requests"] == plan.download_requests
    sizes = [
        o["size"]
        for page in obstore.list(place.objects(own), "em/a/s0/")
        for o in page
        if "/." not in o["path"]
    ]
    assert plan.download_bytes == plan.files[0].size == sum(sizes)


@pytest.mark.parametrize("missing", [["0/0/0"], ["2/2/2", "1/0/2"]])
def test_holes_are_known_from_the_listing(place: Place, own: str, missing: list[str]) -> None:
    obstore.delete(place.objects(own), [f"em/a/s0/{name}" for name in missing])
    plan = place.plan(own, "em/a")
    assert plan.download_requests == 27 - len(missing) + 2 + 3
    assert plan.source_grid is not None
    assert plan.source_grid.chunks == 27
    reader = place.open(plan)
    named = [n for block in reader.blocks(Box.whole(SHAPE)) for n in block.missing]
    assert sorted(named) == sorted(missing)
    assert all(reader.encoded_chunk(tuple(map(int, n.split("/")))) is None for n in missing)  # type: ignore[arg-type]


@pytest.mark.parametrize("dataset", ["jrc_cos7-1", "jrc_sample-separator"])
def test_the_separator_is_the_one_that_the_keys_have(place: Place, dataset: str) -> None:
    plan = place.plan(dataset)
    assert plan.source_grid is not None
    assert plan.source_grid.holes == ""
    truth = catalogue.truth(f"openorganelle/{dataset}/{EM}/s0")
    np.testing.assert_array_equal(place.voxels(plan), truth)


@pytest.mark.parametrize("said", [".", "/", ...])
def test_a_document_that_contradicts_its_keys_is_not_believed(
    place: Place, own: str, said: Any
) -> None:
    document = get(place, own, "em/a/s0/.zarray")
    document.pop("dimension_separator")
    if said is not ...:
        document["dimension_separator"] = said
    put(place, own, "em/a/s0/.zarray", document)
    put(place, own, "em/a/s0/thumbnail.v2.png", b"a stray file with dots in its name")
    np.testing.assert_array_equal(place.voxels(place.plan(own, "em/a")), gradient((0, 0, 0), SHAPE))


# --- a source that changes ---------------------------------------------------------------------


def test_a_source_that_stays_as_it_is_settles(place: Place, own: str) -> None:
    for level in ("s0", "s1"):
        place.verify_source_unchanged(place.plan(own, "em/a", level))
    place.verify_source_unchanged(place.plan(own, "em/a", box="z=3:7"))
    place.verify_source_unchanged(place.plan("jrc_hela-2"))


@pytest.mark.parametrize("change", ["chunk", "gone", "added", "document"])
def test_a_source_that_changed_while_it_was_read_is_noticed(
    place: Place, own: str, change: str
) -> None:
    store = place.objects(own)
    if change == "added":
        obstore.delete(store, "em/a/s0/1/1/1")
    plan = place.plan(own, "em/a")
    if change == "gone":
        obstore.delete(store, "em/a/s0/1/1/1")
    elif change == "document":
        document = get(place, own, "em/a/s0/.zarray")
        put(place, own, "em/a/s0/.zarray", document | {"fill_value": 7})
    else:
        data = bytes(obstore.get(store, "em/a/s0/0/0/0").bytes())
        obstore.put(store, "em/a/s0/1/1/1", data[::-1])
    with pytest.raises(SourceChangedError) as caught:
        place.verify_source_unchanged(plan)
    assert caught.value.retryable
    again = place.plan(own, "em/a")
    assert again.files[0].etag != plan.files[0].etag
    place.verify_source_unchanged(again)


def test_a_stale_consolidated_copy_does_not_shape_the_volume(place: Place, own: str) -> None:
    """``consolidated`` in this test's name makes its data set one that has ``.zmetadata``."""
    document = get(place, own, "em/a/s0/.zarray")
    assert get(place, own, ".zmetadata")["metadata"]["em/a/s0/.zarray"] == document
    put(place, own, "em/a/s0/.zarray", document | {"shape": [16, 33, 40]})
    plan = place.plan(own, "em/a")
    assert plan.shape_zyx == (16, 33, 40)
    place.verify_source_unchanged(plan)


def test_a_chunk_that_vanished_after_the_plan_is_an_error_and_no_hole(
    place: Place, own: str
) -> None:
    plan = place.plan(own, "em/a")
    obstore.delete(place.objects(own), "em/a/s0/1/2/0")
    with pytest.raises(TransportError, match="is not there") as caught:
        place.voxels(plan)
    assert caught.value.unit == "chunk 1/2/0"


# --- documents and servers that fail -----------------------------------------------------------


@pytest.mark.parametrize("key", ["em/a/.zattrs", "em/a/s0/.zarray", ".zmetadata"])
@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'"x"', b"<html></html>", b"\xff\xfe\x00"])
def test_a_document_that_cannot_be_read_is_named(
    place: Place, own: str, key: str, data: bytes
) -> None:
    put(place, own, key, data)
    with pytest.raises((FormatError, BadAnswerError)) as caught:
        place.plans(own, "em/a")
    assert (caught.value.location or "").endswith(key)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "<c8"},
        {"zarr_format": 3},
        {"filters": [{"id": "delta"}]},
        {"compressor": {"id": "x"}},
    ],
)
def test_what_cannot_be_converted_is_refused_before_a_voxel_is_fetched(
    place: Place, own: str, change: dict[str, Any]
) -> None:
    document = get(place, own, "em/a/s0/.zarray")
    put(place, own, "em/a/s0/.zarray", document | change)
    with pytest.raises(UnsupportedFormatError):
        place.plans(own, "em/a")


@pytest.mark.parametrize("kind", ["status_503", "status_403", "html_200", "short_body", "reset"])
@pytest.mark.parametrize("match", [r"\.zarray", r"\.zattrs", r"list-type"])
def test_a_server_that_fails_while_planning_never_makes_an_array_vanish(
    place: Place, faults: Control, kind: str, match: str
) -> None:
    faults.add(kind, "s3", match)
    with pytest.raises(MacroscopeError) as caught:
        place.plans("jrc_macrophage-2")
    assert not isinstance(caught.value, NotFoundError)
    faults.clear()
    faults.add(kind, "s3", match, first_n=1)
    if kind != "status_403" and (kind, match) != ("html_200", "list-type"):
        # no other try helps with the one; the other is an empty listing to the client
        grid = place.plan("jrc_macrophage-2").source_grid
        assert grid is not None
        assert grid.holes == ""


def test_a_plan_is_plain_json_and_the_same_every_time(place: Place) -> None:
    one, other = place.plan("jrc_hela-2"), place.plan("jrc_hela-2")
    assert one == other
    again = VolumePlan.model_validate_json(one.model_dump_json())
    np.testing.assert_array_equal(place.voxels(again), place.voxels(one))
