"""Files of which each is one volume or one section: what an archive of files asks of a format."""

from __future__ import annotations

from collections.abc import Collection

from lib.bytesource.base import ByteSource
from lib.errors import UnsupportedFormatError
from lib.formats import registry
from lib.formats.format import FileFormat, Options, VolumeDescription


def describe_file(
    source: ByteSource, name: str, options: Options, among: Collection[str] = ()
) -> tuple[FileFormat, VolumeDescription]:
    """The format of a file and its one volume; reads metadata only.

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
        It is of no format that counts, or holds several volumes.
    """
    counts = set(among or registry.FILE_FORMATS)
    fitting = [fmt for fmt in registry.formats_of_file(source, name) if fmt.name in counts]
    called = registry.file_formats_for(name, counts)
    if not fitting and not called:
        raise UnsupportedFormatError(
            "the file is of no format that is converted", location=source.name
        )
    # Where no beginning fits, the format that the name promises says best what is wrong.
    fmt = next((one for one in fitting if one in called), (fitting or called)[0])
    volumes = fmt.describe(source, "", options)
    whole = [one for one in volumes if one.refused is None]
    if len(whole) == 1:
        return fmt, whole[0]
    if volumes and not whole:
        raise UnsupportedFormatError(str(volumes[0].refused), location=source.name)
    inside = ", ".join(one.path for one in whole[:10])
    raise UnsupportedFormatError(
        f"the file holds {len(whole)} volumes ({inside})",
        location=source.name,
        advice=f"Run each by the file's own address, as {source.name}|{fmt.name}:{whole[0].path}",
    )
