"""The viewer's server: read-only, ranges, nothing outside the volumes, links that say enough."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import requests

from emulators.tissue import labels, tissue
from emulators.volumes import make_volume, plan_of
from lib.errors import ConfigError, DestinationError, NotFoundError, UnsupportedFormatError
from lib.present.viewer import Viewer, serve
from lib.storage.local import LocalStore
from lib.storage.open import open_store

SHAPE, VOXEL = (24, 48, 64), (30.0, 8.0, 8.0)
EM, LABELS = "ebi/sample one.ome.zarr", "ebi/sample one_cells.ome.zarr"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    root = tmp_path_factory.mktemp("viewer")
    (root / "secret.txt").write_text("not for you")
    store = LocalStore(root / "store", durable=False)
    em, cells = tissue((0, 0, 0), SHAPE, seed=3), labels((0, 0, 0), SHAPE, seed=3)
    make_volume(store, em, plan_of(em, "ebi", "sample one", VOXEL))
    make_volume(store, cells, plan_of(cells, "ebi", "sample one_cells", VOXEL, kind="labels"))
    make_volume(store, em, plan_of(em, "ebi", "flat", VOXEL), output_format="npy")
    other = plan_of(em, "idr", "other", VOXEL, origin_nm_zyx=(0.0, 800.0, -80.0))
    make_volume(store, em, other)
    store.put("ebi/metadata_sample one.json", b"{}")
    store.put("ebi/.partial/half/half.ome.zarr/zarr.json", b"{}")
    (root / "store" / EM / "leak").symlink_to(root / "secret.txt")
    (root / "store" / EM / "tree").symlink_to(root)
    return store


@pytest.fixture(scope="module")
def viewer(store: LocalStore) -> Iterator[Viewer]:
    with serve(store, [EM, LABELS]) as running:
        yield running


def state_of(url: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(unquote(urlsplit(url).fragment).removeprefix("!"))
    return parsed


def get(viewer: Viewer, path: str, **headers: str) -> requests.Response:
    """Ask for a path exactly as it is written, dots and all."""
    request = requests.Request("GET", viewer.address, headers=headers).prepare()
    request.url = viewer.address + path
    with requests.Session() as session:
        session.trust_env = False
        return session.send(request, timeout=120, allow_redirects=False)


def test_objects_and_ranges_come_as_they_are_stored(viewer: Viewer, store: LocalStore) -> None:
    key = f"{EM}/0/c/0/0/0"
    whole = store.get(key)
    path = f"/store/{key.replace(' ', '%20')}"
    plain = get(viewer, path)
    assert (plain.status_code, plain.content) == (200, whole)
    assert plain.headers["Accept-Ranges"] == "bytes"
    for wanted, part in (
        ("bytes=0-9", whole[:10]),
        ("bytes=5-", whole[5:]),
        ("bytes=-20", whole[-20:]),
        (f"bytes=10-{len(whole) + 99}", whole[10:]),
        (f"bytes=-{len(whole) + 99}", whole),
    ):
        answer = get(viewer, path, Range=wanted)
        assert (answer.status_code, answer.content) == (206, part)
        first = len(whole) - len(part) if wanted[6] == "-" else int(wanted[6:].split("-")[0])
        expected = f"bytes {first}-{first + len(part) - 1}/{len(whole)}"
        assert answer.headers["Content-Range"] == expected
    assert get(viewer, path, Range=f"bytes={len(whole)}-").status_code == 416
    head = requests.head(viewer.address + path, timeout=120)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(whole)))


def test_large_objects_are_streamed_whole(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, durable=False)
    voxels = np.zeros((4, 4, 4), np.uint8)
    voxels[0] = 9
    key = make_volume(store, voxels, plan_of(voxels, "ebi", "big", VOXEL)).volume_key
    data = np.random.default_rng(1).bytes(9 * 2**20 + 17)
    store.put(f"{key}/0/c/9/9/9", data)
    with serve(store, [key]) as running:
        assert get(running, f"/store/{key}/0/c/9/9/9").content == data


@pytest.mark.parametrize(
    "path",
    [
        "/store/../secret.txt",
        f"/store/{EM}/../../../secret.txt".replace(" ", "%20"),
        f"/store/{EM}/..%2f..%2f..%2fsecret.txt".replace(" ", "%20"),
        f"/store/{EM}/%2e%2e/%2e%2e/%2e%2e/secret.txt".replace(" ", "%20"),
        f"/store/{EM}/leak".replace(" ", "%20"),
        f"/store/{EM}/tree/secret.txt".replace(" ", "%20"),
        f"/store/{EM}//zarr.json".replace(" ", "%20"),
        f"/store/{EM}/zarr.json%00".replace(" ", "%20"),
        "/store/ebi/metadata_sample%20one.json",
        "/store/ebi/flat.npy",
        "/store/idr/other.ome.zarr/zarr.json",
        "/store/ebi/.partial/half/half.ome.zarr/zarr.json",
        "/store//etc/passwd",
        "/store/",
        "/v/volumes/../../../../secret.txt",
        "/v/volumes/..%2f..%2f__init__.py",
        "/v/volumes/main.js.map",
    ],
)
def test_nothing_but_the_named_volumes_is_served(viewer: Viewer, path: str) -> None:
    answer = get(viewer, path)
    assert answer.status_code in (403, 404)
    assert b"not for you" not in answer.content
    assert b"/tmp" not in answer.content


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_written(viewer: Viewer, store: LocalStore, method: str) -> None:
    before = store.get(f"{EM}/zarr.json")
    url = f"{viewer.address}/store/{EM}/zarr.json"
    assert requests.request(method, url, data=b"x", timeout=120).status_code == 405
    assert store.get(f"{EM}/zarr.json") == before


def test_a_page_elsewhere_cannot_borrow_the_address(viewer: Viewer) -> None:
    path = f"/store/{EM}/zarr.json".replace(" ", "%20")
    assert get(viewer, path, Host="evil.example").status_code == 400
    assert get(viewer, path).status_code == 200
    assert "Access-Control-Allow-Origin" not in get(viewer, path).headers


def test_only_the_loopback_listens(viewer: Viewer) -> None:
    assert viewer.address.startswith("http://127.0.0.1:")
    port = urlsplit(viewer.address).port
    with (
        pytest.raises(ConnectionRefusedError),
        socket.create_connection(("127.0.0.2", port), timeout=2),
    ):
        pass


def test_the_client_comes_with_us_and_may_ask_nobody_else(viewer: Viewer) -> None:
    page = get(viewer, "/v/volumes/")
    assert "<script" in page.text
    assert "http" not in page.text
    policy = page.headers["Content-Security-Policy"]
    assert "connect-src 'self'" in policy
    assert "*" not in policy
    home = get(viewer, "/")
    assert (home.status_code, home.headers["Location"]) == (302, viewer.url)


def test_the_link_tells_scale_units_contrast_and_which_layer_is_on_top(viewer: Viewer) -> None:
    state = state_of(viewer.url)
    assert state["dimensions"] == {"x": [8e-9, "m"], "y": [8e-9, "m"], "z": [30e-9, "m"]}
    assert list(state["dimensions"]) == ["x", "y", "z"]
    assert [layer["type"] for layer in state["layers"]] == ["image", "segmentation"]
    low, high = state["layers"][0]["shaderControls"]["normalized"]["range"]
    assert 0 < low < high < 256
    assert state["position"] == [32, 24, 12]
    assert state["showScaleBar"]
    assert state_of(viewer.url_for([LABELS]))["layers"][0]["name"] == "sample one_cells"


def test_several_images_stand_side_by_side_each_centred(store: LocalStore) -> None:
    with serve(store, ["idr/other.ome.zarr", LABELS, EM]) as running:
        state = state_of(running.url)
    panels = state["layout"]["children"]
    assert [panel["layers"] for panel in panels] == [["other"], ["sample one", "sample one_cells"]]
    centres = [panel["position"]["value"] for panel in panels]
    assert centres == [[22, 124, 12], [32, 24, 12]]


def test_what_cannot_be_shown_is_refused_with_what_to_do(store: LocalStore) -> None:
    with pytest.raises(UnsupportedFormatError, match="output_format zarr"):
        serve(store, ["ebi/flat.npy"])
    with pytest.raises(NotFoundError, match="catalogue"):
        serve(store, ["ebi/absent.ome.zarr"])
    with pytest.raises(ConfigError, match="no volume"):
        serve(store, [])
    wide = np.ones((4, 4, 4), np.float64)
    key = make_volume(store, wide, plan_of(wide, "epfl", "wide", VOXEL)).volume_key
    with pytest.raises(UnsupportedFormatError, match="float64"):
        serve(store, [key])
    with pytest.raises(NotFoundError, match="not served here"):
        serve(store, [EM]).url_for(["ebi/other.ome.zarr"])


def test_a_port_in_use_is_said_plainly(viewer: Viewer, store: LocalStore) -> None:
    port = urlsplit(viewer.address).port
    assert port is not None
    with pytest.raises(DestinationError, match="--port"), serve(store, [EM], port=port):
        pass


def test_stopping_closes_the_port_though_a_page_is_open(store: LocalStore) -> None:
    with serve(store, [EM]) as running:
        address = running.address
        stream = requests.get(f"{address}/events/volumes", stream=True, timeout=120)
        assert next(stream.iter_lines()) == b": connected"
    with pytest.raises(requests.ConnectionError):
        requests.get(address, timeout=5)
    stream.close()


def test_a_bucket_is_served_like_a_folder(destination: Any) -> None:
    store = open_store(f"s3://{destination.bucket}/viewer", destination.settings())
    voxels = tissue((0, 0, 0), SHAPE, seed=3)
    key = make_volume(store, voxels, plan_of(voxels, "ebi", "remote", VOXEL)).volume_key
    with serve(store, [key]) as running:
        shard = store.get(f"{key}/0/c/0/0/0")
        assert get(running, f"/store/{key}/0/c/0/0/0", Range="bytes=-36").content == shard[-36:]
        assert get(running, f"/store/{key}/0/c/7/7/7").status_code == 404
        assert destination.secret not in running.url


def test_an_installation_without_the_client_says_where_to_view_instead(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib.present.viewer.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"neuroglancer is not in it.*View from a desk"):
        serve(store, [EM])
