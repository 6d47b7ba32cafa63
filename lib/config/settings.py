"""Everything that can be set, as one model: every field with its type, default and description."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    SerializeAsAny,
    field_validator,
    model_validator,
)

from lib.config.loaders import LoaderConfig
from lib.config.types import HttpEndpoint, LocalPath, StoreLocation
from lib.errors import ConfigError
from lib.execution import (
    MODES,
    DaskSetting,
    Subflows,
    mode,
)


class Settings(BaseModel):
    """Everything that can be set, save what belongs to one run of one loader."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True
    )

    execution_mode: str = Field(
        default="staged", description=f"Order of the sources: {', '.join(MODES)}."
    )
    data_dir: StoreLocation = Field(
        default="data", description="Folder or s3://bucket/prefix of volumes."
    )
    metadata_dir: StoreLocation = Field(
        default="metadata",
        description="Folder or s3://bucket/prefix of the catalogue and the reports; with a bucket "
        "as data_dir, metadata/ inside it.",
    )
    logs_dir: LocalPath = Field(default="logs", min_length=1, description="Folder of the logs.")
    archives: Literal["public", "samples"] = Field(
        default="public",
        description="public: the real archives; samples: the stand-ins that services names (the "
        "default where services is set).",
    )
    services: str | None = Field(
        default=None,
        repr=False,
        description="Endpoints of the stand-ins: JSON, or the path of the document that "
        "`macroscope samples` prints.",
    )
    biostudies_url: HttpEndpoint = Field(
        default="https://www.ebi.ac.uk/biostudies/api/v1",
        description="API of BioStudies, by which `macroscope search` asks the BioImage Archive.",
    )
    dask: DaskSetting = Field(
        default="auto",
        description="Where heavy volumes are computed: auto (a temporary cluster on Kubernetes, "
        "threads elsewhere), kubernetes, local, off; slurm, lsf, pbs, sge (a job for each worker, "
        "by dask-jobqueue); address (a cluster that runs already); gateway (dask-gateway).",
    )
    dask_workers: int = Field(
        default=2,
        ge=1,
        description="Workers of a Dask cluster: batches at once; with slurm, lsf, pbs and sge jobs "
        "of one worker each.",
    )
    dask_options: str | None = Field(
        default=None,
        description="With slurm, lsf, pbs, sge and gateway: arguments of the cluster's class, as "
        "JSON (queue, account, walltime, cores, memory, interface); they are stronger than Dask's "
        "own configuration.",
    )
    dask_address: str | None = Field(
        default=None, description="With address: of the Dask scheduler, as tcp://host:8786."
    )
    dask_min_mb: float = Field(
        default=750.0,
        gt=0,
        description="Voxels (MB of 10^6 bytes, as planned, not compressed) from which on a volume "
        "is heavy: worth a Dask cluster of its own.",
    )
    subflows: Subflows = Field(
        default="inline",
        description="inline: all sources in one process; deployments: each as a run of its own "
        "(the default on Kubernetes).",
    )
    datasets_at_once: int = Field(
        default=2,
        ge=1,
        description="Datasets of a list that are made at once, each in a run of its own; archives "
        "bear no more than their limits, however many there are.",
    )
    keep_reports: int = Field(
        default=50,
        ge=1,
        description="Reports and catalogues that stay in metadata_dir; older ones are deleted.",
    )
    assumed_compression: float = Field(
        1.5,
        gt=0,
        description="Raw over compressed size that plans assume: 1.5 was measured on EM images.",
    )
    dest_endpoint_url: HttpEndpoint | None = Field(
        default=None, description="S3 server of the destination; empty: AWS."
    )
    dest_region: str | None = Field(
        default=None,
        min_length=1,
        description="Region of the destination; empty: AWS's usual chain's, else us-east-1.",
    )
    dest_key: SecretStr | None = Field(
        default=None,
        exclude=True,
        repr=False,
        description="Access key; empty: AWS's usual chain.",
    )
    dest_secret: SecretStr | None = Field(
        default=None,
        exclude=True,
        repr=False,
        description="Secret key; empty: AWS's usual chain.",
    )
    dest_anonymous: bool = Field(
        default=False,
        description="Sign nothing: for reading a public bucket (verify, consolidate elsewhere).",
    )
    dest_profile: str | None = Field(
        default=None, description="Profile of the AWS configuration files for the destination."
    )
    dest_addressing_style: Literal["auto", "path", "virtual"] = Field(
        default="auto",
        description="auto: path style for a server of one's own, virtual-host for AWS.",
    )
    dest_ca_bundle: LocalPath | None = Field(
        default=None,
        description="PEM file of the certificate authorities that the destination needs.",
    )
    dest_credentials_block: str | None = Field(
        default=None,
        pattern=r"^(aws-credentials|s3-bucket)/[a-z0-9-]+$",
        description="Prefect block that holds the credentials: aws-credentials/NAME or "
        "s3-bucket/NAME.",
    )
    dest_lease_seconds: float = Field(
        default=60.0,
        ge=2.0,
        le=3600.0,
        description="How long a killed run's hold on a volume in a bucket outlives it.",
    )
    dest_durable: bool = Field(
        default=True,
        description="Folders: force a volume to the disk before its record says complete. Without "
        "it a power cut may take files of volumes that were called complete.",
    )
    sources: dict[str, SerializeAsAny[LoaderConfig]] = Field(
        default_factory=dict, description="Settings of each loader."
    )

    @field_validator("execution_mode")
    @classmethod
    def _mode_exists(cls, name: str) -> str:
        try:
            return mode(name).name
        except ConfigError as error:
            raise ValueError(error.message.removeprefix("execution_mode: ")) from None

    @field_validator("services", "dask_options", mode="before")
    @classmethod
    def _as_text(cls, document: Any) -> Any:
        return json.dumps(document) if isinstance(document, Mapping) else document

    @model_validator(mode="after")
    def _address_is_given(self) -> Settings:
        if self.dask == "address" and not self.dask_address:
            raise ValueError("dask_address: not set, and dask is address")
        return self

    @model_validator(mode="after")
    def _one_way_to_sign(self) -> Settings:
        if (self.dest_key is None) != (self.dest_secret is None):
            raise ValueError("dest_key: without dest_secret (or the reverse) it is of no use")
        if self.dest_key is not None and self.dest_credentials_block is not None:
            raise ValueError("dest_credentials_block: contradicts dest_key; set one of them")
        signs = self.dest_key or self.dest_credentials_block or self.dest_profile
        if self.dest_anonymous and signs:
            raise ValueError("dest_anonymous: contradicts the credentials that are given too")
        return self
