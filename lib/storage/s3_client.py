"""Building the S3 client: address, credentials, certificates."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import obstore.store

from lib.errors import AccessDeniedError, ConfigError
from lib.storage.keys import check_prefix
from lib.storage.settings import StoreSettings
from lib.transport.s3.address import S3Access

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config, S3Credential

# Amazon S3, "Bucket naming rules" (general purpose buckets).
_BUCKET = re.compile(r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")


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
            "the address of a store must not carry credentials",
            location=f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}",
            advice="Set dest_key and dest_secret, or an AWS profile (dest_profile)",
        )
    if parts.scheme != "s3" or not _BUCKET.match(parts.netloc) or parts.query or parts.fragment:
        raise ConfigError(
            "the address of a bucket has the form s3://bucket or s3://bucket/prefix",
            location=f"{parts.scheme}://{parts.netloc}{parts.path}",
        )
    return parts.netloc, check_prefix(parts.path.strip("/"))


def server_url(endpoint_url: str) -> str:
    """Complete ``host:port`` with a scheme: http on the loopback, https elsewhere."""
    if "://" in endpoint_url:
        return endpoint_url.rstrip("/")
    host = urlsplit(f"//{endpoint_url}").hostname or ""
    loopback = host in ("localhost", "::1") or host.startswith("127.")
    return f"{'http' if loopback else 'https'}://{endpoint_url}".rstrip("/")


def access_of(settings: StoreSettings) -> S3Access:
    """How requests of our own reach the server, and as whom."""
    secrets = {
        name: value.get_secret_value()
        for name in ("key", "secret", "token")
        if (value := getattr(settings, name)) is not None
    }
    return S3Access(
        endpoint_url=endpoint_of(settings),
        region=region_of(settings),
        anonymous=settings.anonymous,
        profile=settings.profile,
        addressing_style=settings.addressing_style,
        ca_bundle=certificates_of(settings),
        **secrets,
    )


@dataclass(frozen=True)
class _Fixed:
    """Explicit credentials. A provider, so that no AWS_* variable mixes with them."""

    settings: StoreSettings

    def __call__(self) -> S3Credential:
        given = self.settings
        assert given.key is not None
        assert given.secret is not None
        return {
            "access_key_id": given.key.get_secret_value(),
            "secret_access_key": given.secret.get_secret_value(),
            "token": given.token.get_secret_value() if given.token else None,
            "expires_at": None,
        }


def aws_session(settings: StoreSettings) -> Any:
    """A boto3 session with the credentials of `settings`.

    Raises
    ------
    ConfigError
        The profile does not exist.
    """
    import boto3  # type: ignore[import-untyped]  # slow to import; folders never need it
    import botocore.exceptions  # type: ignore[import-untyped]

    explicit: dict[str, str | None] = {}
    if settings.key is not None:
        fixed = _Fixed(settings)()
        explicit = {
            "aws_access_key_id": fixed["access_key_id"],
            "aws_secret_access_key": fixed["secret_access_key"],
            "aws_session_token": fixed.get("token"),
        }
    try:
        return boto3.Session(profile_name=settings.profile, region_name=settings.region, **explicit)
    except botocore.exceptions.ProfileNotFound as error:
        raise ConfigError(
            f"the AWS configuration has no profile {settings.profile!r}", location="profile"
        ) from error


def endpoint_of(settings: StoreSettings) -> str | None:
    """The server's address; None is AWS itself."""
    given = (
        settings.endpoint_url
        or os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
    )
    return server_url(given) if given else None


def certificates_of(settings: StoreSettings) -> str | None:
    """The PEM file of further authorities, checked to be readable."""
    path = settings.ca_bundle or os.environ.get("AWS_CA_BUNDLE") or None
    if path is not None and not os.access(path, os.R_OK):
        raise ConfigError("the CA bundle cannot be read", location=path)
    return path


def region_of(settings: StoreSettings) -> str:
    """The region that requests are signed for."""
    given = settings.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if given:
        return given
    if settings.anonymous or settings.key is not None:
        return "us-east-1"
    return aws_session(settings).region_name or "us-east-1"


def make_client(bucket: str, prefix: str, settings: StoreSettings) -> obstore.store.S3Store:
    """Build the obstore client, which reads. It never tries twice by itself: `S3Objects` does.

    Raises
    ------
    ConfigError
        Profile or CA bundle cannot be used.
    AccessDeniedError
        The AWS chain has no credentials.
    """
    endpoint = endpoint_of(settings)
    virtual = settings.addressing_style == "virtual" or (
        settings.addressing_style == "auto" and endpoint is None
    )
    options: ClientConfig = {
        "timeout": timedelta(seconds=settings.timeout_seconds),
        "connect_timeout": timedelta(seconds=min(10.0, settings.timeout_seconds)),
        "allow_http": endpoint is not None and endpoint.startswith("http://"),
    }
    certificates = certificates_of(settings)
    if certificates is not None:
        with open(certificates, encoding="ascii", errors="replace") as file:
            options["root_certificate"] = file.read()
    config: S3Config = {
        "region": region_of(settings),
        "virtual_hosted_style_request": virtual,
        "skip_signature": settings.anonymous,
    }
    if endpoint is not None:
        scheme, _, host = endpoint.partition("://")
        config["endpoint"] = f"{scheme}://{bucket}.{host}" if virtual else endpoint
    return obstore.store.S3Store(
        bucket,
        prefix=prefix or None,
        config=config,
        client_options=options,
        retry_config={"max_retries": 0},
        credential_provider=None if settings.anonymous else _credentials(settings),
    )


def _credentials(settings: StoreSettings) -> Any:
    if settings.key is not None:
        return _Fixed(settings)
    from obstore.auth.boto3 import Boto3CredentialProvider

    session = aws_session(settings)
    if session.get_credentials() is None:
        raise AccessDeniedError(
            "no credentials for the object store were found",
            location=endpoint_of(settings) or "AWS",
            advice="Set dest_key and dest_secret, an AWS profile (dest_profile), or a role for "
            "this machine or pod",
        )
    return Boto3CredentialProvider(session)
