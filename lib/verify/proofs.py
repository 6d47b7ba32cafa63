"""How each field of a record is proven from the store, or why it cannot be.

The names are those of ``schemas/metadata_schema.json`` without ``metadata.``; a test holds this
table to the schema, so that no field is added without a decision, and docs/reliability.md to it.
"""

from __future__ import annotations

from typing import NamedTuple


class Proof(NamedTuple):
    """How a field is proven (empty: never), why it is not where it is not, and what that takes.

    ``deep`` proofs read every byte; the others read listings and documents.
    """

    how: str = ""
    why_not: str = ""
    deep: bool = False


_WORDS = "the archive's own words: only the archive can tell"
_RUN = "of the run that made it: nothing of it stays in the store"
_SOURCE = "what the archive says of its file: nothing else in the store says it"
_NOT_KEPT = "the archive's file was not kept, or the record gives no value to hold it against"
_NPY = "an .npy holds shape, data type and voxels, and nothing else"
_DAMAGED = "the finest level is damaged, so that its voxels cannot be counted"
_FORM = "the form that the schema asks for"

PROOFS: dict[str, Proof] = {
    "id": Proof("computed again from source, source_id and name"),
    "schema_version": Proof(_FORM),
    "source": Proof("`id` is computed from it, and the record lies in its folder"),
    "source_id": Proof("`id` is computed from it"),
    "name": Proof("`id` is computed from it, and the record lies under it"),
    "status": Proof("`complete` is what all of this proves; its form where it is another"),
    "created_at": Proof("", "the time of a run: nothing else in the store keeps it"),
    "updated_at": Proof("", "the time of a run: nothing else in the store keeps it"),
    "progress": Proof("100 % where the status is complete"),
    "error": Proof("none where the status is complete"),
    "core.title": Proof("", _WORDS),
    "core.description": Proof("", _WORDS),
    "core.volume_shape": Proof("shape of level 0's `zarr.json`, or of the npy header"),
    "core.voxel_size_nm": Proof("scale of level 0 in the OME metadata", _NPY),
    "core.data_type": Proof("every level's `zarr.json`, or the npy header"),
    "core.modality": Proof("", _WORDS),
    "core.kind": Proof("labels have `image-label` in the OME metadata, images have not", _NPY),
    "core.organism": Proof("", _WORDS),
    "core.specimen": Proof("", _WORDS),
    "core.authors": Proof("", _WORDS),
    "core.licence": Proof("", _WORDS),
    "core.citation": Proof("", _WORDS),
    "core.doi": Proof("", _WORDS),
    "core.imaging_start_date": Proof("", _WORDS),
    "core.deposition_date": Proof("", _WORDS),
    "core.release_date": Proof("", _WORDS),
    "technical.format": Proof("what lies under `files.volume`: an OME-Zarr, or an npy"),
    "technical.file_size_bytes": Proof("sum of the sizes in a listing of the volume"),
    "technical.sha256": Proof(
        "sha256 of the list of digests; of an npy, of the file", _DAMAGED, deep=True
    ),
    "technical.compression": Proof("codecs of level 0's `zarr.json`; none for an npy"),
    "technical.compression_level": Proof(
        "codecs of level 0's `zarr.json`", "the codec has no level in Zarr v3"
    ),
    "technical.chunk_size": Proof("inner chunk of level 0's `zarr.json`"),
    "technical.shard": Proof("chunk grid of level 0's `zarr.json`"),
    "technical.global_mean": Proof("counted again from level 0", _DAMAGED, deep=True),
    "technical.global_min": Proof("counted again from level 0", _DAMAGED, deep=True),
    "technical.global_max": Proof("counted again from level 0", _DAMAGED, deep=True),
    "technical.std": Proof("", "macroscope writes none"),
    "technical.histogram": Proof("counted again from level 0", _DAMAGED, deep=True),
    "technical.dimensions_nm": Proof("shape times voxel size"),
    "technical.axes": Proof("axes of the OME metadata, dimension names of every level", _NPY),
    "technical.translation": Proof("translation of level 0 in the OME metadata", _NPY),
    "technical.levels": Proof("none where there is no pyramid"),
    "technical.levels[].path": Proof(
        "the OME metadata, the listing and the consolidated metadata name the same levels"
    ),
    "technical.levels[].shape": Proof("the level's `zarr.json`"),
    "technical.levels[].chunk_size": Proof("inner chunk of the level's `zarr.json`"),
    "technical.levels[].shard": Proof("chunk grid of the level's `zarr.json`; every shard listed"),
    "technical.levels[].scale_nm": Proof("the OME metadata"),
    "technical.levels[].translation_nm": Proof("the OME metadata"),
    "provenance.download_url": Proof("", _SOURCE),
    "provenance.processing_pipeline": Proof("", _RUN),
    "provenance.internal_zarr_path": Proof("", _SOURCE),
    "provenance.scale_level": Proof("", _SOURCE),
    "provenance.box": Proof("", _SOURCE),
    "provenance.voxel_size_provenance.source": Proof("", _SOURCE),
    "provenance.voxel_size_provenance.approximate": Proof("", _SOURCE),
    "provenance.stated": Proof("", _SOURCE),
    "provenance.source_files": Proof("", "the record names none"),
    "provenance.source_files[].name": Proof("", _SOURCE),
    "provenance.source_files[].url": Proof("", _SOURCE),
    "provenance.source_files[].key": Proof("a kept raw file is there"),
    "provenance.source_files[].size": Proof("size of the kept raw file", _NOT_KEPT),
    "provenance.source_files[].sha256": Proof("kept raw file, read again", _NOT_KEPT, deep=True),
    "provenance.source_files[].etag": Proof("", _SOURCE),
    "provenance.source_files[].last_modified": Proof("", _SOURCE),
    "provenance.source_files[].publisher_checksum": Proof(
        "kept raw file, read again", _NOT_KEPT, deep=True
    ),
    "provenance.source_files[].notes": Proof("", _SOURCE),
    "provenance.settings": Proof("", _RUN),
    "provenance.repairs": Proof("", _RUN),
    "provenance.repairs[].at": Proof("", _RUN),
    "provenance.repairs[].by": Proof("", _RUN),
    "provenance.repairs[].files": Proof("", _RUN),
    "provenance.software": Proof("", _RUN),
    "provenance.store_requests": Proof("", _RUN),
    "provenance.requests": Proof("", _RUN),
    "provenance.bytes": Proof("", _RUN),
    "provenance.run": Proof("", _RUN),
    "provenance.seconds": Proof("", _RUN),
    "quality.completeness_score": Proof(
        "1 where no chunk is missing, below where one is; what the missing chunks make of a whole "
        "number of chunks"
    ),
    "quality.missing_chunks": Proof("as many as are missing in all, or the first 1000"),
    "quality.missing_chunks_total": Proof(
        "chunks that the indices of level 0 leave out",
        "the holes were filled and encoded, as for every source that is not copied chunk by chunk",
        deep=True,
    ),
    "quality.damaged": Proof("nothing is damaged that was found to be, and not made anew"),
    "quality.notes": Proof("", _RUN),
    "files.volume": Proof("it is there, and every file of it is listed"),
    "files.record": Proof("where the record lies"),
    "files.preview": Proof("it is there"),
    "files.preview_sha256": Proof("the picture, read again", "there is no picture", deep=True),
    "files.sums": Proof("every listed file, read again", "a file of the volume is damaged", True),
    "files.raw": Proof("every one is there"),
    "additional_metadata": Proof("", _WORDS),
}
