"""What an S3 server or the way to it says, turned into named errors.

obstore hands on the server's answer as text only: the status and the XML's ``Code`` are read from
it. Codes: Amazon S3 API Reference, "Error responses".
"""

from __future__ import annotations

import re

from obstore.exceptions import AlreadyExistsError as AlreadyThere
from obstore.exceptions import PreconditionError

from lib.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    DestinationError,
    DestinationFullError,
    MacroscopeError,
    NotFoundError,
    RequestRefusedError,
)

_CODE = re.compile(r"<Code>([A-Za-z0-9]+)</Code>|\(code: ([A-Za-z0-9]+)\)")
_STATUS = re.compile(r"status code: (\d{3})")

_CREDENTIALS = {
    "InvalidAccessKeyId": ("the server does not know the access key", "Correct the access key"),
    "SignatureDoesNotMatch": ("the secret key is wrong", "Correct the secret key"),
    "ExpiredToken": ("the credentials have expired", "Renew the credentials, then run again"),
    "ExpiredTokenException": ("the credentials have expired", "Renew the credentials"),
    "TokenRefreshRequired": ("the credentials have expired", "Renew the credentials"),
    "InvalidToken": ("the session token is not valid", "Renew the credentials"),
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "Set the clock, then run again"),
    "RequestExpired": ("this machine's clock is wrong", "Set the clock, then run again"),
    "AccountProblem": ("the account is blocked", "Ask the provider of the object store"),
    "AllAccessDisabled": ("the account is blocked", "Ask the provider of the object store"),
}
_FULL = {
    "QuotaExceeded",
    "QuotaExceededException",
    "InsufficientStorage",
    "InsufficientCapacity",
    "StorageFull",
    "XMinioStorageFull",
    "XMinioAdminBucketQuotaExceeded",
    "EntityTooLargeQuota",
}
_REGION = {
    "AuthorizationHeaderMalformed",
    "PermanentRedirect",
    "IllegalLocationConstraintException",
}
# Damaged on the way, or refused for now: the same request may well succeed.
_PASSING = {
    "BadDigest",
    "XAmzContentSHA256Mismatch",
    "InvalidDigest",
    "IncompleteBody",
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "InternalError",
    "ServiceUnavailable",
    "OperationAborted",
    "ConditionalRequestConflict",
}
_WAY = (  # found in the text of connection errors, most telling first
    *(  # as rustls (obstore) and OpenSSL (urllib3) put it
        (
            sign,
            "the server's TLS certificate is not trusted",
            "Name the authority's PEM file in SSL_CERT_FILE or dest_ca_bundle",
            False,
        )
        for sign in ("InvalidCertificate", "CERTIFICATE_VERIFY_FAILED", "certificate verify failed")
    ),
    *(
        (
            sign,
            "the server's name cannot be resolved",
            "Check the endpoint URL and the network",
            True,
        )
        for sign in ("dns error", "Failed to resolve")
    ),
    *(
        (
            sign,
            "the server refuses connections",
            "Check the endpoint URL, and that the server is up",
            True,
        )
        for sign in ("ConnectionRefused", "Connection refused")
    ),
    ("timed out", "the server did not answer in time", "Check the network, then run again", True),
    ("TimedOut", "the server did not answer in time", "Check the network, then run again", True),
)


def named_s3_error(error: Exception, location: str, doing: str) -> MacroscopeError:
    """Return the named error for `error`, raised while `doing` (``write``, ``read``, ...)."""
    text = str(error)
    match = _CODE.search(text)
    code = (match[1] or match[2]) if match else ""
    found = _STATUS.search(text)
    status = int(found[1]) if found else 0
    if code in _CREDENTIALS:
        why, advice = _CREDENTIALS[code]
        return AccessDeniedError(f"cannot {doing}: {why}", location=location, advice=advice)
    if code in _FULL or status == 507 or "no space left" in text.lower():
        return DestinationFullError(f"cannot {doing}: the object store is full", location=location)
    if code == "NoSuchBucket":
        return no_bucket(location, doing)
    if code in _REGION or "incorrectly configured region" in text:
        return DestinationError(
            f"cannot {doing}: the bucket lies in another region",
            location=location,
            advice="Set dest_region to where the bucket lies",
        )
    if code in _PASSING or status in (408, 425, 429) or (status >= 500 and status != 501):
        return _for_now(f"the server answered {_answer(status, code)}", location, doing)
    # After the passing ones: obstore takes every 409 for "exists already".
    if code == "PreconditionFailed" or isinstance(error, AlreadyThere | PreconditionError):
        return AlreadyExistsError("something else is there already", location=location)
    if isinstance(error, FileNotFoundError) or status == 404:
        return NotFoundError("there is no such object in the store", location=location)
    if status in (401, 403) or code == "AccessDenied":
        return AccessDeniedError(
            f"cannot {doing}: the object store denies it ({_answer(status, code)})",
            location=location,
            advice=f"Give these credentials permission to {doing} there, or use others",
        )
    if status == 416:
        return RequestRefusedError("the object ends before that range", location=location)
    if status or code:
        return DestinationError(
            f"cannot {doing}: the server answered {_answer(status, code)}",
            location=location,
            advice="Check that the server is an S3 store that supports this request",
        )
    return _on_the_way(text, location, doing)


def no_bucket(location: str, doing: str) -> DestinationError:
    """The error for a bucket that is not there."""
    return DestinationError(
        f"cannot {doing}: the bucket does not exist",
        location=location,
        advice="Make the bucket, or correct its name or the endpoint URL",
    )


def _on_the_way(text: str, location: str, doing: str) -> MacroscopeError:
    if "CredentialsError" in text or "credential" in text.lower():
        return AccessDeniedError(
            f"cannot {doing}: the credentials could not be renewed",
            location=location,
            advice="Log in again, or check the role of this machine or pod",
        )
    for sign, why, advice, retryable in _WAY:
        if sign in text:
            return DestinationError(
                f"cannot {doing}: {why}", location=location, advice=advice, retryable=retryable
            )
    return _for_now("the connection broke", location, doing)


def _for_now(why: str, location: str, doing: str) -> DestinationError:
    return DestinationError(
        f"cannot {doing}: {why}",
        location=location,
        advice="Run again: finished work is kept",
        retryable=True,
    )


def _answer(status: int, code: str) -> str:
    return " ".join(part for part in (str(status) if status else "", code) if part)
