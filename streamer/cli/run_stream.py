"""One run of `tamulag stream`: settings become a service, which is run and announced.

Knows what people read at the start. Knows no device and no protocol.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from ..aio.shutdown import until_stopped
from ..app.build_agent import NOTHING, Built, build, demo_files, log_employee_scoring
from ..config.loader import Config, load
from ..publishers.terminal import TerminalPublisher
from ..publishers.terminal_table import TablePublisher
from ..webserver.server import WebSocketPublisher
from .log_setup import Log
from .run import loading, run


def run_stream(
    path: Path | None, overrides: Mapping[str, object], *, demo: bool, verbose: bool
) -> int:
    """Stream until the end and return the exit code: 0 done, 1 failed, 2 wrong use."""
    level = {"log.level": "info"} if verbose else {}
    return run(
        "tamulag-stream",
        lambda: load(path, dict(_demo() if demo else {}) | level | dict(overrides)),
        _stream,
        refuses=lambda config: None if _captures(config) else NOTHING,
        threads=lambda config: config.model.threads,
    )


def _stream(config: Config, log: Log, until: ExitStack) -> None:
    with loading():
        built = build(config)
    until.callback(_free, built)
    log.begin(built.service.name)
    log_employee_scoring(config)
    _announce(config, built)
    asyncio.run(until_stopped(built.service))


def _free(built: Built) -> None:
    # A thread that hangs in a driver or recogniser may still use these: the process ends.
    if not built.feed.is_hanging:
        built.resources.close()


def _captures(config: Config) -> bool:
    devices = (config.camera.device, config.microphone.device)
    is_sent = config.ingest.enabled or config.source.path is not None
    return is_sent or any(d not in (None, "none") for d in devices)


def _announce(config: Config, built: Built) -> None:
    """Print scores for people, unless standard output is for JSON lines or goes into a log."""
    if config.jsonl.path != "-" and config.log.format == "text":
        kind = TablePublisher if _is_screen() else TerminalPublisher
        built.service.outputs.add(kind(sys.stdout, partial(_greeting, config, built)))


def _is_screen() -> bool:
    """Return whether a table can be drawn again and again in its place."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _greeting(config: Config, built: Built) -> str:
    """Return what is captured and where the scores go."""
    about = built.service.messages.about
    lines = [f"tamulag-stream {about.version}: {', '.join(about.sources)}"]
    for publisher in built.service.outputs.publishers:
        if isinstance(publisher, WebSocketPublisher):
            lines.append(f"WebSocket: {publisher.url}")
            lines.append(f"In a browser: {publisher.url.replace('ws', 'http', 1)}")
    if config.mqtt.url:
        session = config.session
        lines.append(f"MQTT: {config.mqtt.url} tamulag/v1/{session.site}/{session.device}/#")
    lines += [f"head {name}: untrained" for name, head in about.heads.items() if not head.trained]
    return "\n".join([*lines, "Ctrl-C ends."])


def _demo() -> dict[str, object]:
    portrait, speech = demo_files()
    return {"source.path": str(speech), "source.still": str(portrait)}
