"""The sections of a record: every field that it has, with how each is proven and shown.

A new field is one entry here, and the place that knows its value.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from lib import vocabulary
from lib.about import Provenance
from lib.records.fields import (
    COMPLETE,
    Address,
    Count,
    DataType,
    Day,
    Lengths,
    Moment,
    OrAbsent,
    Part,
    Position,
    Proof,
    Sha256,
    Shape,
    Shown,
    Words,
    word_of,
)
from lib.vocabulary import Kind, Modality

_SAID = Proof("", "the archive's own words: only the archive can tell")
_RUN = Proof("", "of the run that made it: nothing of it stays in the store")
_SOURCE = Proof("", "what the archive says of its file: nothing else in the store says it")
_NOT_KEPT = "the archive's file was not kept, or the record gives no value to hold it against"
_NPY = "an .npy holds shape, data type and voxels, and nothing else"
_DAMAGED = "the finest level is damaged, so that its voxels cannot be counted"
_COUNTED = Proof("counted again from level 0", _DAMAGED, deep=True)


class Core(Part):
    """What the volume is."""

    title: Annotated[str | None, _SAID] = None
    description: Annotated[str | None, COMPLETE, _SAID] = None
    volume_shape: Annotated[
        OrAbsent[Shape],
        COMPLETE,
        Proof("shape of level 0's `zarr.json`, or of the npy header"),
        Shown("Voxels", "shape", crate="property", column="voxels"),
    ] = None
    voxel_size_nm: Annotated[
        OrAbsent[Lengths],
        COMPLETE,
        Proof("scale of level 0 in the OME metadata", _NPY),
        Shown("Voxel size", "lengths", crate="property", unit="nanometer", column="voxel_nm"),
    ] = None
    data_type: Annotated[
        OrAbsent[DataType],
        COMPLETE,
        Proof("every level's `zarr.json`, or the npy header"),
        Shown("Data type", crate="property", column="data_type"),
        Field(description="Type of a voxel."),
    ] = None
    modality: Annotated[
        Modality | None,
        word_of(vocabulary.modality),
        COMPLETE,
        _SAID,
        Shown("Modality", crate="measurementTechnique", column="modality"),
        Field(description="Imaging method."),
    ] = None
    kind: Annotated[
        OrAbsent[Kind],
        word_of(vocabulary.kind),
        Proof("labels have `image-label` in the OME metadata, images have not", _NPY),
        Shown("Kind", report="", artifact=False, column="kind"),
        Field(description="What the voxels are."),
    ] = None
    organism: Annotated[str | None, _SAID, Shown("Organism", column="organism")] = None
    specimen: Annotated[str | None, _SAID, Shown("Specimen", crate="property")] = None
    authors: Annotated[
        OrAbsent[tuple[Words, ...]], _SAID, Shown("Authors", "names", report="details")
    ] = None
    licence: Annotated[
        str | None,
        _SAID,
        Shown("Licence", "licence", absent="none stated", column="licence"),
        Field(description="SPDX identifier; null where the archive states none."),
    ] = None
    citation: Annotated[str | None, _SAID, Field(description="As the archive wants it cited.")] = (
        None
    )
    doi: Annotated[
        Annotated[str, Field(pattern=r"^10\.[0-9]{4,9}/\S+$")] | None,
        _SAID,
        Shown("DOI", "doi", report="details"),
    ] = None
    imaging_start_date: Annotated[
        Day | None, _SAID, Shown("Imaged", report="details", artifact=False)
    ] = None
    deposition_date: Annotated[
        Day | None, _SAID, Shown("Deposited", report="details", artifact=False)
    ] = None
    release_date: Annotated[
        Day | None, _SAID, Shown("Released", report="details", artifact=False)
    ] = None


class Histogram(Part):
    """How many voxels have which value: by edges, or in bins of one width."""

    counts: list[Count]
    edges: OrAbsent[list[float]] = None
    first: OrAbsent[int | float] = None
    bin_width: OrAbsent[Annotated[float, Field(gt=0)]] = None


class Level(Part):
    """One level of the pyramid."""

    path: Annotated[
        Words,
        Proof("the OME metadata, the listing and any consolidated metadata name the same levels"),
    ]
    shape: Annotated[Shape, Proof("the level's `zarr.json`")]
    chunk_size: Annotated[OrAbsent[Shape], Proof("inner chunk of the level's `zarr.json`")] = None
    shard: Annotated[
        OrAbsent[Shape], Proof("chunk grid of the level's `zarr.json`; every shard listed")
    ] = None
    scale_nm: Annotated[OrAbsent[Lengths], Proof("the OME metadata")] = None
    translation_nm: Annotated[OrAbsent[Position], Proof("the OME metadata")] = None


_POOLED = Proof("how the OME metadata says that levels were pooled", _NPY)


class Labels(Part):
    """Of label volumes: how coarser levels take their ids, and which ids there are."""

    ties: Annotated[
        Literal["smallest", "largest"],
        _POOLED,
        Field(description="Which of several ids that are as frequent is taken."),
    ]
    ids: Annotated[
        OrAbsent[Count],
        _COUNTED,
        Shown("Ids", artifact=True),
        Field(description="Different ids other than 0 in the finest level, if they were counted."),
    ] = None
    ids_above: Annotated[
        OrAbsent[Count], _COUNTED, Field(description="In place of `ids`: there are more than this.")
    ] = None
    largest: Annotated[
        OrAbsent[int], _COUNTED, Shown("Largest id"), Field(description="Exact, however large.")
    ] = None
    background_fraction: Annotated[
        OrAbsent[Annotated[float, Field(ge=0, le=1)]],
        _COUNTED,
        Shown("Background", "share"),
        Field(description="Share of voxels of the finest level that are 0."),
    ] = None
    ids_of_levels: Annotated[
        OrAbsent[list[Count | None]],
        Proof("counted again from every level; its ids are among the finer one's", _DAMAGED, True),
        Field(description="The count of each level, finest first; null for too many."),
    ] = None
    values: Annotated[
        OrAbsent[list[int]], _COUNTED, Field(description="The ids, where they are at most 256.")
    ] = None
    yielding: Annotated[list[int], _POOLED, Field(description="Ids that lose to every other id.")]


class Technical(Part):
    """How the volume is stored, and what its voxels are like."""

    format: Annotated[
        OrAbsent[Literal["zarr", "npy"]],
        Proof("what lies under `files.volume`: an OME-Zarr, or an npy"),
    ] = None
    file_size_bytes: Annotated[
        OrAbsent[Count],
        COMPLETE,
        Proof("sum of the sizes in a listing of the volume"),
        Shown("Stored", "bytes", crate="contentSize", column="stored_bytes"),
        Field(description="Size in the store."),
    ] = None
    sha256: Annotated[
        OrAbsent[Sha256],
        COMPLETE,
        Proof("sha256 of the list of digests; of an npy, of the file", _DAMAGED, deep=True),
        Shown("SHA-256", "code", report="details", column="sha256"),
        Field(description="Of the single file; of a Zarr, of the SHA256SUMS list beside it."),
    ] = None
    compression: Annotated[
        OrAbsent[
            Literal[
                "none", "zstd", "blosc", "gzip", "zlib", "lz4", "lzw", "deflate", "bzip2", "jpeg",
                "jpeg2000",
            ]
        ],
        COMPLETE,
        Proof("codecs of level 0's `zarr.json`; none for an npy"),
        Shown("Compression", report="details"),
    ] = None  # fmt: skip
    compression_level: Annotated[
        int | None,
        Proof("codecs of level 0's `zarr.json`", "the codec has no level in Zarr v3"),
    ] = None
    chunk_size: Annotated[
        Shape | None,
        COMPLETE,
        Proof("inner chunk of level 0's `zarr.json`"),
        Field(description="Null where the file has no chunks."),
    ] = None
    shard: Annotated[
        Shape | None,
        Proof("chunk grid of level 0's `zarr.json`"),
        Field(description="Null where the file has no shards."),
    ] = None
    global_mean: Annotated[float | None, COMPLETE, _COUNTED] = None
    global_min: Annotated[int | float | None, _COUNTED] = None
    global_max: Annotated[int | float | None, _COUNTED] = None
    std: Annotated[float | None, Proof("", "macroscope writes none")] = None
    histogram: Annotated[Histogram | None, _COUNTED] = None
    labels: Annotated[Labels | None, Field(description="Null or absent of an image.")] = None
    label_images: Annotated[
        OrAbsent[list[Words]],
        Proof("the image's group `labels` lists them"),
        Shown("Label images", "names"),
        Field(description="That were made with the image, and share its record: `members`."),
    ] = None
    dimensions_nm: Annotated[
        OrAbsent[Lengths],
        COMPLETE,
        Proof("shape times voxel size"),
        Field(description="Extent of the volume."),
    ] = None
    axes: Annotated[
        OrAbsent[
            Annotated[
                list[Literal["c", "t", "z", "y", "x"]],
                Field(min_length=3, json_schema_extra={"uniqueItems": True}),
            ]
        ],
        Proof("axes of the OME metadata, dimension names of every level", _NPY),
    ] = None
    levels: Annotated[OrAbsent[list[Level]], Proof("none where there is no pyramid")] = None
    translation: Annotated[
        OrAbsent[Position],
        Proof("translation of level 0 in the OME metadata", _NPY),
        Field(description="Centre of the first voxel."),
    ] = None


class VoxelSizeProvenance(Part):
    """Who states the voxel size."""

    source: Annotated[Words, _SOURCE]
    approximate: Annotated[bool, _SOURCE]

    def __str__(self) -> str:
        return f"{self.source}, approximate" if self.approximate else self.source


class SourceFile(Part):
    """One file that a volume was made from."""

    name: Annotated[Words, _SOURCE]
    key: Annotated[
        OrAbsent[Words],
        Proof("a kept raw file is there"),
        Field(description="Of the kept raw file, in the data store."),
    ] = None
    url: Annotated[Address, _SOURCE]
    size: Annotated[Count | None, Proof("size of the kept raw file", _NOT_KEPT)]
    sha256: Annotated[Sha256 | None, Proof("kept raw file, read again", _NOT_KEPT, deep=True)]
    etag: Annotated[str | None, _SOURCE] = None
    last_modified: Annotated[str | None, _SOURCE] = None
    publisher_checksum: Annotated[
        str,
        Proof("kept raw file, read again", _NOT_KEPT, deep=True),
        Field(
            pattern="^([a-z0-9]+:.+|publisher gives none)$",
            description="As the archive writes it (algorithm:hex), or the words that it gives "
            "none.",
        ),
    ]
    notes: Annotated[OrAbsent[list[str]], _SOURCE] = None

    def __str__(self) -> str:
        return self.name


class Repair(Part):
    """What was made anew of a finished volume, at one time."""

    at: Annotated[Moment, _RUN]
    by: Annotated[str | None, _RUN, Field(description="The run or command.")] = None
    files: Annotated[
        dict[str, Literal["source", "finer level", "record", "volume"]],
        _RUN,
        Field(description="Key of each file, and what it was made anew from."),
    ]


class VolumeProvenance(Part):
    """Where the volume comes from, and how it was made."""

    download_url: Annotated[
        Address | None, COMPLETE, _SOURCE, Shown("From", "address", report="details")
    ] = None
    processing_pipeline: Annotated[str | None, COMPLETE, _RUN] = None
    internal_zarr_path: Annotated[
        str | None, COMPLETE, _SOURCE, Field(description="Path of the array in its container.")
    ] = None
    scale_level: Annotated[
        str | None,
        _SOURCE,
        Shown("Scale level", report="details", artifact=False),
        Field(description="Of the source's pyramid."),
    ] = None
    box: Annotated[
        str | None,
        _SOURCE,
        Shown("Part", report="details", artifact=False),
        Field(description="The chosen part, in voxels of the source."),
    ] = None
    voxel_size_provenance: Annotated[
        OrAbsent[VoxelSizeProvenance], COMPLETE, Shown("Voxel size from")
    ] = None
    stated: Annotated[
        OrAbsent[dict[str, Provenance]],
        _SOURCE,
        Field(
            description="Who states a value of this record, by its field (voxel_size_nm.z, "
            "translation.x, modality, licence): where it stands, and the words themselves "
            "where they were mapped or could not be read."
        ),
    ] = None
    source_files: Annotated[
        OrAbsent[list[SourceFile]],
        COMPLETE,
        Proof("", "the record names none"),
        Shown("Made from", "names", report="details", artifact=False),
    ] = None
    settings: Annotated[
        OrAbsent[dict[str, Any]],
        _RUN,
        Field(
            description="The loader's settings that chose and shaped this volume; no addresses "
            "of servers, no secrets."
        ),
    ] = None
    repairs: Annotated[
        OrAbsent[list[Repair]],
        _RUN,
        Field(description="What was made anew of a finished volume, oldest first."),
    ] = None
    software: Annotated[
        OrAbsent[dict[str, str]], _RUN, Field(description="Versions of what took part.")
    ] = None
    store_requests: Annotated[
        dict[str, Count] | None,
        _RUN,
        Field(
            description="Sent by this run to an object store for this volume, by kind; empty for "
            "a folder."
        ),
    ] = None
    requests: Annotated[
        Count | dict[str, Count] | None,
        _RUN,
        Field(description="Sent by this run to the archive for this volume, in all or by kind."),
    ] = None
    bytes: Annotated[
        Count | None, _RUN, Field(description="Fetched by this run for this volume.")
    ] = None
    run: Annotated[str | None, _RUN] = None
    seconds: Annotated[
        Annotated[float, Field(ge=0)] | None,
        _RUN,
        Shown("Took", "duration", report="details", artifact=False),
    ] = None


class Quality(Part):
    """How complete the volume is, and every doubt."""

    completeness_score: Annotated[
        Annotated[float, Field(ge=0, le=1)] | None,
        COMPLETE,
        Proof(
            "1 where no chunk is missing, below where one is; what the missing chunks make of a "
            "whole number of chunks"
        ),
        Shown("Completeness", "share", crate="property"),
        Field(description="Share of its chunks that the archive had."),
    ] = None
    missing_chunks: Annotated[
        OrAbsent[list[str]],
        COMPLETE,
        Proof("as many as are missing in all, or the first 1000"),
        Shown("Missing chunks", "names", report="details", artifact=False),
    ] = None
    missing_chunks_total: Annotated[
        OrAbsent[Count],
        Proof(
            "chunks that the indices of level 0 leave out",
            "the holes were filled and encoded, as for every source that is not copied chunk by "
            "chunk",
            deep=True,
        ),
        Shown("Chunks that the archive lacks", "count"),
    ] = None
    damaged: Annotated[
        OrAbsent[list[Words]],
        Proof("nothing is damaged that was found to be, and not made anew"),
        Field(
            description="Keys of files that were found absent or damaged, and not made anew since."
        ),
    ] = None
    notes: Annotated[
        OrAbsent[list[str]], _RUN, Shown("Notes", "sentences", report="details", artifact=False)
    ] = None


class Files(Part):
    """Keys in the data store of what belongs to the volume."""

    volume: Annotated[
        OrAbsent[Words],
        COMPLETE,
        Proof("it is there, and every file of it is listed"),
        Shown("Stored at", "code", report="details", artifact=False, column="path"),
        Field(description="Key of the volume in the store."),
    ] = None
    record: Annotated[OrAbsent[Words], Proof("where the record lies")] = None
    preview: Annotated[str | None, Proof("it is there"), Field(description="A picture.")] = None
    preview_sha256: Annotated[
        Sha256 | None, Proof("the picture, read again", "there is no picture", deep=True)
    ] = None
    sums: Annotated[
        str | None, Proof("every listed file, read again", "a file of the volume is damaged", True)
    ] = None
    raw: Annotated[OrAbsent[list[Words]], Proof("every one is there")] = None
