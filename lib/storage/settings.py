"""How to reach a store, as plain data that travels to Dask workers."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator


class StoreSettings(BaseModel):
    """Everything that a store's address leaves open.

    Picklable, so that a worker on another host opens the same store; secrets are left out of every
    text and JSON form.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    durable: bool = Field(
        default=True,
        description="Folders: force a volume to the disk before its record says complete.",
    )
    endpoint_url: str | None = Field(
        default=None,
        description="S3 server; None is AWS (or AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL). host:port "
        "without a scheme is https, or http on the loopback.",
    )
    region: str | None = Field(
        default=None, description="None: what the AWS chain says, else us-east-1."
    )
    key: SecretStr | None = Field(default=None, description="Access key; None is the AWS chain.")
    secret: SecretStr | None = Field(default=None, description="Secret key.")
    token: SecretStr | None = Field(
        default=None, description="Session token of temporary credentials."
    )
    profile: str | None = Field(default=None, description="Profile of the AWS configuration files.")
    anonymous: bool = Field(default=False, description="Sign nothing; for reading public buckets.")
    addressing_style: Literal["auto", "path", "virtual"] = Field(
        default="auto",
        description="auto: virtual-host style for AWS, path style for other servers.",
    )
    ca_bundle: str | None = Field(
        default=None, description="PEM file of further certificate authorities."
    )
    timeout_seconds: float = Field(
        default=300.0, gt=0, description="Longest wait for the server's next bytes."
    )
    attempts: int = Field(default=6, ge=1, description="Tries of one request before it fails.")
    lease_seconds: float = Field(
        default=60.0, gt=0, description="How long a killed run's lease on a volume outlives it."
    )
    multipart_above: int = Field(
        default=512 * 2**20,
        ge=5 * 2**20,
        le=5 * 2**30,
        description="Bytes above which an object is uploaded in parts (S3 takes at most 5 GiB).",
    )

    @model_validator(mode="after")
    def _one_way_to_sign(self) -> StoreSettings:
        if (self.key is None) != (self.secret is None):
            raise ValueError("key and secret belong together; one of them is missing")
        if self.anonymous and self.key is not None:
            raise ValueError("anonymous contradicts key and secret; set one of them")
        return self
