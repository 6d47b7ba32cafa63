"""The picture inside an OME-Zarr: found by its group, digested, never worth a failed volume."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import zarr
from ome_zarr_models.v05 import Image as OmeImage
from PIL import Image

from emulators.serving import Samples
from lib.ingest import previews
from lib.records.manager import MetadataManager
from lib.storage.open import open_store
from lib.verify.volume import verify_store
from lib.volumes.ome import THUMBNAIL_KEY
from tests.faults.bench import Bench


def make(samples: Samples, folder: Path, **settings: Any) -> Path:
    """Bring in idr's volume; returns its folder."""
    ended = Bench(samples, folder, "idr", **settings).run()
    assert ended.complete, ended.errors
    (made,) = (path for path in folder.rglob("*.ome.zarr"))
    return made


def problems(volume: Path) -> list[str]:
    store = open_store(str(volume.parent.parent))
    verdicts = verify_store(store, digests=True)
    return [problem for verdict in verdicts for problem in verdict.problems]


@pytest.fixture
def volume(samples: Samples, tmp_path: Path) -> Path:
    return make(samples, tmp_path)


def test_the_group_names_a_picture_that_is_there(volume: Path) -> None:
    group = zarr.open_group(volume, mode="r")
    (entry,) = group.attrs["thumbnails"]
    (convention,) = group.attrs["zarr_conventions"]
    assert convention["uuid"] == "49326c01-1180-4743-b15f-f7157038a6ab"
    with Image.open(io.BytesIO((volume / entry["uri"]).read_bytes())) as picture:
        assert (picture.format, picture.size) == ("JPEG", (entry["width"], entry["height"]))
        low, high = picture.convert("L").getextrema()
    assert 128 <= max(entry["width"], entry["height"]) <= 512
    assert high - low > 100


def test_readers_of_zarr_and_ome_zarr_are_not_disturbed(volume: Path) -> None:
    group = zarr.open_group(volume, mode="r", use_consolidated=False)
    assert sorted(group.array_keys()) == ["0", "1"]
    OmeImage.from_zarr(group)


def test_its_bytes_are_proven_with_the_others(volume: Path) -> None:
    sums = volume.with_name(volume.name + ".SHA256SUMS").read_text()
    assert f"  {volume.name}/{THUMBNAIL_KEY}\n" in sums
    assert problems(volume) == []
    picture = volume / THUMBNAIL_KEY
    whole = picture.read_bytes()
    picture.write_bytes(whole[:-1] + b"\x00")
    assert any(THUMBNAIL_KEY in problem for problem in problems(volume))
    picture.unlink()
    assert any(THUMBNAIL_KEY in problem for problem in problems(volume))


def test_a_volume_that_cannot_be_drawn_is_complete_without_one_and_says_so(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ValueError("no colours today")

    monkeypatch.setattr(previews, "draw_thumbnail", fails)
    volume = make(samples, tmp_path)
    assert not (volume / "thumbnails").exists()
    assert "thumbnails" not in json.loads((volume / "zarr.json").read_text())["attributes"]
    store = open_store(str(volume.parent.parent))
    ((_, record),) = MetadataManager(store).find(status="complete")
    assert "no thumbnail could be drawn: ValueError: no colours today" in json.dumps(record)
    assert problems(volume) == []
