"""Resample sound by a ratio near 1, continuously.

Knows samples. Knows no clock: the caller gives the ratio.
"""

import numpy as np
import numpy.typing as npt

from ..core.sample import Array

HALF = 16
"""Samples on each side of a place that its value is computed from; also the lag of the output."""

_PHASES = 512


def _filters() -> Array:
    """Return windowed sinc filters for each 1/512 between two samples, shape (513, 32)."""
    places = np.linspace(0, 1, _PHASES + 1)[:, np.newaxis]
    away = np.arange(1 - HALF, HALF + 1) - places
    taper = np.where(np.abs(away) < HALF, np.cos(np.pi * away / (2 * HALF)) ** 2, 0.0)
    filters = np.sinc(away) * taper
    return np.asarray(filters / filters.sum(1, keepdims=True), np.float32)


_FILTERS = _filters()


class TimeStretcher:
    """Interpolates sound at evenly spaced places; independent of how it is cut into blocks.

    Args:
        first: Index of the first sample that will be pushed.

    Attributes:
        position: Place, counted in input samples, of the output's next sample.
    """

    def __init__(self, first: float) -> None:
        self.position = first
        self._held = np.zeros(HALF - 1, np.float32)
        self._at = float(HALF - 1)

    def push(self, block: Array, step: float) -> Array:
        """Return the output that the block completes.

        Args:
            block: Shape (n,), float32.
            step: Input samples per output sample, near 1.

        Returns:
            Shape (m,), float32.
        """
        sound = np.concatenate([self._held, block])
        count = max(int(np.ceil((len(sound) - HALF - self._at) / step)), 0)
        places = np.asarray(self._at + step * np.arange(count), np.float64)
        out = _values(sound, places) if count else np.zeros(0, np.float32)
        self._at += step * count
        self.position += step * count
        used = int(self._at) - HALF + 1
        self._held = sound[used:]
        self._at -= used
        return out


def _values(sound: Array, places: npt.NDArray[np.float64]) -> Array:
    base = places.astype(np.int64)
    phase = np.rint((places - base) * _PHASES).astype(np.int64)
    near = np.lib.stride_tricks.sliding_window_view(sound, 2 * HALF)[base - HALF + 1]
    return np.asarray(np.einsum("nt,nt->n", near, _FILTERS[phase]), np.float32)
