"""Debian's Firefox, driven through its own port by WebDriver BiDi: no driver program is needed.

Playwright drives builds of its own alone. Knows pages and what a person does there. Knows no agent.
"""

import itertools
import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tamulag.streamer.bench.rig.processes import end, wait_for

FIREFOX = Path("/usr/bin/firefox-esr")
START = 90.0
"""Seconds that the browser may take to serve its port, on a machine that does other things too."""
ANSWER = 60.0
"""Seconds that it may take to answer a command."""
PATIENCE = 30.0
"""Seconds that a page may take for what is waited for."""

SETTINGS = {
    "media.navigator.streams.fake": True,  # a moving picture and a tone
    "media.navigator.permission.disabled": True,  # nobody is there to allow them
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "app.update.enabled": False,
}
"""What differs from a browser as people have it; what may play by itself does not."""

COMPLAINTS = ("error", "warn")


class Firefox:
    """One browser with one page.

    Args:
        socket: To its port.

    Attributes:
        complaints: Errors and warnings of the page's console so far.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.complaints: list[str] = []
        self._socket = socket
        self._numbers = itertools.count(1)
        self._call("session.new", capabilities={})
        self._page = self._call("browsingContext.getTree")["contexts"][0]["context"]
        self._call("session.subscribe", events=["log.entryAdded"])

    def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded."""
        self._call("browsingContext.navigate", context=self._page, url=url, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, or of the promise that it is."""
        found = self._call(
            "script.evaluate",
            expression=f"Promise.resolve({expression}).then((it) => JSON.stringify(it ?? null))",
            target={"context": self._page},
            awaitPromise=True,
        )
        assert found["type"] == "success", found
        return json.loads(found["result"]["value"])

    def text(self, selector: str) -> str:
        """Return what a person reads in an element."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def wait_for_text(self, selector: str, part: str) -> None:
        """Wait until an element's text has a part."""
        wait_for(lambda: part in self.text(selector), PATIENCE, f"{selector} says {part!r}")

    def click(self, selector: str) -> None:
        """Move the pointer onto an element and press, as a person: some things need that."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).scrollIntoView()")
        locator = {"type": "css", "value": selector}
        found = self._call("browsingContext.locateNodes", context=self._page, locator=locator)
        origin = {"type": "element", "element": {"sharedId": found["nodes"][0]["sharedId"]}}
        self._call(
            "input.performActions",
            context=self._page,
            actions=[
                {
                    "type": "pointer",
                    "id": "mouse",
                    "actions": [
                        {"type": "pointerMove", "x": 0, "y": 0, "origin": origin},
                        {"type": "pointerDown", "button": 0},
                        {"type": "pointerUp", "button": 0},
                    ],
                }
            ],
        )

    def close(self) -> None:
        """End the browser."""
        self._call("browser.close")

    def _call(self, method: str, **params: object) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer: dict[str, Any] = json.loads(self._socket.recv(timeout=ANSWER))
            if answer.get("method") == "log.entryAdded":
                self._keep(answer["params"])
            elif answer.get("id") == number:
                assert answer["type"] == "success", answer
                result: dict[str, Any] = answer["result"]
                return result

    def _keep(self, entry: dict[str, Any]) -> None:
        if entry["level"] in COMPLAINTS:
            self.complaints.append(str(entry["text"]))


@contextmanager
def firefox(folder: Path, environment: Mapping[str, str]) -> Iterator[Firefox]:
    """Run a headless browser, or skip where there is none.

    Args:
        folder: Of its profile.
        environment: With a sound server: without an output for sound its microphone is silent.
    """
    if not FIREFOX.exists():
        pytest.skip("needs firefox: apt-get install firefox-esr")
    lines = [f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in SETTINGS.items()]
    (folder / "user.js").write_text("\n".join(lines), encoding="utf-8")
    command = [str(FIREFOX), "--headless", "--no-remote", "--profile", str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--remote-debugging-port", "0"],
            env={**environment, "HOME": str(folder)},
            stdout=log,
            stderr=log,
        )
    try:
        # The file is there a moment before it is whole.
        wait_for(lambda: _address(folder) is not None, START, "the browser serves its port")
        with connect(f"{_address(folder)}/session", max_size=None, proxy=None) as socket:
            browser = Firefox(socket)
            yield browser
            browser.close()
            process.wait(PATIENCE)
    finally:
        end(process)


def _address(folder: Path) -> str | None:
    """Return where the browser is driven, once it has written that down."""
    try:
        found = json.loads((folder / "WebDriverBiDiServer.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return f"ws://{found['ws_host']}:{found['ws_port']}"
