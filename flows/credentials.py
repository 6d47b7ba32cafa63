"""Credentials of the destination from a Prefect block."""

from __future__ import annotations

from typing import Any

from prefect.blocks.core import Block

from lib.errors import ConfigError


def from_block(reference: str) -> dict[str, Any]:
    """Settings of the store from ``aws-credentials/NAME`` or ``s3-bucket/NAME``.

    Raises
    ------
    ConfigError
        There is no such block, or it is of another type.
    """
    import prefect_aws  # noqa: F401  registers the block types

    try:
        block: Any = Block.load(reference)
    except ValueError as error:
        raise ConfigError(
            f"the Prefect block {reference} cannot be loaded: {error}",
            location="dest_credentials_block",
            advice="Create it in the Prefect UI, or name another",
        ) from None
    credentials = getattr(block, "credentials", block)
    found = {
        "key": credentials.aws_access_key_id,
        "secret": credentials.aws_secret_access_key,
        "token": credentials.aws_session_token,
        "profile": credentials.profile_name,
        "region": credentials.region_name,
        "endpoint_url": credentials.aws_client_parameters.endpoint_url,
    }
    return {name: value for name, value in found.items() if value is not None}
