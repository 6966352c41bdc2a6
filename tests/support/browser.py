"""Debian's Chromium, driven through the pages that the agent serves."""

import asyncio
import functools
import http.server
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tamulag.streamer.webserver.server import WebSocketPublisher

from .websocket_peers import served

CHROMIUM = Path("/usr/bin/chromium")
PATIENCE = 30_000
"""Milliseconds that a page may take for what is waited for."""


@contextmanager
def chromium(*flags: str) -> Iterator[Browser]:
    """Run a headless browser, or skip where there is none."""
    if not CHROMIUM.exists():
        pytest.skip("needs chromium: apt-get install chromium")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        # Tests run as root in containers, where the sandbox does not.
        launched = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", *flags]
        )
        try:
            yield launched
        finally:
            launched.close()


def as_devices(voice: Path, face: Path) -> list[str]:
    """Return the flags that make a WAV and an MJPEG file the microphone and the camera."""
    return [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={voice}",
        f"--use-file-for-fake-video-capture={face}",
        "--autoplay-policy=no-user-gesture-required",
    ]


@contextmanager
def opened(browser: Browser, url: str, permissions: Sequence[str] = ()) -> Iterator[Page]:
    """Open a page in a context of its own, which trusts any certificate."""
    with browser.new_context(permissions=[*permissions], ignore_https_errors=True) as context:
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.goto(url)
        yield page


def complaints(page: Page) -> list[str]:
    """Return a list that fills with the errors and warnings of the page's console."""
    found: list[str] = []

    def keep(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            found.append(message.text)

    page.on("console", keep)
    page.on("pageerror", lambda error: found.append(str(error)))
    return found


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@contextmanager
def site(folder: Path) -> Iterator[str]:
    """Serve a folder as another program would; give its origin."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="site")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Aside:
    """A WebSocket server that runs in a thread of its own: Playwright has the main one."""

    def __init__(self, make: Callable[[], WebSocketPublisher]) -> None:
        self._make = make
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._end = asyncio.Event()
        self.server: WebSocketPublisher
        self.thread = threading.Thread(target=self._run, name="aside")

    def publish(self, **message: object) -> None:
        """Publish a message."""
        self._do(self.server.publish, str(message["type"]), json.dumps(message))

    def count(self) -> int:
        """Return how many subscribers there are."""
        return int(self._do(lambda: self.server.subscribers))

    def _do(self, function: Callable[..., Any], *arguments: object) -> Any:
        async def call() -> Any:
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(5)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self.server = self._make()
        async with served(self.server):
            self._ready.set()
            await self._end.wait()

    def start(self) -> None:
        """Return when the port is open."""
        self.thread.start()
        assert self._ready.wait(5)

    def stop(self) -> None:
        """Close every connection and end; may be called twice."""
        if not self.thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._end.set)
        self.thread.join(10)


@contextmanager
def aside(make: Callable[[], WebSocketPublisher]) -> Iterator[Aside]:
    """Serve what `make` makes while the block runs."""
    running = Aside(make)
    running.start()
    try:
        yield running
    finally:
        running.stop()
