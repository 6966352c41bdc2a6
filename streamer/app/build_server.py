"""The composition root of `tamulag serve`: settings become a server with its parts.

Knows every part by name and how they fit. Runs nothing.
"""

import logging
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from tamulag.models import TamUlag
from tamulag.models.nn.tam_ulag import TICK_RATE
from tamulag.models.runtime.checkpoint import Card, load
from tamulag.models.runtime.engine_choice import open_engine
from tamulag.models.runtime.onnx_engine import made_from
from tamulag.models.runtime.torch_engine import TorchEngine

from ..cluster.backend import ClusterBackend
from ..config.loader import Config
from ..core.commands import Push
from ..core.sample import Block, Input
from ..core.session_batch import SessionBatch
from ..protocol.session_messages import RunInfo, SessionMessages
from ..service.admission import Admission
from ..service.backend import LocalBackend, SessionBackend
from ..service.feature_workers.pipeline import PipelineConfig
from ..service.feature_workers.pool import FeatureWorkerPool
from ..service.outputs import Outputs
from ..service.remote_feed import RemoteFeed
from ..service.server_senders import ServerSenders
from ..service.service import Service
from ..service.sessions import SessionRegistry
from ..service.snapshot_store import SnapshotStore
from ..storage.session_recorders import SessionRecorders
from .build_agent import about_of, publishers_of, timing_of
from .build_recording import recorders_of
from .build_web import WebOptions, endpoint_of, limits_of
from .checkpoint_check import check_streamable

logger = logging.getLogger("tamulag.serve")

WIRE = 1.6
"""How much more than its step a session costs, with its frames and its messages."""


@dataclass(frozen=True)
class BuiltServer:
    """A server that has not run yet, and the backend of its sessions."""

    service: Service
    backend: SessionBackend


def build(config: Config, until: ExitStack) -> BuiltServer:
    """Load the model and make the server; opens no port and starts no process but a Ray.

    Args:
        config: Of the server.
        until: Takes the end of a Ray.

    Raises:
        DataError: If a Ray that was asked for cannot be had.
        CheckpointError: If the checkpoint cannot be used.
        PublisherError: If an address cannot be used.
        SnapshotStoreError: If the folder of a handover cannot be used.
    """
    model, card = load(config.model.checkpoint, window=round(config.session.window * TICK_RATE))
    check_streamable(model.config, config)
    chosen, outputs = config.serve, Outputs()
    about = about_of(config, card, ["senders"])
    recorders = recorders_of(config, about.version, timing_of(config))
    registry = _registry(config, model, card, about, outputs, recorders, until)
    store = _store(config)
    workers = _workers(config, registry)
    check_cores(chosen.workers)
    cost = cost_of(model, card, config)
    admission = Admission(chosen.seats, cost=cost, busiest=chosen.busiest)
    senders = ServerSenders(
        registry,
        workers,
        admission,
        server=config.session.device,
        listens=config.asr.engine != "none",
        store=store,
        per_address=limits_of(config.websocket, chosen.seats).per_address,
    )
    sent = SessionMessages(config.session.device, about, wall_now=time.time, send=outputs.publish)
    feed = RemoteFeed(
        registry=registry,
        senders=senders,
        admission=admission,
        messages=sent,
        workers=workers,
        store=store,
        recorders=recorders,
    )
    service = Service(
        feed=feed, outputs=outputs, messages=sent, heartbeat=config.websocket.heartbeat
    )

    def past(session: str | None) -> str | None:
        return None if session is None else feed.hello_of(session)

    web = WebOptions(
        receive=endpoint_of(config, senders).receive,
        greet=feed.hello_of,
        routes=feed.routes(),
        senders=chosen.seats,
    )
    for publisher in publishers_of(config, service, feed.output_changed, web, past=past):
        outputs.add(publisher)
    return BuiltServer(service, registry.backend)


def _registry(
    config: Config,
    model: TamUlag,
    card: Card,
    about: RunInfo,
    outputs: Outputs,
    recorders: SessionRecorders | None,
    until: ExitStack,
) -> SessionRegistry:
    shows_words = config.session.privacy == "none"
    engine = open_engine(
        model,
        config.model.checkpoint,
        capacity=config.serve.seats if config.serve.ray is None else 1,
        hop=round(config.session.hop * TICK_RATE),
        engine=config.model.engine,
        path=None if config.model.onnx is None else Path(config.model.onnx),
    )
    batch = SessionBatch(engine, card, timing_of(config), names_words=shows_words)
    registry = SessionRegistry(
        _backend(config, batch, model, until),
        about,
        timing_of(config),
        outputs.publish_of,
        linger=config.serve.linger,
        sends_words=shows_words,
        recorders=recorders,
    )
    if isinstance(registry.backend, ClusterBackend):
        registry.backend.report = registry.set_backend_lost
    return registry


def _store(config: Config) -> SnapshotStore | None:
    """Return the folder for the next server; with strict privacy no word is written."""
    folder = config.serve.handover
    if folder is not None and config.session.privacy == "strict":
        logger.warning("nothing is handed over: --privacy strict lets no word be written")
        return None
    return None if folder is None else SnapshotStore(Path(folder))


def check_cores(workers: int) -> None:
    """Warn of more worker processes than there are cores."""
    cores = os.cpu_count() or 1
    if workers > cores:
        warning = "--workers %d on %d cores: they take time from each other and from the server"
        logger.warning(warning, workers, cores)


def _backend(
    config: Config, batch: SessionBatch, model: TamUlag, until: ExitStack
) -> SessionBackend:
    checkpoint = identity(model, config)
    if config.serve.ray is None:
        return LocalBackend(batch, checkpoint)
    from ..app.build_cluster import cluster_of

    return cluster_of(config, batch, checkpoint, until)


def identity(model: TamUlag, config: Config) -> str:
    """Return what identifies weights and features: a session goes on with the same alone."""
    made = made_from(model, config.model.checkpoint)
    return f"{made['checkpoint_sha256']} {metadata.version('tamulag-stream')}"


def cost_of(model: TamUlag, card: Card, config: Config) -> float:
    """Measure what share of a core a session with voice and face takes, its wire included."""
    sessions, hops = 32, 6
    size = round(config.session.hop * TICK_RATE)
    batch = SessionBatch(TorchEngine(model, sessions, hop=size), card, timing_of(config))
    voice = np.zeros((size, model.config.audio.dim), np.float32)
    face = np.zeros((max(size // model.config.vision.period, 1), model.config.vision.dim))
    for number in range(sessions):
        batch.open(str(number), ("audio", "vision"))
    spent = []
    for hop in range(hops):
        at, before = hop * config.session.hop, time.thread_time()
        for number in range(sessions):
            batch.apply(str(number), Push(Block("vision", at, face.astype(np.float32))))
            batch.apply(str(number), Push(Block("audio", at, voice)))
        batch.step()
        spent.append(time.thread_time() - before)
    return WIRE * sorted(spent)[hops // 2] / sessions / config.session.hop


def _workers(config: Config, registry: SessionRegistry) -> FeatureWorkerPool | None:
    if not config.serve.workers:
        return None

    def deliver(session: str, inputs: list[Input]) -> None:
        for item in inputs:
            registry.push(session, item)

    pipeline = PipelineConfig(
        checkpoint=config.model.checkpoint,
        subject=config.session.subject,
        asr=config.asr.engine,
        asr_model=config.asr.model,
    )
    return FeatureWorkerPool(
        workers=config.serve.workers,
        config=pipeline,
        deliver=deliver,
        notify=registry.set_workers_lost,
        fail=registry.fail_named,
    )
