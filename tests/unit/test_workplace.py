"""A process keeps open what one order needs, and nothing of an order that was replaced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from volume_kit import a_plan

from lib.config.loaders import OpenOrganelleConfig
from lib.ingest.order import WorkOrder
from lib.ingest.workplace import close_workplace, workplace
from lib.storage.settings import StoreSettings


def an_order(folder: Path, holder: str = "run 1", **plan: Any) -> WorkOrder:
    return WorkOrder(
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
        close_workplace(an_order(tmp_path, holder))


def test_all_batches_of_an_order_share_one_workplace(folder: Path) -> None:
    assert workplace(an_order(folder)) is workplace(an_order(folder))


def test_two_holders_share_nothing(folder: Path) -> None:
    assert workplace(an_order(folder)) is not workplace(an_order(folder, "run 2"))


def test_a_new_plan_of_the_same_volume_gets_a_workplace_of_its_own(folder: Path) -> None:
    old = workplace(an_order(folder, etag="1"))
    new = workplace(an_order(folder, etag="2"))
    assert new is not old
    assert new.order.plan.files[0].etag == "2"
    assert workplace(an_order(folder, etag="2")) is new


def test_what_was_closed_is_opened_anew(folder: Path) -> None:
    first = workplace(an_order(folder))
    close_workplace(an_order(folder))
    close_workplace(an_order(folder))
    assert workplace(an_order(folder)) is not first
