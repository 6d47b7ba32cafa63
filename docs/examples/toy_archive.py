"""Toy: ``/index.json`` lists volumes, ``/{id}/{z}`` is a plane, little-endian, C order of y, x."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

import numpy as np
from pydantic import Field
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from lib.archives.base import ArchiveBase, Publisher
from lib.archives.selection import choose_crop
from lib.config.loaders import LoaderConfig
from lib.config.types import HttpEndpoint, Name
from lib.errors import NotFoundError, SourceChangedError
from lib.formats.base import Block, Layout, VolumeReader
from lib.geometry import Box
from lib.plan import About, SourceFile, VolumePlan
from lib.rawfiles.files import RawFiles
from lib.transport.limits import Limits
from lib.transport.session import Session


class ToyConfig(LoaderConfig):
    server_url: HttpEndpoint = Field(default="https://toy.example.org", description="Its server.")
    volume: Name = Field(default="brick", description="Id of the volume in the index.")


class Toy(ArchiveBase):
    name: ClassVar[str] = "toy"
    title: ClassVar[str] = "Toy archive (raw planes)"
    config_model: ClassVar[type[ToyConfig]] = ToyConfig
    publisher: ClassVar[Publisher] = Publisher("Toy Laboratory", "https://toy.example/")
    services: ClassVar[dict[str, Limits]] = {"toy": Limits(2, 4.0)}  # requests at once, a second
    stand_in: ClassVar[str] = "toy_archive:ToyStandIn"

    def plan(self, config: ToyConfig, session: Session) -> list[VolumePlan]:
        index = session.http("toy").get_json(f"{config.server_url}/index.json")
        if (said := index.get(config.volume)) is None:
            raise NotFoundError(f"no volume {config.volume!r}", location=config.server_url)
        shape, voxel = tuple(said["shape_zyx"]), tuple(said["voxel_nm_zyx"])
        crop = choose_crop(config.box, shape, voxel)
        size = crop.box.shape_zyx[0] * shape[1] * shape[2] * np.dtype(said["dtype"]).itemsize
        url, name = f"{config.server_url}/{config.volume}", config.volume
        file = SourceFile(url=url, name=name, size=size, etag=said["version"])
        return [VolumePlan(
            source=self.name, source_id=name, name=f"{name}{crop.suffix}",
            shape_zyx=crop.box.shape_zyx, dtype=said["dtype"], voxel_nm_zyx=voxel,
            voxel_size_provenance="api", origin_nm_zyx=crop.origin_nm_zyx, box_zyx=crop.chosen,
            reader={"plane_yx": list(shape[1:])}, files=(file,), about=About(title="A brick"),
            download_bytes=size, download_requests=crop.box.shape_zyx[0],
        )]  # fmt: skip

    def open(self, plan: VolumePlan, config: Any, session: Session, raw: RawFiles) -> VolumeReader:
        return ToyReader(plan, session)

    def verify_source_unchanged(self, plan: VolumePlan, config: Any, session: Session, raw: Any):
        if self.plan(config, session)[0].files != plan.files:
            raise SourceChangedError("it changed while it was read", location=config.volume)
        return []


class ToyReader(VolumeReader):
    def __init__(self, plan: VolumePlan, session: Session) -> None:
        self.shape_zyx, self.dtype = plan.shape_zyx, np.dtype(plan.dtype)
        self.layout = Layout((1, *plan.shape_zyx[1:]), random_access=False, by_planes=True)
        self._plan, self._session = plan, session
        self._start_zyx = plan.box_zyx.start_zyx if plan.box_zyx else (0, 0, 0)

    def __exit__(self, *_: object) -> None:
        return None  # connections belong to the session

    def blocks(self, box: Box) -> Iterator[Block]:
        jobs = (partial(self._plane, slab) for slab in box.tiles((1, *box.shape_zyx[1:])))
        return self._session.ordered("toy", jobs)

    def _plane(self, slab: Box) -> Block:
        there = slab.shifted(self._start_zyx)
        plane = np.empty((1, *self._plan.reader["plane_yx"]), self.dtype.newbyteorder("<"))
        url = f"{self._plan.files[0].url}/{there.start_zyx[0]}"
        self._session.http("toy").read_exact_into(url, memoryview(plane.reshape(-1)))
        return Block(slab, plane[:, *there.slices()[1:]].astype(self.dtype, copy=False))


class ToyStandIn:
    setting: ClassVar[str] = "server_url"  # the field that leads the loader here
    voxels = np.arange(12 * 40 * 50, dtype="<u2").reshape(12, 40, 50)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        said = {"shape_zyx": (12, 40, 50), "voxel_nm_zyx": (8, 4, 4), "dtype": "uint16"}
        answer: Response = JSONResponse({"brick": {**said, "version": "1"}})
        if (z := scope["path"].rpartition("/")[2]).isdigit():
            answer = Response(self.voxels[int(z)].tobytes())
        await answer(scope, receive, send)

    def truth(self, plan: VolumePlan) -> np.ndarray[Any, Any]:
        return self.voxels[plan.box_zyx.slices() if plan.box_zyx else ...]
