"""TIFF: one file of many pages, as different writers make it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tests.formats.case import EVERYWHERE, Case
from tests.kit.volume_kit import random_voxels

SHAPE = (9, 37, 53)


def imagej(folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, "uint16", 1)
    tifffile.imwrite(
        folder / "stack.tif",
        voxels[:, None],
        imagej=True,
        metadata={"axes": "ZCYX", "spacing": 40.0, "unit": "nm"},
        resolution=(1 / 4, 1 / 4),
    )
    return voxels


def bigtiff_tiles(folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, "uint8", 2)
    tifffile.imwrite(
        folder / "tiles.btf", voxels, bigtiff=True, tile=(16, 32), compression="deflate"
    )
    return voxels


def sections(folder: Path) -> NDArray[Any]:
    """Sections whose names sort otherwise as text than as numbers, beside other files."""
    voxels = random_voxels((12, 37, 53), "uint8", 3)
    (folder / "sections").mkdir(exist_ok=True)
    for z, plane in enumerate(voxels):
        tifffile.imwrite(folder / f"sections/my slice {z + 1}.tif", plane)
    (folder / "sections/readme.txt").write_text("not a section")
    return voxels


def absent_section(folder: Path) -> NDArray[Any]:
    voxels = sections(folder)
    (folder / "sections/my slice 5.tif").unlink()
    voxels[4] = 0
    return voxels


def two_series(folder: Path) -> NDArray[Any]:
    small, voxels = random_voxels((4, 20, 22), "uint8", 5), random_voxels(SHAPE, "uint16", 6)
    with tifffile.TiffWriter(folder / "two.tif") as file:
        for plane in small:
            file.write(plane, contiguous=False)
        for plane in voxels:
            file.write(plane, contiguous=False)
    return voxels


def packed(compression: str, folder: Path) -> NDArray[Any]:
    """Tiles with cut edges, and a last strip that is shorter, as libtiff's codecs write them."""
    voxels = random_voxels(SHAPE, "uint8", 4)
    tifffile.imwrite(
        folder / "a.tif", voxels, photometric="minisblack", compression=compression, tile=(16, 32)
    )
    return np.asarray(tifffile.imread(folder / "a.tif"))


def jpeg_strips(folder: Path) -> NDArray[Any]:
    """Strips whose quantisation tables stand once in the page, as libtiff writes them."""
    planes = random_voxels(SHAPE, "uint8", 7)
    first, *others = (Image.fromarray(plane) for plane in planes)
    first.save(
        folder / "a.tif", save_all=True, append_images=others, compression="jpeg", quality=90,
        tiffinfo={278: 16},
    )  # fmt: skip
    return np.asarray(tifffile.imread(folder / "a.tif"))


def jpeg_2000(dtype: str, lossless: bool, folder: Path) -> NDArray[Any]:
    """Tiles with cut edges; where they are not exact, as tifffile reads them."""
    voxels = random_voxels(SHAPE, dtype, 10)
    options = {"level": 0, "reversible": True} if lossless else {"level": 40}
    tifffile.imwrite(
        folder / "a.tif", voxels, photometric="minisblack", tile=(32, 16),
        compression="jpeg2000", compressionargs=options,
    )  # fmt: skip
    read = np.asarray(tifffile.imread(folder / "a.tif"))
    assert np.array_equal(read, voxels) == lossless
    return read


def page_by_page(folder: Path) -> NDArray[Any]:
    """Pages with a coarser level below each; tifffile gives every one its own description."""
    voxels = random_voxels(SHAPE, "uint16", 9)
    with tifffile.TiffWriter(folder / "a.tif") as file:
        for plane in voxels:
            options = {"photometric": "minisblack", "compression": "zlib", "tile": (16, 16)}
            file.write(plane, subifds=1, contiguous=False, **options)
            file.write(plane[::2, ::2], subfiletype=1, **options)
    return voxels


def wide(folder: Path) -> NDArray[Any]:
    voxels = random_voxels(SHAPE, "uint64", 8)
    tifffile.imwrite(
        folder / "a.tif", voxels, photometric="minisblack", compression="zlib", predictor=2
    )
    return voxels


def ome_files(folder: Path) -> NDArray[Any]:
    """A file for every two planes, each with the whole OME-XML; tifffile reads them as one."""
    voxels = random_voxels(SHAPE, "uint16", 12)
    pairs = [voxels[z : z + 2] for z in range(0, len(voxels), 2)]
    parts = "".join(
        tiff_data(2 * n + i, 0, i, f"a z{n}.ome.tif", f"urn:uuid:{n}")
        for n, pair in enumerate(pairs)
        for i in range(len(pair))
    )
    for n, pair in enumerate(pairs):
        xml = ome_xml(voxels.shape, 1, "uint16", parts, f"urn:uuid:{n}")
        write_pages(folder / f"a z{n}.ome.tif", pair, xml, compression="zlib" if n % 2 else None)
    np.testing.assert_array_equal(tifffile.imread(folder / "a z0.ome.tif"), voxels)
    return voxels


def ome_companion(folder: Path) -> NDArray[Any]:
    """Two channels, a file for each; the OME-XML lies in a companion."""
    voxels = random_voxels((2, *SHAPE), "uint8", 13)
    names = ["w1.ome.tif", "w2.ome.tif"]
    parts = "".join(
        tiff_data(0, c, 0, name, f"urn:uuid:{c}", SHAPE[0]) for c, name in enumerate(names)
    )
    xml = ome_xml(SHAPE, 2, "uint8", parts, "urn:uuid:companion")
    (folder / "a.companion.ome").write_text(xml)
    for c, name in enumerate(names):
        own = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{c}">'
            '<BinaryOnly MetadataFile="a.companion.ome" UUID="urn:uuid:companion"/></OME>'
        )
        write_pages(folder / name, voxels[c], own)
    return voxels[1]


def tiff_data(z: int, c: int, page: int, name: str, uuid: str, count: int = 1) -> str:
    return (
        f'<TiffData FirstZ="{z}" FirstC="{c}" FirstT="0" IFD="{page}" PlaneCount="{count}">'
        f'<UUID FileName="{name}">{uuid}</UUID></TiffData>'
    )


def ome_xml(shape: tuple[int, ...], channels: int, kind: str, parts: str, uuid: str) -> str:
    z, y, x = shape
    return (
        f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{uuid}">'
        '<Image ID="Image:0" Name="a"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
        f'Type="{kind}" SizeX="{x}" SizeY="{y}" SizeZ="{z}" SizeC="{channels}" SizeT="1" '
        'PhysicalSizeX="0.004" PhysicalSizeY="0.004" PhysicalSizeZ="0.04">'
        + "".join(f'<Channel ID="Channel:0:{c}" SamplesPerPixel="1"/>' for c in range(channels))
        + f"{parts}</Pixels></Image></OME>"
    )


def write_pages(path: Path, planes: NDArray[Any], xml: str, **how: Any) -> None:
    tifffile.imwrite(path, planes, photometric="minisblack", description=xml, metadata=None, **how)


_OME = {"voxel_nm_zyx": (40.0, 4.0, 4.0)}
CASES = [
    Case("tiff-ome-files", ome_files, "a z0.ome.tif", EVERYWHERE, expect=_OME),
    Case(
        "tiff-ome-companion",
        ome_companion,
        "a.companion.ome",
        ("file", "s3"),
        settings={"channel": 1},
        expect=_OME,
    ),
    Case("tiff-page-by-page", page_by_page, "a.tif", ("file", "http")),
    Case("tiff-64-bits", wide, "a.tif", ("file",), expect={"kind": "labels"}),
    Case("tiff-lzma", partial(packed, "lzma"), "a.tif", ("file",)),
    *(
        Case(f"tiff-jpeg2000-{dtype}", partial(jpeg_2000, dtype, True), "a.tif", ("file",))
        for dtype in ("uint8", "uint16")
    ),
    Case("tiff-jpeg2000-lossy", partial(jpeg_2000, "uint8", False), "a.tif", ("file", "http")),
    Case("tiff-jpeg", partial(packed, "jpeg"), "a.tif", ("file",)),
    Case("tiff-jpeg-strips", jpeg_strips, "a.tif", ("file", "http")),
    Case("tiff-sections", sections, "sections/|tiff:"),
    Case("tiff-sections-by-pattern", sections, "sections/my*.tif"),
    Case(
        "tiff-section-that-is-absent",
        absent_section,
        "sections/",
        settings={"max_missing_fraction": 0.1},
        missing=1,
    ),
    Case("tiff-second-series", two_series, "two.tif|tiff:1"),
    Case("tiff-imagej", imagej, "stack.tif", expect={"voxel_nm_zyx": (40.0, 4.0, 4.0)}),
    Case("tiff-bigtiff-tiles", bigtiff_tiles, "tiles.btf|tiff:"),
]
