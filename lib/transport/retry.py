"""When to try again: one policy for every protocol."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol, TypeVar

import tenacity

from lib.concurrency import cancel as stopping
from lib.errors import MacroscopeError, SourceChangedError
from lib.transport.bounds import ServiceCounters
from lib.transport.limits import LONGEST_WAIT_S, Limits

T = TypeVar("T")

_LONGEST_BACKOFF_S = 60.0
_TRIES_WHEN_STOPPING = 2
_log = logging.getLogger(__name__)


def parse_retry_after(value: str | None, now: float | None = None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for: a number, or an HTTP date (RFC 9110)."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    moment = http_date(text)
    if moment is None:
        return None
    return max(0.0, moment.timestamp() - (time.time() if now is None else now))


def http_date(text: str | None) -> datetime | None:
    """A moment as HTTP writes it (RFC 9110); None where it is none. ``-0000`` is UTC."""
    try:
        moment = parsedate_to_datetime(text or "")
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def ask_to_wait(error: MacroscopeError, seconds: float | None) -> MacroscopeError:
    """Note on an error how long the server asked us to wait."""
    if seconds is not None:
        error.__dict__["retry_after_s"] = seconds
    return error


def retry_after_s(error: BaseException | None) -> float | None:
    """How long the server that gave this error asked us to wait, if it did."""
    value = getattr(error, "retry_after_s", None)
    return float(value) if value is not None else None


def can_try_again(error: BaseException) -> bool:
    """Whether the same request may succeed if sent again now.

    A changed source may be met by a whole new run, never by the same request; and a server that
    asks for more patience than `LONGEST_WAIT_S` is left alone.
    """
    if not isinstance(error, MacroscopeError) or isinstance(error, SourceChangedError):
        return False
    return error.retryable and (retry_after_s(error) or 0.0) <= LONGEST_WAIT_S


def call_with_retry(
    limits: Limits,
    function: Callable[[], T],
    *,
    what: str,
    counters: ServiceCounters | None = None,
    tries: int | None = None,
    outlives_stop: bool = False,
) -> T:
    """Call `function`, again where that can help, and return its result.

    Parameters
    ----------
    limits
        Gives the number of tries and the first pause.
    function
        One try. It raises the errors of `lib.errors`.
    what
        Named in the log: ``GET https://...``.
    tries
        Other than the limits say.
    outlives_stop
        While the run is stopping, try again all the same, but once: its last record should be
        written, and it has seconds to go.

    Raises
    ------
    MacroscopeError
        The last try's error, which says how many tries were made.
    StoppedError
        If a stop is requested, also while waiting.
    """
    try:
        return function()
    except MacroscopeError as error:
        most = limits.tries if tries is None else tries
        if not can_try_again(error) or most <= 1:
            raise
        first: list[MacroscopeError] = [error]

    def attempt() -> T:
        if first:
            raise first.pop()
        if not stopping_already:
            stopping.check()
        return function()

    stopping_already = outlives_stop and stopping.stop_requested()
    if stopping_already:
        most = min(most, _TRIES_WHEN_STOPPING)
    sleep = time.sleep if stopping_already else stopping.sleep
    try:
        return _policy(limits, what, counters, most, sleep)(attempt)
    except MacroscopeError as error:
        _say_tries(error)
        raise


class PartialFile(Protocol):
    """Something that grows while it is transferred."""

    offset: int


def resume(
    part: PartialFile,
    size: int | None,
    stream: Callable[[], None],
    limits: Limits,
    counters: ServiceCounters,
) -> None:
    """Call `stream` until `part` has `size` bytes.

    A connection that broke after it brought at least ``limits.range_bytes`` does not count as a
    failed try, so that a large file arrives over a line that breaks now and then.
    """
    while size is None or part.offset < size or part.offset == 0:
        before = part.offset
        try:
            stream()
            return
        except MacroscopeError as error:
            if not can_try_again(error) or part.offset - before < limits.range_bytes:
                raise
            counters.retried()
            stopping.sleep(max(limits.first_backoff_s, retry_after_s(error) or 0.0))


def _policy(
    limits: Limits,
    what: str,
    counters: ServiceCounters | None,
    tries: int,
    sleep: Callable[[float], None],
) -> tenacity.Retrying:
    backoff = tenacity.wait_exponential(
        multiplier=limits.first_backoff_s, max=_LONGEST_BACKOFF_S
    ) + tenacity.wait_random(0, limits.first_backoff_s)

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        # of a service of which some requests hang, none is overloaded by asking again
        hung = limits.stall_s is not None and getattr(error, "timed_out", False)
        pause = 0.0 if hung and state.attempt_number == 1 else backoff(state)
        return max(pause, retry_after_s(error) or 0.0)

    def note(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if counters is not None:
            counters.retried()
        if isinstance(error, MacroscopeError):
            error.__dict__["tries"] = state.attempt_number
        _log.info(
            "try %d of %s failed, next in %.1f s: %s",
            state.attempt_number,
            what,
            state.upcoming_sleep,
            error,
        )

    def tried(state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, MacroscopeError):
            error.__dict__["tries"] = state.attempt_number
        return state.attempt_number >= tries

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(can_try_again),
        wait=wait,
        stop=tried,
        sleep=sleep,
        before_sleep=note,
        reraise=True,
    )


def _say_tries(error: MacroscopeError) -> None:
    tries = error.__dict__.get("tries", 1)
    if tries > 1:
        error.say(f"{error.message} ({tries} tries)")
