"""`macroscope.verify`: a store, re-proven from its records."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from macroscope._settings import Address, load

if TYPE_CHECKING:
    from lib.verify.volume import Verdict


def verify(
    place: Address | None = None,
    *,
    deep: bool | None = None,
    sources: Sequence[str] | None = None,
) -> list[Verdict]:
    """Hold every field of every record against the store; nothing is written.

    Parameters
    ----------
    place
        Folder or ``s3://bucket/prefix``; the data folder of the settings by default.
    deep
        Read every byte again and compare each digest. By default folders are read, buckets not.
    sources
        Only what lies in the folders of these.

    Returns
    -------
    list of Verdict
        One for each record, and for each volume without one: ``record_key``, ``status``,
        ``problems`` (empty where everything holds), ``damaged`` (what the command ``macroscope
        verify --repair`` makes anew), ``facts``.

    Raises
    ------
    NothingThereError
        There is nothing to prove.
    AccessDeniedError, DestinationError, TransportError
        The store cannot be read.

    Examples
    --------
    >>> import macroscope
    >>> verdicts = macroscope.verify("data")
    >>> [(one.record_key, one.status, one.problems) for one in verdicts]
    [('address/metadata_em.json', 'complete', ())]
    """
    from flows.credentials import store_settings
    from lib.concurrency import cancel
    from lib.storage.open import is_remote, open_store
    from lib.verify.volume import require_proof, verify_store

    loaded = load()
    uri = loaded.settings.data_dir if place is None else os.path.expanduser(os.fspath(place))
    store = open_store(uri, store_settings(loaded))
    digests = not is_remote(uri) if deep is None else deep
    with cancel.fresh():
        found = list(verify_store(store, digests=digests, sources=sources or ()))
        require_proof(store, found, sources or ())
    return found
