"""The session clock: seconds since the session's start, and the wall time that belongs to them.

Knows two functions that tell time. Knows no device and no stream.
"""

import time
from collections.abc import Callable

SILENCE = 0.5
"""Seconds beyond `lateness` after which hops close by the clock, without any sample."""


class SessionClock:
    """Session time 0 is the moment of `begin`; before it the clock runs from its making.

    The wall time is read once: a step of the wall clock changes neither session time nor the wall
    times that are published.

    Args:
        monotonic: Seconds that never step.
        wall: Seconds since 1970.

    Attributes:
        epoch: Wall time of session time 0, seconds since 1970.
    """

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self.begin()

    def begin(self) -> None:
        """Make this moment session time 0."""
        self._start = self._monotonic()
        self.epoch = self._wall()

    def now(self) -> float:
        """Return the session time in seconds."""
        return self._monotonic() - self._start

    def wall_now(self) -> float:
        """Return the wall time in seconds since 1970, steady from the session's start on."""
        return self.epoch + self.now()
