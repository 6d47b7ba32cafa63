"""Records and what Prefect shows of them: the one place where a volume's state is written."""

from __future__ import annotations

import re
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from lib import stopping
from lib.archives.base import VolumePlan
from lib.errors import IntegrityError, MacroscopeError, NotFoundError, RecordError, StoppedError
from lib.ingest import describe
from lib.ingest.order import WorkOrder
from lib.ingest.result import ProcessingResult, VolumeResult
from lib.ingest.stages import Made, Sources
from lib.ingest.workplace import workplace
from lib.metadata_manager import MetadataManager
from lib.records import Record, record_key
from lib.verify.sums import is_intact
from lib.volumes.job import VolumeJob


class Keeper:
    """Keeps one volume's record through one run. The caller holds the volume's lock."""

    def __init__(self, order: WorkOrder, run_name: str) -> None:
        self._order, self._run = order, run_name
        self._record: Record | None = None

    def complete_already(self) -> VolumeResult | None:
        """The result of an earlier run, if it made this very volume and it is still whole."""
        plan, store = self._order.plan, workplace(self._order).store
        try:
            record = self._manager().load(record_key(plan.source, plan.name))
        except (NotFoundError, RecordError):
            return None
        if record.get("status") != "complete" or self._identity() != _identity_of(record):
            return None
        try:
            is_intact(store, record)
        except (IntegrityError, NotFoundError):
            return None
        technical = record["metadata"]["technical"]
        return self._result("complete", made=False, stored_bytes=technical["file_size_bytes"])

    def begin(self) -> None:
        """pending: planned, nothing fetched."""
        plan = self._order.plan
        self._record = self._manager().begin(
            plan.source,
            plan.source_id,
            plan.name,
            core=describe.core(plan),
            provenance={**describe.provenance(plan), "run": self._run},
            quality={"notes": list(plan.notes)},
            additional_metadata={"identity": self._identity(), **plan.about.extra},
        )

    def processing(self, job: VolumeJob) -> None:
        """processing: files are there, shards are being made."""
        self._move(
            "processing",
            progress={"current_step": "convert"},
            additional_metadata={"fingerprint": job.fingerprint},
        )

    def progress(self, share: float) -> None:
        """Some of the shards are done (0 to 1)."""
        if self._record is not None:
            self._record = self._manager().progress(self._record, 95 * share, "convert")

    def saving(self) -> None:
        """saving-data: all shards are there, being proven and published."""
        self._move("saving-data", progress={"percentage": 95, "current_step": "verify"})

    def complete(self, job: VolumeJob, made: Made, seconds: float) -> VolumeResult:
        """complete: published and proven."""
        finished, plan = made.finished, self._order.plan
        store = workplace(self._order).store
        self._move(
            "complete",
            core=describe.core(plan),
            technical=describe.technical(job, finished),
            provenance=describe.made_provenance(plan, made, seconds, self._run),
            quality=describe.quality(plan, made),
            files={
                "volume": finished.volume_key,
                "sums": finished.sums_key,
                "raw": list(made.raw_keys),
            },
            progress={"current_step": None},
        )
        show_record(store.uri, self._record or {})
        return self._result("complete", stored_bytes=finished.stored_bytes, seconds=seconds)

    def failed(self, error: BaseException, seconds: float) -> VolumeResult:
        """failed or cancelled, with the reason. Never hides the error it reports."""
        stopped = not isinstance(error, Exception) or isinstance(error, StoppedError)
        stopped = stopped or stopping.stop_requested()
        status = "cancelled" if stopped else "failed"
        if self._record is not None and self._record["status"] not in ("complete", "failed"):
            if not isinstance(error, MacroscopeError) and stopped:
                error = StoppedError("the run was asked to stop")
            self._move(status, error=error)
        return self._result(status, seconds=seconds, error=_sentence(error))

    def _move(self, status: str, **changes: Any) -> None:
        if self._record is None:
            raise RecordError("the record was not begun", location=self._order.volume_key)
        self._record = self._manager().move(self._record, status, **changes)

    def _manager(self) -> MetadataManager:
        return MetadataManager(workplace(self._order).store, secrets=self._order.secrets)

    def _identity(self) -> str:
        return self._order.identity

    def _result(self, status: str, **more: Any) -> VolumeResult:
        plan = self._order.plan
        key = record_key(plan.source, plan.name)
        known = self._record is not None or status == "complete"
        return VolumeResult(
            name=plan.name,
            source_id=plan.source_id,
            status=status,
            shape_zyx=plan.shape_zyx,
            voxel_nm_zyx=plan.voxel_nm_zyx,
            metadata_path=f"{workplace(self._order).store.uri}/{key}" if known else None,
            **more,
        )


def not_made(plan: VolumePlan, status: str) -> VolumeResult:
    """A volume that this run only planned, or skipped for its size."""
    return VolumeResult(
        name=plan.name,
        source_id=plan.source_id,
        status=status,
        shape_zyx=plan.shape_zyx,
        voxel_nm_zyx=plan.voxel_nm_zyx,
        made=False,
    )


def artifact_key(*words: str) -> str:
    """Lower case, digits and dashes, as Prefect wants its artifact keys."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


def show_plan(source: str, sources: Sources) -> None:
    """What is about to be fetched, as a table under one key for each source."""
    rows = [
        {
            "volume": plan.name,
            "accession": plan.source_id,
            "shape z,y,x": " x ".join(map(str, plan.shape_zyx)),
            "dtype": plan.dtype,
            "voxel nm z,y,x": " x ".join(f"{v:g}" for v in plan.voxel_nm_zyx),
            "level": plan.scale_level or "",
            "licence": plan.about.licence or "not stated",
            "download MB": round(plan.download_bytes / 1e6, 3),
            "requests": plan.download_requests,
        }
        for plan in sources.plans
    ]
    create_table_artifact(rows, key=artifact_key("plan", source), description=f"Plan of {source}")


def show_record(uri: str, record: Record) -> None:
    """The finished record, under one key for each volume, so that the UI shows its history."""
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
    create_markdown_artifact(
        "\n".join(lines),
        key=artifact_key("record", record["source"], record["name"]),
        description=f"Metadata record of {record['source']}/{record['name']}",
    )


def show_result(result: ProcessingResult) -> None:
    """A table of what the source came to."""
    rows = [
        {
            "volume": volume.name,
            "status": volume.status,
            "MB": round(volume.stored_bytes / 1e6, 3),
            "seconds": round(volume.seconds, 2),
            "error": volume.error or "",
        }
        for volume in result.volumes
    ]
    create_table_artifact(
        rows, key=artifact_key("result", result.source), description=f"Volumes of {result.source}"
    )


def _sentence(error: BaseException) -> str:
    return str(error) if isinstance(error, MacroscopeError) else f"{type(error).__name__}: {error}"


def _identity_of(record: Record) -> Any:
    return record.get("additional_metadata", {}).get("identity")
