"""One run of everything with the server, worker and deployments of a desk, and its pages."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        for wait_s in (1, 2, 5, 10, 20, 0):  # its database may be busy, as clients of Prefect know
            answer = session.post(f"{env['PREFECT_API_URL']}/{path}", json=asked, timeout=120)
            if answer.status_code != 503:
                break
            time.sleep(wait_s)
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


def click(browser: Browser, label: str) -> None:
    """Click on what bears exactly this label."""
    browser.until(
        "(found => found && (found.click(), true))([...document.querySelectorAll('body *')]"
        f".find(e => e.childElementCount === 0 && e.textContent.trim() === {json.dumps(label)}))"
    )


def push(browser: Browser, label: str) -> None:
    """Push the button that says exactly this; the last, which a dialogue lays over the others."""
    browser.until(
        "(found => found && (found.click(), true))([...document.querySelectorAll('button')]"
        f".filter(e => e.innerText.trim() === {json.dumps(label)}).pop())"
    )


_FOCUS = (
    "(e => [e.tagName, e.innerText.trim(), e.closest('.p-label')?.innerText.split('\\n')[0]"
    ".replace(' (Optional)', '')])(document.activeElement)"
)
"""Kind, text and label of what has the keyboard."""


def tab_to(browser: Browser, label: str, *, kind: str | None = None, text: str = "") -> None:
    """Press the tabulator until a field with this label, or a button with this text, has it."""
    for _ in range(200):
        browser.press("Tab")
        tag, said, of = browser.evaluate(_FOCUS)
        found = label in (of, None if of else said)
        if tag != "BODY" and found and kind in (None, tag) and text in ("", said):
            return
    raise AssertionError(f"the keyboard does not reach {label}")


def log_in(browser: Browser, run: FinishedRun) -> None:
    """Give the page the password that `macroscope up` printed, as a person types it."""
    browser.open(run.ui)
    password = json.dumps(run.env["PREFECT_API_AUTH_STRING"])
    browser.until("!!document.querySelector('input[type=password]')")
    browser.until(  # the form is drawn more than once before it listens
        "(field => { if (!field) return true;"
        f" field.value = {password}; field.dispatchEvent(new Event('input', {{bubbles: true}}));"
        " field.closest('form').requestSubmit(); return false })"
        "(document.querySelector('input[type=password]'))"
    )
