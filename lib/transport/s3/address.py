"""Where a bucket is and who asks: ``s3://`` addresses, servers, regions."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote, urlsplit

from lib.errors import ConfigError, RequestRefusedError
from lib.transport.environment import is_loopback

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
    prefix = parts.path.strip("/")
    climbs = prefix and any(part in {"", ".", ".."} for part in prefix.split("/"))
    if (
        parts.scheme != "s3"
        or not _BUCKET.match(parts.netloc)
        or parts.query
        or parts.fragment
        or climbs
    ):
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


def region_in_environment() -> str | None:
    """The region that AWS's variables name, if they do."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None


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
