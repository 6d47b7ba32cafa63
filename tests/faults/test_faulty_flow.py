"""One whole run from the command line, all sources at once, with faults: what each came to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from emulators.catalogue import truth
from emulators.control import Control
from emulators.serving import Samples
from lib.archives.registry import recommended_limits
from lib.storage.local import LocalStore
from lib.verify.volume import verify_store
from tests.faults.test_polite import SERVICES

SECONDS = 560


@pytest.mark.slow
def test_a_parallel_run_recovers_where_it_can_names_what_it_cannot_and_stays_polite(
    samples: Samples, faults: Control, tmp_path: Path
) -> None:
    faults.add("status_503", "epfl", first_n=2, retry_after=1)
    faults.add("cut_426", "ftp", r"slice_0007\.dm3", first_n=1)
    faults.add("wrong_bytes", "s3", r"s1/0/1/1", first_n=1)
    faults.add("status_403", "dvid", "/raw/")
    ended = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", "--mode", "parallel", "--json"],
        cwd=tmp_path,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "EM_"))},
            "EM_SERVICES": json.dumps(samples.endpoints),
            "EM_DATA_DIR": str(tmp_path / "data"),
            "EM_METADATA_DIR": str(tmp_path / "metadata"),
            "PREFECT_HOME": str(tmp_path / "prefect"),
            "EM_DASK": "off",
            "EBI_PROTOCOL": "ftp",
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert ended.returncode == 1, ended.stderr[-3000:]
    results = {one["source"]: one for one in json.loads(ended.stdout)}
    assert {name: one["success"] for name, one in results.items()} == {
        "ebi": True, "epfl": True, "flyem": False, "idr": True, "openorganelle": True,
    }, ended.stderr[-3000:]  # fmt: skip
    (said,) = results["flyem"]["errors"]
    assert "refuses access (status 403)" in said
    assert "Check the credentials" in said
    assert set(faults.faults.fired()) == {"status_503", "cut_426", "wrong_bytes", "status_403"}

    verdicts = list(verify_store(LocalStore(tmp_path / "data")))
    assert all(not one.problems for one in verdicts)
    statuses = sorted(one.status for one in verdicts)
    assert statuses == ["complete"] * 4 + ["failed"]
    assert not list((tmp_path / "data" / "flyem").glob("*.ome.zarr"))
    for key, pattern in (
        ("ebi/EMPIAR-11759", "ebi/*.ome.zarr"),
        ("epfl/volumedata.tif", "epfl/*.ome.zarr"),
        ("idr/9846137", "idr/*.ome.zarr"),
        ("openorganelle/jrc_mus-nacc-2/recon-2/em/fibsem-int16/s1", "openorganelle/*.ome.zarr"),
    ):
        (volume,) = (tmp_path / "data").glob(pattern)
        voxels = zarr.open_array(volume / "0", mode="r")[:]
        np.testing.assert_array_equal(np.asarray(voxels), truth(key))
    for stand_in, service in SERVICES.items():
        assert faults.counters.tally(stand_in).peak <= recommended_limits()[service].connections
