"""Decide how many workers the load needs.

Knows readings of a monotonic clock and the workers' load. Knows no worker.
"""

BUSY, BUSY_FOR = 0.7, 5.0
"""Load, and its duration in seconds, from which one more worker is wanted."""

IDLE, IDLE_FOR = 0.2, 60.0
"""The same, below which one less is wanted."""


class Autoscaler:
    """Decides when to grow and when to shrink.

    Args:
        least: Fewest workers.
        most: Most workers.
    """

    def __init__(self, least: int, most: int) -> None:
        self.wanted = least
        self.most = most
        self._least = least
        self._busy_since: float | None = None
        self._idle_since: float | None = None

    def observe(self, now: float, busy: float) -> int:
        """Return how many workers are wanted.

        Args:
            now: Monotonic clock, seconds.
            busy: Mean share of the time that the workers spent in calls lately, 0 to 1.
        """
        self._busy_since = _since(self._busy_since, busy > BUSY, now)
        self._idle_since = _since(self._idle_since, busy < IDLE, now)
        if self._busy_since is not None and now - self._busy_since >= BUSY_FOR:
            self.wanted = min(self.wanted + 1, self.most)
            self._busy_since = None
        if self._idle_since is not None and now - self._idle_since >= IDLE_FOR:
            self.wanted = max(self.wanted - 1, self._least)
            self._idle_since = None
        return self.wanted


def _since(before: float | None, is_so: bool, now: float) -> float | None:
    if not is_so:
        return None
    return now if before is None else before
