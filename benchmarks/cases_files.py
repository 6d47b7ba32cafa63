"""The cases whose source is a file on a server, or tiles of DVID."""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import sources
from benchmarks.measure import Run, run_program, run_python
from benchmarks.plan import STEPS, WHOLE, Case, Goal, Setting, Variant
from emulators.documents import DVID_UUID
from flows.commands.server import PrefectServer

_DVID_START = (12000, 12000, 12000)


def _ports(setting: Setting, network: str) -> dict[str, int]:
    root = setting.cache / f"ftp-{sources.section_shape(setting.megabytes)[0]}"
    return setting.servers.files(root, network)


def _run(source: str, config: dict[str, Any], output: Path) -> Run:
    return run_python(
        "benchmarks.ours:ingest", {"source": source, "config": config, "output": str(output)}
    )


# --- TIFF over HTTP


def _tiff_url(setting: Setting, network: str) -> str:
    port = _ports(setting, network)["http"]
    return f"http://127.0.0.1:{port}/volume-{setting.megabytes:g}.tif"


def _ours_tiff(network: str, keep_raw: bool, **more: Any) -> Any:
    def run(setting: Setting, output: Path) -> Run:
        config = {"download_url": _tiff_url(setting, network), "keep_raw": keep_raw, **more}
        return _run("epfl", config, output)

    return run


def _curl(network: str) -> Any:
    def run(setting: Setting, output: Path) -> Run:
        return run_program(["curl", "-sSfo", f"{output}/curl.tif", _tiff_url(setting, network)])

    return run


def _aria2c(network: str, connections: int) -> Any:
    def run(setting: Setting, output: Path) -> Run:
        n = str(connections)
        options = ["-q", "-x", n, "-s", n, "-k", "8M", "--file-allocation=none"]
        target = ["-d", str(output), "-o", "aria2.tif"]
        return run_program(["aria2c", *options, *target, _tiff_url(setting, network)])

    return run


def _floor(function: str, parameters: Any, **more: bool) -> Any:
    """The necessary steps and nothing else; see `benchmarks.floors`."""

    def run(setting: Setting, output: Path) -> Run:
        given = {"output": str(output), **parameters(setting), **more}
        return run_python(f"benchmarks.floors:{function}", given)

    return run


def _floor_tiff(network: str, **more: bool) -> Any:
    return _floor(
        "tiff",
        lambda setting: {
            "url": _tiff_url(setting, network),
            "size": int(_tiff_bytes(setting)),
            "page_yx": sources.tiff_shape(setting.megabytes)[1:],
            "connections": 4,
        },
        **more,
    )


# --- DVID


def _edge(setting: Setting) -> int:
    return max(64, round(math.cbrt(setting.megabytes * 1e6)))


def _ours_dvid(network: str) -> Any:
    def run(setting: Setting, output: Path) -> Run:
        config = {
            "dvid_server": f"http://127.0.0.1:{_ports(setting, network)['dvid']}",
            "crop_size": [_edge(setting)] * 3,
            "crop_origin": list(_DVID_START),
        }
        return _run("flyem", config, output)

    return run


def _raw_url(port: int) -> str:
    return f"http://127.0.0.1:{port}/api/node/{DVID_UUID}/grayscale/raw/0_1_2"


def _floor_dvid(network: str, **more: bool) -> Any:
    return _floor(
        "dvid",
        lambda setting: {
            "url": _raw_url(_ports(setting, network)["dvid"]),
            "edge": _edge(setting),
            "start": _DVID_START[0],
            "connections": 2,
        },
        **more,
    )


def _one_get(network: str) -> Any:
    def run(setting: Setting, output: Path) -> Run:
        edge, port = _edge(setting), _ports(setting, network)["dvid"]
        size, start = "_".join([str(edge)] * 3), "_".join(map(str, _DVID_START))
        url = f"{_raw_url(port)}/{size}/{start}"
        return run_python(
            "benchmarks.peers_plain:dvid_one_get",
            {"url": url, "output": str(output), "shape": [edge] * 3},
        )

    return run


# --- DM3 over FTP


def _ours_sections(network: str, protocol: str = "ftp") -> Any:
    def run(setting: Setting, output: Path) -> Run:
        ports = _ports(setting, network)
        config = {
            "ftp_server": f"127.0.0.1:{ports['ftp']}",
            "api_base_url": f"http://127.0.0.1:{ports['empiar']}/empiar/api",
            "https_base_url": f"http://127.0.0.1:{ports['mirror']}",
            "protocol": protocol,
        }
        return _run("ebi", config, output)

    return run


def _lftp(network: str, parallel: int = 2) -> Any:
    def run(setting: Setting, output: Path) -> Run:
        port, folder = _ports(setting, network)["ftp"], sources.sections_folder()
        script = (
            f"set net:timeout 60; open -u anonymous,x ftp://127.0.0.1:{port}; "
            f"mirror --parallel={parallel} {folder} {output}; bye"
        )
        return run_program(["lftp", "-c", script])

    return run


def _numpy_write(setting: Setting, output: Path) -> Run:
    height, width = sources.section_shape(setting.megabytes)
    return run_python(
        "benchmarks.peers_plain:write_sections",
        {"folder": "", "output": str(output), "height": height, "width": width},
    )


def _floor_sections(network: str, **more: bool) -> Any:
    return _floor(
        "sections",
        lambda setting: {
            "port": _ports(setting, network)["ftp"],
            "folder": sources.sections_folder(),
            "page_yx": sources.section_shape(setting.megabytes),
        },
        **more,
    )


# --- what the allowed connections give


def _line(connections: int, nbytes: Any) -> Any:
    """The time that a file takes over so many full connections: a calculated contender."""

    def run(setting: Setting, output: Path) -> Run:
        from benchmarks.servers import FAR

        return Run(nbytes(setting) / (connections * FAR[1]), 0.0, 0.0)

    return run


def _tiff_bytes(setting: Setting) -> float:
    return sources.lay_tiff(setting.cache, setting.megabytes).stat().st_size


def _section_bytes(setting: Setting) -> float:
    height, width = sources.section_shape(setting.megabytes)
    return sources.SECTIONS * height * width


def _nothing(setting: Setting) -> None:
    return None


def _lay_tiff(setting: Setting) -> None:
    sources.lay_tiff(setting.cache, setting.megabytes)


def _lay_sections(setting: Setting) -> None:
    sources.lay_sections(setting.cache, setting.megabytes)


# --- orchestration


def _orchestrated(*, server: bool) -> Any:
    """The same crop through the flow, from the start of the command to its end.

    With a Prefect server that is there already, as a deployment has one, or with the run's own.
    """

    def run(setting: Setting, output: Path) -> Run:
        command, settings = _flow(setting, output, _edge(setting))
        return _beside_a_server(command, settings) if server else run_program(command, settings)

    return run


def _kept(*, server: bool) -> Any:
    """The second run of a small crop: nothing is left to do."""

    def run(setting: Setting, output: Path) -> Run:
        command, settings = _flow(setting, output, 64)
        run_program(command, settings)
        return _beside_a_server(command, settings) if server else run_program(command, settings)

    return run


def _program(*arguments: str) -> Any:
    """A command of this environment, beside which others are measured."""
    return lambda setting, output: run_program([sys.executable, "-m", *arguments], {})


def _flow(setting: Setting, output: Path, edge: int) -> tuple[list[str], dict[str, str]]:
    settings = {
        "FLYEM_DVID_SERVER": f"http://127.0.0.1:{_ports(setting, 'far')['dvid']}",
        "FLYEM_CROP_SIZE": ",".join([str(edge)] * 3),
        "FLYEM_CROP_ORIGIN": ",".join(map(str, _DVID_START)),
        "EM_METADATA_DIR": str(output / "metadata"),
        "EM_LOGS_DIR": str(output / "logs"),
        "EM_DASK": "off",
    }
    command = [sys.executable, "-m", "flows.cli", "run", "--source", "flyem"]
    return [*command, "--data-dir", str(output / "data")], settings


def _beside_a_server(command: list[str], settings: dict[str, str]) -> Run:
    """Run a program with a Prefect server that has been started for it."""
    with tempfile.TemporaryDirectory() as folder, PrefectServer(Path(folder)) as server:
        return run_program(command, {**settings, "PREFECT_API_URL": server.url})


def _bare_flows(setting: Setting, output: Path) -> Run:
    """What Prefect itself takes for as many flow and task runs, from the start of the program."""
    return _beside_a_server([sys.executable, "-m", "benchmarks.bare_flows"], {})


def _seconds(seconds: float) -> Any:
    return lambda setting, output: Run(seconds, 0.0, 0.0)


_FULL = "the line, calculated"

CASES = (
    Case(
        "tiff-http",
        "multi-page TIFF over HTTP to OME-Zarr with pyramid and both digests",
        _lay_tiff,
        (
            Variant("ours", _ours_tiff("near", keep_raw=False)),
            Variant("ours, raw kept", _ours_tiff("near", keep_raw=True)),
            Variant(STEPS, _floor_tiff("near")),
            Variant(WHOLE, _floor_tiff("near", whole=True)),
            Variant(f"{WHOLE}, raw kept", _floor_tiff("near", whole=True, keep=True)),
            Variant("curl", _curl("near"), "curl"),
            Variant("aria2c", _aria2c("near", 4), "aria2c"),
        ),
        (Goal("ours", "curl", 1.6), Goal("ours, raw kept", "curl", 2.0)),
    ),
    Case(
        "dvid",
        "DVID to OME-Zarr with digests, tiles of 256^3, against one GET into npy",
        _nothing,
        (
            Variant("ours", _ours_dvid("near")),
            Variant(STEPS, _floor_dvid("near")),
            Variant(WHOLE, _floor_dvid("near", whole=True)),
            Variant("one GET", _one_get("near")),
        ),
        (Goal("ours", "one GET", 0.75),),
        origin_zyx=_DVID_START,
    ),
    Case(
        "dm3-ftp",
        "16 DM3 sections over FTP to one OME-Zarr volume",
        _lay_sections,
        (
            Variant("ours", _ours_sections("near")),
            Variant("ours, HTTPS", _ours_sections("near", "https")),  # as EBI's HTTPS, without TLS
            Variant(STEPS, _floor_sections("near")),
            Variant(WHOLE, _floor_sections("near", whole=True)),
            Variant("lftp", _lftp("near"), "lftp"),
            Variant("numpy write", _numpy_write),
        ),
        (
            Goal("ours", "lftp", 2.0),
            Goal("ours", "numpy write", 2.0),
            Goal("ours, HTTPS", "lftp", 2.0),
        ),
    ),
    Case(
        "far-tiff",
        "TIFF at 30 ms and 20 MiB/s a connection, 4 connections",
        _lay_tiff,
        (
            Variant(STEPS, _floor_tiff("far")),
            Variant("ours", _ours_tiff("far", keep_raw=True)),
            Variant("aria2c", _aria2c("far", 4), "aria2c"),
            Variant(_FULL, _line(4, _tiff_bytes)),
        ),
        (Goal("ours", _FULL, 1 / 0.9),),
    ),
    Case(
        "far-dvid",
        "DVID at 30 ms and 20 MiB/s a connection, 2 connections",
        _nothing,
        (
            Variant(STEPS, _floor_dvid("far")),
            Variant("ours", _ours_dvid("far")),
            Variant(_FULL, _line(2, lambda setting: _edge(setting) ** 3)),
        ),
        (Goal("ours", _FULL, 1 / 0.9),),
        origin_zyx=_DVID_START,
    ),
    Case(
        "prefect",
        "what the flow adds to a crop of --size MB at 40 MiB/s (2500 MB: 60 s), and to no work",
        _nothing,
        (
            Variant("lib alone", _ours_dvid("far")),
            Variant("flow", _orchestrated(server=True)),
            Variant("flow, own server", _orchestrated(server=False)),
            Variant("bare flows", _bare_flows),
            Variant("nothing to do", _kept(server=True)),
            Variant("nothing to do, own server", _kept(server=False)),
            Variant("prefect version", _program("prefect", "version")),
            Variant("15 s", _seconds(15.0)),
        ),
        (
            Goal("flow", "lib alone", 1.1),
            Goal("flow, own server", "lib alone", 1.1),
            Goal("nothing to do", "15 s", 1.0),
            Goal("nothing to do, own server", "15 s", 1.0),
        ),
        full=True,
        origin_zyx=_DVID_START,
    ),
    Case(
        "far-ftp",
        "DM3 over FTP at 30 ms and 20 MiB/s a connection, 1 connection: EBI allows a job one",
        _lay_sections,
        (
            Variant(STEPS, _floor_sections("far")),
            Variant("ours", _ours_sections("far")),
            Variant("lftp", _lftp("far", 1), "lftp"),
            Variant(_FULL, _line(1, _section_bytes)),
        ),
        (Goal("ours", _FULL, 1 / 0.9),),
    ),
)
