"""The volumes of a file whose format its name suggests: what an archive of files asks."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lib.bytesource.base import ByteSource
from lib.errors import UnsupportedFormatError
from lib.formats import registry
from lib.formats.format import FileFormat, Options, VolumeDescription


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
    counts = set(among or registry.FILE_FORMATS)
    fitting = [fmt for fmt in registry.formats_of_file(source, name) if fmt.name in counts]
    called = registry.file_formats_for(name, counts)
    if not fitting and not called:
        raise UnsupportedFormatError(
            "the file is of no format that is converted", location=source.name
        )
    # Where no beginning fits, the format that the name promises says best what is wrong.
    fmt = next((one for one in fitting if one in called), (fitting or called)[0])
    return fmt, fmt.describe(source, "", options)
