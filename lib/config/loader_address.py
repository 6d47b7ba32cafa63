"""Settings of volumes that are named by their addresses."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    model_validator,
)

from lib.config.loader_base import LoaderConfig
from lib.config.types import (
    HttpEndpoint,
    Name,
    NanometresZYX,
    Whole,
    split_addresses,
    split_list,
)

AddressScheme = Literal["file", "https", "http", "s3", "gs", "ftp"]


class AddressConfig(LoaderConfig):
    """Any volume by its address: a path, https, s3, gs or ftp, with a pipeline of what is inside.

    What is known of licence, citation and the like is what the data state or what is given here.
    The settings ``reach_...`` belong to whoever runs this installation: a run cannot change them.
    """

    addresses: Annotated[list[str], BeforeValidator(split_addresses)] = Field(
        default=[],
        description="Addresses, for example data/sections/|tiff: or s3://bucket/x.zarr|zarr:em; in "
        "an environment variable one a line.",
        examples=[["s3://bucket/x.zarr|zarr:em"]],
    )
    labels: Annotated[list[str], BeforeValidator(split_addresses)] = Field(
        default=[],
        description="Addresses of labels of the one image: held against its grid, cut to what they "
        "have of it, and written into its group labels.",
    )
    scale_level: str | list[str] | None = Field(
        default=None,
        description="Scale level by number (s0 is the finest) or name, several, or all; empty: the "
        "finest.",
    )
    channel: Annotated[Whole, Field(ge=0)] | None = Field(
        default=None, description="Channel, where there are several; from 0."
    )
    time: Annotated[Whole, Field(ge=0)] | None = Field(
        default=None, description="Time point, where there are several; from 0."
    )
    name: Name | None = Field(
        default=None, description="Name of the volume; empty: made from its address."
    )
    voxel_size_nm: NanometresZYX | None = Field(
        default=None,
        description="Voxel size in nm, z,y,x (or x, y and z by name), in place of the data's own.",
    )
    title: str | None = Field(default=None, description="Title for the record.")
    description: str | None = Field(default=None, description="Description for the record.")
    licence: str | None = Field(
        default=None, description="Licence of the data (SPDX id) where the user knows it."
    )
    citation: str | None = Field(default=None, description="What to cite.")
    doi: str | None = Field(default=None, description="DOI of the data.")
    organism: str | None = Field(default=None, description="Organism, where known.")
    specimen: str | None = Field(default=None, description="Specimen, where known.")
    modality: str | None = Field(default=None, description="Modality, for example FIB-SEM.")
    authors: Annotated[list[str], BeforeValidator(split_list)] = Field(
        default=[], description="Authors of the data."
    )
    mrc_mode0: Literal["auto", "int8", "uint8"] = Field(
        default="auto",
        description="Bytes of MRC files of mode 0. auto: what IMOD's flags or the header's minimum "
        "and maximum say; int8 (MRC2014) where nothing does.",
    )
    mrc_sections: Literal["header", "file"] | None = Field(
        default=None,
        description="Who is believed where an MRC file holds more sections than its header says; "
        "empty: such a file is refused.",
    )
    s3_endpoint_url: HttpEndpoint | None = Field(
        default=None,
        description="S3 server of s3:// addresses; empty: AWS. Asked in path style.",
    )
    gs_endpoint_url: HttpEndpoint | None = Field(
        default=None, description="Server of gs:// addresses; empty: Google's own."
    )
    s3_region: Name = Field(default="us-east-1", description="Region of the bucket.")
    s3_key: SecretStr | None = Field(
        default=None,
        exclude=True,
        repr=False,
        description="Access key; empty: requests are not signed.",
    )
    s3_secret: SecretStr | None = Field(
        default=None, exclude=True, repr=False, description="Secret key of the source bucket."
    )
    reach_schemes: Annotated[list[AddressScheme], BeforeValidator(split_list)] = Field(
        default=["file", "https", "http", "s3", "gs", "ftp"],
        description="Protocols that addresses may use; on Kubernetes https, s3, gs and ftp unless "
        "set.",
    )
    reach_hosts: Annotated[list[str], BeforeValidator(split_list)] = Field(
        default=[], description="Hosts that may be asked, as *.ebi.ac.uk; empty: any."
    )
    reach_private: bool = Field(
        default=True,
        description="Whether loopback and private addresses may be asked; on Kubernetes false "
        "unless set.",
    )

    OPERATOR_ONLY = frozenset({"reach_schemes", "reach_hosts", "reach_private"})

    @model_validator(mode="after")
    def _fits_together(self) -> AddressConfig:
        if (self.s3_key is None) != (self.s3_secret is None):
            raise ValueError("s3_key and s3_secret: one without the other is of no use")
        return self


#: Registry name -> settings of the archives that are known without being imported. Those of a
#: further archive lie beside it: `lib.archives.registry.loader_configs` finds them.
