"""One run of `tamulag serve`: settings become a server with its parts; signals, exit code.

Knows every part by name and how they fit.
"""

import asyncio
import gc
import logging
import os
import sys
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from tamulag.models import TamUlag
from tamulag.models.checkpoint import Card, CheckpointError, load
from tamulag.models.choice import choices, sizes_of
from tamulag.models.data import DataError
from tamulag.models.engine import OnnxStep, made_from
from tamulag.models.tam_ulag import TICK_RATE
from tamulag.models.turn import Step

from . import heap
from .admission import Admission
from .assets import AssetError
from .build import about_of, publishers_of, timing_of
from .calls import Calls, Outlet
from .child import WorkerError
from .cluster import Cluster
from .config import Config, ConfigError
from .config import load as load_config
from .front import Front
from .hall import Hall
from .kept import Kept, KeptError
from .lobby import Lobby, Terms
from .log import Log
from .place import Here, Place
from .pool import Pool
from .port import Visitors
from .publisher import PublisherError
from .reception import SenderLimits
from .sample import Block, Input
from .server import Server
from .staff import WingLost
from .stopping import leaves, until_stopped
from .streamable import check_streamable
from .websocket import WebSocketPublisher

logger = logging.getLogger("tamulag.serve")

EXPECTED = (
    *(AssetError, CheckpointError, DataError, PublisherError),
    *(KeptError, WingLost, WorkerError, OSError),
)

WIRE = 1.6
"""How much more than its step a session costs, with its frames and its messages."""


def serve(path: Path | None, overrides: Mapping[str, object], *, verbose: bool) -> int:
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
    heap.keep()
    code = 0
    with Log(config.log.format, config.log.level) as log, ExitStack() as until:
        try:
            server = build(config, until)
            # What is loaded stays: a search for garbage need not look through torch each time.
            gc.freeze()
            gc.set_threshold(50000, 20, 20)
            log.begin(server.name)
            asyncio.run(until_stopped(_Told(server)))
        except* EXPECTED as group:
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
            if isinstance(place, Cluster):
                await place.open_wings()
            await self._serve()
        finally:
            if isinstance(place, Cluster):
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


def build(config: Config, until: ExitStack) -> Server:
    """Load the model and make the server; opens no port and starts no process but a Ray.

    Args:
        config: Of the server.
        until: Takes the end of a Ray.

    Raises:
        DataError: If a Ray that was asked for cannot be had.
        CheckpointError: If the checkpoint cannot be used.
        PublisherError: If an address cannot be used.
        KeptError: If the folder of a handover cannot be used.
    """
    model, card = load(config.model.checkpoint, window=round(config.session.window * TICK_RATE))
    check_streamable(model.config, config)
    calls, chosen = _calls(config, model, card, until), config.serve
    kept = _kept(config)
    pool = _pool(config, calls)
    look_at_cores(chosen.workers)
    cost = cost_of(model, card, config)
    admission = Admission(chosen.seats, cost=cost, busiest=chosen.busiest)
    server = Server(
        calls=calls,
        admission=admission,
        timing=timing_of(config),
        name=config.session.device,
        front=pool,
        kept=kept,
        heartbeat=config.websocket.heartbeat,
    )
    server.lobby = Lobby(calls, pool, admission, _terms(config), greet=server.greet, kept=kept)
    server.publishers.extend(
        publishers_of(
            config,
            server,
            server.tell_output,
            Visitors(
                receive=server.lobby.receive,
                greet=server.greet_named,
                shelves=server.shelves(),
                senders=chosen.seats,
            ),
        )
    )
    calls.outlets.extend(one for one in server.publishers if isinstance(one, Outlet))
    return server


def _calls(config: Config, model: TamUlag, card: Card, until: ExitStack) -> Calls:
    shows = config.session.privacy == "none"
    step, sizes = engine_of(model, config)
    hall = Hall(
        model,
        card,
        timing_of(config),
        seats=config.serve.seats if config.serve.ray is None else 1,
        names_words=shows,
        step=step,
        sizes=sizes,
    )
    calls = Calls(
        _place(config, hall, model, until),
        about_of(config, card, ["senders"]),
        linger=config.serve.linger,
        sends_words=shows,
    )
    if isinstance(calls.place, Cluster):
        calls.place.tell = calls.unanswered
    return calls


def _kept(config: Config) -> Kept | None:
    """Return where sessions wait for the next server; with strict privacy no word is written."""
    folder = config.serve.handover
    if folder is not None and config.session.privacy == "strict":
        logger.warning("nothing is handed over: --privacy strict lets no word be written")
        return None
    return None if folder is None else Kept(Path(folder))


def look_at_cores(workers: int) -> None:
    """Warn of more worker processes than there are cores."""
    cores = os.cpu_count() or 1
    if workers > cores:
        told = "--workers %d on %d cores: they take time from each other and from the server"
        logger.warning(told, workers, cores)


def _place(config: Config, hall: Hall, model: TamUlag, until: ExitStack) -> Place:
    checkpoint = identity(model, config)
    if config.serve.ray is None:
        return Here(hall, checkpoint)
    from .gateway import cluster_of

    return cluster_of(config, hall, checkpoint, until)


def engine_of(model: TamUlag, config: Config) -> tuple[Step | None, Collection[int]]:
    """Return what steps in place of torch, and how many sessions at a time.

    Raises:
        CheckpointError: If the exported file cannot be used.
    """
    chosen = config.model
    if chosen.onnx is None or chosen.engine == "torch":
        return None, ()
    step = OnnxStep(Path(chosen.onnx), model, chosen.checkpoint).step
    if chosen.engine == "onnxruntime":
        return step, range(1, config.serve.seats + 1)
    found = choices(model, step, hop=round(config.session.hop * TICK_RATE))
    faster = [choice.sessions for choice in found if choice.is_faster]
    logger.info("onnxruntime is the faster one for %s sessions, measured: %s", faster, found)
    return step, sizes_of(found)


def identity(model: TamUlag, config: Config) -> str:
    """Return what identifies weights and features: a session goes on with the same alone."""
    made = made_from(model, config.model.checkpoint)
    return f"{made['checkpoint_sha256']} {metadata.version('tamulag-stream')}"


def cost_of(model: TamUlag, card: Card, config: Config) -> float:
    """Measure what share of a core a session with voice and face takes, its wire included."""
    sessions, hops = 32, 6
    hall = Hall(model, card, timing_of(config), seats=sessions)
    size = round(config.session.hop * TICK_RATE)
    voice = np.zeros((size, model.config.audio.dim), np.float32)
    face = np.zeros((max(size // model.config.vision.period, 1), model.config.vision.dim))
    for number in range(sessions):
        hall.open(str(number), ("audio", "vision"))
    spent = []
    for hop in range(hops):
        at, before = hop * config.session.hop, time.thread_time()
        for number in range(sessions):
            hall.push(str(number), Block("vision", at, face.astype(np.float32)))
            hall.push(str(number), Block("audio", at, voice))
        hall.step()
        spent.append(time.thread_time() - before)
    return WIRE * sorted(spent)[hops // 2] / sessions / config.session.hop


def _pool(config: Config, calls: Calls) -> Pool | None:
    if not config.serve.workers:
        return None

    def deliver(session: str, inputs: list[Input]) -> None:
        for item in inputs:
            calls.take(session, item)

    front = Front(
        checkpoint=config.model.checkpoint,
        subject=config.session.subject,
        asr=config.asr.engine,
        asr_model=config.asr.model,
    )
    return Pool(workers=config.serve.workers, front=front, deliver=deliver, tell=calls.front_end)


def _terms(config: Config) -> Terms:
    limits = config.ingest
    return Terms(
        subject=config.session.subject,
        server=config.session.device,
        listens=config.asr.engine != "none",
        limits=SenderLimits(
            message=limits.max_message,
            rate=limits.max_rate,
            bandwidth=limits.max_bandwidth,
            duration=limits.max_duration,
        ),
        timing={"window": config.session.window, "hop": config.session.hop},
    )
