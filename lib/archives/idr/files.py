"""The file of an IDR image: where it lies, how it is reached, and what it says of the image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from lib.archives.ebi.tree import EbiTree
from lib.archives.idr.omero import Image
from lib.bytesource.base import ByteSource
from lib.config.loaders import IDRConfig
from lib.errors import (
    FormatError,
    MacroscopeError,
    NotFoundError,
    OutOfBoundsError,
    StoppedError,
    UnsupportedFormatError,
)
from lib.formats.tiff.reader import TiffVolume, open_tiff
from lib.plan import SourceFile

_MOST_CHANNELS = 16


def locate(paths: list[str], config: IDRConfig, image_id: int) -> tuple[str, str | None, str]:
    """Path on the file tree, study, and folder for raw files, of an image's one file."""
    tiffs = [path for path in paths if path.lower().endswith((".tif", ".tiff", ".btf", ".tf8"))]
    if len(tiffs) != 1:
        shown = ", ".join(PurePosixPath(path).name for path in (tiffs or paths)[:5])
        raise UnsupportedFormatError(
            f"the image is made of {len(tiffs)} TIFF files of {len(paths)} files: {shown}",
            location=f"image {image_id}",
            advice="Images of exactly one TIFF file are converted: leave it out of image_ids, or "
            "give the address of the file that has its OME-XML (the companion, if there is one)",
        )
    path = tiffs[0]
    if any(part in ("..", ".", "") for part in path.strip("/").split("/")):
        raise UnsupportedFormatError(
            "the path of the original file leaves its folder", location=path[:200]
        )
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
        raise UnsupportedFormatError(
            "the path of the original file holds a control character, by which no server can be "
            "asked for it",
            location=repr(path[:200]),
        )
    for prefix, target in sorted(config.path_mappings.items(), key=lambda pair: -len(pair[0])):
        root = "/" + prefix.strip("/")
        if path.startswith(f"{root}/"):
            below = "/".join(filter(None, (target.strip("/"), path.removeprefix(f"{root}/"))))
            study = below.split("/")[0] if "/" in below else None
            folder = below.rpartition("/")[0].replace("/", "_") or "files"
            return f"{config.ftp_root_path.rstrip('/')}/{below}", study, folder
    raise NotFoundError(
        "no path mapping fits the original file",
        location=path,
        advice=f"Add its folder to path_mappings; there are: {', '.join(config.path_mappings)}",
    )


def choose_file(tree: EbiTree, path: str, config: IDRConfig) -> tuple[SourceFile, bool]:
    """The file, and whether its voxels are to be read by ranges of the mirror.

    Ranges where nothing is kept, or only a part is wanted; FTP cannot give them.
    """
    name = PurePosixPath(path).name
    ranges = not config.keep_raw or config.box is not None
    if ranges and "https" in tree.ways:
        try:
            file = tree.mirrored(path, name)
        except StoppedError:
            raise
        except MacroscopeError:
            if tree.ways == ("https",):
                raise
        else:
            if file.size is not None:
                return file, True
    return tree.file(path, name), False


Plane = tuple[int | None, int | None]
"""Channel and time point; None where there is only one."""


def volumes_of(
    tree: EbiTree, file: SourceFile, image: Image
) -> Iterator[tuple[Plane, TiffVolume, tuple[str, ...]]]:
    """Each volume of an image, described when it is asked for, with notes.

    Pages without a description have one axis, and nobody has named it: OMERO counts it as time
    (or as channels), and it is taken for z.

    Raises
    ------
    UnsupportedFormatError
        There are too many volumes, or pages without a description for several axes.
    """
    planes = [*planes_of(image)]
    first, notes = describe_image(tree, file, image, *planes[0])
    if len(planes) == 1 or first.kind != "pages":
        yield planes[0], first, notes
        for plane in planes[1:]:
            yield (plane, *describe_image(tree, file, image, *plane))
        return
    counts = {"SizeZ": image.size_zyx[0] or 1, "SizeC": image.channels, "SizeT": image.times}
    longer = [f"{name} {count}" for name, count in counts.items() if count > 1]
    if len(longer) > 1:
        raise UnsupportedFormatError(
            f"the file's {first.shape_zyx[0]} pages have no description, and the API counts "
            f"{', '.join(longer)}: nothing says which page is which plane",
            location=file.url,
        )
    note = f"the API counts the pages as {longer[0]}; nothing in the file says so: they are z"
    yield (None, None), first, (*notes, note)


def planes_of(image: Image) -> Iterator[Plane]:
    """Channels and time points that are volumes of their own."""
    if image.channels * image.times > _MOST_CHANNELS:
        raise UnsupportedFormatError(
            f"the image has {image.channels} channels and {image.times} time points",
            location=f"image {image.image_id}",
        )
    for time in range(image.times):
        for channel in range(image.channels):
            yield (
                channel if image.channels > 1 else None,
                time if image.times > 1 else None,
            )


def describe_image(
    tree: EbiTree, file: SourceFile, image: Image, channel: int | None, time: int | None
) -> tuple[TiffVolume, tuple[str, ...]]:
    """The volume by the file's own account, and where the API contradicts it."""

    def read(source: ByteSource) -> TiffVolume:
        # the first series is no more than the default: a picture may lie before the volume
        return open_tiff(source, series=image.series or None, channel=channel, time=time)

    try:
        volume = tree.metadata(file, read)
    except OutOfBoundsError as error:
        raise FormatError(
            f"the file does not hold what the API says: {error.message}", location=file.url
        ) from None
    notes = list(volume.notes)
    if None not in image.size_zyx and image.size_zyx != volume.shape_zyx:
        notes.append(
            f"the API says {image.size_zyx} voxels (z, y, x), the file {volume.shape_zyx}; the "
            "file's size was taken"
        )
    if image.dtype is not None and image.dtype != volume.dtype.name:
        notes.append(f"the API says {image.dtype} voxels, the file {volume.dtype.name}")
    return volume, tuple(notes)
