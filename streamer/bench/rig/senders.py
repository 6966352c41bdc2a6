"""Many senders in a process of their own that send features to a server and time its scores.

Knows the ingest protocol from the sender's side. Knows no server and no model. No client library: a
sender must cost next to nothing.
"""

import heapq
import random
import re
import selectors
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np
from websockets.frames import Opcode

from ...aio.shutdown import end_with_parent
from ...core.sample import TICK_RATE, VISION_TICKS, Array
from ...features.audio import AUDIO_DIM
from ...features.vision import VISION_DIM
from ...protocol.ingest import EndHeader, FeaturesHeader, SenderHello, build_frame
from .websocket_frames import PONG, connected, encode, frames

HOP = 0.5
"""Seconds of features that a sender sends at once."""

LAST = 10.0
"""Seconds that the last scores may take."""

AGAIN, TRIES = 5.0, 3
"""Seconds until a sender that is asked to try again does, and how often."""

_END = re.compile(rb'"end":([0-9.]+)')
_NORMAL = (1000).to_bytes(2, "big")


class SenderLoad(NamedTuple):
    """What the senders saw."""

    late: list[float]
    """Seconds from when a hop's last feature was due to its score, rising."""
    wanted: int
    """Scores that those which were admitted had to get."""
    refused: dict[str, int]
    """Those which were not admitted, or cut, by the server's reason."""
    behind: float
    """Most seconds by which this process itself was late with a hop: its own fault."""


@dataclass(order=True)
class SenderClient:
    """One sender; ordered by when it has something to do."""

    due: float
    sock: socket.socket | None = field(compare=False, default=None)
    begun: float = field(compare=False, default=0.0)
    sent: int = field(compare=False, default=0)
    tries: int = field(compare=False, default=0)
    waiting: bytearray = field(compare=False, default_factory=bytearray)
    unsent: bytearray = field(compare=False, default_factory=bytearray)
    late: list[float] = field(compare=False, default_factory=list)
    refused: str | None = field(compare=False, default=None)
    is_ready: bool = field(compare=False, default=False)


def run_senders(
    port: int, senders: int, hops: int, hop: float, spread: float, pipe: Connection
) -> None:
    """Run so many senders for so many hops, report what they saw, and end; a child's work.

    Args:
        port: Of the server, on the loopback.
        senders: How many.
        hops: Of each.
        hop: Seconds.
        spread: Seconds within which they begin.
        pipe: Takes a `SenderLoad`.
    """
    end_with_parent()
    with selectors.DefaultSelector() as selector:
        pipe.send(_Senders(port, hops, hop, selector).run(senders, spread))


class _Senders:
    """Senders of one process, one after the other as each has something to do."""

    def __init__(self, port: int, hops: int, hop: float, selector: selectors.BaseSelector) -> None:
        self._port, self._hop, self._selector = port, hop, selector
        self._frames = [_hop(number, hop) for number in range(hops)]
        self._end = _binary(build_frame(EndHeader(timestamp=hops * hop)))
        self._due: list[SenderClient] = []
        self._behind = 0.0

    def run(self, senders: int, spread: float) -> SenderLoad:
        """Let all connect within `spread` seconds, and wait until they have their last score."""
        rng, start, hops = random.Random(self._port), time.monotonic() + 0.2, len(self._frames)
        clients = [SenderClient(start + rng.uniform(0, spread)) for _ in range(senders)]
        self._due = clients.copy()
        heapq.heapify(self._due)
        last = start + spread + hops * self._hop + LAST + TRIES * AGAIN
        while time.monotonic() < last and any(
            client.refused is None and len(client.late) < hops for client in clients
        ):
            self._work()
            pause = self._due[0].due - time.monotonic() if self._due else 0.01
            self._listen(min(max(pause, 0.0), 0.01))
        for client in clients:
            if client.sock is not None:
                client.sock.close()
        admitted = [client for client in clients if client.refused is None]
        late = sorted(age for client in admitted for age in client.late)
        refused = Counter(client.refused for client in clients if client.refused is not None)
        return SenderLoad(late, len(admitted) * hops, dict(refused), self._behind)

    def _work(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        while self._due and self._due[0].due <= now:
            client = heapq.heappop(self._due)
            if client.sock is None:
                self._connect(client)
            elif client.is_ready:
                self._behind = max(self._behind, now - client.due)
                self._send(client)
            else:  # the server has not answered yet: the session begins later
                self._schedule(client, now + 0.05)
            now = time.monotonic()

    def _schedule(self, client: SenderClient, due: float) -> None:
        client.due = client.begun = due
        heapq.heappush(self._due, client)

    def _connect(self, client: SenderClient) -> None:
        """Connect; the first hop is due as soon as the server has answered."""
        client.sock = connected(self._port, path="/ingest")
        hello = SenderHello(features=["audio", "vision"], clock="sender")
        text = hello.model_dump_json(exclude_none=True).encode()
        client.sock.sendall(encode(Opcode.TEXT, text))
        client.sock.setblocking(False)
        self._selector.register(client.sock, selectors.EVENT_READ, client)
        self._schedule(client, time.monotonic())

    def _send(self, client: SenderClient) -> None:
        client.unsent += self._frames[client.sent]
        client.sent += 1
        if client.sent == len(self._frames):
            client.unsent += self._end
        else:
            client.due = client.begun + client.sent * self._hop
            heapq.heappush(self._due, client)
        self._flush(client)

    def _flush(self, client: SenderClient) -> None:
        assert client.sock is not None
        try:
            while client.unsent:
                del client.unsent[: client.sock.send(client.unsent)]
        except BlockingIOError:
            pass
        except OSError as error:
            self._close(client, f"cut: {error.strerror}")
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0)
        if self._selector.get_key(client.sock).events != events:
            self._selector.modify(client.sock, events, client)

    def _listen(self, timeout: float) -> None:
        for key, events in self._selector.select(timeout):
            if events & selectors.EVENT_WRITE:
                self._flush(key.data)
            if events & selectors.EVENT_READ and key.data.sock is not None:
                self._read(key.data)

    def _read(self, client: SenderClient) -> None:
        assert client.sock is not None
        try:
            arrived = client.sock.recv(262_144)
        except BlockingIOError:
            return
        except OSError as error:
            self._close(client, f"cut: {error.strerror}")
            return
        now = time.monotonic()
        client.waiting += arrived
        for kind, data in frames(client.waiting):
            self._receive(client, kind, data, now)
        if not arrived:
            self._close(client, None if len(client.late) == len(self._frames) else "cut")

    def _receive(self, client: SenderClient, kind: int, data: bytes, now: float) -> None:
        if kind == Opcode.TEXT and b'"type":"sentiment"' in data[:300]:
            place = _END.search(data)
            assert place is not None
            client.late.append(now - (client.begun + float(place[1]) - self._hop))
        elif kind == Opcode.TEXT:
            client.is_ready = True
        elif kind == Opcode.CLOSE and data[:2] != _NORMAL:
            self._close(client, data[2:].decode(errors="replace") or "closed")
        elif kind == Opcode.PING:
            client.unsent += PONG

    def _close(self, client: SenderClient, why: str | None) -> None:
        """Close a connection; a sender that is asked to try again does, a few times."""
        if client.sock is None:
            return
        self._selector.unregister(client.sock)
        client.sock.close()
        client.sock, client.is_ready = None, False
        client.waiting.clear()
        client.unsent.clear()
        if client in self._due:
            self._due.remove(client)
            heapq.heapify(self._due)
        if why and "try again" in why and client.tries < TRIES and not client.sent:
            client.tries += 1
            heapq.heappush(self._due, client)
            client.due = time.monotonic() + AGAIN
            heapq.heapify(self._due)
        elif why:
            client.refused = client.refused or why


def rows(seed: int, number: int, hop: float = HOP) -> tuple[Array, Array]:
    """Return voice and face of a hop of a session: random, and always the same."""
    rng = np.random.default_rng([seed, number])
    voice = rng.standard_normal((round(hop * TICK_RATE), AUDIO_DIM)).astype(np.float32)
    face = rng.standard_normal((round(hop * TICK_RATE / VISION_TICKS), VISION_DIM))
    return voice, face.astype(np.float32)


def _hop(number: int, hop: float) -> bytes:
    """Return the frames of a hop, the same for every sender: face and voice."""
    voice, face = rows(0, number, hop)
    at = round(number * hop, 6)
    vision = FeaturesHeader(timestamp=at, modality="vision")
    audio = FeaturesHeader(timestamp=at, modality="audio")
    return _binary(
        build_frame(vision, face.astype("<f4").tobytes()),
        build_frame(audio, voice.astype("<f4").tobytes()),
    )


def _binary(*payloads: bytes) -> bytes:
    return b"".join(encode(Opcode.BINARY, payload) for payload in payloads)
