"""What obstore's errors mean.

obstore keeps status and error code in its messages only; they were read off version 0.12 against
a server that fails in each of these ways.
"""

from __future__ import annotations

import re

from obstore.exceptions import PermissionDeniedError, PreconditionError, UnauthenticatedError

from lib.errors import (
    AccessDeniedError,
    BadAnswerError,
    IncompleteTransferError,
    MacroscopeError,
    NotFoundError,
    RequestRefusedError,
    SourceChangedError,
    TransportError,
)

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_TRANSIENT = {408, 421, 425, 429}
# Variants of rustls' error type; a server that speaks no TLS at all sends an invalid message.
_TLS = ("certificate", "invalidmessage", "alertreceived", "peerincompatible", "peermisbehaved")


def says_no_such_key(error: Exception) -> bool:
    """Whether this is the store's own word that it has no such key.

    A missing chunk reads as background, so nothing else makes one: a proxy's 404 page or a
    missing bucket is an error.
    """
    return isinstance(error, FileNotFoundError) and _code(error) == "NoSuchKey"


def _code(error: Exception) -> str:
    found = _CODE.search(str(error))
    return found[1] if found else ""


def named_error(error: Exception) -> MacroscopeError:
    """The named form of an obstore error."""
    text = str(error)
    found = _STATUS.search(text)
    status = int(found[1]) if found else 0
    code = _code(error)
    said = f" (status {status}{', ' + code if code else ''})" if status else ""
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or status in {401, 403}:
        return AccessDeniedError(f"the object store refuses access{said}")
    if isinstance(error, FileNotFoundError) or status == 404:
        if code == "NoSuchBucket":
            return NotFoundError(
                f"there is no such bucket{said}", advice="Check bucket name, region and endpoint"
            )
        return NotFoundError(
            f"the server does not have this, and does not say so as an object store would{said}",
            advice="Check the endpoint: it may not be an object store",
        )
    if isinstance(error, PreconditionError) or status == 412:
        return SourceChangedError("the object changed in the store while it was read")
    if status in _TRANSIENT or status >= 500:
        return TransportError(f"the object store failed for now{said}")
    if status >= 400 or isinstance(error, ValueError):
        return RequestRefusedError(f"the object store calls the request wrong{said}")
    if "non-partial response" in text:
        return BadAnswerError("the object store ignores byte ranges", retryable=False)
    if "list response" in text or "Content-Length" in text or "Header" in text:
        return BadAnswerError("the answer is not that of an object store")
    return _network(text)


def _network(text: str) -> MacroscopeError:
    low = text.lower()
    if "dns error" in low or "failed to lookup" in low:
        return TransportError(
            "the object store's host name does not resolve",
            advice="Check the endpoint and the network's DNS, then run again",
        )
    if any(word in low for word in _TLS):
        return TransportError(
            "no secure connection to the object store",
            retryable=False,
            advice="Check the server's certificate, the clock and SSL_CERT_FILE",
        )
    if "kind: connect" in low:
        return TransportError(
            "the object store's host refuses the connection",
            advice="Check the endpoint, and that the server runs; then run again",
        )
    if "kind: timeout" in low or "timedout" in low:
        return TransportError("the object store did not answer in time")
    if "body" in low:
        return IncompleteTransferError("the object ended early")
    return TransportError("the connection to the object store broke")
