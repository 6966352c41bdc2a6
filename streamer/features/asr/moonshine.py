"""Recognise English speech with the weights that moonshine-voice 0.1.0 carries.

Knows Moonshine and the session clock. Knows no thread, no device and no committed words.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...core.sample import SAMPLE_RATE, Array
from ...core.source import SourceError, SourceLost
from ..pretrained import AssetError, locate
from .recogniser import Steps
from .transcript import Hypothesis, spread

RENEW = 60.0
"""Seconds after which Moonshine gets a new stream: a stream stores all its sound in memory."""

SPARE = 3
"""Steps that are skipped between two recognitions while only finals are wanted."""

LONG = 5.0
"""Seconds of an open line from which Moonshine, which recognises the whole line at every step, does
so at every second step only; from twice as many at every third, and so on."""


class MoonshineRecogniser:
    """English, with the weights inside moonshine-voice 0.1.0; word times are interpolated.

    Args:
        update: Seconds of sound per step; each step of open speech costs one recognition.

    Raises:
        SourceError: If the package or its weights are missing or cannot be loaded.
    """

    def __init__(self, *, update: float = 0.3) -> None:
        self.partials = True
        self._update = update
        self._steps = Steps(round(update * SAMPLE_RATE))
        self._stream: Any = None
        self._utterance = 0
        self._load()

    def _load(self) -> None:
        remedy = "run `pip install moonshine-voice==0.1.0`, or choose vosk or none"
        try:
            import moonshine_voice as moonshine
        except ImportError as error:
            raise SourceError(f"moonshine_voice cannot be imported: {error}; {remedy}") from error
        try:
            folder = locate("moonshine-tiny-en")
        except AssetError as error:
            raise SourceError(f"no Moonshine weights: {error}") from error
        self._failure = moonshine.MoonshineError
        # Its other threads only wait, busily, for work that is too small to share: two thirds of
        # the recogniser's processor time, and no answer comes sooner.
        os.environ.setdefault("MOONSHINE_ORT_SINGLE_THREAD", "1")
        try:
            # Only the package's transcriber: its microphone module needs PortAudio.
            self._transcriber = moonshine.Transcriber(
                folder,
                model_arch=moonshine.ModelArch.TINY,
                options={"return_audio_data": "false", "transcription_interval": self._update},
            )
        except self._failure as error:
            raise SourceError(f"no Moonshine weights in {folder}: {error}; {remedy}") from error

    def accept(self, block: Array, start: int) -> list[Hypothesis]:
        """Recognise a block; see `Recogniser`."""
        out = self.finish() if self._steps.is_torn(start) else []
        with self._loss():
            for step in self._steps.push(block, start):
                out += self._recognise(step)
        return out

    def finish(self) -> list[Hypothesis]:
        """Close the open utterance; see `Recogniser`."""
        rest = self._steps.rest()
        self._steps.restart()
        if self._stream is None:
            return []
        with self._loss():
            # Moonshine refuses an empty block.
            if len(rest):
                self._stream.add_audio(rest.tolist(), SAMPLE_RATE)
            if self._skipped:
                # `stop` fails where a line has ended that was never transcribed.
                self._stream.update_transcription()
            transcript = self._stream.stop()
        if transcript is None:
            raise SourceLost("asr_lost", "moonshine failed at the end; restart if it stays")
        out = self._hypotheses(transcript.lines, last=True)
        self._end()
        return out

    def reopen(self) -> None:
        """Reload the weights; see `Recogniser`."""
        self.close()
        self._utterance += 1
        self._steps.restart()
        self._load()

    def close(self) -> None:
        """Release the stream and the weights."""
        self._end()
        self._transcriber.close()

    @contextmanager
    def _loss(self) -> Iterator[None]:
        try:
            yield
        except self._failure as error:
            raise SourceLost("asr_lost", f"moonshine: {error}; restart if it stays") from error

    def _begin(self, base: int) -> None:
        self._stream = self._transcriber.create_stream(update_interval=math.inf)
        self._stream.start()
        self._base = base
        self._added = self._skipped = self._done = 0
        self._length = 0.0

    def _end(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
            self._utterance += self._done

    def _recognise(self, step: Array) -> list[Hypothesis]:
        if self._stream is None:
            self._begin(self._steps.base)
        self._stream.add_audio(step.tolist(), SAMPLE_RATE)
        self._added += len(step)
        if self._skipped < self._length // LONG + (0 if self.partials else SPARE):
            self._skipped += 1
            return []
        self._skipped = 0
        out = self._hypotheses(self._stream.update_transcription().lines)
        if self._length == 0 and self._added > RENEW * SAMPLE_RATE:
            # Repeat the last step in the new stream, so that the onset of a word is not missed.
            base = self._base + self._added - len(step)
            self._end()
            self._begin(base)
            self._stream.add_audio(step.tolist(), SAMPLE_RATE)
            self._added = len(step)
        return out

    def _hypotheses(self, lines: list[Any], *, last: bool = False) -> list[Hypothesis]:
        out: list[Hypothesis] = []
        self._length = 0.0
        for line in lines[self._done :]:
            final = line.is_complete or last
            if final or (line.is_updated and self.partials):
                begin = self._base / SAMPLE_RATE + line.start_time
                words = spread(line.text, begin, line.duration)
                out.append(Hypothesis(self._utterance + self._done, words, final))
            if final:
                self._done += 1
            else:
                self._length = line.duration
        return out
