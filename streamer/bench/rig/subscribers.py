"""Many subscribers in processes of their own, some of which never read.

Knows the messages of an agent and of `fanout`, and when each was sent. Knows no server, no model.
"""

import json
import multiprocessing
import selectors
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import NamedTuple, Self

from websockets.frames import Opcode

from ...aio.shutdown import end_with_parent
from .processes import StageError
from .websocket_frames import PONG, connected, frames

STARTING = 60.0
"""Seconds in which all must have connected, and in which they must report."""

_REPORT, _RESTART = "report", "restart"


class Received(NamedTuple):
    """What readers got; ages in milliseconds."""

    sent: list[float]
    """From the sending of a message to its receipt, rising."""
    hop: list[float]
    """From the end of a hop to the receipt of its score, rising; empty without an agent."""
    lost: int
    """Numbers that were skipped between two messages of one reader."""


class SubscriberLoad:
    """Subscribers of a server on the loopback, from `with` to its end.

    Args:
        port: Of the server.
        readers: Subscribers that read all that comes, and answer pings.
        stalled: Subscribers that never read anything.
        processes: Over which they are spread.
    """

    def __init__(self, port: int, readers: int, stalled: int = 0, *, processes: int = 1) -> None:
        self._port = port
        shares = [len(range(number, readers, processes)) for number in range(processes)]
        self._shares = [(share, 0 if k else stalled) for k, share in enumerate(shares)]
        self._running: list[tuple[BaseProcess, Connection]] = []

    def __enter__(self) -> Self:
        """Start; the connections come one after the other while the block runs."""
        spawned = multiprocessing.get_context("spawn")
        for share in self._shares:
            ours, theirs = spawned.Pipe()
            process = spawned.Process(target=_run, args=(self._port, *share, theirs), daemon=True)
            process.start()
            theirs.close()
            self._running.append((process, ours))
        return self

    def __exit__(self, *_: object) -> None:
        """End every process that was started."""
        for process, pipe in self._running:
            process.terminate()
            process.join(5.0)
            pipe.close()

    def finish(self) -> None:
        """Let all report what they got; they stay connected and read no more."""
        for _, pipe in self._running:
            pipe.send(_REPORT)

    def restart(self) -> None:
        """Let all count from zero, e.g. when the last of them has connected."""
        for _, pipe in self._running:
            pipe.send(_RESTART)

    def is_ready(self) -> bool:
        """Return whether all have reported; one that has died counts as well."""
        return all(pipe.poll() for _, pipe in self._running)

    def received(self) -> Received:
        """Finish and wait for the reports, 60 s at most.

        Raises:
            StageError: If a process does not answer, or has died.
        """
        self.finish()
        return self.reports()

    def reports(self) -> Received:
        """Collect what was got; raises like `received`."""
        parts: list[Received] = []
        for process, pipe in self._running:
            if not pipe.poll(STARTING):
                raise StageError(f"{process.name} does not report: try fewer subscribers")
            try:
                parts.append(Received(*pipe.recv()))
            except EOFError:
                raise StageError(f"{process.name} has died: try fewer subscribers") from None
        return Received(
            sorted(age for part in parts for age in part.sent),
            sorted(age for part in parts for age in part.hop),
            sum(part.lost for part in parts),
        )


def percentile(values: list[float], percent: int) -> float:
    """Return one of some values that rise; nan if there is none."""
    return values[min(len(values) - 1, len(values) * percent // 100)] if values else float("nan")


@dataclass
class _Reader:
    """One subscriber: what it has not yet read, and where it stands."""

    waiting: bytearray = field(default_factory=bytearray)
    seq: int | None = None
    epoch: float | None = None
    sent: list[float] = field(default_factory=list)
    hop: list[float] = field(default_factory=list)
    lost: int = 0

    def take(self, text: bytes, now: float) -> None:
        """Note the age of a message of `fanout` or of an agent; `now` is wall time."""
        if text[:1].isdigit():
            self.sent.append((time.monotonic() - float(text[:20])) * 1000)
        elif text.startswith(b"{"):
            self._take_message(json.loads(text), now)

    def restart(self) -> None:
        """Count from zero."""
        self.sent.clear()
        self.hop.clear()
        self.lost = 0

    def _take_message(self, message: dict[str, object], now: float) -> None:
        kind, seq = message["type"], message["seq"]
        assert isinstance(seq, int)
        if kind == "hello":
            self.epoch = _seconds(message["epoch"])
        elif self.seq is not None and kind != "heartbeat":
            self.lost += max(0, seq - self.seq - 1)
        self.seq = max(seq, self.seq or 0)  # a new subscriber gets the newest status once more
        if kind == "sentiment" and self.epoch is not None:
            window = message["window"]
            assert isinstance(window, dict)
            self.sent.append((now - _seconds(message["time"])) * 1000)
            self.hop.append((now - self.epoch - window["end"]) * 1000)


def _seconds(stamp: object) -> float:
    return datetime.fromisoformat(str(stamp)).timestamp()


def _run(port: int, readers: int, stalled: int, pipe: Connection) -> None:
    """Run many subscribers until a report is wanted, or the parent has ended."""
    end_with_parent()
    subscribers = [_Reader() for _ in range(readers)]
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        for reader in subscribers:
            selector.register(connected(port), selectors.EVENT_READ, reader)
            _listen(selector, 0.0)  # pings are answered from the beginning
        idle = [connected(port, 4096) for _ in range(stalled)]
        while not _is_finished(pipe, subscribers):
            _listen(selector, None)
    pipe.send(_sum(subscribers))
    pipe.poll(STARTING)  # keeps the sockets open until the server has counted
    del idle


def _is_finished(pipe: Connection, readers: Iterable[_Reader]) -> bool:
    """Return whether the report is wanted; count from zero if that is wanted."""
    if not pipe.poll():
        return False
    is_finished: bool = pipe.recv() == _REPORT
    for reader in () if is_finished else readers:
        reader.restart()
    return is_finished


def _sum(readers: Sequence[_Reader]) -> tuple[list[float], list[float], int]:
    sent = [age for reader in readers for age in reader.sent]
    hop = [age for reader in readers for age in reader.hop]
    return sent, hop, sum(reader.lost for reader in readers)


def _listen(selector: selectors.BaseSelector, timeout: float | None) -> None:
    for key, _ in selector.select(timeout):
        if isinstance(key.fileobj, socket.socket):
            arrived = key.fileobj.recv(65536)
            if not arrived:
                selector.unregister(key.fileobj)
            key.data.waiting.extend(arrived)
            _read(key.fileobj, key.data)


def _read(sock: socket.socket, reader: _Reader) -> None:
    """Take each message that has arrived; answer pings."""
    now, waiting = time.time(), reader.waiting
    for kind, data in frames(waiting):
        if kind == Opcode.PING:
            sock.sendall(PONG)
        elif kind == Opcode.TEXT:
            reader.take(data, now)
