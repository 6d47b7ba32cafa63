"""Where a bucket is and who asks: ``s3://`` addresses, servers, regions, signatures.

Signatures are AWS Signature Version 4, dated by the server's clock. A request that reads is signed
in its header, for a quarter of an hour. One that writes is signed in its address, to expire when
the writer's lease does: the server refuses what arrives later (Amazon S3 User Guide, "Sharing
objects with presigned URLs": checked when the request is made).
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit

from lib.errors import AccessDeniedError, ConfigError, RequestRefusedError
from lib.transport.environment import is_loopback
from lib.transport.retry import http_date

if TYPE_CHECKING:
    from botocore.credentials import Credentials  # type: ignore[import-untyped]


# Amazon S3, "Bucket naming rules" (general purpose buckets).
_BUCKET = re.compile(r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class S3Access:
    """How to reach a bucket, and as whom.

    Attributes
    ----------
    endpoint_url
        Server; None is AWS.
    region
        That requests are signed for; None is what the AWS chain says, else us-east-1.
    anonymous
        Sign nothing; else `key`, `secret` and perhaps `token`, or what the AWS chain of
        environment, profile and role offers.
    addressing_style
        ``auto`` is virtual-host style for AWS and path style for other servers.
    ca_bundle
        PEM file of further certificate authorities.
    """

    endpoint_url: str | None = None
    region: str | None = None
    anonymous: bool = True
    key: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    profile: str | None = None
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    ca_bundle: str | None = None


def parse_uri(uri: str) -> tuple[str, str]:
    """Split ``s3://bucket/some/prefix`` into bucket and prefix.

    Raises
    ------
    ConfigError
        The address is of another form, or carries credentials (which are not repeated).
    """
    parts = urlsplit(uri)
    if "@" in parts.netloc:
        raise ConfigError(
            "the address of a bucket must not carry credentials",
            location=f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}",
            advice="Set dest_key and dest_secret (of a source: s3_key and s3_secret), or an AWS "
            "profile",
        )
    if parts.scheme == "s3" and not _BUCKET.match(parts.netloc):
        raise ConfigError(
            f"{parts.netloc!r} is no name of a bucket"
            if parts.netloc
            else "the address names no bucket",
            location=f"s3://{parts.netloc}{parts.path}",
            advice="Write s3://bucket or s3://bucket/prefix; a bucket's name has 3 to 63 small "
            "letters, digits, hyphens and dots",
        )
    prefix = parts.path.strip("/")
    climbs = prefix and any(part in {"", ".", ".."} for part in prefix.split("/"))
    if parts.scheme != "s3" or parts.query or parts.fragment or climbs:
        raise ConfigError(
            "the address of a bucket has the form s3://bucket or s3://bucket/prefix",
            location=f"{parts.scheme}://{parts.netloc}{parts.path}",
        )
    return parts.netloc, prefix


def server_url(endpoint_url: str) -> str:
    """Complete ``host:port`` with a scheme: http on the loopback, https elsewhere."""
    if "://" in endpoint_url:
        return endpoint_url.rstrip("/")
    host = urlsplit(f"//{endpoint_url}").hostname or ""
    return f"{'http' if is_loopback(host) else 'https'}://{endpoint_url}".rstrip("/")


def bucket_url(bucket: str, access: S3Access, region: str) -> str:
    """The address that keys are appended to, without a trailing slash."""
    style = access.addressing_style
    if access.endpoint_url is None:
        # a certificate for *.s3.region.amazonaws.com holds for one label only
        path_style = style == "path" or "." in bucket
        host = f"s3.{region}.amazonaws.com"
        return f"https://{host}/{bucket}" if path_style else f"https://{bucket}.{host}"
    scheme, _, host = server_url(access.endpoint_url).partition("://")
    return f"{scheme}://{bucket}.{host}" if style == "virtual" else f"{scheme}://{host}/{bucket}"


def check_object_key(key: str) -> str:
    """Return `key` if it may be asked for, quoted as it goes into an address.

    Raises
    ------
    RequestRefusedError
        It has an empty part, ``.`` or ``..``, which servers and proxies read differently.
    """
    if any(part in {"", ".", ".."} for part in key.split("/")):
        raise RequestRefusedError("this is not the key of an object", location=key)
    return quote(key, safe="/~")


def aws_session(access: S3Access) -> Any:
    """A boto3 session with the credentials of `access`.

    Raises
    ------
    ConfigError
        The profile does not exist.
    """
    import boto3  # type: ignore[import-untyped]  # slow to import; public buckets never need it
    import botocore.exceptions  # type: ignore[import-untyped]

    given: dict[str, str | None] = {}
    if access.key is not None:
        given = {
            "aws_access_key_id": access.key,
            "aws_secret_access_key": access.secret,
            "aws_session_token": access.token,
        }
    try:
        return boto3.Session(profile_name=access.profile, region_name=access.region, **given)
    except botocore.exceptions.ProfileNotFound as error:
        raise ConfigError(
            f"the AWS configuration has no profile {access.profile!r}", location="profile"
        ) from error


def credentials_of(access: S3Access) -> Credentials | None:
    """Credentials that renew themselves where they end; None signs nothing.

    Raises
    ------
    AccessDeniedError
        The AWS chain has none.
    ConfigError
        The profile does not exist.
    """
    if access.anonymous:
        return None
    if access.key is not None:  # not through a session: no variable of AWS's mixes with them
        from botocore.credentials import Credentials

        return Credentials(access.key, access.secret, access.token)
    found = aws_session(access).get_credentials()
    if found is None:
        raise AccessDeniedError(
            "no credentials for the object store were found",
            location=access.endpoint_url or "AWS",
            advice="Set dest_key and dest_secret (of a source: s3_key and s3_secret), an AWS "
            "profile, or a role for this machine or pod",
        )
    return found


def region_of(access: S3Access) -> str:
    """The region that requests are signed for."""
    for given in (access.region, *map(os.environ.get, ("AWS_REGION", "AWS_DEFAULT_REGION"))):
        if given:
            return given
    if access.anonymous or access.key is not None:
        return DEFAULT_REGION
    return aws_session(access).region_name or DEFAULT_REGION


UNLEASED_SECONDS = 900.0  # as long as a signature in a header is good


class Signer:
    """Signs for one bucket, and knows what its server's clock says. Thread-safe.

    Parameters
    ----------
    credentials
        botocore's; None signs nothing.
    region
        That is signed for.
    """

    def __init__(self, credentials: Any, region: str) -> None:
        self._credentials, self._region = credentials, region
        self._noted: str | None = None
        self._ahead_s = 0.0  # of this machine's clock to the server's

    def now(self) -> datetime:
        """The time by the server's clock, to about a second, once it has answered."""
        return datetime.fromtimestamp(time.time() - self._ahead_s, UTC)

    def note_time(self, date: str | None) -> None:
        """Learn the server's time from the ``Date`` of an answer."""
        if date == self._noted:  # as many answers of the same second say
            return
        self._noted = date
        moment = http_date(date)
        if moment is not None:
            self._ahead_s = time.time() - moment.timestamp()

    def in_header(self, method: str, url: str, headers: Mapping[str, str]) -> dict[str, str]:
        """Headers with a signature of a request without a body."""
        if self._credentials is None:
            return dict(headers)
        from botocore.auth import S3SigV4Auth  # type: ignore[import-untyped]

        auth = S3SigV4Auth(self._frozen(), "s3", self._region)
        return dict(_signed(auth, method, url, headers, self.now()).headers.items())

    def in_address(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        moment: datetime,
        seconds: float,
    ) -> str:
        """The address with a signature that ends after `seconds`, or up to two seconds later.

        Later by that much is safe: whoever takes a lease over waits longer, and still has all of
        its work to do. Earlier would refuse the last requests of a short lease.
        """
        if self._credentials is None:
            return url
        from botocore.auth import S3SigV4QueryAuth

        expires = max(1, math.ceil(seconds) + 1)
        auth = S3SigV4QueryAuth(self._frozen(), "s3", self._region, expires=expires)
        return str(_signed(auth, method, url, headers, moment).url)

    def _frozen(self) -> Any:
        from botocore.exceptions import BotoCoreError

        try:
            return self._credentials.get_frozen_credentials()
        except BotoCoreError as error:
            raise AccessDeniedError(
                "the credentials could not be renewed",
                advice="Log in again, or check the role of this machine or pod",
            ) from error


def _signed(auth: Any, method: str, url: str, headers: Mapping[str, str], moment: datetime) -> Any:
    """botocore's ``add_auth``, which dates by this machine's clock, with a moment that is given."""
    from botocore.auth import SIGV4_TIMESTAMP
    from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]

    request = AWSRequest(method, url, headers=dict(headers))
    request.context["timestamp"] = moment.strftime(SIGV4_TIMESTAMP)
    auth._modify_request_before_signing(request)
    to_sign = auth.string_to_sign(request, auth.canonical_request(request))
    auth._inject_signature_to_request(request, auth.signature(to_sign, request))
    return request
