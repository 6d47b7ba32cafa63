"""Zarr v2 and v3 in every layout that NGFF 0.1 to 0.6 and their writers have, voxel by voxel."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from lib.bytesource.tree import LocalTree
from lib.errors import (
    FormatError,
    MacroscopeError,
    NotFoundError,
    NotListableError,
    UnsupportedFormatError,
)
from lib.formats import registry
from lib.formats.format import Options, VolumeDescription
from lib.geometry import Box
from lib.transport.listing import Listing, ObjectInfo
from tests.kit.volume_kit import random_voxels

LENGTHS = {"t": 2, "c": 3, "z": 5, "y": 9, "x": 7}
CHUNKS = {"t": 1, "c": 2, "z": 4, "y": 4, "x": 4}
SCALES = {"t": 1.0, "c": 1.0, "z": 30.0, "y": 4.0, "x": 5.0}


@dataclass(frozen=True)
class Layout:
    """A multiscale ``0`` of one level, and how its documents say so.

    Attributes
    ----------
    version
        Of NGFF; "" for a bare array.
    place
        Group of the multiscale below the root; the array is its child ``0``.
    """

    axes: str
    version: str
    options: Options = field(default_factory=Options)
    place: str = ""
    consolidated: bool = False
    order: str = "C"
    separator: str = "/"


PICK = Options(channel=1, time=1)
V2 = [
    Layout("tczyx", "0.1", PICK, separator="."),
    Layout("tczyx", "0.2", PICK),
    Layout("czyx", "0.3", PICK),
    Layout("zyx", "0.4"),
    Layout("yx", "0.4"),
    Layout("tczyx", "0.4", PICK),
    Layout("tczyx", "0.4", PICK, order="F"),
    Layout("cxyz", "0.4", PICK),
    Layout("zyxc", "0.4", PICK),
    Layout("xyz", "0.4"),
    Layout("cyx", "0.4", PICK),
    Layout("tczyx", "0.4", PICK, consolidated=True),
    Layout("czyx", "0.4", PICK, place="labels/cells"),
    Layout("tczyx", "0.4", PICK, place="0"),
    Layout("czyx", "0.4", PICK, place="0", consolidated=True),
    Layout("czyx", "", PICK),
    Layout("zyx", "", order="F"),
    Layout("tczyx", "", PICK, consolidated=True),
]
V3 = [
    Layout("zyx", "0.5"),
    Layout("tczyx", "0.5", PICK),
    Layout("cxyz", "0.5", PICK),
    Layout("zyxc", "0.5", PICK),
    Layout("tczyx", "0.5", PICK, consolidated=True),
    Layout("czyx", "0.5", PICK, place="labels/cells"),
    Layout("tczyx", "0.5", PICK, place="0"),
    Layout("czyx", "0.6", PICK),
    Layout("xyz", "0.6"),
    Layout("czyx", "", PICK),
]
ALL = [*((2, one) for one in V2), *((3, one) for one in V3)]


def written(root: Path, form: int, layout: Layout) -> np.ndarray[Any, Any]:
    """Write the layout; the voxels that must come out."""
    shape = tuple(LENGTHS[axis] for axis in layout.axes)
    voxels = random_voxels((1, 1, int(np.prod(shape))), "uint16", 7).reshape(shape)
    group = root / layout.place
    more: dict[str, Any] = {"order": layout.order} if form == 2 else {}
    encoding = {"name": "v2" if form == 2 else "default", "separator": layout.separator}
    array = zarr.create_array(
        str(group / "0" if layout.version else group),
        shape=shape,
        chunks=tuple(CHUNKS[axis] for axis in layout.axes),
        dtype="uint16",
        zarr_format=form,  # type: ignore[arg-type]
        chunk_key_encoding=encoding,  # type: ignore[arg-type]
        dimension_names=[*layout.axes] if form == 3 else None,
        **more,
    )
    array[...] = voxels
    if layout.version:
        documents(root, form, layout)
        if layout.consolidated:
            zarr.consolidate_metadata(str(root), zarr_format=form)  # type: ignore[arg-type]
    for axis, taken in (("t", layout.options.time), ("c", layout.options.channel)):
        if axis in layout.axes:
            at = [one for one in layout.axes if one != "t" or axis == "t"].index(axis)
            voxels = np.take(voxels, taken, axis=at)
    left = [axis for axis in layout.axes if axis in "zyx"]
    out = voxels.transpose([left.index(axis) for axis in "zyx" if axis in left])
    return out if "z" in left else out[None]


def documents(root: Path, form: int, layout: Layout) -> None:
    scale = [{"type": "scale", "scale": [SCALES[axis] for axis in layout.axes]}]
    units: dict[str, Any] = {"type": "space", "unit": "nanometer"}
    axes = [{"name": a, **(units if a in "zyx" else {"type": "time"})} for a in layout.axes]
    level: dict[str, Any] = {"path": "0"}
    block: dict[str, Any] = {"datasets": [level], "version": layout.version}
    if layout.version == "0.3":
        block["axes"] = [*layout.axes]
    elif layout.version == "0.6":
        block["coordinateSystems"] = [{"name": "physical", "axes": axes}]
        step = {"type": "scale", "scale": scale[0]["scale"]}
        level["coordinateTransformations"] = [
            {"type": "sequence", "input": "0", "output": "physical", "transformations": [step]}
        ]
    elif layout.version in ("0.4", "0.5"):
        block["axes"] = axes
        level["coordinateTransformations"] = scale
    said: dict[str, Any] = {"multiscales": [block]}
    if layout.place.startswith("labels/"):
        said["image-label"] = {}
    groups = {layout.place: said}
    if layout.place == "0":
        groups[""] = {"bioformats2raw.layout": 3}
    elif layout.place:
        groups["labels"] = {"labels": [layout.place.rpartition("/")[2]]}
        groups[""] = {}
    for place, attributes in groups.items():
        folder = root / place
        if form == 2:
            (folder / ".zgroup").write_text('{"zarr_format": 2}')
            (folder / ".zattrs").write_text(json.dumps(attributes))
            continue
        ome = {"ome": {"version": layout.version, **attributes}}
        node = {"zarr_format": 3, "node_type": "group", "attributes": ome}
        (folder / "zarr.json").write_text(json.dumps(node))


class Unlisted(LocalTree):
    """A store that gives objects by name only."""

    def list(self, prefix: str = "") -> Listing:
        raise NotListableError("not listed", location=prefix)

    def list_all(self, prefix: str = "") -> Any:
        raise NotListableError("not listed", location=prefix)
        yield ObjectInfo("", None)


def found(tree: LocalTree, form: int, layout: Layout, path: str) -> VolumeDescription:
    (volume,) = registry.tree_format(f"zarr{form}").describe(tree, "", path, layout.options)
    return volume


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "unlisted"])
@pytest.mark.parametrize(
    ("form", "layout"),
    ALL,
    ids=[
        f"v{form}-{one.axes}-{one.version or 'bare'}{'-F' * (one.order == 'F')}"
        f"{'-' + one.place.replace('/', '-') if one.place else ''}{'-cons' * one.consolidated}"
        for form, one in ALL
    ],
)
def test_every_layout_gives_its_voxels(
    form: int, layout: Layout, listed: bool, tmp_path: Path
) -> None:
    truth = written(tmp_path, form, layout)
    tree = LocalTree(tmp_path) if listed else Unlisted(tmp_path)
    path = "labels" if layout.place.startswith("labels") else ""
    volume = found(tree, form, layout, path)
    assert volume.shape_zyx == truth.shape
    if layout.version in ("0.4", "0.5", "0.6"):
        known = (30.0 if "z" in layout.axes else None, 4.0, 5.0)
        assert (volume.voxel.z_nm, volume.voxel.y_nm, volume.voxel.x_nm) == known
    else:
        assert volume.voxel.known_nm_zyx is None
    assert volume.kind == ("labels" if layout.place.startswith("labels") else None)
    reads = registry.tree_format(f"zarr{form}")
    box = Box((0, 1, 2), truth.shape)  # type: ignore[arg-type]
    survey = reads.survey(tree, "", volume, box)
    assert survey.grid is not None
    assert not survey.grid.missing()
    assert survey.grid.listed == listed
    out = np.zeros(box.shape_zyx, volume.dtype)
    with reads.open(tree, "", volume.handle, box=box, grid=survey.grid) as reader:
        for block in reader.blocks(Box.whole(box.shape_zyx)):
            assert not block.missing
            out[block.box.slices()] = block.data
    np.testing.assert_array_equal(out, truth[:, 1:, 2:])


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize(
    ("axes", "options", "said"),
    [
        ("tczyx", Options(time=1), "axis c has length 3"),
        ("tczyx", Options(channel=1), "axis t has length 2"),
        ("tczyx", Options(time=2, channel=1), "no time 2"),
        ("czyx", Options(channel=3), "no channel 3"),
    ],
)
def test_a_channel_and_a_time_are_chosen_by_number(
    form: int, axes: str, options: Options, said: str, tmp_path: Path
) -> None:
    layout = Layout(axes, "0.4" if form == 2 else "0.5", PICK)
    written(tmp_path, form, layout)
    with pytest.raises(FormatError, match=said):
        registry.tree_format(f"zarr{form}").describe(LocalTree(tmp_path), "", "", options)


@pytest.mark.parametrize("name", ["zarr2", "zarr3", "n5"])
def test_a_store_that_does_not_list_is_said_to(name: str, tmp_path: Path) -> None:
    for tree, said in ((LocalTree(tmp_path), "nothing"), (Unlisted(tmp_path), "does not list")):
        with pytest.raises(NotFoundError) as caught:
            registry.tree_format(name).describe(tree, "", "", Options())
        assert said in caught.value.advice


@pytest.mark.parametrize("form", [2, 3])
def test_a_multiscale_of_other_axes_than_its_array_is_refused(form: int, tmp_path: Path) -> None:
    layout = Layout("czyx", "0.4" if form == 2 else "0.5", PICK)
    written(tmp_path, form, layout)
    documents(tmp_path, form, Layout("zyx", layout.version))
    with pytest.raises(FormatError):
        found(LocalTree(tmp_path), form, layout, "")


@pytest.mark.parametrize("form", [2, 3])
def test_what_is_no_geometry_of_axes_is_refused(form: int, tmp_path: Path) -> None:
    layout = Layout("zyx", "0.4" if form == 2 else "0.6")
    written(tmp_path, form, layout)
    name = ".zattrs" if form == 2 else "zarr.json"
    text = (tmp_path / name).read_text()
    for kind in ("rotation", "mapAxis", "affine"):
        changed = text.replace('"type": "scale"', f'"type": "{kind}"')
        (tmp_path / name).write_text(changed)
        with pytest.raises((UnsupportedFormatError, MacroscopeError), match=kind):
            found(LocalTree(tmp_path), form, layout, "")


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize(("name", "other"), [('"name"', '"nam"'), ('"scale": [', '"scaIe": [')])
def test_documents_that_lack_a_key_are_named(
    form: int, name: str, other: str, tmp_path: Path
) -> None:
    layout = Layout("czyx", "0.4" if form == 2 else "0.5", PICK)
    written(tmp_path, form, layout)
    document = tmp_path / (".zattrs" if form == 2 else "zarr.json")
    document.write_text(document.read_text().replace(name, other, 1))
    with pytest.raises(FormatError):
        found(LocalTree(tmp_path), form, layout, "")


def test_the_table_has_every_order_of_axes_that_readers_meet() -> None:
    for form, layouts in itertools.groupby(ALL, key=lambda one: one[0]):
        orders = {layout.axes for _, layout in layouts}
        assert {"zyx", "tczyx", "czyx", "cxyz", "zyxc", "xyz"} <= orders, form


@pytest.mark.parametrize("form", [2, 3])
def test_names_and_lengths_that_an_array_states_itself_are_taken(form: int, tmp_path: Path) -> None:
    layout = Layout("xyz", "")
    truth = written(tmp_path, form, layout)
    attributes = {"resolution": [5, 4, 30], "offset": [10, 8, 60], "units": ["nm"] * 3}
    if form == 2:
        attributes["_ARRAY_DIMENSIONS"] = [*"xyz"]
        (tmp_path / ".zattrs").write_text(json.dumps(attributes))
    else:
        node = json.loads((tmp_path / "zarr.json").read_text())
        node |= {"attributes": attributes, "dimension_names": ["x", "y", None]}
        (tmp_path / "zarr.json").write_text(json.dumps(node))
    volume = found(LocalTree(tmp_path), form, layout, "")
    assert volume.shape_zyx == truth.shape
    assert volume.voxel.known_nm_zyx == (30.0, 4.0, 5.0)
    assert volume.origin_nm_zyx == (60.0, 8.0, 10.0)


@pytest.mark.parametrize("form", [2, 3])
def test_each_of_several_multiscales_is_a_volume(form: int, tmp_path: Path) -> None:
    written(tmp_path, form, Layout("zyx", "0.4" if form == 2 else "0.5"))
    (tmp_path / "0").rename(tmp_path / "b")
    written(tmp_path, form, Layout("zyx", "0.4" if form == 2 else "0.5"))
    document = tmp_path / (".zattrs" if form == 2 else "zarr.json")
    node = json.loads(document.read_text())
    said = node if form == 2 else node["attributes"]["ome"]
    other = json.loads(json.dumps(said["multiscales"][0]))
    other["datasets"][0]["path"] = "b"
    other["datasets"][0]["coordinateTransformations"][0]["scale"] = [60.0, 8.0, 9.0]
    said["multiscales"].append(other)
    document.write_text(json.dumps(node))
    form_of = registry.tree_format(f"zarr{form}")
    volumes = form_of.describe(LocalTree(tmp_path), "", "", Options())
    assert [one.path for one in volumes] == ["0", "b"]
    (second,) = form_of.describe(LocalTree(tmp_path), "", "b", Options())
    assert second.voxel.known_nm_zyx == (60.0, 8.0, 9.0)
