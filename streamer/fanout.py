"""Measure the WebSocket server: many subscribers in other processes, some of which never read.

Knows the server and the bytes that a subscriber exchanges with it. Knows no agent and no model:
the messages are as long as real ones and say when they were sent.
"""

import asyncio
import multiprocessing
import os
import selectors
import socket
import struct
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from websockets.frames import Opcode

from .subscriber import Limits
from .websocket import WebSocketPublisher

PROCESSES = 2
"""Of subscribers; the server is a third, as it is where it runs."""

LENGTH = 1400
"""Bytes of a message, about those of a score with three modalities."""

STARTING = 60.0
"""Seconds in which all must have connected."""

_HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


Crowd = tuple[BaseProcess, Connection]


class Fanout(NamedTuple):
    """What was measured; milliseconds from `publish` to receipt, seconds."""

    subscribers: int
    stalled: int
    p50_ms: float
    p99_ms: float
    stalled_gone_s: float | None
    """Until the last one was cut; None if there was none, or if one was not."""
    received: int
    expected: int
    cpu: float
    """Share of a core that the server used."""


async def fanout(
    subscribers: int, stalled: int, *, seconds: float = 10.0, hop: float = 0.5
) -> Fanout:
    """Publish a message every `hop` seconds on the loopback and say when it arrived.

    Raises:
        TimeoutError: If the subscribers cannot connect within a minute.
        RuntimeError: If no message arrived at all.
    """
    total = subscribers + stalled
    server = WebSocketPublisher(
        port=0,
        hello=lambda: "hello",
        missed=lambda count: f"missed {count}",
        limits=Limits(subscribers=total, per_address=total, pending=total),
    )
    await server.open()
    running = asyncio.create_task(server.run(), name="tamulag.fanout")
    crowds = _start(server.port, subscribers, stalled)
    try:
        async with asyncio.timeout(STARTING):
            while server.subscribers < total:  # noqa: ASYNC110 (bounded by the timeout)
                await asyncio.sleep(0.05)
        cpu = time.process_time()
        sent, gone = await _publish(server, subscribers, seconds, hop)
        cpu = (time.process_time() - cpu) / seconds
        latencies = sorted([one for _, pipe in crowds for one in await _heard(pipe)])
    finally:
        for process, _ in crowds:
            process.terminate()
            process.join()
        running.cancel()
        await server.close()
    if not latencies:
        raise RuntimeError(f"none of {sent} messages arrived: try fewer than {subscribers}")
    return Fanout(
        subscribers=subscribers,
        stalled=stalled,
        p50_ms=_percentile(latencies, 50),
        p99_ms=_percentile(latencies, 99),
        stalled_gone_s=gone if stalled else None,
        received=len(latencies),
        expected=sent * subscribers,
        cpu=cpu,
    )


async def _publish(
    server: WebSocketPublisher, subscribers: int, seconds: float, hop: float
) -> tuple[int, float | None]:
    """Return how many messages were sent, and after how long the stalled were gone."""
    start = time.monotonic()
    sent, gone = 0, None
    while sent * hop < seconds:
        server.publish("sentiment", f"{time.monotonic():020.6f}".ljust(LENGTH))
        sent += 1
        while (now := time.monotonic()) < start + sent * hop:
            if gone is None and server.subscribers <= subscribers:
                gone = now - start
            await asyncio.sleep(min(0.02, start + sent * hop - now))
    return sent, gone


async def _heard(pipe: Connection) -> list[float]:
    """Ask a process what its subscribers got; milliseconds."""
    pipe.send(None)
    async with asyncio.timeout(STARTING):
        while not pipe.poll():  # noqa: ASYNC110 (bounded by the timeout)
            await asyncio.sleep(0.02)
    latencies: list[float] = pipe.recv()
    return latencies


def _percentile(values: list[float], percent: int) -> float:
    return values[min(len(values) - 1, len(values) * percent // 100)]


def _start(port: int, subscribers: int, stalled: int) -> list[Crowd]:
    spawned = multiprocessing.get_context("spawn")
    crowds: list[Crowd] = []
    for number in range(PROCESSES):
        ours, theirs = spawned.Pipe()
        share = len(range(number, subscribers, PROCESSES))
        crowd = (port, share, stalled if number == 0 else 0, theirs)
        process = spawned.Process(target=_crowd, args=crowd, daemon=True)
        process.start()
        crowds.append((process, ours))
    return crowds


def _crowd(port: int, readers: int, stalled: int, pipe: Connection) -> None:
    """Be many subscribers until asked what they got."""
    latencies: list[float] = []
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        for _ in range(readers):
            selector.register(_connect(port), selectors.EVENT_READ, bytearray())
            _listen(selector, latencies, 0.0)  # pings are answered from the beginning
        idle = [_connect(port, 4096) for _ in range(stalled)]
        while not pipe.poll():
            _listen(selector, latencies, None)
    pipe.send(latencies)
    pipe.poll(STARTING)  # keeps the sockets open until the server has counted
    del idle


def _listen(
    selector: selectors.BaseSelector, latencies: list[float], timeout: float | None
) -> None:
    for key, _ in selector.select(timeout):
        if isinstance(key.fileobj, socket.socket):
            arrived = key.fileobj.recv(65536)
            if not arrived:
                selector.unregister(key.fileobj)
            key.data.extend(arrived)
            latencies += _read(key.fileobj, key.data)


def _connect(port: int, receive_buffer: int | None = None) -> socket.socket:
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.connect(("127.0.0.1", port))
    sock.sendall(_HANDSHAKE)
    return sock


def _read(sock: socket.socket, waiting: bytearray) -> Iterator[float]:
    """Yield the age of each message that has arrived, milliseconds; answer pings."""
    now = time.monotonic()
    if waiting.startswith(b"HTTP"):
        head = waiting.find(b"\r\n\r\n")
        del waiting[: head + 4 if head >= 0 else 0]
        if head < 0:
            return
    while (found := _frame(waiting)) is not None:
        kind, data = found
        if kind == Opcode.PING:
            sock.sendall(bytes([0x80 | Opcode.PONG, 0x80]) + os.urandom(4))
        elif data[:1].isdigit():
            yield (now - float(data[:20])) * 1000


def _frame(waiting: bytearray) -> tuple[int, bytes] | None:
    """Take the first whole frame; the server sends none above 64 KiB and pings without data."""
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
