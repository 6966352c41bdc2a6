"""A worker process of the server: the front ends of some sessions, frames in, inputs out.

Knows sessions by number, the pipe's messages and threads. Knows no connection, no model, and
neither pictures nor sound: what to do with a frame is known to front.py.
"""

import faulthandler
import multiprocessing
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess

from ...core.sample import Input, Phrase
from ...core.source import Put
from ...features.asr.recogniser import Encode
from .ipc import (
    Answer,
    Begin,
    Begun,
    End,
    Ended,
    Failed,
    Order,
    Ping,
    Pong,
    Processed,
    Ready,
    Recognised,
    SessionFailed,
    Shed,
    Take,
    pack,
    read,
)
from .pipeline import FeaturePipeline, PipelineConfig, load

Send = Callable[[Answer], None]


class Worker:
    """The front ends of some sessions; orders come from one thread.

    What takes long, opening and closing, is done in a thread beside it, so that the other
    sessions go on.

    Args:
        front: What to build.
        encode: Words become token states; used by several threads.
        send: Takes the answers; called from any thread.
    """

    def __init__(self, front: PipelineConfig, encode: Encode, send: Send) -> None:
        self._front = front
        self._encode = encode
        self._send = send
        self._seats: dict[int, FeaturePipeline] = {}
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="tamulag.front")
        self._meter = _Meter()
        self._shed: tuple[str, ...] = ()

    def heed(self, order: Order) -> None:
        """Do what the server says; what goes wrong with one session is an answer."""
        if isinstance(order, Take):
            with self._meter:
                self._take(order)
        elif isinstance(order, Begin):
            self._beside.submit(self._open, order)
        elif isinstance(order, End):
            self._beside.submit(self._end, order.number)
        elif isinstance(order, Shed):
            self._shed = order.steps
            for seat in tuple(self._seats.values()):
                seat.shed(self._shed)
        elif isinstance(order, Ping):
            self._send(Pong(self._meter.share()))

    def _open(self, order: Begin) -> None:
        try:
            seat = FeaturePipeline(self._front, self._encode, order.hello)
        except Exception as error:  # one session's; the others go on
            self._send(_broken(order.number, error))
            return
        self._seats[order.number] = seat
        seat.shed(self._shed)
        self._send(Begun(order.number))

    def _take(self, order: Take) -> None:
        found: list[Input] = []
        losses: dict[str, int] = {}
        seat = self._seats.get(order.number)
        try:
            if seat is not None:
                seat.take(order.placed, self._put(order.number, found))
                losses = seat.losses()
        except Exception as error:  # one session's; the others go on
            self._seats.pop(order.number)
            self._send(_broken(order.number, error))
            self._beside.submit(self._close, order.number, seat)
        self._send(Processed(order.number, found, losses))

    def _end(self, number: int) -> None:
        self._close(number, self._seats.pop(number, None))

    def _close(self, number: int, seat: FeaturePipeline | None) -> None:
        problem = ""
        try:
            if seat is not None:
                seat.close(self._put(number, []))
        except Exception as error:  # told in the answer
            problem = f"{type(error).__name__}: {error}"
        self._send(Ended(number, problem))

    def _put(self, number: int, found: list[Input]) -> Put:
        """Return what collects samples; phrases, which come from the recogniser's thread, go."""

        def put(item: Input) -> None:
            if isinstance(item, Phrase):
                self._send(Recognised(number, item))
            else:
                found.append(item)

        return put


class _Meter:
    """How busy a process is: by its own thread, or by the processor time of all."""

    def __init__(self) -> None:
        self._busy = 0.0
        self._began = 0.0
        self._since = (time.perf_counter(), time.process_time())

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._busy += time.perf_counter() - self._began

    def share(self) -> float:
        """Return the share of the time since the last call, 0..1."""
        now = (time.perf_counter(), time.process_time())
        passed = max(now[0] - self._since[0], 1e-6)
        spent = max(self._busy, now[1] - self._since[1])
        self._busy, self._since = 0.0, now
        return min(spent / passed, 1.0)


def serve(pipe: socket.socket, front: PipelineConfig) -> None:
    """Be a worker process until the server closes the pipe, or is gone.

    Args:
        pipe: Our end.
        front: What to build.
    """
    _settle()
    send = _sender(pipe)
    try:
        worker = Worker(front, load(front), send)
    except Exception as error:
        send(Failed(f"{type(error).__name__}: {error}"))
        raise
    send(Ready())
    with pipe.makefile("rb") as orders:
        try:
            while True:
                worker.heed(read(orders))
        except (EOFError, ConnectionError):
            # At once: no recogniser that still works may keep the process.
            os._exit(0)


def _settle() -> None:
    """Prepare a process: one thread for torch; it ends with its parent, not by Ctrl-C before it."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _sender(pipe: socket.socket) -> Send:
    lock = threading.Lock()

    def send(answer: Answer) -> None:
        data = pack(answer)
        with lock:
            pipe.sendall(data)

    return send


def _broken(number: int, error: Exception) -> SessionFailed:
    trace = "".join(traceback.format_exception(error))
    return SessionFailed(number, f"{type(error).__name__}: {error}", trace)
