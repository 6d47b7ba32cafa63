"""Objects of a folder: exactly their bytes, a proven absence, or a named error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lib.bytesource.base import LocalBytes
from lib.bytesource.tree import LocalTree
from lib.errors import BadAnswerError, NotFoundError, SourceChangedError


def test_an_object_is_its_bytes_and_what_is_not_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(100)))
    (tmp_path / "empty").touch()
    tree = LocalTree(tmp_path)
    assert tree.get("a") == bytes(range(100))
    assert tree.get_range("a", 10, 5) == bytes(range(10, 15))
    assert tree.get("empty") == b""
    for absent in ("b", "a/b", "no/b"):
        assert tree.get(absent) is None
        assert tree.get_range(absent, 0, 1) is None


def test_a_folder_or_too_long_an_object_is_a_named_error_not_bytes(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "a").write_bytes(bytes(100))
    tree = LocalTree(tmp_path)
    for read in (tree.get, lambda key: tree.get_range(key, 0, 0)):
        with pytest.raises(NotFoundError):
            read("folder")
    with pytest.raises(BadAnswerError):
        tree.get("a", most=99)


def test_a_file_that_shrinks_while_it_is_read_is_a_named_error(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(100))
    source = LocalBytes(path)
    os.truncate(path, 50)
    assert source.read(0, 50) == bytes(50)
    with pytest.raises(SourceChangedError):
        source.read(0, 100)
    source.close()
