"""Workers that a picture or a film has taken over: what they write into their pipe.

Knows the pipes' forms. Runs in worker processes of tests alone.
"""

import os
import pickle
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from tamulag.streamer.service.feature_workers.answers import pack_answer
from tamulag.streamer.service.feature_workers.ipc import (
    CloseSession,
    FrameProcessed,
    OpenSession,
    Ping,
    Pong,
    ProcessFrame,
    Ready,
    SessionClosed,
    SessionOpened,
    read,
)
from tamulag.streamer.service.feature_workers.pipeline import PipelineConfig

TRACE = "TAMULAG_TEST_TRACE"
"""Environment variable with the file that a pickle would make where it is read as one."""


class Bomb:
    """A pickle that makes a file where it is read."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path(os.environ[TRACE]),)


def bomb() -> bytes:
    """Return the pickle."""
    return pickle.dumps(Bomb(), pickle.HIGHEST_PROTOCOL)


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


WRITES: dict[str, Callable[[], bytes]] = {
    "pickle": lambda: _sized(bomb()),
    "huge": lambda: b"\xff" * 1000,
    "lengths": lambda: _sized(b"\0\0\xff\xff[]"),
    "dtype": lambda: _sized(b'\0\0\0\x2b["frame",0,[["sample","vision",0,null,4]],{}]' + bytes(32)),
    "stranger": lambda: pack_answer(SessionOpened(999)),
    "twice": lambda: pack_answer(SessionOpened(0)),
    "unasked": lambda: pack_answer(FrameProcessed(0, [], {"vision": 0})) * 20,
    "closed": lambda: pack_answer(SessionClosed(0)),
}
"""What a taken-over worker writes, by name."""


def serve(pipe: socket.socket, config: PipelineConfig) -> None:
    """Be an honest worker until a frame at a place from 5 s on; `config.checkpoint` is what then.

    An honest answer to a frame is one without inputs.
    """
    pipe.sendall(pack_answer(Ready()))
    with pipe.makefile("rb") as orders:
        while True:
            order = read(orders)
            if isinstance(order, OpenSession):
                pipe.sendall(pack_answer(SessionOpened(order.number)))
            elif isinstance(order, CloseSession):
                pipe.sendall(pack_answer(SessionClosed(order.number)))
            elif isinstance(order, Ping):
                pipe.sendall(pack_answer(Pong(0.0)))
            elif isinstance(order, ProcessFrame) and order.placed.place >= 5.0:
                pipe.sendall(WRITES[config.checkpoint]())
                time.sleep(60)
            elif isinstance(order, ProcessFrame):
                pipe.sendall(pack_answer(FrameProcessed(order.number, [], {"vision": 0})))


def job(what: str) -> str | None:
    """Do a job of `work_off`: an honest one, or one that takes the worker over."""
    if what in ("pickle", "huge"):
        take_over(bomb() if what == "pickle" else b" " * 1_000_000)
    return None if what == "good" else what


def take_over(data: bytes) -> None:
    """Write into the pipe in place of the worker, which has it among its open files."""
    for number in range(3, 40):
        try:
            if not os.path.sameopenfile(number, number) or not _is_socket(number):
                continue
            Connection(number).send_bytes(data)
        except OSError:
            continue
    time.sleep(60)


def _is_socket(number: int) -> bool:
    return os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
