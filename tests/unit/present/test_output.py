"""What a terminal is given: everything as text, nothing as a command, in every way of printing."""

from __future__ import annotations

import ast
import io
import logging
from pathlib import Path

import pytest
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lib.present.output import VisibleRecord, console, say, say_json
from lib.present.terminal import ProgressView
from lib.safety import visible

ROOT = Path(__file__).parents[3]
HOSTILE = "a\x1b]0;owned\x07b\x9b2Jc\u202ed\re\x00f\ud800"
SHOWN = r"a\x1b]0;owned\x07b\x9b2Jc\u202ed\re\x00f\ud800".replace(r"\r", r"\x0d")
OBEYED = set("\x1b\x07\x9b\u202e\r\x00\ud800")


def test_a_text_keeps_its_letters_and_lines_and_shows_the_rest() -> None:
    assert visible(HOSTILE) == SHOWN
    for harmless in ("", "Wilsch-Bräuninger", "細胞\n第二", "😀", "[red]x"):
        assert visible(harmless) == harmless
    assert visible("a\tb\xa0c\u3000d") == "a b c d"
    assert visible("\U000e0041") == r"\U000e0041"


def test_lines_and_documents(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE)
    say(HOSTILE, error=True)
    say_json({"name": HOSTILE[:-1]})
    said = capsys.readouterr()
    assert said.err == SHOWN + "\n"
    assert said.out.startswith(SHOWN + "\n")
    assert not OBEYED & set(said.out + said.err)


@pytest.mark.parametrize("terminal", [True, False])
def test_tables_titles_texts_and_live_views(terminal: bool) -> None:
    stream = io.StringIO()
    out = console(stream, force_terminal=terminal, width=100)
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(Text(HOSTILE))
    out.print(table)
    out.print(HOSTILE, style="bold")
    with Live(get_renderable=lambda: table, console=out, transient=True):
        pass
    text = stream.getvalue()
    assert text.count(r"\x1b]0;owned") >= 5
    for payload in ("\x1b]0;", "\x07", "\x9b", "\u202e", "\x00"):
        assert payload not in text


def test_brackets_of_a_name_are_no_markup() -> None:
    stream = io.StringIO()
    console(stream).print("[link=http://evil.example]here[/link] [/] :smile:")
    assert stream.getvalue() == "[link=http://evil.example]here[/link] [/] :smile:\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_progress(terminal: bool) -> None:
    stream = io.StringIO()
    with ProgressView(stream, terminal=terminal) as view:
        view.update(f"ebi/{HOSTILE}", 1, 4, 10)
    assert "\x1b]0;" not in stream.getvalue()
    assert "\x07" not in stream.getvalue()


def test_log_records_of_every_logger_with_their_tracebacks() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("somebody.elses")
    logger.addHandler(handler)
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(VisibleRecord)
    try:
        logger.warning("the archive says %s", HOSTILE)
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            logger.exception("it failed")
    finally:
        logging.setLogRecordFactory(before)
        logger.removeHandler(handler)
    assert stream.getvalue().count(SHOWN) == 2
    assert not OBEYED & set(stream.getvalue())


def test_nothing_else_prints() -> None:
    """The one place is `lib.present.output`: there is no other way to a terminal in the product."""
    found = []
    for path in [*ROOT.glob("flows/**/*.py"), *ROOT.glob("lib/**/*.py"), *ROOT.glob("tasks/*.py")]:
        if path == ROOT / "lib/present/output.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            call = node.func if isinstance(node, ast.Call) else None
            name = getattr(call, "id", "")
            written = ast.unparse(call) if call is not None else ""
            if name in ("print", "Console") or written in ("sys.stdout.write", "sys.stderr.write"):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")  # type: ignore[attr-defined]
    assert found == []
