"""Fit the session clock to a device's count of samples, from when its blocks arrived.

Knows two rows of times, counted and arrived. Knows no device, no sound and no clock of its own.
"""

from collections import deque
from math import inf

import numpy as np

STEP = 0.02
"""Seconds, one tick: sound that stays later by more than this has lost samples on its way."""

LIMIT = 1.0
"""Seconds behind the first arrival in which the place of the sound should be known."""

_MOST_HELD = 5.0  # seconds of sound that may come within these

_HISTORY, _RECENT, _STEP_SECONDS = 120, 10, 5
_ENOUGH = 30  # seconds of sound before a slope is used


class ClockFit:
    """Say when counted sound was recorded.

    A block arrives late by chance and never early. So of each second of sound its least late block
    alone counts, for two minutes; the median of the slopes between all of these (Theil-Sen) is the
    drift, and the least late of the last ten seconds, carried along the slope, the offset. Work
    per block is bounded.

    Attributes:
        slope: Session seconds that a counted second lasts, less 1; above 0: the device is slow.
        is_known: Whether the slope was fitted yet, which takes 30 s of sound; before it is 0.
        offset: Session time at which sample 0 was recorded, by the newest fit.
        steps: Times at which all of five seconds was late by more than `STEP`: samples were lost
            that the device did not report.
    """

    def __init__(self) -> None:
        self.slope = 0.0
        self.is_known = False
        self.offset = 0.0
        self.steps = 0
        self.restart()

    def restart(self) -> None:
        """Forget the offset, because samples were lost; the slope stays."""
        self._least: deque[tuple[float, float]] = deque(maxlen=_HISTORY)
        self._open: tuple[float, float] | None = None
        self._closed = inf  # offset by the seconds before the open one

    def add(self, counted: float, arrival: float) -> None:
        """Take the arrival of a block.

        Args:
            counted: Length of all sound up to the block's end, seconds by the device's rate; rises.
            arrival: Session time at which it was handed over.
        """
        lag = arrival - counted
        if self._open is not None and int(counted) > int(self._open[0]):
            self._close(self._open)
            self._open = None
        if self._open is None or lag < self._open[1]:
            self._open = (counted, lag)
        self.offset = min(self._closed, self._level([self._open]))

    def time_at(self, counted: float) -> float:
        """Return the session time at which the sound had this length; needs one `add`."""
        return self.offset + counted + self.slope * counted

    def _level(self, points: list[tuple[float, float]]) -> float:
        return min(lag - self.slope * counted for counted, lag in points)

    def _close(self, least: tuple[float, float]) -> None:
        """End a second of sound."""
        self._least.append(least)
        points = [*self._least]
        before, new = points[:-_STEP_SECONDS][-_RECENT:], points[-_STEP_SECONDS:]
        if before and self._level(new) - self._level(before) > STEP:
            self.steps += 1
            self.restart()
            self._least.extend(new)
        elif len(points) >= _ENOUGH:
            self.slope = _slope(points)
            self.is_known = True
        self._closed = self._level([*self._least][-_RECENT:])


class Settling:
    """Say when the first blocks tell where the sound begins.

    The first block may be held up, and what lies behind it then arrives together with it: one
    burst, in which each block is less late than the one before by its own length. The last one of
    a burst is its least late. Where these are late alike in two bursts, to `STEP`, the place is
    known. A block that comes in time is a burst of its own, so commonly this takes three blocks.

    Args:
        is_over: True: the place is known from the beginning.

    Attributes:
        is_over: Whether the place is known, or will not be before `LIMIT`.
    """

    def __init__(self, *, is_over: bool = False) -> None:
        self.is_over = is_over
        self._first: float | None = None  # arrival
        self._newest = inf  # lag
        self._least = inf  # lag of the bursts that ended
        self._length = 0.0

    def add(self, length: float, lag: float, arrival: float) -> None:
        """Take the arrival of a block.

        Args:
            length: Of the block, seconds.
            lag: Its arrival less the length of all sound up to its end, seconds.
            arrival: Session time at which it was handed over.
        """
        self._length += length
        if self._first is None:
            self._first = arrival
        elif lag > self._newest - length / 2:
            self.is_over |= abs(self._newest - self._least) <= STEP
            self._least = min(self._least, self._newest)
        self._newest = lag
        # Where the next block is due after the limit, waiting for it would be waiting longer.
        is_late = arrival + length > self._first + LIMIT
        self.is_over |= is_late or self._length > _MOST_HELD


_OTHER, _ONE = np.tril_indices(_HISTORY, -1)
"""Indices of all pairs; those among the first n points are the first n * (n - 1) / 2."""


def _slope(points: list[tuple[float, float]]) -> float:
    """Return the median slope of all pairs."""
    counted, lag = np.array(points).T
    pairs = len(points) * (len(points) - 1) // 2
    one, other = _ONE[:pairs], _OTHER[:pairs]
    slopes = (lag[other] - lag[one]) / (counted[other] - counted[one])
    slopes.partition(pairs // 2)  # half the time of np.median
    return float(slopes[pairs // 2])
