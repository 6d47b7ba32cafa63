"""Raw files that must be there already."""

from __future__ import annotations

from lib.errors import IntegrityError, NotFoundError
from lib.plan import SourceFile
from lib.rawfiles.files import RawFiles
from lib.transport.partial import Fetched


def kept_or_error(file: SourceFile, raw: RawFiles) -> Fetched:
    """The kept file, where no voxels may be fetched.

    Raises
    ------
    NotFoundError
    """
    known = raw.known(file)
    if known is None:
        raise NotFoundError(
            "the file is not among the kept raw files, and enable_downloads is false",
            archive=raw.source,
            location=str(raw.path(file)),
            advice="Set enable_downloads to true, and keep_raw for later runs",
        )
    return known


def fetched_or_error(file: SourceFile, raw: RawFiles) -> Fetched:
    """The file that the volume was made from.

    Raises
    ------
    IntegrityError
        It went away or was changed while the volume was made.
    """
    known = raw.known(file)
    if known is None:
        raise IntegrityError(
            "the raw file went away or was changed while its volume was made",
            archive=raw.source,
            location=str(raw.path(file)),
        )
    return known
