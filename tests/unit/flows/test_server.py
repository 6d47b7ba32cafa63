"""The tables of a Prefect server of one's own: made once, and never trusted when damaged."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from flows.commands import server
from flows.commands.server import PrefectServer
from lib.errors import MacroscopeError


def a_database(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES ('9e83011d1f2a')")
        database.execute("CREATE TABLE flow (name TEXT)")
        database.executemany("INSERT INTO flow VALUES (?)", [(f"{n:100}",) for n in range(1000)])
        database.commit()
    return path


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("SELECT count(*) FROM flow").fetchone()[0])


def test_tables_are_kept_from_a_running_server_and_taken_by_the_next(tmp_path: Path) -> None:
    made, kept, taken = a_database(tmp_path / "made.db"), tmp_path / "home/kept.db", tmp_path / "t"
    with closing(sqlite3.connect(made)) as running:  # it has the file open, as a server has
        running.execute("INSERT INTO flow VALUES ('in the log that is written ahead')")
        running.commit()
        server._keep_tables(made, kept)
    assert server._take_tables(kept, taken)
    assert rows(taken) == 1001
    assert [path.name for path in kept.parent.iterdir()] == ["kept.db"]


def test_tables_that_are_there_are_left_alone(tmp_path: Path) -> None:
    kept = tmp_path / "kept.db"
    kept.write_bytes(b"theirs")
    server._keep_tables(a_database(tmp_path / "made.db"), kept)
    assert kept.read_bytes() == b"theirs"


@pytest.mark.parametrize("damage", ["rubbish", "half", "changed", "absent", "empty", "none"])
def test_damaged_tables_are_not_taken(tmp_path: Path, damage: str) -> None:
    kept, taken = a_database(tmp_path / "kept.db"), tmp_path / "taken.db"
    data = kept.read_bytes()
    if damage == "rubbish":
        kept.write_bytes(b"rubbish" * 1000)
    elif damage == "half":
        kept.write_bytes(data[: len(data) // 2])
    elif damage == "changed":
        kept.write_bytes(data[:4096] + bytes(4096) + data[8192:])
    elif damage == "empty":
        kept.write_bytes(b"")
    elif damage == "none":
        with closing(sqlite3.connect(kept)) as database:
            database.execute("DELETE FROM alembic_version")
            database.commit()
    else:
        kept.unlink()
    assert not server._take_tables(kept, taken)
    assert not taken.exists() or not taken.stat().st_size
    assert not kept.exists(), "they are made anew"


def test_a_server_that_was_not_started_has_ended(tmp_path: Path) -> None:
    one = PrefectServer(tmp_path)
    one.stop()
    assert not one.is_running()


def test_a_home_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("no folder")
    server._keep_tables(a_database(tmp_path / "made.db"), tmp_path / "home/kept.db")
    assert (tmp_path / "home").read_text() == "no folder"


def test_a_server_that_ends_is_named_with_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no such port' >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    one = PrefectServer(tmp_path)
    one.start()
    with pytest.raises(MacroscopeError, match=r"did not start: no such port.*PREFECT_API_URL"):
        one.wait()
