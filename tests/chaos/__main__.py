"""``python -m tests.chaos --kills 1000``: the long runs, whose figures stand in the docs."""

from __future__ import annotations

import argparse
import math
import sys

from flows.commands.options import ended_by_signals
from tests.chaos.flow_kills import flow_campaign
from tests.chaos.harness import campaign
from tests.chaos.pauses import pause_campaign
from tests.chaos.power import power_campaign
from tests.chaos.report import Report


def main() -> int:
    """Run the campaigns, print their figures; 1 where anything was lost or wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="of the run itself")
    parser.add_argument("--workers", type=int, help="of Dask workers; default: a tenth of KILLS")
    parser.add_argument("--servers", type=int, help="of the Prefect server; the same")
    parser.add_argument("--pauses", type=int, default=0, help="of runs to a bucket, past a lease")
    parser.add_argument("--cuts", type=int, default=0, help="of the power; wants root")
    parser.add_argument(
        "--not-durable", action="store_true", help="cuts with dest_durable off: must find losses"
    )
    parser.add_argument("--minutes", type=float, default=math.inf, help="for workers and servers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dest", choices=("folder", "s3"), default="folder")
    parser.add_argument("--json", action="store_true", help="figures as JSON only")
    given = parser.parse_args()
    workers = given.kills // 10 if given.workers is None else given.workers
    servers = given.kills // 10 if given.servers is None else given.servers
    reports: list[Report] = []
    with ended_by_signals():
        if given.kills:
            with campaign(given.dest, given.seed) as running:
                reports.append(running.run(given.kills, _tell))
        if given.pauses:
            with pause_campaign(given.seed) as pausing:
                reports.append(pausing.run(given.pauses, _tell))
        if given.cuts:
            with power_campaign(given.seed, durable=not given.not_durable) as cutting:
                reports.append(cutting.run(given.cuts, _tell))
        if workers or servers:
            with flow_campaign(given.dest, given.seed) as around:
                reports.append(around.run(workers, servers, _tell, seconds=60 * given.minutes))
    for report in reports:
        print(report.as_json() if given.json else report.table())
    return 0 if all(report.clean for report in reports) else 1


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
