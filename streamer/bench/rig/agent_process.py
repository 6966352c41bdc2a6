"""An agent in a process of its own, and a subscriber of it.

Knows the command line of `tamulag stream`. Knows no fault and measures nothing.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from .probe import MessageProbe
from .processes import StageError, end, free_port

STARTING = 120.0
"""Seconds that an agent may take to load its models and to open its devices, however busy it is."""


class Streaming(NamedTuple):
    """A running agent and a subscriber of it."""

    process: "subprocess.Popen[bytes]"
    port: int
    """Of its WebSocket."""
    probe: MessageProbe


@contextmanager
def streaming(
    log: Path,
    *options: str,
    environment: Mapping[str, str] | None = None,
    out: int = subprocess.DEVNULL,
) -> Iterator[Streaming]:
    """Run `tamulag stream` while the block runs; its log goes to a file, its output to `out`.

    Raises:
        StageError: If it ends, or does not serve within two minutes; with the end of its log.
    """
    port = free_port()
    command = [sys.executable, "-m", "tamulag.streamer", *options]
    with log.open("wb") as err:
        process = subprocess.Popen(
            [*command, "--websocket", f"127.0.0.1:{port}"],
            env=environment,
            stdout=out,
            stderr=err,
        )
    try:
        with _subscribed(process, port, log) as connection:
            probe = MessageProbe("websocket", _payloads(connection))
            try:
                yield Streaming(process, port, probe)
            finally:
                end(process)
                probe.join(5.0)
    finally:
        end(process)


def _subscribed(process: "subprocess.Popen[bytes]", port: int, log: Path) -> ClientConnection:
    deadline = time.monotonic() + STARTING
    while process.poll() is None and time.monotonic() < deadline:
        try:
            return connect(f"ws://127.0.0.1:{port}/", compression=None, proxy=None)
        except (OSError, WebSocketException):
            time.sleep(0.05)
    last = "; ".join(log.read_text(errors="replace").splitlines()[-3:]) or "it is empty"
    how = f"ended with {code}" if (code := process.poll()) is not None else "does not serve"
    raise StageError(f"the agent {how} within {STARTING:g} s; the end of its log: {last}")


def _payloads(connection: ClientConnection) -> Iterator[str]:
    with contextlib.suppress(ConnectionClosed):
        for payload in connection:
            yield str(payload)
