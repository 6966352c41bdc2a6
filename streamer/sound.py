"""The path of sound from 16 kHz blocks to audio samples and phrases, for microphone and file alike.

Knows blocks and sample counts. Knows no device, no file and no clock.
"""

import threading
from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from .sample import Array, Modality, Phrase, Sample
from .source import Put

if TYPE_CHECKING:
    import av

SAMPLE_RATE = 16000
"""Hz, of everything behind the `Resampler`."""

BACKLOG = 5 * SAMPLE_RATE
"""Samples that may wait for a recogniser that runs in its own thread."""


class AudioExtractor(Protocol):
    """What turns sound into audio samples."""

    def push(self, block: Array, start: int, /) -> list[Sample]:
        """Take a mono 16 kHz block in [-1, 1], shape (n,), whose first sample is `start`."""


class Listener(Protocol):
    """What turns sound into phrases; it sees from `start` where sound is missing."""

    partials: bool
    """False: only finals are wanted, to save work; may be set from any thread."""

    def hear(self, block: Array, start: int, /) -> list[Phrase]:
        """Take a mono 16 kHz block in [-1, 1], shape (n,), whose first sample is `start`."""

    def finish(self) -> list[Phrase]:
        """End the current utterance; `hear` may follow."""


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


class SoundPath:
    """Push each block through the features and, if there is one, through the recogniser.

    Inline, a block's phrases are put before its audio samples, so a file gives the same inputs each
    time. In a thread of its own the recogniser may be slow without delaying the features: then
    5 s of sound may wait for it; beyond that the oldest is dropped and counted. What the
    recogniser raises there is raised again by the next `push` or `finish`.

    Args:
        features: Extractor of the audio samples.
        listener: Recogniser, or None for no text.
        threaded: Whether the recogniser gets its own thread; True for all that is live or paced.

    Attributes:
        modalities: What this path fills.
        dropped: Seconds of sound that the recogniser never got.
    """

    def __init__(
        self, features: AudioExtractor, listener: Listener | None, *, threaded: bool
    ) -> None:
        self.modalities: tuple[Modality, ...] = ("text", "audio") if listener else ("audio",)
        self.dropped = 0.0
        self._features = features
        self._listener = listener
        self._threaded = threaded
        self._hearing: _Hearing | None = None

    @property
    def waiting(self) -> float:
        """Seconds of sound that wait for the recogniser's thread."""
        return self._hearing.waiting / SAMPLE_RATE if self._hearing else 0.0

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
            put: Takes the samples and phrases.
        """
        if not len(block):
            return
        if self._listener and self._threaded:
            if self._hearing is None:
                self._hearing = _Hearing(self._listener, put)
            self.dropped += self._hearing.push(block, start) / SAMPLE_RATE
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

        Raises:
            TimeoutError: If the recogniser does not come back from the block it works on.
        """
        hearing, self._hearing = self._hearing, None
        if hearing:
            self.dropped += hearing.finish(limit) / SAMPLE_RATE
        elif self._listener:
            for phrase in self._listener.finish():
                put(phrase)


class _Hearing:
    """A recogniser in its own thread, behind a queue of 5 s that drops its oldest blocks."""

    def __init__(self, listener: Listener, put: Put) -> None:
        self._listener = listener
        self._put = put
        self._waiting: deque[tuple[Array, int]] = deque()
        self._changed = threading.Condition()
        self._is_ending = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="tamulag.asr", daemon=True)
        self._thread.start()

    def push(self, block: Array, start: int) -> int:
        """Queue a block; return how many samples were dropped for it."""
        with self._changed:
            self._check()
            self._waiting.append((block, start))
            self._changed.notify()
            return self._shorten(BACKLOG)

    @property
    def waiting(self) -> int:
        """Samples that wait, at most `BACKLOG`."""
        with self._changed:
            return sum(len(block) for block, _ in self._waiting)

    def finish(self, limit: float) -> int:
        """End the thread within `limit` seconds and a little; return the dropped samples."""
        with self._changed:
            self._is_ending = True
            self._changed.notify()
        self._thread.join(limit)
        with self._changed:
            dropped = self._shorten(0)
        self._thread.join(2.0)
        self._check()
        if self._thread.is_alive():
            raise TimeoutError("the recogniser does not answer; restart, or use --asr none")
        return dropped

    def _check(self) -> None:
        if self._failure:
            raise self._failure

    def _shorten(self, bound: int) -> int:
        length = sum(len(block) for block, _ in self._waiting)
        dropped = 0
        while length - dropped > bound:
            dropped += len(self._waiting.popleft()[0])
        return dropped

    def _next(self) -> tuple[Array, int] | None:
        with self._changed:
            while not self._waiting and not self._is_ending:
                self._changed.wait(1.0)
            return self._waiting.popleft() if self._waiting else None

    def _run(self) -> None:
        try:
            while block := self._next():
                self._hand_over(self._listener.hear(*block))
            self._hand_over(self._listener.finish())
        except BaseException as error:
            self._failure = error

    def _hand_over(self, phrases: list[Phrase]) -> None:
        for phrase in phrases:
            self._put(phrase)
