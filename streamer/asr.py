"""Recognise speech: blocks of sound in, phrases of committed words out.

Knows Vosk, Moonshine and the session clock. Knows no thread, no device and no sentiment; the
caller runs it where a step of recognition may block for some tenths of a second.
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from .sample import Array, Phrase, Word
from .source import Now, SourceError, SourceLost
from .transcript import Committed, Hypothesis, Transcript, spread

SAMPLE_RATE = 16000
MAX_GAP = 5.0
"""Seconds of missing sound that are filled with silence; after more the recogniser starts anew."""

RENEW = 60.0
"""Seconds after which Moonshine gets a new stream, for a stream keeps all its sound in memory."""

LONG = 5.0
"""Seconds of an open line after which Moonshine, which recognises the whole line at every step,
does so at every second step only; after twice as many at every third, and so on."""

Encode = Callable[[Sequence[str]], tuple[Array, tuple[int, ...]]]
"""Words -> token states (K, D) and for each token the index of its word; K <= 64."""

Engine = Literal["auto", "vosk", "moonshine", "none"]


class Recogniser(Protocol):
    """Turns sound into hypotheses, one utterance after the other, each closed by a final."""

    def accept(self, block: Array, start: int) -> list[Hypothesis]:
        """Hear a block.

        Args:
            block: Shape (n,), float32 in [-1, 1], 16 kHz mono.
            start: Place of its first sample, counted at 16 kHz from session time 0. Missing
                samples are heard as silence; samples before the end of the last block are
                skipped; after more than `MAX_GAP` seconds the open utterance is closed first.

        Raises:
            SourceLost: If the engine fails (`asr_lost`).
        """

    def finish(self) -> list[Hypothesis]:
        """Close the open utterance; a later block begins anew.

        Raises:
            SourceLost: If the engine fails (`asr_lost`).
        """

    def close(self) -> None:
        """Free the engine; may be called twice."""


class _Steps:
    """Cuts blocks, gaps filled with zeros, into equal steps, whatever the size of the blocks."""

    def __init__(self, length: int) -> None:
        self._length = length
        self.restart()

    def restart(self) -> None:
        self.base = 0
        """Place of the first sample heard."""
        self._end: int | None = None
        self._rest = np.zeros(0, np.float32)

    def is_torn(self, start: int) -> bool:
        """Return True if more than `MAX_GAP` seconds are missing before `start`."""
        return self._end is not None and start - self._end > MAX_GAP * SAMPLE_RATE

    def push(self, block: Array, start: int) -> list[Array]:
        if self._end is None:
            self.base = self._end = start
        missing = start - self._end
        fresh = block[-missing:] if missing < 0 else block
        sound = np.concatenate((self._rest, np.zeros(max(missing, 0), np.float32), fresh))
        self._end += max(missing, 0) + len(fresh)
        whole = len(sound) - len(sound) % self._length
        self._rest = sound[whole:]
        return [sound[i : i + self._length] for i in range(0, whole, self._length)]

    def rest(self) -> Array:
        """Return what does not fill a step."""
        return self._rest


class VoskRecogniser:
    """Any language Vosk has a model for; its own word times and confidences.

    Args:
        model: Folder of an unpacked model.
        update: Seconds of sound per step.

    Raises:
        SourceError: If the folder holds no model that Vosk can load.
    """

    def __init__(self, model: str | Path, *, update: float = 0.3) -> None:
        folder = Path(model)
        if not any((folder / name).is_file() for name in ("am/final.mdl", "final.mdl")):
            raise SourceError(_no_model(folder, "has no am/final.mdl"))
        import vosk

        vosk.SetLogLevel(-1)
        try:
            self._model = vosk.Model(str(folder))
        except Exception as error:  # vosk raises nothing more precise
            raise SourceError(_no_model(folder, "cannot be loaded")) from error
        self._engine_of = vosk.KaldiRecognizer
        self._steps = _Steps(round(update * SAMPLE_RATE))
        self._utterance = 0
        self._restart()

    def accept(self, block: Array, start: int) -> list[Hypothesis]:
        """Hear a block; see `Recogniser`."""
        out = self.finish() if self._steps.is_torn(start) else []
        for step in self._steps.push(block, start):
            out += self._hear(step)
        return out

    def finish(self) -> list[Hypothesis]:
        """Close the open utterance; see `Recogniser`."""
        rest = self._steps.rest()
        out = self._hear(rest) if len(rest) else []
        out.append(self._final(self._engine.FinalResult()))
        self._restart()
        return out

    def close(self) -> None:
        """Drop the model; its memory is freed with the object."""
        self._engine = self._model = None

    def _restart(self) -> None:
        # Vosk counts word times from its first sample and never resets them, so each base
        # needs an engine of its own.
        self._engine: Any = self._engine_of(self._model, SAMPLE_RATE)
        self._engine.SetWords(True)
        self._engine.SetPartialWords(True)
        self._steps.restart()
        self._partial: tuple[Word, ...] = ()

    def _hear(self, step: Array) -> list[Hypothesis]:
        pcm = (np.clip(step, -1, 1) * 32767).astype(np.int16).tobytes()
        try:
            is_final = self._engine.AcceptWaveform(pcm)
        except Exception as error:  # vosk raises nothing more precise
            raise SourceLost("asr_lost", f"vosk stopped: {error}; restart the session") from error
        if is_final:
            return [self._final(self._engine.Result())]
        words = self._words(self._engine.PartialResult(), "partial_result")
        # The decoder moves in larger chunks than our steps; a repeated answer confirms nothing.
        if words == self._partial:
            return []
        self._partial = words
        return [Hypothesis(self._utterance, words, final=False)]

    def _final(self, answer: str) -> Hypothesis:
        self._utterance += 1
        self._partial = ()
        return Hypothesis(self._utterance - 1, self._words(answer, "result"), final=True)

    def _words(self, answer: str, key: str) -> tuple[Word, ...]:
        base = self._steps.base / SAMPLE_RATE
        return tuple(
            Word(word["word"], base + word["start"], base + word["end"], word["conf"])
            for word in json.loads(answer).get(key, [])
        )


class MoonshineRecogniser:
    """English, by the weights inside moonshine-voice 0.1.0; word times are spread over the line.

    Args:
        update: Seconds of sound per step; each step of open speech costs one recognition.

    Raises:
        SourceError: If the package or its weights are missing or cannot be loaded.
    """

    def __init__(self, *, update: float = 0.3) -> None:
        remedy = "run `pip install moonshine-voice==0.1.0`, or choose vosk or none"
        try:
            import moonshine_voice as moonshine
        except ImportError as error:
            raise SourceError(f"moonshine_voice cannot be imported: {error}; {remedy}") from error
        folder = Path(moonshine.__file__).parent / "assets" / "tiny-en"
        self._failure = moonshine.MoonshineError
        try:
            # Only the package's transcriber: its microphone module needs PortAudio.
            self._transcriber = moonshine.Transcriber(
                folder,
                model_arch=moonshine.ModelArch.TINY,
                options={"return_audio_data": "false", "transcription_interval": update},
            )
        except self._failure as error:
            raise SourceError(f"no Moonshine weights in {folder}: {error}; {remedy}") from error
        self._steps = _Steps(round(update * SAMPLE_RATE))
        self._stream: Any = None
        self._utterance = 0

    def accept(self, block: Array, start: int) -> list[Hypothesis]:
        """Hear a block; see `Recogniser`."""
        out = self.finish() if self._steps.is_torn(start) else []
        try:
            for step in self._steps.push(block, start):
                out += self._hear(step)
        except self._failure as error:
            raise SourceLost("asr_lost", f"moonshine: {error}; restart the session") from error
        return out

    def finish(self) -> list[Hypothesis]:
        """Close the open utterance; see `Recogniser`."""
        rest = self._steps.rest()
        self._steps.restart()
        if self._stream is None:
            return []
        self._stream.add_audio(rest.tolist(), SAMPLE_RATE)
        transcript = self._stream.stop()
        if transcript is None:
            raise SourceLost("asr_lost", "moonshine failed at the end; restart the session")
        out = self._hypotheses(transcript.lines, last=True)
        self._end()
        return out

    def close(self) -> None:
        """Free the stream and the weights."""
        self._end()
        self._transcriber.close()

    def _begin(self, base: int) -> None:
        self._stream = self._transcriber.create_stream(update_interval=math.inf)
        self._stream.start()
        self._base = base
        self._heard = self._skipped = self._done = 0
        self._length = 0.0

    def _end(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
            self._utterance += self._done

    def _hear(self, step: Array) -> list[Hypothesis]:
        if self._stream is None:
            self._begin(self._steps.base)
        self._stream.add_audio(step.tolist(), SAMPLE_RATE)
        self._heard += len(step)
        if self._skipped < self._length // LONG:
            self._skipped += 1
            return []
        self._skipped = 0
        out = self._hypotheses(self._stream.update_transcription().lines)
        if self._length == 0 and self._heard > RENEW * SAMPLE_RATE:
            # The new stream hears the last step again, lest it miss the onset of a word.
            base = self._base + self._heard - len(step)
            self._end()
            self._begin(base)
            self._stream.add_audio(step.tolist(), SAMPLE_RATE)
            self._heard = len(step)
        return out

    def _hypotheses(self, lines: list[Any], *, last: bool = False) -> list[Hypothesis]:
        out: list[Hypothesis] = []
        self._length = 0.0
        for line in lines[self._done :]:
            final = line.is_complete or last
            if line.is_updated or final:
                begin = self._base / SAMPLE_RATE + line.start_time
                words = spread(line.text, begin, line.duration)
                out.append(Hypothesis(self._utterance + self._done, words, final))
            if final:
                self._done += 1
            else:
                self._length = line.duration
        return out


class Listener:
    """Sound in, phrases out: a recogniser, the transcript of its words and a text encoder.

    Args:
        recogniser: Owned by the listener from here on.
        encode: Words -> token states and word indices, K <= 64.
        now: Live: the session clock, so that a phrase is stamped when it really became available.
            None: it is stamped with the end of the block that brought it, in stream time, so that
            a replay gives the same numbers.
    """

    def __init__(self, recogniser: Recogniser, encode: Encode, *, now: Now | None = None) -> None:
        self._recogniser = recogniser
        self._encode = encode
        self._now = now
        self._transcript = Transcript()
        self._end = 0
        self._words: tuple[str, ...] = ()
        self._encoded = encode(())

    def hear(self, block: Array, start: int) -> list[Phrase]:
        """Return the phrases that a block completes or changes; see `Recogniser.accept`.

        Args:
            block: Shape (n,), float32 in [-1, 1], 16 kHz mono.
            start: Place of its first sample, counted at 16 kHz from session time 0.

        Raises:
            SourceLost: If the engine fails (`asr_lost`).
        """
        self._end = start + len(block)
        return self._phrases(self._recogniser.accept(block, start))

    def finish(self) -> list[Phrase]:
        """Return the last phrases, all final; a later block begins anew.

        Raises:
            SourceLost: If the engine fails (`asr_lost`).
        """
        return self._phrases(self._recogniser.finish())

    def close(self) -> None:
        """Free the recogniser; may be called twice."""
        self._recogniser.close()

    def _phrases(self, hypotheses: list[Hypothesis]) -> list[Phrase]:
        return [
            self._phrase(committed)
            for hypothesis in hypotheses
            for committed in self._transcript.update(hypothesis)
        ]

    def _phrase(self, committed: Committed) -> Phrase:
        words = tuple(word.text for word in committed.words)
        # Often only the tail or the finality has changed.
        if words != self._words:
            self._words, self._encoded = words, self._encode(words)
        values, word_of_token = self._encoded
        return Phrase(
            timestamp=self._end / SAMPLE_RATE if self._now is None else self._now(),
            utterance=committed.utterance,
            words=committed.words,
            values=values,
            word_of_token=word_of_token,
            final=committed.final,
            tail=committed.tail,
        )


def open_recogniser(engine: Engine, model: str | None) -> Recogniser | None:
    """Load a recogniser.

    Args:
        engine: `auto` is vosk if a model is given, else moonshine; `none` recognises nothing.
        model: Folder of a Vosk model; used by vosk and auto only.

    Raises:
        SourceError: If vosk has no model, or a package or model cannot be loaded.
    """
    if engine == "none":
        return None
    if engine == "moonshine" or (engine == "auto" and model is None):
        return MoonshineRecogniser()
    if model is None:
        raise SourceError(
            "asr vosk needs the folder of a model: `tamulag models` lists what is there, "
            "`tamulag models fetch NAME` fetches one"
        )
    return VoskRecogniser(model)


def _no_model(folder: Path, fault: str) -> str:
    return (
        f"Vosk model folder {str(folder)!r} {fault}: `tamulag models` lists what is there, "
        "`tamulag models fetch NAME` fetches one"
    )
