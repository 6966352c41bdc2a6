"""What travels from the sources to the session: samples, phrases, notices.

Knows times and arrays. Knows nothing of devices, threads, sockets or models.

Time is float seconds on the session clock (0 = session start) wherever it is a float, and a count
of ticks of 20 ms wherever it is an integer. A tick k covers [k * 0.02, (k + 1) * 0.02).
"""

import math
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from tamulag.models.nn import constants
from tamulag.models.nn.constants import (
    LIMIT,
    PERIOD,
    SAMPLE_RATE,
    TICK_RATE,
    VISION_TICKS,
)

__all__ = [
    "LIMIT",
    "MODALITIES",
    "PERIOD",
    "SAMPLE_RATE",
    "TICK_RATE",
    "VISION_TICKS",
    "Array",
    "Block",
    "Input",
    "Modality",
    "Notice",
    "Phrase",
    "Sample",
    "Word",
    "tick_of",
]

Modality = Literal["text", "audio", "vision"]
MODALITIES = cast("tuple[Modality, ...]", constants.MODALITIES)

Array = npt.NDArray[np.float32]


def tick_of(time: float) -> int:
    """Return the tick that contains `time` (seconds).

    A microsecond of slack keeps a time that was made as `tick / TICK_RATE` in its own tick.
    """
    return math.floor(time * TICK_RATE + 5e-5)


@dataclass(frozen=True, slots=True)
class Sample:
    """One feature vector of the voice or the face."""

    modality: Literal["audio", "vision"]
    timestamp: float
    """When it happened: start of the audio frame, capture of the camera frame."""
    values: Array | None
    """Shape (D,), float32; None: the source looked and there was nothing to measure."""
    reason: str | None = None
    """Why `values` is None, e.g. `silence` or `no_face`."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.timestamp):
            raise ValueError(f"{self.modality} timestamp {self.timestamp} is not finite")
        if self.values is not None and (self.values.ndim != 1 or self.values.dtype != np.float32):
            raise ValueError(
                f"{self.modality} values must be float32 of shape (D,), "
                f"got {self.values.dtype} {self.values.shape}"
            )


@dataclass(frozen=True, slots=True)
class Block:
    """Feature vectors of the voice or the face that follow each other without a gap."""

    modality: Literal["audio", "vision"]
    timestamp: float
    """Of the first; the others follow each 0.02 s (audio) or 0.1 s (vision)."""
    values: Array
    """Shape (n, D), float32, n at least 1."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.timestamp):
            raise ValueError(f"{self.modality} timestamp {self.timestamp} is not finite")
        if self.values.ndim != 2 or not len(self.values) or self.values.dtype != np.float32:
            raise ValueError(
                f"{self.modality} values must be float32 of shape (n, D), n at least 1, "
                f"got {self.values.dtype} {self.values.shape}"
            )


@dataclass(frozen=True, slots=True)
class Word:
    """A recognised word; `start` and `end` are session time."""

    text: str
    start: float
    end: float
    confidence: float | None = None
    """In [0, 1]; None where the recogniser gives none."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """The committed words of one utterance, as known at `timestamp`.

    A later phrase of the same `utterance` replaces an earlier one.
    """

    timestamp: float
    """When it became available; the words themselves were spoken earlier."""
    utterance: int
    """Rising number of the utterance."""
    words: tuple[Word, ...]
    values: Array
    """Token states, shape (K, D), float32."""
    word_of_token: tuple[int, ...]
    """For each of the K tokens the index of its word in `words`."""
    final: bool
    """True: the recogniser will not change this utterance any more."""
    tail: str = ""
    """Unstable words after the committed ones, for display only; never scored."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.timestamp):
            raise ValueError(f"text timestamp {self.timestamp} is not finite")
        is_matrix = self.values.ndim == 2 and self.values.dtype == np.float32
        if not is_matrix or len(self.values) != len(self.word_of_token):
            raise ValueError(
                f"text values {self.values.dtype} of shape {self.values.shape} do not fit "
                f"{len(self.word_of_token)} tokens: expected float32 (K, D)"
            )


@dataclass(frozen=True, slots=True)
class Notice:
    """A source reports that its modality is lost, or back, or something that changes neither."""

    timestamp: float
    modality: Modality
    reason: str | None
    """`camera_lost`, `microphone_lost`, `asr_lost`, ...; None: it is back."""
    detail: str = ""
    """For people: the device and its error."""
    event: str = ""
    """Name of the event that is published, as `time_jump`; empty: that of a loss or a return."""


Input = Sample | Phrase | Notice
