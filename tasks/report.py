"""The table of a whole run."""

from __future__ import annotations

from prefect.artifacts import create_table_artifact

from lib.ingest.result import ProcessingResult
from tasks.record import artifact_key


def show_run(
    mode: str, results: list[ProcessingResult], times: list[tuple[str, float, float]]
) -> None:
    """One row for each source: what it came to, and when it ran (seconds from the run's start)."""
    zero = min((start for _, start, _ in times), default=0.0)
    spans = {source: (start - zero, end - zero) for source, start, end in times}
    rows = [
        {
            "source": result.source,
            "status": "complete" if result.success else "failed",
            "volumes": result.files_processed,
            "MB": round(result.total_size_bytes / 1e6, 3),
            "from s": round(spans.get(result.source, (0.0, 0.0))[0], 2),
            "to s": round(spans.get(result.source, (0.0, 0.0))[1], 2),
            "errors": "; ".join(result.errors),
        }
        for result in results
    ]
    create_table_artifact(rows, key=artifact_key("run"), description=f"Sources, mode {mode}")
