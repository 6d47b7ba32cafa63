"""From a store's settings to the client of its server."""

from __future__ import annotations

import os

from lib.storage.settings import StoreSettings
from lib.transport.counters import ServiceCounters
from lib.transport.limits import Limits
from lib.transport.s3.address import S3Access, server_url
from lib.transport.s3.requests import S3Requests

_CONNECTIONS = 32


def endpoint_of(settings: StoreSettings) -> str | None:
    """The server's address; None is AWS itself."""
    given = (
        settings.endpoint_url
        or os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
    )
    return server_url(given) if given else None


def access_of(settings: StoreSettings) -> S3Access:
    """Which server, and as whom."""
    secrets = {
        name: value.get_secret_value()
        for name in ("key", "secret", "token")
        if (value := getattr(settings, name)) is not None
    }
    return S3Access(
        endpoint_url=endpoint_of(settings),
        region=settings.region,
        anonymous=settings.anonymous,
        profile=settings.profile,
        addressing_style=settings.addressing_style,
        ca_bundle=settings.ca_bundle,
        **secrets,
    )


def limits_of(settings: StoreSettings) -> Limits:
    """How patient a store's requests are."""
    seconds = settings.timeout_seconds
    return Limits(
        _CONNECTIONS,
        connect_timeout_s=min(10.0, seconds),
        read_timeout_s=seconds,
        tries=settings.attempts,
        first_backoff_s=0.2,
        document_s=max(600.0, 2 * seconds),
    )


def requests_of(bucket: str, settings: StoreSettings) -> S3Requests:
    """The client of a store, which a stop does not cut short.

    Raises
    ------
    ConfigError, AccessDeniedError
        Profile or CA bundle cannot be used; there are no credentials.
    """
    return S3Requests(
        None,
        bucket,
        access_of(settings),
        limits_of(settings),
        None,
        ServiceCounters(),
        outlives_stop=True,
    )
