"""Addresses by other ways: TLS of one's own authority, a bucket to write to, a run that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from emulators.s3 import S3Server
from lib.errors import TransportError
from lib.ingest.context import VolumeRequest
from lib.ingest.life import make_volume
from lib.storage.base import StoreSettings
from lib.storage.open import open_store
from tests.formats import cases_tiff, cases_zarr2
from tests.formats.case import Case
from tests.formats.servers import Servers
from tests.formats.test_conformance import Cell
from tests.kit.tls import TlsFront

FILE = Case("ways-tiff", cases_tiff.imagej, "stack.tif")
TREE = Case("ways-zarr2", cases_zarr2.multiscale, "x.zarr|zarr2:em")


@pytest.mark.parametrize("case", [FILE, TREE], ids=lambda case: case.name)
def test_a_server_of_ones_own_authority_is_read(
    case: Case, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = Cell(case, "http", servers, tmp_path)
    front = TlsFront(("127.0.0.1", servers._ports["http"]), tmp_path)
    try:
        plain = f"http://127.0.0.1:{servers._ports['http']}"
        (address,) = cell.settings["addresses"]
        cell.settings["addresses"] = [address.replace(plain, front.url)]
        with pytest.raises(TransportError, match="certificate"):
            cell.plan()
        monkeypatch.setenv("SSL_CERT_FILE", str(front.authority))
        _, _, voxels = cell.make()
    finally:
        front.close()
    np.testing.assert_array_equal(voxels, cell.truth)


@pytest.mark.parametrize("case", [FILE, TREE], ids=lambda case: case.name)
def test_a_volume_by_its_address_goes_into_a_bucket(
    case: Case, servers: Servers, tmp_path: Path
) -> None:
    cell = Cell(case, "http", servers, tmp_path)
    config, plan = cell.config(), cell.plan()
    with S3Server("made") as bucket:
        settings = StoreSettings(
            endpoint_url=bucket.endpoint_url, key=bucket.key, secret=bucket.secret
        )
        request = VolumeRequest(plan, config, "s3://made", settings, tmp_path / "s", "a test")
        made = make_volume(request, "a test")
        assert made.status == "complete", made.error
        store = open_store("s3://made", settings)
        prefix = f"address/{plan.name}.ome.zarr/"
        copy = tmp_path / "copy"
        for one in store.list(prefix.rstrip("/")):
            target = copy / one.key.removeprefix(prefix)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(store.get(one.key))
    voxels: Any = zarr.open_group(copy, mode="r")["0"][:]  # type: ignore[index]
    np.testing.assert_array_equal(voxels, cell.truth)


def test_of_a_box_of_several_files_only_what_it_takes_is_fetched(
    servers: Servers, tmp_path: Path
) -> None:
    cell = Cell(Case("ways-ome", cases_tiff.ome_files, "a z0.ome.tif"), "http", servers, tmp_path)
    whole, box = cell.plan(), "z=5:8"
    assert whole.reader["way"] == "fetch"
    assert whole.download_bytes == sum(file.size or 0 for file in whole.files)
    plan, record, voxels = cell.make(box=box)
    assert plan.reader["way"] == "ranges"
    np.testing.assert_array_equal(voxels, cell.truth[5:8])
    assert not [*(tmp_path / "data").rglob("*.ome.tif")]
    assert record["metadata"]["provenance"]["bytes"]


_CHILD = """
import os, signal, sys
from pathlib import Path
from lib.config.loaders import AddressConfig
from lib.ingest.life import make_volume
from lib.ingest.context import VolumeRequest
from lib.ingest.stages import plan_source
from lib.volumes.ledger import Ledger
from lib.storage.base import StoreSettings
config = AddressConfig.model_validate_json(sys.argv[1])
scratch = Path(sys.argv[2])
(plan,) = plan_source("address", config, scratch).plans
request = VolumeRequest(plan, config, str(scratch / "data"), StoreSettings(), scratch / "s", "one")
add = Ledger.add
def add_and_die(self, entry):
    add(self, entry)
    os.kill(os.getpid(), signal.SIGKILL)
Ledger.add = add_and_die
make_volume(request, "one")
"""


def test_a_run_that_is_killed_is_gone_on_with(servers: Servers, tmp_path: Path) -> None:
    cell = Cell(TREE, "http", servers, tmp_path)
    cell.settings |= {"shard_mb": 0.01}
    config, plan = cell.config(), cell.plan()
    killed = subprocess.run(
        [sys.executable, "-c", _CHILD, config.model_dump_json(), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert killed.returncode == -signal.SIGKILL, "it had a shard, and others to make"
    request = VolumeRequest(
        plan, cell.config(), str(tmp_path / "data"), StoreSettings(), tmp_path / "s", "a test"
    )
    made = make_volume(request, "a test")
    assert made.status == "complete", made.error
    volume = tmp_path / "data" / "address" / f"{plan.name}.ome.zarr"
    voxels: Any = zarr.open_group(volume, mode="r")["0"][:]  # type: ignore[index]
    np.testing.assert_array_equal(voxels, cell.truth)
