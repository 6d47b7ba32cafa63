"""Politeness, retries and ordered work, without a network."""

from __future__ import annotations

import contextvars
import gc
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from functools import partial

import pytest

from lib.archives.registry import recommended_limits
from lib.concurrency import cancel as stopping
from lib.concurrency.bounded_map import run_ordered
from lib.errors import NotFoundError, SourceChangedError, StoppedError, TransportError
from lib.transport.bounds import Counters
from lib.transport.limits import Limiter, Limits
from lib.transport.responses import network_error, status_error
from lib.transport.retry import (
    LONGEST_WAIT_S,
    ask_to_wait,
    call_with_retry,
    parse_retry_after,
    resume,
)
from lib.transport.s3.errors import Refusal
from lib.transport.session import Session

QUICK = Limits(2, tries=4, first_backoff_s=0.001)


@pytest.fixture
def stop_soon() -> Iterator[Callable[[], None]]:
    """Ask for a stop in a moment, which a test begins when it is about to wait."""
    timer = threading.Timer(0.1, stopping.request_stop)
    yield timer.start
    timer.cancel()


# --- limits ---------------------------------------------------------------------------------


def test_the_defaults_are_those_recommended() -> None:
    assert {
        name: (lim.connections, lim.requests_per_second)
        for name, lim in recommended_limits().items()
    } == {
        "ebi-ftp": (2, None),
        "ebi-https": (8, 4.0),
        "empiar-api": (1, None),
        "ebi-search": (1, 4.0),
        "epfl": (4, None),
        "dvid": (2, None),
        "idr-api": (1, 2.0),
        "s3": (16, None),
        "address-file": (8, None),
        "address-https": (4, None),
        "address-s3": (16, None),
        "address-gs": (16, None),
        "address-ftp": (2, None),
    }
    patience = {
        n: (lim.connect_timeout_s, lim.read_timeout_s) for n, lim in recommended_limits().items()
    }
    assert patience["ebi-ftp"] == (15, 60)
    assert patience["dvid"] == (3, 120)
    assert patience["idr-api"] == (10, 30)


def test_a_session_takes_overrides_and_its_time_out() -> None:
    session = Session("idr", limits={"s3": Limits(100)}, timeout_seconds=7)
    assert session.limits("s3").connections == 100
    assert session.limits("s3").read_timeout_s == 7
    assert session.limits("ebi-https").connections == 2  # nobody has said anything of it
    assert Session("x", limits={"s3": Limits(1000)}).limits("s3").connections == 128


def test_sessions_of_one_process_share_a_limiter_and_the_strictest_limits() -> None:
    one = Session("a", limits={"shared-test": Limits(8, None)})
    two = Session("b", limits={"shared-test": Limits(3, 5.0)})
    assert one.limiter("shared-test") is two.limiter("shared-test")
    assert one.limiter("shared-test").connections == 3
    assert one.limiter("shared-test").requests_per_second == 5.0


@pytest.mark.parametrize("way", ["closed", "forgotten"])
def test_a_stricter_limit_ends_with_the_session_that_asked_for_it(way: str) -> None:
    one = Session("a", limits={"strict-test": Limits(8, 50.0)})
    two: Session | None = Session("b", limits={"strict-test": Limits(1, 0.001)})
    assert two is not None
    limiter = one.limiter("strict-test")
    two.limiter("strict-test").pace()  # the next turn is a quarter of an hour away
    assert (limiter.connections, limiter.requests_per_second) == (1, 0.001)
    if way == "closed":
        two.close()
        limiter.pace()
    else:
        two = None
        gc.collect()
    assert (limiter.connections, limiter.requests_per_second) == (8, 50.0)
    if way == "closed":
        assert two is not None
        two.limiter("strict-test")  # it goes on after all
        assert limiter.connections == 1


def test_with_nobody_left_the_last_limits_hold() -> None:
    session = Session("a", limits={"left-test": Limits(2, 3.0)})
    limiter = session.limiter("left-test")
    session.close()
    assert (limiter.connections, limiter.requests_per_second) == (2, 3.0)


def peak_of(limiter: Limiter, threads: int, expected: int) -> int:
    """The most that were inside at once; each waits until `expected` are."""
    counts = Counters().service("x")
    together = threading.Barrier(expected)

    def work() -> None:
        with limiter.slot():
            counts.begin()
            together.wait(60)
            counts.end()

    crew = [threading.Thread(target=work) for _ in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    assert not together.broken, "fewer were let in than the limit allows"
    return counts.snapshot()["peak_in_flight"]


def test_slots_bound_threads() -> None:
    assert peak_of(Limiter("x", Limits(3)), 12, 3) == 3


class Kept:
    """Slots that somebody keeps for all processes."""

    poll_s = 0.01

    def __init__(self, lease_s: float = 60.0) -> None:
        self.lease_s = lease_s
        self.lock = threading.Lock()
        self.taken = 0
        self.peak = 0

    def take(self, connections: int) -> Callable[[], None] | None:
        with self.lock:
            if self.taken >= connections:
                return None
            self.taken += 1
            self.peak = max(self.peak, self.taken)
        return self.give_back

    def give_back(self) -> None:
        with self.lock:
            self.taken -= 1


def test_processes_share_the_slots_that_somebody_keeps_for_them() -> None:
    kept = Kept(lease_s=0.0)
    one, two = (Limiter("x", Limits(3), kept) for _ in range(2))
    crew = [threading.Thread(target=peak_of, args=(one, 6, 1)) for one in (one, two)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    assert kept.peak <= 3
    assert kept.taken == 0


def test_a_lease_is_used_again_and_an_idle_process_hands_it_on() -> None:
    kept = Kept(lease_s=0.05)
    first = Limiter("x", Limits(1), kept)
    with first.slot():
        pass
    with Limiter("x", Limits(1), kept).slot():  # waits until the first gives its idle slot back
        assert kept.taken == 1
    busy = Kept()
    limiter = Limiter("x", Limits(1), busy)
    for _ in range(5):
        with limiter.slot():
            pass
    assert busy.taken == 1
    limiter.give_back()
    assert busy.taken == 0


def test_the_rate_spaces_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(stopping, "sleep", waits.append)
    monkeypatch.setattr("time.monotonic", lambda: 5.0)
    limiter = Limiter("x", Limits(4, 100.0))
    for _ in range(14):
        limiter.pace()
    # as many as there are connections begin together, then each has a turn of its own
    assert waits == pytest.approx([0.01 * n for n in range(1, 11)])


def refused(status: int = 503) -> Exception:
    return status_error(status, {"Retry-After": "7"}, "http://host/file", "")


@pytest.mark.parametrize(
    "refusal", [refused(503), refused(429), Refusal(503, "SlowDown", retry_after_s=7.0)]
)
def test_a_service_that_refuses_is_asked_for_less_at_once_and_slowly_for_more(
    refusal: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, waits = [100.0], list[float]()
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(stopping, "sleep", waits.append)
    limiter = Limiter("x", Limits(8))
    slots = [limiter.slot() for _ in range(8)]
    for slot in slots:
        slot.__enter__()
    for slot in slots[:5]:
        slot.__exit__(type(refusal), refusal, None)
    for slot in slots[5:]:  # three of eight were borne
        slot.__exit__(None, None, None)
    assert limiter.at_once == 3
    limiter.pace()
    assert waits == [7.0]  # everybody waits as long as one was asked to
    grown = []
    for _ in range(12):
        now[0] += 2.0
        with limiter.slot():
            pass
        grown.append(limiter.at_once)
    assert grown == [3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 5, 6]
    with pytest.raises(type(refusal)), limiter.slot():
        raise refusal
    assert limiter.at_once == 1  # nothing else was in flight
    for _ in range(200):
        now[0] += 2.0
        with limiter.slot():
            pass
    assert limiter.at_once == 8


def test_one_refusal_of_many_halves_what_is_in_flight_once() -> None:
    limiter = Limiter("x", Limits(8))
    slots = [limiter.slot() for _ in range(8)]
    for slot in slots:
        slot.__enter__()
    slots[0].__exit__(TransportError, refused(), None)
    assert limiter.at_once == 4
    slots[1].__exit__(TransportError, refused(), None)  # of the same round
    assert limiter.at_once == 4
    for slot in slots[2:]:
        slot.__exit__(None, None, None)
    assert limiter.at_once == 4


@pytest.mark.parametrize(
    "error",
    [NotFoundError("x"), TransportError("it hangs"), status_error(500, {}, "http://host", "")],
)
def test_other_failures_leave_what_may_be_in_flight(error: Exception) -> None:
    limiter = Limiter("x", Limits(8))
    with pytest.raises(type(error)), limiter.slot():
        raise error
    assert limiter.at_once == 8


def test_waiting_for_a_slot_ends_with_a_stop(stop_soon: Callable[[], None]) -> None:
    limiter = Limiter("x", Limits(1))
    with limiter.slot():
        stop_soon()
        with pytest.raises(StoppedError), limiter.slot():
            pass
    stopping.reset()
    assert peak_of(limiter, 1, 1) == 1  # nothing was lost


def test_waiting_for_a_turn_ends_with_a_stop(stop_soon: Callable[[], None]) -> None:
    limiter = Limiter("x", Limits(1, 0.01))
    limiter.pace()
    stop_soon()
    with pytest.raises(StoppedError):
        limiter.pace()


# --- retries --------------------------------------------------------------------------------


def failing(times: int, error: Callable[[], Exception]) -> tuple[Callable[[], str], list[int]]:
    calls: list[int] = []

    def function() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error()
        return "done"

    return function, calls


def test_a_passing_error_is_tried_again_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    counters = Counters().service("x")
    function, calls = failing(3, lambda: TransportError("for now"))
    with caplog.at_level(logging.INFO):
        assert call_with_retry(QUICK, function, what="GET x", counters=counters) == "done"
    assert len(calls) == 4
    assert counters.snapshot()["retries"] == 3
    assert "try 3 of GET x failed" in caplog.text


def test_the_last_error_says_how_often_it_was_tried() -> None:
    function, calls = failing(99, lambda: TransportError("for now"))
    with pytest.raises(TransportError, match=r"for now \(4 tries\)"):
        call_with_retry(QUICK, function, what="x")
    assert len(calls) == 4


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("gone"),
        SourceChangedError("changed"),
        TransportError("certificate", retryable=False),
        ask_to_wait(TransportError("wait"), LONGEST_WAIT_S + 1),
        ValueError("a bug"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_another_try_cannot_help_is_tried_once(error: Exception) -> None:
    function, calls = failing(99, lambda: error)
    with pytest.raises(type(error)):
        call_with_retry(QUICK, function, what="x")
    assert len(calls) == 1


def test_a_pause_ends_with_a_stop(stop_soon: Callable[[], None]) -> None:
    calls: list[int] = []

    def function() -> str:
        calls.append(1)
        stop_soon()
        raise TransportError("for now")

    with pytest.raises(StoppedError):
        call_with_retry(Limits(1, first_backoff_s=60), function, what="x")
    assert len(calls) == 1


def test_retry_after_is_a_number_or_a_date() -> None:
    assert parse_retry_after("7") == 7
    assert parse_retry_after(formatdate(1000 + 30, usegmt=True), now=1000) == 30
    assert parse_retry_after(formatdate(1000 - 30, usegmt=True), now=1000) == 0
    assert [parse_retry_after(text) for text in (None, "", "soon", "-3", "1e9")] == [None] * 5


def test_the_pause_is_at_least_what_the_server_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("lib.concurrency.cancel.sleep", waits.append)
    function, _ = failing(2, lambda: ask_to_wait(TransportError("busy"), 17.0))
    call_with_retry(QUICK, function, what="x")
    assert waits == [17.0, 17.0]


def test_a_request_that_hung_is_asked_for_again_at_once_but_not_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("lib.concurrency.cancel.sleep", waits.append)
    for stall_s in (1.0, None):
        function, _ = failing(2, lambda: network_error(TimeoutError(), "http://host/file"))
        limits = Limits(1, tries=4, first_backoff_s=1.0, stall_s=stall_s)
        call_with_retry(limits, function, what="x")
    assert [wait > 0 for wait in waits] == [False, True, True, True]


def test_pauses_double_with_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("lib.concurrency.cancel.sleep", waits.append)
    function, _ = failing(3, lambda: TransportError("busy"))
    call_with_retry(Limits(1, tries=4, first_backoff_s=1.0), function, what="x")
    for wait, least in zip(waits, (1, 2, 4), strict=True):
        assert least <= wait <= least + 1


class Part:
    offset = 0


def test_a_transfer_that_gets_on_is_never_given_up() -> None:
    part = Part()

    def stream() -> None:
        part.offset += 10
        if part.offset < 100:
            raise TransportError("cut")

    resume(
        part, 100, stream, Limits(1, first_backoff_s=0.001, range_bytes=10), Counters().service("x")
    )
    assert part.offset == 100


def test_a_transfer_that_does_not_get_on_fails() -> None:
    def stream() -> None:
        raise TransportError("cut")

    with pytest.raises(TransportError):
        resume(Part(), 100, stream, QUICK, Counters().service("x"))


# --- ordered work ---------------------------------------------------------------------------


def test_results_come_in_order_from_several_threads() -> None:
    together = threading.Barrier(4, timeout=120)

    def job(number: int) -> int:
        if number < 4:
            together.wait()  # passes only if four jobs run at once
        time.sleep(0.002 * (number % 3))
        return number

    jobs = [lambda number=number: job(number) for number in range(40)]
    assert list(run_ordered(jobs, 4)) == list(range(40))


def test_work_ahead_of_the_consumer_is_bounded() -> None:
    begun: list[int] = []

    def jobs() -> Iterator[Callable[[], int]]:
        for number in range(100):
            begun.append(number)
            yield lambda: 0

    results = run_ordered(jobs(), 8, ahead=3)
    most = 0
    for taken, _ in enumerate(results, 1):
        most = max(most, len(begun) - (taken - 1))
    assert most == 3


def test_an_error_comes_in_its_turn_and_drops_the_rest() -> None:
    done: list[int] = []
    before = {*threading.enumerate()}  # those that an earlier test's stop left behind

    def job(number: int) -> int:
        if number == 2:
            raise NotFoundError("two")
        done.append(number)
        return number

    results = run_ordered((partial(job, n) for n in range(1000)), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(NotFoundError, match="two"):
        next(results)
    assert len(done) < 20
    assert not [t for t in {*threading.enumerate()} - before if t.name == "transport"]


def test_closing_early_waits_for_what_runs_and_drops_the_rest() -> None:
    running: list[int] = []

    def job(number: int) -> int:
        running.append(number)
        time.sleep(0.02)
        running.remove(number)
        return number

    results = run_ordered((partial(job, n) for n in range(1000)), 3)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert running == []


def test_an_abandoned_job_stops_trying() -> None:
    calls: list[int] = []

    def job() -> None:
        def function() -> None:
            calls.append(1)
            raise TransportError("for now")

        call_with_retry(Limits(1, tries=1000, first_backoff_s=0.2), function, what="x")

    def broken() -> None:
        raise NotFoundError("no")

    with pytest.raises(NotFoundError):
        list(run_ordered([broken, job], 2))
    assert len(calls) < 1000, "joined, that is, and not to the end of its tries"


def test_ordered_work_ends_with_a_stop(stop_soon: Callable[[], None]) -> None:
    hang, ended = threading.Event(), threading.Event()

    def job() -> None:
        stop_soon()
        hang.wait(600)
        ended.set()

    with pytest.raises(StoppedError):
        list(run_ordered([job], 1))
    assert not ended.is_set()  # nobody waited for what hangs
    hang.set()


def test_jobs_see_the_context_of_their_maker() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    def jobs() -> Iterator[Callable[[], str]]:
        for text in "abc":
            variable.set(text)
            yield variable.get

    assert list(run_ordered(jobs(), 2)) == ["a", "b", "c"]


def test_a_time_out_error_of_a_job_is_an_error_of_that_job() -> None:
    def job() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        list(run_ordered([job], 1))


def test_a_session_runs_as_many_jobs_as_the_service_allows() -> None:
    counts = Counters().service("x")
    together = threading.Barrier(3)

    def job() -> None:
        counts.begin()
        together.wait(60)
        counts.end()

    with Session("x", limits={"ordered-test": Limits(3)}) as session:
        list(session.ordered("ordered-test", [job] * 21))
    assert counts.snapshot()["peak_in_flight"] == 3


def test_a_service_that_hangs_is_asked_again_soon_and_then_with_more_patience() -> None:
    hanging = Limits(1, read_timeout_s=60.0, stall_s=6.0)
    assert [hanging.patience_s(n) for n in range(5)] == [6.0, 12.0, 24.0, 48.0, 60.0]
    assert [hanging.flow_s(n) for n in range(3)] == [3.0, 6.0, 12.0]  # once it has begun to come
    assert [Limits(1, read_timeout_s=60.0).patience_s(n) for n in (0, 3)] == [60.0, 60.0]
    assert Limits(1, read_timeout_s=60.0).flow_s(0) == 60.0


def test_a_service_hangs_when_it_is_silent_for_longer_than_its_answers_took() -> None:
    limiter = Limiter("soon-test", Limits(1, stall_s=6.0))
    for _ in range(7):
        limiter.answered_after(0.03)
    assert limiter.soon_s == math.inf  # too few to know
    limiter.answered_after(2.0)
    assert limiter.soon_s == 8.0
    for _ in range(32):
        limiter.answered_after(0.03)
    assert limiter.soon_s == 1.5
