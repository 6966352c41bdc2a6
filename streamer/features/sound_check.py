"""Say why sound is of no use: channels that cancel, a dead one, clipping, next to no level.

Knows samples of one stretch of sound. Knows no device; the remedy is in words.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..core.sample import Array

QUIET = -60.0
"""dBFS below which a microphone is muted, unplugged or turned down."""

_LOUD = -50.0  # dBFS from which a channel counts as sound
_CANCELLED, _DEAD = 20.0, 40.0  # dB that the mix, or another channel, is below the loudest
_SILENT = -80.0  # dBFS below which a channel beside a loud one is dead
_FULL, _CLIPPED = 0.999, 0.002  # of full scale; share of samples there
_FLOOR = 1e-12


class Fault(NamedTuple):
    """What is wrong with the sound."""

    reason: str
    """`sound_cancels`, `sound_channel_dead`, `sound_clips` or `sound_low`."""
    remedy: str


CANCELS = Fault(
    "sound_cancels",
    "the channels cancel each other, one is the other upside down, so the first is used alone: "
    "turn the polarity of one cable or channel round",
)
DEAD = Fault("sound_channel_dead", "a channel is silent beside a loud one: check its cable")
CLIPS = Fault("sound_clips", "the sound is too loud and clips: turn the microphone down")
LOW = Fault("sound_low", "there is no sound above -60 dBFS: unmute the microphone, or turn it up")

_SECONDS = {CANCELS: 2, DEAD: 2, CLIPS: 2, LOW: 10}
"""Seconds in a row after which a fault counts."""


class SoundCheck:
    """Watches sound second by second.

    Attributes:
        fault: What is wrong now; None: nothing.
        cancels: Whether the mean of the channels is next to nothing beside them, in the newest
            sound that is loud enough to tell.
    """

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.cancels = False
        self._energy: npt.NDArray[np.float64] | None = None
        self._mixed = 0.0
        self._clipped = 0
        self._count = 0
        self._rows = dict.fromkeys(_SECONDS, 0)

    def push(self, channels: Array, rate: int) -> bool:
        """Take sound; return whether `fault` has changed.

        Args:
            channels: Shape (n, channels), float32 in [-1, 1].
            rate: Hz.
        """
        if self._energy is None or len(self._energy) != channels.shape[1]:
            self._restart(channels.shape[1])
        assert self._energy is not None
        energy = np.square(channels, dtype=np.float64).sum(0)
        mixed = float(np.square(channels.mean(1, dtype=np.float64)).sum())
        if len(channels) and (loudest := float(_level(energy.max(), len(channels)))) > _LOUD:
            self.cancels = _level(mixed, len(channels)) < loudest - _CANCELLED
        self._energy += energy
        self._mixed += mixed
        self._clipped += int((np.abs(channels) >= _FULL).any(1).sum())
        self._count += len(channels)
        return self._count >= rate and self._judge()

    def _restart(self, channels: int) -> None:
        self._energy, self._mixed = np.zeros(channels), 0.0
        self._clipped = self._count = 0

    def _judge(self) -> bool:
        assert self._energy is not None
        levels, mixed = _level(self._energy, self._count), _level(self._mixed, self._count)
        loudest = float(levels.max())
        found = {
            CANCELS: loudest > _LOUD and mixed < loudest - _CANCELLED,
            DEAD: loudest > _LOUD and float(levels.min()) < min(loudest - _DEAD, _SILENT),
            CLIPS: self._clipped > _CLIPPED * self._count,
            LOW: loudest < QUIET,
        }
        self._restart(len(self._energy))
        for fault, is_there in found.items():
            self._rows[fault] = self._rows[fault] + 1 if is_there else 0
        before = self.fault
        lasting = [fault for fault, least in _SECONDS.items() if self._rows[fault] >= least]
        self.fault = lasting[0] if lasting else None
        return self.fault is not before


def _level(energy: Any, count: int) -> Any:
    """Return the dBFS of samples whose squares sum to `energy`."""
    return 10 * np.log10(energy / count + _FLOOR)
