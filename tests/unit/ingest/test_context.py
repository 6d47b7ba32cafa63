"""A process keeps open what one request needs, and nothing of a request that was replaced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lib.config.loaders import OpenOrganelleConfig
from lib.ingest.context import VolumeRequest, close_context, volume_context
from lib.storage.base import StoreSettings
from tests.kit.volume_kit import a_plan


def a_request(folder: Path, holder: str = "run 1", **plan: Any) -> VolumeRequest:
    return VolumeRequest(
        plan=a_plan((4, 4, 4), **plan),
        config=OpenOrganelleConfig(dataset_id="jrc_hela-2"),
        data_uri=str(folder),
        store_settings=StoreSettings(),
        scratch_dir=folder,
        holder=holder,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for holder in ("run 1", "run 2"):
        close_context(a_request(tmp_path, holder))


def test_all_batches_of_a_request_share_one_context(folder: Path) -> None:
    assert volume_context(a_request(folder)) is volume_context(a_request(folder))


def test_two_holders_share_nothing(folder: Path) -> None:
    assert volume_context(a_request(folder)) is not volume_context(a_request(folder, "run 2"))


def test_a_new_plan_of_the_same_volume_gets_a_context_of_its_own(folder: Path) -> None:
    old = volume_context(a_request(folder, etag="1"))
    new = volume_context(a_request(folder, etag="2"))
    assert new is not old
    assert new.request.plan.files[0].etag == "2"
    assert volume_context(a_request(folder, etag="2")) is new


def test_what_was_closed_is_opened_anew(folder: Path) -> None:
    first = volume_context(a_request(folder))
    close_context(a_request(folder))
    close_context(a_request(folder))
    assert volume_context(a_request(folder)) is not first
