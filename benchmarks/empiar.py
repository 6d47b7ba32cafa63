"""EMPIAR as far away as it was measured, beside aria2c and lftp on the same servers.

``python -m benchmarks.empiar [--mb 240]``: 30 ms to the first byte, 1.5 MB/s a connection, one in
fifty GETs stalls. Cases: one MRC file by ranges, sections of TIFF, sections of DM3 over FTP. Ours
is the whole life of a volume without Prefect: plan, transfer, conversion, last look, record. Each
run has servers of its own, which have answered once.

``--memory 500 20000``: instead, the peak memory of a process that makes a volume of so many
sections, from a server that is near: as many voxels each time, so that nothing but the number
of sections tells.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import tifffile
from numpy.typing import NDArray

from emulators.control import Control
from emulators.dm import Section, write_dm
from emulators.empiar import empiar_app
from emulators.faults import Rule
from emulators.ftp import FtpSide
from emulators.http_side import HttpSide
from emulators.mirror import mirror_app
from emulators.mrc import write_mrc
from lib.archives.registry import archive
from lib.config.loaders import EBIConfig
from lib.ingest.context import VolumeRequest, open_session
from lib.ingest.life import make_volume
from lib.storage.base import StoreSettings

FIRST_BYTE_S, BYTES_PER_SECOND, CONNECTIONS = 0.03, 1_500_000.0, 8
STALL_EVERY, STALL_S = 50, 60.0
_WORLD = "empiar/world_availability/99001/data"  # an entry that the stand-in's API knows
_MEMORY_VOXELS = 32 * 2**20  # of the volumes whose memory is compared
_SECTION_BYTES = {"one": 2_500_000, "many": 5_000_000, "dm": 5_000_000}


def serve(root: str, near: bool) -> None:
    """The servers, in a process of their own, until standard input ends."""
    control = Control()
    shaped = {"first_byte_s": FIRST_BYTE_S, "bytes_per_second": BYTES_PER_SECOND}
    if not near:
        control.set_latency("mirror", **shaped)
        control.set_latency("ftp", **shaped)
    stall = Rule(
        service="mirror", kind="stall", every=STALL_EVERY, skip=10,
        seconds=STALL_S, methods=frozenset({"GET"}), match=r"\.(mrc|tif)$",
    )  # fmt: skip
    control.faults.extend([] if near else [stall])
    side = HttpSide(control)
    side.start()
    ftp = FtpSide(Path(root), control)
    ftp.start()
    ports = {
        "mirror": side.add("mirror", mirror_app(Path(root))),
        "empiar": side.add("empiar", empiar_app()),
        "ftp": ftp.port,
    }
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    ftp.stop()
    side.stop()


def build(root: Path, megabytes: int) -> dict[str, int]:
    """The files of each case; bytes by the case's folder."""
    for name in _SECTION_BYTES:
        (root / _WORLD / name).mkdir(parents=True)
    planes = _planes("one", megabytes)
    write_mrc(root / _WORLD / "one/volume.mrc", planes.view(np.int8), voxel_nm_zyx=(8.0, 8.0, 8.0))
    for z, plane in enumerate(_planes("many", megabytes)):
        tifffile.imwrite(root / _WORLD / f"many/slice_{z:04d}.tif", plane)
    for z, plane in enumerate(_planes("dm", megabytes / 3)):
        path = root / _WORLD / f"dm/slice_{z:04d}.dm3"
        write_dm(path, plane, pixel_size_zyx=(0.008, 0.008), section=Section(z))
    return {
        name: sum(path.stat().st_size for path in (root / _WORLD / name).iterdir())
        for name in _SECTION_BYTES
    }


def _planes(case: str, megabytes: float) -> NDArray[np.uint8]:
    """Noise of 200 values: as hard to compress as what a detector gives."""
    nbytes = _SECTION_BYTES[case]
    side = int(nbytes**0.5)
    shape = (max(1, int(megabytes * 1e6 / nbytes)), side, side)
    return np.random.default_rng(1).integers(0, 200, shape, np.uint8)


@contextmanager
def serving(root: Path, *, near: bool = False) -> Iterator[dict[str, int]]:
    """Servers of their own process, which have answered once; yields their ports."""
    how = "--serve-near" if near else "--serve"
    command = [sys.executable, "-m", "benchmarks.empiar", how, str(root)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None and server.stdin is not None
        ports: dict[str, int] = json.loads(server.stdout.readline())
        for path in (f"{ports['empiar']}/empiar/api/entry/99001/", f"{ports['mirror']}/"):
            with urlopen(f"http://127.0.0.1:{path}") as answer:
                answer.read()
        try:
            yield ports
        finally:
            server.stdin.close()


def ours(ports: dict[str, int], folder: str, home: Path, **settings: Any) -> float:
    """Seconds of a volume's whole life."""
    config = EBIConfig(
        entry_id="99001",
        folder=f"data/{folder}",
        api_base_url=f"http://127.0.0.1:{ports['empiar']}/empiar/api",
        https_base_url=f"http://127.0.0.1:{ports['mirror']}",
        ftp_server=f"127.0.0.1:{ports['ftp']}",
        mrc_mode0="int8",
        **settings,
    )
    begun = time.perf_counter()
    with open_session(config, "ebi", scratch_dir=home / "scratch") as session:
        (plan,) = archive("ebi").plan(config, session)
    request = VolumeRequest(
        plan, config, str(home / "data"), StoreSettings(), home / "scratch", "bench"
    )
    cpu = time.process_time()
    result = make_volume(request, "bench")
    taken = time.perf_counter() - begun
    print(f"({time.process_time() - cpu:.1f} CPU s)", end=" ")
    if result.status != "complete":
        raise SystemExit(f"{folder}: {result.error}")
    return taken


def memory(root: Path, sections: int, home: Path) -> None:
    """Print the peak memory of a process of its own that makes a volume of so many sections."""
    folder = root / _WORLD / f"small_{sections}"
    folder.mkdir(parents=True)
    side = round((_MEMORY_VOXELS / sections) ** 0.5)
    planes = np.random.default_rng(1).integers(0, 200, (100, side, side), np.uint8)
    for z in range(sections):
        tifffile.imwrite(folder / f"slice_{z:05d}.tif", planes[z % 100])
    with serving(root, near=True) as ports:
        command = [sys.executable, "-m", "benchmarks.empiar", "--one-of", folder.name]
        told = subprocess.run(
            [*command, json.dumps(ports), str(home)], check=True, capture_output=True, text=True
        )
    print(f"{sections} sections: {told.stdout.strip()}", flush=True)


def _one_of(folder: str, ports: dict[str, int], home: Path) -> None:
    seconds = ours(ports, folder, home, requests_per_second=10_000.0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{seconds:.0f} s, at most {peak:.0f} MiB of memory")


def aria2c(ports: dict[str, int], root: Path, folder: str, home: Path) -> float:
    """Seconds of a download with as many connections; a stalled one is given up as ours is."""
    base = f"http://127.0.0.1:{ports['mirror']}/{_WORLD}/{folder}"
    urls = [f"{base}/{path.name}" for path in sorted((root / _WORLD / folder).iterdir())]
    listed = home / "urls"
    listed.write_text("\n".join(urls) + "\n")
    each = 1 if len(urls) > 1 else CONNECTIONS
    command = ["aria2c", "-q", f"-x{each}", f"-s{each}", f"-j{CONNECTIONS}", "-k1M", "--timeout=6"]
    command += ["--file-allocation=none", "--max-tries=5", "-d", str(home), "-i", str(listed)]
    return _seconds(command)


def lftp(ports: dict[str, int], folder: str, home: Path) -> float:
    """Seconds of a download over one FTP connection."""
    what = f"set net:timeout 60; mirror --parallel=1 /{_WORLD}/{folder} {home}"
    address = f"ftp://127.0.0.1:{ports['ftp']}"
    return _seconds(["lftp", "-u", "anonymous,x", "-e", f"{what}; quit", address])


def _seconds(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begun


def main() -> None:
    """Run each case once, ours and theirs, and print seconds and ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.empiar", description=__doc__)
    parser.add_argument("--mb", type=int, default=240, help="MB of each source, a third over FTP")
    parser.add_argument("--cases", nargs="*", choices=[*_SECTION_BYTES], default=[*_SECTION_BYTES])
    parser.add_argument("--memory", nargs="*", type=int, default=[], metavar="SECTIONS")
    given = parser.parse_args()
    megabytes, cases = given.mb, given.cases
    with tempfile.TemporaryDirectory() as folder:
        root, home = Path(folder) / "served", Path(folder) / "home"
        for sections in given.memory:
            memory(root, sections, home / str(sections))
        if given.memory:
            return
        sizes = build(root, megabytes)

        def timed(run: Callable[[dict[str, int], Path], float]) -> float:
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            with serving(root) as ports:
                return run(ports, home)

        for case in cases:
            ftp = case == "dm"
            peer = "lftp" if ftp else "aria2c"
            settings = {"protocol": "ftp"} if ftp else {}
            least = sizes[case] / BYTES_PER_SECOND / (1 if ftp else CONNECTIONS)
            mine = timed(lambda ports, at, c=case, s=settings: ours(ports, c, at, **s))  # type: ignore[misc]
            theirs = None
            if shutil.which(peer):
                other = lftp if ftp else partial(aria2c, root=root)
                theirs = timed(lambda ports, at, c=case, o=other: o(ports, folder=c, home=at))  # type: ignore[misc]
            _say("dm over FTP" if ftp else case, sizes[case], least, mine, theirs, peer)


def _say(
    case: str, nbytes: int, least: float, mine: float, theirs: float | None, peer: str
) -> None:
    beside = "" if theirs is None else f", {peer} {theirs:.1f} s ({theirs / mine:.2f} of its speed)"
    print(
        f"{case}: {nbytes / 1e6:.0f} MB, ours {mine:.1f} s = {least / mine:.0%} of what the "
        f"connections give ({least:.1f} s){beside}",
        flush=True,
    )


if __name__ == "__main__":
    if sys.argv[1:2] in (["--serve"], ["--serve-near"]):
        serve(sys.argv[2], sys.argv[1] == "--serve-near")
    elif sys.argv[1:2] == ["--one-of"]:
        _one_of(sys.argv[2], json.loads(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
