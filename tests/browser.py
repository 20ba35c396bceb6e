"""A headless Chromium that tests drive over the WebDriver protocol (W3C), with the standard library alone."""

from __future__ import annotations

import base64
import http.client
import json
import subprocess
import time
from pathlib import Path
from typing import Any

from conftest import need

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
ENTER, TAB = "\ue007", "\ue004"
PATIENCE = 60.0


class Browser:
    """One browser with one window."""

    def __init__(self, directory: Path) -> None:
        chromium, driver = need("chromium", "chromium"), need("chromedriver", "chromium-driver")
        self._log = (directory / "chromedriver.log").open("w+")
        self._process = subprocess.Popen([driver, "--port=0"], stdout=self._log, stderr=subprocess.STDOUT)
        self._port = self._told_port()
        flags = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run",
                 "--disable-background-networking", "--disable-component-update", "--lang=en",
                 f"--user-data-dir={directory / 'profile'}"]  # fmt: skip
        wanted = {"browserName": "chrome", "goog:chromeOptions": {"binary": chromium, "args": flags},
                  "goog:loggingPrefs": {"browser": "ALL"}}  # fmt: skip
        self._session = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def _told_port(self) -> int:
        path = Path(self._log.name)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self._process.poll() is None:
            _, found, rest = path.read_text().partition("started successfully on port ")
            if found and "." in rest:
                return int(rest.partition(".")[0])
            time.sleep(0.02)
        raise AssertionError(f"chromedriver did not start: {path.read_text()}")

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        connection.request(
            method, path, None if body is None else json.dumps(body), {"content-type": "application/json"}
        )
        answer = connection.getresponse()
        told = json.loads(answer.read())["value"]
        connection.close()
        assert answer.status == 200, told
        return told

    def _do(self, method: str, path: str, body: object = None) -> Any:
        return self._ask(method, f"/session/{self._session}{path}", body)

    def close(self) -> None:
        try:
            self._do("DELETE", "")
        finally:
            self._process.terminate()
            self._process.wait(10)
            self._log.close()

    def open(self, url: str) -> None:
        self._do("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: object) -> Any:
        """What a script returns; it may be a promise."""
        told = self._do("POST", "/execute/async", {
            "script": "const done = arguments[arguments.length - 1], given = [...arguments].slice(0, -1);"
            f"(async () => {{ {script} }})().then(v => done({{ v }}), e => done({{ error: String(e && e.stack || e) }}));",
            "args": list(arguments),
        })  # fmt: skip
        assert "error" not in told, told["error"]
        return told.get("v")

    def until(self, expression: str, *arguments: object) -> Any:
        """The value of an expression once it is true (`given` holds the arguments)."""
        return self.run(
            "for (let tries = 0; tries < 1000; tries++) {"
            f"  const value = (() => {{ try {{ return {expression}; }} catch {{ return null; }} }})();"
            "  if (value) return value; await new Promise(r => setTimeout(r, 20)); }"
            "throw new Error('waited in vain for: ' + given.join(' ') + '\\n' + document.body.innerText.slice(0, 3000));",
            *arguments,
        )

    def sees(self, text: str) -> None:
        """Wait until the page shows a text."""
        self.until("document.body.innerText.includes(given[0])", text)

    def element(self, css: str) -> str:
        self.until("document.querySelector(given[0])", css)
        return self._do("POST", "/element", {"using": "css selector", "value": css})[_ELEMENT]

    def click(self, css: str) -> None:
        self._do("POST", f"/element/{self.element(css)}/click", {})

    def type(self, css: str, text: str) -> None:
        self._do("POST", f"/element/{self.element(css)}/value", {"text": text})

    def keys(self, text: str) -> None:
        """Press keys wherever the focus is."""
        actions = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        self._do("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def size(self, width: int, height: int) -> None:
        """The size of what is shown, also below the least size of a window."""
        self._cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefers(self, scheme: str) -> None:
        """`light` or `dark`."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._cdp("Emulation.setEmulatedMedia", features=features)

    def _cdp(self, command: str, **parameters: object) -> Any:
        return self._do("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def picture(self, path: Path) -> None:
        """Save what is shown."""
        path.write_bytes(base64.b64decode(self._do("GET", "/screenshot")))

    def complaints(self) -> list[str]:
        """What the console of the browser was told since the last look: errors, and what the content policy stopped."""
        return [row["message"] for row in self._do("POST", "/se/log", {"type": "browser"}) if row["level"] == "SEVERE"]
