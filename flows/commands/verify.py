"""``macroscope verify``: a store, re-proven from its records."""

from __future__ import annotations

from typing import Any

from flows.credentials import store_settings
from lib.config.manager import ConfigManager
from lib.present.output import say, say_json
from lib.storage.open import is_remote, open_store
from lib.verify.findings import Facts
from lib.verify.store import NO_RECORD, Verdict, require_proof, verify_store


def verify_command(
    place: str | None, *, deep: bool | None, as_json: bool, sources: list[str] | None = None
) -> int:
    """Print a line for each record and each volume without one; returns 1 where anything is wrong.

    Raises
    ------
    NothingThereError
        There is nothing to prove.
    """
    loaded = ConfigManager().load()
    uri = place or loaded.settings.data_dir
    store = open_store(uri, store_settings(loaded))
    digests = not is_remote(uri) if deep is None else deep
    verdicts = list(verify_store(store, digests=digests, sources=sources or ()))
    require_proof(store, verdicts, sources or ())
    wrong = [verdict for verdict in verdicts if verdict.problems]
    if as_json:
        rows = [_row(verdict) for verdict in verdicts]
        say_json({"store": store.uri, "digests": digests, "records": rows})
        return 1 if wrong else 0
    for verdict in verdicts:
        mark = "wrong" if verdict.problems else "ok"
        say(f"{mark:<6} {verdict.record_key} ({verdict.status}){_counted(verdict.facts)}")
        for problem in verdict.problems:
            say(f"       {problem}")
    records = [verdict for verdict in verdicts if verdict.status != NO_RECORD]
    bare = f", {len(verdicts) - len(records)} volumes without one" * (len(records) < len(verdicts))
    say(f"{len(records)} records{bare}, {len(wrong)} with problems, in {store.uri}")
    return 1 if wrong else 0


def _row(verdict: Verdict) -> dict[str, Any]:
    facts = verdict.facts
    return {
        "record": verdict.record_key,
        "status": verdict.status,
        "problems": list(verdict.problems),
        "damaged": dict(verdict.damaged),
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
