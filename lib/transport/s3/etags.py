"""Entity tags as digests: what S3 publishes of an object's bytes.

Amazon S3, "Checking object integrity": the ETag of an object that was uploaded in one part is the
MD5 of its bytes, unless it is encrypted with a customer's key or by KMS, which AWS says in a header
of the answer; one of several parts has a tag that ends in a dash and a number.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from lib.errors import IncompleteTransferError

EtagPolicy = Literal["always", "plain-http", "sample"]
"""Which objects' bytes are held against their ETags: each, each that came without TLS, or every
sixteenth. TLS authenticates the wire; what an ETag finds beyond it is a store's own rot."""

_ONE_IN = 16
_NONE: Mapping[str, str] = MappingProxyType({})
_MD5 = re.compile(r'(?:W/)?"?([0-9a-fA-F]{32})"?')


class EtagProof:
    """Holds whole objects against their ETags, once a bucket's tags are known to be digests.

    They are as soon as one object fits its tag. They are not if the first object does not, and
    arrives the same a second time. Thread-safe.

    Parameters
    ----------
    policy
        Which objects are looked at.
    over_tls
        Whether the bytes come over TLS.
    """

    def __init__(self, policy: EtagPolicy = "always", *, over_tls: bool = False) -> None:
        self._policy = policy
        self._none = policy == "plain-http" and over_tls
        self._lock = threading.Lock()
        self._tags_are_digests: bool | None = None
        self._arrived: dict[str, str] = {}  # tag -> digest of bytes that did not fit it

    def check(
        self, data: memoryview | bytes, etag: str | None, headers: Mapping[str, str] = _NONE
    ) -> None:
        """Raise `IncompleteTransferError` where bytes and tag contradict each other.

        Parameters
        ----------
        headers
            Of the answer: whether they say that this object's tag is no digest.
        """
        if self._none or _is_encrypted(headers):
            return
        stated = _MD5.fullmatch(etag or "")
        if stated is None or self._tags_are_digests is False:
            return
        if self._policy == "sample" and int(stated[1], 16) % _ONE_IN:
            return  # by the tag, so that an object asked for again is judged as before
        digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
        with self._lock:
            if digest == stated[1].lower():
                self._tags_are_digests = True
                return
            if self._tags_are_digests is None and self._arrived.get(stated[1]) == digest:
                self._tags_are_digests = False
                return
            self._arrived[stated[1]] = digest
        raise IncompleteTransferError("the bytes that came are not those of the object's ETag")


def _is_encrypted(headers: Mapping[str, str]) -> bool:
    by = headers.get("x-amz-server-side-encryption", "")
    customer = headers.get("x-amz-server-side-encryption-customer-algorithm")
    return by.startswith("aws:kms") or customer is not None
