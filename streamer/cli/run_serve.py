"""One run of `tamulag serve`: settings become a service of many sessions, which is announced.

Knows which settings do not go with it, and what people read when it serves.
"""

import asyncio
import gc
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from ..aio.shutdown import until_stopped
from ..app.build_server import BuiltServer, build
from ..cluster.backend import ClusterBackend
from ..config.loader import Config
from ..config.loader import load as load_config
from ..core.errors import TamulagError
from ..service import malloc
from ..webserver.server import WebSocketPublisher
from .log_setup import Log
from .run import loading, run


def run_serve(path: Path | None, overrides: Mapping[str, object], *, verbose: bool) -> int:
    """Serve until a signal and return the exit code: 0 done, 1 failed, 2 wrong use."""
    level = {"log.level": "info"} if verbose else {}

    def refuses(config: Config) -> str | None:
        if not config.websocket.enabled:
            return "serve needs its port: remove --websocket none"
        if config.mqtt.discovery:
            return "serve is no device: set mqtt.discovery = false"
        if "serve.min_actors" in overrides and config.serve.ray is None:
            return "--actors are of a Ray: add --ray local or --ray HOST:PORT, or leave it out"
        return None

    return run(
        "tamulag",
        lambda: load_config(path, level | dict(overrides)),
        _serve,
        refuses=refuses,
        threads=lambda config: 1,
        expected=(TamulagError, OSError),
    )


def _serve(config: Config, log: Log, until: ExitStack) -> None:
    malloc.disable_trim()
    with loading():
        built = build(config, until)
    gc.set_threshold(50000, 20, 20)
    log.begin(built.service.name)
    asyncio.run(until_stopped(_Announced(built, config.serve.seats)))


class _Announced:
    """A server that prints its address once it serves."""

    def __init__(self, built: BuiltServer, seats: int) -> None:
        self._service = built.service
        self._backend = built.backend
        self._seats = seats
        self.stop = built.service.stop

    async def run(self) -> None:
        try:
            if isinstance(self._backend, ClusterBackend):
                await self._backend.start()
            await self._run_service()
        finally:
            if isinstance(self._backend, ClusterBackend):
                await self._backend.close()

    async def _run_service(self) -> None:
        serving = asyncio.create_task(self._service.run())
        publishers = self._service.outputs.publishers
        ports = [one for one in publishers if isinstance(one, WebSocketPublisher)]
        while not serving.done() and not all(port.is_serving for port in ports):
            await asyncio.wait([serving], timeout=0.05)
        if not serving.done():
            for port in ports:
                _print(f"serving {port.url}ingest: {self._seats} seats at most")
            _print("Ctrl-C ends.")
        await serving


def _print(line: str) -> None:
    # A replaced sys.stdout keeps Ray's messages out of the standard output, but not ours.
    print(line, file=sys.__stdout__, flush=True)
