"""The path of sound from 16 kHz blocks to audio samples and phrases, for microphone and file alike.

Knows blocks and sample counts. Knows no device, no file and no clock.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from ..core.sample import Array, Modality, Sample
from ..core.source import Put
from .asr.worker_thread import Listener, RecogniserThread

if TYPE_CHECKING:
    import av

SAMPLE_RATE = 16000
"""Hz, of everything behind the `Resampler`."""


class AudioExtractor(Protocol):
    """What turns sound into audio samples."""

    def push(self, block: Array, start: int, /) -> list[Sample]:
        """Take a mono 16 kHz block in [-1, 1], shape (n,), whose first sample is `start`."""


class Resampler:
    """Turn blocks of any rate and channel count into 16 kHz mono, with the filter's state carried.

    Sample k of all output stands for the time k / 16000 of the input. The output lags by some
    2 ms that `finish` gives out; how the input is cut into blocks does not change it.

    Args:
        rate: Rate of the blocks, Hz.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._filter: av.AudioResampler | None = None
        self._form: tuple[str, str, int] | None = None

    def push(self, block: npt.NDArray[np.int16] | npt.NDArray[np.float32]) -> Array:
        """Resample the mean of the channels.

        Args:
            block: Shape (n,) or (n, channels); float32 in [-1, 1] or int16.

        Returns:
            Shape (m,), float32 in [-1, 1].
        """
        import av

        mono = block.astype(np.float32) if block.ndim == 1 else block.mean(1, dtype=np.float32)
        if block.dtype == np.int16:
            mono /= 32768
        if self._rate == SAMPLE_RATE:
            return mono
        frame = av.AudioFrame.from_ndarray(mono[np.newaxis], format="flt", layout="mono")
        frame.sample_rate = self._rate
        return self.push_frame(frame)

    def push_frame(self, frame: "av.AudioFrame") -> Array:
        """Resample a decoded frame; the frame itself tells rate, format and channels."""
        import av

        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        before = np.zeros(0, np.float32) if form == self._form else self.finish()
        if self._filter is None:
            # Without the limit a mix of equal channels would come out 1.4 times too loud.
            self._filter = av.AudioResampler(
                "flt", "mono", SAMPLE_RATE, options={"rematrix_maxval": "1.0"}
            )
            self._form = form
        frame.pts = None  # Sound is counted, not stamped.
        return np.concatenate([before, *map(_values, self._filter.resample(frame))])

    def finish(self) -> Array:
        """Return what the filter still held; the next block starts a new stretch of sound."""
        frames = [] if self._filter is None else self._filter.resample(None)
        self._filter = None
        return np.concatenate([np.zeros(0, np.float32), *map(_values, frames)])


def _values(frame: "av.AudioFrame") -> Array:
    return np.asarray(frame.to_ndarray()[0], np.float32)


class AudioPipeline:
    """Push each block through the features and, if there is one, through the recogniser.

    Inline, a block's phrases are put before its audio samples, so a file gives the same inputs each
    time; a recogniser that fails then raises `SourceLost`. In a thread of its own it may be slow
    without delaying the features: then 5 s of sound may wait for it; beyond that the oldest is
    dropped and counted. One that fails or hangs there takes only `text` with it, see `Hearing`;
    any other error is raised again by the next `push` or `finish`.

    Args:
        features: Extractor of the audio samples.
        listener: Recogniser, or None for no text.
        threaded: Whether the recogniser gets its own thread; True for all that is live or paced.

    Attributes:
        modalities: What this path fills.
    """

    def __init__(
        self, features: AudioExtractor, listener: Listener | None, *, threaded: bool
    ) -> None:
        self.modalities: tuple[Modality, ...] = ("text", "audio") if listener else ("audio",)
        self._features = features
        self._listener = listener
        self._hearing = RecogniserThread(listener) if listener and threaded else None

    @property
    def dropped(self) -> float:
        """Seconds of sound that the recogniser never got."""
        return self._hearing.dropped / SAMPLE_RATE if self._hearing else 0.0

    @property
    def waiting(self) -> float:
        """Seconds of sound that wait for the recogniser's thread; 0 while it is lost."""
        return self._hearing.waiting if self._hearing else 0.0

    def relieve(self, steps: Collection[str]) -> None:
        """Recognise finals only while `asr_partials` is given up; see `Source`."""
        if self._listener:
            self._listener.partials = "asr_partials" not in steps

    def push(self, block: Array, start: int, put: Put) -> None:
        """Take sound of the session.

        Args:
            block: Mono, 16 kHz, float32 in [-1, 1], shape (n,).
            start: Index of its first sample on the session clock, `round(t * 16000)`; it rises
                strictly, and a jump is a gap.
            put: Takes the samples, the phrases and the notices of a lost recogniser; the phrases
                from its thread.
        """
        if not len(block):
            return
        if self._hearing:
            self._hearing.push(block, start, put)
        elif self._listener:
            for phrase in self._listener.hear(block, start):
                put(phrase)
        for sample in self._features.push(block, start):
            put(sample)

    def finish(self, put: Put, limit: float) -> None:
        """Put the last phrases of a source that ends; the recogniser's thread ends with it.

        Args:
            put: Takes the phrases.
            limit: Seconds for the sound that still waits; then it is dropped and counted.
        """
        if self._hearing:
            self._hearing.finish(limit)
        elif self._listener:
            for phrase in self._listener.finish():
                put(phrase)

    def close(self) -> None:
        """Free the recogniser; may be called twice."""
        if self._hearing:
            self._hearing.close()
        elif self._listener:
            self._listener.close()
