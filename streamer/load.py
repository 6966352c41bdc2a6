"""Many seats in a process of their own that send features to a server and time its scores.

Knows the bytes that a sender exchanges with a server on the loopback. Knows no server and no model.
`callers` does the same with a library, for few: here a seat must cost next to nothing.
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

from .audio import AUDIO_DIM
from .crowd import connected, frame
from .ingest import EndHeader, FeaturesHeader, SenderHello, build_frame
from .sample import TICK_RATE, VISION_TICKS
from .vision import VISION_DIM

LAST = 10.0
"""Seconds that the last scores may take."""

_END = re.compile(rb'"end":([0-9.]+)')
_CLOSE, _TEXT, _BINARY, _PING = 8, 1, 2, 9


class Load(NamedTuple):
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
class Seat:
    """One sender; ordered by when its next hop is due."""

    due: float
    sock: socket.socket = field(compare=False)
    begun: float = field(compare=False)
    sent: int = field(compare=False, default=0)
    waiting: bytearray = field(compare=False, default_factory=bytearray)
    unsent: bytearray = field(compare=False, default_factory=bytearray)
    late: list[float] = field(compare=False, default_factory=list)
    refused: str | None = field(compare=False, default=None)
    is_ready: bool = field(compare=False, default=False)


def be_seats(
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
    frames = [masked(_hop(number, hop)) for number in range(hops)]
    end = masked([build_frame(EndHeader(timestamp=hops * hop))])
    rng, start = random.Random(port), time.monotonic() + 0.2
    offsets = sorted(rng.uniform(0, spread) for _ in range(seats))
    line: list[Seat] = []
    here: list[Seat] = []
    behind = 0.0
    with selectors.DefaultSelector() as selector:
        last = start + spread + hops * hop + LAST
        while time.monotonic() < last and (
            len(here) < seats or any(_is_open(seat, hops) for seat in here)
        ):
            if len(here) < seats and time.monotonic() >= start + offsets[len(here)]:
                seat = _sit(port, start + offsets[len(here)], selector)
                here.append(seat)
                heapq.heappush(line, seat)
            behind = max(behind, _send_due(line, frames, end, hop, selector))
            pause = line[0].due - time.monotonic() if line else 0.01
            _listen(selector, min(max(pause, 0.0), 0.01), hop)
        for seat in here:
            seat.sock.close()
    let_in = [seat for seat in here if seat.refused is None]
    late = sorted(age for seat in let_in for age in seat.late)
    refused = Counter(seat.refused for seat in here if seat.refused is not None)
    pipe.send(Load(late, len(let_in) * hops, dict(refused), behind))


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


def _hop(number: int, hop: float) -> list[bytes]:
    """Return the frames of a hop: face and voice, random and always the same."""
    rng = np.random.default_rng(number)
    voice = rng.standard_normal((round(hop * TICK_RATE), AUDIO_DIM)).astype("<f4")
    face = rng.standard_normal((round(hop * TICK_RATE / VISION_TICKS), VISION_DIM)).astype("<f4")
    at = round(number * hop, 6)
    return [
        build_frame(FeaturesHeader(timestamp=at, modality="vision"), face.tobytes()),
        build_frame(FeaturesHeader(timestamp=at, modality="audio"), voice.tobytes()),
    ]


def _sit(port: int, begun: float, selector: selectors.BaseSelector) -> Seat:
    sock = connected(port, path="/ingest")
    hello = SenderHello(features=["audio", "vision"], clock="sender")
    text = hello.model_dump_json(exclude_none=True).encode()
    sock.sendall(bytes([0x80 | _TEXT, 0x80 | 126]) + len(text).to_bytes(2, "big") + bytes(4) + text)
    sock.setblocking(False)
    seat = Seat(begun, sock, begun)
    selector.register(sock, selectors.EVENT_READ, seat)
    return seat


def _is_open(seat: Seat, hops: int) -> bool:
    return seat.refused is None and len(seat.late) < hops


def _send_due(
    line: list[Seat], frames: list[bytes], end: bytes, hop: float, selector: selectors.BaseSelector
) -> float:
    """Send every hop that is due; return by how much the latest one was."""
    behind, now = 0.0, time.monotonic()
    while line and line[0].due <= now:
        seat = heapq.heappop(line)
        if seat.refused is not None:
            continue
        if not seat.is_ready:  # the server has not answered yet: the seat begins later
            seat.due = seat.begun = now + 0.05
            heapq.heappush(line, seat)
            continue
        behind = max(behind, now - seat.due)
        is_last = seat.sent + 1 == len(frames)
        seat.unsent += frames[seat.sent] + (end if is_last else b"")
        _flush(seat, selector)
        seat.sent += 1
        if not is_last:
            seat.due = seat.begun + seat.sent * hop
            heapq.heappush(line, seat)
        now = time.monotonic()
    return behind


def _flush(seat: Seat, selector: selectors.BaseSelector) -> None:
    try:
        while seat.unsent:
            del seat.unsent[: seat.sock.send(seat.unsent)]
    except BlockingIOError:
        pass
    except OSError as error:
        seat.refused = seat.refused or f"cut: {error.strerror}"
        seat.unsent.clear()
    events = selectors.EVENT_READ | (selectors.EVENT_WRITE if seat.unsent else 0)
    if seat.sock in selector.get_map() and selector.get_key(seat.sock).events != events:
        selector.modify(seat.sock, events, seat)


def _listen(selector: selectors.BaseSelector, timeout: float, hop: float) -> None:
    for key, events in selector.select(timeout):
        seat: Seat = key.data
        if events & selectors.EVENT_WRITE:
            _flush(seat, selector)
        if events & selectors.EVENT_READ:
            _hear(seat, selector, hop)


def _hear(seat: Seat, selector: selectors.BaseSelector, hop: float) -> None:
    try:
        arrived = seat.sock.recv(262_144)
    except BlockingIOError:
        return
    except OSError:
        arrived = b""
    now = time.monotonic()
    if not arrived:
        selector.unregister(seat.sock)
        return
    seat.waiting += arrived
    while (found := frame(seat.waiting)) is not None:
        kind, data = found
        if kind == _TEXT and b'"type":"sentiment"' in data[:300]:
            place = _END.search(data)
            assert place is not None
            seat.late.append(now - (seat.begun + float(place[1]) - hop))
        elif kind == _TEXT and not seat.is_ready:
            seat.is_ready = True
        elif kind == _CLOSE and data[:2] != (1000).to_bytes(2, "big"):
            seat.refused = data[2:].decode(errors="replace") or "closed"
        elif kind == _PING:
            seat.unsent += bytes([0x8A, 0x80]) + bytes(4)
            _flush(seat, selector)
