"""``macroscope verify``: a store, re-proven from its records, and repaired where that is asked."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.commands.options import ended_by_signals, stand_ins
from flows.credentials import store_settings
from lib.config.manager import ConfigManager, LoadedSettings
from lib.errors import ConfigError, MacroscopeError, StoppedError
from lib.ingest.context import VolumeRequest
from lib.ingest.repair.volume import Repair, holder_here, note_damage, order_again, repair_volume
from lib.present.output import say, say_json
from lib.records.manager import MetadataManager
from lib.storage.base import Store
from lib.storage.local_lock import scratch_folder
from lib.storage.open import is_remote, open_store
from lib.verify.findings import Facts
from lib.verify.volume import NO_RECORD, Verdict, require_proof, verify_record, verify_store

_BY = "macroscope verify --repair"


def verify_command(
    place: str | None,
    *,
    deep: bool | None,
    as_json: bool,
    sources: list[str] | None = None,
    repair: bool = False,
) -> int:
    """Print a line for each record and each volume without one; returns 1 where anything is wrong.

    What is damaged is noted in its record, so that a run, too, knows what to make anew.

    Parameters
    ----------
    repair
        Make anew what is damaged, and nothing else.

    Raises
    ------
    NothingThereError
        There is nothing to prove.
    """
    if repair and deep is False:
        raise ConfigError("--repair contradicts --quick: it reads every byte", location="repair")
    loaded = ConfigManager().load()
    uri = place or loaded.settings.data_dir
    store = open_store(uri, store_settings(loaded))
    digests = repair or (not is_remote(uri) if deep is None else deep)
    with ended_by_signals(), ExitStack() as stack:
        proven = list(verify_store(store, digests=digests, sources=sources or ()))
        require_proof(store, proven, sources or ())
        mender = _Mender(store, loaded, stack)
        looked_at = [(mender.mend if repair else mender.note)(verdict) for verdict in proven]
    verdicts = [verdict for verdict, _ in looked_at]
    wrong = [verdict for verdict in verdicts if verdict.problems]
    if as_json:
        rows = [_row(verdict, repaired) for verdict, repaired in looked_at]
        say_json({"store": store.uri, "digests": digests, "records": rows})
        return 1 if wrong else 0
    for verdict, repaired in looked_at:
        mark = "wrong" if verdict.problems else "ok"
        say(f"{mark:<6} {verdict.record_key} ({verdict.status}){_counted(verdict.facts)}")
        if repaired is not None:
            say(f"       {repaired.in_words()}")
            for key, origin in repaired.made.items():
                say(f"       {key} (from: {origin})")
        for problem in verdict.problems:
            say(f"       {problem}")
    records = [verdict for verdict in verdicts if verdict.status != NO_RECORD]
    bare = f", {len(verdicts) - len(records)} volumes without one" * (len(records) < len(verdicts))
    say(f"{len(records)} records{bare}, {len(wrong)} with problems, in {store.uri}")
    return 1 if wrong else 0


class _Mender:
    """Notes damage in records, or repairs it; archives are asked where only they can help."""

    def __init__(self, store: Store, loaded: LoadedSettings, stack: ExitStack) -> None:
        self._store, self._loaded, self._stack = store, loaded, stack
        self._holder = holder_here("macroscope verify")

    def note(self, verdict: Verdict) -> tuple[Verdict, None]:
        """Write into the record what was found damaged, where it can be written."""
        if not verdict.damaged:
            return verdict, None
        try:
            with self._store.lock(verdict.volume_key, self._holder):
                note_damage(self._store, verdict.record_key, verdict.damaged)
        except StoppedError:
            raise
        except MacroscopeError as error:
            told = f"this could not be noted in the record: {error}"
            return replace(verdict, problems=(*verdict.problems, told)), None
        return verdict, None

    def mend(self, verdict: Verdict) -> tuple[Verdict, Repair | None]:
        """Make anew what is damaged; a volume that cannot be repaired keeps no other from it."""
        if not (verdict.damaged or verdict.noted):
            return verdict, None
        with scratch_folder("repair") as scratch:
            try:
                with self._store.lock(verdict.volume_key, self._holder):
                    repaired = repair_volume(
                        self._store,
                        verdict.record_key,
                        lambda: self._request(verdict.record_key, scratch),
                        by=_BY,
                        volume_key=verdict.volume_key,
                    )
            except StoppedError:
                raise
            except MacroscopeError as error:
                told = f"not repaired: {error}"
                return replace(verdict, problems=(*verdict.problems, told)), None
        after = verify_record(self._store, verdict.record_key, digests=False)
        problems = tuple(dict.fromkeys([*repaired.problems, *after.problems]))
        return replace(after, problems=problems), repaired

    def _request(self, record_key: str, scratch: Path) -> VolumeRequest:
        if self._loaded.needs_samples:
            self._stack.enter_context(stand_ins(self._loaded))
            self._loaded = ConfigManager().load()
        record = MetadataManager(self._store).load(record_key)
        destination = store_settings(self._loaded)
        return order_again(record, self._loaded, self._store, destination, scratch)


def _row(verdict: Verdict, repaired: Repair | None) -> dict[str, Any]:
    facts = verdict.facts
    return {
        "record": verdict.record_key,
        "status": verdict.status,
        "problems": list(verdict.problems),
        "damaged": dict(verdict.damaged),
        "repaired": dict(repaired.made) if repaired else {},
        "proven": list(facts.proven),
        "not_read": list(facts.unread),
        "not_provable": dict(facts.not_provable),
    }


def _counted(facts: Facts) -> str:
    """``: 41 facts proven, 20 not provable``; nothing for records that promise no volume."""
    if not (facts.proven or facts.unread or facts.not_provable):
        return ""
    unread = f", {len(facts.unread)} with --deep only" if facts.unread else ""
    return f": {len(facts.proven)} facts proven{unread}, {len(facts.not_provable)} not provable"
