"""What Prefect shows: of a source its plan, records and result; of the store its catalogue."""

from __future__ import annotations

import re
import time
from uuid import UUID

from prefect import task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from lib.errors import MacroscopeError
from lib.ingest.context import VolumeRequest, volume_context
from lib.ingest.costs import VolumeCost, in_words, row_of
from lib.ingest.previews import stored_picture
from lib.ingest.result import ProcessingResult, VolumeResult
from lib.present.formatting import shape_text, size_text, voxel_text
from lib.present.report import present
from lib.present.rows import how_to_cite, rows
from lib.records.catalogue import CatalogResult, consolidate, forget_old
from lib.records.lifecycle import RecordDict
from lib.records.manager import MetadataManager
from lib.records.model import Record
from lib.safety import digest
from lib.storage.base import StoreSettings
from lib.storage.open import open_store
from tasks.outage import show

RESULT_KEY = "result"
_PICTURE_WIDTH = 640  # pixels
_RUN_PICTURE_WIDTH = 360  # where there are many
MOST_PICTURES = 24
_SECONDS_BETWEEN_UPDATES = 2.0


def artifact_key(*words: str) -> str:
    """Lower case, digits and dashes, as Prefect wants its artifact keys."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


def volume_artifact_key(kind: str, source: str, name: str) -> str:
    """One key for each volume: two names may differ in nothing that such a key can hold."""
    return artifact_key(kind, source, name, digest(source, name))


def show_plan(source: str, costs: list[VolumeCost]) -> None:
    """What is about to be fetched and what it will cost, under one key for each source."""
    create_table_artifact(
        [row_of(cost) for cost in costs],
        key=artifact_key("plan", source),
        description=f"What {source} will cost. {in_words(costs)}",
    )


def show_record(request: VolumeRequest, record: RecordDict) -> None:
    """The finished record with its picture, one key a volume, so that the UI shows its history."""
    store = volume_context(request).store
    picture = stored_picture(store, record, _PICTURE_WIDTH)
    read = Record.read(record)
    shown = rows(read, "artifact")
    lines = [f"## {read.title}", ""]
    if picture is not None:
        lines += [f"![Middle planes of {read.name}]({picture})", ""]
    lines += ["| | |", "|---|---|"]
    lines += [f"| **{row.label}** | {_cell(row.text, code=row.code)} |" for row in shown]
    lines += [f"| **Cite as** | {_cell(how_to_cite(read))} |"]
    lines += [f"| **Stored at** | {_cell(f'{store.uri}/{read.files.volume}', code=True)} |"]
    stored = size_text(read.technical.file_size_bytes)
    create_markdown_artifact(
        "\n".join(lines),
        key=volume_artifact_key("record", read.source, read.name),
        description=f"{read.source} {read.source_id}: {shape_text(read.shape_zyx)}, "
        f"{read.core.data_type}, {voxel_text(read.voxel_nm_zyx, read.assumed_axes)}, {stored}",
    )


def _cell(text: str, *, code: bool = False) -> str:
    """A text of the archive's as one cell of a table."""
    cell = " ".join(text.split()).replace("|", "\\|")
    return f"`{cell}`" if code else cell


class ProgressBar:
    """A volume's progress artifact; Prefect is told at most every two seconds."""

    def __init__(self, request: VolumeRequest) -> None:
        plan = request.plan
        self._key = volume_artifact_key("progress", plan.source, plan.name)
        self._words = f"{plan.source} {plan.source_id}: how much of level 0 is made"
        self._artifact: UUID | None = None
        self._told = time.monotonic()
        self._tell(0.0)

    def update(self, share: float) -> None:
        """Some of the shards are done (0 to 1); the end is always told."""
        now = time.monotonic()
        if share < 1 and now - self._told < _SECONDS_BETWEEN_UPDATES:
            return
        self._told = now
        self._tell(share)

    def _tell(self, share: float) -> None:
        """Change the artifact; one that the server does not know (any more) is made by the next."""
        known, percent = self._artifact, 100 * share

        def told() -> object:
            if known is None:
                return create_progress_artifact(percent, self._key, self._words)
            return update_progress_artifact(known, percent)

        made = show(told)
        self._artifact = made if isinstance(made, UUID) else None


def show_result(result: ProcessingResult) -> None:
    """A table of what the source came to; a parent in another process reads it back."""
    rows = [volume.model_dump(mode="json") for volume in result.volumes]
    create_table_artifact(
        rows,
        key=artifact_key(RESULT_KEY, result.source),
        description=f"What {result.source} came to: {result.in_words()}",
    )


def run_in_words(results: list[ProcessingResult]) -> str:
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
            "source": result.label,
            "accession": result.source_id,
            "status": "complete" if result.success else "failed",
            "volumes": result.files_processed,
            "MB": round(result.total_size_bytes / 1e6, 3),
            "from s": round(spans.get(result.label, (0.0, 0.0))[0], 2),
            "to s": round(spans.get(result.label, (0.0, 0.0))[1], 2),
            "errors": "; ".join(result.errors),
        }
        for result in results
    ]
    described = f"{run_in_words(results)}, mode {mode}"
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
            f"{voxel_text(volume.voxel_nm_zyx, volume.assumed_axes)}, "
            f"{size_text(volume.stored_bytes)}",
            "",
        ]
    if len(done) > MOST_PICTURES:
        lines.append(f"And {len(done) - MOST_PICTURES} more: the report shows them all.")
    create_markdown_artifact(
        "\n".join(lines) or "No volume is complete.",
        key=artifact_key("volumes"),
        description=run_in_words(results),
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
    return stored_picture(store, record, _RUN_PICTURE_WIDTH)


@task(name="consolidate", tags=["record"])
def catalogue(
    data_uri: str, metadata_uri: str, store_settings: StoreSettings, keep: int
) -> CatalogResult:
    """Read and validate every record below `data_uri`, write what was found, and present it.

    Parameters
    ----------
    keep
        How many catalogues and reports stay; older ones are deleted.
    """
    data_store = open_store(data_uri, store_settings)
    metadata_store = open_store(metadata_uri, store_settings)
    result = consolidate(data_store, metadata_store)
    report = present(data_store, metadata_store, result)
    forget_old(metadata_store, keep)
    rows = [
        {"what": "valid records", "value": str(result.valid)},
        {"what": "invalid records", "value": str(result.invalid)},
        {"what": "catalogue", "value": f"{metadata_store.uri}/{result.catalog_key}"},
        {"what": "validation", "value": f"{metadata_store.uri}/{result.report_key}"},
        {"what": "report", "value": f"{metadata_store.uri}/{report}"},
    ]
    words = f"{result.valid} valid records in {data_store.uri}, {result.invalid} invalid"
    show(lambda: create_table_artifact(rows, key=artifact_key("catalogue"), description=words))
    return result
