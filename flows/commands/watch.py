"""The live view of a run in a terminal; plain lines where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lib.ingest.progress import Standing, watching
from lib.present.terminal import ProgressView


@contextmanager
def live_view(*, shown: bool) -> Iterator[None]:
    """Draw every volume's progress on standard error, so that standard output stays for results."""
    if not shown:
        yield
        return
    with ProgressView() as view:

        def watcher(standing: Standing) -> None:
            view.update(
                standing.volume,
                standing.done_shards,
                standing.total_shards,
                standing.received_bytes,
                standing.expected_bytes,
            )

        with watching(watcher):
            yield
