"""One run of `tamulag serve`: settings become a server with its parts; signals, exit code.

Knows every part by name and how they fit.
"""

import asyncio
import gc
import logging
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import torch

from ..aio.shutdown import leaves, until_stopped
from ..app.build_server import build
from ..cluster.backend import ClusterBackend
from ..config.loader import ConfigError
from ..config.loader import load as load_config
from ..core.errors import TamulagError
from ..server import malloc
from ..server.server import Server
from ..webserver.server import WebSocketPublisher
from .log_setup import Log

logger = logging.getLogger("tamulag.serve")


def run_serve(path: Path | None, overrides: Mapping[str, object], *, verbose: bool) -> int:
    """Serve until a signal and return the exit code: 0 done, 1 failed, 2 wrong use."""
    level = {"log.level": "info"} if verbose else {}
    try:
        config = load_config(path, level | dict(overrides))
    except ConfigError as error:
        print(f"tamulag: {error}", file=sys.stderr)
        return 2 if str(error).startswith("command line:") else 1
    for is_wrong, why in (
        (not config.websocket.enabled, "serve needs its port: remove --websocket none"),
        (config.history.enabled, "serve keeps no history: set history.enabled = false"),
        (config.mqtt.discovery, "serve is no device: set mqtt.discovery = false"),
        (
            "serve.min_actors" in overrides and config.serve.ray is None,
            "--actors are of a Ray: add --ray local or --ray HOST:PORT, or leave it out",
        ),
    ):
        if is_wrong:
            print(f"tamulag: {why}", file=sys.stderr)
            return 2
    torch.set_num_threads(1)
    malloc.disable_trim()
    code = 0
    with Log(config.log.format, config.log.level) as log, ExitStack() as until:
        try:
            server = build(config, until)
            # What is loaded stays: a search for garbage need not look through torch each time.
            gc.freeze()
            gc.set_threshold(50000, 20, 20)
            log.begin(server.name)
            asyncio.run(until_stopped(_Told(server)))
        except* (TamulagError, OSError) as group:
            for told in leaves(group):
                log.tell(told)
            code = 1
    return code


class _Told:
    """A server that says on the terminal where it is, once it is there."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.stop = server.stop

    async def run(self) -> None:
        place = self._server.calls.place
        try:
            if isinstance(place, ClusterBackend):
                await place.open_wings()
            await self._serve()
        finally:
            if isinstance(place, ClusterBackend):
                await place.close()

    async def _serve(self) -> None:
        serving = asyncio.create_task(self._server.run())
        ports = [p for p in self._server.publishers if isinstance(p, WebSocketPublisher)]
        while not serving.done() and not all(port.is_serving for port in ports):
            await asyncio.wait([serving], timeout=0.05)
        if not serving.done():
            for port in ports:
                _tell(f"serving {port.url}ingest: {self._server.admission.seats} seats at most")
            _tell("Ctrl-C ends.")
        await serving


def _tell(line: str) -> None:
    # Ray's messages are kept out of the standard output by another sys.stdout; ours are not.
    print(line, file=sys.__stdout__, flush=True)
