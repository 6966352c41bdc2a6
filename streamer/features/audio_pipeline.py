"""Convert sound into audio samples and phrases: one path for microphone, file and remote sender.

Knows blocks and sample counts. Knows no device, no file and no clock.
"""

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from ..core.sample import SAMPLE_RATE, Array, Modality, Notice, Sample
from ..core.source import Put
from .asr.worker_thread import PhraseExtractor, RecogniserThread
from .sound_check import SoundCheck

if TYPE_CHECKING:
    import av


logger = logging.getLogger("tamulag.sound")


class AudioExtractor(Protocol):
    """Turns sound into audio samples."""

    def push(self, block: Array, start: int, /) -> list[Sample]:
        """Return the samples that a block completes.

        Args:
            block: Shape (n,), float32 mono at 16 kHz in [-1, 1].
            start: Index of its first sample on the session clock, time * 16000.
        """


class Resampler:
    """Resample blocks of any rate and channel count to 16 kHz mono; the filter's state is carried.

    Output sample k belongs to the time k / 16000 of the input. The output lags by about 2 ms, which
    `finish` flushes; the result does not depend on how the input is cut into blocks.

    Args:
        rate: Rate of the blocks, Hz.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._check = SoundCheck()
        self._has_news = False
        self._filter: av.AudioResampler | None = None
        self._form: tuple[str, str, int] | None = None

    def push(self, block: npt.NDArray[np.int16] | npt.NDArray[np.float32]) -> Array:
        """Resample the mean of the channels, or where they cancel each other the first.

        Args:
            block: Shape (n,) or (n, channels); float32 in [-1, 1] or int16.

        Returns:
            Shape (m,), float32 in [-1, 1].
        """
        sound = block.astype(np.float32) / np.float32(32768 if block.dtype == np.int16 else 1)
        channels = sound.reshape(len(sound), -1)
        self._has_news |= self._check.push(channels, self._rate)
        mono = sound if sound.ndim == 1 else self._mixed(channels)
        return mono if self._rate == SAMPLE_RATE else self._resampled(_frame(mono, self._rate))

    def push_frame(self, frame: "av.AudioFrame") -> Array:
        """Resample a decoded frame of any rate, sample format and channel layout.

        A change of any of them flushes the filter first.

        Returns:
            Shape (m,), float32 in [-1, 1].
        """
        channels = _channels(frame)
        self._has_news |= self._check.push(channels, frame.sample_rate)
        has_name = " " not in frame.layout.name or frame.layout.name in _MIXED
        if self._check.cancels or not has_name:
            # Of layouts that have no name of their own FFmpeg mixes some alone.
            frame = _frame(self._mixed(channels), frame.sample_rate)
        return self._resampled(frame)

    def remark(self, at: float) -> Notice | None:
        """Return what is wrong with the sound, or that it is good again, where that has changed.

        Args:
            at: Session time, seconds.
        """
        if not self._has_news:
            return None
        self._has_news = False
        reason, detail = self._check.fault or (None, "the sound is good again")
        if reason:
            logger.warning("%s", detail)
        return Notice(at, "audio", reason, detail, "sound_fault" if reason else "sound_good")

    def _mixed(self, channels: Array) -> Array:
        return channels[:, 0].copy() if self._check.cancels else channels.mean(1, dtype=np.float32)

    def _resampled(self, frame: "av.AudioFrame") -> Array:
        import av

        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        before = np.zeros(0, np.float32) if form == self._form else self.finish()
        if self._filter is None:
            # Without the limit a mix of equal channels would come out 1.4 times too loud.
            self._filter = av.AudioResampler(
                "flt", "mono", SAMPLE_RATE, options={"rematrix_maxval": "1.0"}
            )
            self._form = form
        frame.pts = None  # Positions are counted in samples, not taken from the frame.
        return np.concatenate([before, *map(_values, self._filter.resample(frame))])

    def finish(self) -> Array:
        """Flush the filter; the next block starts a new stretch of sound."""
        frames = [] if self._filter is None else self._filter.resample(None)
        self._filter = None
        return np.concatenate([np.zeros(0, np.float32), *map(_values, frames)])


_MIXED = ("1 channels", "2 channels")
"""Layouts without a name of their own that FFmpeg mixes as mono and stereo."""


def _channels(frame: "av.AudioFrame") -> Array:
    """Return a decoded frame as float32, shape (n, channels), in [-1, 1]."""
    values: npt.NDArray[np.number]
    if frame.format.name == "s64":  # PyAV makes no array of it
        count = frame.samples * frame.layout.nb_channels
        values = np.frombuffer(bytes(frame.planes[0]), np.int64, count)
    else:
        values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    if values.dtype.kind not in "iu":
        return values.T.astype(np.float32)
    full = 2.0 ** (8 * values.dtype.itemsize - 1)
    middle = full if values.dtype.kind == "u" else 0.0
    return ((values.T - middle) / full).astype(np.float32)


def _frame(mono: Array, rate: int) -> "av.AudioFrame":
    import av

    frame = av.AudioFrame.from_ndarray(mono[np.newaxis], format="flt", layout="mono")
    frame.sample_rate = rate
    return frame


def _values(frame: "av.AudioFrame") -> Array:
    return np.asarray(frame.to_ndarray()[0], np.float32)


class AudioPipeline:
    """Run each block through the feature extractor and, if there is one, the recogniser.

    Inline, a block's phrases are put before its audio samples, so that a file gives the same inputs
    every time; a recogniser that fails raises `SourceLost`. In its own thread the recogniser may be
    slow without delaying the features: up to 5 s of sound queue for it, then the oldest is dropped
    and counted. A failure or hang there loses only `text`, see `RecogniserThread`; any other error
    is raised by the next `push` or `finish`.

    Args:
        features: Extractor of the audio samples.
        phrases: Recogniser, or None for no text; owned from here on.
        threaded: Whether the recogniser runs in its own thread; True for anything live or paced.

    Attributes:
        modalities: What the pipeline produces.
    """

    def __init__(
        self, features: AudioExtractor, phrases: PhraseExtractor | None, *, threaded: bool
    ) -> None:
        self.modalities: tuple[Modality, ...] = ("text", "audio") if phrases else ("audio",)
        self._features = features
        self._phrases = phrases
        self._thread = RecogniserThread(phrases) if phrases and threaded else None

    @property
    def dropped(self) -> float:
        """Seconds of sound that were dropped before they reached the recogniser."""
        return self._thread.dropped / SAMPLE_RATE if self._thread else 0.0

    @property
    def waiting(self) -> float:
        """Seconds of sound queued for the recogniser's thread; 0 while it is lost."""
        return self._thread.waiting if self._thread else 0.0

    def shed(self, steps: Collection[str]) -> None:
        """Recognise only finals while `asr_partials` is shed; see `Source`."""
        if self._phrases:
            self._phrases.partials = "asr_partials" not in steps

    def push(self, block: Array, start: int, put: Put) -> None:
        """Process one block of sound.

        Args:
            block: Mono, 16 kHz, float32 in [-1, 1], shape (n,).
            start: Index of its first sample on the session clock, `round(t * 16000)`; strictly
                rising, a jump is a gap.
            put: Receives the samples, the phrases and the notices of a lost recogniser; phrases
                are put from the recogniser's thread.
        """
        if not len(block):
            return
        if self._thread:
            self._thread.push(block, start, put)
        elif self._phrases:
            for phrase in self._phrases.push(block, start):
                put(phrase)
        for sample in self._features.push(block, start):
            put(sample)

    def finish(self, put: Put, limit: float) -> None:
        """Put the last phrases of a source that ends, and end the recogniser's thread.

        Args:
            put: Receives the phrases.
            limit: Seconds granted to the sound still queued; the rest is dropped and counted.
        """
        if self._thread:
            self._thread.finish(limit)
        elif self._phrases:
            for phrase in self._phrases.finish():
                put(phrase)

    def close(self) -> None:
        """Release the recogniser; may be called twice."""
        if self._thread:
            self._thread.close()
        elif self._phrases:
            self._phrases.close()
