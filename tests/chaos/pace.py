"""How fast a campaign around whole runs goes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """How slow a run is made, and how long lives last, in seconds.

    Attributes
    ----------
    first_byte
        What an archive takes to answer, so that there is a run to disturb.
    worker_life
        On average; a worker takes three seconds to start, ten on a busy machine.
    server_life, server_away
        At most; a life is counted from the start or from the first answer.
    on_dask
        How many sources of a run have a Dask cluster, of two workers each.
    """

    first_byte: float = 1.0
    worker_life: float = 20.0
    server_life: float = 8.0
    server_away: float = 3.0
    on_dask: int = 2


SHORT = Pace(first_byte=0.3, worker_life=3.0, server_life=4.0, server_away=1.0, on_dask=1)
