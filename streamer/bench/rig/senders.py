"""Many seats in a process of their own that send features to a server and time its scores.

Knows the bytes that a sender exchanges with a server on the loopback. Knows no server and no model.
No client library: a seat must cost next to nothing.
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

from ...core.sample import TICK_RATE, VISION_TICKS, Array
from ...features.audio import AUDIO_DIM
from ...features.vision import VISION_DIM
from ...protocol.ingest import EndHeader, FeaturesHeader, SenderHello, build_frame
from .subscribers import connected, frame

HOP = 0.5
"""Seconds of features that a seat sends at once."""

LAST = 10.0
"""Seconds that the last scores may take."""

AGAIN, TRIES = 5.0, 3
"""Seconds until a seat that is told to try again does, and how often."""

_END = re.compile(rb'"end":([0-9.]+)')
_CLOSE, _TEXT, _BINARY, _PING = 8, 1, 2, 9
_NORMAL = (1000).to_bytes(2, "big")


class SenderLoad(NamedTuple):
    """What the seats saw."""

    late: list[float]
    """Seconds from when a hop's last feature was due to its score, rising."""
    wanted: int
    """Scores that those who were let in had to get."""
    refused: dict[str, int]
    """Those who were not let in, or cut, by the server's reason."""
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
    port: int, seats: int, hops: int, hop: float, spread: float, pipe: Connection
) -> None:
    """Be so many seats for so many hops, say what was seen, and end.

    Args:
        port: Of the server, on the loopback.
        seats: Senders.
        hops: Of each.
        hop: Seconds.
        spread: Seconds within which they begin.
        pipe: Takes a `Load`.
    """
    with selectors.DefaultSelector() as selector:
        pipe.send(_Senders(port, hops, hop, selector).run(seats, spread))


class _Senders:
    """Seats of one process, one after the other as each has something to do."""

    def __init__(self, port: int, hops: int, hop: float, selector: selectors.BaseSelector) -> None:
        self._port, self._hop, self._selector = port, hop, selector
        self._frames = [masked(_frames(number, hop)) for number in range(hops)]
        self._end = masked([build_frame(EndHeader(timestamp=hops * hop))])
        self._line: list[SenderClient] = []
        self._behind = 0.0

    def run(self, seats: int, spread: float) -> SenderLoad:
        """Let all come within `spread` seconds, and wait until they have heard their last score."""
        rng, start, hops = random.Random(self._port), time.monotonic() + 0.2, len(self._frames)
        here = [SenderClient(start + rng.uniform(0, spread)) for _ in range(seats)]
        self._line = here.copy()
        heapq.heapify(self._line)
        last = start + spread + hops * self._hop + LAST + TRIES * AGAIN
        while time.monotonic() < last and any(
            seat.refused is None and len(seat.late) < hops for seat in here
        ):
            self._work()
            pause = self._line[0].due - time.monotonic() if self._line else 0.01
            self._listen(min(max(pause, 0.0), 0.01))
        for seat in here:
            if seat.sock is not None:
                seat.sock.close()
        let_in = [seat for seat in here if seat.refused is None]
        late = sorted(age for seat in let_in for age in seat.late)
        refused = Counter(seat.refused for seat in here if seat.refused is not None)
        return SenderLoad(late, len(let_in) * hops, dict(refused), self._behind)

    def _work(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        while self._line and self._line[0].due <= now:
            seat = heapq.heappop(self._line)
            if seat.sock is None:
                self._sit(seat)
            elif seat.is_ready:
                self._behind = max(self._behind, now - seat.due)
                self._send(seat)
            else:  # the server has not answered yet: the seat begins later
                self._again(seat, now + 0.05)
            now = time.monotonic()

    def _again(self, seat: SenderClient, due: float) -> None:
        seat.due = seat.begun = due
        heapq.heappush(self._line, seat)

    def _sit(self, seat: SenderClient) -> None:
        """Connect; the first hop is due as soon as the server has answered."""
        seat.sock = connected(self._port, path="/ingest")
        hello = SenderHello(features=["audio", "vision"], clock="sender")
        text = hello.model_dump_json(exclude_none=True).encode()
        head = bytes([0x80 | _TEXT, 0x80 | 126]) + len(text).to_bytes(2, "big") + bytes(4)
        seat.sock.sendall(head + text)
        seat.sock.setblocking(False)
        self._selector.register(seat.sock, selectors.EVENT_READ, seat)
        self._again(seat, time.monotonic())

    def _send(self, seat: SenderClient) -> None:
        seat.unsent += self._frames[seat.sent]
        seat.sent += 1
        if seat.sent == len(self._frames):
            seat.unsent += self._end
        else:
            seat.due = seat.begun + seat.sent * self._hop
            heapq.heappush(self._line, seat)
        self._flush(seat)

    def _flush(self, seat: SenderClient) -> None:
        assert seat.sock is not None
        try:
            while seat.unsent:
                del seat.unsent[: seat.sock.send(seat.unsent)]
        except BlockingIOError:
            pass
        except OSError as error:
            self._leave(seat, f"cut: {error.strerror}")
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if seat.unsent else 0)
        if self._selector.get_key(seat.sock).events != events:
            self._selector.modify(seat.sock, events, seat)

    def _listen(self, timeout: float) -> None:
        for key, events in self._selector.select(timeout):
            if events & selectors.EVENT_WRITE:
                self._flush(key.data)
            if events & selectors.EVENT_READ and key.data.sock is not None:
                self._hear(key.data)

    def _hear(self, seat: SenderClient) -> None:
        assert seat.sock is not None
        try:
            arrived = seat.sock.recv(262_144)
        except BlockingIOError:
            return
        except OSError as error:
            self._leave(seat, f"cut: {error.strerror}")
            return
        now = time.monotonic()
        seat.waiting += arrived
        while (found := frame(seat.waiting)) is not None:
            self._take(seat, *found, now)
        if not arrived:
            self._leave(seat, None if len(seat.late) == len(self._frames) else "cut")

    def _take(self, seat: SenderClient, kind: int, data: bytes, now: float) -> None:
        if kind == _TEXT and b'"type":"sentiment"' in data[:300]:
            place = _END.search(data)
            assert place is not None
            seat.late.append(now - (seat.begun + float(place[1]) - self._hop))
        elif kind == _TEXT:
            seat.is_ready = True
        elif kind == _CLOSE and data[:2] != _NORMAL:
            self._leave(seat, data[2:].decode(errors="replace") or "closed")
        elif kind == _PING:
            seat.unsent += bytes([0x8A, 0x80]) + bytes(4)

    def _leave(self, seat: SenderClient, why: str | None) -> None:
        """Close a seat; one that is told to try again does, a few times."""
        if seat.sock is None:
            return
        self._selector.unregister(seat.sock)
        seat.sock.close()
        seat.sock, seat.is_ready = None, False
        seat.waiting.clear()
        seat.unsent.clear()
        if seat in self._line:
            self._line.remove(seat)
            heapq.heapify(self._line)
        if why and "try again" in why and seat.tries < TRIES and not seat.sent:
            seat.tries += 1
            heapq.heappush(self._line, seat)
            seat.due = time.monotonic() + AGAIN
            heapq.heapify(self._line)
        elif why:
            seat.refused = seat.refused or why


def masked(payloads: list[bytes]) -> bytes:
    """Return binary frames as a client sends them; the mask is zero, which any server takes."""
    out = bytearray()
    for data in payloads:
        size = len(data)
        head = bytes([0x80 | _BINARY])
        if size < 126:
            head += bytes([0x80 | size])
        elif size < 65536:
            head += bytes([0x80 | 126]) + size.to_bytes(2, "big")
        else:
            head += bytes([0x80 | 127]) + size.to_bytes(8, "big")
        out += head + bytes(4) + data
    return bytes(out)


def rows(seed: int, number: int, hop: float = HOP) -> tuple[Array, Array]:
    """Return voice and face of a hop of a seat: random, and always the same."""
    rng = np.random.default_rng([seed, number])
    voice = rng.standard_normal((round(hop * TICK_RATE), AUDIO_DIM)).astype(np.float32)
    face = rng.standard_normal((round(hop * TICK_RATE / VISION_TICKS), VISION_DIM))
    return voice, face.astype(np.float32)


def _frames(number: int, hop: float) -> list[bytes]:
    """Return the frames of a hop, the same for every seat: face and voice."""
    voice, face = rows(0, number, hop)
    at = round(number * hop, 6)
    return [
        build_frame(FeaturesHeader(timestamp=at, modality="vision"), face.astype("<f4").tobytes()),
        build_frame(FeaturesHeader(timestamp=at, modality="audio"), voice.astype("<f4").tobytes()),
    ]
