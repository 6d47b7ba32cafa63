"""A volume's record through one run: the one place where its state is written."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from lib.concurrency import cancel as stopping
from lib.errors import (
    DestinationError,
    IntegrityError,
    MacroscopeError,
    NotFoundError,
    RecordError,
    StoppedError,
    in_one_sentence,
)
from lib.ingest import describe, naming
from lib.ingest.context import VolumeRequest, volume_context
from lib.ingest.repair.volume import repair_volume
from lib.ingest.result import VolumeResult
from lib.ingest.stages import IngestedVolume
from lib.plan import VolumePlan
from lib.records.lifecycle import (
    FINAL,
    Key,
    RecordDict,
    member_records,
    read_json,
    record_key,
    stored_bytes,
)
from lib.records.manager import MetadataManager
from lib.storage.base import Store
from lib.storage.keys import check_key, record_of
from lib.verify.beside import is_intact
from lib.volumes.job import VolumeJob

_log = logging.getLogger(__name__)
_told = logging.getLogger("macroscope")  # what a run has to tell, see `flows.logs`


class RecordTracker:
    """Keeps one volume's record through one run. The caller holds the volume's lock."""

    def __init__(self, request: VolumeRequest, run_name: str) -> None:
        self._request, self._run = request, run_name
        self._record: RecordDict | None = None
        self._made: tuple[Store, MetadataManager] | None = None

    def complete_already(self) -> VolumeResult | None:
        """The result of an earlier run, if it made this very volume.

        One that is known to be damaged is repaired first; where that cannot be, it is made anew.

        Raises
        ------
        SourceChangedError, TransportError, DestinationError, ...
            It is damaged, and cannot be repaired now; nothing was touched.
        """
        plan, store = self._request.plan, volume_context(self._request).store
        try:
            record = self._manager().load(record_key(plan.source, plan.name))
        except (NotFoundError, RecordError):
            return None
        request = self._request.making(record.get("additional_metadata", {}).get("identity"))
        if record.get("status") != "complete" or request is None:
            return None
        try:
            for key in ("volume", "sums"):
                check_key(record["files"].get(key) or self._request.volume_key)
        except DestinationError as error:  # an edit by hand must not block the volume for ever
            _log.warning("%s is made anew, its record was changed: %s", plan.name, error)
            return None
        try:
            for one in (record, *member_records(record)):
                is_intact(store, one)
        except (IntegrityError, NotFoundError) as error:
            return self._repaired(record, request, error)
        return self._result("complete", made=False, stored_bytes=stored_bytes(record))

    def _repaired(
        self, record: RecordDict, request: VolumeRequest, damage: MacroscopeError
    ) -> VolumeResult | None:
        """The result of making anew what is damaged; None where all has to be made anew.

        Parameters
        ----------
        request
            What makes the very volume of the record.
        """
        began, volume = time.monotonic(), self._request.volume_key
        _log.warning(
            "%s is complete, and damaged; what is damaged is made anew: %s", volume, damage
        )
        try:
            repair = repair_volume(
                volume_context(self._request).store,
                record_key(record["source"], record["name"]),
                lambda: request,
                by=self._run,
                volume_key=volume,
                secrets=self._request.secrets,
            )
        except IntegrityError as error:
            _log.warning("%s cannot be repaired, and is made anew: %s", volume, error)
            return None
        if repair.problems:
            _log.warning("%s is made anew: %s", volume, "; ".join(repair.problems[:3]))
            return None
        _log.warning("%s: %s", volume, repair.in_words())
        return self._result(
            "complete",
            repaired_files=len(repair.made),
            stored_bytes=stored_bytes(record),
            seconds=time.monotonic() - began,
        )

    def begin(self) -> None:
        """pending: planned, nothing fetched."""
        plan = self._request.plan
        self._record = self._manager().begin(
            plan.source,
            plan.source_id,
            plan.name,
            core=describe.core(plan),
            technical=describe.placed(plan),
            provenance={**describe.provenance(plan), **self._made_by()},
            quality={"notes": describe.notes(plan)},
            additional_metadata={
                **plan.about.extra,
                "identity": self._request.identity,
                **naming.stated_source(plan),
            },
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

    def complete(self, job: VolumeJob, made: IngestedVolume, seconds: float) -> VolumeResult:
        """complete: published and proven."""
        published, plan = made.published, self._request.plan
        self._move(
            "complete",
            core=describe.core(plan),
            technical=describe.technical(job, published)
            | ({"label_images": [one.plan.name for one in made.members]} if made.members else {}),
            provenance={
                **describe.made_provenance(plan, made, seconds, self._run),
                **self._made_by(),
            },
            quality=describe.quality(plan, made),
            files={
                "volume": Key(published.volume_key),
                "sums": Key(published.sums_key),
                "preview": None if made.preview is None else Key(made.preview[0]),
                "preview_sha256": None if made.preview is None else made.preview[1],
                "raw": (Key(key) for key in made.raw_keys),
            },
            progress={"current_step": None},
            **({"members": [describe.member(one) for one in made.members]} if made.members else {}),
        )
        return self._result("complete", stored_bytes=made.stored_bytes, seconds=seconds)

    def labels_replaced(self, volumes: Sequence[str]) -> None:
        """Say of label images which went with the volume that was replaced that they are not there.

        Their records stood at complete. Those in the image's own record are made with it.
        """
        store = volume_context(self._request).store
        for volume in volumes:
            if store.size(f"{volume}/zarr.json") is not None:
                continue
            gone = NotFoundError(
                "the image of these labels was made anew, and they went with what it replaced",
                archive=self._request.plan.source,
                location=volume,
                advice="Run the image together with its labels",
            )
            try:
                record = read_json(store, record_of(volume))
                if record["status"] == "complete" and record["files"]["volume"] == volume:
                    record = self._manager().move(record, "pending")
                    self._manager().move(record, "failed", error=gone)
                    _told.warning("%s", gone)
            except NotFoundError:
                continue  # a class of a crop
            except MacroscopeError as error:
                _log.error("%s: the record could not be written: %s", volume, error)

    def failed(self, error: BaseException, seconds: float) -> VolumeResult:
        """failed or cancelled, with the reason. Never hides the error it reports."""
        stopped = not isinstance(error, Exception) or isinstance(error, StoppedError)
        stopped = stopped or stopping.stop_requested()
        status = "cancelled" if stopped else "failed"
        if stopped and not isinstance(error, StoppedError):
            # what a stop breaks off (a request, a wait) is no fault of the archive
            error = StoppedError("the run was asked to stop")
        if isinstance(error, MacroscopeError):
            error.located(archive=self._request.plan.source, location=self._request.volume_key)
        if self._record is not None and self._record["status"] not in FINAL:
            try:
                self._move(status, error=error)
            except MacroscopeError as second:
                _log.error(
                    "%s: the record could not be written: %s", self._request.volume_key, second
                )
        return self._result(status, seconds=seconds, error=in_one_sentence(error))

    @property
    def record(self) -> RecordDict:
        """The record as it was last written; empty before `begin`."""
        return self._record or {}

    def _move(self, status: str, **changes: Any) -> None:
        if self._record is None:
            raise RecordError("the record was not begun", location=self._request.volume_key)
        self._record = self._manager().move(self._record, status, **changes)

    def _manager(self) -> MetadataManager:
        """The same for the whole run: what it has written it need not read and check again."""
        store = volume_context(self._request).store
        if self._made is None or self._made[0] is not store:
            manager = MetadataManager(store, secrets=self._request.secrets)
            self._made = store, manager
        return self._made[1]

    def _made_by(self) -> dict[str, Any]:
        """What a repair needs to make the volume once more."""
        return {"run": self._run, "settings": self._request.config.choices()}

    def _result(self, status: str, **more: Any) -> VolumeResult:
        plan = self._request.plan
        key = record_key(plan.source, plan.name)
        known = self._record is not None or status == "complete"
        path = f"{volume_context(self._request).store.uri}/{key}" if known else None
        return volume_result(plan, status, metadata_path=path, **more)


def volume_result(plan: VolumePlan, status: str, **more: Any) -> VolumeResult:
    """What a run came to for the volume of a plan; `more` are further fields."""
    return VolumeResult(
        name=plan.name,
        source_id=plan.source_id,
        status=status,
        shape_zyx=plan.shape_zyx,
        voxel_nm_zyx=plan.voxel_nm_zyx,
        assumed_axes=plan.assumed_axes,
        **more,
    )
