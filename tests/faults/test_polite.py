"""What the archives' side sees of a run: connections, pace, patience, and no useless repetition."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import pytest

from emulators.control import Control
from emulators.counters import Request
from emulators.serving import Samples
from lib.archives.registry import recommended_limits
from lib.config.loaders import LOADER_CONFIGS
from lib.ingest.context import open_session
from tests.faults.bench import Bench, impatient

# Stand-in -> service of the limits.
SERVICES = {
    "ftp": "ebi-ftp",
    "mirror": "ebi-https",
    "empiar": "empiar-api",
    "omero": "idr-api",
    "epfl": "epfl",
    "dvid": "dvid",
    "s3": "s3",
}


def gaps(requests: list[Request]) -> list[float]:
    return [b.time - a.time for a, b in pairwise(requests)]


def check_peaks(control: Control) -> None:
    """No service had more in flight than recommended."""
    for stand_in, service in SERVICES.items():
        tally = control.counters.tally(stand_in)
        assert tally.peak <= recommended_limits()[service].connections, (stand_in, tally)


@pytest.mark.parametrize("source", ["ebi", "epfl", "flyem", "idr", "openorganelle"])
def test_no_more_is_in_flight_than_recommended(
    source: str, samples: Samples, faults: Control, tmp_path: Path
) -> None:
    fine: dict[str, dict[str, Any]] = {
        "epfl": {"chunk_size_mb": 0.01, "max_workers": 8},
        "flyem": {"crop_size": (300, 280, 90), "max_workers": 8},
    }
    faults.set_latency(first_byte_s=0.02)
    ended = Bench(samples, tmp_path, source, **fine.get(source, {"max_workers": 8})).run()
    assert ended.complete, ended.errors
    check_peaks(faults)


def test_runs_side_by_side_share_the_connections_of_a_service(
    samples: Samples, faults: Control, tmp_path: Path
) -> None:
    """EMPIAR and IDR lie on one server; six sessions in threads stay at its two connections."""
    faults.set_latency("ftp", first_byte_s=0.05)
    config = LOADER_CONFIGS["ebi"](**samples.endpoints["EBI"])
    folder = "/empiar/world_availability/11759/data"

    def bring(number: int) -> None:
        with open_session(config, "ebi", scratch_dir=tmp_path) as session:
            client = session.ftp("ebi-ftp", samples.address("ftp"))
            name = f"F57-8_test1_3VBSED_slice_{number:04d}.dm3"
            client.download(f"{folder}/{name}", tmp_path / name)

    with impatient(), ThreadPoolExecutor(6) as pool:
        list(pool.map(bring, range(6)))
    assert faults.counters.tally("ftp").peak == recommended_limits()["ebi-ftp"].connections


def test_mean_rates_stay_below_those_recommended(
    samples: Samples, faults: Control, tmp_path: Path
) -> None:
    """IDR's API and EBI's HTTPS have a recommended rate; the stand-ins' clocks show it is kept.

    As many as may be in flight begin together, after which each has its turn. What the limiter
    grants is held to the digit in test_limits.py; here a request is seen late where the machine is
    busy, which brings those around it closer together, and without a limiter the rate is a
    hundredfold.
    """
    bench = Bench(samples, tmp_path, "idr", protocol="https", image_ids=[9846137])
    ended = bench.run(paced=True)
    assert ended.complete, ended.errors
    for stand_in, service in (("omero", "idr-api"), ("mirror", "ebi-https")):
        requests = faults.counters.log(stand_in)
        rate = recommended_limits()[service].requests_per_second
        assert rate is not None
        assert len(requests) > 2
        together = recommended_limits()[service].connections
        took = requests[-1].time - requests[0].time
        assert (len(requests) - together) / took <= rate * 10


@pytest.mark.parametrize(
    ("source", "stand_in", "rule"),
    [
        ("ebi", "mirror", {"kind": "status_503", "above": 2}),
        ("epfl", "epfl", {"kind": "status_429", "retry_after": 0.2, "above": 2}),
    ],
)
def test_a_server_that_refuses_more_at_once_is_asked_for_no_more(
    source: str,
    stand_in: str,
    rule: dict[str, Any],
    samples: Samples,
    faults: Control,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # a limiter of an earlier test may still be there, with its requests of this minute
    monkeypatch.setattr("lib.transport.limits._limiters", WeakValueDictionary())
    faults.add(service=stand_in, methods=["GET"], **rule)
    fine = {"epfl": {"chunk_size_mb": 0.01}}.get(source, {})
    for answers_after_s in (0.3, 1.0, 4.0, 15.0):  # until it is so long that several are at once
        faults.set_latency(stand_in, first_byte_s=answers_after_s)
        folder = tmp_path / f"{answers_after_s}"
        ended = Bench(samples, folder, source, max_workers=8, **fine).run()
        assert ended.complete, ended.errors
        if refused := faults.faults.fired().get(rule["kind"], 0):
            break
    assert 0 < refused <= 2 * recommended_limits()[SERVICES[stand_in]].connections


def test_throttled_dvid_is_asked_with_throttle_and_left_alone_while_it_is_busy(
    samples: Samples, faults: Control, tmp_path: Path
) -> None:
    faults.add("status_503", "dvid", "/raw/", first_n=1, retry_after=1)
    ended = Bench(samples, tmp_path, "flyem").run()
    assert ended.complete, ended.errors
    raw = [one for one in faults.counters.log("dvid") if "/raw/" in one.path]
    assert all("throttle=true" in one.path for one in raw)
    assert max(gaps(raw)) >= 0.95


@pytest.mark.parametrize(
    ("source", "service", "kind", "match"),
    [
        ("ebi", "empiar", "status_404", ""),
        ("ebi", "empiar", "status_403", ""),
        ("epfl", "epfl", "status_404", ""),
        ("epfl", "epfl", "status_403", ""),
        ("flyem", "dvid", "status_404", "/raw/"),
        ("idr", "omero", "status_404", ""),
        ("openorganelle", "s3", "status_403", "s1/0/0/0"),
        ("openorganelle", "s3", "status_403", r"/\.z"),
    ],
)
def test_a_permanent_refusal_is_asked_for_once(
    source: str,
    service: str,
    kind: str,
    match: str,
    samples: Samples,
    faults: Control,
    tmp_path: Path,
) -> None:
    faults.add(kind, service, match)
    ended = Bench(samples, tmp_path, source).run()
    assert ended.errors
    assert faults.faults.fired() == {kind: 1}


def test_dvids_400_is_asked_for_once(samples: Samples, faults: Control, tmp_path: Path) -> None:
    ended = Bench(samples, tmp_path, "flyem", uuid="deadbeef").run()
    assert ended.errors
    assert faults.counters.tally("dvid").requests == 1


def test_550_is_asked_for_once(samples: Samples, faults: Control, tmp_path: Path) -> None:
    faults.add("reply_550", "ftp", r"slice_0001\.dm3", methods=["RETR"])
    ended = Bench(samples, tmp_path, "ebi", protocol="ftp").run()
    assert ended.errors
    assert faults.faults.fired() == {"reply_550": 1}


def test_pauses_between_tries_grow_and_are_not_all_alike(
    samples: Samples, faults: Control, tmp_path: Path
) -> None:
    faults.add("status_503", "epfl")
    bench = Bench(samples, tmp_path, "epfl")
    waits = []
    for _ in range(2):
        faults.counters.clear()
        assert bench.run().errors
        waits.append(gaps(faults.counters.log("epfl")))
    assert len(waits[0]) == recommended_limits()["epfl"].tries - 1
    assert waits[0][-1] > 4 * 0.01  # the fourth pause: 0.01 s doubled three times
    assert waits[0] != waits[1]
