"""`macroscope.list` and `macroscope.search`: what there is, and the address to ingest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from macroscope._settings import Address, load, with_stand_ins

if TYPE_CHECKING:
    from lib.archives.listed import Item
    from lib.ingest.listing import Searched


def list(address: Address | None = None, *, archives: str | None = None) -> tuple[Item, ...]:
    """Say what lies at an address; only metadata is fetched.

    Parameters
    ----------
    address
        An archive (``empiar:``, ``idr:``, ``openorganelle:``, ``flyem:``, ``epfl:``), an entry or
        data set of one, a folder, a bucket, a container or a file; the archives by default.
    archives
        ``public``, or ``samples`` for stand-ins that are started for this call.

    Returns
    -------
    tuple of Item
        Each with its ``address``, ``name`` and ``what`` it is; of volumes ``shape_zyx``, ``dtype``,
        ``voxel_nm_zyx`` (nm), ``levels``, ``nbytes``, ``licence``, and whether it is ``loadable``
        or ``why_not``.

    Raises
    ------
    ConfigError
        The address cannot be read.
    NotFoundError, AccessDeniedError, TransportError, FormatError
        Nothing can be told of it.

    Examples
    --------
    >>> import macroscope
    >>> [one.address for one in macroscope.list()]
    ['empiar:', 'epfl:', 'flyem:', 'idr:', 'openorganelle:']
    >>> (volume,) = macroscope.list("epfl:", archives="samples")
    >>> volume.shape_zyx, volume.dtype, volume.loadable
    ((12, 96, 128), 'uint8', True)
    """
    from lib.concurrency import cancel
    from lib.ingest.listing import list_address

    loaded = load(archives=archives)
    text = None if address is None else os.fspath(address)
    with cancel.fresh(), with_stand_ins(loaded, data_dir=None, archives=archives) as ready:
        return tuple(list_address(ready, text))


def search(
    *words: str,
    archive: str | Sequence[str] | None = None,
    most: int = 10,
    archives: str | None = None,
) -> tuple[Searched, ...]:
    """Look for volumes in the archives by words.

    Parameters
    ----------
    words
        All of them must fit; a phrase is one of them.
    archive
        ``empiar``, ``idr``, ``openorganelle``, ``bioimages`` or ``reach`` (the table of public
        volumes); all by default.
    most
        Hits of each.
    archives
        ``public``, or ``samples`` for stand-ins that are started for this call.

    Returns
    -------
    tuple of Searched
        What each archive answered: ``archive``, ``items`` (as of `macroscope.list`), and ``error``
        where it could not be asked.

    Raises
    ------
    ConfigError
        There is no such archive, or no word.
    MacroscopeError
        None of the archives could be asked: the error of the first.

    Examples
    --------
    >>> import macroscope
    >>> (found,) = macroscope.search("hemibrain", archive="reach")
    >>> found.error is None, found.items[0].address.startswith("flyem:")
    (True, True)
    """
    from lib.concurrency import cancel
    from lib.ingest.listing import search as search_archives

    loaded = load(archives=archives)
    chosen = [archive] if isinstance(archive, str) else archive
    with cancel.fresh(), with_stand_ins(loaded, data_dir=None, archives=archives) as ready:
        found = tuple(search_archives(ready, words, chosen, most=most))
    failed = [one.error for one in found if one.error is not None]
    if len(failed) == len(found):
        raise failed[0]
    return found
