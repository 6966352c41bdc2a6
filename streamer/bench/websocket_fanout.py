"""Measure the WebSocket server: many subscribers in other processes, some of which never read.

Knows the server. Knows no agent and no model: the messages have a realistic length and contain the
time of sending.
"""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from ..webserver.connection import Limits
from ..webserver.server import WebSocketPublisher
from .rig.processes import StageError
from .rig.subscribers import STARTING, Received, SubscriberLoad, percentile

PROCESSES = 2
"""Processes of subscribers; the server is in this one."""

LENGTH = 1400
"""Bytes of a message, about those of a score of three modalities."""


class Fanout(NamedTuple):
    """Results; milliseconds from `publish` to receipt, seconds."""

    subscribers: int
    stalled: int
    p50_ms: float
    p99_ms: float
    stalled_gone_s: float | None
    """Until the last stalled subscriber was cut; None if there was none, or if one was not."""
    received: int
    expected: int
    cpu: float
    """Processor cores used by the server."""


async def fanout(
    subscribers: int, stalled: int, *, seconds: float = 10.0, hop: float = 0.5
) -> Fanout:
    """Publish a message every `hop` seconds on the loopback and measure its latency.

    Raises:
        StageError: If the subscribers cannot connect within a minute, or no message arrived.
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
    try:
        with SubscriberLoad(server.port, subscribers, stalled, processes=PROCESSES) as load:
            await _until(lambda: server.subscribers >= total, f"{total} subscribers connect")
            cpu = time.process_time()
            sent, gone = await _publish(server, subscribers, seconds, hop)
            cpu = (time.process_time() - cpu) / seconds
            latencies = (await _received(load)).sent
    finally:
        running.cancel()
        await server.close()
    if not latencies:
        raise StageError(f"none of {sent} messages arrived: try fewer than {subscribers}")
    return Fanout(
        subscribers=subscribers,
        stalled=stalled,
        p50_ms=percentile(latencies, 50),
        p99_ms=percentile(latencies, 99),
        stalled_gone_s=gone if stalled else None,
        received=len(latencies),
        expected=sent * subscribers,
        cpu=cpu,
    )


async def _publish(
    server: WebSocketPublisher, subscribers: int, seconds: float, hop: float
) -> tuple[int, float | None]:
    """Return how many messages were sent, and after how many seconds the stalled were cut."""
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


async def _received(load: SubscriberLoad) -> Received:
    """Let the server go on while its subscribers report what they got."""
    load.finish()
    await _until(load.is_ready, "the subscribers report")
    return load.reports()


async def _until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition; raises StageError after a minute."""
    deadline = time.monotonic() + STARTING
    while not condition():
        if time.monotonic() > deadline:
            raise StageError(f"not within {STARTING:g} s: {what}: try fewer subscribers")
        await asyncio.sleep(0.02)
