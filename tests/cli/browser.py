"""Headless Chromium for tests, driven through chromedriver's own protocol (W3C WebDriver); needs no package."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
CHROMEDRIVER = shutil.which("chromedriver")


class Browser:
    """One window; `with Browser(folder) as page: page.open(path)`."""

    def __init__(self, folder: Path, width: int = 1280, height: int = 900) -> None:
        self.folder, self.size = folder, (width, height)

    def __enter__(self) -> Browser:
        assert CHROMEDRIVER is not None
        self.process = subprocess.Popen([CHROMEDRIVER, "--port=0"], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        port = None
        for line in self.process.stdout:
            if (match := re.search(r"started successfully on port (\d+)", line)) is not None:
                port = match[1]
                break
        self.url = f"http://127.0.0.1:{port}/session"
        arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={self.folder}",
            f"--window-size={self.size[0]},{self.size[1]}",
        ]
        options = {"browserName": "chrome", "goog:chromeOptions": {"binary": CHROMIUM, "args": arguments}}
        answer = self._ask("POST", "", {"capabilities": {"alwaysMatch": options}})
        self.url += f"/{answer['sessionId']}"
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._ask("DELETE", "", None)
        finally:
            self.process.terminate()
            self.process.wait(20)

    def open(self, path: Path, fragment: str = "") -> None:
        # A new fragment alone would not load the page again.
        self._ask("POST", "/url", {"url": "about:blank"})
        self._ask("POST", "/url", {"url": path.as_uri() + (f"#{fragment}" if fragment else "")})

    def run(self, script: str, *arguments: object) -> Any:
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def keys(self, text: str) -> None:
        """Press and release each key, as a keyboard would."""
        moves = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        self._ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": moves}]})

    def point(self, x: int, y: int) -> None:
        """Move the mouse there."""
        move = {"type": "pointerMove", "duration": 0, "x": x, "y": y}
        self._ask("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": [move]}]})

    def _ask(self, method: str, path: str, body: object) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        # The machine's proxy, if it has one, is not for the browser beside us.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            return json.load(answer)["value"]
