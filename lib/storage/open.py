"""From an address to a store."""

from __future__ import annotations

import logging
import threading

from lib.errors import ConfigError
from lib.storage.base import Missing, Store, StoreSettings
from lib.storage.local import LocalStore

_log = logging.getLogger(__name__)


def is_remote(uri: str) -> bool:
    """Whether an address names a bucket and not a folder."""
    return "://" in uri and not uri.startswith("file://")


_probed: dict[tuple[str, StoreSettings], tuple[Missing, ...]] = {}
_probing = threading.Lock()


def probe_once(uri: str, settings: StoreSettings) -> tuple[Missing, ...]:
    """Try what a destination can do, once in this process; what it lacks goes to the log.

    Raises
    ------
    DestinationError, AccessDeniedError
        It cannot be written to, or not safely.
    ConfigError
        As of `open_store`.
    """
    with _probing:
        if (uri, settings) not in _probed:
            found = _probed[uri, settings] = open_store(uri, settings).probe()
            for missing in found:
                _log.warning("%s has %s", uri, missing)
        return _probed[uri, settings]


def open_store(uri: str, settings: StoreSettings | None = None) -> Store:
    """Open the store at an address: a folder, ``file:///folder`` or ``s3://bucket/prefix``.

    Nothing is read or written yet, so a missing bucket shows at the first request.

    Raises
    ------
    ConfigError
        The address is of no known kind.
    AccessDeniedError
        An object store's credentials were not found.
    """
    settings = settings or StoreSettings()
    if uri.startswith("s3://"):
        from lib.storage.s3 import S3Store  # slow to import; folders never need it

        return S3Store(uri, settings)
    if is_remote(uri):
        raise ConfigError(
            f"there is no store for addresses that begin with {uri.partition('://')[0]}://",
            advice="Give a folder or s3://bucket/prefix",
        )
    folder = uri.removeprefix("file://")
    if not folder or "\0" in folder:
        raise ConfigError("the address of a store is empty or holds a NUL character")
    return LocalStore(folder, durable=settings.durable, lease_seconds=settings.lease_seconds)
