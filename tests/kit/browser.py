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
    "--hide-scrollbars",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--remote-debugging-port=0",
)
_PATIENCE_SECONDS = 180.0
_KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), "Space": (32, " "), "ArrowDown": (40, "")}
"""Key -> its number, and the text that it types."""


def find_chromium() -> str | None:
    """The path of an installed Chromium, or None."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


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
                ping_interval=None,  # it may stand still
            )
            target = self._call("Target.createTarget", url="about:blank")["targetId"]
            attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
            self._session: str | None = attached["sessionId"]
            for domain in ("Page", "Network", "Runtime", "Log"):
                self._call(f"{domain}.enable")
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
        self._call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

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

        Raises
        ------
        BadAnswerError
            It never is; the page's own messages are in the text.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            value = self.evaluate(expression)
            if value:
                return value
            time.sleep(0.1)
        raise BadAnswerError(
            f"never true: {expression}; the page says {self.messages[-5:]}", advice=""
        )

    def verify_source_unchanged(self, *, seconds: float = 20.0) -> None:
        """Wait until two looks half a second apart show the same; gives up in silence."""
        before, deadline = b"", time.monotonic() + seconds
        while (now := self.screenshot()) != before and time.monotonic() < deadline:
            before = now
            time.sleep(0.5)

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
        elif method == "Runtime.exceptionThrown":
            self.messages.append(json.dumps(event["exceptionDetails"])[:400])
        elif method == "Log.entryAdded" and event["entry"]["level"] == "error":
            self.messages.append(event["entry"]["text"] + " " + event["entry"].get("url", ""))

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
