"""A sender of ready features that reads its scores, with a client library.

Knows the ingest protocol from the other side. For many there is `bench/rig/senders.py`.
"""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tamulag.models.runtime.checkpoint import load
from tamulag.models.runtime.torch_engine import TorchEngine
from tamulag.streamer.bench.rig.senders import HOP, rows
from tamulag.streamer.core.commands import Push
from tamulag.streamer.core.sample import Block
from tamulag.streamer.core.session_batch import SessionBatch
from tamulag.streamer.protocol.ingest import EndHeader, FeaturesHeader, SenderHello, build_frame

FEATURES = SenderHello(features=["audio", "vision"], clock="sender")

PATIENCE = 20.0
"""Seconds that a sender waits for an answer."""


class Score(NamedTuple):
    """A score, as a sender got it."""

    end: float
    """Session time."""
    sentiment: float | None
    late: float
    """Seconds from sending what the hop needed to reading its score."""


@dataclass
class Caller:
    """One sender.

    Attributes:
        refused: Why it was not admitted, or cut.
        scores: That it received.
        ready: The server's first message.
    """

    seed: int
    refused: str | None = None
    scores: list[Score] = field(default_factory=list)
    ready: dict[str, object] = field(default_factory=dict)
    closed: int | None = None


Rows = Callable[[int, int], tuple[np.ndarray, np.ndarray]]


async def call(
    url: str,
    caller: Caller,
    *,
    hops: int,
    first: int = 0,
    paced: bool = True,
    hello: SenderHello | None = None,
    make: Rows = rows,
) -> Caller:
    """Send so many hops and read the scores.

    Args:
        url: Of the server, without `ingest`.
        caller: Is filled.
        hops: To send; then the session is ended.
        first: Number of the first hop: later than 0 to go on with a session.
        paced: In real time; else as fast as the server takes it.
        hello: Other than that of voice and face on the sender's own clock.
        make: Makes the rows of a hop.
    """
    hello = hello or SenderHello(features=["audio", "vision"], clock="sender")
    try:
        async with connect(f"{url}ingest", compression=None, max_queue=64) as socket:
            await socket.send(hello.model_dump_json(exclude_none=True))
            async with asyncio.timeout(PATIENCE):
                caller.ready = json.loads(await socket.recv())
            sent: dict[float, float] = {}
            reading = asyncio.create_task(_read(socket, caller, sent))
            try:
                await _send(socket, caller, sent, range(first, first + hops), paced, make)
                async with asyncio.timeout(PATIENCE):
                    await reading
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
    except ConnectionClosed as error:
        caller.refused = error.rcvd.reason if error.rcvd else "cut"
        caller.closed = error.rcvd.code if error.rcvd else None
    except (OSError, TimeoutError) as error:
        caller.refused = f"{type(error).__name__} {error}"
    return caller


async def stopped_under(url: str, number: int, stop: Callable[[], int]) -> list[Caller]:
    """Let so many come and send until all are scored or refused, stop their server; return them.

    Args:
        url: Of the server, without `ingest`.
        number: Of senders; all send the same.
        stop: Ends the server, which must end well.
    """
    made, callers = rows(0, 0), [Caller(seed) for seed in range(number)]
    running = []
    for caller in callers:
        one = call(url, caller, hops=200, make=lambda seed, hop: made)
        running.append(asyncio.create_task(one))
        await asyncio.sleep(0.01)
    async with asyncio.timeout(PATIENCE):
        while not all(one.scores or one.refused for one in callers):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert await asyncio.to_thread(stop) == 0
    await asyncio.gather(*running)
    return callers


async def _send(
    socket: ClientConnection,
    caller: Caller,
    sent: dict[float, float],
    hops: range,
    paced: bool,
    make: Rows,
) -> None:
    begun = time.monotonic()
    for number in hops:
        if paced:
            due = begun + (number - hops.start + 1) * HOP
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        at = number * HOP
        voice, face = make(caller.seed, number)
        vision = FeaturesHeader(timestamp=at, modality="vision")
        audio = FeaturesHeader(timestamp=at, modality="audio")
        await socket.send(build_frame(vision, face.tobytes()))
        sent[round(at + HOP, 2)] = time.monotonic()
        await socket.send(build_frame(audio, voice.tobytes()))
    await socket.send(build_frame(EndHeader(timestamp=hops.stop * HOP)))


async def _read(socket: ClientConnection, caller: Caller, sent: dict[float, float]) -> None:
    async for line in socket:
        got = time.monotonic()
        # Not decoded in full: a load test's own work must not count.
        if '"type":"sentiment"' in line[:400]:
            message = json.loads(line)
            end = message["window"]["end"]
            caller.scores.append(Score(end, message["sentiment"], got - sent.get(end, got)))


def alone(seed: int, hops: int) -> list[float | None]:
    """Return the scores of the rows of a sender in a session alone."""
    model, card = load("default")
    batch = SessionBatch(TorchEngine(model), card)
    batch.open("x", ("audio", "vision"))
    scores = []
    for hop in range(hops):
        voice, face = rows(seed, hop)
        batch.apply("x", Push(Block("vision", hop * HOP, face)))
        batch.apply("x", Push(Block("audio", hop * HOP, voice)))
        scores += [scored.estimate.sentiment for scored in batch.step()]
    return scores


def assert_as_alone(scores: list[Score], seed: int, hops: int) -> None:
    assert [score.end for score in scores] == [HOP * (k + 1) for k in range(hops)]
    assert [score.sentiment for score in scores] == pytest.approx(alone(seed, hops), abs=1e-4)
