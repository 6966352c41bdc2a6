"""Where a time stamp of a container becomes time: one gate, which no stamp passes unchecked.

Knows stamps and the ends of tracks. Knows no container, no device and no session.

A stamp is taken as it is while its track does not step back by more than `BACK`, and does not
lead the newest end of all tracks by more than `AHEAD`. Any other stamp begins a segment, at the
newest end: streams that were joined, a clock that began anew, a stamp out of nowhere. The other
tracks follow where their stamps fit it; a track whose stamps fit an earlier segment goes back to
that. So time rises, at most `AHEAD` at a time, whatever the stamps are.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Literal

Track = Literal["audio", "vision"]

AHEAD = 30.0
"""Seconds of a pause that is kept as it is."""

BACK = {"audio": 0.125, "vision": 0.5}
"""Seconds by which a stamp may step back: sound that wobbles by 60 ms either way, pictures that
come out of order."""

_KNOWN = 8

Jumped = Callable[[Track, float, float], None]
"""Called with the track, the time at which a segment begins, and by how much its stamp jumped."""


class TimeLine:
    """The time of one pass through a container, in seconds from its start.

    Args:
        zero: Stamp of the container's start, seconds; None: the first stamp that comes.
        jumped: Called whenever a stamp begins a new segment.
    """

    def __init__(self, zero: float | None, jumped: Jumped) -> None:
        self._zero = zero
        self._jumped = jumped
        self._shifts: deque[float] = deque([0.0], maxlen=_KNOWN)
        self._shift: dict[Track, float] = {}
        self._ends: dict[Track, float] = {}

    @property
    def newest(self) -> float:
        """Newest end of all tracks."""
        return max(self._ends.values(), default=0.0)

    def place(self, track: Track, stamp: float) -> float:
        """Return the time of a stamp, which is not before the end of its track less `BACK`."""
        if self._zero is None:
            self._zero = stamp
        since = stamp - self._zero
        here = self._shift.get(track, self._shifts[-1])
        for shift in (here, *reversed(self._shifts)):
            if self._fits(track, since + shift):
                self._shift[track] = shift
                return since + shift
        time = max(self.newest, 0.0)
        jump = since + here - self._ends.get(track, time)
        self._shift[track] = time - since
        self._shifts.append(time - since)
        self._jumped(track, time, jump)
        return time

    def reached(self, track: Track, end: float) -> None:
        """Note how far a track reaches now; it never goes back."""
        self._ends[track] = max(end, self._ends.get(track, end))

    def _fits(self, track: Track, time: float) -> bool:
        end = self._ends.get(track)
        least = -AHEAD if end is None else end - BACK[track]
        return math.isfinite(time) and least - 1e-6 <= time <= self.newest + AHEAD
