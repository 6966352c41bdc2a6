"""Put decoded sound on one line of samples at 16 kHz: counted, and corrected by its stamps.

Knows frames, counts and times. Knows no container and no session.

Sound without a gap is placed by counting: a stamp that wobbles by up to `TimeLine.BACK` moves
nothing. Where the mean of the stamps stays apart from the count by more than `_DRIFT`, as with two
clocks, the sound is stretched until they agree again. A stamp that leads by more is a gap.
"""

from typing import TYPE_CHECKING

import numpy as np

from ..core.sample import SAMPLE_RATE, Array, Notice
from ..features.audio_pipeline import Resampler
from .time_line import BACK, TimeLine
from .time_stretch import HALF, TimeStretcher

if TYPE_CHECKING:
    from av import AudioFrame

_GAP = BACK["audio"]
_DRIFT, _AGREED = 0.01, 0.001  # seconds of the mean at which stretching begins, and ends
_MEMORY = 0.5  # seconds over which the mean is taken
_MOST = 0.06  # share by which sound is stretched; below one semitone

Stretch = tuple[int, Array]
"""Index of the first sample at 16 kHz, and samples: shape (n,), float32."""


class SoundLine:
    """Resamples the frames of one track and says where they lie.

    Args:
        time: Of the container.
    """

    def __init__(self, time: TimeLine) -> None:
        self._time = time
        self._resampler = Resampler(SAMPLE_RATE)
        self._next = 0  # index of the next sample
        self._counted: float | None = None  # time at which the next frame begins, by the count
        self._mean = 0.0  # of the stamps less the count
        self._frames = 0  # that it is taken over
        self._stretcher: TimeStretcher | None = None
        self._is_stretching = False

    def push(self, frame: "AudioFrame", stamp: float | None) -> list[Stretch]:
        """Return the samples that a frame completes.

        Args:
            frame: Decoded sound of any form.
            stamp: Of its first sample, seconds; None: it follows the frame before.
        """
        done: list[Stretch] = []
        follows = self._counted or 0.0
        stamp_time = follows if stamp is None else self._time.place("audio", stamp)
        length = frame.samples / frame.sample_rate
        if self._counted is None or stamp_time - self._counted - self._mean > _GAP:
            done += self.finish()
            self._next = max(round(stamp_time * SAMPLE_RATE), self._next)
            self._counted = stamp_time
        self._follow(stamp_time - self._counted, length)
        self._counted += length
        done += self._placed(self._resampler.push_frame(frame))
        self._time.reached("audio", self._counted)
        return done

    def remark(self) -> Notice | None:
        """Return what is wrong with the sound, where that has changed; time is the container's."""
        return self._resampler.remark(self._counted or 0.0)

    def finish(self) -> list[Stretch]:
        """Return what the filters still hold; the next frame may lie elsewhere."""
        rest = self._resampler.finish()
        if self._stretcher:
            rest = np.concatenate([rest, np.zeros(HALF, np.float32)])
        done = self._placed(rest)
        self._stretcher, self._is_stretching = None, False
        self._mean, self._frames = 0.0, 0
        return done

    def _follow(self, apart: float, length: float) -> None:
        """Update the mean of stamp less count, and whether the sound is stretched."""
        self._frames += 1
        weight = min(max(length / _MEMORY, 1 / self._frames), 1.0)
        self._mean += (apart - self._mean) * weight
        limit = _AGREED if self._is_stretching else _DRIFT
        self._is_stretching = abs(self._mean) > limit
        if self._is_stretching:
            self._stretcher = self._stretcher or TimeStretcher(0.0)

    def _placed(self, values: Array) -> list[Stretch]:
        if self._stretcher:
            share = min(max(self._mean / _MEMORY, -_MOST), _MOST) if self._is_stretching else 0.0
            before = len(values)
            values = self._stretcher.push(values, 1.0 / (1.0 + share))
            if self._counted is not None:
                self._counted += before * share / SAMPLE_RATE
                self._mean -= before * share / SAMPLE_RATE
        if not len(values):
            return []
        start, self._next = self._next, self._next + len(values)
        return [(start, values)]
