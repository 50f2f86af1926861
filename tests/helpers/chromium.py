"""Controls headless Chromium over its DevTools pipe, without any driver or package."""

import base64
import contextlib
import json
import os
import pathlib
import select
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

_TIMEOUT = 60  # seconds


def find() -> str | None:
    """Path of a browser that starts; None if there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if program := shutil.which(name):
            tried = subprocess.run([program, "--version"], capture_output=True, check=False)
            if tried.returncode == 0:
                return program
    return None


class Tab:
    """Browser tab that executes DevTools commands and records events.

    Attributes:
      events: messages of the browser that are not responses to commands, since the page was opened.
    """

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._rest, self._number = write, read, b"", 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Executes a DevTools command and returns its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], _TIMEOUT)
            if not ready:
                raise RuntimeError(f"the browser sent no message for {_TIMEOUT} s")
            block = os.read(self._read, 1 << 20)
            if not block:
                raise RuntimeError("the browser closed the connection")
            self._rest += block
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, file: pathlib.Path, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Opens a file in a viewport of the given size, pixels, and waits until it is loaded."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=file.absolute().as_uri())
        while "Page.loadEventFired" not in self.event_names():
            self.events.append(self._next())

    def event_names(self) -> list[str]:
        """Names of the events since the page was opened."""
        return [event.get("method", "") for event in self.events]

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression; promises are awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def screenshot(self, file: pathlib.Path, *, whole: bool = True) -> None:
        """Writes a screenshot of the whole page, or of the visible part, to a PNG file."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(answer["data"]))


@contextlib.contextmanager
def tab(program: str, profile: pathlib.Path) -> Iterator[Tab]:
    """Starts a browser and yields its tab; the browser is closed when the context ends.

    Args:
      program: path of the browser.
      profile: empty folder for the browser profile.
    """
    # The browser reads commands from file descriptor 3 and writes responses to 4.
    (from_us, to_browser), (from_browser, to_us) = os.pipe(), os.pipe()
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    words += ["--remote-debugging-pipe", "--hide-scrollbars", "--no-first-run"]
    words += ["--disable-background-networking", f"--user-data-dir={profile}"]
    script = f'exec "$@" 3<&{from_us} 4>&{to_us}'
    with subprocess.Popen(
        ["bash", "-c", script, "bash", program, *words],
        pass_fds=(from_us, to_us),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(from_us)
        os.close(to_us)
        try:
            yield Tab(to_browser, from_browser)
        finally:
            process.terminate()
            process.wait(20)
            os.close(to_browser)
            os.close(from_browser)
