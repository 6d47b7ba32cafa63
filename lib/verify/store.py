"""Re-proving a whole store: every record, every complete volume, and no volume without a record."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lib.errors import MacroscopeError, NothingThereError
from lib.records.lifecycle import RecordDict
from lib.records.manager import read_json, schema_errors
from lib.storage.base import Store
from lib.storage.walk import contents, record_of, why_nothing
from lib.verify.findings import Facts
from lib.verify.volume import examine

NO_RECORD = "no record"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one record and its volume; no problems means that all of it holds.

    Attributes
    ----------
    record_key
        Key of the record; of the volume, where it has none.
    status
        The record's, ``unreadable``, or ``no record``.
    facts
        What the record states, sorted by whether it was proven; of complete records only.
    damaged
        Key of each file that can be made anew -> what is wrong with it.
    noted
        The record says that files were found damaged before.
    volume_key
        Source and name, as a lock calls the volume; of complete records only.
    """

    record_key: str
    status: str
    problems: tuple[str, ...]
    facts: Facts = field(default_factory=Facts)
    damaged: Mapping[str, str] = field(default_factory=dict)
    noted: bool = False
    volume_key: str = ""

    @property
    def can_be_repaired(self) -> bool:
        """Whether something is damaged, or said to be, that can be made anew."""
        return bool(self.damaged) or self.noted


def verify_store(
    store: Store, prefix: str = "", *, digests: bool = True, sources: Collection[str] = ()
) -> Iterator[Verdict]:
    """Look at every record below a prefix, and re-prove the volumes that are said to be complete.

    Records of other statuses promise no volume; only their form is looked at. A volume for which
    no record vouches is told as such.

    Parameters
    ----------
    sources
        Only what lies in the folders of these sources.
    """
    found = contents(store, prefix)
    records = [item for item in found.records if _chosen(item.key, sources)]
    volumes = [key for key in found.volumes if _chosen(key, sources)]
    vouched = {item.key for item in records}
    for item in records:
        try:
            record = read_json(store, item.key, item.size)
        except MacroscopeError as error:
            yield _unreadable(item.key, error)
            continue
        if isinstance(volume := (record.get("files") or {}).get("volume"), str):
            vouched.add(record_of(volume))
        yield _verdict(store, item.key, record, digests=digests)
    for key in volumes:
        if record_of(key) not in vouched:
            missing = f"{key} has no record ({record_of(key)}): nothing says what it should be"
            yield Verdict(key, NO_RECORD, (missing,))


def verify_record(store: Store, key: str, *, digests: bool = True) -> Verdict:
    """The same of one record."""
    try:
        return _verdict(store, key, read_json(store, key), digests=digests)
    except MacroscopeError as error:
        return _unreadable(key, error)


def _unreadable(key: str, error: MacroscopeError) -> Verdict:
    return Verdict(key, "unreadable", (str(error),))


def _verdict(store: Store, key: str, record: RecordDict, *, digests: bool) -> Verdict:
    status = str(record.get("status", "unknown"))
    problems = list(schema_errors(record))
    if problems or status != "complete" or not record.get("schema_version"):
        return Verdict(key, status, tuple(problems))
    found = examine(store, record, deep=digests, key=key)
    facts = found.summary(record, deep=digests)
    return Verdict(
        key,
        status,
        tuple(found.problems),
        facts,
        found.damaged,
        noted=bool(record["metadata"]["quality"].get("damaged")),
        volume_key=f"{record['source']}/{record['name']}",
    )


def _source_of(key: str) -> str:
    return key.partition("/")[0] if "/" in key else ""


def _chosen(key: str, sources: Collection[str]) -> bool:
    return not sources or _source_of(key) in sources


def require_proof(store: Store, verdicts: Sequence[Verdict], sources: Collection[str] = ()) -> None:
    """Refuse to call a store right of which nothing was looked at.

    Raises
    ------
    NothingThereError
        There is neither a record nor a volume; or none of a source that was asked for.
    """
    looked_at = {_source_of(verdict.record_key) for verdict in verdicts}
    nothing = [source for source in sources if source not in looked_at]
    if verdicts and not nothing:
        return
    found = contents(store)
    there = sorted(
        {_source_of(item.key) for item in found.records} | {*map(_source_of, found.volumes)}
    )
    if not there:
        raise NothingThereError(
            f"there is nothing to prove: {why_nothing(store, found)}", location=store.uri
        )
    raise NothingThereError(
        f"there is nothing to prove of {', '.join(nothing)}",
        location=store.uri,
        advice=f"The store holds {', '.join(there)}",
    )
