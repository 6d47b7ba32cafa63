"""What an S3 server's refusal means: one table, for reading archives and for writing stores.

Codes: Amazon S3 API Reference, "Error responses"; those of MinIO, Ceph, SeaweedFS and Google beside
them. Every error quotes status and code, and is tried again only where that can help.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from lib.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    DestinationError,
    DestinationFullError,
    MacroscopeError,
    NotFoundError,
    RequestRefusedError,
    SourceChangedError,
    TransportError,
)
from lib.safety import redact_text
from lib.transport.retry import ask_to_wait, parse_retry_after

_LONGEST_SAID = 200
_TRANSIENT = {408, 421, 425, 429}


class Kind(Enum):
    """What can be done about a refusal."""

    PASSING = "another try can help"
    DENIED = "other credentials or permissions are needed"
    NO_BUCKET = "there is no such bucket"
    NO_OBJECT = "there is no such object"
    THERE_ALREADY = "a condition of the request does not hold"
    FULL = "the store is full"
    BEYOND_END = "the object ends before the range"
    REFUSED = "the request, or the object as it is, cannot be served"


@dataclass(eq=False)
class Refusal(Exception):
    """An S3 server's answer to a request that it did not carry out.

    Attributes
    ----------
    status, code, message
        Of HTTP, and of the XML document; `code` is empty where there is none.
    region
        Where the server says that the bucket lies.
    retry_after_s
        How long it asks us to wait.
    """

    status: int
    code: str = ""
    message: str = ""
    region: str | None = None
    retry_after_s: float | None = None

    @property
    def came_late(self) -> bool:
        """Whether the request's signature had ended; MinIO, Ceph and SeaweedFS word it as AWS."""
        return "request has expired" in self.message.lower()

    def __str__(self) -> str:
        return " ".join(part for part in (f"status {self.status}", self.code) if part)


@dataclass(frozen=True, slots=True)
class _Meaning:
    kind: Kind
    why: str
    advice: str | None = None


_K = Kind
_CLOCK = _Meaning(
    _K.DENIED,
    "this machine's clock is wrong",
    "Set the clock (the server's differs), then run again",
)
_EXPIRED = _Meaning(
    _K.DENIED, "the credentials have expired", "Renew the credentials, then run again"
)
_BLOCKED = _Meaning(_K.DENIED, "the account is blocked", "Ask the provider of the object store")
_REGION = _Meaning(_K.REFUSED, "the bucket lies in another region")
_ARCHIVED = _Meaning(
    _K.REFUSED,
    "the object lies in an archive tier (Glacier, Deep Archive)",
    "Ask the bucket's owner to restore it, then run again",
)
_PAYS = _Meaning(
    _K.DENIED,
    "the bucket lets requesters pay, which macroscope does not",
    "Ask the owner for another way, or copy the data into a bucket of your own",
)
_ENCRYPTED = _Meaning(
    _K.DENIED,
    "the key that encrypts the object cannot be used",
    "Ask for permission to use the bucket's KMS key",
)
_FULL = _Meaning(_K.FULL, "the object store is full")
_PASSING = _Meaning(_K.PASSING, "the object store failed for now")
_DAMAGED = _Meaning(_K.PASSING, "the bytes were damaged on the way")
_UNSUPPORTED = _Meaning(
    _K.REFUSED,
    "the server does not support this request",
    "Check that the server is an S3 store that supports this request",
)

_MEANINGS = (
    (
        _Meaning(_K.DENIED, "the server does not know the access key", "Correct the access key"),
        "InvalidAccessKeyId",
    ),
    (
        _Meaning(_K.DENIED, "the secret key is wrong", "Correct the secret key"),
        "SignatureDoesNotMatch",
    ),
    (
        _Meaning(_K.DENIED, "the session token is not valid", "Renew the credentials"),
        "InvalidToken",
    ),
    (_EXPIRED, "ExpiredToken ExpiredTokenException TokenRefreshRequired"),
    (_CLOCK, "RequestTimeTooSkewed RequestExpired"),
    (_BLOCKED, "AccountProblem AllAccessDisabled InvalidPayer NotSignedUp UserSuspended"),
    (
        _REGION,
        "AuthorizationHeaderMalformed AuthorizationQueryParametersError "
        "IllegalLocationConstraintException PermanentRedirect TemporaryRedirect Redirect",
    ),
    (_ARCHIVED, "InvalidObjectState ObjectNotInActiveTierError"),
    (_PAYS, "UserProjectMissing RequesterPaysRequired"),
    (
        _ENCRYPTED,
        "KMS.DisabledException KMS.InvalidStateException KMS.KMSInvalidStateException "
        "KMS.NotFoundException KMSAccessDenied KMS.AccessDeniedException",
    ),
    (
        _FULL,
        "QuotaExceeded QuotaExceededException InsufficientStorage InsufficientCapacity StorageFull "
        "XMinioStorageFull XMinioAdminBucketQuotaExceeded EntityTooLargeQuota",
    ),
    (_DAMAGED, "BadDigest XAmzContentSHA256Mismatch InvalidDigest IncompleteBody"),
    (
        _PASSING,
        "RequestTimeout SlowDown SlowDownRead SlowDownWrite Throttling ThrottlingException "
        "TooManyRequests BandwidthLimitExceeded InternalError ServiceUnavailable OperationAborted "
        "ConditionalRequestConflict",
    ),
    (
        _Meaning(_K.NO_BUCKET, "there is no such bucket", "Check bucket name, region and endpoint"),
        "NoSuchBucket",
    ),
    (_Meaning(_K.NO_OBJECT, "there is no such object"), "NoSuchKey"),
    (_Meaning(_K.THERE_ALREADY, "something else is there already"), "PreconditionFailed"),
    (_Meaning(_K.BEYOND_END, "the object ends before that range"), "InvalidRange"),
    (_UNSUPPORTED, "NotImplemented MethodNotAllowed"),
)
_TABLE = {code: meant for meant, codes in _MEANINGS for code in codes.split()}


def meaning(refusal: Refusal) -> _Meaning:
    """What a refusal means: by its code, else by words of its message, else by its status."""
    status, code, said = refusal.status, refusal.code, refusal.message.lower()
    if "requester pays" in said:
        return _PAYS
    if refusal.came_late:
        return _CLOCK
    if "no space left" in said or status == 507:
        return _FULL
    if code in _TABLE:
        return _TABLE[code]
    if 300 <= status < 400:
        return _REGION
    if status in _TRANSIENT or (status >= 500 and status != 501):
        return _PASSING
    if status == 412:
        return _TABLE["PreconditionFailed"]
    if status == 416:
        return _TABLE["InvalidRange"]
    if status == 404:
        return _Meaning(_K.NO_OBJECT, "the server does not have this")
    if status in {401, 403, 407} or code == "AccessDenied":
        return _Meaning(_K.DENIED, "the object store refuses access")
    if status == 501:
        return _UNSUPPORTED
    return _Meaning(_K.REFUSED, "the object store calls the request wrong")


def source_error(refusal: Refusal, location: str) -> MacroscopeError:
    """The error for a refusal while an archive was read."""
    meant = meaning(refusal)
    text = f"{_why(meant, refusal)} ({refusal}){_said(refusal)}"
    if meant.kind is Kind.PASSING:
        error = TransportError(text, location=location)
        return ask_to_wait(error, refusal.retry_after_s)
    if meant.kind is Kind.DENIED:
        return AccessDeniedError(text, location=location, advice=meant.advice)
    if meant.kind is Kind.NO_OBJECT and not refusal.code:
        return NotFoundError(
            f"the server does not have this, and does not say so as an object store would "
            f"({refusal})",
            location=location,
            advice="Check the endpoint: it may not be an object store",
        )
    if meant.kind is Kind.THERE_ALREADY:  # the condition was an entity tag
        return SourceChangedError(
            f"the object changed in the store while it was read ({refusal})", location=location
        )
    if meant.kind in {Kind.NO_BUCKET, Kind.NO_OBJECT}:
        return NotFoundError(text, location=location, advice=meant.advice)
    return RequestRefusedError(text, location=location, advice=_advice(meant, refusal, "s3_region"))


def store_error(refusal: Refusal, location: str, doing: str) -> MacroscopeError:
    """The error for a refusal while a store was used; `doing` is ``write``, ``read``, ..."""
    meant = meaning(refusal)
    text = f"cannot {doing}: {_why(meant, refusal)} ({refusal}){_said(refusal)}"
    if meant.kind is Kind.PASSING:
        error = DestinationError(
            text, location=location, advice="Run again: finished work is kept", retryable=True
        )
        return ask_to_wait(error, refusal.retry_after_s)
    if meant.kind is Kind.DENIED:
        permission = f"Give these credentials permission to {doing} there, or use others"
        return AccessDeniedError(text, location=location, advice=meant.advice or permission)
    if meant.kind is Kind.FULL:
        return DestinationFullError(text, location=location)
    if meant.kind is Kind.NO_BUCKET:
        return DestinationError(
            f"cannot {doing}: the bucket does not exist",
            location=location,
            advice="Make the bucket, or correct its name or the endpoint URL",
        )
    if meant.kind is Kind.NO_OBJECT:
        return NotFoundError("there is no such object in the store", location=location)
    if meant.kind is Kind.THERE_ALREADY:
        return AlreadyExistsError(meant.why, location=location)
    if meant.kind is Kind.BEYOND_END:
        return RequestRefusedError(meant.why, location=location)
    return DestinationError(text, location=location, advice=_advice(meant, refusal, "dest_region"))


def way_error(error: TransportError, location: str, doing: str) -> MacroscopeError:
    """The error for a store to which the way broke, or that sent what makes no sense."""
    return DestinationError(
        f"cannot {doing}: {error.message}",
        location=location,
        advice=error.advice.replace("SSL_CERT_FILE", "dest_ca_bundle or SSL_CERT_FILE"),
        retryable=error.retryable,
    )


def _why(meant: _Meaning, refusal: Refusal) -> str:
    if meant is _REGION and refusal.region:
        return f"{meant.why}, {refusal.region}"
    return meant.why


def _advice(meant: _Meaning, refusal: Refusal, setting: str) -> str | None:
    if meant is _REGION:
        return f"Set {setting} to {refusal.region or 'where the bucket lies'}"
    return meant.advice


def _said(refusal: Refusal) -> str:
    """What the server says besides its code, cleaned and cut."""
    said = " ".join(redact_text(refusal.message).split())[:_LONGEST_SAID].rstrip(".")
    return f": {said}" if said else ""


# --- reading a refusal ----------------------------------------------------------------------

_ELEMENT = {
    name: re.compile(f"<{name}>([^<]{{1,1000}})</{name}>") for name in ("Code", "Message", "Region")
}
_CODE = re.compile(r"[A-Za-z0-9.]{1,100}")


def read_refusal(status: int, headers: Mapping[str, str], body: bytes) -> Refusal:
    """A refusal from the answer that it came in; `body` is its beginning."""
    text = body.decode("utf-8", "replace")

    def element(name: str) -> str:
        found = _ELEMENT[name].search(text) if "<Code>" in text else None
        return html.unescape(found[1]).strip() if found else ""

    code = element("Code")
    return Refusal(
        status,
        code if _CODE.fullmatch(code) else "",
        element("Message"),
        headers.get("x-amz-bucket-region") or element("Region") or None,
        parse_retry_after(headers.get("Retry-After")),
    )
