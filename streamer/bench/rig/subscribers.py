"""Many subscribers in processes of their own, some of which never read.

Knows the bytes that a subscriber exchanges with the WebSocket server, and when a message was sent.
Knows no server, no agent and no model.
"""

import json
import multiprocessing
import os
import selectors
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import NamedTuple, Self

from websockets.frames import Opcode

from .processes import StageError

STARTING = 60.0
"""Seconds in which all must have connected, and in which they must tell what they got."""

_HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)

_TELL, _FORGET = "tell", "forget"


class Heard(NamedTuple):
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
        readers: Who read all that comes, and answer pings.
        stalled: Who never read anything.
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
            process = spawned.Process(target=_be, args=(self._port, *share, theirs), daemon=True)
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

    def ask(self) -> None:
        """Ask all what they got; they stay connected and read no more."""
        for _, pipe in self._running:
            pipe.send(_TELL)

    def forget(self) -> None:
        """Let all count anew, e.g. when the last of them has connected."""
        for _, pipe in self._running:
            pipe.send(_FORGET)

    def is_ready(self) -> bool:
        """Return whether all have answered; one that has died counts as well."""
        return all(pipe.poll() for _, pipe in self._running)

    def heard(self) -> Heard:
        """Ask what was got; blocks for 60 s at most.

        Raises:
            StageError: If a process does not answer, or has died.
        """
        self.ask()
        return self.answers()

    def answers(self) -> Heard:
        """Collect what was asked for; raises like `heard`."""
        parts: list[Heard] = []
        for process, pipe in self._running:
            if not pipe.poll(STARTING):
                raise StageError(f"{process.name} does not answer: try fewer subscribers")
            try:
                parts.append(Heard(*pipe.recv()))
            except EOFError:
                raise StageError(f"{process.name} has died: try fewer subscribers") from None
        return Heard(
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

    def forget(self) -> None:
        """Begin to count anew."""
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
        self.seq = max(seq, self.seq or 0)  # a newcomer is told the newest status once more
        if kind == "sentiment" and self.epoch is not None:
            window = message["window"]
            assert isinstance(window, dict)
            self.sent.append((now - _seconds(message["time"])) * 1000)
            self.hop.append((now - self.epoch - window["end"]) * 1000)


def _seconds(stamp: object) -> float:
    return datetime.fromisoformat(str(stamp)).timestamp()


def _be(port: int, readers: int, stalled: int, pipe: Connection) -> None:
    """Be many subscribers until asked what they got."""
    crowd = [_Reader() for _ in range(readers)]
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        for reader in crowd:
            selector.register(connected(port), selectors.EVENT_READ, reader)
            _listen(selector, 0.0)  # pings are answered from the beginning
        idle = [connected(port, 4096) for _ in range(stalled)]
        while not _is_asked(pipe, crowd):
            _listen(selector, None)
    pipe.send(_sum(crowd))
    pipe.poll(STARTING)  # keeps the sockets open until the server has counted
    del idle


def _is_asked(pipe: Connection, crowd: Iterable[_Reader]) -> bool:
    """Return whether the answer is wanted; forget what was got if that is wanted."""
    if not pipe.poll():
        return False
    is_asked: bool = pipe.recv() == _TELL
    for reader in () if is_asked else crowd:
        reader.forget()
    return is_asked


def _sum(crowd: Iterable[_Reader]) -> tuple[list[float], list[float], int]:
    readers = list(crowd)
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


def connected(port: int, receive_buffer: int | None = None, path: str = "/") -> socket.socket:
    """Return a socket on which the handshake was sent, and nothing read yet."""
    sock = socket.socket()
    sock.settimeout(STARTING)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.connect(("127.0.0.1", port))
    sock.sendall(_HANDSHAKE.format(path=path).encode())
    return sock


def _read(sock: socket.socket, reader: _Reader) -> None:
    """Take each message that has arrived; answer pings."""
    now, waiting = time.time(), reader.waiting
    while (found := frame(waiting)) is not None:
        kind, data = found
        if kind == Opcode.PING:
            sock.sendall(bytes([0x80 | Opcode.PONG, 0x80]) + os.urandom(4))
        elif kind == Opcode.TEXT:
            reader.take(data, now)


def frame(waiting: bytearray) -> tuple[int, bytes] | None:
    """Take the first whole frame, after the answer to the handshake if that is there.

    The server sends none above 64 KiB and pings without data.
    """
    if waiting.startswith(b"HTTP"):
        head = waiting.find(b"\r\n\r\n")
        del waiting[: head + 4 if head >= 0 else 0]
        if head < 0:
            return None
    if len(waiting) < 2:
        return None
    size, start = waiting[1], 2
    if size == 126:
        if len(waiting) < 4:
            return None
        (size,), start = struct.unpack_from("!H", waiting, 2), 4
    if len(waiting) < start + size:
        return None
    kind, data = waiting[0] & 15, bytes(waiting[start : start + size])
    del waiting[: start + size]
    return kind, data
