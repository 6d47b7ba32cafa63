"""The page of a store, over HTTP: every volume told, the right links, nothing else served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import requests

import macroscope
from emulators.tissue import labels, tissue
from emulators.volumes import make_recorded_volume, make_volume, plan_of
from lib.errors import ConfigError, NothingThereError
from lib.plan import About
from lib.present.preview import preview_key, render_preview
from lib.present.viewer import Viewer, serve, serve_store
from lib.storage.base import Store
from lib.storage.open import open_store

SHAPE, VOXEL = (16, 40, 48), (30.0, 8.0, 8.0)
EM, LATE = "ebi/em one.ome.zarr", "idr/late.ome.zarr"
TITLE = "<img src=x onerror=alert(1)> of cortex"


def fill(store: Store) -> None:
    """An image with labels inside, an npy, a failed record, a broken one, a volume without one."""
    em, cells = tissue((0, 0, 0), SHAPE, seed=3), labels((0, 0, 0), SHAPE, seed=3)
    about = About(title=TITLE, organism="Mus musculus", licence="CC-BY-4.0")
    make_recorded_volume(store, em, plan_of(em, "ebi", "em one", VOXEL, about=about))
    store.put(preview_key(EM), render_preview(store, EM))
    if store.local_path("x") is not None:  # in a bucket there is no npy
        make_recorded_volume(store, em, plan_of(em, "epfl", "flat", VOXEL), output_format="npy")
    error = {"type": "NotFoundError", "message": "gone"}
    failed = {"source": "flyem", "name": "crop", "status": "failed", "error": error}
    store.put("flyem/metadata_crop.json", json.dumps(failed).encode())
    store.put("flyem/metadata_bad.json", b"{")
    make_volume(store, em, plan_of(em, "idr", "bare", VOXEL))
    put_inside(store, cells)


def put_inside(store: Store, cells: Any) -> None:
    """Labels as NGFF 0.5 has them inside an image: a group that lists them, and each below it."""
    key = make_volume(store, cells, plan_of(cells, "x", "cells", VOXEL, kind="labels")).volume_key
    for one in list(store.list(key)):
        store.put(f"{EM}/labels/cells/{one.key[len(key) + 1 :]}", store.get(one.key))
    group = {"zarr_format": 3, "node_type": "group"}
    listed = {"attributes": {"ome": {"version": "0.5", "labels": ["cells"]}}}
    store.put(f"{EM}/labels/zarr.json", json.dumps(group | listed).encode())
    for prefix in (key, f"{key}.SHA256SUMS"):
        store.delete_tree(prefix)
        store.delete(prefix)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("page")
    made = open_store(str(root))
    fill(made)
    (root / "secret.preview.png").write_bytes(b"not for you")
    return made


@pytest.fixture(scope="module")
def viewer(store: Store) -> Iterator[Viewer]:
    with serve_store(store) as running:
        yield running


class Page(HTMLParser):
    """Its links, pictures, inputs and words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.pictures: list[str] = []
        self.chosen: list[str] = []
        self.scripts = 0
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "a" and given["href"].startswith("/"):
            self.links.append(given["href"])
        elif tag == "img":
            self.pictures.append(given["src"])
        elif tag == "input" and given.get("type") == "checkbox":
            self.chosen.append(given["value"])
        self.scripts += tag == "script"

    def handle_data(self, data: str) -> None:
        self.words += data


def get(viewer: Viewer, path: str, **more: Any) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(viewer.address + path, timeout=120, allow_redirects=False, **more)


def test_the_page_tells_every_volume_and_what_is_not_complete(viewer: Viewer) -> None:
    assert viewer.url == f"{viewer.address}/"
    answer = get(viewer, "/")
    assert answer.status_code == 200
    assert "script-src 'sha256-" in answer.headers["Content-Security-Policy"]
    page = Page(answer.text)
    assert page.chosen == [EM]
    assert set(page.links) == {"/open?volume=ebi/em%20one.ome.zarr"}
    assert page.pictures == ["/preview/ebi/em%20one.preview.png", "/preview/epfl/flat.preview.png"]
    assert page.scripts == 1
    for said in (
        TITLE,
        "Mus musculus",
        "CC-BY-4.0",
        "16 × 40 × 48",
        "30 × 8 × 8 nm",
        "none stated",
    ):
        assert said in page.words
    assert "flyem/crop: failed, gone" in page.words
    assert "flyem/metadata_bad.json cannot be read" in page.words
    assert "idr/bare.ome.zarr has no record" in page.words


def test_its_links_lead_to_the_volume_with_the_labels_inside_over_it(viewer: Viewer) -> None:
    answer = get(viewer, Page(get(viewer, "/").text).links[0])
    assert answer.status_code == 302
    state = json.loads(unquote(urlsplit(answer.headers["Location"]).fragment)[1:])
    found = [(layer["name"], layer["type"], layer["source"]) for layer in state["layers"]]
    place = f"{viewer.address}/store/ebi/em%20one.ome.zarr"
    assert found == [
        ("em one", "image", f"{place}/|zarr3:"),
        ("cells", "segmentation", f"{place}/labels/cells/|zarr3:"),
    ]
    assert get(viewer, "/store/ebi/em%20one.ome.zarr/labels/cells/zarr.json").status_code == 200


def test_a_named_volume_has_its_labels_over_it_too(store: Store) -> None:
    with serve(store, [EM]) as running:
        assert "labels/cells" in running.url
        assert get(running, "/").headers["Location"] == running.url


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/open", 404),
        ("/open?volume=nowhere.ome.zarr", 404),
        ("/open?volume=epfl/flat.npy", 404),
        ("/open?volume=idr/bare.ome.zarr", 404),
        ("/store/idr/bare.ome.zarr/zarr.json", 404),
        ("/store/flyem/metadata_bad.json", 404),
        ("/preview/secret.preview.png", 404),
        ("/preview/../ebi/metadata_em%20one.json", 404),
        ("/preview/ebi/em%20one.preview.png", 200),
    ],
)
def test_nothing_else_is_served(viewer: Viewer, path: str, status: int) -> None:
    assert get(viewer, path).status_code == status


def test_a_page_elsewhere_cannot_read_it(viewer: Viewer) -> None:
    assert get(viewer, "/", headers={"Host": "evil.example"}).status_code == 400


def test_a_volume_that_comes_later_is_on_the_page_when_it_is_loaded_again(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    fill(store)
    with serve_store(store) as running:
        late = tissue((0, 0, 0), SHAPE, seed=4)
        make_recorded_volume(store, late, plan_of(late, "idr", "late", VOXEL))
        assert Page(get(running, "/").text).chosen == [EM, LATE]
        assert get(running, f"/open?volume={LATE}").status_code == 302


def test_labels_of_an_image_are_told_and_opened_over_it(tmp_path: Path) -> None:
    """As runs make them: volumes of their own records inside the image's tree."""
    store = open_store(str(tmp_path))
    em, cells = tissue((0, 0, 0), SHAPE, seed=3), labels((0, 0, 0), SHAPE, seed=3)
    make_recorded_volume(store, em, plan_of(em, "ebi", "em", VOXEL))
    image = "ebi/em.ome.zarr"
    inside = plan_of(cells, "ebi", "em_cells", VOXEL, kind="labels", within=image)
    key = make_recorded_volume(store, cells, inside)["files"]["volume"]
    assert key == f"{image}/labels/em_cells.ome.zarr"
    with serve_store(store) as running:
        page = Page(get(running, "/").text)
        assert page.chosen == [image, key]
        assert "Not complete" not in page.words
        leads = [get(running, f"/open?volume={one}").headers["Location"] for one in (image, key)]
        for lead in leads:
            state = json.loads(unquote(urlsplit(lead).fragment)[1:])
            assert [layer["type"] for layer in state["layers"]] == ["image", "segmentation"]
    opened = macroscope.open("em", data_dir=tmp_path)
    assert [*opened.labels] == ["em_cells"]
    for place in ("em_cells", tmp_path / key, tmp_path / "ebi/metadata_em_cells.json"):
        volume = macroscope.open(place, data_dir=tmp_path)
        assert (volume.kind, volume.name) == ("labels", "em_cells")
        assert volume.record is not None
        assert (volume.levels[0][:] == cells).all()


def test_an_empty_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(NothingThereError, match="nothing to view"):
        serve_store(open_store(str(tmp_path)))


def test_a_bucket_has_the_same_page(destination: Any) -> None:
    store = open_store(f"s3://{destination.bucket}/page", destination.settings())
    fill(store)
    with serve_store(store) as running:
        assert Page(get(running, "/").text).chosen == [EM]
        assert get(running, "/preview/ebi/em%20one.preview.png").content[1:4] == b"PNG"
        assert "labels/cells" in get(running, f"/open?volume={EM}").headers["Location"]


def test_an_installation_without_the_client_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib.present.viewer.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="neuroglancer"):
        serve_store(open_store(str(tmp_path)))
