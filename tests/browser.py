"""A real browser, driven through its debugging pipe: no package is needed, only Chromium or Chrome."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe",
)  # fmt: skip


def find_browser() -> str | None:
    """Return a browser's path; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


LOOKS = ((1280, "light"), (1280, "dark"), (390, "light"), (390, "dark"))  # px wide, and in which colours


def find_axe() -> Path | None:
    """Return the script that finds what keeps people from using a page; None where its package is not installed."""
    spec = find_spec("axe_core_python")
    return Path(spec.origin).with_name("axe.min.js") if spec and spec.origin else None


def find_faults(page: Browser, address: str, prepare: str = "") -> list[str]:
    """Open a page on a desk and on a phone, in light and in dark colours, and list what is wrong with it.

    Errors and refused requests, what is wider than the screen, and what axe finds, where that is installed.
    `prepare` is run in the page first.
    """
    axe, faults = find_axe(), []
    for width, scheme in LOOKS:
        page.resize(width, 844, mobile=width < 500)
        page.prefer(scheme)
        page.open(address)
        if prepare:
            page.evaluate(prepare)
        found = list(page.errors)
        page.errors.clear()
        if (wide := page.evaluate("document.documentElement.scrollWidth")) > width:
            found.append(f"{wide} px wide")
        if axe and (width > 500) == (scheme == "dark"):  # both widths, both schemes; it takes its time
            page.evaluate(axe.read_text(encoding="utf-8") + ";0")
            found += page.evaluate("axe.run().then(r => r.violations.map(v => v.help + ': ' + v.nodes[0].html))")
        faults += [f"{width} px, {scheme}: {fault}" for fault in found]
    return faults


class Browser:
    """One page in a headless browser. Use as a context manager."""

    def __init__(self, executable: str, profile: Path) -> None:
        command_read, self._send = os.pipe()
        self._receive, answer_write = os.pipe()

        def move_pipes() -> None:  # the browser listens on 3 and answers on 4
            high = [os.dup(fd) for fd in (command_read, answer_write)]
            high = [os.dup(fd) if fd in (3, 4) else fd for fd in high]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self._process = subprocess.Popen(
            [executable, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=move_pipes, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(command_read)
        os.close(answer_write)
        self._buffer = b""
        self._count = 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.errors: list[str] = []
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.command(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._send)
        os.close(self._receive)

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol, and wait for its answer; note what happens meanwhile."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                result = answer["result"]
                assert isinstance(result, dict)
                return result

    def open(self, url: str) -> None:
        """Open a page, and wait until it has loaded."""
        self._loaded = False
        self.command("Page.navigate", url=url)
        while not self._loaded:
            self._read()

    def evaluate(self, expression: str) -> Any:
        """Return an expression's value in the page."""
        answer = self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def becomes(self, expression: str, seconds: float = 10) -> bool:
        """Tell whether an expression becomes true: what a page does in answer to an event, it does when it can."""
        deadline = time.monotonic() + seconds
        while not (found := bool(self.evaluate(expression))) and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def press(self, key: str) -> None:
        """Press and release a key."""
        text = {"Enter": "\r", " ": " "}.get(key, key if len(key) == 1 else "")
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowLeft": 37, "ArrowRight": 39}
        common = {"key": key, "code": key, "windowsVirtualKeyCode": codes.get(key, ord(key[0]))}
        self.command("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self.command("Input.dispatchKeyEvent", type="keyUp", **common)

    def resize(self, width: int, height: int, mobile: bool = False) -> None:
        """Set the page's size, px."""
        scale = 2 if mobile else 1
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )

    def prefer(self, scheme: str) -> None:
        """Say which colours the reader likes: light or dark."""
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._receive, 1 << 20)
            assert data, "the browser has ended"
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(text)
        assert isinstance(message, dict)
        method, parameters = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(parameters["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.errors.append(str(parameters["entry"]))
        return message
