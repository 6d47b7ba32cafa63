"""What a TIFF says of size, place and orientation: applied, noted or refused, never dropped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from lib.bytesource.base import LocalBytes, MemoryBytes
from lib.errors import UnsupportedFormatError
from lib.formats.tiff.reader import TiffReader, TiffVolume, open_tiff

SHAPE = (3, 37, 53)


def make(shape: tuple[int, ...] = SHAPE, dtype: str = "uint8") -> Any:
    return np.random.default_rng(11).integers(0, 200, shape).astype(dtype)


def write(path: Path, pages: Any, *, tags: Any = (), **options: Any) -> Path:
    """Plain pages without tifffile's own description; ``tags`` are extra ones of the first."""
    with tifffile.TiffWriter(path) as file:
        for number, page in enumerate(pages):
            extra = [(*tag, True) for tag in tags] if number == 0 else []
            file.write(page, metadata=None, extratags=extra, contiguous=False, **options)
    return path


def text_tag(code: int, text: str | bytes) -> tuple[int, int, int, bytes]:
    data = text if isinstance(text, bytes) else text.encode("latin-1")
    return (code, 7, len(data), data)


def read(path: Path, **chosen: Any) -> TiffVolume:
    return open_tiff(LocalBytes(path), **chosen)


# --- orientation --------------------------------------------------------------------------------


def as_pillow_turns(plane: Any, orientation: int) -> Any:
    image = Image.fromarray(plane)
    image.getexif()[274] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "pieces", [{}, {"rowsperstrip": 5, "compression": "zlib"}, {"tile": (16, 32)}], ids=str
)
def test_every_orientation_is_applied(
    tmp_path: Path, orientation: int, pieces: dict[str, Any], assert_voxels: Callable[..., None]
) -> None:
    stored = make()
    tags = [(274, 3, 1, orientation)]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in stored:
            file.write(
                page,
                metadata=None,
                contiguous=False,
                extratags=[(*tag, True) for tag in tags],
                resolution=(10**6, 2 * 10**6),  # x, y per cm
                resolutionunit=3,
                **pieces,
            )
    found = read(tmp_path / "a.tif")
    expected = np.stack([as_pillow_turns(plane, orientation) for plane in stored])
    assert_voxels(TiffReader(found), expected, boxes=30)
    y_nm, x_nm = (5.0, 10.0) if orientation < 5 else (10.0, 5.0)
    assert (found.voxel.y_nm, found.voxel.x_nm) == (y_nm, x_nm)
    assert any("is applied" in note for note in found.notes) == (orientation != 1)
    assert found.turned == ({} if orientation == 1 else {"orientation": orientation})


@pytest.mark.parametrize("orientation", [0, 9])
def test_an_orientation_that_means_nothing_is_noted(tmp_path: Path, orientation: int) -> None:
    volume = make()
    path = write(tmp_path / "a.tif", volume[:1], tags=[(274, 3, 1, orientation)])
    found = read(path)
    assert any(f"Orientation {orientation} means nothing" in note for note in found.notes)
    assert found.turned == {}


def test_rows_that_a_description_calls_rows_are_not_turned(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif", imagej=True) as file:
        file.write(make(), extratags=[(274, 3, 1, 6, True)], metadata={"axes": "ZYX"})
    with pytest.raises(UnsupportedFormatError, match="contradicts the axes"):
        read(tmp_path / "a.tif")


# --- grey levels --------------------------------------------------------------------------------


def ramp(bits: int, step: int) -> Any:
    return np.tile((np.arange(2**bits) * step).astype(np.uint16), (3, 1))


@pytest.mark.parametrize(
    ("dtype", "bits", "step"),
    [("uint8", 8, 257), ("uint8", 8, 256), ("uint8", 8, 1), ("uint16", 16, 1)],
)
def test_a_palette_that_is_the_grey_ramp_leaves_values_as_stored(
    tmp_path: Path, dtype: str, bits: int, step: int, assert_voxels: Callable[..., None]
) -> None:
    volume = make(dtype=dtype)
    path = write(tmp_path / "a.tif", volume, photometric="palette", colormap=ramp(bits, step))
    found = read(path)
    assert any("grey ramp" in note for note in found.notes)
    assert_voxels(TiffReader(found), volume)


@pytest.mark.parametrize("change", [(0, 7, 8), (1, 200, 0), (2, 255, 65534)])
def test_a_palette_of_colours_is_refused(tmp_path: Path, change: tuple[int, int, int]) -> None:
    colours = ramp(8, 257)
    colour, level, value = change
    colours[colour, level] = value
    path = write(tmp_path / "a.tif", make(), photometric="palette", colormap=colours)
    with pytest.raises(UnsupportedFormatError, match="palette"):
        read(path)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("predictor", [1, 3])
@pytest.mark.parametrize("order", ["<", ">"])
def test_half_floats_are_widened_exactly(
    tmp_path: Path,
    compression: str | None,
    predictor: int,
    order: str,
    assert_voxels: Callable[..., None],
) -> None:
    bits = np.random.default_rng(1).integers(0, 2**16, SHAPE).astype(np.uint16)
    volume = np.where(bits & 0x7C00 == 0x7C00, 1, bits).astype(np.uint16).view(np.float16)
    volume[0, 0, :3] = (np.inf, -np.inf, np.float16(6e-8))
    options: dict[str, Any] = {"photometric": "minisblack", "byteorder": order}
    if compression is not None:
        options |= {"compression": compression, "predictor": predictor, "rowsperstrip": 9}
    tifffile.imwrite(tmp_path / "a.tif", volume, metadata=None, **options)
    found = read(tmp_path / "a.tif")
    assert found.dtype == np.float32
    assert any("widened" in note for note in found.notes)
    assert_voxels(TiffReader(found), volume.astype(np.float32))


# --- pictures among the pages -------------------------------------------------------------------


@pytest.mark.parametrize("first", [True, False])
def test_a_picture_among_the_pages_hides_no_volume(
    tmp_path: Path, first: bool, assert_voxels: Callable[..., None]
) -> None:
    volume, picture = make(), make((20, 30, 3))
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        if first:
            file.write(picture, photometric="rgb", metadata=None)
        for plane in volume:
            file.write(plane, photometric="minisblack", metadata=None, contiguous=False)
        if not first:
            file.write(picture, photometric="rgb", metadata=None)
    grey, rgb = (1, 0) if first else (0, 1)
    for chosen in ({}, {"series": grey}):
        found = read(path, **chosen)
        assert found.index == grey
        assert any(f"series {rgb} is not converted: " in note for note in found.notes)
        assert_voxels(TiffReader(found), volume)
    with pytest.raises(UnsupportedFormatError, match="samples per pixel"):
        read(path, series=rgb)


def test_a_picture_as_a_plane_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    text = "ImageJ=1.54f\nimages=2\nslices=2\n"
    with tifffile.TiffWriter(path) as file:
        file.write(make((20, 30)), description=text, metadata=None, photometric="minisblack")
        file.write(make((20, 30, 3)), photometric="rgb", metadata=None)
    with pytest.raises(UnsupportedFormatError, match="samples per pixel"):
        read(path)


# --- microscopes' own tags ----------------------------------------------------------------------

HELIOS = "[User]\r\nUserText=A. Person\r\n[Scan]\r\nPixelWidth=6.5e-008\r\nPixelHeight=7e-008\r\n"
FEI_IMAGE = "[Image]\r\nResolutionX=53\r\nResolutionY=30\r\n[PrivateFei]\r\nDatabarHeight=7\r\n"
CAMERA = "[Image]\r\nResolutionX=53\r\n[IRBeam]\r\nHFW=5.3e-006\r\n"
MEMENTO = """<?xml version="1.0"?><MementoItemSection><item><key><string>FieldOfView</string></key>
<value><MementoItem><Name>Width</Name><anyType>1.6e-05</anyType></MementoItem></value></item>
<item><key><string>PixelSize</string></key><value><MementoItem><Name>PixelSize</Name>
<item><value><MementoItem><Name>Width</Name><anyType>1.6E-08</anyType></MementoItem></value></item>
<item><value><MementoItem><Name>Height</Name><anyType>1.7E-08</anyType></MementoItem></value></item>
</MementoItem></value></item></MementoItemSection>"""
TITAN = (
    "<Metadata><PixelSize><X unit='m'>2.5e-10</X><Y unit='m'>2.5e-10</Y></PixelSize>"
    "<Other><X>9</X></Other></Metadata>"
)
ZEISS_LIST = "0\r\n0\r\n0\r\n{}\r\n0\r\n"
ZEISS_IMAGE = "AP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 12.33 nm\r\n"
ZEISS_SCREEN = "AP_PIXEL_SIZE\r\nPixel Size = {} nm\r\n"
TESCAN = b"\x20\0\0\0\x05\0PixelSizeX=1.25e-08\0\x1e\0\0\0\x06\0PixelSizeY=1.5e-08\0\0\0\0\0"

VENDORS: list[tuple[str, Any, tuple[Any, Any], str]] = [
    ("FEI Helios", [text_tag(34682, HELIOS)], (70.0, 65.0), ""),
    ("FEI SFEG", [text_tag(34680, HELIOS)], (70.0, 65.0), ""),
    ("a data bar", [text_tag(34682, HELIOS + FEI_IMAGE)], (70.0, 65.0), "rows 30 to 36"),
    ("FEI's camera", [text_tag(34682, CAMERA)], (100.0, 100.0), ""),
    (
        "FEI of another width",
        [text_tag(34682, HELIOS + FEI_IMAGE.replace("53", "106"))],
        (None, None),
        "106 columns",
    ),
    ("FEI's XML in the Helios tag", [text_tag(34682, MEMENTO)], (17.0, 16.0), ""),
    ("FEI Titan", [text_tag(34683, TITAN)], (0.25, 0.25), ""),
    ("broken XML", [text_tag(34683, "<Metadata><PixelSize>")], (None, None), "no pixel size"),
    (
        "XML with entities",
        [
            text_tag(
                34683, "<!DOCTYPE a [<!ENTITY b 'c'>]><a><PixelSize><X>1e-9</X></PixelSize></a>"
            )
        ],
        (None, None),
        "no pixel size",
    ),
    (
        "metres rounded to zero",
        [text_tag(34683, TITAN.replace("2.5e-10", "0"))],
        (None, None),
        "no",
    ),
    (
        "Zeiss of 2048",
        [
            text_tag(
                34118, ZEISS_LIST.format("2.4652e-8") + ZEISS_IMAGE + ZEISS_SCREEN.format(24.65)
            )
        ],
        (12.33, 12.33),
        "",
    ),
    (
        "Zeiss by its list",
        [text_tag(34118, ZEISS_LIST.format("5.3e-9") + ZEISS_SCREEN.format(99))],
        (5.3 * 1024 / 53, 5.3 * 1024 / 53),
        "",
    ),
    (
        "Zeiss by its screen",
        [text_tag(34118, "AP_X\r\nX = 1\r\n" + ZEISS_SCREEN.format(5.3))],
        (5.3 * 1024 / 53, 5.3 * 1024 / 53),
        "",
    ),
    (
        "Zeiss in micrometres",
        [text_tag(34118, "AP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 0.5 \xb5m\r\n")],
        (500.0, 500.0),
        "",
    ),
    ("TESCAN", [text_tag(50431, TESCAN)], (15.0, 12.5), ""),
    ("TESCAN without", [text_tag(50431, b"\0\0\0\0")], (None, None), "no pixel size"),
    (
        "two that disagree",
        [text_tag(34682, HELIOS), text_tag(50431, TESCAN)],
        (70.0, 65.0),
        "which was taken",
    ),
    ("one that is not read", [text_tag(51023, "<Fibics/>")], (None, None), "not read"),
    ("one that is too large", [text_tag(34682, b" " * (2**20 + 1))], (None, None), "too large"),
]


@pytest.mark.parametrize(
    ("tags", "size", "note"), [row[1:] for row in VENDORS], ids=[row[0] for row in VENDORS]
)
def test_the_pixel_size_of_a_microscope_is_read(
    tmp_path: Path, tags: Any, size: tuple[Any, Any], note: str
) -> None:
    # with the resolution of a screen, as those microscopes write it
    options = {"resolution": (96, 96), "resolutionunit": 2}
    found = read(write(tmp_path / "a.tif", make()[:1], tags=tags, **options))
    assert (found.voxel.y_nm, found.voxel.x_nm) == pytest.approx(size)
    assert found.voxel.z_nm is None
    notes = [one for one in found.notes if "none of a microscope" not in one]
    assert len(notes) < len(found.notes)
    assert bool(notes) == bool(note)
    assert any(note in one for one in notes) or not note
    said = repr((found.notes, found.facts, found.voxel))
    assert "A. Person" not in said


def test_pages_of_a_zeiss_microscope_are_doubted(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.tif", make(), tags=[text_tag(34118, ZEISS_IMAGE)]))
    assert found.shape_zyx == SHAPE
    assert any("several detectors" in note for note in found.notes)


def test_a_data_bar_is_recorded(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", make()[:1], tags=[text_tag(34682, HELIOS + FEI_IMAGE)])
    assert read(path).facts == {"data_bar_first_row": 30, "data_bar_rows": 7}


def test_a_description_is_trusted_before_a_tag(tmp_path: Path) -> None:
    metadata = {"axes": "ZYX", "PhysicalSizeX": 0.065, "PhysicalSizeXUnit": "µm"}
    tag = (*text_tag(34682, HELIOS), True)
    tifffile.imwrite(tmp_path / "a.ome.tif", make(), metadata=metadata, ome=True, extratags=[tag])
    found = read(tmp_path / "a.ome.tif")
    assert (found.voxel.y_nm, found.voxel.x_nm) == (None, 65.0)
    tifffile.imwrite(
        tmp_path / "b.ome.tif", make(), metadata={"axes": "ZYX"}, ome=True, extratags=[tag]
    )
    found = read(tmp_path / "b.ome.tif")
    assert (found.voxel.y_nm, found.voxel.x_nm) == (70.0, 65.0)
    metadata["PhysicalSizeX"] = 0.1
    tifffile.imwrite(tmp_path / "c.ome.tif", make(), metadata=metadata, ome=True, extratags=[tag])
    found = read(tmp_path / "c.ome.tif")
    assert found.voxel.x_nm == 100.0
    assert any("65 nm along x; 100 nm" in note for note in found.notes)


# --- resolution and position --------------------------------------------------------------------

PLACED = [(286, 5, 1, (3, 1000)), (287, 5, 1, (1, 1000))]
FIELDS: list[tuple[str, dict[str, Any], tuple[Any, Any], Any, str]] = [
    ("nothing", {}, (None, None), None, ""),
    ("a size", {"resolution": (1e6, 2e6), "resolutionunit": 3}, (5.0, 10.0), None, ""),
    ("square pixels", {"resolution": (1, 1), "resolutionunit": 1}, (None, None), None, ""),
    (
        "no unit",
        {"resolution": (50, 50), "resolutionunit": 1},
        (None, None),
        None,
        "50, 50 (y, x) has no unit",
    ),
    (
        "a printer's",
        {"resolution": (300, 300), "resolutionunit": 2},
        (None, None),
        None,
        "300, 300 (y, x) in pixels per inch",
    ),
    (
        "a place",
        {"resolution": (1e6, 1e6), "resolutionunit": 3, "tags": PLACED},
        (10.0, 10.0),
        (0.0, 10000.0, 30000.0),
        "",
    ),
    (
        "a place without a unit",
        {"resolution": (1, 1), "resolutionunit": 1, "tags": PLACED},
        (None, None),
        None,
        "",
    ),
]


@pytest.mark.parametrize(
    ("options", "size", "place", "note"),
    [row[1:] for row in FIELDS],
    ids=[row[0] for row in FIELDS],
)
def test_resolution_and_position_are_applied_or_noted(
    tmp_path: Path, options: dict[str, Any], size: tuple[Any, Any], place: Any, note: str
) -> None:
    found = read(write(tmp_path / "a.tif", make(), **options))
    assert (found.voxel.y_nm, found.voxel.x_nm) == size
    assert found.origin.nm_zyx == place
    assert bool(found.notes) == bool(note)
    assert all(note in one for one in found.notes)


def test_a_page_of_another_resolution_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for number, plane in enumerate(make()):
            per_cm = 2e6 if number == 1 else 1e6
            file.write(
                plane,
                metadata=None,
                contiguous=False,
                resolution=(per_cm, per_cm),
                resolutionunit=3,
            )
    assert read(path).notes == ("page 1 has another resolution than page 0",)


def test_what_imagej_says_of_place_and_axes(tmp_path: Path) -> None:
    text = (
        "ImageJ=1.54f\nimages=3\nslices=3\nunit=nm\nspacing=40.0\nxorigin=-5.0\nyorigin=2.0\n"
        "zorigin=1.0\ninverty=true\nzunit=layer\n"
    )
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for number, plane in enumerate(make()):
            file.write(
                plane,
                description=text if number == 0 else None,
                metadata=None,
                contiguous=False,
                resolution=(0.25, 0.25),
                resolutionunit=1,
            )
    found = read(path)
    assert (found.voxel.z_nm, found.voxel.y_nm, found.voxel.x_nm) == (None, 4.0, 4.0)
    assert found.origin.at((40.0, 4.0, 4.0)) == (-40.0, -8.0, 20.0)
    assert any("inverty" in note for note in found.notes)
    assert any("zunit 'layer' is no length" in note for note in found.notes)


def described(path: Path, text: str, resolution: tuple[float, float] = (0.25, 0.25)) -> TiffVolume:
    with tifffile.TiffWriter(path) as file:
        for number, plane in enumerate(make()):
            said = text if number == 0 else None
            options = {"resolution": resolution, "resolutionunit": 2, "contiguous": False}
            file.write(plane, description=said, metadata=None, **options)
    return read(path)


@pytest.mark.parametrize("spacing", ["", "spacing=1.0\n"])
def test_a_printing_resolution_is_no_voxel_size_of_imagej(spacing: str, tmp_path: Path) -> None:
    """ImageJ keeps the 72 dots an inch of the picture that it opened."""
    text = f"ImageJ=1.53t\nimages=3\nslices=3\nunit=inch\n{spacing}"
    found = described(tmp_path / "a.tif", text, (72, 72))
    assert (found.voxel.z_nm, found.voxel.y_nm, found.voxel.x_nm) == (None, None, None)
    assert "ImageJ's 72 pixels per inch are none of a microscope" in found.notes


def test_a_stack_that_imagej_turned_upside_down_has_its_distance(tmp_path: Path) -> None:
    text = "ImageJ=1.53t\nimages=3\nslices=3\nunit=nm\nspacing=-40.0\n"
    assert described(tmp_path / "a.tif", text).voxel.z_nm == 40.0


def test_scifio_names_axes_and_their_scales(tmp_path: Path) -> None:
    """ImageJ2 writes with SCIFIO: time points came out as further sections."""
    text = (
        "SCIFIO=0.46.0\naxes=X,Y,Z\nlengths=53,37,3\nscales=0.004,0.005,0.04\nunits=um,um,\\u00B5m\n"
        "images=3\nchannels=1\nslices={}\nframes={}\nhyperstack=true\nunit=um\n"
    )
    voxel = described(tmp_path / "a.tif", text.format(3, 1)).voxel
    assert (voxel.z_nm, voxel.y_nm, voxel.x_nm) == (40.0, 5.0, 4.0)
    with pytest.raises(UnsupportedFormatError, match="3 time points"):
        described(tmp_path / "b.tif", text.format(1, 3))
    with pytest.raises(UnsupportedFormatError, match="order"):
        described(tmp_path / "c.tif", text.format(3, 1).replace("X,Y,Z", "X,Y,Time,Z"))


def test_what_ome_xml_says_beside_the_size_is_noted(tmp_path: Path) -> None:
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="53" '
        'SizeY="37" SizeZ="3" SizeC="1" SizeT="1" PhysicalSizeX="4" PhysicalSizeXUnit="nm" '
        'PhysicalSizeY="-4" PhysicalSizeYUnit="nm" '
        'PhysicalSizeZ="1" PhysicalSizeZUnit="reference frame"><TiffData/>'
        '<Plane TheZ="0" TheC="0" TheT="0" PositionX="0"/>'
        '<Plane TheZ="1" TheC="0" TheT="0" PositionX="1200" PositionXUnit="µm"/>'
        "</Pixels></Image></OME>"
    )
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path) as file:
        for number, plane in enumerate(make()):
            file.write(
                plane,
                description=xml.encode() if number == 0 else None,
                metadata=None,
                contiguous=False,
            )
    found = read(path)
    assert (found.voxel.z_nm, found.voxel.x_nm) == (None, 4.0)
    assert any("PhysicalSizeZ in 'reference frame'" in note for note in found.notes)
    assert any("PhysicalSizeY as '-4'" in note for note in found.notes)
    moved = MemoryBytes(path.read_bytes().replace(b'PositionX="0"', b'PositionX="7"'))
    assert any("stage's position (X 7)" in note for note in open_tiff(moved).notes)


@pytest.mark.parametrize(("axes", "noted"), [("ZYX", False), ("TYX", True), ("CYX", True)])
def test_planes_by_another_name_are_z_and_noted(tmp_path: Path, axes: str, noted: bool) -> None:
    tifffile.imwrite(tmp_path / "a.tif", make(), metadata={"axes": axes}, photometric="minisblack")
    found = read(tmp_path / "a.tif")
    assert found.shape_zyx == SHAPE
    assert bool(found.notes) == noted
