"""What was found of one volume: problems, facts proven, facts that nothing here can prove."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lib.records.fields import Proof
from lib.records.lifecycle import NO_CHECKSUM
from lib.records.model import record_fields

PROOFS: Mapping[str, Proof] = {
    field.name: proof for field in record_fields() if (proof := field.mark(Proof)) is not None
}
"""How each field of a record is proven, by its dotted name without ``metadata.``."""

_MEMBERS = tuple(f"members[].{name}" for name in ("metadata", "files", "additional_metadata"))
_WHOLE = ("progress", "error", "additional_metadata", "metadata.technical.histogram", *_MEMBERS)
_LENGTHS = {"x", "y", "z"}
_UNKNOWN = Proof("", "a field that this version does not know")


@dataclass(slots=True)
class Findings:
    """Collects what the checks of one record find. A fact is a field that the record states.

    Attributes
    ----------
    problems
        Everything that is wrong, in words.
    damaged
        Key of each file that is absent or not what was written -> what is wrong with it. These
        can be made anew.
    proven, refuted
        Fields whose values were found to hold, or not to.
    """

    problems: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    proven: set[str] = field(default_factory=set)
    refuted: set[str] = field(default_factory=set)

    def hold(self, fact: str, holds: bool, otherwise: str) -> None:
        """A check of one fact ended; `otherwise` says what is wrong where it does not hold."""
        if holds:
            self.proven.add(fact)
        else:
            self.refuted.add(fact)
            self.wrong(otherwise)

    def wrong(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def damage(self, key: str, what: str) -> None:
        """A file that can be made anew is absent or damaged."""
        self.damaged[key] = what
        self.wrong(what)

    def summary(self, record: Mapping[str, Any], *, deep: bool) -> Facts:
        """Every fact that the record states, sorted into what came of it."""
        stated = set(facts_of(record))
        proven = (stated & self.proven) - self.refuted
        unread, never = [], {}
        for fact in sorted(stated - proven - self.refuted):
            proof = PROOFS.get(fact, _UNKNOWN)
            if proof.deep and not deep:
                unread.append(fact)
            else:
                never[fact] = proof.why_not
        return Facts(tuple(sorted(proven)), tuple(unread), never)


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of one record.

    ``unread`` are those that only reading every byte proves; ``not_provable`` says of each why.
    """

    proven: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    not_provable: Mapping[str, str] = field(default_factory=dict)


def facts_of(record: Mapping[str, Any]) -> Iterator[str]:
    """Names of all fields to which a record gives a value, as `PROOFS` has them.

    ``metadata`` is left out of the names, members of lists are ``[]``; null states nothing.
    """
    yield from dict.fromkeys(_facts(record, ""))


def _facts(value: Any, name: str) -> Iterator[str]:
    if value is None or value == NO_CHECKSUM:
        return
    if isinstance(value, Mapping) and name not in _WHOLE and not _is_one(value, name):
        for key, member in value.items():
            yield from _facts(member, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(member, Mapping) for member in value):
        for member in value:
            yield from _facts(member, f"{name}[]")
    else:
        yield name.removeprefix("metadata.")


def _is_one(value: Mapping[str, Any], name: str) -> bool:
    """Whether an object is one fact: lengths along the axes, and counts or versions by name."""
    return (bool(value) and set(value) <= _LENGTHS) or name.removeprefix("metadata.") in PROOFS
