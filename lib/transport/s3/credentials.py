"""Who asks: credentials that are given, or those of the AWS chain, for botocore's signatures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lib.errors import AccessDeniedError, ConfigError
from lib.transport.s3.address import DEFAULT_REGION, S3Access, region_in_environment

if TYPE_CHECKING:
    from botocore.credentials import Credentials  # type: ignore[import-untyped]


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
    given = access.region or region_in_environment()
    if given:
        return given
    if access.anonymous or access.key is not None:
        return DEFAULT_REGION
    return aws_session(access).region_name or DEFAULT_REGION
