"""Main of a feature worker process: one feature pipeline per session, frames in, inputs out.

Knows sessions by number, the pipe's messages and threads. Knows no connection, no model, and
neither pictures nor sound: pipeline.py processes the frames.
"""

import faulthandler
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ...aio.shutdown import end_with_parent
from ...core.sample import Input, Phrase
from ...core.source import Put
from ...features.asr.recogniser import Encode
from ...features.picture_limits import limit_pictures
from ..process_limits import limit_growth
from .answers import pack_answer
from .ipc import (
    Answer,
    CloseSession,
    FrameProcessed,
    OpenSession,
    Order,
    PhraseRecognised,
    Ping,
    Pong,
    ProcessFrame,
    Ready,
    SessionClosed,
    SessionFailed,
    SessionOpened,
    Shed,
    WorkerFailed,
    read,
)
from .pipeline import FeaturePipeline, PipelineConfig, load

Send = Callable[[Answer], None]

MEMORY = 8 << 30
"""Bytes of address space that a worker may take beside what it has when it is loaded. Its sessions
take some 100 MB each, most of it never touched."""


class Worker:
    """The feature pipelines of a worker's sessions; one thread calls it with orders.

    Opening and closing take long and run in a second thread, so that other sessions continue.

    Args:
        config: Settings of the feature pipelines.
        encode: Words -> token states; used by several threads.
        send: Called with each answer, from any thread.
    """

    def __init__(self, config: PipelineConfig, encode: Encode, send: Send) -> None:
        self._config = config
        self._encode = encode
        self._send = send
        self._pipelines: dict[int, FeaturePipeline] = {}
        self._background = ThreadPoolExecutor(1, thread_name_prefix="tamulag.front")
        self._load = _LoadMeter()
        self._shed: tuple[str, ...] = ()

    def handle_message(self, order: Order) -> None:
        """Execute an order; a session's failure is sent as its answer."""
        if isinstance(order, ProcessFrame):
            with self._load:
                self._process(order)
        elif isinstance(order, OpenSession):
            self._background.submit(self._open, order)
        elif isinstance(order, CloseSession):
            self._background.submit(self._close_session, order.number)
        elif isinstance(order, Shed):
            self._shed = order.steps
            for pipeline in tuple(self._pipelines.values()):
                pipeline.shed(self._shed)
        elif isinstance(order, Ping):
            self._send(Pong(self._load.share()))

    def _open(self, order: OpenSession) -> None:
        try:
            pipeline = FeaturePipeline(self._config, self._encode, order.hello)
        except Exception as error:  # one session's; the others go on
            self._send(_failure(order.number, error, is_by_frame=False))
            return
        self._pipelines[order.number] = pipeline
        pipeline.shed(self._shed)
        self._send(SessionOpened(order.number))

    def _process(self, order: ProcessFrame) -> None:
        samples: list[Input] = []
        losses: dict[str, int] = {}
        pipeline = self._pipelines.get(order.number)
        try:
            if pipeline is not None:
                pipeline.push(order.placed, self._put(order.number, samples))
                losses = pipeline.losses()
        except Exception as error:  # one session's; the others go on
            self._pipelines.pop(order.number, None)
            self._send(_failure(order.number, error, is_by_frame=True))
            self._background.submit(self._close, order.number, pipeline)
        self._send(FrameProcessed(order.number, samples, losses))

    def _close_session(self, number: int) -> None:
        self._close(number, self._pipelines.pop(number, None))

    def _close(self, number: int, pipeline: FeaturePipeline | None) -> None:
        problem = ""
        try:
            if pipeline is not None:
                pipeline.close(self._put(number, []))
        except Exception as error:  # sent in the answer
            problem = f"{type(error).__name__}: {error}"
        self._send(SessionClosed(number, problem))

    def _put(self, number: int, samples: list[Input]) -> Put:
        """Return a callback that collects samples; phrases of the recogniser's thread are sent."""

        def put(item: Input) -> None:
            if isinstance(item, Phrase):
                self._send(PhraseRecognised(number, item))
            else:
                samples.append(item)

        return put


class _LoadMeter:
    """Busy share of a process: of the order thread, or the CPU time of all threads if larger."""

    def __init__(self) -> None:
        self._busy = 0.0
        self._began = 0.0
        self._since = (time.perf_counter(), time.process_time())

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._busy += time.perf_counter() - self._began

    def share(self) -> float:
        """Return the busy share of the time since the last call, 0..1."""
        now = (time.perf_counter(), time.process_time())
        passed = max(now[0] - self._since[0], 1e-6)
        spent = max(self._busy, now[1] - self._since[1])
        self._busy, self._since = 0.0, now
        return min(spent / passed, 1.0)


def serve(pipe: socket.socket, config: PipelineConfig) -> None:
    """Run a worker process until the server closes the pipe or ends.

    Args:
        pipe: The worker's end.
        config: Settings of the feature pipelines.
    """
    _prepare_process()
    send = _sender(pipe)
    try:
        worker = Worker(config, load(config), send)
        limit_growth(MEMORY)
    except Exception as error:
        send(WorkerFailed(f"{type(error).__name__}: {error}"))
        raise
    send(Ready())
    with pipe.makefile("rb") as orders:
        try:
            while True:
                worker.handle_message(read(orders))
        except (EOFError, ConnectionError):
            # Not sys.exit: a recogniser's thread that still runs would delay the exit.
            os._exit(0)


def _prepare_process() -> None:
    """Set one thread for torch, ignore Ctrl-C, and exit when the parent ends."""
    import torch

    end_with_parent()
    limit_pictures()
    faulthandler.enable()
    torch.set_num_threads(1)


def _sender(pipe: socket.socket) -> Send:
    lock = threading.Lock()

    def send(answer: Answer) -> None:
        data = pack_answer(answer)
        with lock:
            pipe.sendall(data)

    return send


def _failure(number: int, error: Exception, *, is_by_frame: bool) -> SessionFailed:
    trace = "".join(traceback.format_exception(error))
    return SessionFailed(number, f"{type(error).__name__}: {error}", trace, is_by_frame)
