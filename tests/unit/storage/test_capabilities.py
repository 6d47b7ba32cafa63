"""What a destination cannot do is found before anything is fetched, named, and done otherwise."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lib.errors import AlreadyExistsError, DestinationError
from lib.storage import capabilities, durable
from lib.storage import open as opening
from lib.storage.base import StoreSettings
from lib.storage.capabilities import Missing
from lib.storage.local import LocalStore
from lib.storage.local_lock import acquire, honours_flock, release
from lib.storage.s3 import S3Store


def refusing(number: int, real: Callable[..., Any], only: Callable[..., bool]) -> Any:
    """A system call that fails where `only` says so."""

    def call(*given: Any, **more: Any) -> Any:
        if only(*given):
            raise OSError(number, os.strerror(number))
        return real(*given, **more)

    return call


def is_folder(handle: int) -> bool:
    return os.path.isdir(f"/proc/self/fd/{handle}")


NOT_ABLE: dict[str, tuple[Any, str, Any, Missing]] = {
    "flock, ENOSYS": (
        fcntl,
        "flock",
        refusing(errno.ENOSYS, fcntl.flock, lambda *_: True),
        capabilities.NO_LOCKS,
    ),
    "flock, ENOLCK": (
        fcntl,
        "flock",
        refusing(errno.ENOLCK, fcntl.flock, lambda *_: True),
        capabilities.NO_LOCKS,
    ),
    "flock that keeps nobody out": (fcntl, "flock", lambda *_: None, capabilities.NO_LOCKS),
    "fsync of folders": (
        os,
        "fsync",
        refusing(errno.EINVAL, os.fsync, is_folder),
        capabilities.NO_FOLDER_SYNC,
    ),
    "links": (
        os,
        "link",
        refusing(errno.EPERM, os.link, lambda *_: True),
        capabilities.NO_LINKS_THERE,
    ),
    "O_DIRECT": (durable, "_DIRECT", 0, capabilities.NO_DIRECT),
}


@pytest.mark.parametrize("what", NOT_ABLE)
def test_what_a_folder_cannot_do_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    able = LocalStore(tmp_path / "able").probe()
    owner, name, call, missing = NOT_ABLE[what]
    assert missing not in able
    monkeypatch.setattr(owner, name, call)
    assert set(LocalStore(tmp_path / "data").probe()) == {*able, missing}
    assert missing.what in str(missing)
    assert missing.instead in str(missing)
    assert list((tmp_path / "data").iterdir()) == []


def test_without_any_fsync_both_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", refusing(errno.EINVAL, os.fsync, lambda *_: True))
    found = LocalStore(tmp_path).probe()
    assert {capabilities.NO_FILE_SYNC, capabilities.NO_FOLDER_SYNC} <= set(found)


@pytest.mark.parametrize("how", [errno.EEXIST, errno.EPERM, None])
def test_a_folder_where_renaming_replaces_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: int | None
) -> None:
    ignored = (lambda *_: None) if how is None else refusing(how, os.replace, lambda *_: True)
    monkeypatch.setattr(os, "replace", ignored)
    with pytest.raises(DestinationError, match="cannot replace a file") as caught:
        LocalStore(tmp_path).probe()
    assert "ext4" in caught.value.advice
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "makedirs", refusing(errno.EROFS, os.makedirs, lambda *_: True))
    with pytest.raises(DestinationError, match="read-only"):
        LocalStore(tmp_path / "data").probe()


def test_a_destination_is_tried_once_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(opening, "_probed", {})
    monkeypatch.setattr(fcntl, "flock", refusing(errno.ENOSYS, fcntl.flock, lambda *_: True))
    first = opening.probe_once(str(tmp_path), StoreSettings())
    monkeypatch.setattr(LocalStore, "probe", lambda self: pytest.fail("tried again"))
    assert opening.probe_once(str(tmp_path), StoreSettings()) == first
    assert f"{tmp_path} has no kernel locks" in caplog.text


# --- and what is done otherwise


def test_a_folder_that_cannot_be_forced_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CIFS and shared folders say EINVAL; the volume is published and its record written."""
    monkeypatch.setattr(os, "fsync", refusing(errno.EINVAL, os.fsync, is_folder))
    store = LocalStore(tmp_path)
    store.put(store.staging_key("ebi/x.ome.zarr") + "/zarr.json", b"{}")
    store.persist("ebi/.partial/x/x.ome.zarr")
    store.publish_tree(store.staging_key("ebi/x.ome.zarr"), "ebi/x.ome.zarr")
    store.put("ebi/metadata_x.json", b"{}")
    assert [item.key for item in store.list()] == [
        "ebi/metadata_x.json",
        "ebi/x.ome.zarr/zarr.json",
    ]


def test_without_links_a_name_is_still_taken_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", refusing(errno.EPERM, os.link, lambda *_: True))
    store = LocalStore(tmp_path)
    store.put("catalogue", b"first", create=True)
    with pytest.raises(AlreadyExistsError):
        store.put("catalogue", b"second", create=True)
    assert store.get("catalogue") == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["catalogue"]


def no_folder_renamed(*given: Any) -> bool:
    return os.path.isdir(given[0])


@pytest.fixture
def no_renames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "rename", refusing(errno.EXDEV, os.rename, no_folder_renamed))


def published(store: LocalStore, content: bytes) -> dict[str, bytes]:
    staging = store.staging_key("ebi/x.ome.zarr")
    for name in ("zarr.json", "0/zarr.json", "0/c/0/0/0", f"0/c/{content.decode()}"):
        store.put(f"{staging}/{name}", content)
    store.publish_tree(staging, "ebi/x.ome.zarr")
    return {item.key: store.get(item.key) for item in store.list()}


@pytest.mark.usefixtures("no_renames")
def test_where_folders_cannot_be_renamed_their_files_are(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for content in (b"old", b"new"):
        root = "ebi/x.ome.zarr"
        assert published(store, content) == {
            f"{root}/zarr.json": content,
            f"{root}/0/zarr.json": content,
            f"{root}/0/c/0/0/0": content,
            f"{root}/0/c/{content.decode()}": content,
        }
    store.delete_tree("ebi/x.ome.zarr")
    assert list(store.list()) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.usefixtures("no_renames")
def test_a_tree_whose_files_are_moved_is_no_volume_before_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    published(store, b"old")
    seen: list[set[str]] = []
    for name in ("rename", "unlink"):
        real = getattr(os, name)

        def watched(*given: Any, real: Any = real, **more: Any) -> Any:
            seen.append({item.key for item in store.list("ebi/x.ome.zarr")})
            return real(*given, **more)

        monkeypatch.setattr(os, name, watched)
    published(store, b"new")
    whole = {len(keys) for keys in seen if "ebi/x.ome.zarr/zarr.json" in keys}
    assert whole == {4}
    assert {len(keys) for keys in seen} >= {0, 1, 2, 3, 4}


# --- on real file systems


def mounts() -> bool:
    return os.geteuid() == 0 and shutil.which("mount") is not None


@contextmanager
def mounted(where: Path, *how: str) -> Iterator[Path]:
    where.mkdir(exist_ok=True)
    made = subprocess.run(["mount", *how, str(where)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"mount: {made.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)


@pytest.mark.skipif(not mounts(), reason="mounts want root")
def test_a_volume_of_an_images_layer_is_replaced_on_overlayfs(tmp_path: Path) -> None:
    lower, upper, work = (tmp_path / name for name in ("lower", "upper", "work"))
    for folder in (upper, work):
        folder.mkdir()
    published(LocalStore(lower), b"old")
    half = LocalStore(lower)
    half.put(half.staging_key("ebi/y.ome.zarr") + "/zarr.json", b"of the image too")
    layers = f"lowerdir={lower},upperdir={upper},workdir={work}"
    with mounted(tmp_path / "overlay", "-t", "overlay", "overlay", "-o", layers) as top:
        with pytest.raises(OSError, match="cross-device"):
            os.rename(top / "ebi/x.ome.zarr", top / "ebi/aside")
        store = LocalStore(top)
        assert capabilities.NO_LOCKS not in store.probe()
        store.publish_tree(store.staging_key("ebi/y.ome.zarr"), "ebi/y.ome.zarr")
        assert store.get("ebi/y.ome.zarr/zarr.json") == b"of the image too"
        store.delete_tree("ebi/y.ome.zarr")
        assert set(published(store, b"new").values()) == {b"new"}


@pytest.mark.skipif(not mounts(), reason="mounts want root")
def test_a_tmpfs_has_all_that_is_needed(tmp_path: Path) -> None:
    with mounted(tmp_path / "memory", "-t", "tmpfs", "tmpfs") as top:
        store = LocalStore(top / "data")
        assert set(store.probe()) <= {capabilities.NO_DIRECT}
        assert set(published(store, b"new").values()) == {b"new"}


def test_this_machines_own_file_system_honours_locks(tmp_path: Path) -> None:
    (tmp_path / ".locks").mkdir()
    (tmp_path / ".locks" / "flock").touch()  # what a process left that was killed
    assert honours_flock(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_while_another_tries_the_same_the_answer_is_known(tmp_path: Path) -> None:
    held = acquire(str(tmp_path / ".locks" / "flock"), patience_s=0)
    assert honours_flock(str(tmp_path))
    assert (tmp_path / ".locks" / "flock").exists()  # it is the other's
    release(held)


def test_tries_that_were_killed_an_hour_ago_are_swept(tmp_path: Path) -> None:
    old, young = (tmp_path / f".probe.{digit * 12}.tmp" for digit in "ab")
    for folder in (old, young):
        folder.mkdir()
        (folder / "one").touch()
    os.utime(old, (1, 1))
    LocalStore(tmp_path).probe()
    assert list(tmp_path.iterdir()) == [young]


# --- buckets


class Careless:
    """Before a real S3 server: requests of one method are successes, whatever their conditions."""

    def __init__(self, app: Any, method: str) -> None:
        self._app, self._method = app, method

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != self._method:
            return await self._app(scope, receive, send)
        while (await receive()).get("more_body"):
            pass
        answer = Response(b"", headers={"ETag": '"1"'})
        return await answer(scope, receive, send)


def test_seaweedfs_honours_all_that_is_needed(destination: Any, tmp_path: Path) -> None:
    store = S3Store(f"s3://volumes/{tmp_path.name}", destination.settings())
    assert store.probe() == ()
    assert store._objects.listing("") == []


@pytest.mark.parametrize(
    ("method", "says"), [("PUT", "ignores conditional writes"), ("DELETE", "")]
)
def test_a_server_that_ignores_conditions_is_refused_or_named(
    destination: Any, tmp_path: Path, method: str, says: str
) -> None:
    from emulators.s3_proxy import S3Proxy

    proxy = S3Proxy(destination.server.endpoint_url)
    destination.side.at_end(proxy.close)
    port = destination.side.add("destination", Careless(proxy, method))
    settings = destination.settings(endpoint_url=f"127.0.0.1:{port}", attempts=1)
    store = S3Store(f"s3://volumes/{tmp_path.name}", settings)
    if says:
        with pytest.raises(DestinationError, match=says):
            store.probe()
    else:
        assert store.probe() == (capabilities.NO_CONDITIONAL_DELETE,)


def test_moto_looks_at_no_signatures_end(moto: str, tmp_path: Path) -> None:
    settings = StoreSettings(endpoint_url=moto, region="us-east-1", key="k", secret="s")
    assert S3Store(f"s3://volumes/{tmp_path.name}", settings).probe() == (capabilities.NO_EXPIRY,)
