"""How to reach the destination: from the settings, and from a Prefect block they may name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib.config.manager import LoadedSettings
from lib.errors import ConfigError
from lib.storage.base import StoreSettings


def store_settings(loaded: LoadedSettings) -> StoreSettings:
    """How to reach the destination, from the settings (and a Prefect block where one is named)."""
    settings = loaded.settings
    given: dict[str, Any] = {
        name.removeprefix("dest_"): getattr(settings, name)
        for name in type(settings).model_fields
        if name.startswith("dest_") and name != "dest_credentials_block"
    }
    given = {name: value for name, value in given.items() if value is not None}
    if settings.dest_credentials_block:
        given = from_block(settings.dest_credentials_block) | given
    return StoreSettings(**given)


def from_block(reference: str) -> dict[str, Any]:
    """Settings of the store from ``aws-credentials/NAME`` or ``s3-bucket/NAME``.

    Raises
    ------
    ConfigError
        There is no such block, or it is of another type.
    """
    import prefect_aws  # noqa: F401  registers the block types; slow to import, as Prefect is
    from prefect.blocks.core import Block

    try:
        block: Any = Block.load(reference)
    except ValueError as error:
        raise ConfigError(
            f"the Prefect block {reference} cannot be loaded: {error}",
            location="dest_credentials_block",
            advice="Create it on the Prefect server that PREFECT_API_URL names, or name another",
        ) from None
    credentials = getattr(block, "credentials", block)
    client = credentials.aws_client_parameters
    if getattr(credentials, "assume_role_arn", None):
        raise ConfigError(
            f"the Prefect block {reference} assumes a role, which is not done here",
            location="dest_credentials_block",
            advice="Name the role in an AWS profile (role_arn) and set dest_profile",
        )
    # A verify=False is not taken over: what is asked for is a store, not anybody's store.
    certificates = client.verify if isinstance(client.verify, Path) else client.verify_cert_path
    found = {
        **_signing(credentials),
        "region": credentials.region_name,
        "endpoint_url": client.endpoint_url,
        "ca_bundle": str(certificates) if certificates else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _signing(credentials: Any) -> dict[str, Any]:
    """Keys or profile, of credentials of either kind; none at all means AWS's usual chain."""
    if hasattr(credentials, "minio_root_user"):
        return {"key": credentials.minio_root_user, "secret": credentials.minio_root_password}
    return {
        "key": credentials.aws_access_key_id,
        "secret": credentials.aws_secret_access_key,
        "token": credentials.aws_session_token,
        "profile": credentials.profile_name,
    }
