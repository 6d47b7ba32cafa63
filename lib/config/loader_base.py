"""What all loaders have in common, and the settings of volumes that are named by their addresses.

Users import both from `lib.config.loaders`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from lib.config.types import (
    Count,
    CountsZYX,
    Fraction,
    HttpEndpoint,
    Name,
    NanometresZYX,
    PathPatterns,
    Positive,
    StoreLocation,
    Whole,
    split_addresses,
    split_list,
)
from lib.errors import ConfigError, OutOfBoundsError
from lib.geometry import parse_box

_OF_A_RUN = frozenset(
    {"output_dir", "max_workers", "heavy", "timeout_seconds", "verbose", "debug_mode", "dry_run"}
    | {"enable_downloads", "keep_raw", "allow_empty", "max_missing_fraction", "max_connections"}
    | {"requests_per_second"}
)
_OF_A_SERVER = ("_url", "_server", "_host")
OPERATOR_ONLY_KEY = "x-operator-only"
"""In a loader's JSON Schema: the settings of `LoaderConfig.OPERATOR_ONLY`."""
OutputFormat = Literal["zarr", "npy"]
EtagPolicy = Literal["always", "plain-http", "sample"]


def _say_who_may_set(schema: dict[str, Any], model: type[LoaderConfig]) -> None:
    schema[OPERATOR_ONLY_KEY] = sorted(model.OPERATOR_ONLY)


class LoaderConfig(BaseModel):
    """Settings that every loader has."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        validate_default=True,
        json_schema_extra=_say_who_may_set,
    )

    OPERATOR_ONLY: ClassVar[frozenset[str]] = frozenset()
    """Settings of whoever runs the installation: no run's own parameters may change them."""

    output_dir: StoreLocation | None = Field(
        default=None,
        description="Folder or s3://bucket/prefix of the volumes; empty means EM_DATA_DIR.",
    )
    output_format: OutputFormat = Field(
        default="zarr", description="zarr: sharded OME-Zarr 0.5 with a pyramid; npy: one .npy file."
    )
    max_workers: Count = Field(
        default=2, description="Shards made at once; memory grows with it, shard by shard."
    )
    heavy: bool | None = Field(
        default=None,
        description="Whether its volumes get a Dask cluster where dask gives one; empty: those "
        "of dask_min_mb or more, which are several shards, do.",
    )
    timeout_seconds: Positive = Field(
        default=60.0,
        description="Seconds without a byte after which a read is given up and tried again.",
    )
    verbose: bool = Field(default=False, description="Log each unit of work, not only each volume.")
    debug_mode: bool = Field(default=False, description="Log at level DEBUG, requests included.")
    dry_run: bool = Field(
        default=False,
        description="Plan only: ask for metadata, show costs, fetch and write no voxels.",
    )
    enable_downloads: bool = Field(
        default=True,
        description="false: work from raw files kept by an earlier run, fetch no voxels.",
    )
    keep_raw: bool = Field(
        default=True, description="Keep the archive's files under downloads/ beside the volumes."
    )
    kind: Literal["auto", "image", "labels"] = Field(
        default="auto",
        description="image: coarser levels are averages; labels: they take ids that are there. "
        "auto: what the source states, else by data type and names; a plan says what decided.",
    )
    yielding_labels: Annotated[list[int], BeforeValidator(split_list)] = Field(
        default=[],
        description="Ids that lose to every other id in coarser levels, such as 0 (background) or "
        "-1 (not annotated); empty: every id counts alike, and the smallest of those that are as "
        "frequent is taken.",
    )
    box: str | None = Field(
        default=None,
        description="Part of the volume, in voxels or nanometres: z=0:64,y=100:300,x=800:2400nm. "
        "An axis left out is taken whole.",
        examples=["z=0:64,y=100:300,x=800:2400nm"],
    )
    allow_empty: bool = Field(
        default=False,
        description="Accept a volume of nothing but background instead of failing it.",
    )
    max_missing_fraction: Fraction | None = Field(
        default=None,
        description="Share (0 to 1) of chunks that the archive itself may lack; empty: of images "
        "those that their format or writer left out as background; of labels, whose empty chunks "
        "are left out as a rule, any but all.",
    )
    large_array_mode: Literal["stream", "downsample", "skip"] = Field(
        default="stream", description="What becomes of arrays above max_array_size_mb."
    )
    downsample_factor: Count = Field(
        default=2,
        description="With downsample: how much coarser the finest level is; a power of two.",
    )
    max_array_size_mb: Positive = Field(
        default=1024.0,
        description="Raw size (MB of 10^6 bytes) above which downsample and skip act.",
    )
    chunk_zyx: CountsZYX | None = Field(
        default=None,
        description="Inner chunk in voxels, z,y,x or by name; empty: the source's own, or "
        "64,64,64.",
    )
    shard_mb: Positive | None = Field(
        default=None,
        description="Raw size of a shard (MB of 10^6 bytes); empty: fitted to the volume.",
    )
    codec: Literal["auto", "source", "zstd", "blosc", "none"] = Field(
        default="auto",
        description="auto: chunks of zstd and blosc stay as they are; else zstd level 1 for 8-bit "
        "and for labels, blosc (zstd 1, shuffle) for wider images. source: as auto, but chunks of "
        "gzip stay, too, which are seven times slower to read.",
    )
    check_etags: EtagPolicy = Field(
        default="plain-http",
        description="Which objects of S3 are held against their ETags where those are MD5 digests: "
        "always: each; plain-http: each that comes without TLS; sample: one of sixteen.",
    )
    max_connections: Count | None = Field(
        default=None,
        description="Connections to the archive at once; empty: what suits the archive.",
    )
    requests_per_second: Positive | None = Field(
        default=None,
        description="Requests to the archive per second; empty: what suits the archive.",
    )

    def choices(self) -> dict[str, Any]:
        """The settings that choose and shape volumes, in plain JSON: they make them once more.

        Left out are how a run goes about it, where the archive's servers are (today's settings
        know), what an operator alone may set, secrets, and what was not set.
        """
        left_out = _OF_A_RUN | self.OPERATOR_ONLY
        left_out |= {name for name in type(self).model_fields if name.endswith(_OF_A_SERVER)}
        return self.model_dump(mode="json", exclude=set(left_out), exclude_none=True)

    @field_validator("box")
    @classmethod
    def _box_can_be_read(cls, text: str | None) -> str | None:
        if not text or not text.strip():
            return None
        try:
            parse_box(text, (1 << 48,) * 3, (1.0, 1.0, 1.0))
        except OutOfBoundsError:
            raise ValueError("each axis must start before it stops") from None
        except ConfigError as error:
            raise ValueError(error.message.removeprefix("box: ")) from None
        return text

    @field_validator("downsample_factor")
    @classmethod
    def _power_of_two(cls, factor: int) -> int:
        if factor < 2 or factor & (factor - 1):
            raise ValueError("must be a power of two, 2 or more")
        return factor


class FilesConfig(LoaderConfig):
    """Settings of the sources that list files or arrays; see `lib.archives.selection.Selection`."""

    include: PathPatterns = Field(
        default=[],
        description="Only paths that fit one of these patterns (`*`, `?`, `[abc]`; `*` goes over / "
        "too), relative to the entry or data set; one without / may fit the last part alone. "
        "Empty: all.",
    )
    exclude: PathPatterns = Field(
        default=[],
        description="No path that fits one of these patterns, written as those of include.",
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
        examples=["s2", ["s1", "s3"], "all"],
    )
    channel: Annotated[Whole, Field(ge=0)] | None = Field(
        default=None, description="Channel, where there are several; from 0."
    )
    time: Annotated[Whole, Field(ge=0)] | None = Field(
        default=None, description="Time point, where there are several; from 0."
    )
    name: Name | None = Field(
        default=None,
        description="Name of the volume; empty: made from its address.",
        examples=["liver_1"],
    )
    voxel_size_nm: NanometresZYX | None = Field(
        default=None,
        description="Voxel size in nm, z,y,x (or x, y and z by name), in place of the data's own.",
        examples=["z=40,y=4,x=4"],
    )
    title: str | None = Field(
        default=None, description="Title for the record.", examples=["Liver of a zebrafish"]
    )
    description: str | None = Field(
        default=None,
        description="Description for the record.",
        examples=["Three days old, high-pressure frozen"],
    )
    licence: str | None = Field(
        default=None,
        description="Licence of the data (SPDX id) where the user knows it.",
        examples=["CC0-1.0"],
    )
    citation: str | None = Field(
        default=None, description="What to cite.", examples=["doi:10.6019/EMPIAR-10310"]
    )
    doi: str | None = Field(
        default=None, description="DOI of the data.", examples=["10.6019/EMPIAR-10310"]
    )
    organism: str | None = Field(
        default=None, description="Organism, where known.", examples=["Danio rerio"]
    )
    specimen: str | None = Field(
        default=None, description="Specimen, where known.", examples=["retina"]
    )
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
