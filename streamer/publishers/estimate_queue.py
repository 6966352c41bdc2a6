"""Deliver estimates to the program that runs the agent; of too many the newest stay.

Knows sentiment messages and how many may wait. Knows no socket, no file and no session.
"""

import asyncio

from ..core.estimate import Estimate, ModalityEstimate
from ..core.sample import MODALITIES
from ..protocol.messages import AnyMessage, SentimentMessage, decode
from .publisher import MAX_BACKLOG, Outbox


class EstimateQueue:
    """A publisher whose subscriber is an `async for` in this process; iterate over it once.

    Args:
        size: Estimates that may wait, at least 1; beyond that the oldest is dropped and counted.
        is_waited_for: Whether the run waits while many are not taken yet, so that none is dropped:
            for a file at full speed.
    """

    name = "estimates"

    def __init__(self, size: int, *, is_waited_for: bool = False) -> None:
        self.started = asyncio.Event()
        """Set when every source and output is open."""
        self._is_waited_for = is_waited_for
        self._is_discarding = False
        self._lines = Outbox[str](max(size, 4 * MAX_BACKLOG) if is_waited_for else size)

    @property
    def dropped(self) -> int:
        """Estimates that were not taken in time."""
        return self._lines.dropped

    @property
    def backlog(self) -> int:
        """Estimates that the run waits for; 0 where it does not wait."""
        return len(self._lines) if self._is_waited_for and not self._is_discarding else 0

    async def open(self) -> None:
        """Do nothing: there is nothing to open."""

    def publish(self, kind: str, payload: str) -> None:
        """Add an estimate; other messages are ignored."""
        if kind == "session_start":
            self.started.set()
        if kind == "sentiment" and not self._is_discarding:
            self._lines.put(payload)

    async def run(self) -> None:
        """Wait until cancelled; the iterating task takes the estimates."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """End the iteration after what still waits."""
        self._lines.end()

    def discard(self) -> None:
        """Add nothing from now on, and let the run wait for nothing."""
        self._is_discarding = True

    def __aiter__(self) -> "EstimateQueue":
        return self

    async def __anext__(self) -> Estimate:
        return _estimate(decode(await anext(self._lines)))


def _estimate(message: AnyMessage) -> Estimate:
    """Return the estimate in a sentiment message, rounded as it is on the wire."""
    assert isinstance(message, SentimentMessage), "nothing else was put in"
    parts = {name: getattr(message.modalities, name) for name in MODALITIES}
    return Estimate(
        start=message.window.start,
        end=message.window.end,
        warmup=message.window.warmup,
        sentiment=message.sentiment,
        interval=message.interval,
        modalities={
            name: ModalityEstimate(
                part.sentiment, part.weight, part.status, part.reason, part.age, part.scale
            )
            for name, part in parts.items()
        },
        conflict=message.conflict,
        attention={name: rows for name in MODALITIES if (rows := getattr(message.attention, name))},
        revision=message.modalities.text.revision or 0,
        trend=message.trend,
        label=message.label,
    )
