"""Progress: a live view in a terminal, few plain lines elsewhere, right numbers in both."""

from __future__ import annotations

import io
import threading

from rich.console import Console

from lib.present.terminal import LINE_SECONDS, ProgressView, summary_table


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


def test_the_summary_holds_every_row_and_no_markup_of_others() -> None:
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(
        summary_table(
            [
                {
                    "source": "ebi",
                    "volumes": 1,
                    "shape": "24 × 400 × 400",
                    "voxel_size": "50 × 10 × 10 nm",
                    "bytes": 4_567_890,
                    "seconds": 12.54,
                    "status": "complete",
                },
                {"source": "[bold]flyem", "volumes": 0, "status": "failed"},
            ]
        )
    )
    text = console.export_text()
    for column in ("source", "volumes", "shape", "voxel size", "bytes", "seconds", "status"):
        assert column in text
    for value in ("24 × 400 × 400", "4.57 MB", "12.5", "complete", "[bold]flyem", "failed"):
        assert value in text
