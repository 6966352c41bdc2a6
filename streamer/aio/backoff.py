"""Pauses between attempts to open again what was lost.

Knows one clock. Knows neither what is opened nor how to wait.
"""

import random
import time

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 4.0
"""Seconds; keeps a recovery within five seconds."""


def longer(pause: float) -> float:
    """Return the pause after `pause`: twice as long, within the limits."""
    return min(max(2 * pause, FIRST_PAUSE), LONGEST_PAUSE)


class Backoff:
    """Randomised exponential back-off: each pause is longer than the one before, up to a limit.

    Programs that lost the same peer together must not come back together, so each pause is drawn
    from a range. What was open for longer than `LONGEST_PAUSE` starts with a short pause again.

    Args:
        least: Lower end of the range as a share of its upper end, 0 to 1.
    """

    def __init__(self, least: float = 0.5) -> None:
        self._least = least
        self._pause = 0.0
        self._opened: float | None = None

    def opened(self) -> None:
        """Mark the attempt that follows the newest pause as successful."""
        self._opened = time.monotonic()

    def next(self) -> float:
        """Return the seconds to wait before the next attempt."""
        if self._opened is not None and time.monotonic() - self._opened > LONGEST_PAUSE:
            self._pause = 0.0
        self._opened = None
        self._pause = longer(self._pause)
        return random.uniform(self._least * self._pause, self._pause)
