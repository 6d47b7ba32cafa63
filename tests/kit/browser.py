"""A headless Chromium, to see pages as a person sees them: screenshots and what they show.

Drives the system's own Chromium through the DevTools protocol. Tests and the making of the
pictures in the README use it; macroscope itself never needs a browser.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from websockets.sync.client import connect

from lib.errors import BadAnswerError, NotFoundError

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",  # a container's is small, and a page that fills it crashes
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-hang-monitor",
    "--disable-gpu-watchdog",  # on a busy machine it takes drawing by the processor for a hang
    "--allow-pre-commit-input",  # keys before the first frame are dropped otherwise
    "--hide-scrollbars",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--remote-debugging-port=0",
)
_PATIENCE_SECONDS = 180.0
_STILL_SECONDS = 5.0
_BUSY_SECONDS = 1.0
_LEAST_TRIES = 4
_LONGEST_ANSWER_SECONDS = 130.0
"""What is not answered by then is no longer waited for: a server of Prefect gives up after 60 s."""
_KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), "Space": (32, " "), "ArrowDown": (40, "")}
"""Key -> its number, and the text that it types."""


def find_chromium() -> str | None:
    """The path of an installed Chromium, or None."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class _PageCrashedError(BadAnswerError):
    """Nothing that is asked of it will be answered."""


class Browser:
    """One Chromium with one tab and a profile of its own.

    Parameters
    ----------
    width, height
        Viewport in CSS pixels.

    Raises
    ------
    NotFoundError
        No Chromium is installed, or it does not start.
    """

    def __init__(self, *, width: int = 1280, height: int = 800) -> None:
        self.requested: list[str] = []  # addresses that pages asked for, data: left out
        self.messages: list[str] = []  # console errors and exceptions of the pages
        self.answers: list[tuple[str, int]] = []  # address and HTTP status; 0: no answer came
        self._unanswered: dict[str, tuple[str, float]] = {}  # id of a request: its address, since
        self._next, self._size = 0, (width, height)

    def __enter__(self) -> Browser:
        path = find_chromium()
        if path is None:
            raise NotFoundError("no Chromium is installed", advice="apt-get install chromium")
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        arguments = [path, *_FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(
            arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self._socket = connect(
                self._debugger(),
                max_size=None,
                proxy=None,
                open_timeout=_PATIENCE_SECONDS,
                ping_interval=None,  # it may stand still
            )
            target = self._call("Target.createTarget", url="about:blank")["targetId"]
            attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
            self._session: str | None = attached["sessionId"]
            for domain in ("Page", "Network", "Runtime", "Log", "Inspector"):
                self._call(f"{domain}.enable")
            self._call("Emulation.setFocusEmulationEnabled", enabled=True)  # keys go nowhere else
            self.resize(*self._size)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()
        self._end()

    _session: str | None = None

    def resize(self, width: int, height: int, *, mobile: bool = False) -> None:
        """Take another viewport; `mobile` behaves as a phone's browser does."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )

    def prefer(self, **features: str) -> None:
        """Set media features: ``prefer(prefers_color_scheme="dark")``."""
        chosen = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        self._call("Emulation.setEmulatedMedia", features=chosen)

    def open(self, url: str) -> None:
        """Load a page and wait until it, scripts and pictures included, is there."""
        if "errorText" in (answer := self._call("Page.navigate", url=url)):
            raise BadAnswerError(f"{url}: {answer['errorText']}")
        self.until("document.readyState === 'complete'")
        self.evaluate(  # drawn once: who types before is not heard
            "Promise.race([new Promise(drawn => requestAnimationFrame(() => "
            "requestAnimationFrame(() => drawn(0)))), new Promise(late => setTimeout(late, 5000))])"
        )

    def evaluate(self, expression: str) -> Any:
        """The JSON value of a JavaScript expression; promises are awaited.

        Raises
        ------
        BadAnswerError
            The expression throws.
        """
        answer = self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise BadAnswerError(f"{expression}: {json.dumps(answer['exceptionDetails'])[:500]}")
        return answer["result"].get("value")

    def until(self, expression: str, *, seconds: float = _PATIENCE_SECONDS) -> Any:
        """Ask again and again until the expression is truthy; returns its value.

        An expression that throws is not true yet: a page that is just replaced has no body.

        Raises
        ------
        BadAnswerError
            It never is; what the page shows and its own messages are in the text.
        """
        return self.insist(
            lambda: None, lambda: self.evaluate(expression), expression, seconds=seconds
        )

    def insist(
        self,
        act: Callable[[], object],
        done: Callable[[], Any],
        what: str,
        *,
        seconds: float = _PATIENCE_SECONDS,
    ) -> Any:
        """Do something until it has its effect, as a patient person does; returns what `done` said.

        A key or a click is lost while a page is drawn anew, and an answer of 503 is shown for a
        moment and forgotten. So `act` is repeated after `_STILL_SECONDS` without an effect, but
        never while the page is busy or a request of its is unanswered.

        Parameters
        ----------
        act
            What must do no harm when it is done again.
        done
            Truthy once the effect is there. BadAnswerError, as of a page without a body, is not.
        what
            Of the error.

        Raises
        ------
        BadAnswerError
            No effect came; what the page shows and its own messages are in the text.
        """
        begun, failed, tries = time.monotonic(), "", 0
        while True:
            tries += 1
            try:
                act()
            except _PageCrashedError:
                raise
            except BadAnswerError as error:
                failed = f"; {error}"
            since = time.monotonic()
            while time.monotonic() - since < _STILL_SECONDS:
                looked = time.monotonic()
                try:
                    if value := done():
                        return value
                    self.evaluate("0")  # hears what was asked and answered meanwhile
                except _PageCrashedError:
                    raise
                except BadAnswerError as error:
                    failed = f"; {error}"
                longest = seconds if tries >= _LEAST_TRIES else 2 * seconds
                if time.monotonic() > begun + longest:
                    raise BadAnswerError(f"never true: {what}{failed}\n{self.told()}", advice="")
                if self._waits() or time.monotonic() - looked > _BUSY_SECONDS:
                    since = time.monotonic()
                time.sleep(0.1)

    def told(self) -> str:
        """What a person would have to know of a page that did not do what it should."""
        try:
            shown = self.evaluate(
                "[location.href, document.activeElement?.outerHTML.slice(0, 200),"
                " document.body?.innerText.slice(0, 6000)].join('\\n')"
            )
        except (BadAnswerError, TimeoutError) as error:
            shown = str(error)
        waits = [url for url, _ in self._unanswered.values()]
        return (
            f"The page shows: {shown}\nIts messages: {self.messages[-8:]}\n"
            f"Answers: {self.answers[-12:]}\nUnanswered: {waits}"
        )

    def _waits(self) -> bool:
        """Whether the page waits for an answer that may still come."""
        oldest = time.monotonic() - _LONGEST_ANSWER_SECONDS
        return any(since > oldest for _, since in self._unanswered.values())

    def settle(self, *, seconds: float = 20.0) -> None:
        """Wait until two looks half a second apart show the same; gives up in silence."""
        before, deadline = b"", time.monotonic() + seconds
        while (now := self.screenshot()) != before and time.monotonic() < deadline:
            before = now
            time.sleep(0.5)

    def rest(self) -> None:
        """Let what the page put off for some milliseconds happen, and what that puts off in turn.

        A form of Prefect's hands a field's value on after 10 ms, from each level to the next; who
        submits before sends the one of before. Timers of a page run in the order in which they are
        due, so a chain of longer ones ends later than a shorter chain, however slow the page is.
        """
        self.evaluate(
            "(async () => { for (let n = 0; n < 10; n++)"
            " await new Promise(next => setTimeout(next, 50)) })()"
        )

    def press(self, key: str) -> None:
        """Press and release one key of `_KEYS`, such as ``Tab``."""
        number, text = _KEYS[key]
        for kind in ("keyDown", "keyUp"):
            self._call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=text if text == " " else key,
                code=key,
                windowsVirtualKeyCode=number,
                **({"text": text} if text and kind == "keyDown" else {}),
            )

    def write(self, text: str) -> None:
        """Put a text where the cursor is, as a keyboard or an input method does."""
        self._call("Input.insertText", text=text)

    def screenshot(self, *, whole_page: bool = False) -> bytes:
        """A PNG of the viewport, or of the whole page."""
        options: dict[str, Any] = {"format": "png"}
        if whole_page:
            size = self._call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
            options |= {"captureBeyondViewport": True, "clip": clip}
        return base64.b64decode(self._call("Page.captureScreenshot", **options)["data"])

    def _debugger(self) -> str:
        """Wait for the address that Chromium writes into its profile."""
        found = Path(self._profile.name) / "DevToolsActivePort"
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            lines = found.read_text().split("\n") if found.exists() else []
            if len(lines) > 1:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            time.sleep(0.05)
        raise NotFoundError("Chromium did not start", advice="Run it by hand to see why")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._next += 1
        message: dict[str, Any] = {"id": self._next, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=_PATIENCE_SECONDS))
            if answer.get("id") == self._next:
                if "error" in answer:
                    raise BadAnswerError(f"{method}: {answer['error'].get('message')}")
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer.get("method"), answer.get("params", {}))

    def _note(self, method: str | None, event: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            url = event["request"]["url"]
            if not url.startswith(("data:", "blob:")):
                self.requested.append(url)
                self._unanswered[event["requestId"]] = url, time.monotonic()
        elif method == "Network.responseReceived":
            self._answered(event["requestId"], event["response"]["status"])
        elif method in ("Network.loadingFinished", "Network.loadingFailed"):
            self._answered(event["requestId"], 0)
        elif method == "Page.frameNavigated" and "parentId" not in event["frame"]:
            self._unanswered.clear()  # what the page before asked for
        elif method == "Inspector.targetCrashed":
            raise _PageCrashedError("the page crashed")
        elif method == "Runtime.exceptionThrown":
            self.messages.append(json.dumps(event["exceptionDetails"])[:400])
        elif method == "Log.entryAdded" and event["entry"]["level"] == "error":
            self.messages.append(event["entry"]["text"] + " " + event["entry"].get("url", ""))

    def _answered(self, request: str, status: int) -> None:
        if request in self._unanswered:
            self.answers.append((self._unanswered.pop(request)[0], status))

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for _ in range(20):  # a child that outlives it by a moment may write once more
            self._profile.cleanup()
            if not Path(self._profile.name).exists():
                return
            time.sleep(0.1)
