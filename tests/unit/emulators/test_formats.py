"""Samples are what they claim: read back by independent readers, they equal their truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import tifffile
import zarr
from ncempy.io import dm
from numpy.typing import NDArray

from emulators import catalogue
from emulators.dm import Section, write_dm
from emulators.documents import OMERO_IMAGES, empiar_entry, omero_image
from emulators.mrc import write_mrc
from emulators.ome_tiff import reduced, write_ome_tiff
from emulators.tiff import (
    ImageJTexts,
    imagej_tiff_size,
    itk_tiff_size,
    write_imagej_tiff,
    write_itk_tiff,
)
from emulators.tissue import RepeatedTissue, tissue
from emulators.zarr_v2 import ZarrV2Layout, level_crop, write_multiscale
from lib.errors import ConfigError, NotFoundError, UnsupportedFormatError

EVERY_DTYPE = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archives")
    catalogue.build(root)
    return root


def file_of(trees: Path, key: str) -> Path:
    return trees / catalogue.samples()[key].paths[0]


# --- DM3 and DM4


@pytest.mark.parametrize("shape", [(24, 36), (5, 12, 20)])
@pytest.mark.parametrize("dtype", EVERY_DTYPE)
@pytest.mark.parametrize("version", [3, 4])
def test_ncempy_reads_every_dm(
    tmp_path: Path, version: int, dtype: str, shape: tuple[int, ...]
) -> None:
    voxels = tissue((0, 0, 0), (5, 24, 36), seed=1, dtype=dtype)[: shape[0], :12, :20]
    if len(shape) == 2:
        voxels = tissue((0, 0, 0), (1, 24, 36), seed=1, dtype=dtype)[0]
    path = tmp_path / "x.dm3"
    sizes = (0.05, 0.008, 0.009)[-len(shape) :]
    for options in ({}, {"thumbnail": False}, {"trailer": False}, {"section": Section(3)}):
        write_dm(path, voxels, version=version, pixel_size_zyx=sizes, **options)
        with dm.fileDM(str(path)) as file:
            found = file.getDataset(0)
            np.testing.assert_array_equal(np.array(found["data"]), voxels)
            assert found["data"].dtype == voxels.dtype
            assert found["pixelSize"] == pytest.approx(sizes)
            assert found["pixelUnit"] == ["µm"] * len(shape)


def test_a_dm_file_begins_as_digital_micrograph_begins_it(tmp_path: Path) -> None:
    path = tmp_path / "x.dm4"
    write_dm(path, np.zeros((4, 4), np.uint8), version=4, pixel_size_zyx=(1, 1))
    content = path.read_bytes()
    assert content[:4] == bytes((0, 0, 0, 4))
    assert int.from_bytes(content[4:12], "big") == len(content) - 24
    begin = "0000000101000000000000000006140012" + b"DocumentObjectList".hex()
    assert content[12:].hex().startswith(begin + "0000000000000158")
    assert content.endswith(bytes(8))
    write_dm(path, np.zeros((4, 4), np.uint8), version=3, pixel_size_zyx=(1, 1))
    content = path.read_bytes()
    assert int.from_bytes(content[4:8], "big") == len(content) - 16


def test_a_section_carries_its_thickness_its_traps_and_its_date(trees: Path) -> None:
    path = trees / catalogue.samples()["ebi/EMPIAR-11759"].paths[3]
    with dm.fileDM(str(path)) as file:
        tags = file.allTags
    root = ".ImageList.2.ImageTags."
    assert tags[root + "Meta Data.Dimension info.3.Scale"] == 50
    assert tags[root + "SBFSEM.Record.Slice thickness"] == 50
    assert tags[root + "SBFSEM.Approach.Slice thickness"] == 200
    assert tags[root + "DataBar.Acquisition Date"] == "11.06.2018"
    assert r"C:\Users" in tags[root + "SBFSEM.Record.Base file name"]


def test_tags_before_the_image_mislead_a_reader_that_scans(tmp_path: Path) -> None:
    path = tmp_path / "x.dm3"
    plane = tissue((0, 0, 0), (1, 12, 20), seed=1)[0]
    write_dm(path, plane, pixel_size_zyx=(0.008, 0.008), section=Section(0), tags_first=True)
    with dm.fileDM(str(path)) as file:
        found = file.getDataset(0)
        np.testing.assert_array_equal(np.array(found["data"]), plane)
        assert found["pixelSize"] != pytest.approx([0.008, 0.008])


def test_a_dm_of_a_dtype_without_a_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormatError, match="uint64"):
        write_dm(tmp_path / "x.dm3", np.zeros((2, 2), np.uint64), pixel_size_zyx=(1, 1))


# --- MRC


@pytest.mark.parametrize("name", ["a.mrc", "a.rec", "a.st", "a.ali", "a.mrc.gz", "a.mrc.bz2"])
@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float32"])
def test_mrcfile_reads_every_member_of_the_family(tmp_path: Path, name: str, dtype: str) -> None:
    voxels = tissue((0, 0, 0), (6, 10, 14), seed=1, dtype=dtype)
    for permuted in (False, True):
        write_mrc(tmp_path / name, voxels, voxel_nm_zyx=(5, 1, 2), permuted=permuted)
        with mrcfile.open(tmp_path / name) as file:
            axes = tuple(int(file.header[key]) for key in ("mapc", "mapr", "maps"))
            assert axes == ((3, 1, 2) if permuted else (1, 2, 3))
            stored = file.data.transpose(2, 0, 1) if permuted else file.data
            np.testing.assert_array_equal(stored, voxels)
            assert stored.dtype == voxels.dtype
            size = file.voxel_size
            assert [float(size[axis]) for axis in "zyx"] == pytest.approx([50, 10, 20])
    assert [path.name for path in tmp_path.iterdir()] == [name], "nothing is left behind"


# --- TIFF


def test_exact_layouts_give_the_published_sizes() -> None:
    assert itk_tiff_size((1065, 1536, 2048)) == 3_353_674_357
    assert itk_tiff_size((165, 768, 1024)) == 129_919_357
    assert imagej_tiff_size((184, 775, 1121)) == 159_884_524
    assert imagej_tiff_size((775, 184, 1121)) == 159_980_266


@pytest.mark.parametrize("shape", [(12, 96, 128), (3, 9, 2048), (1, 40, 300)])
def test_tifffile_reads_the_itk_layout(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    voxels, path = tissue((0, 0, 0), shape, seed=1), tmp_path / "x.tif"
    write_itk_tiff(path, shape, voxels)
    assert path.stat().st_size == itk_tiff_size(shape)
    with tifffile.TiffFile(path) as file:
        assert file.byteorder == "<" and not file.is_bigtiff
        np.testing.assert_array_equal(file.asarray().reshape(shape), voxels)
        last = file.pages[-1]
        assert isinstance(last, tifffile.TiffPage)
        assert last.tags[297].value == (shape[0] - 1, shape[0])
        assert last.tags[305].value == "InsightToolkit"
        assert len(last.tags) == 14 and 282 not in last.tags and 270 not in last.tags
        assert last.dataoffsets[0] < last.offset, "pixels come before their directory"


@pytest.mark.parametrize("count", [2, 4])
def test_a_stream_of_the_wrong_number_of_pages_is_refused(tmp_path: Path, count: int) -> None:
    stream = (page for page in np.zeros((count, 96, 128), np.uint8))
    with pytest.raises(ConfigError):
        write_itk_tiff(tmp_path / "x.tif", (3, 96, 128), stream)


@pytest.mark.parametrize("shape", [(24, 30, 40), (184, 7, 11)])
def test_tifffile_reads_the_imagej_layout(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    voxels, path = tissue((0, 0, 0), shape, seed=1), tmp_path / "x.tif"
    write_imagej_tiff(path, shape, voxels)
    assert path.stat().st_size == imagej_tiff_size(shape)
    with tifffile.TiffFile(path) as file:
        assert file.byteorder == ">" and file.is_imagej and len(file.pages) == shape[0]
        np.testing.assert_array_equal(file.asarray(), voxels)
        described = file.imagej_metadata
        assert described is not None
        assert described["unit"] == r"\u00B5m" and described["spacing"] == 0.02
        assert described["images"] == shape[0]
        page = file.pages[-1]
        assert isinstance(page, tifffile.TiffPage)
        assert page.tags["XResolution"].value == (50_000_000, 1_000_000)
        first = file.pages.first.dataoffsets[0]
        assert first == (278 if shape[0] > 99 else 276)
        assert page.dataoffsets[0] == first + (shape[0] - 1) * shape[1] * shape[2]
        assert page.offset > page.dataoffsets[0]


def test_an_uncalibrated_imagej_stack_says_nothing_about_its_voxels(tmp_path: Path) -> None:
    texts, path = ImageJTexts(spacing=None, pixels_per_million=None), tmp_path / "x.tif"
    voxels = tissue((0, 0, 0), (5, 20, 30), seed=1)
    write_imagej_tiff(path, voxels.shape, voxels, texts)
    assert path.stat().st_size == imagej_tiff_size(voxels.shape, texts)
    with tifffile.TiffFile(path) as file:
        np.testing.assert_array_equal(file.asarray(), voxels)
        assert "XResolution" not in file.pages.first.tags
        assert not {"unit", "spacing"} & set(file.imagej_metadata or {})


def test_a_pyramid_keeps_its_levels_in_subifds(tmp_path: Path) -> None:
    voxels = tissue((0, 0, 0), (3, 130, 161), seed=1)
    write_ome_tiff(tmp_path / "x.ome.tiff", [voxels], voxel_nm_zyx=(40, 10, 10), levels=3)
    with tifffile.TiffFile(tmp_path / "x.ome.tiff") as file:
        levels = file.series[0].levels
        assert [level.shape for level in levels] == [(3, 130, 161), (3, 65, 80), (3, 32, 40)]
        for number, level in enumerate(levels):
            np.testing.assert_array_equal(level.asarray(), reduced(voxels, number))


# --- Zarr v2


def chunk_files(array: Path) -> int:
    return sum(path.is_file() and not path.name.startswith(".") for path in array.rglob("*"))


@pytest.mark.parametrize("codec", ["zstd", "blosc", "gzip", "none"])
@pytest.mark.parametrize("separator", ["/", "."])
def test_zarr_reads_every_codec_and_separator(tmp_path: Path, codec: str, separator: str) -> None:
    source = RepeatedTissue((16, 32, 32), dtype="int16")
    layout = ZarrV2Layout(codec=codec, chunks_zyx=(8, 16, 16), separator=separator)
    write_multiscale(
        tmp_path,
        source,
        shape_zyx=(19, 37, 41),
        dtype="int16",
        voxel_nm_zyx=(2.96, 4, 4),
        levels=3,
        layout=layout,
    )
    group = zarr.open_group(tmp_path, mode="r", zarr_format=2)
    for level, shape in enumerate([(19, 37, 41), (9, 18, 20), (4, 9, 10)]):
        array = group[f"s{level}"]
        assert isinstance(array, zarr.Array)
        assert array.shape == shape and array.chunks == (8, 16, 16) and not dict(array.attrs)
        truth = level_crop(source, level)((0, 0, 0), shape)
        np.testing.assert_array_equal(np.asarray(array[:]), truth)
    assert chunk_files(tmp_path / "s0") == 3 * 3 * 3
    assert (tmp_path / "s0" / separator.join("222")).is_file()


def test_a_level_is_the_floored_mean_of_eight_voxels_or_their_first() -> None:
    fine: NDArray[np.int16] = np.arange(-32, 32, dtype=np.int16).reshape(4, 4, 4)

    def crop(origin: Any, shape: Any) -> NDArray[Any]:
        z, y, x = (slice(o, o + n) for o, n in zip(origin, shape, strict=True))
        return fine[z, y, x]

    mean = level_crop(crop, 1)((1, 1, 1), (1, 1, 1))[0, 0, 0]
    assert mean == np.floor(fine[2:, 2:, 2:].astype(float).mean())
    assert level_crop(crop, 1, corner=True)((1, 1, 1), (1, 1, 1))[0, 0, 0] == fine[2, 2, 2]


def test_the_block_of_scales_follows_the_pixel_centres(trees: Path) -> None:
    group = file_of(trees, "openorganelle/jrc_mus-nacc-2/recon-2/em/fibsem-int16/s0").parent
    (block,) = json.loads((group / ".zattrs").read_text())["multiscales"]
    assert block["version"] == "0.4" and block["type"] is None and block["metadata"] is None
    assert block["coordinateTransformations"] == [{"scale": [1, 1, 1], "type": "scale"}]
    scale, shift = block["datasets"][3]["coordinateTransformations"]
    assert scale["scale"] == pytest.approx([23.68, 32, 32])
    assert shift["translation"] == pytest.approx([10.36, 14, 14])
    array = json.loads((group / "s0" / ".zarray").read_text())
    assert array["compressor"] == {"id": "zstd", "level": 1} and array["dtype"] == "<i2"
    assert array["dimension_separator"] == "/" and array["chunks"] == [64, 64, 64]


def test_labels_lie_on_the_cells_of_the_tissue_they_label() -> None:
    em = catalogue.truth("openorganelle/jrc_mus-nacc-2/recon-2/em/fibsem-int16/s0")
    nuclei = catalogue.truth(
        "openorganelle/jrc_mus-nacc-2/recon-2/labels/inference/segmentations/nuc/s0"
    )
    # scale 5.92, 8, 8 and offset 11.84, 32, 48 nm: label voxel k lies at EM voxel 2k + 4, 8, 12
    beneath = em[4::2, 8::2, 12::2][: nuclei.shape[0], : nuclei.shape[1], : nuclei.shape[2]]
    assert beneath.shape == nuclei.shape
    assert beneath[nuclei > 0].mean() - beneath[nuclei == 0].mean() > 2000


def test_a_hole_is_a_chunk_that_is_not_there(trees: Path) -> None:
    key = "openorganelle/jrc_sample-holes/recon-1/em/fibsem-uint8/s0"
    voxels = np.asarray(zarr.open_array(file_of(trees, key), mode="r")[:])
    truth = catalogue.truth(key)
    assert not voxels[:, 64:, :64].any()
    truth[:, 64:, :64] = 0
    np.testing.assert_array_equal(voxels, truth)


def test_nested_keys_without_their_separator_read_as_nothing(trees: Path) -> None:
    key = "openorganelle/jrc_sample-separator/recon-1/em/fibsem-uint8/s0"
    assert not np.asarray(zarr.open_array(file_of(trees, key), mode="r")[:]).any()
    assert chunk_files(file_of(trees, key)) == 4


def test_one_store_is_consolidated_and_others_are_not(trees: Path) -> None:
    bucket = trees / "s3" / "janelia-cosem-datasets"
    found = sorted(path.parent.name for path in bucket.rglob(".zmetadata"))
    assert found == ["jrc_hela-2.zarr"]
    root = zarr.open_consolidated(bucket / "jrc_hela-2" / "jrc_hela-2.zarr", zarr_format=2)
    array = root["recon-1/em/fibsem-uint8/s2"]
    assert isinstance(array, zarr.Array)
    truth = catalogue.truth("openorganelle/jrc_hela-2/recon-1/em/fibsem-uint8/s2")
    np.testing.assert_array_equal(np.asarray(array[:]), truth)


# --- the catalogue as a whole


def read_back(trees: Path, key: str) -> NDArray[Any]:
    """A sample's voxels by the reader of its format."""
    sample = catalogue.samples()[key]
    paths = [trees / path for path in sample.paths]
    name = paths[0].name
    if name.endswith((".dm3", ".dm4")):
        planes = []
        for path in paths:
            with dm.fileDM(str(path)) as file:
                planes.append(np.array(file.getDataset(0)["data"]))
        return np.stack(planes) if len(planes) > 1 else planes[0]
    if sample.archive == "ebi":
        with mrcfile.open(paths[0]) as mrc:
            stored = np.array(mrc.data)
            return stored.transpose(2, 0, 1) if mrc.header.mapc == 3 else stored
    if sample.archive == "openorganelle":
        return np.asarray(zarr.open_array(paths[0], mode="r")[:])
    image = OMERO_IMAGES.get(int(key.partition("/")[2])) if sample.archive == "idr" else None
    with tifffile.TiffFile(paths[0]) as tiff:
        voxels = tiff.series[image.series if image else 0].asarray()
    return voxels[0] if voxels.ndim == 4 else voxels


@pytest.mark.parametrize("key", [key for key in catalogue.samples() if "/jrc_sample-" not in key])
def test_every_sample_reads_back_as_its_truth(trees: Path, key: str) -> None:
    sample, voxels = catalogue.samples()[key], read_back(trees, key)
    assert voxels.dtype == sample.dtype and voxels.shape == sample.shape_zyx
    np.testing.assert_array_equal(voxels, catalogue.truth(key))
    assert sample.shape_zyx[1] != sample.shape_zyx[2], "a swap of y and x would show"


def test_a_build_is_small_complete_and_the_same_every_time(trees: Path, tmp_path: Path) -> None:
    catalogue.build(tmp_path)
    first = {p.relative_to(trees): p.read_bytes() for p in trees.rglob("*") if p.is_file()}
    second = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert first.keys() == second.keys()
    assert [str(path) for path, content in first.items() if second[path] != content] == []
    assert sum(map(len, first.values())) < 20_000_000
    victim = tmp_path / "untouched"
    victim.mkdir()
    catalogue.build(tmp_path)
    assert victim.exists()


def test_the_retina_folder_holds_eighteen_names(trees: Path) -> None:
    folder = trees / "ftp/empiar/world_availability/11759/data"
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 18 and "F57-8_test1.xml.gz" in names
    assert [n for n in names if (folder / n).is_dir()] == [
        "trakem2.1528909664283.981147357.856576865"
    ]


def test_documents_agree_with_files_where_the_archives_do_and_not_where_they_do_not() -> None:
    for image_id, image in OMERO_IMAGES.items():
        answer = omero_image(image_id)
        assert answer is not None
        pixels, sample = answer["data"]["Pixels"], catalogue.samples()[f"idr/{image_id}"]
        assert tuple(pixels[f"Size{axis}"] for axis in "ZYX") == sample.shape_zyx
        assert pixels["Type"]["value"] == sample.dtype
        assert ("PhysicalSizeX" in pixels) == (image.voxel_nm_zyx is not None)
    entry = empiar_entry("11759")
    assert entry is not None and entry == empiar_entry("EMPIAR-11759")
    (images,) = entry["EMPIAR-11759"]["imagesets"]
    assert (images["image_width"], images["image_height"]) == ("5628", "5632")
    assert empiar_entry("1") is None and omero_image(1) is None


def test_an_unknown_sample_is_refused_with_the_known_ones() -> None:
    with pytest.raises(NotFoundError, match="idr/9846137"):
        catalogue.truth("idr/1")
