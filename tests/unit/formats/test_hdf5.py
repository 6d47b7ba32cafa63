"""HDF5: nothing that a file says makes us read another file, load a plug-in or crash."""

from __future__ import annotations

import io
import json
import os
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

from lib.bytesource.base import LocalBytes
from lib.errors import FormatError, MacroscopeError, NotFoundError
from lib.formats.format import HEAD_BYTES, Options, VolumeDescription
from lib.formats.hdf5.format import Hdf5Format
from lib.formats.hdf5.reader import bits_in_place
from lib.geometry import Box
from lib.storage.local import LocalStore
from tests.kit.forked import Forked, structure_in_forks
from tests.kit.volume_kit import a_job, a_plan, make, random_voxels, read_levels, volume_path


@pytest.fixture
def forks() -> Iterator[None]:
    """For tests of chunks, not of the process that looks at a file."""
    with structure_in_forks():
        yield


def test_a_fork_holds_nothing_that_its_parent_has_open(forks: None) -> None:
    """A stand-in that ends with its pipe would never end."""
    ours, theirs = os.pipe()
    fork = Forked()
    os.close(theirs)
    assert select.select([ours], [], [], 60)[0] and os.read(ours, 1) == b""
    os.close(ours)
    fork.kill()
    fork.wait()


def volumes(path: Path, inside: str = "") -> list[VolumeDescription]:
    return [*Hdf5Format().describe(LocalBytes(path), inside, Options())]


def read(path: Path, volume: VolumeDescription) -> np.ndarray[Any, Any]:
    out = np.zeros(volume.shape_zyx, volume.dtype)
    with Hdf5Format().open(LocalBytes(path), volume.handle) as reader:
        for block in reader.blocks(Box.whole(volume.shape_zyx)):
            out[block.box.slices()] = block.data
    return out


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize("level", [0, 4, 9])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "uint64"])
def test_a_gzip_chunk_stays_what_it_is_but_for_its_frame(
    file: Path, tmp_path: Path, dtype: str, level: int
) -> None:
    """HDF5 calls gzip what is a zlib stream; read back by zarr-python and by tensorstore."""
    voxels, chunks = random_voxels((20, 33, 40), dtype, labels=dtype == "uint64"), (8, 16, 16)
    with h5py.File(file, "w") as there:
        data = there.create_dataset(
            "main", data=voxels, chunks=chunks, compression="gzip", compression_opts=level
        )
        stored = [data.id.read_direct_chunk(at)[1][2:-4] for at in ((0, 0, 0), (16, 32, 32))]
    (volume,) = volumes(file)
    source = LocalBytes(file)
    grid = Hdf5Format().survey(source, volume, Box.whole(voxels.shape)).grid
    reader = Hdf5Format().open(source, volume.handle)
    plan = a_plan(voxels.shape, dtype, source_grid=grid)
    assert not a_job(plan, reader).pass_through, "it is slow to read"
    job, store = a_job(plan, reader, codec="source"), LocalStore(tmp_path / "data")
    assert job.pass_through
    make(job, reader, store)
    np.testing.assert_array_equal(read_levels(volume_path(store, job))[0], voxels)
    shards = b"".join(path.read_bytes() for path in volume_path(store, job).glob("0/c/*/*/*"))
    assert all(stream in shards for stream in stored)


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize(
    "options", [{"shuffle": True}, {"fletcher32": True}, {"dtype": ">u2"}], ids=str
)
def test_a_gzip_chunk_that_zarr_cannot_describe_is_encoded_anew(
    file: Path, options: dict[str, Any]
) -> None:
    voxels = random_voxels((20, 33, 40), "uint16")
    with h5py.File(file, "w") as there:
        there.create_dataset("main", data=voxels, chunks=(8, 16, 16), compression="gzip", **options)
    (volume,) = volumes(file)
    with Hdf5Format().open(LocalBytes(file), volume.handle) as reader:
        assert not reader.pass_through
    np.testing.assert_array_equal(read(file, volume), voxels)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "x.h5"


def test_voxels_outside_the_file_are_never_read(file: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(64)))
    with h5py.File(file, "w") as out:
        out.create_dataset("d", (4, 4, 4), "u1", external=[(str(secret), 0, 64)])
    (volume,) = volumes(file)
    assert volume.refused is not None
    assert "external storage" in volume.refused


def test_virtual_datasets_are_refused(file: Path) -> None:
    with h5py.File(file, "w") as out:
        layout = h5py.VirtualLayout((4, 4, 4), "u1")
        layout[:] = h5py.VirtualSource("other.h5", "d", (4, 4, 4))
        out.create_virtual_dataset("d", layout)
    (volume,) = volumes(file)
    assert "virtual" in str(volume.refused)


@pytest.mark.parametrize(
    ("link", "why"),
    [
        (h5py.ExternalLink("other.h5", "/d"), "'loop' is a link that leads to another file"),
        (h5py.SoftLink("/loop"), "in a circle"),
    ],
)
def test_links_that_lead_elsewhere_or_nowhere_are_named(file: Path, link: Any, why: str) -> None:
    with h5py.File(file, "w") as out:
        out.create_dataset("real", data=np.ones((4, 4, 4), "u1"))
        out["loop"] = link
    assert [volume.path for volume in volumes(file)] == ["real"]
    with pytest.raises(FormatError, match=why):
        volumes(file, "loop")


def test_a_cycle_of_groups_ends(file: Path) -> None:
    with h5py.File(file, "w") as out:
        group = out.create_group("a")
        group["again"] = out["/"]
        group.create_dataset("d", data=np.ones((4, 4, 4), "u1"))
    assert [volume.path for volume in volumes(file)] == ["a/d"]


def test_a_path_that_is_not_there_lists_what_is(file: Path) -> None:
    with h5py.File(file, "w") as out:
        out.create_dataset("em/raw", data=np.ones((4, 4, 4), "u1"))
    with pytest.raises(NotFoundError) as caught:
        volumes(file, "em/nothing")
    assert "em" in str(caught.value.advice)


def test_a_file_without_volumes_names_what_it_has(file: Path) -> None:
    with h5py.File(file, "w") as out:
        out.create_dataset("times", data=np.arange(9))
    with pytest.raises(NotFoundError, match="no dataset") as caught:
        volumes(file)
    assert "times" in str(caught.value.advice)


def test_vast_sizes_and_foreign_filters_are_refused(file: Path) -> None:
    with h5py.File(file, "w") as out:
        out.create_dataset("vast", (2**20, 2**20, 2**20), "u1", chunks=(64, 64, 64))
        out.create_dataset("offset", data=np.ones((8, 8, 8), "u2"), scaleoffset=4)
        out.create_dataset("words", data=np.array([[b"a", b"b"]] * 2))
    why = {volume.path: volume.refused for volume in volumes(file)}
    assert "voxels" in str(why["vast"])
    assert "filter 6 (scale-offset), which is not read. Write it with" in str(why["offset"])
    assert "no plain numbers" in str(why["words"])


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize("userblock", [512, 2**16])
@pytest.mark.parametrize("options", [{}, {"chunks": (4, 4, 4), "compression": "gzip"}], ids=str)
def test_a_file_behind_a_user_block_is_read(
    file: Path, userblock: int, options: dict[str, Any]
) -> None:
    """MATLAB's files of version 7.3 begin with 512 bytes of their own."""
    voxels = random_voxels((9, 8, 7), "uint16")
    with h5py.File(file, "w", userblock_size=userblock) as out:
        data = out.create_dataset("im", data=voxels, **options)
        data.attrs["MATLAB_class"] = np.bytes_("uint16")
    head = file.read_bytes()[:HEAD_BYTES]
    assert not head.startswith(b"\x89HDF")
    assert Hdf5Format().fits(head, file.name)
    (volume,) = volumes(file)
    np.testing.assert_array_equal(read(file, volume), voxels)
    assert any("MATLAB" in note for note in volume.notes)


@pytest.mark.parametrize("options", [{}, {"chunks": (4, 4, 4), "fillvalue": True}], ids=str)
def test_truth_values_are_0_and_1(file: Path, options: dict[str, Any]) -> None:
    voxels = random_voxels((9, 8, 7), "uint8") % 2
    with h5py.File(file, "w") as out:
        out.create_dataset("mask", data=voxels.astype(bool), **options)
    (volume,) = volumes(file)
    assert volume.dtype == "uint8"
    assert volume.handle["fill"] in (0, 1)
    assert not isinstance(volume.handle["fill"], bool)
    np.testing.assert_array_equal(read(file, volume), voxels)


def test_a_filter_that_was_left_out_for_a_chunk_is_not_undone(file: Path) -> None:
    voxels = np.arange(64, dtype=np.uint8).reshape(4, 4, 4)
    with h5py.File(file, "w") as out:
        data = out.create_dataset("d", (4, 4, 4), "u1", chunks=(4, 4, 4), compression="gzip")
        data.id.write_direct_chunk((0, 0, 0), voxels.tobytes(), filter_mask=1)
    (volume,) = volumes(file)
    np.testing.assert_array_equal(read(file, volume), voxels)


@pytest.mark.parametrize("options", [{"compression": "gzip"}, {"fletcher32": True}])
def test_a_flipped_bit_is_found_where_the_format_can(file: Path, options: dict[str, Any]) -> None:
    voxels = np.random.default_rng(1).integers(0, 255, (8, 8, 8)).astype("u1")
    with h5py.File(file, "w") as out:
        data = out.create_dataset("d", data=voxels, chunks=(8, 8, 8), **options)
        place = data.id.get_chunk_info(0)
    raw = bytearray(file.read_bytes())
    raw[place.byte_offset + place.size // 2] ^= 16
    file.write_bytes(raw)
    (volume,) = volumes(file)
    with pytest.raises(FormatError) as caught:
        read(file, volume)
    assert caught.value.unit == "chunk 0/0/0"


def test_damage_anywhere_is_an_error_or_a_file_that_is_read(file: Path, tmp_path: Path) -> None:
    """In processes as users have them; tests/formats/fuzz.py tries thousands in forks."""
    voxels = np.random.default_rng(2).integers(0, 255, (8, 8, 8)).astype("u2")
    with h5py.File(file, "w") as out:
        out.create_dataset("d", data=voxels, chunks=(4, 4, 4), compression="gzip")
    good, draw = file.read_bytes(), np.random.default_rng(3)
    damaged = tmp_path / "damaged.h5"
    for number in range(5):
        data = bytearray(good if number % 2 else good[: draw.integers(1, len(good))])
        for at in draw.integers(0, len(data), 5):
            data[at] = draw.integers(0, 256)
        damaged.write_bytes(data)
        try:
            for volume in volumes(damaged):
                if volume.refused is None:
                    read(damaged, volume)
        except MacroscopeError:
            continue


# --- which axis is which, where they lie, and in which bits ---------------------------------------


def tags(axes: str) -> str:
    """As ilastik writes them."""
    described = [{"key": axis, "typeFlags": 2, "resolution": 0} for axis in axes]
    return json.dumps({"axes": [{**one, "description": " " * 60} for one in described]})


def by_tags(dataset: h5py.Dataset, axes: str) -> None:
    dataset.attrs["axistags"] = tags(axes)


def by_labels(dataset: h5py.Dataset, axes: str) -> None:
    for dim, axis in zip(dataset.dims, axes, strict=True):
        dim.label = axis


def by_scales(dataset: h5py.Dataset, axes: str) -> None:
    """As netCDF names dimensions."""
    for dim, axis, length in zip(dataset.dims, axes, dataset.shape, strict=True):
        scale = dataset.file.create_dataset(axis, data=np.arange(length))
        scale.make_scale()
        dim.attach_scale(scale)


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize("write", [by_tags, by_labels, by_scales])
@pytest.mark.parametrize("axes", ["zyxc", "xyz", "tzyxc", "yx"])
def test_axes_are_where_the_file_names_them(file: Path, axes: str, write: Any) -> None:
    lengths = {"t": 1, "c": 2, "z": 5, "y": 9, "x": 7}
    stored = random_voxels(tuple(lengths[axis] for axis in axes), "uint8", 3)
    with h5py.File(file, "w") as h5:
        write(h5.create_dataset("d", data=stored), axes)
    (volume,) = Hdf5Format().describe(LocalBytes(file), "d", Options(channel=1, time=0))
    truth = stored
    for axis, at in (("c", 1), ("t", 0)):
        truth = np.take(truth, at, axes.index(axis)) if axis in axes else truth
    truth = truth.T if axes == "xyz" else truth
    np.testing.assert_array_equal(read(file, volume), truth.reshape(volume.shape_zyx))
    assert volume.shape_zyx == (5 if "z" in axes else 1, 9, 7)


@pytest.mark.usefixtures("forks")
def test_names_that_are_no_axes_of_space_are_told(file: Path) -> None:
    with h5py.File(file, "w") as h5:
        by_labels(h5.create_dataset("d", data=random_voxels((5, 9, 7), "uint8", 3)), "uvw")
    (volume,) = volumes(file)
    assert volume.shape_zyx == (5, 9, 7)
    assert any("axes are called u, v, w" in note for note in volume.notes)


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize("units", ["um", ["um", "um", "um"]])
@pytest.mark.parametrize("key", ["resolution", "voxel_size"])
def test_a_resolution_with_units_is_taken(file: Path, units: Any, key: str) -> None:
    with h5py.File(file, "w") as h5:
        dataset = h5.create_dataset("raw", data=random_voxels((5, 9, 7), "uint8", 3))
        dataset.attrs[key] = [0.04, 0.005, 0.004]
        dataset.attrs["offset"] = [0.08, 0.01, 0.0]
        dataset.attrs["units"] = units
    (volume,) = volumes(file)
    assert volume.voxel.known_nm_zyx == pytest.approx((40.0, 5.0, 4.0))
    assert volume.origin_nm_zyx == pytest.approx((80.0, 10.0, 0.0))


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize(
    ("attributes", "voxel", "told"),
    [
        ({"voxel_size": [40.0, 4.0, 5.0]}, (40.0, 4.0, 5.0), []),
        ({"resolution": [40.0, -4.0, 4.0]}, None, ["resolution"]),
        ({"resolution": [4.0, 4.0], "offset": [1.0, 2.0, 3.0]}, None, ["resolution", "offset"]),
        ({"resolution": "40 4 4"}, None, ["resolution"]),
        ({"offset": [1.0, 2.0, 3.0]}, None, ["offset"]),
        ({"element_size_um": [0.0, 4.0, 4.0]}, None, ["element_size_um"]),
    ],
)
def test_a_geometry_that_cannot_be_taken_is_told(
    file: Path, attributes: dict[str, Any], voxel: Any, told: list[str]
) -> None:
    """A record must not say that the file gives none."""
    with h5py.File(file, "w") as h5:
        dataset = h5.create_dataset("volumes/x", data=random_voxels((5, 9, 7), "uint8", 3))
        dataset.attrs.update(attributes)
    (volume,) = volumes(file)
    assert volume.voxel.known_nm_zyx == voxel
    assert [note.split()[2] for note in volume.notes] == told
    assert volume.origin_nm_zyx is None or voxel


def test_values_in_other_bits_than_numpy_has_are_refused(file: Path) -> None:
    from h5py import h5d, h5s, h5t

    shifted = h5t.NATIVE_UINT16.copy()
    shifted.set_precision(12)
    shifted.set_offset(4)
    signed = h5t.NATIVE_INT16.copy()
    signed.set_precision(12)
    half = h5t.IEEE_F32LE.copy()
    half.set_fields(15, 7, 8, 0, 7)
    half.set_precision(16)
    half.set_size(2)
    half.set_ebias(127)
    with h5py.File(file, "w") as h5:
        for name, kind in (("shifted", shifted), ("signed", signed), ("half", half)):
            dataset = h5d.create(h5.id, name.encode(), kind, h5s.create_simple((2, 3, 4)))
            dataset.write(h5s.ALL, h5s.ALL, np.ones((2, 3, 4), np.float32))
    found = volumes(file)
    assert len(found) == 3
    assert all("other bits" in str(volume.refused) for volume in found)


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize("path", ["link", "group/d"])
def test_links_within_the_file_are_followed(file: Path, path: str) -> None:
    truth = random_voxels((5, 9, 7), "uint8", 3)
    with h5py.File(file, "w") as h5:
        h5["deep/d"] = truth
        h5["link"] = h5py.SoftLink("group/d")
        h5["group"] = h5py.SoftLink("/deep")
    (volume,) = volumes(file, path)
    np.testing.assert_array_equal(read(file, volume), truth)


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize("sized", [True, False])
def test_imaris_says_where_a_volume_lies(file: Path, sized: bool) -> None:
    """Whether the image says its size in voxels, or level 0 alone does."""

    def text(value: float) -> np.ndarray[Any, Any]:
        return np.array([letter.encode() for letter in str(value)])

    with h5py.File(file, "w") as h5:
        for level, shape in ((0, (6, 8, 8)), (1, (3, 4, 4))):
            group = h5.create_group(f"DataSet/ResolutionLevel {level}/TimePoint 0/Channel 0")
            group["Data"] = random_voxels(shape, "uint8", 3)
            for axis, length in zip("ZYX", shape, strict=True):
                group.attrs[f"ImageSize{axis}"] = text(length)
        image = h5.create_group("DataSetInfo/Image")
        for axis, number, size in (("X", 0, 8), ("Y", 1, 8), ("Z", 2, 6)):
            if sized:
                image.attrs[axis] = text(size)
            image.attrs[f"ExtMin{number}"] = text(number + 1.0)
            image.attrs[f"ExtMax{number}"] = text(number + 1.0 + size * 0.01)
    (finest,) = volumes(file)
    assert finest.voxel.known_nm_zyx == (10.0, 10.0, 10.0)
    assert finest.origin_nm_zyx == (3000.0, 2000.0, 1000.0)
    (coarse,) = Hdf5Format().describe(LocalBytes(file), "", Options(level="1"))
    assert coarse.voxel.known_nm_zyx == (20.0, 20.0, 20.0)
    assert coarse.origin_nm_zyx == (3005.0, 2005.0, 1005.0)


def of_nexus(file: h5py.File, voxels: Any, axes: str, lengths: tuple[float, ...]) -> None:
    group = file.create_group("entry/data")
    group.attrs["axes"] = [*axes]
    group["data"] = voxels
    for axis, length, count in zip(axes, lengths, voxels.shape, strict=True):
        group[axis] = 7 + np.arange(count) * length
        group[axis].attrs["units"] = "um"


def of_emd(file: h5py.File, voxels: Any, axes: str, lengths: tuple[float, ...]) -> None:
    group = file.create_group("data/stack")
    group["data"] = voxels
    for place, (axis, length) in enumerate(zip(axes, lengths, strict=True)):
        dim = group.create_dataset(f"dim{place + 1}", data=7 + np.arange(2) * length)
        dim.attrs["name"] = np.bytes_(axis)
        dim.attrs["units"] = np.bytes_("[u_m]")


def of_netcdf(file: h5py.File, voxels: Any, axes: str, lengths: tuple[float, ...]) -> None:
    dataset = file.create_dataset("v", data=voxels)
    for place, (axis, length) in enumerate(zip(axes, lengths, strict=True)):
        file[axis] = 7 + np.arange(voxels.shape[place]) * length
        file[axis].make_scale(axis)
        file[axis].attrs["units"] = "um"
        dataset.dims[place].attach_scale(file[axis])


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize("write", [of_nexus, of_emd, of_netcdf])
@pytest.mark.parametrize("axes", ["zyx", "xyz"])
def test_coordinates_of_axes_say_how_large_voxels_are(file: Path, write: Any, axes: str) -> None:
    """They were left out, and of EMD the order of the axes with them."""
    voxels = random_voxels((5, 9, 7), "uint8", 3)
    lengths = {"z": 0.05, "y": 0.005, "x": 0.004}
    with h5py.File(file, "w") as h5:
        write(h5, voxels, axes, tuple(lengths[axis] for axis in axes))
    (volume,) = volumes(file)
    assert volume.voxel.known_nm_zyx == pytest.approx((50.0, 5.0, 4.0))
    assert volume.origin_nm_zyx == pytest.approx((7000.0,) * 3)
    expected = voxels if axes == "zyx" else voxels.transpose(2, 1, 0)
    np.testing.assert_array_equal(read(file, volume), expected)


@pytest.mark.usefixtures("forks")
def test_coordinates_that_are_not_even_are_no_lengths(file: Path) -> None:
    with h5py.File(file, "w") as h5:
        of_nexus(h5, random_voxels((5, 9, 7), "uint8", 3), "zyx", (0.05, 0.005, 0.004))
        h5["entry/data/z"][3] = 9
        h5["entry/data/y"].attrs["units"] = "deg"
    (volume,) = volumes(file)
    found = volume.voxel
    assert (found.z_nm, found.y_nm, found.x_nm) == (None, None, pytest.approx(4.0))


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize("leading", [(), (1,)])
def test_a_last_axis_of_one_value_is_a_channel(file: Path, leading: tuple[int, ...]) -> None:
    """As Keras and ilastik keep it; a channel had to be chosen, and was a plane turned round."""
    voxels = random_voxels((5, 9, 7), "uint8", 3)
    with h5py.File(file, "w") as h5:
        h5["v"] = voxels.reshape(*leading, 5, 9, 7, 1)
    (volume,) = volumes(file)
    np.testing.assert_array_equal(read(file, volume), voxels)


@pytest.mark.usefixtures("forks")
def test_frames_of_velox_stand_last(file: Path) -> None:
    """An image came out as one row of each of its sections."""
    image = random_voxels((9, 7), "uint16", 3)
    with h5py.File(file, "w") as h5:
        h5[f"Data/Image/{'0a' * 16}/Data"] = image[..., None]
    (volume,) = volumes(file)
    np.testing.assert_array_equal(read(file, volume), image[None])


@pytest.mark.parametrize("dtype", ["u1", "u2", "f8"])
@pytest.mark.parametrize("cname", ["none", "lz4", "zstd"])
@pytest.mark.parametrize("elements", [0, 8, 64])
def test_bitshuffled_chunks_of_any_length(dtype: str, cname: str, elements: int) -> None:
    """As the filter itself writes them: blocks, a shorter one, and elements that fill no eight."""
    draw = np.random.default_rng(1)
    for count in (1, 7, 8, 65, 1000, 4097):
        values, packed, stored = bitshuffled(
            draw.integers(0, 9, count).astype(dtype), elements, cname
        )
        assert bits_in_place(values, packed, stored.nbytes + 4) == stored.tobytes()
        if cname == "none":
            continue
        for cut in {0, 5, 11, 12, len(packed) - 1}:
            with pytest.raises(FormatError):
                bits_in_place(values, packed[:cut], stored.nbytes + 4)
        with pytest.raises(FormatError, match=r"bytes, \d+ belong"):
            bits_in_place(values, packed + b"0", stored.nbytes + 4)
        with pytest.raises(FormatError, match="bitshuffled chunk of"):
            bits_in_place(values, packed, stored.nbytes - 1)


@pytest.mark.parametrize(
    ("at", "value"), [(8, 0), (8, 12), (8, 2**32 - 1), (4, 2**31), (12, 2**31), (12, 3)]
)
def test_a_bitshuffled_chunk_whose_lengths_lie(at: int, value: int) -> None:
    values, packed, stored = bitshuffled(np.arange(5000, dtype="u2"), 64, "lz4")
    packed = packed[:at] + value.to_bytes(4, "big") + packed[at + 4 :]
    with pytest.raises(FormatError):
        bits_in_place(values, packed, stored.nbytes + 4)


def bitshuffled(stored: Any, elements: int, cname: str) -> tuple[list[int], bytes, Any]:
    """Values of the filter, a chunk that went through it, and its voxels."""
    how = hdf5plugin.Bitshuffle(elements, cname)
    with h5py.File(io.BytesIO(), "w") as file:
        data = file.create_dataset("x", data=stored, chunks=stored.shape, **how)
        packed = data.id.read_direct_chunk((0,))[1]
        values = data.id.get_create_plist().get_filter(0)[2]
    return [*values], packed, stored
