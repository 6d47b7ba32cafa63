"""One run of everything with the server, worker and deployments of a desk, and its pages."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.errors import BadAnswerError
from tests.end_to_end.conftest import BIN, desk_in
from tests.kit.browser import Browser
from tests.kit.prefect_server import asking


@dataclass(frozen=True)
class FinishedRun:
    """A desk on which the deployment macroscope/full has run once."""

    folder: Path
    env: dict[str, str]
    run: dict[str, Any]

    @property
    def ui(self) -> str:
        return self.env["PREFECT_API_URL"].removesuffix("/api")

    def newest(self, key: str) -> dict[str, Any]:
        """The newest artifact of a key, as the server knows it."""
        asked = {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC"}
        artifact: dict[str, Any] = post(self.env, "artifacts/filter", asked)[0]
        return artifact


def prefect(folder: Path, env: dict[str, str], *arguments: str) -> None:
    done = subprocess.run(
        [str(BIN / "prefect"), *arguments],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=560,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def post(env: dict[str, str], path: str, asked: dict[str, Any]) -> Any:
    with asking(env) as session:
        answer = session.post(f"{env['PREFECT_API_URL']}/{path}", json=asked, timeout=120)
        answer.raise_for_status()
        return answer.json()


@contextmanager
def finished_run(folder: Path) -> Iterator[FinishedRun]:
    """Deploy everything on a desk and let macroscope/full run; the desk is there until the end."""
    with desk_in(folder) as (_, env):
        prefect(folder, env, "--no-prompt", "deploy", "--all")
        prefect(folder, env, "deployment", "run", "macroscope/full", "--watch")
        named = {"flow_runs": {"name": {"any_": ["macroscope staged all"]}}}
        (run,) = post(env, "flow_runs/filter", named)
        yield FinishedRun(folder, env, run)


def shown(browser: Browser, *texts: str) -> str:
    """The page's text, once all of `texts` are in it."""
    wanted = json.dumps(texts)
    browser.until(f"{wanted}.every(text => document.body.innerText.includes(text))")
    text: str = browser.evaluate("document.body.innerText")
    return text


def click(browser: Browser, label: str, *brings: str) -> str:
    """Click on what bears exactly this label until the page shows these texts; its text then."""
    return _until_shown(
        browser, f"[...document.querySelectorAll('body *')]{_bearing(label)}", brings
    )


def push(browser: Browser, label: str, *brings: str) -> str:
    """Push the button that says exactly this until the page shows these texts; its text then."""
    return _until_shown(browser, f"{buttons(label)}.pop()", brings)


def confirm(
    browser: Browser, label: str, dialogue: str, button: str, done: Callable[[], Any]
) -> None:
    """Push a button, and one of the dialogue that it opens, until it is done.

    Parameters
    ----------
    dialogue
        A text of the dialogue alone.
    button
        What is pushed in it: the last of this name, which it lays over the others.
    """

    def act() -> None:
        if dialogue not in browser.evaluate("document.body.innerText"):
            browser.evaluate(f"{buttons(label)}.pop()?.click()")
            return
        browser.evaluate(f"{buttons(button)}.pop()?.click()")

    def seen() -> Any:
        return dialogue in browser.evaluate("document.body.innerText") or done()

    browser.insist(act, seen, f"{label} opens {dialogue}")
    browser.insist(act, done, f"{button} does what it says")


def _bearing(label: str) -> str:
    return f".find(e => e.childElementCount === 0 && e.textContent.trim() === {json.dumps(label)})"


def buttons(label: str) -> str:
    """Those that can be pushed."""
    said = f"e.innerText.trim() === {json.dumps(label)}"
    return f"[...document.querySelectorAll('button')].filter(e => {said} && !e.disabled)"


def _until_shown(browser: Browser, found: str, brings: tuple[str, ...]) -> str:
    text = ""

    def seen() -> bool:
        nonlocal text
        text = browser.evaluate("document.body.innerText")
        return all(one in text for one in brings)

    browser.insist(
        lambda: browser.until(f"(e => e && (e.click(), true))({found})"),
        seen,
        f"a click brings {brings}",
    )
    return text


_LABEL = "(e => e.closest('.p-label')?.innerText.split('\\n')[0].replace(' (Optional)', ''))"
"""Label of the field that an element belongs to."""
_FOCUS = f"(e => [e.tagName, e.innerText.trim(), {_LABEL}(e)])(document.activeElement)"
"""Kind, text and label of what has the keyboard."""


def tab_to(browser: Browser, label: str, *, kind: str | None = None, text: str = "") -> None:
    """Press the tabulator until a field with this label, or a button with this text, has it."""
    for _ in range(300):
        tag, said, of = browser.evaluate(_FOCUS)
        found = label in (of, None if of else said)
        if tag != "BODY" and found and kind in (None, tag) and text in ("", said):
            return
        browser.press("Tab")
    raise BadAnswerError(f"the keyboard does not reach {label}", advice="")


def field(label: str, kind: str) -> str:
    """The first element of a kind, a selector, of the field with this label."""
    mine = f"{_LABEL}(e) === {json.dumps(label)}"
    return f"[...document.querySelectorAll({json.dumps(kind)})].find(e => {mine})"


def fill(browser: Browser, label: str, text: str) -> None:
    """Go to a field by keyboard and write a text, in place of what is in it, until it holds it."""

    def act() -> None:
        tab_to(browser, label, kind="TEXTAREA")
        browser.evaluate("document.activeElement.select()")
        browser.write(text)

    def holds() -> Any:
        browser.rest()
        return browser.evaluate(f"{field(label, 'textarea')}?.value === {json.dumps(text)}")

    browser.insist(act, holds, f"{label} holds {text}")


def log_in(browser: Browser, run: FinishedRun) -> None:
    """Give the page the password that `macroscope up` printed, as a person types it."""
    browser.open(run.ui)
    password = json.dumps(run.env["PREFECT_API_AUTH_STRING"])
    browser.until("!!document.querySelector('input[type=password]')")
    asked = (
        "(field => { if (!field) return;"
        f" field.value = {password}; field.dispatchEvent(new Event('input', {{bubbles: true}}));"
        " field.closest('form').requestSubmit() })"
        "(document.querySelector('input[type=password]'))"
    )
    inside = "!document.querySelector('input[type=password]') && location.pathname !== '/login'"
    browser.insist(  # the form is drawn more than once before it listens
        lambda: browser.evaluate(asked), lambda: browser.evaluate(inside), "the password is taken"
    )
