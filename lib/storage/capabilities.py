"""What a destination can do, tried once before anything is fetched, and named where it cannot.

Whatever is missing either has another safe way, which is named, or is refused: a run that cannot
be safe ends before it begins.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from datetime import timedelta
from urllib.parse import quote

from lib.errors import AlreadyExistsError, DestinationError
from lib.storage import durable
from lib.storage.base import Missing, StoredObject
from lib.storage.durable import naming_os_errors, sync_file, sync_folder
from lib.storage.keys import LOCKS, byte_views, temporary_name, temporary_of
from lib.storage.local_draft import NO_LINKS, sweep_old
from lib.storage.local_lock import honours_flock
from lib.storage.s3_objects import S3Objects
from lib.storage.s3_writes import S3Writes
from lib.transport.s3.errors import Refusal

_TRIED = ("probe", "tmp")

NO_LOCKS = Missing(
    "kernel locks (flock)",
    "volumes are held by lease files, which outlive a killed run on another host by "
    "dest_lease_seconds",
)
NO_FILE_SYNC = Missing(
    "way to force files to the disk (fsync)",
    "a power cut may take files of volumes that were called complete",
)
NO_FOLDER_SYNC = Missing(
    "way to force folders to the disk (fsync)",
    "a power cut may take the names of files that were called complete",
)
NO_LINKS_THERE = Missing(
    "hard links", "a catalogue's name is taken by an empty file first, and filled a moment later"
)
NO_DIRECT = Missing("O_DIRECT", "shards are written through the page cache")
NO_CONDITIONAL_DELETE = Missing(
    "conditional deletes (If-Match)",
    "what a run had under way when its lease ended is refused by the end of its signature alone",
)
NO_EXPIRY = Missing(
    "end of signatures (X-Amz-Expires)",
    "what a run had under way when its lease ended is refused by conditions alone",
)


def probe_folder(root: str) -> tuple[Missing, ...]:
    """Try a folder; it is made where it is not there.

    Raises
    ------
    DestinationError
        Nothing can be written, or renaming replaces no files.
    """
    folder = os.path.join(root, temporary_name(*_TRIED))
    with naming_os_errors(root, "write"):
        os.makedirs(folder)
        try:
            # what processes left that were killed while they tried it
            sweep_old(root, os.stat(folder).st_mtime, lambda one: temporary_of(one.name) == _TRIED)
            return tuple(_missing_in(folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _missing_in(folder: str) -> list[Missing]:
    one, other = os.path.join(folder, "one"), os.path.join(folder, "other")
    missing = []
    for path in (one, other):
        with open(path, "xb") as file:
            file.write(path.encode())
            file.flush()
            synced = sync_file(file.fileno())
    if not synced:
        missing.append(NO_FILE_SYNC)
    _require_rename_over(one, other)
    if not sync_folder(folder):
        missing.append(NO_FOLDER_SYNC)
    if not honours_flock(folder):
        missing.append(NO_LOCKS)
    try:
        os.link(other, one)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        missing.append(NO_LINKS_THERE)
    if not durable.is_possible(other):
        missing.append(NO_DIRECT)
    return missing


def _require_rename_over(one: str, other: str) -> None:
    try:
        os.replace(one, other)
        with open(other, "rb") as file:
            replaced = file.read() == one.encode()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
            raise
        replaced = False
    if not replaced:
        raise DestinationError(
            "the file system cannot replace a file by renaming another",
            location=os.path.dirname(other),
            advice="Choose another file system (ext4, xfs, NFS, CephFS), or a bucket",
        )


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
