"""A real browser for tests of pages: headless Chromium over its debugging pipe, with nothing but the standard library.

python tests/report/browser.py PAGE.html PICTURE.png [WIDTH] [light|dark]    takes a picture of a page
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio"),
    *("--disable-extensions", "--no-default-browser-check", "--remote-debugging-pipe"),
)


def found() -> str | None:
    """Return the path of a Chromium, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page of one browser.

    Attributes:
        requests: the addresses the page asked for, itself among them.
        complaints: what it wrote to the console, and its exceptions.
    """

    def __init__(self, *, width: int = 1200, scheme: str = "light", options: tuple[str, ...] = ()) -> None:
        self.width, self.scheme, self.options = width, scheme, options
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.loaded = False
        self._number = 0
        self._read = b""

    def __enter__(self) -> Self:
        path = found()
        assert path, "no Chromium"
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()

        def three_and_four() -> None:
            spare = [fcntl.fcntl(each, fcntl.F_DUPFD, 20) for each in (theirs_in, theirs_out)]
            os.dup2(spare[0], 3)
            os.dup2(spare[1], 4)

        self._process = subprocess.Popen(
            [path, *OPTIONS, *self.options, f"--user-data-dir={self._profile.name}"],
            preexec_fn=three_and_four,
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"HOME": self._profile.name},
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.attach()
        return self

    def attach(self) -> str:
        """Open an empty page and turn to it; return its session."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = str(self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        for room in ("Network", "Runtime", "Log", "Page"):
            self.send(f"{room}.enable")
        size = {"width": self.width, "height": 900, "deviceScaleFactor": 1, "mobile": self.width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        self.send(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": self.scheme}]
        )
        return self._session

    def turn_to(self, session: str) -> None:
        """Turn to the page of a session."""
        self._session = session

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._to)
        os.close(self._from)
        self._process.kill()
        self._process.wait()
        self._profile.cleanup()

    def open(self, page: Path | str) -> None:
        """Open a page, from disk or by its address, and wait until it is there."""
        self.loaded = False
        self.send("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        while not self.loaded:
            self._hear()
        self.value("1")  # whatever the page still had to say has been heard now

    def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        return self.send("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def picture(self) -> bytes:
        """Return the whole page as a PNG."""
        return base64.b64decode(self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the page."""
        return self.ask(method, session=self._session, **parameters)

    def ask(self, method: str, *, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Ask the browser; return its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        os.write(self._to, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            heard = self._hear()
            if heard.get("id") == self._number:
                assert "error" not in heard, heard
                return dict(heard["result"])

    def _hear(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            more = os.read(self._from, 1 << 20)
            assert more, "the browser is gone"
            self._read += more
        text, _, self._read = self._read.partition(b"\0")
        heard: dict[str, Any] = json.loads(text)
        output = heard.get("params", {})
        match heard.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(output["request"]["url"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded":
                self.complaints.append(json.dumps(output))
            case "Page.loadEventFired":
                self.loaded = True
        return heard


def main() -> None:
    """Take a picture of a page."""
    page, picture, *more = sys.argv[1:]
    width, scheme = int(more[0]) if more else 1200, more[1] if len(more) > 1 else "light"
    with Browser(width=width, scheme=scheme) as browser:
        browser.open(Path(page))
        Path(picture).write_bytes(browser.picture())
        print(browser.requests, browser.complaints, browser.value("document.documentElement.scrollWidth"))


if __name__ == "__main__":
    main()
