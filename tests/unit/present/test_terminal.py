"""Progress: a live view in a terminal, few plain lines elsewhere, right numbers in both."""

from __future__ import annotations

import io
import threading

import pytest

from lib.present.output import console
from lib.present.terminal import LINE_SECONDS, Progress, ProgressView


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_without_a_terminal_there_are_few_lines_and_the_first_and_last_among_them() -> None:
    stream, clock = io.StringIO(), Clock()
    with ProgressView(stream, clock=clock) as view:
        for done in range(1001):
            view.update("ebi/a", done, 1000, done * 50_000, 50_000_000)
            clock.now += 0.05
    lines = stream.getvalue().splitlines()
    assert lines[0] == "ebi/a: 0 of 1000 shards, 0 B of 50.0 MB"
    assert lines[-1] == ("ebi/a: 1000 of 1000 shards, 50.0 MB of 50.0 MB, 1.00 MB/s, done in 50 s")
    assert len(lines) == 2 + 50 // LINE_SECONDS - 1
    assert "left" in lines[1]
    assert "\x1b" not in stream.getvalue()


def test_the_time_left_counts_only_what_this_run_made() -> None:
    stream, clock = io.StringIO(), Clock()
    view = ProgressView(stream, clock=clock)
    view.update("a", 900, 1000, 0)  # of an earlier run
    clock.now += 20
    view.update("a", 950, 1000, 10_000_000)
    assert stream.getvalue().splitlines()[-1] == (
        "a: 950 of 1000 shards, 10.0 MB, 500 kB/s, 20 s left"
    )


def test_progress_that_arrives_late_does_not_go_back() -> None:
    stream, clock = io.StringIO(), Clock()
    view = ProgressView(stream, clock=clock)
    view.update("a", 8, 10, 800)
    clock.now += 60
    view.update("a", 5, 10, 500)
    assert "a: 8 of 10 shards, 800 B" in stream.getvalue().splitlines()[-1]


def test_in_a_terminal_every_volume_has_a_bar() -> None:
    stream = io.StringIO()
    with ProgressView(stream, terminal=True) as view:
        for done in range(5):
            view.update("ebi/EMPIAR-11759", done, 4, done * 1_000_000, 4_000_000)
            view.update("idr/[red]x", done, 8, done)
    text = stream.getvalue()
    assert "ebi/EMPIAR-11759" in text
    assert "4/4 shards" in text
    assert "idr/[red]x" in text  # names are not markup
    assert "━" in text


def test_many_threads_may_tell_at_once() -> None:
    stream = io.StringIO()
    view = ProgressView(stream)

    def work(number: int) -> None:
        for done in range(201):
            view.update(f"v{number}", done, 200, done)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = stream.getvalue().splitlines()
    assert sum("200 of 200 shards" in line for line in lines) == 8
    assert all(line.startswith("v") for line in lines)


def test_progress_moves_with_bytes_while_no_shard_is_done() -> None:
    stream, clock = io.StringIO(), Clock()
    view = ProgressView(stream, clock=clock)
    for received in range(0, 90, 10):
        view.update("a", 0, 2, received * 10**6, 100 * 10**6)
        clock.now += LINE_SECONDS
    lines = stream.getvalue().splitlines()
    assert len(lines) == 9, "a shard that takes minutes is heard of all the same"
    assert "0 of 2 shards, 80.0 MB of 100 MB, 1.00 MB/s, " in lines[-1]
    assert [line.endswith(" left") for line in lines] == [False] + [True] * 8

    bar = Progress("a", 0.0)
    shares = []
    for received in (0, 25, 50, 100):
        bar.take(1.0, 0, 4, received, 100)
        shares.append(bar.share)
    assert shares == sorted(set(shares)) and shares[0] == 0 and shares[-1] < 1
    bar.take(2.0, 4, 4, 100, 100)
    assert bar.share == 1


def test_bytes_of_a_volume_that_is_gone_on_with_count_from_where_it_was() -> None:
    bar = Progress("a", 0.0)
    bar.take(1.0, 3, 4, 0, 100)
    assert bar.share >= 0.7
    bar.take(2.0, 3, 4, 12, 100)
    assert 0.75 < bar.share < 1
    left = bar.left(2.0)
    assert left is not None and left < 10


def test_fetching_is_told_before_the_grid_is_known() -> None:
    stream, clock = io.StringIO(), Clock()
    view = ProgressView(stream, clock=clock)
    view.update("ebi/a", 0, 0, 0, 10_000_000)
    clock.now += LINE_SECONDS
    view.update("ebi/a", 0, 0, 5_000_000, 10_000_000)
    view.update("ebi/a", 5, 5, 10_000_000, 10_000_000)
    first, second, last = stream.getvalue().splitlines()
    assert first == "ebi/a: fetching, 0 B of 10.0 MB"
    assert second.startswith("ebi/a: fetching, 5.00 MB of 10.0 MB, 500 kB/s, ")
    assert "5 of 5 shards" in last


@pytest.mark.parametrize("columns", [80, 100, 160, 400])
def test_a_name_is_whole_however_narrow_the_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    name = "openorganelle/jrc_" + "_".join(f"part{n}" for n in range(24)) + "_z0-64_y100-300_x0-64"
    stream = io.StringIO()
    with ProgressView(stream, terminal=True) as view:
        view.update(name, 12, 1280, 1_230_000_000, 3_450_000_000)
        view.update("idr/short", 1, 2, 10)
        drawn = io.StringIO()
        console(drawn, width=columns, force_terminal=False).print(view._drawn())
    lines = [line.rstrip() for line in drawn.getvalue().splitlines()]
    assert max(map(len, lines)) <= columns
    text = drawn.getvalue()
    assert name in "".join(text.split())
    assert "12/1280 shards" in text and "1.23 GB of 3.45 GB" in text
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
