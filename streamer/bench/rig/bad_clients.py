"""Clients that break the rules: some never read, and some send what is no WebSocket frame.

Knows the server's port, what goes over it, and pipes. Knows no agent.
"""

import contextlib
import fcntl
import http.client
import os
import re
import selectors
import socket
import struct
import time
from collections.abc import Sequence
from typing import NamedTuple

from websockets.frames import Opcode

from .processes import StageError
from .subscribers import STARTING, SubscriberLoad, percentile
from .websocket_frames import connected, encode

READERS = 200
"""Healthy subscribers beside the one that never reads."""

WATCHED = 12.0
"""Seconds for which they are counted."""

SENDERS, PER_SENDER = 50, 10
"""How many send how often: 500 messages, of which every fiftieth is malformed."""

_PAUSE = 0.1  # between two messages of a sender: below what one may send in a second
_WATCH = 1.5  # all in all below the 4 s after which a client that answers no ping is cut as well


class Pipe:
    """A pipe of 4 KiB, to be the standard output of a program; only `drain` reads it."""

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4096)

    def drain(self) -> None:
        """Read what is there."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)

    def close(self) -> None:
        """Close both ends."""
        os.close(self._reader)
        os.close(self.writer)


class Stalled(NamedTuple):
    """What the others noticed; milliseconds from sending to receipt."""

    readers: int
    p50_ms: float
    p99_ms: float
    lost: int
    gone_s: float | None
    """From its connection until it was cut; None: it was not."""


def stalled(port: int) -> Stalled:
    """Let 200 subscribers read and one not, for some seconds.

    Raises:
        StageError: If they are not connected within a minute.
    """
    before = _subscribers(port)
    with SubscriberLoad(port, READERS, processes=2) as others:
        deadline = time.monotonic() + STARTING
        while _subscribers(port) < before + READERS:
            if time.monotonic() > deadline:
                raise StageError(f"{READERS} subscribers not connected within {STARTING:g} s")
            time.sleep(0.1)
        others.restart()  # what came while they were still connecting
        idle = connected(port, 4096)
        gone = _wait_until_cut(port, before + READERS)
        received = others.received()
        idle.close()
    ages = received.sent
    return Stalled(READERS, percentile(ages, 50), percentile(ages, 99), received.lost, gone)


def _wait_until_cut(port: int, others: int) -> float | None:
    begin, was_there, gone = time.monotonic(), False, None
    while (passed := time.monotonic() - begin) < WATCHED:
        count = _subscribers(port)
        was_there |= count > others
        if was_there and gone is None and count <= others:
            gone = round(passed, 2)
        time.sleep(0.1)
    return gone


def _subscribers(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
    finally:
        connection.close()
    found = re.search(r"^tamulag_subscribers (\S+)$", page, re.MULTILINE)
    return round(float(found[1])) if found else 0


class Malformed(NamedTuple):
    """What was sent, and what came of it."""

    sent: int
    bad: int
    cut: int
    """Senders that the server has cut."""
    connected: int
    """Senders that are still connected."""


def malformed(port: int) -> Malformed:
    """Send 500 messages, 2 % of which are no WebSocket frame; see which senders stay connected."""
    senders = [connected(port) for _ in range(SENDERS)]
    bad = 0
    try:
        for turn in range(PER_SENDER):
            for number, sender in enumerate(senders):
                is_bad = number == 5 * turn  # another sender each time
                bad += is_bad
                _send(sender, BAD[turn % len(BAD)] if is_bad else GOOD)
            time.sleep(_PAUSE)
        cut = _cut(senders)
    finally:
        for sender in senders:
            sender.close()
    return Malformed(SENDERS * PER_SENDER, bad, cut, SENDERS - cut)


def _send(sender: socket.socket, data: bytes) -> None:
    try:
        sender.sendall(data)
    except OSError:
        return  # it was cut for what it sent before; `_cut` counts it


def _cut(senders: Sequence[socket.socket]) -> int:
    """Read for a second what has come; the end means that the server has closed."""
    gone: set[socket.socket] = set()
    deadline = time.monotonic() + _WATCH
    with selectors.DefaultSelector() as selector:
        for sender in senders:
            selector.register(sender, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                assert isinstance(key.fileobj, socket.socket)
                if not _read(key.fileobj):
                    selector.unregister(key.fileobj)
                    gone.add(key.fileobj)
    return len(gone)


def _read(sender: socket.socket) -> bytes:
    try:
        return sender.recv(65536)
    except OSError:
        return b""


BAD: Sequence[bytes] = (
    encode(Opcode.TEXT, b"not masked", is_masked=False),
    encode(Opcode.TEXT, b"reserved bits", reserved=0x70),
    encode(Opcode.TEXT, b"\xff\xfe\xfd"),
    encode(3, b"unknown opcode"),
    bytes([0x81, 0xFF]) + struct.pack("!Q", 2**40) + b"a terabyte",
)
"""What is no message: each breaks another rule of the protocol."""

GOOD = encode(Opcode.TEXT, b'{"like": "this"}')
