"""A bench for archives: plan, fetch, read and settle against the stand-ins, and the truth."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray

from emulators import catalogue, empiar, empiar_documents, omero_documents
from emulators.serving import Samples
from lib.archives.registry import archive, stand_in
from lib.geometry import Box
from lib.ingest.context import VolumeRequest, open_session
from lib.ingest.life import make_volume
from lib.ingest.result import VolumeResult
from lib.plan import VolumePlan
from lib.rawfiles.files import RawFiles
from lib.records.manager import schema_errors
from lib.storage.base import Store, StoreSettings
from lib.storage.local import LocalStore
from lib.transport.partial import Fetched

# What a small machine needs beside the endpoints; a further archive needs nothing here.
SMALL: dict[str, dict[str, Any]] = {
    "flyem": {"crop_size": (70, 60, 50), "crop_origin": (18000, 20000, 20000)},
}
# Volumes that no file holds: made from coordinates.
VIRTUAL: dict[str, Callable[[Box], NDArray[Any]]] = {
    "flyem": lambda box: catalogue.dvid_voxels(box.start_zyx, box.shape_zyx),
}


class Bench:
    """One archive with one set of settings, in a store of its own."""

    def __init__(self, samples: Samples, home: Path, name: str, /, **settings: Any) -> None:
        self.archive = archive(name)
        endpoints = samples.endpoints.get(name.upper(), {})
        quick = {"requests_per_second": 1000.0}
        given = {**quick, **SMALL.get(name, {}), **endpoints, **settings}
        self.config = self.archive.config_model(**given)
        self.scratch = home / "scratch"
        self.store: Store = LocalStore(home / "data")
        self._stack = ExitStack()
        self.session = self._stack.enter_context(
            open_session(self.config, name, scratch_dir=self.scratch)
        )
        self._raw: dict[str, RawFiles] = {}

    def close(self) -> None:
        self._stack.close()

    def plan(self) -> list[VolumePlan]:
        return self.archive.plan(self.config, self.session)

    def one_plan(self) -> VolumePlan:
        (plan,) = self.plan()
        return plan

    def raw(self, plan: VolumePlan) -> RawFiles:
        if plan.name not in self._raw:
            self._raw[plan.name] = RawFiles(
                self.store,
                plan.source,
                plan.source_id.replace("/", "_"),
                keep=self.config.keep_raw,
                scratch_dir=self.scratch,
            )
        return self._raw[plan.name]

    def fetch(self, plan: VolumePlan) -> None:
        self.archive.fetch(plan, self.config, self.session, self.raw(plan))

    def read(self, plan: VolumePlan, box: Box | None = None) -> NDArray[Any]:
        """Fetch, open, and read a box (by default all); every voxel must come exactly once."""
        self.fetch(plan)
        box = box or Box.whole(plan.shape_zyx)
        voxels = np.zeros(box.shape_zyx, plan.dtype)
        times = np.zeros(box.shape_zyx, np.uint8)
        with self.archive.open(plan, self.config, self.session, self.raw(plan)) as reader:
            assert reader.shape_zyx == plan.shape_zyx
            assert reader.dtype == np.dtype(plan.dtype)
            for block in reader.blocks(box):
                voxels[block.box.slices(box.start_zyx)] = block.data
                times[block.box.slices(box.start_zyx)] += 1
        assert (times == 1).all()
        return voxels

    def verify_source_unchanged(self, plan: VolumePlan) -> list[Fetched]:
        return self.archive.verify_source_unchanged(plan, self.config, self.session, self.raw(plan))

    def make(self, plan: VolumePlan) -> VolumeResult:
        """The whole life of a volume, from its plan to its record."""
        uri = str(self.scratch.parent / "data")
        request = VolumeRequest(plan, self.config, uri, StoreSettings(), self.scratch, "a test")
        return make_volume(request, "a test")

    def complete_record(self, plan: VolumePlan) -> dict[str, Any]:
        """Make a volume; its record, which must be complete and valid."""
        result = self.make(plan)
        assert result.status == "complete", result.error
        key = f"{plan.source}/metadata_{plan.name}.json"
        record: dict[str, Any] = json.loads(self.store.get(key))
        assert schema_errors(record) == []
        return record

    def received(self) -> int:
        """Body bytes that came in over all services."""
        return sum(one["bytes_received"] for one in self.session.counters.snapshot().values())

    def downloads(self) -> list[str]:
        """Raw files in the store, without the notes beside them."""
        keys = [found.key for found in self.store.list()]
        return [key for key in keys if "/.fetched/" not in key]

    def leftovers(self) -> list[Path]:
        """Files in the scratch folder."""
        return [path for path in self.scratch.rglob("*") if path.is_file()]


def truth_of(plan: VolumePlan) -> NDArray[Any]:
    """The voxels that a plan must deliver, from the generators of the samples."""
    own = stand_in(plan.source)
    if own is not None:
        return own.truth(plan)
    if plan.source in VIRTUAL:
        assert plan.box_zyx is not None
        return VIRTUAL[plan.source](plan.box_zyx)
    parts = [urlsplit(file.url) for file in plan.files]
    where = [(p.netloc if p.scheme == "s3" else "") + unquote(p.path) for p in parts]
    fitting = [
        sample
        for sample in catalogue.samples().values()
        if sample.archive == plan.source
        and all(address.endswith(_tails(sample.paths)) for address in where)
    ]
    if len(fitting) > 1:  # several images in one file
        fitting = [s for s in fitting if s.key.rpartition("/")[2] in plan.source_id]
    (sample,) = fitting
    voxels = sample.truth()
    return voxels[plan.box_zyx.slices()] if plan.box_zyx is not None else voxels


def _tails(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Sample paths without the folder of their server."""
    return tuple(path.partition("/")[2] for path in paths)


@pytest.fixture
def bench(samples: Samples, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Make a bench: ``bench("ebi", protocol="https")``; all of a test share one store."""
    samples.control.clear()
    made: list[Bench] = []

    def make(name: str, **settings: Any) -> Bench:
        made.append(Bench(samples, tmp_path, name, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()
    samples.control.clear()


@pytest.fixture
def truth() -> Callable[[VolumePlan], NDArray[Any]]:
    return truth_of


@pytest.fixture
def published(samples: Samples) -> Callable[[str], Path]:
    """The stand-in's own file of a name, for tests that change or compare it."""

    def find(name: str) -> Path:
        (path,) = (p for p in samples.root.rglob("*") if p.is_file() and p.name == name)
        return path

    return find


Content = Path | bytes


def _lay(path: Path, content: Content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        shutil.copyfile(content, path)
    path.chmod(0o644)


@pytest.fixture
def empiar_entry(samples: Samples, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Publish an EMPIAR entry of any files: ``empiar_entry({"a.mrc": path}, voxel_type="...")``.

    ``entry`` are changes of the entry's document, all else of its one image set. Returns its id.
    """
    documents: dict[str, Any] = {}
    folders: list[Path] = []
    given = empiar_documents.empiar_entry

    def answer(accession: str) -> dict[str, Any] | None:
        key = f"EMPIAR-{accession.upper().removeprefix('EMPIAR-')}"
        return {key: copy.deepcopy(documents[key])} if key in documents else given(accession)

    monkeypatch.setattr(empiar, "empiar_entry", answer)

    def publish(
        files: Mapping[str, Content], *, entry: Mapping[str, Any] | None = None, **imageset: Any
    ) -> str:
        number = str(99500 + len(documents))
        folder = samples.root / "ftp/empiar/world_availability" / number
        folders.append(folder)
        for name, content in files.items():
            _lay(folder / "data" / name, content)
        document = (given("99001") or {})["EMPIAR-99001"]
        suffix = next(iter(files)).rpartition(".")[2].upper()
        about = {**document["imagesets"][0], "data_format": suffix, "pixel_width": None}
        about |= {"num_images_or_tilt_series": len(files), "image_width": "", "image_height": ""}
        about |= {"pixel_height": None, "voxel_type": ""}
        documents[f"EMPIAR-{number}"] = document | {"imagesets": [about | imageset]} | (entry or {})
        return number

    yield publish
    for folder in folders:
        shutil.rmtree(folder)


@pytest.fixture
def idr_image(samples: Samples, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Publish a TIFF as an image of the IDR: ``idr_image(path, shape_zyx, SizeT=3)``.

    Keyword arguments in capitals are changes of the ``Pixels`` that OMERO answers, ``annotations``
    are the key-value pairs of its image. Returns the image's id.
    """
    images = dict(omero_documents.OMERO_IMAGES)
    monkeypatch.setattr(omero_documents, "OMERO_IMAGES", images)
    changes: dict[int, dict[str, Any]] = {}
    pairs: dict[int, dict[str, str]] = {}
    pixels, annotations = omero_documents._pixels, omero_documents.map_annotations
    laid: list[Path] = []

    def answer(image: omero_documents.OmeroImage) -> dict[str, Any]:
        return pixels(image) | changes.get(image.image_id, {})

    def annotated(image_id: int) -> dict[str, Any] | None:
        if image_id not in pairs:
            return annotations(image_id)
        return {"annotations": [{"values": [[k, v] for k, v in pairs[image_id].items()]}]}

    monkeypatch.setattr(omero_documents, "_pixels", answer)
    monkeypatch.setattr("emulators.documents.map_annotations", annotated)

    def publish(
        content: Content,
        shape_zyx: tuple[int, int, int],
        *,
        dtype: str = "uint8",
        name: str = "image.tif",
        series: int = 0,
        annotations: Mapping[str, str] | None = None,
        **sizes: Any,
    ) -> int:
        template = images[99000005]
        number = 99000500 + len(laid)
        image = dataclasses.replace(
            template,
            image_id=number,
            name=name,
            file=f"{number}_{name}",
            shape_zyx=shape_zyx,
            dtype=dtype,
            series=series,
            voxel_nm_zyx=None,
        )
        images[number], changes[number] = image, sizes
        pairs[number] = dict(annotations or {})
        laid.append(samples.root / "ftp/pub/databases/IDR" / image.path)
        _lay(laid[-1], content)
        return number

    yield publish
    for path in laid:
        path.unlink()
