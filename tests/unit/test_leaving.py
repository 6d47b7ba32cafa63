"""Calls that nothing can interrupt are left when the run stops."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import NoReturn

import pytest

from lib.concurrency import cancel as stopping
from lib.concurrency.leaving import leave_on_stop
from lib.errors import StoppedError


@pytest.fixture(autouse=True)
def no_stop() -> Iterator[None]:
    stopping.reset()
    yield
    stopping.reset()


def test_results_and_errors_come_through() -> None:
    def fail() -> NoReturn:
        raise KeyError("x")

    assert leave_on_stop(lambda: 7) == 7
    with pytest.raises(KeyError):
        leave_on_stop(fail)


def test_a_call_that_hangs_is_left_on_a_stop_and_its_thread_never_asked_again() -> None:
    release = threading.Event()
    began = threading.Event()

    def hang() -> None:
        began.set()
        release.wait(60)

    def stop() -> None:
        began.wait(60)
        stopping.request_stop()

    threading.Thread(target=stop).start()
    with pytest.raises(StoppedError):
        leave_on_stop(hang)
    assert not release.is_set()
    stopping.reset()
    assert leave_on_stop(lambda: 1) == 1  # by another thread: that one still hangs
    release.set()
