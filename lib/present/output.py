"""What commands print: the one way to a terminal.

Names, licences, notes and error texts come from archives and from other people's stores. A terminal
obeys control characters in them: it changes its title or its clipboard, or overwrites what stands
there. Here they become visible: ``\\x1b`` as four characters, in tables, lines and live views.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any

from lib.safety import visible

if TYPE_CHECKING:
    from rich.console import Console

_NO_TERMINAL_WIDTH = 200


def say(text: str = "", *, error: bool = False) -> None:
    """Print lines of text.

    Parameters
    ----------
    error
        To standard error, which is for whatever is not the command's result.
    """
    print(visible(text), file=sys.stderr if error else sys.stdout, flush=True)


def say_json(document: Any) -> None:
    """Print a document for scripts; JSON writes control characters as ``\\u001b``."""
    print(json.dumps(document, indent=2, ensure_ascii=True), flush=True)


def console(stream: IO[str] | None = None, **options: Any) -> Console:
    """A rich console that shows control characters and takes no text for markup.

    Parameters
    ----------
    stream
        Standard output by default. One that is no terminal is wide enough for any table.
    options
        Of ``rich.console.Console``.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class Visible(Console):
        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                text, style, control = segment
                yield segment if control else Segment(visible(text), style)

    out = stream or sys.stdout
    forced = options.get("force_terminal")
    if "width" not in options and not (_is_terminal(out) if forced is None else forced):
        options["width"] = int(os.environ.get("COLUMNS") or _NO_TERMINAL_WIDTH)
    return Visible(file=out, markup=False, emoji=False, highlight=False, **options)


def _is_terminal(stream: IO[str]) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


class VisibleRecord(logging.LogRecord):
    """A log record whose text and traceback a terminal does not obey, see `lib.safety.visible`.

    Logs quote archives, and are read in terminals: standard error, ``kubectl logs``, the file.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        if self.exc_info and self.exc_info[0] is not None:
            self.exc_text = visible("".join(traceback.format_exception(*self.exc_info))).rstrip()

    def getMessage(self) -> str:
        return visible(super().getMessage())


def make_records_visible() -> None:
    """Let every logger of this process write such records, Prefect's too."""
    logging.setLogRecordFactory(VisibleRecord)
