"""What an S3 server honours of what keeps runs apart, tried on an object of its own."""

from __future__ import annotations

import secrets
from datetime import timedelta
from urllib.parse import quote

from lib.errors import AlreadyExistsError, DestinationError
from lib.storage.base import Missing, StoredObject
from lib.storage.capabilities import NO_CONDITIONAL_DELETE, NO_EXPIRY
from lib.storage.keys import LOCKS, byte_views
from lib.storage.s3_objects import S3Objects
from lib.storage.s3_writes import S3Writes
from lib.transport.s3.errors import Refusal

_OTHER = '"00000000000000000000000000000000"'
_LONG_AGO = timedelta(hours=1)


def probe_bucket(objects: S3Objects, writes: S3Writes) -> tuple[Missing, ...]:
    """Write, replace and delete an object under conditions that do not hold.

    Parameters
    ----------
    writes
        Without a fence.

    Raises
    ------
    DestinationError
        The server ignores conditional writes; or neither deletes by version nor the end of a
        signature keep back what a paused run had under way.
    AccessDeniedError
        Writing or deleting is denied.
    """
    key = f"{LOCKS}/probe-{secrets.token_hex(6)}"
    missing = []
    try:
        etag = writes.put(key, byte_views(b"1"), "")
        for where in ("", _OTHER):
            _require_refusal(objects, writes, key, where)
        if not writes.delete_each([StoredObject(key, 1, _OTHER)]):
            missing.append(NO_CONDITIONAL_DELETE)
            etag = writes.put(key, byte_views(b"1"), None)
        if objects.settings.anonymous or not _refuses_late(objects, key):
            missing.append(NO_EXPIRY)
        writes.delete_each([StoredObject(key, 1, etag)])
    finally:
        if objects.head(key) is not None:
            writes.delete([StoredObject(key, 1)])
    if len(missing) > 1:
        raise DestinationError(
            "the object store neither deletes by version (If-Match) nor looks at the end of a "
            "signature, so a paused run could delete what another completed",
            location=objects.uri,
            advice="Use another object store (AWS, MinIO, SeaweedFS, Ceph), or a folder",
        )
    return tuple(missing)


def _require_refusal(objects: S3Objects, writes: S3Writes, key: str, where: str) -> None:
    try:
        writes.put(key, byte_views(b"2"), where)
    except AlreadyExistsError:
        return
    condition = "If-Match" if where else "If-None-Match"
    raise DestinationError(
        f"the object store ignores conditional writes ({condition}), so two runs cannot be kept "
        "apart",
        location=objects.where(key),
        advice="Use a store that honours If-None-Match and If-Match (AWS, MinIO, SeaweedFS, Ceph)",
    )


def _refuses_late(objects: S3Objects, key: str) -> bool:
    """Whether a write is refused whose signature has ended."""
    try:
        objects.requests.write(
            "PUT",
            quote(objects.full(key)),
            lambda: 1.0,
            views=byte_views(b"3"),
            signed_at=objects.requests.now() - _LONG_AGO,
        )
    except Refusal as refusal:
        return refusal.status == 403
    return False
