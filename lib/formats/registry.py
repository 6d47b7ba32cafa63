"""The formats, by the word that an address's pipeline has for them. A new one is a line here.

An archive of files asks here for the volumes of a file whose format its name suggests.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import cast

from lib.bytesource.base import ByteSource
from lib.config.errors import suggestion
from lib.errors import ConfigError, UnsupportedFormatError
from lib.formats.format import HEAD_BYTES, FileFormat, Options, TreeFormat, VolumeDescription

FILE_FORMATS: dict[str, str] = {
    "tiff": "lib.formats.tiff.format:TiffFormat",
    "dm": "lib.formats.dm.format:DmFormat",
    "mrc": "lib.formats.mrc.format:MrcFormat",
    "hdf5": "lib.formats.hdf5.format:Hdf5Format",
    "nrrd": "lib.formats.nrrd:NrrdFormat",
    "metaimage": "lib.formats.metaimage:MetaImageFormat",
    "nifti": "lib.formats.nifti:NiftiFormat",
    "amira": "lib.formats.amira:AmiraFormat",
    "png": "lib.formats.pictures:PngFormat",
    "jpeg": "lib.formats.pictures:JpegFormat",
}
"""Pipeline word -> class, imported when first used. Asked in this order what a file is."""

TREE_FORMATS: dict[str, str] = {
    "zarr2": "lib.formats.zarr.format:Zarr2Format",
    "zarr3": "lib.formats.zarr.v3_format:Zarr3Format",
    "n5": "lib.formats.n5.format:N5Format",
    "neuroglancer-precomputed": "lib.formats.precomputed.format:PrecomputedFormat",
}
"""The same for trees."""

ALIASES: dict[str, tuple[str, ...]] = {
    "zarr": ("zarr3", "zarr2"),
    "precomputed": ("neuroglancer-precomputed",),
    "tif": ("tiff",),
    "dm3": ("dm",),
    "dm4": ("dm",),
    "jpg": ("jpeg",),
    "nii": ("nifti",),
    "mha": ("metaimage",),
    "mhd": ("metaimage",),
    "nhdr": ("nrrd",),
    "am": ("amira",),
    "h5": ("hdf5",),
}
"""Other words -> the formats that they may mean."""


@cache
def file_format(name: str) -> FileFormat:
    """The file format of a name in `FILE_FORMATS`."""
    return cast(FileFormat, _made(FILE_FORMATS[name]))


@cache
def tree_format(name: str) -> TreeFormat:
    """The tree format of a name in `TREE_FORMATS`."""
    return cast(TreeFormat, _made(TREE_FORMATS[name]))


def words() -> list[str]:
    """Every word that names a format in a pipeline."""
    known = {*FILE_FORMATS, *TREE_FORMATS}
    aliases = {word for word, names in ALIASES.items() if known & set(names)}
    return sorted(known | aliases)


def named(word: str) -> tuple[str, ...]:
    """The formats that a pipeline's word may mean.

    Raises
    ------
    ConfigError
        None; the error suggests the nearest word.
    """
    known = {*FILE_FORMATS, *TREE_FORMATS}
    found = tuple(name for name in ALIASES.get(word.lower(), (word.lower(),)) if name in known)
    if not found:
        raise ConfigError(
            f"there is no format {word!r}; {suggestion(word, words())}", location="addresses"
        )
    return found


def formats_of_file(source: ByteSource, name: str) -> list[FileFormat]:
    """The formats of which a file is, by its own beginning."""
    head = source.read(0, min(source.size, HEAD_BYTES))
    return [one for one in map(file_format, FILE_FORMATS) if one.fits(head, name)]


def file_formats_for(name: str, among: Iterable[str] = ()) -> list[FileFormat]:
    """The formats that a file of this name could be of; its content decides."""
    lower = name.lower()
    candidates = map(file_format, among or FILE_FORMATS)
    return [one for one in candidates if lower.endswith(one.suffixes)]


def _made(path: str) -> object:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)()


def describe_volumes(
    source: ByteSource, name: str, options: Options, among: Collection[str] = ()
) -> tuple[FileFormat, Sequence[VolumeDescription]]:
    """The format of a file and its volumes, those included that are refused; metadata only.

    Parameters
    ----------
    name
        The file's name chooses candidates, its content decides.
    among
        Names of the formats that count; all where empty.

    Raises
    ------
    FormatError
        The file is damaged.
    UnsupportedFormatError
        It is of no format that counts.
    """
    counts = set(among or FILE_FORMATS)
    fitting = [fmt for fmt in formats_of_file(source, name) if fmt.name in counts]
    called = file_formats_for(name, counts)
    if not fitting and not called:
        raise UnsupportedFormatError(
            "the file is of no format that is converted", location=source.name
        )
    # Where no beginning fits, the format that the name promises says best what is wrong.
    fmt = next((one for one in fitting if one in called), (fitting or called)[0])
    return fmt, [*map(_of_one_file, fmt.describe(source, "", options))]


def _of_one_file(volume: VolumeDescription) -> VolumeDescription:
    """Refused where its voxels lie in other files, too: those are asked for by an address."""
    if not volume.beside or volume.refused is not None:
        return volume
    named = ", ".join(volume.beside[:3]) + (", ..." if len(volume.beside) > 3 else "")
    why = f"its voxels lie in other files ({named}): give the address of this one to read them"
    return replace(volume, refused=why)
