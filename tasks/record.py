"""What Prefect shows of a source: its plan, its volumes' records, what it came to."""

from __future__ import annotations

import base64
import re
import time

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from lib.ingest.costs import Cost, row_of
from lib.ingest.illustrate import small_picture
from lib.ingest.order import WorkOrder
from lib.ingest.result import ProcessingResult
from lib.ingest.workplace import workplace
from lib.records import Record

RESULT_KEY = "result"
_SECONDS_BETWEEN_UPDATES = 2.0


def artifact_key(*words: str) -> str:
    """Lower case, digits and dashes, as Prefect wants its artifact keys."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


def show_plan(source: str, costs: list[Cost]) -> None:
    """What is about to be fetched and what it will cost, under one key for each source."""
    rows = [row_of(cost) for cost in costs]
    create_table_artifact(rows, key=artifact_key("plan", source), description=f"Plan of {source}")


def show_record(order: WorkOrder, record: Record) -> None:
    """The finished record with its picture, one key a volume, so that the UI shows its history."""
    uri = workplace(order).store.uri
    picture = small_picture(order, record["files"]["volume"])
    core, technical = record["metadata"]["core"], record["metadata"]["technical"]
    voxel = core["voxel_size_nm"]
    lines = [
        f"## {core['title'] or record['source_id']}",
        "",
        f"- **volume** `{uri}/{record['files']['volume']}`",
        f"- **shape** z, y, x = {' x '.join(map(str, core['volume_shape']))}, {core['data_type']}",
        f"- **voxel** x, y, z = {voxel['x']:g} x {voxel['y']:g} x {voxel['z']:g} nm",
        f"- **stored** {technical['file_size_bytes'] / 1e6:.3f} MB, {technical['compression']}",
        f"- **sha256** `{technical['sha256']}`",
        f"- **licence** {core['licence'] or 'not stated'}",
        f"- **completeness** {record['metadata']['quality']['completeness_score']:.4f}",
    ]
    if picture is not None:
        encoded = base64.b64encode(picture).decode()
        lines += ["", f"![middle plane of {record['name']}](data:image/png;base64,{encoded})"]
    create_markdown_artifact(
        "\n".join(lines),
        key=artifact_key("record", record["source"], record["name"]),
        description=f"Metadata record of {record['source']}/{record['name']}",
    )


class ProgressBar:
    """A volume's progress artifact; Prefect is told at most every two seconds."""

    def __init__(self, order: WorkOrder) -> None:
        plan = order.plan
        key = artifact_key("progress", plan.source, plan.name)
        words = f"Shards of {plan.source}/{plan.name}"
        self._artifact = create_progress_artifact(0.0, key=key, description=words)
        self._told = time.monotonic()

    def update(self, share: float) -> None:
        """Some of the shards are done (0 to 1); the end is always told."""
        now = time.monotonic()
        if share < 1 and now - self._told < _SECONDS_BETWEEN_UPDATES:
            return
        self._told = now
        update_progress_artifact(self._artifact, 100 * share)  # type: ignore[arg-type]


def show_result(result: ProcessingResult) -> None:
    """A table of what the source came to; a parent in another process reads it back."""
    rows = [volume.model_dump(mode="json") for volume in result.volumes]
    create_table_artifact(
        rows, key=artifact_key(RESULT_KEY, result.source), description=f"Volumes of {result.source}"
    )
