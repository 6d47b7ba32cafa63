"""Settings of each loader. The class and field names are public API.

Every model is frozen and refuses unknown keys. Addresses take ``host:port`` as well as URLs, so
that any server that speaks the protocol can stand in for an archive. Constructing a model raises
pydantic's `ValidationError`; `lib.config.errors.build` raises `ConfigError` in its place.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from lib.config.loader_base import AddressConfig, FilesConfig, LoaderConfig
from lib.config.types import (
    AccessionNumber,
    Count,
    CountsXYZ,
    FtpEndpoint,
    HttpEndpoint,
    IdText,
    InnerPath,
    InnerPaths,
    Name,
    NanometresZYX,
    PointXYZ,
    Positive,
    S3Location,
    ScaleLevels,
    TreePaths,
    Whole,
    http_endpoint,
    inner_path,
    split_list,
)

__all__ = [
    "LOADER_CONFIGS", "OPENORGANELLE_EM_PATHS", "AddressConfig", "EBIConfig", "EPFLConfig",
    "FilesConfig", "FlyEMConfig", "IDRConfig", "LoaderConfig", "OpenOrganelleConfig",
]  # fmt: skip

TransferProtocol = Literal["auto", "ftp", "https"]


class EBIConfig(FilesConfig):
    """EMPIAR entries at EMBL-EBI: files of any format, over the HTTPS mirror or FTP."""

    entry_id: AccessionNumber = Field(
        default="11759",
        description="Accession, with or without EMPIAR- before it.",
        examples=["EMPIAR-10310", "11759"],
    )
    ftp_server: FtpEndpoint = Field(
        default="ftp.ebi.ac.uk", description="FTP server: host or host:port."
    )
    https_base_url: HttpEndpoint = Field(
        default="https://ftp.ebi.ac.uk", description="HTTPS mirror of the same tree."
    )
    api_base_url: HttpEndpoint = Field(
        default="https://www.ebi.ac.uk/empiar/api", description="Entry API, without entry/{id}/."
    )
    search_base_url: HttpEndpoint = Field(
        default="https://www.ebi.ac.uk/ebisearch/ws/rest",
        description="EBI Search, asked by `macroscope search`.",
    )
    folder: InnerPath | None = Field(
        default=None,
        description="Folder, file or ZIP file of the entry, as data/aligned; empty: the folders "
        "that the entry's image sets name. What lies in folders below is looked at, too.",
    )
    assemble: Literal["auto", "stack", "files"] = Field(
        default="auto",
        description="auto: numbered sections of one shape and dtype become one volume, and what "
        "the archive calls micrographs, tilt series or the like is left out; stack: all that is "
        "numbered alike must make a volume; files: one volume a file.",
    )
    protocol: TransferProtocol = Field(
        default="auto",
        description="auto: HTTPS, then FTP where HTTPS fails; listings are compared.",
    )
    mrc_mode0: Literal["auto", "int8", "uint8"] = Field(
        default="auto",
        description="Bytes of MRC files of mode 0. auto: what IMOD's flags, the header's minimum "
        "and maximum, or the entry say; int8 (MRC2014) where nothing does.",
    )
    mrc_sections: Literal["header", "file"] | None = Field(
        default=None,
        description="Who is believed where an MRC file holds more sections than its header says; "
        "empty: such a file is refused.",
    )

    @property
    def accession(self) -> str:
        """The accession as the archive writes it: ``EMPIAR-11759``."""
        return f"EMPIAR-{self.entry_id}"


EPFL_FILE_PATH = "/groups/c/cv/cvlab-unit/www/data/%20ElectronMicroscopy_Hippocampus/volumedata.tif"


def _file_url(text: str) -> str:
    url = http_endpoint(text)
    return url if url.count("/") > 2 else url + EPFL_FILE_PATH


class EPFLConfig(LoaderConfig):
    """EPFL CVLab's hippocampus: one multi-page TIFF over HTTPS."""

    download_url: Annotated[str, AfterValidator(_file_url)] = Field(
        default="https://documents.epfl.ch" + EPFL_FILE_PATH,
        description="The file. %20 belongs to its folder's name; a server alone (host:port) means "
        "the same path there.",
    )
    source_id: Name = Field(
        default="EPFL-CA1-HIPPOCAMPUS", description="Accession used in records."
    )
    description: str = Field(
        default="Section of the CA1 hippocampus region of a rodent brain, FIB-SEM",
        description="Text for the record: the file carries none.",
    )
    voxel_size_nm: NanometresZYX = Field(
        default=(5.0, 5.0, 5.0),
        description="Voxel size in nm, z,y,x (or x, y and z by name); the file has none, the "
        "archive's page says about 5.",
    )
    chunk_size_mb: Positive = Field(
        default=8.0, description="Bytes asked for in one range request (MB of 10^6 bytes)."
    )


class FlyEMConfig(LoaderConfig):
    """FlyEM hemibrain: crops of grayscale from a DVID server."""

    dvid_server: HttpEndpoint = Field(
        default="https://hemibrain-dvid.janelia.org", description="DVID server."
    )
    uuid: Annotated[IdText, Field(pattern=r"^[0-9A-Fa-f]{3,}(:[A-Za-z0-9._-]+)?$")] = Field(
        default="a89eb3af216a46cdba81204d8f954786",
        description="Version: hexadecimal, or an unambiguous beginning of it.",
    )
    instance: Name = Field(
        default="grayscale",
        description="Data instance: grayscale (uint8blk) or labels (labelmap, labelarray).",
    )
    labels: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{3,}(:[A-Za-z0-9._-]+)?/[^/]+$")] | None = (
        Field(
            default=None,
            description="Version and instance of the labels of the same crop, brought with it: "
            "15aee239283143c08b827177ebee01b3/segmentation.",
        )
    )
    scale: Annotated[Whole, Field(ge=0)] = Field(
        default=0,
        description="Scale of labels, 0 being the finest; crop_size and crop_origin count its own "
        "voxels.",
    )
    supervoxels: bool = Field(
        default=False, description="The labels as they were before any merge, instead of bodies."
    )
    crop_size: CountsXYZ = Field(
        default=(1000, 1000, 1000),
        description="Voxels of the crop: z=64,y=100,x=200, or in the server's order x,y,z. A box "
        "is in the volume's own voxels, and stands for the crop on the axes that it names.",
        examples=["z=64,y=256,x=256", [256, 256, 64]],
    )
    crop_origin: PointXYZ | None = Field(
        default=None,
        description="First voxel of the crop by name, z=..,y=..,x=.., or x,y,z; empty: drawn from "
        "random_seed inside the extents.",
    )
    random_seed: Annotated[Whole, Field(ge=0)] = Field(
        default=0, description="Seed of the drawn origin: the same seed gives the same crop."
    )
    timeout_seconds: Positive = Field(
        default=120.0,
        description="Seconds without a byte after which a read is given up and tried again.",
    )


class IDRConfig(FilesConfig):
    """Image Data Resource: files named by OMERO's JSON API, over FTP or its HTTPS mirror."""

    image_ids: Annotated[list[Count], BeforeValidator(split_list)] = Field(
        default=[9846137], description="Image ids.", examples=[[9846137]]
    )
    dataset_id: Count | None = Field(
        default=None,
        description="All images of this dataset, beside those of image_ids where given.",
    )
    ftp_host: FtpEndpoint = Field(
        default="ftp.ebi.ac.uk", description="FTP server: host or host:port."
    )
    ftp_root_path: str = Field(
        default="/pub/databases/IDR",
        description="Root of IDR's files, on FTP and on the HTTPS mirror.",
    )
    https_base_url: HttpEndpoint = Field(
        default="https://ftp.ebi.ac.uk", description="HTTPS mirror of the same tree."
    )
    api_base_url: HttpEndpoint = Field(
        default="https://idr.openmicroscopy.org",
        description="OMERO.web's root, without /api/v0/m/.",
    )
    path_mappings: TreePaths = Field(
        default={"/uod/idr/filesets": ""},
        description="Folder on the OMERO server -> folder below ftp_root_path.",
    )
    protocol: TransferProtocol = Field(
        default="auto", description="auto: FTP, then HTTPS where FTP fails."
    )

    @field_validator("ftp_root_path")
    @classmethod
    def _absolute(cls, path: str) -> str:
        return f"/{inner_path(path)}"

    @model_validator(mode="before")
    @classmethod
    def _dataset_alone(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("dataset_id") and "image_ids" not in data:
            return {**data, "image_ids": []}
        return data

    @model_validator(mode="after")
    def _something_to_fetch(self) -> IDRConfig:
        if not self.image_ids and self.dataset_id is None:
            raise ValueError("image_ids: empty; name at least one image, or set dataset_id")
        if len(set(self.image_ids)) < len(self.image_ids):
            raise ValueError(f"image_ids: {self.image_ids} names an image twice")
        return self


#: Where the EM lies in the datasets whose id alone is enough. recon-1 and recon-2 are different
#: alignments of one sample, each with its own frame; they are never mixed.
OPENORGANELLE_EM_PATHS = {
    "jrc_mus-nacc-2": "recon-2/em",
    "jrc_hela-2": "recon-1/em",
    "jrc_macrophage-2": "recon-1/em",
    "jrc_jurkat-1": "recon-1/em",
    "jrc_cos7-1": "recon-1/em",
}


class OpenOrganelleConfig(FilesConfig):
    """OpenOrganelle: multiscale Zarr v2 in an S3 bucket."""

    s3_uri: S3Location = Field(
        default="s3://janelia-cosem-datasets",
        description="Bucket (and prefix) that holds {dataset_id}/{dataset_id}.zarr, or the whole "
        "address of a .zarr.",
    )
    s3_endpoint_url: HttpEndpoint | None = Field(
        default=None,
        description="S3 server; empty: AWS. A server of one's own is asked in path style.",
    )
    s3_region: Name = Field(default="us-east-1", description="Region of the bucket.")
    s3_anonymous: bool = Field(
        default=True,
        description="Ask without a signature; false: the key below, or AWS's usual chain.",
    )
    s3_key: SecretStr | None = Field(
        default=None, exclude=True, repr=False, description="Access key of the source bucket."
    )
    s3_secret: SecretStr | None = Field(
        default=None, exclude=True, repr=False, description="Secret key of the source bucket."
    )
    dataset_id: Name = Field(
        default="jrc_mus-nacc-2",
        description="Dataset, as the archive names it; `macroscope list openorganelle:` shows all.",
        examples=["jrc_hela-2"],
    )
    zarr_path: InnerPaths | None = Field(
        default=None,
        description="Group, multiscale or array inside the .zarr, or several; empty: the EM, "
        "which is the only recon-N/em, or of some datasets the one that is known to be right.",
    )
    scale_level: ScaleLevels = Field(
        default="s1",
        description="Scale level (s0 is the finest), a list of levels, or all.",
        examples=["s2", ["s1", "s3"], "all"],
    )
    with_em: bool = Field(
        default=False,
        description="With labels of a crop, as recon-1/labels/groundtruth/crop234: bring the EM "
        "around them, too, and write all its classes into the EM's group labels.",
    )
    em_path: InnerPath | None = Field(
        default=None,
        description="Multiscale of that EM; empty: the one below em beside the labels.",
    )
    padding: Annotated[Whole, Field(ge=0)] = Field(
        default=0, description="Voxels of EM on each side of the labels."
    )
    voxel_size: NanometresZYX | None = Field(
        default=None,
        description="Voxel size of s0 in nm, z,y,x (or x, y and z by name), in place of the "
        "archive's own.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        """The address of a .zarr names its dataset; a key means signed requests."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        uri = str(data.get("s3_uri", "")).strip().rstrip("/")
        if uri.endswith(".zarr"):
            data.setdefault("dataset_id", uri.rsplit("/", 1)[1].removesuffix(".zarr"))
        if data.get("s3_key") and data.get("s3_secret"):
            data.setdefault("s3_anonymous", False)
        return data

    @model_validator(mode="after")
    def _fits_together(self) -> OpenOrganelleConfig:
        if ".zarr/" in self.s3_uri:
            raise ValueError("s3_uri: must end with .zarr; what follows belongs in zarr_path")
        container = self.s3_uri.rsplit("/", 1)[-1].removesuffix(".zarr")
        if container in OPENORGANELLE_EM_PATHS and container != self.dataset_id:
            raise ValueError(f"dataset_id: {self.dataset_id} contradicts s3_uri {self.s3_uri}")
        if (self.s3_key is None) != (self.s3_secret is None):
            raise ValueError("s3_key and s3_secret: one without the other is of no use")
        if self.s3_key is not None and self.s3_anonymous:
            raise ValueError("s3_anonymous: true contradicts s3_key; set one of them")
        return self

    @property
    def container_uri(self) -> str:
        """The whole address of the .zarr: ``s3://bucket/.../name.zarr``."""
        if self.s3_uri.endswith(".zarr"):
            return self.s3_uri
        return f"{self.s3_uri}/{self.dataset_id}/{self.dataset_id}.zarr"

    @property
    def zarr_paths(self) -> tuple[str, ...]:
        """The paths to read, the dataset's own EM where none is given; none where it is found."""
        paths = self.zarr_path or OPENORGANELLE_EM_PATHS.get(self.dataset_id) or ()
        return (paths,) if isinstance(paths, str) else tuple(paths)

    @property
    def scale_levels(self) -> tuple[str, ...] | None:
        """The levels asked for; None for all."""
        if self.scale_level == "all":
            return None
        levels = self.scale_level
        return (levels,) if isinstance(levels, str) else tuple(levels)


LOADER_CONFIGS: dict[str, type[LoaderConfig]] = {
    "address": AddressConfig,
    "ebi": EBIConfig,
    "epfl": EPFLConfig,
    "flyem": FlyEMConfig,
    "idr": IDRConfig,
    "openorganelle": OpenOrganelleConfig,
}
