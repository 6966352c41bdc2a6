"""One run of `tamulag stream`: settings, parts, signals, exit code.

Knows how a run begins and ends. Knows no device and no protocol.
"""

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch

from ..agent.agent import Agent
from ..aio.shutdown import leaves, until_stopped
from ..app.build_agent import NOTHING, Built, build, demo_files
from ..config.loader import Config, ConfigError, load
from ..core.errors import TamulagError
from ..publishers.terminal import TerminalPublisher
from ..publishers.terminal_table import TablePublisher
from ..webserver.server import WebSocketPublisher
from .log_setup import Log

logger = logging.getLogger("tamulag.run")


def run_stream(
    path: Path | None, overrides: Mapping[str, object], *, demo: bool, verbose: bool
) -> int:
    """Stream until the end and return the exit code: 0 done, 1 failed, 2 wrong use."""
    told = {"log.level": "info"} if verbose else {}
    try:
        config = load(path, dict(_demo() if demo else {}) | told | dict(overrides))
    except ConfigError as error:
        print(f"tamulag-stream: {error}", file=sys.stderr)
        return 2 if str(error).startswith("command line:") else 1
    if not _captures(config):
        print(f"tamulag-stream: {NOTHING}", file=sys.stderr)
        return 2
    torch.set_num_threads(config.model.threads)
    with Log(config.log.format, config.log.level) as log:
        return _attempt(config, log)


def _attempt(config: Config, log: Log) -> int:
    code = 0
    try:
        built = _built(config)
        log.begin(built.agent.name)
        if config.session.subject == "agent":
            reason = config.session.employee_scoring_is_lawful
            logger.warning("an employee is scored, which is said to be lawful: %s", reason)
        _announce(config, built)
        try:
            asyncio.run(until_stopped(built.agent))
        finally:
            # A thread that hangs in a driver or recogniser may still use these: the process ends.
            if not built.agent.is_hanging:
                built.resources.close()
    except* TamulagError as group:
        for told in leaves(group):
            log.tell(told)
        code = 1
    except* BrokenPipeError:
        # Whoever read our lines has ended; that is how a pipe stops us.
        code = 0
    return code


def _built(config: Config) -> Built:
    """Load everything without looking for garbage: there is none, and all of it stays."""
    gc.disable()
    try:
        return build(config)
    finally:
        # Else a collection in the run would look through every object of torch, for a tenth of a
        # second in which no score goes out.
        gc.freeze()
        gc.enable()


def _captures(config: Config) -> bool:
    devices = (config.camera.device, config.microphone.device)
    is_sent = config.ingest.enabled or config.source.path is not None
    return is_sent or any(d not in (None, "none") for d in devices)


def _announce(config: Config, built: Built) -> None:
    """Print scores for people, unless standard output is for JSON lines or goes into a log."""
    if config.jsonl.path != "-" and config.log.format == "text":
        greeting = partial(_greeting, config, built.agent)
        kind = TablePublisher if _is_screen() else TerminalPublisher
        built.agent.publishers.append(kind(sys.stdout, greeting))


def _is_screen() -> bool:
    """Return whether a table can be drawn again and again in its place."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _greeting(config: Config, agent: Agent) -> str:
    """Say what is captured and where the scores go."""
    sources = ", ".join(source.name for source in agent.sources)
    lines = [f"tamulag-stream {agent.about.version}: {sources}"]
    for publisher in agent.publishers:
        if isinstance(publisher, WebSocketPublisher):
            lines.append(f"WebSocket: {publisher.url}")
            lines.append(f"In a browser: {publisher.url.replace('ws', 'http', 1)}")
    if config.mqtt.url:
        session = config.session
        lines.append(f"MQTT: {config.mqtt.url} tamulag/v1/{session.site}/{session.device}/#")
    heads = agent.about.heads
    lines += [f"head {name}: untrained" for name, head in heads.items() if not head.trained]
    return "\n".join([*lines, "Ctrl-C ends."])


def _demo() -> dict[str, object]:
    portrait, speech = demo_files()
    return {"source.path": str(speech), "source.still": str(portrait)}
