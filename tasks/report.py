"""What a whole run came to: a table of its sources, and the pictures of its volumes."""

from __future__ import annotations

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from lib.errors import MacroscopeError
from lib.ingest.illustrate import stored_picture
from lib.ingest.result import ProcessingResult, VolumeResult
from lib.present.words import shape_text, size_text, voxel_text
from lib.records.manager import MetadataManager
from lib.storage.open import open_store
from lib.storage.settings import StoreSettings
from tasks.artifacts import artifact_key

MOST_PICTURES = 24
_PICTURE_WIDTH = 360  # pixels


def in_words(results: list[ProcessingResult]) -> str:
    """The run in one line: ``5 of 5 sources complete, 5 volumes, 1.2 MB``."""
    good = sum(result.success for result in results)
    volumes = sum(result.files_processed for result in results)
    stored = size_text(sum(result.total_size_bytes for result in results))
    return f"{good} of {len(results)} sources without an error, {volumes} volumes, {stored}"


def show_run(
    mode: str, results: list[ProcessingResult], times: list[tuple[str, float, float]]
) -> None:
    """One row for each source: what it came to, and when it ran (seconds from the run's start)."""
    zero = min((start for _, start, _ in times), default=0.0)
    spans = {source: (start - zero, end - zero) for source, start, end in times}
    rows = [
        {
            "source": result.source,
            "accession": result.source_id,
            "status": "complete" if result.success else "failed",
            "volumes": result.files_processed,
            "MB": round(result.total_size_bytes / 1e6, 3),
            "from s": round(spans.get(result.source, (0.0, 0.0))[0], 2),
            "to s": round(spans.get(result.source, (0.0, 0.0))[1], 2),
            "errors": "; ".join(result.errors),
        }
        for result in results
    ]
    described = f"{in_words(results)}, mode {mode}"
    create_table_artifact(rows, key=artifact_key("run"), description=described)


def show_volumes(results: list[ProcessingResult], store_settings: StoreSettings) -> None:
    """The pictures of what there is now, those volumes included that were complete before."""
    done = [
        (result.source, volume)
        for result in sorted(results, key=lambda result: result.source)
        for volume in result.volumes
        if volume.status == "complete"
    ]
    lines = []
    for source, volume in done[:MOST_PICTURES]:
        picture = _picture(volume, store_settings)
        lines += [
            f"### {source} {volume.source_id}",
            "",
            f"![Middle planes of {volume.name}]({picture})" if picture else "No picture.",
            "",
            f"{shape_text(volume.shape_zyx)} voxels (z, y, x) of "
            f"{voxel_text(volume.voxel_nm_zyx)}, {size_text(volume.stored_bytes)}",
            "",
        ]
    if len(done) > MOST_PICTURES:
        lines.append(f"And {len(done) - MOST_PICTURES} more: the report shows them all.")
    create_markdown_artifact(
        "\n".join(lines) or "No volume is complete.",
        key=artifact_key("volumes"),
        description=in_words(results),
    )


def _picture(volume: VolumeResult, store_settings: StoreSettings) -> str | None:
    if volume.metadata_path is None:
        return None
    root, source, name = volume.metadata_path.rsplit("/", 2)
    try:
        store = open_store(root, store_settings)
        record = MetadataManager(store).load(f"{source}/{name}")
    except MacroscopeError:  # a picture is not worth a failed run
        return None
    return stored_picture(store, record, _PICTURE_WIDTH)
