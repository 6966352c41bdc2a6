"""Place a device's counted sound on the session clock: fit, steer, and show gaps.

Knows counts, arrivals and sound at 16 kHz. Knows no device, no thread and no features.
"""

from collections.abc import Callable

import numpy as np

from ..core.sample import SAMPLE_RATE, TICK_RATE, Array
from .clock_fit import ClockFit, Settling
from .time_stretch import TimeStretcher

TOLERANCE = 1 / TICK_RATE
"""Seconds, one tick: what is further from its place is put there at once, and leaves a gap."""

_STEER = 10.0  # seconds in which a smaller distance is made good
_MOST = 0.01  # no sound card is off by more than this


class ClockSync:
    """Sound of a device, stretched so that sample k is that of session time k / 16000.

    The device's clock drifts; the sound follows the fit by being read a little faster or slower,
    so nothing is lost and no seam is heard. A gap is never joined.

    The first blocks are held back until they agree on their place, commonly for two blocks; see
    `Settling`. A first block that was late by more than a tick would else be placed too late, and
    the sound behind it would have to be cut.

    Args:
        rate: Samples per second that the device promises.
        latency: Seconds from the sound to its arrival that no clock can see; subtracted.
        settles: Whether the first blocks are held back; False where arrivals are exact, such as
            places that a fit of the sender's clock gave.
        stretch: Makes the `TimeStretcher` that begins at a sample; another one if only places are
            wanted.

    Attributes:
        fit: Of the session clock to the device's count.
        error: Seconds by which the sound is now earlier than its place; made good in 10 s.
        gaps: Places at which sound is missing or was cut.
        dropped: Seconds that these were long.
    """

    def __init__(
        self,
        rate: int,
        latency: float = 0.0,
        *,
        settles: bool,
        stretch: Callable[[float], TimeStretcher] = TimeStretcher,
    ) -> None:
        self.fit = ClockFit()
        self.error = 0.0
        self.gaps = 0
        self.dropped = 0.0
        self._rate = rate
        self._latency = latency
        self._new_stretch = stretch
        self._stretch = stretch(0.0)
        self._settling = Settling(is_over=not settles)
        self._held: list[Array] = []
        self._start: int | None = None
        self._end: int | None = None

    def push(
        self, values: Array, span: tuple[int, int], arrival: float, *, is_torn: bool
    ) -> tuple[int, Array]:
        """Take a block and return what of it comes next, behind all that was returned before.

        Args:
            values: The block at 16 kHz, shape (n,).
            span: Device samples counted before the block and with it.
            arrival: Session time at which it was handed over.
            is_torn: Samples are missing before it; where they were not counted either, call
                `fit.restart` first.

        Returns:
            Number of its first sample on the session clock, and the samples, shape (m,); 0 and none
            while the first blocks are held back.
        """
        self.fit.add(span[1] / self._rate, arrival)
        if is_torn:
            self._give_up()
        if is_torn or (self._start is None and not self._held):
            self._stretch = self._new_stretch(span[0] * SAMPLE_RATE / self._rate)
        if not self._settling.is_over:
            values = self._hold(values, span, arrival)
            if not self._settling.is_over:
                return 0, values[:0]
        start = self._steered(self._place(), is_torn=is_torn)
        steer = min(max(self.fit.slope + self.error / _STEER, -_MOST), _MOST)
        sound = self._stretch.push(values, 1 / (1 + steer))
        self._start = start + len(sound)
        return self._behind(start, sound)

    def _hold(self, values: Array, span: tuple[int, int], arrival: float) -> Array:
        """Hold one of the first blocks back; return all of them as soon as their place is known."""
        before, counted = (samples / self._rate for samples in span)
        self._settling.add(counted - before, arrival - counted, arrival)
        self._held.append(values)
        if not self._settling.is_over:
            return values
        sound = np.concatenate(self._held)
        self._held.clear()
        return sound

    def _give_up(self) -> None:
        """Drop what is held back, which the sound behind a gap cannot be joined to."""
        self._settling.is_over = True
        if self._held:
            self.gaps += 1
            self.dropped += sum(map(len, self._held)) / SAMPLE_RATE
            self._held.clear()

    @property
    def position(self) -> float:
        """Place, counted in device samples at 16 kHz, up to which the sound was returned."""
        return self._stretch.position

    def _steered(self, place: float, *, is_torn: bool) -> int:
        """Return where the next sample lies: behind the last one, or put to its place."""
        wanted = round(place * SAMPLE_RATE)
        if self._start is None:
            return wanted
        self.error = place - self._start / SAMPLE_RATE
        if not is_torn and abs(self.error) <= TOLERANCE:
            return self._start
        self.error = 0.0
        self.gaps += 1
        return wanted

    def _place(self) -> float:
        return self.fit.time_at(self.position / SAMPLE_RATE) - self._latency

    def _behind(self, start: int, sound: Array) -> tuple[int, Array]:
        """Cut what overlaps, so that no time comes twice, and add up what is lost."""
        before = start if self._end is None else self._end
        overlap = min(max(before - start, 0), len(sound))
        if len(sound):
            self.dropped += max(start - before, overlap) / SAMPLE_RATE
            self._end = max(before, start + len(sound))
        return start + overlap, sound[overlap:]
