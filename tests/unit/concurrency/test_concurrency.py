"""Threads that work, wait and are cancelled: one kit for all of them."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from lib.concurrency import cancel
from lib.concurrency.bounded_map import (
    ComputeSlots,
    CountGate,
    Crew,
    InOrderGate,
    free_compute_slot,
    run_each,
    run_ordered,
    take_compute_slot,
)
from lib.errors import NotFoundError, StoppedError


def test_each_item_is_worked_on_once_and_so_many_at_a_time() -> None:
    together = threading.Barrier(3)
    done: list[int] = []

    def work(number: int) -> None:
        together.wait(60)  # passes only if three run at once
        done.append(number)

    run_each(range(9), work, at_once=3)
    assert sorted(done) == list(range(9))


def test_the_first_error_lets_nothing_more_begin_and_what_has_begun_end() -> None:
    begun, failed, ended = threading.Event(), threading.Event(), list[str]()

    def work(name: str) -> None:
        if name == "bad":
            begun.wait(60)
            failed.set()
            raise NotFoundError("bad")
        begun.set()
        failed.wait(60)
        cancel.check()  # it is not cancelled because of another one's error
        ended.append(name)

    with pytest.raises(NotFoundError, match="bad"):
        run_each(["good", "bad", *"abcdefgh"], work, at_once=2)
    assert ended[0] == "good"
    assert len(ended) <= 2


def test_work_on_each_ends_with_a_stop() -> None:
    def work(number: int) -> None:
        cancel.request_stop()

    with pytest.raises(StoppedError):
        run_each(range(100), work, at_once=2)


def test_what_has_to_be_cleared_away_outlives_a_stop() -> None:
    cancel.request_stop()
    jobs = [partial(int, text) for text in "123"]
    assert list(run_ordered(iter(jobs), 2, outlives_stop=True)) == [1, 2, 3]
    with pytest.raises(StoppedError):
        list(run_ordered(iter(jobs), 2))


def test_those_behind_one_that_failed_before_its_turn_do_not_wait_for_it() -> None:
    line, waiting, passed = InOrderGate([1, 2]), threading.Event(), list[int]()

    def work(unit: int) -> None:
        if unit == 1:
            assert waiting.wait(60)
            raise ValueError("before its turn")
        waiting.set()
        with line.turn(unit):
            passed.append(unit)

    with pytest.raises(ValueError, match="before its turn"):
        run_each([1, 2], work, at_once=2, failed=line.open)
    assert passed == [2]


@pytest.mark.parametrize("gate", [CountGate(1), InOrderGate([1, 2])], ids=["count", "order"])
def test_waiting_at_a_gate_ends_with_a_stop(gate: CountGate | InOrderGate) -> None:
    with gate.turn(1):
        cancel.request_stop()
        with pytest.raises(StoppedError), gate.turn(2):
            pass
    cancel.reset()
    with gate.turn(2):  # nothing was lost
        pass


def test_an_abandoned_job_sees_it_while_it_waits() -> None:
    begun, outcome = threading.Event(), list[BaseException]()

    def job() -> None:
        begun.set()
        try:
            cancel.sleep(3600)
        except StoppedError as error:
            outcome.append(error)

    crew: Crew[None] = Crew(1, "job", abandons=True)
    crew.begin(job)
    assert begun.wait(60)
    crew.dismiss()
    assert "no longer wanted" in str(outcome[0])
    cancel.check()  # nobody else is concerned


def test_a_crew_has_no_more_threads_than_it_may_whoever_hands_over() -> None:
    crew: Crew[str] = Crew(2, "few", abandons=False)
    futures = list(
        run_ordered([lambda: crew.begin(lambda: threading.current_thread().name)] * 50, 8)
    )
    assert {future.result(60) for future in futures} == {"few"}
    assert sum(thread.name == "few" for thread in threading.enumerate()) <= 2
    crew.dismiss()
    assert not any(thread.name == "few" for thread in threading.enumerate())


def test_a_compute_slot_goes_to_those_first_for_whom_there_is_nothing_more_to_wait() -> None:
    slots, order, waits = ComputeSlots(1), list[str](), threading.Event()

    def work(name: str, prepared: bool) -> None:
        slots.take(lambda: prepared)
        slots.take()  # it has one
        order.append(name)
        slots.free()
        slots.free()  # it has none

    threads = []
    slots.take()
    for name, prepared in (("a", False), ("b", True), ("c", False), ("d", True)):
        thread = threading.Thread(target=work, args=(name, prepared), daemon=True)
        thread.start()
        threads.append(thread)
        while len(slots._waiters) < len(threads):
            waits.wait(0.001)
    slots.free()
    for thread in threads:
        thread.join()
    assert order == ["b", "d", "a", "c"]


def test_a_thread_that_ends_in_compute_slots_has_given_its_own_back() -> None:
    slots = ComputeSlots(1)

    def fail() -> None:
        with slots.bounding():
            take_compute_slot()
            take_compute_slot()
            raise NotFoundError("gone")

    with pytest.raises(NotFoundError):
        fail()
    with slots.bounding():  # or it waits for ever
        take_compute_slot()
        free_compute_slot()
        slots.take()
    take_compute_slot()  # of none that bound this thread
    free_compute_slot()
    slots.take()
