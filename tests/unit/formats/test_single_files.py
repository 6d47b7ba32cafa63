"""NRRD, NIfTI, AmiraMesh, PNG, JPEG: cut, damaged and foreign files end in named errors."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from lib.bytesource.base import LocalBytes
from lib.errors import FormatError, MacroscopeError, UnsupportedFormatError
from lib.formats import registry
from lib.formats.base import VolumeReader
from lib.formats.format import Options
from lib.formats.planes import Section, SectionStack
from lib.geometry import Box
from tests.formats import cases_single_files as cases

WRITERS: dict[str, tuple[str, Any]] = {
    case.name: (case.name.partition("-")[0], case.write) for case in cases.CASES
}


def written(name: str, folder: Path) -> tuple[str, Path]:
    form, write = WRITERS[name]
    folder.mkdir(exist_ok=True)
    write(folder)
    return form, min(folder.iterdir())


def read(form: str, path: Path, scratch: Path) -> np.ndarray[Any, Any]:
    reads = registry.file_format(form)
    (volume,) = reads.describe(LocalBytes(path), "", Options())
    if volume.refused is not None:
        raise FormatError(volume.refused)
    out = np.zeros(volume.shape_zyx, volume.dtype)
    with reads.open(LocalBytes(path), volume.handle, scratch=scratch) as reader:
        for block in reader.blocks(Box.whole(volume.shape_zyx)):
            out[block.box.slices()] = block.data
    return out


@pytest.mark.parametrize("name", WRITERS)
def test_the_beginning_of_a_file_is_recognised_by_one_format(name: str, tmp_path: Path) -> None:
    form, path = written(name, tmp_path / "f")
    found = registry.formats_of_file(LocalBytes(path), path.name)
    assert [one.name for one in found] == [form]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("left", [0.0, 0.3, 0.9])
def test_a_cut_file_is_an_error(name: str, left: float, tmp_path: Path) -> None:
    form, path = written(name, tmp_path / "f")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * left)])
    with pytest.raises(FormatError):
        read(form, path, tmp_path / "s")


@pytest.mark.parametrize("name", WRITERS)
def test_damage_ends_in_a_named_error_or_in_voxels(name: str, tmp_path: Path) -> None:
    form, path = written(name, tmp_path / "f")
    good, draw = path.read_bytes(), np.random.default_rng(1)
    for _ in range(60):
        data = bytearray(good)
        for at in draw.integers(0, min(len(data), 600), 3):
            data[at] = draw.integers(0, 256)
        path.write_bytes(data)
        try:
            read(form, path, tmp_path / "s")
        except MacroscopeError:
            continue
    assert not [*(tmp_path / "s").glob("*")], "a scratch file was left behind"


@pytest.mark.parametrize(
    "line", [b"data file: other.raw\n", b"type: block\n", b"encoding: hex\n", b"sizes: 2 2 3 4\n"]
)
def test_what_an_nrrd_may_be_and_is_not_read(line: bytes, tmp_path: Path) -> None:
    name = line.partition(b":")[0]
    fields = {
        b"type": b"type: uint8\n",
        b"dimension": b"dimension: 4\n",
        b"sizes": b"sizes: 2 2 2 1\n",
        b"encoding": b"encoding: raw\n",
        name: line,
    }
    path = tmp_path / "a.nrrd"
    path.write_bytes(b"NRRD0004\n" + b"".join(fields.values()) + b"\n" + bytes(64))
    with pytest.raises(UnsupportedFormatError):
        read("nrrd", path, tmp_path)


def test_values_of_a_scaled_nifti_stay_as_they_are_stored(tmp_path: Path) -> None:
    _, path = written("nifti-scaled", tmp_path / "f")
    (volume,) = registry.file_format("nifti").describe(LocalBytes(path), "", Options())
    assert volume.dtype == "int16"
    assert volume.notes == ("values mean 2 x stored + 5; they are kept as stored",)


@pytest.mark.parametrize(("size", "at", "code"), [(348, 68, "<h"), (540, 504, "<i")])
def test_a_nifti_whose_intent_is_labels_is_labels(
    size: int, at: int, code: str, tmp_path: Path
) -> None:
    """As nibabel's `set_intent("label")` and ITK-SNAP's exporters write it."""
    data = bytearray(size + 4 + 24)
    if size == 348:
        struct.pack_into("<i40s", data, 0, 348, b"")
        struct.pack_into("<4h", data, 40, 3, 4, 3, 2)
        struct.pack_into("<2h", data, 70, 2, 8)
        struct.pack_into("<f", data, 108, 352.0)
        data[344:348] = b"n+1\0"
    else:
        struct.pack_into("<i8s2h", data, 0, 540, b"n+2\0\r\n\x1a\n", 2, 8)
        struct.pack_into("<4q", data, 16, 3, 4, 3, 2)
        struct.pack_into("<q", data, 168, 544)
    path = tmp_path / "a.nii"
    for intent, kind in ((0, None), (1002, "labels")):
        struct.pack_into(code, data, at, intent)
        path.write_bytes(data)
        (volume,) = registry.file_format("nifti").describe(LocalBytes(path), "", Options())
        assert (volume.shape_zyx, volume.kind) == ((2, 3, 4), kind)
        assert (volume.kind_evidence is None) == (kind is None)


def test_coloured_pictures_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    with pytest.raises(UnsupportedFormatError, match="mode RGB"):
        read("png", path, tmp_path)


def test_a_picture_that_says_more_pixels_than_its_bytes_can_hold_is_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    path.write_bytes(data)
    with pytest.raises(FormatError):
        read("png", path, tmp_path)


def test_every_flipped_bit_of_a_png_is_found(tmp_path: Path) -> None:
    """Pillow looks at no CRC-32 of the pixels: a damaged label picture came out as other labels."""
    _, path = written("png-palette", tmp_path / "f")
    good = path.read_bytes()
    for at in range(len(good)):
        data = bytearray(good)
        data[at] ^= 1 << (at % 8)
        path.write_bytes(data)
        with pytest.raises(MacroscopeError):
            read("png", path, tmp_path / "s")


def png_of(voxels: np.ndarray[Any, Any], bits: int) -> bytes:
    """A grey PNG of few bits, which Pillow does not write."""
    rows = np.packbits(
        np.unpackbits(voxels[..., None], axis=-1)[..., 8 - bits :].reshape(len(voxels), -1), axis=1
    )

    def chunk(name: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)

    head = struct.pack(">IIBBBBB", voxels.shape[1], voxels.shape[0], bits, 0, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_values_of_a_png_of_few_bits_stay_as_they_are_stored(bits: int, tmp_path: Path) -> None:
    voxels = (np.arange(15 * 11).reshape(15, 11) % 2**bits).astype("u1")
    (tmp_path / "a.png").write_bytes(png_of(voxels, bits))
    np.testing.assert_array_equal(read("png", tmp_path / "a.png", tmp_path)[0], voxels)
    (volume,) = registry.file_format("png").describe(LocalBytes(tmp_path / "a.png"), "", Options())
    assert any("bit" in note for note in volume.notes) == (bits < 8)


def test_an_orientation_that_is_not_applied_is_told(tmp_path: Path) -> None:
    picture = Image.fromarray(np.arange(48, dtype="u1").reshape(6, 8))
    tags = picture.getexif()
    for orientation, told in ((1, False), (6, True), (99, False)):
        tags[274] = orientation
        picture.save(tmp_path / "a.jpg", exif=tags)
        (volume,) = registry.file_format("jpeg").describe(
            LocalBytes(tmp_path / "a.jpg"), "", Options()
        )
        assert any("EXIF orientation 6" in note for note in volume.notes) == told


@pytest.mark.parametrize("form", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("by", ["sform", "qform"])
def test_a_nifti_says_where_it_lies_unless_it_is_turned(form: Any, by: str, tmp_path: Path) -> None:
    def made(*scale: float) -> Any:
        affine = np.diag([*scale, 1.0])
        affine[:3, 3] = [1.0, -2.0, 3.0]
        image = form(np.zeros((4, 5, 6), np.uint8), None)
        image.header.set_xyzt_units("micron")
        (image.set_sform if by == "sform" else image.set_qform)(affine, 1)
        nibabel.save(image, tmp_path / "a.nii")
        (volume,) = registry.file_format("nifti").describe(
            LocalBytes(tmp_path / "a.nii"), "", Options()
        )
        return volume

    volume = made(0.004, 0.005, 0.03)
    assert volume.origin_nm_zyx == (3000.0, -2000.0, 1000.0)
    assert not any(f"({by})" in note for note in volume.notes)
    for scale in ((-0.004, 0.005, 0.03), (0.004, 0.005, -0.03)):
        volume = made(*scale)
        assert volume.origin_nm_zyx is None
        assert any(f"({by})" in note for note in volume.notes)


@pytest.mark.parametrize(
    ("affine", "said"),
    [
        (np.diag([0.008, 0.005, 0.03, 1.0]), "sform says voxels of 0.008, 0.005, 0.03"),
        (np.diag([0.004, 0.005, 0.03, 1.0]), None),
        # a shear of a quarter of a voxel, and an exchange of axes, of voxels in millimetres
        (np.diag([4e-6, 5e-6, 3e-5, 1.0]) + np.eye(4, k=1) * [[1e-6], [0], [0], [0]], "turns"),
        (np.diag([4e-7, 5e-7, 3e-6, 1.0])[[1, 0, 2, 3]], "turns"),
    ],
)
def test_a_nifti_whose_matrix_is_no_diagonal_of_its_voxels_says_so(
    affine: Any, said: str | None, tmp_path: Path
) -> None:
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), affine)
    image.header.set_xyzt_units("micron")
    lengths = [0.004, 0.005, 0.03] if said != "turns" else np.linalg.norm(affine[:3, :3], axis=0)
    data = bytearray(image.to_bytes())
    data[80:92] = np.array(lengths, "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(data)
    (volume,) = registry.file_format("nifti").describe(
        LocalBytes(tmp_path / "a.nii"), "", Options()
    )
    told = [note for note in volume.notes if "sform" in note]
    assert (said is None and not told) or any(said in note for note in told if said)


def nrrd(folder: Path, *lines: str, sizes: str = "5 4 3", kind: str = "uint8") -> Path:
    """A raw NRRD of 60 voxels, little-endian, with these lines in its header."""
    head = (f"type: {kind}", f"dimension: {len(sizes.split())}", f"sizes: {sizes}", *lines)
    path = folder / "a.nrrd"
    text = "NRRD0004\n" + "\n".join((*head, "endian: little", "encoding: raw")) + "\n\n"
    path.write_bytes(text.encode() + np.arange(60, dtype="<u8").tobytes())
    return path


UNITS = 'space units: "nm" "nm" "nm"'
PLACED = (5.0, 4.0, 3.0)


@pytest.mark.parametrize(
    ("lines", "sizes", "voxel", "note"),
    [
        # as 3D Slicer writes a volume whose pixels, or segments, have an axis of their own
        (("space directions: none (3,0,0) (0,4,0) (0,0,5)", UNITS), "1 5 4 3", PLACED, None),
        (("spacings: nan 3 4 5", 'units: "" "nm" "nm" "nm"'), "1 5 4 3", PLACED, None),
        (("spacings: 3 4 5 nan", 'units: "nm" "nm" "nm" ""'), "5 4 3 1", PLACED, None),
        (("spacings: 3 4 nan 5", 'units: "nm" "nm" "" "nm"'), "15 4 1 1", (5.0, 4.0, 3.0), None),
        (("space directions: (3, 0, 0) (0, 4, 0) (0, 0, 5)", UNITS), "5 4 3", PLACED, None),
        (("spacings: 3 4", 'units: "nm" "nm"'), "15 4", (None, 4.0, 3.0), None),
        (("spacings: 3 4 nan", UNITS), "5 4 3", (None, 4.0, 3.0), None),
        (
            ("space directions: (3,0,0) (0,4,0) (0,0,5)", "space origin: (1,2,3)", UNITS + ' "nm"'),
            "5 4 3",
            PLACED,
            None,
        ),
        (("spacings: 3 4 5", 'units: "nano meter" "nm" "nm"'), "5 4 3", (None,) * 3, "no unit"),
        (("spacings: 3 4 5", UNITS, 'labels: "z" "y" "x"'), "5 4 3", PLACED, "labelled z, y, x"),
        (("spacings: 3 4 5", UNITS, "axis mins: 0 0 50"), "5 4 3", PLACED, "axis mins 0 0 50"),
    ],
)
def test_an_nrrd_says_how_long_each_of_its_axes_voxels_are(
    lines: tuple[str, ...], sizes: str, voxel: Any, note: str | None, tmp_path: Path
) -> None:
    path = nrrd(tmp_path, *lines, sizes=sizes)
    (volume,) = registry.file_format("nrrd").describe(LocalBytes(path), "", Options())
    assert (volume.voxel.z_nm, volume.voxel.y_nm, volume.voxel.x_nm) == voxel
    assert [note in one for one in volume.notes] == ([True] if note else [])


def test_an_nrrd_whose_axis_runs_downwards_is_not_placed_by_its_first_voxel(tmp_path: Path) -> None:
    """Its voxels keep their order, so that all but the first would lie elsewhere."""
    placed = ("space directions: (3,0,0) (0,-4,0) (0,0,5)", "space origin: (1,2,3)", UNITS)
    path = nrrd(tmp_path, *placed, sizes="5 4 3")
    (volume,) = registry.file_format("nrrd").describe(LocalBytes(path), "", Options())
    assert (volume.voxel.z_nm, volume.voxel.y_nm, volume.voxel.x_nm) == PLACED
    assert volume.origin_nm_zyx is None
    assert any("nor is their place [1.0, 2.0, 3.0]" in note for note in volume.notes)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("unsigned long long int", "uint64"),  # as ITK writes it
        ("signed long long", "int64"),
        ("signed short int", "int16"),
        ("unsigned int", "uint32"),
    ],
)
def test_types_of_an_nrrd_have_many_names(kind: str, dtype: str, tmp_path: Path) -> None:
    path = nrrd(tmp_path, kind=kind)
    data = path.read_bytes()
    raw = np.frombuffer(data[data.index(b"\n\n") + 2 :], dtype)
    np.testing.assert_array_equal(read("nrrd", path, tmp_path).ravel(), raw[:60])


def test_the_header_of_a_detached_nrrd_needs_no_blank_line(tmp_path: Path) -> None:
    path = tmp_path / "a.nhdr"
    path.write_bytes(b"NRRD0004\ntype: uint8\ndimension: 2\nsizes: 2 2\ndata file: a.raw\n")
    with pytest.raises(UnsupportedFormatError, match="other files"):
        read("nrrd", path, tmp_path)


def test_an_amira_header_is_text_of_utf_8_or_latin_1(tmp_path: Path) -> None:
    _, path = written("amira-raw", tmp_path / "f")
    data = path.read_bytes()
    for unit in ("µm".encode(), "µm".encode("latin-1")):
        path.write_bytes(data.replace(b'"nm"', b'"' + unit + b'"'))
        (volume,) = registry.file_format("amira").describe(LocalBytes(path), "", Options())
        assert volume.voxel.x_nm == pytest.approx(4000.0)
    path.write_bytes(data.replace(b'"uniform"', b'"rectilinear"'))
    with pytest.raises(UnsupportedFormatError, match="rectilinear"):
        read("amira", path, tmp_path)


def drawn_by(form: str, path: Path) -> tuple[str | None, dict[str, Any]]:
    (volume,) = registry.file_format(form).describe(LocalBytes(path), "", Options())
    return volume.kind, volume.extra.get("image_label", {})


def test_segments_of_slicer_are_labels_with_names(tmp_path: Path) -> None:
    lines = (
        "Segment0_ID:=Segment_1", "Segment0_Name:=Mito, large", "Segment0_LabelValue:=3",
        "Segment0_Color:=0.5 1 0", "Segment1_Name:=ER", "Segment1_LabelValue:=1",
        "Segment1_Color:=red", "Segment2_Name:=nothing",
    )  # fmt: skip
    kind, drawn = drawn_by("nrrd", nrrd(tmp_path, *lines))
    assert kind == "labels"
    assert drawn == {
        "colors": [{"label-value": 3, "rgba": [128, 255, 0, 255]}],
        "properties": [
            {"label-value": 1, "class": "ER"},
            {"label-value": 3, "class": "Mito, large"},
        ],
    }
    assert drawn_by("nrrd", nrrd(tmp_path, "Segment0_LabelValue:=1")) == ("labels", {})
    assert drawn_by("nrrd", nrrd(tmp_path, *lines, kind="float")) == (None, {})
    assert drawn_by("nrrd", nrrd(tmp_path)) == (None, {})


def test_materials_of_amira_are_named_by_their_place(tmp_path: Path) -> None:
    """Exterior has the Id 1, and its voxels are 0."""
    _, path = written("amira-rle", tmp_path / "f")
    materials = b"""Parameters {
    Materials {
        Exterior { Id 1 }
        "Golgi {old}" {
            Color 0.2 .8 1,
            Id 5
            More { Deep 3 }
        }
        Mito { Id 3, Color 1..2 0 0 }
    }
"""
    path.write_bytes(path.read_bytes().replace(b"Parameters {\n", materials))
    kind, drawn = drawn_by("amira", path)
    assert kind == "labels"
    assert drawn["colors"] == [{"label-value": 1, "rgba": [51, 204, 255, 255]}]
    assert [(row["label-value"], row["class"]) for row in drawn["properties"]] == [
        (0, "Exterior"), (1, "Golgi {old}"), (2, "Mito"),
    ]  # fmt: skip


def stacked(paths: list[Path]) -> np.ndarray[Any, Any]:
    """The voxels of a stack of these files, one plane each."""
    opened = {path: registry.formats_of_file(LocalBytes(path), path.name)[0] for path in paths}
    (first,) = opened[paths[0]].describe(LocalBytes(paths[0]), "", Options())

    def section(path: Path) -> Section:
        def opener() -> VolumeReader:
            return opened[path].open(LocalBytes(path), first.handle)

        return Section(path.name, first.shape_zyx[1:], np.dtype(first.dtype), opener)

    stack = SectionStack([*map(section, paths)])
    out = np.zeros(stack.shape_zyx, stack.dtype)
    for block in stack.blocks(Box.whole(stack.shape_zyx)):
        out[block.box.slices()] = block.data
    return out


def test_sections_that_store_values_in_different_ways_are_no_stack(tmp_path: Path) -> None:
    """Every second section of a stack was inverted, or a mask of 0 and 1 stood among grey ones."""
    plane = np.arange(1, 13, dtype=np.uint8).reshape(3, 4)
    kinds = {
        "plain": lambda path: tifffile.imwrite(path, plane, photometric="minisblack"),
        "white": lambda path: tifffile.imwrite(path, plane, photometric="miniswhite"),
        "bits": lambda path: tifffile.imwrite(path, plane > 4, photometric="minisblack"),
        "grey": lambda path: Image.fromarray(plane).save(path, format="PNG"),
        "one": lambda path: Image.fromarray(plane > 4).save(path, format="PNG"),
        "palette": lambda path: Image.fromarray(plane).convert("P").save(path, format="PNG"),
    }
    for name, write in kinds.items():
        write(tmp_path / name)
    tifffile.imwrite(tmp_path / "empty", plane * 0 > 0, photometric="minisblack")
    for one, other in (("plain", "white"), ("plain", "bits"), ("grey", "one"), ("grey", "palette")):
        with pytest.raises(UnsupportedFormatError, match="values are stored as"):
            stacked([tmp_path / one, tmp_path / other])
        assert stacked([tmp_path / one, tmp_path / one]).any()
    for order in (("empty", "plain"), ("plain", "empty")):  # 0 is 0 in any of them
        assert stacked([tmp_path / name for name in order]).any()
