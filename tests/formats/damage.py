"""The faults that only a format knows, one row each, on every format that can have it.

Inputs are those of the conformance table, small; a change is made to them before they are read. A
cell says which error must come, in which words: an array would be a silent loss.
"""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import google_crc32c
import numpy as np
import tifffile
from imagecodecs import jpegxl_encode
from PIL import Image

from tests.formats import fuzz

Files = dict[str, bytes]


@dataclass(frozen=True)
class Cell:
    """One fault on one format.

    Attributes
    ----------
    seed
        Row of the conformance table that writes the files.
    change
        What is done to them.
    said
        What the error must say; a regular expression.
    """

    fault: str
    format: str
    seed: str
    change: Callable[[Files], None]
    said: str

    @property
    def name(self) -> str:
        return f"{self.fault}: {self.seed}"


def data_name(files: Files) -> str:
    """The object with the voxels: the largest that is no document."""
    names = [name for name in files if not fuzz._is_text(files[name])] or [*files]
    return max(names, key=lambda name: len(files[name]))


def _each(files: Files, change: Callable[[bytes], bytes]) -> None:
    for name in [name for name in files if not fuzz._is_text(files[name])] or [*files]:
        files[name] = change(files[name])


def cut(by: int) -> Callable[[Files], None]:
    return lambda files: _each(files, lambda data: data[:-by] if len(data) > by else b"")


def half(files: Files) -> None:
    _each(files, lambda data: data[: len(data) // 2])


def empty(files: Files) -> None:
    _each(files, lambda _: b"")


def flip(back: int) -> Callable[[Files], None]:
    """Turn one bit, so many bytes from the end of the voxels' object."""

    def change(files: Files) -> None:
        name = data_name(files)
        data = bytearray(files[name])
        data[-back] ^= 8
        files[name] = bytes(data)

    return change


def patch(at: int, piece: bytes) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        name = data_name(files)
        data = bytearray(files[name])
        at_ = at if at >= 0 else len(data) + at
        data[at_ : at_ + len(piece)] = piece
        files[name] = bytes(data)

    return change


def bomb(header: int = 0, *, packed: Callable[[bytes], bytes] = gzip.compress) -> Any:
    """A stream that unpacks to 64 MiB, where a few voxels belong."""
    return lambda files: _each(files, lambda data: data[:header] + packed(bytes(2**26)))


def _shard_index(entry: int, value: int) -> Callable[[Files], None]:
    """Change an entry of the index at the end of a shard, with a checksum that fits."""

    def change(files: Files) -> None:
        name = data_name(files)
        data = files[name]
        table = np.frombuffer(data[-132:-4], "<u8").copy()
        there = int(np.flatnonzero(table != 2**64 - 1)[entry])
        table[there] = value
        body = table.tobytes()
        files[name] = data[:-132] + body + struct.pack("<I", google_crc32c.value(body))

    return change


def _inner_index(value: int) -> Callable[[Files], None]:
    """Change an entry of the index with which a shard inside a shard begins; its checksum fits."""

    def change(files: Files) -> None:
        name = data_name(files)
        data = bytearray(files[name])
        starts = np.frombuffer(bytes(data[-132:-4]), "<u8")[::2]
        at = int(starts[starts != 2**64 - 1][0])
        table = np.frombuffer(bytes(data[at : at + 128]), "<u8").copy()
        table[int(np.flatnonzero(table != 2**64 - 1)[0])] = value
        data[at : at + 128] = table.tobytes()
        struct.pack_into("<I", data, at + 128, google_crc32c.value(table.tobytes()))
        files[name] = bytes(data)

    return change


def _nrrd_bomb(files: Files) -> None:
    (name,) = files
    head, _, _ = files[name].partition(b"\n\n")
    files[name] = head + b"\n\n" + gzip.compress(bytes(2**26))


def _mha_bomb(files: Files) -> None:
    (name,) = files
    head, _, _ = files[name].partition(b"LOCAL\n")
    files[name] = head + b"LOCAL\n" + zlib.compress(bytes(2**26))


def beside(suffix: str, change: Callable[[bytes], bytes | None]) -> Callable[[Files], None]:
    """Change the last file of a suffix, or take it away."""

    def changed(files: Files) -> None:
        name = max(name for name in files if name.endswith(suffix))
        data = change(files.pop(name))
        if data is not None:
            files[name] = data

    return changed


def _gone(data: bytes) -> None:
    return None


def renamed(suffix: str, old: bytes, new: bytes) -> Callable[[Files], None]:
    """Let the header name another file."""
    return beside(suffix, lambda data: data.replace(old, new))


def _whole_gzip(files: Files) -> None:
    (name,) = files
    plain = gzip.decompress(files[name])
    files[name] = gzip.compress(plain + bytes(2**26))


def _strip_outside(files: Files) -> None:
    """The offset of a TIFF's first strip or tile."""
    (name,) = files
    data = bytearray(files[name])
    (ifd,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, ifd)
    for number in range(count):
        at = ifd + 2 + 12 * number
        if struct.unpack_from("<H", data, at)[0] == 273:
            struct.pack_into("<I", data, at + 8, 2**31)
    files[name] = bytes(data)


def _zero_end(files: Files) -> None:
    """A file of the right length that was not written to its end."""
    _each(files, lambda data: data[:-40] + bytes(40))


def _flip_strip(files: Files) -> None:
    (name,) = files
    with tifffile.TiffFile(io.BytesIO(files[name])) as file:
        page = file.pages[0]
        middle = page.dataoffsets[0] + page.databytecounts[0] // 2
    data = bytearray(files[name])
    data[middle] ^= 8
    files[name] = bytes(data)


def _cut_strip(files: Files) -> None:
    """End the first strip early: its byte count stays, its last bytes are another's."""
    (name,) = files
    with tifffile.TiffFile(io.BytesIO(files[name])) as file:
        page = file.pages[0]
        start, count = page.dataoffsets[0], page.databytecounts[0]
    data = bytearray(files[name])
    data[start + count - 12 : start + count] = bytes(12)
    files[name] = bytes(data)


def _zip_bomb(files: Files) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("s/0.tif", bytes(2**26))
    files["a.zip"] = out.getvalue()


def _zip_lies(files: Files) -> None:
    """The directory says a smaller size than what unpacks."""
    data = bytearray(files["a.zip"])
    at = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, 5)
    files["a.zip"] = bytes(data)


def _zip_directory(files: Files) -> None:
    data = bytearray(files["a.zip"])
    at = data.rindex(b"PK\x05\x06")
    struct.pack_into("<I", data, at + 16, 2**31)
    files["a.zip"] = bytes(data)


def _png_bomb(files: Files) -> None:
    (name,) = files
    data = bytearray(files[name])
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    files[name] = bytes(data)


def _wide_jpeg(files: Files) -> None:
    """Another picture of other size in place of a chunk."""
    out = io.BytesIO()
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(out, "jpeg")
    _each(files, lambda _: out.getvalue())


def _wide_jxl(files: Files) -> None:
    _each(files, lambda _: bytes(jpegxl_encode(np.zeros((4000, 50), np.uint8))))


def _external(files: Files) -> None:
    """Voxels of a file of this machine, as an HDF5 file may name them."""
    import h5py

    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("em/raw", (5, 9, 7), "u1", external=[("/etc/passwd", 0, 315)])
        files[next(iter(files))] = path.read_bytes()


def _beyond(files: Files) -> None:
    """The address of the voxels of a contiguous dataset lies past the file's end."""
    name = next(iter(files))
    data = bytearray(files[name])
    # version 3 of the layout message, class 1 (contiguous): address and size of 8 bytes each
    at = data.index(b"\x03\x01", 512)
    while struct.unpack_from("<Q", data, at + 10)[0] != 9 * 17 * 18 * 2:
        at = data.index(b"\x03\x01", at + 1)
    struct.pack_into("<Q", data, at + 2, len(data) + 4096)
    files[name] = bytes(data)


_P = "neuroglancer-precomputed"
_GZIP = "damaged|cut short|unpack"
_N5_SIZE = struct.pack(">III", 16, 16, 9)
_ROWS: dict[str, list[tuple[str, Callable[[Files], None], str]]] = {
    "a cut JPEG, by 10 bytes": [
        (f"{_P}-jxl-lossy", cut(10), "JPEG XL chunk is damaged"),
        (f"{_P}-jpeg", cut(10), "JPEG chunk is damaged"),
        ("jpeg-8", cut(10), "JPEG is damaged"),
    ],
    "a cut JPEG, by half": [
        (f"{_P}-jxl-lossless", half, "JPEG XL chunk is damaged"),
        (f"{_P}-jpeg", half, "JPEG chunk is damaged"),
        ("jpeg-8", half, "JPEG is damaged|JPEG cannot be read|cannot hold"),
    ],
    "a JPEG whose end is zeros": [
        (f"{_P}-jpeg", _zero_end, "ends before"),
        ("jpeg-8", _zero_end, "ends before"),
        ("tiff-jpeg-strips", _cut_strip, "ends before"),
        ("tiff-jpeg2000-uint8", _cut_strip, "ends before"),
        ("tiff-jpeg2000-lossy", _cut_strip, "ends before"),
    ],
    "a picture of another size": [
        (f"{_P}-jpeg", _wide_jpeg, "pixels for"),
        (f"{_P}-jxl-lossless", _wide_jxl, "pixels for"),
    ],
    "an object of 0 bytes": [
        ("zarr3-shards-zstd", empty, "cannot hold its index"),
        ("zarr3-multiscale", empty, "damaged|bytes instead|zstd"),
        ("zarr2-multiscale", empty, "damaged|bytes instead"),
        ("n5-gzip", empty, "shorter than its header"),
        (f"{_P}-raw", empty, "0 bytes instead"),
        (f"{_P}-ids", empty, "0 bytes"),
        (f"{_P}-sharded-identity", empty, "cannot hold its index"),
    ],
    "a stream without its last bytes, where its checksum stands": [
        ("n5-gzip", cut(5), _GZIP),
        ("n5-xz", cut(20), "do not end|damaged"),
        ("n5-bzip2", cut(5), "do not end|damaged"),
        ("zarr3-shards-crc32c", cut(140), "cannot hold|checksum|leads out"),
        (f"{_P}-gz-names", cut(5), "cut short"),
    ],
    "an object cut by half": [
        ("zarr3-shards-zstd", half, "cannot hold|checksum|leads out"),
        ("zarr3-nested-shards-start-end", half, "cannot hold|checksum|leads out"),
        ("zarr2-multiscale", half, "damaged|bytes instead"),
        ("n5-raw", half, "bytes instead"),
        ("n5-gzip", half, _GZIP),
        (f"{_P}-raw", half, "bytes instead"),
        (f"{_P}-ids", half, "lead|shorter|bytes"),
        (f"{_P}-sharded-identity", half, "leads out|damaged|cannot hold"),
    ],
    "a packed chunk cut to the length of its voxels": [
        (f"{_P}-gz-names", lambda f: _each(f, lambda d: d[:315]), "cut short"),
    ],
    "a file cut by half": [
        (seed, half, "cut short|damaged|instead|leads|bytes|truncated|cannot|ends|no NRRD header")
        for seed in (
            "tiff-imagej", "tiff-bigtiff-tiles", "dm-stack", "mrc-plain", "mrc-gz", "nrrd-raw",
            "nrrd-gzip", "nrrd-text", "metaimage-local", "metaimage-packed", "metaimage-text",
            "nifti-raw", "nifti-gz", "amira-raw", "amira-rle", "amira-zip", "png-16",
            "hdf5-plain", "hdf5-contiguous",
            "hdf5-bitshuffle-lz4", "zip",
        )
    ],
    "a file beside another that names it, and is not there": [
        ("nrrd-beside", beside(".raw", _gone), "a.raw is not there"),
        ("metaimage-beside-slices", beside(".raw", _gone), "s04.raw is not there"),
        ("tiff-ome-files", beside("z2.ome.tif", _gone), "z2.ome.tif is not there"),
        ("tiff-ome-companion", beside("w2.ome.tif", _gone), "w2.ome.tif is not there"),
    ],
    "a file beside another that names it, of another length": [
        ("nrrd-beside", beside(".raw", lambda d: d + b"0"), "where its voxels are"),
        ("nrrd-beside-list", beside(".raw", lambda d: d[:-2]), "not of one size"),
        ("metaimage-beside", beside(".raw", lambda d: d[:-1]), "where its voxels are"),
        ("metaimage-beside-packed", beside("zraw", lambda d: d[:-9]), "cut short"),
        ("tiff-ome-files", beside("z2.ome.tif", lambda d: d[:-99]), "cut short|leads|outside"),
    ],
    "a file of another folder": [
        ("nrrd-beside", renamed("nhdr", b"a.raw", b"../../etc/passwd"), "only files beside it"),
        ("metaimage-beside", renamed("mhd", b"a.raw", b"/etc/passwd"), "only files beside it"),
        ("tiff-ome-companion", renamed("ome", b"w2.ome", b"x/../w2.ome"), "only files beside it"),
        ("tiff-ome-files", renamed("z0.ome.tif", b"a z2.", b"..\\z2."), "only files beside it"),
    ],
    "another file of the same name": [
        (
            "tiff-ome-files",
            renamed("z2.ome.tif", b'UUID="urn:uuid:2', b'UUID="urn:uuid:7'),
            "another file",
        ),
    ],
    "a flipped bit under a checksum": [
        ("zarr3-shards-crc32c", flip(140), "checksum"),
        ("n5-gzip", flip(12), _GZIP),
        ("n5-xz", flip(60), "damaged"),
        ("n5-bzip2", flip(60), "damaged"),
        ("n5-cut-lz4", flip(60), "does not fit its checksum"),
        ("tiff-lzma", _flip_strip, "LZMA data do not decode"),
        ("hdf5-fletcher32", flip(30), "fletcher32|damaged"),
        ("nrrd-gzip", flip(40), "does not unpack"),
        ("metaimage-packed", flip(40), "does not unpack"),
        ("nifti-gz", flip(40), "does not unpack"),
        ("mrc-gz", flip(40), "does not unpack"),
        *[("png-16", flip(back), "damaged") for back in (30, 60, 90, 120)],
        *[(f"{_P}-png-uint8", flip(back), "CRC|damaged") for back in (30, 60, 90, 120)],
        ("zip", patch(60, b"\xff\xff"), "CRC|damaged|inflate|deflate"),
    ],
    "a block header that lies": [
        ("n5-raw", lambda files: _each(files, lambda d: d[:4] + _N5_SIZE + d[16:]), "belong"),
        ("n5-zstd", lambda files: _each(files, lambda d: b"\0\1" + d[2:]), "mode 1"),
        ("n5-gzip", lambda files: _each(files, lambda d: d[:2] + b"\0\4" + d[4:]), "belong|header"),
    ],
    "an index that leads out of the file": [
        ("zarr3-shards-zstd", _shard_index(0, 2**40), "leads out"),
        ("zarr3-shards-zstd", _shard_index(1, 2**40), "leads out"),
        ("zarr3-nested-shards-end-start", _shard_index(0, 2**40), "leads out"),
        ("zarr3-nested-shards-end-start", _inner_index(2**40), "leads out"),
        ("zarr3-nested-shards-end-start", _inner_index(2**64 - 9), "leads out"),
        (f"{_P}-sharded-one", patch(8, struct.pack("<Q", 2**40)), "leads out"),
        (f"{_P}-ids", patch(4, b"\xff\xff\xff\x20"), "leads? out"),
        ("tiff-imagej", _strip_outside, "cut short|leads|absent or damaged|outside"),
        ("hdf5-contiguous", _beyond, "likely file corruption"),
        ("zip", _zip_directory, "directory|lead|damaged|cut"),
    ],
    "voxels of a file of this machine": [("hdf5-plain", _external, "external storage")],
    "a stream that unpacks to far more": [
        ("n5-gzip", bomb(16), _GZIP),
        ("n5-zlib", bomb(16, packed=zlib.compress), _GZIP),
        ("n5-xz", lambda f: bomb(16, packed=__import__("lzma").compress)(f), "damaged|bytes"),
        ("n5-bzip2", lambda f: bomb(16, packed=__import__("bz2").compress)(f), "damaged|bytes"),
        (f"{_P}-raw", bomb(), "gzip|bytes instead"),
        ("nrrd-gzip", _nrrd_bomb, "more|longer|holds|unpack"),
        ("metaimage-packed", _mha_bomb, "more|longer|holds|unpack"),
        ("nifti-gz", _whole_gzip, "more|longer|holds|unpack"),
        ("png-16", _png_bomb, "cannot hold|damaged"),
        ("zip", _zip_bomb, "claims to grow"),
        ("zip", _zip_lies, "other than its 5 bytes"),
    ],
}  # fmt: skip


@cache
def _seeds(form: str) -> dict[str, fuzz.Seed]:
    with TemporaryDirectory(prefix="damage-") as folder:
        return {seed.name: seed for seed in fuzz.seeds(form, Path(folder))}


def format_of(seed: str) -> str:
    """The format that a row of the conformance table is of."""
    return next(
        name for name in sorted(fuzz.names(), key=len, reverse=True) if seed.startswith(name)
    )


CELLS = [
    Cell(fault, format_of(seed), seed, change, said)
    for fault, rows in _ROWS.items()
    for seed, change, said in rows
]


def damaged(cell: Cell) -> fuzz.Seed:
    """The input of a cell, changed."""
    seed = _seeds(cell.format)[cell.seed]
    files = dict(seed.files)
    cell.change(files)
    assert files != seed.files, "nothing was changed"
    return replace(seed, files=files)


# --- the table in docs/reliability.md -----------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
_BEGIN, _END = "<!-- format faults: begin -->\n", "<!-- format faults: end -->"


def table() -> str:
    """One row for each fault, with the rows of the conformance table that it was tried on."""
    rows = ["| fault | tried on |", "|---|---|"]
    for fault in _ROWS:
        seeds = dict.fromkeys(cell.seed for cell in CELLS if cell.fault == fault)
        rows.append(f"| {fault} | {', '.join(seeds)} |")
    return "\n".join(rows) + "\n"


def page(text: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = text.partition(_BEGIN)
    return before + _BEGIN + table() + _END + rest.partition(_END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
