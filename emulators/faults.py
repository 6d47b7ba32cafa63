"""Faults by switch: rules that say which requests go wrong, and how.

A rule names a service, a pattern and a kind; the servers ask `FaultRules.fire` for each request
and act on the rule that comes back. The kinds are faults that the real archives, or the libraries
that read them, have been seen to produce.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator

Service = Literal[
    "*", "ftp", "mirror", "gs", "epfl", "empiar", "omero", "dvid", "s3", "destination"
]

HttpKind = Literal[
    "status_403",
    "status_404",
    "status_429",
    "status_500",
    "status_503",
    "s3_error",  # an S3 error of `status` and `code`, as a bucket's own state brings it about
    "reset",  # RST in the middle of the body, or before anything (`before`)
    "stall",  # silence of `seconds` in the middle of the body, or before the answer (`before`)
    "short_body",  # full Content-Length, fewer bytes, orderly close
    "wrong_bytes",  # right length, some bytes inverted
    "ignore_range",  # 200 and the whole body to a Range request
    "html_200",  # an HTML page with status 200
    "missing_json_keys",  # JSON without `keys`, at any depth
    "changed_etag",  # another ETag from the second request of a path on
    "changed_file",  # another ETag and a later time from the second request of a path on
    "other_node",  # a mirror's other node: another ETag, a time that is off by a second
    "weak_etag",  # what a compressing proxy makes of an ETag
    "kms",  # an object that S3 encrypts by KMS: its ETag is no digest, and a header says so
    "hide",  # 404, and absent from object listings
    "redirect",  # 302 to `location`
    "lost_reply",  # the server does what it was asked, the client gets a reset
    "background",  # DVID: one stored block fails to decode, 200 with zeros in its place
    "late_error",  # DVID: error text at the end of a block stream of status 200
]
FtpKind = Literal[
    "greeting_reset",  # RST instead of the 220
    "reply_421",  # too many connections
    "reply_425",  # no data connection
    "reply_550",  # the file is said to be absent
    "cut_426",  # the transfer ends early and the reply says so
    "cut_226",  # the transfer ends early and the reply says "complete"
    "private_pasv",  # the passive reply names an unreachable private address
    "epsv_for_pasv",  # a 229 reply to PASV
    "size_refused",
    "rest_refused",
    "login_incorrect",
    "short_list",  # listings lose their second half
]
Kind = HttpKind | FtpKind

_GET = frozenset({"GET", "RETR"})
_SIGNATURE = re.compile(r"[?&]X-Amz-[^&]*")
_CHANGES = ("changed_etag", "changed_file")
_LISTS = frozenset({"LIST", "NLST", "MLSD"})
# Where a rule does not name methods, a kind waits for a request that can show it.
_NATURAL_METHODS: dict[str, frozenset[str]] = {
    "reset": _GET,
    "stall": _GET,
    "short_body": _GET,
    "wrong_bytes": _GET,
    "ignore_range": _GET,
    "background": _GET,
    "late_error": _GET,
    "lost_reply": frozenset({"PUT", "POST", "DELETE"}),
    "greeting_reset": frozenset({"CONNECT"}),
    "reply_425": _GET | _LISTS,
    "reply_550": frozenset({"RETR", "SIZE", "CWD", "MDTM"}),
    "cut_426": _GET,
    "cut_226": _GET,
    "private_pasv": frozenset({"PASV"}),
    "epsv_for_pasv": frozenset({"PASV"}),
    "size_refused": frozenset({"SIZE"}),
    "rest_refused": frozenset({"REST"}),
    "login_incorrect": frozenset({"PASS"}),
    "short_list": _LISTS,
}


class Rule(BaseModel):
    """One fault and the requests it hits.

    Parameters
    ----------
    service
        Which stand-in, or ``*``.
    kind
        What goes wrong.
    match
        Regular expression, searched in ``path?query`` (decoded path) over HTTP and in
        ``COMMAND /absolute/path`` over FTP; a new FTP connection is the command ``CONNECT``.
    methods
        HTTP methods or FTP commands; empty means those in which the kind can show itself.
    skip, first_n, every
        Of the matching requests, leave the first ``skip`` alone, then hit at most ``first_n``
        (``None``: no end), and of these only each ``every``-th.
    per_path
        Count each path on its own, so that "first 2" means the first 2 of every file.
    after_bytes
        Bytes of the body that still arrive before a reset, stall or cut, and the first inverted
        byte of ``wrong_bytes``; ``None`` is half of the body.
    count
        Inverted bytes of ``wrong_bytes``.
    above
        Only while at least so many other requests to the service are being answered; others are
        left alone and not counted.
    before
        Reset or stall before the request is carried out, whatever its method; such a stall ends
        when the rules are cleared.
    seconds
        Length of a stall.
    retry_after
        Value of the Retry-After header in seconds; ``None`` leaves the header out.
    keys
        What ``missing_json_keys`` removes.
    location
        Target of ``redirect``.
    status, code, message, region
        Of an ``s3_error``; without a code it has no document, as a 301 to HEAD has none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    service: Service = "*"
    kind: Kind
    match: str = ""
    methods: frozenset[str] = frozenset()
    skip: int | None = None
    first_n: int | None = None
    every: int = 1
    per_path: bool = False
    above: int | None = None
    after_bytes: int | None = None
    count: int = 16
    before: bool = False
    seconds: float = 30.0
    retry_after: float | None = None
    keys: tuple[str, ...] = ()
    location: str = ""
    status: int = 403
    code: str = ""
    message: str = ""
    region: str = ""

    @field_validator("match")
    @classmethod
    def _compiles(cls, value: str) -> str:
        re.compile(value)
        return value

    def concerns(self, service: str, method: str, target: str) -> bool:
        """Whether a request is one that this rule counts."""
        if self.service not in ("*", service):
            return False
        natural = None if self.before else _NATURAL_METHODS.get(self.kind)
        wanted = self.methods or natural
        if wanted and method not in wanted:
            return False
        # What is hidden is missing from listings too, whatever their own address.
        is_listing = self.kind == "hide" and "list-type=" in target
        return is_listing or re.search(self.match, target) is not None

    def hits(self, number: int) -> bool:
        """Whether the `number`-th (from 0) request that it concerns goes wrong."""
        # "Changed from the second request on" is what a changed file looks like to a client.
        skip = self.skip if self.skip is not None else int(self.kind in _CHANGES)
        after = number - skip
        if after < 0 or (self.first_n is not None and after // self.every >= self.first_n):
            return False
        return after % self.every == 0

    def counted_by(self, target: str) -> str:
        """The key under which requests of this rule are numbered."""
        # a signature in the address is another one with each try
        plain = _SIGNATURE.sub("", target)
        return plain if self.per_path or self.kind in _CHANGES else ""

    def cut_at(self, length: int) -> int:
        """Bytes that pass before the fault in a body of `length` bytes."""
        return length // 2 if self.after_bytes is None else min(self.after_bytes, length)


class FaultRules:
    """The rules in force; safe to ask and to change from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._seen: Counter[tuple[int, str]] = Counter()
        self._fired: Counter[str] = Counter()

    def extend(self, rules: Iterable[Rule]) -> None:
        """Add rules behind those already there."""
        with self._lock:
            self._rules.extend(rules)

    def clear(self) -> None:
        """Drop all rules and what they have counted."""
        with self._lock:
            self._rules.clear()
            self._seen.clear()
            self._fired.clear()

    def rules(self) -> list[Rule]:
        """Those in force, in order."""
        with self._lock:
            return list(self._rules)

    def fired(self) -> dict[str, int]:
        """How often each kind went off since the last `clear`."""
        with self._lock:
            return dict(self._fired)

    def fire(self, service: str, method: str, target: str, in_flight: int = 0) -> Rule | None:
        """The first rule that goes off for this request; every rule concerned counts it.

        Parameters
        ----------
        in_flight
            Other requests to the service that are being answered.
        """
        hit: Rule | None = None
        with self._lock:
            for index, rule in enumerate(self._rules):
                if not rule.concerns(service, method, target):
                    continue
                if rule.above is not None and in_flight < rule.above:
                    continue
                key = (index, rule.counted_by(target))
                number = self._seen[key]
                self._seen[key] += 1
                if hit is None and rule.hits(number):
                    hit = rule
            if hit is not None:
                self._fired[hit.kind] += 1
        return hit
