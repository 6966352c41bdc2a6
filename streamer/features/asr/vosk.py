"""Recognise speech with Vosk, in any language it has a model for.

Knows Vosk and the session clock. Knows no thread, no device and no committed words.
"""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from ...core.sample import SAMPLE_RATE, Array, Word
from ...core.source import SourceError, SourceLost
from ..pretrained import AssetError, is_checked
from .open import FETCH
from .recogniser import Steps
from .transcript import Hypothesis

logger = logging.getLogger("tamulag.models")

_told: set[Path] = set()
"""Folders of which the log has a line already; each session loads its own recogniser."""


class VoskRecogniser:
    """Any language with a Vosk model; its own word times and confidences.

    Vosk adds random noise (Kaldi's dither) to the sound, so two runs over the same sound may
    differ in a word.

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
        _check(folder)
        import vosk

        vosk.SetLogLevel(-1)
        try:
            self._model: Any = vosk.Model(str(folder))
        except Exception as error:  # vosk raises nothing more precise
            raise SourceError(_no_model(folder, "cannot be loaded")) from error
        self._engine_of = vosk.KaldiRecognizer
        self._engine: Any = None
        self.partials = True
        self._steps = Steps(round(update * SAMPLE_RATE))
        self._utterance = 0
        self._restart()

    def accept(self, block: Array, start: int) -> list[Hypothesis]:
        """Recognise a block; see `Recogniser`."""
        out = self.finish() if self._steps.is_torn(start) else []
        for step in self._steps.push(block, start):
            out += self._recognise(step)
        return out

    def finish(self) -> list[Hypothesis]:
        """Close the open utterance; see `Recogniser`."""
        rest = self._steps.rest()
        out = self._recognise(rest) if len(rest) else []
        out.append(self._final(self._engine.FinalResult()))
        self._restart()
        return out

    def reopen(self) -> None:
        """Start a new engine of the same model; see `Recogniser`."""
        self._utterance += 1
        try:
            self._restart()
        except Exception as error:  # vosk raises nothing more precise
            raise SourceError(f"vosk does not start: {error}; restart if it stays") from error

    def close(self) -> None:
        """Drop the model; its memory is released with the object."""
        self._engine = self._model = None

    def _restart(self) -> None:
        # Vosk counts word times from its first sample and never resets them, so each base
        # needs an engine of its own.
        self._engine = self._engine_of(self._model, SAMPLE_RATE)
        self._engine.SetWords(True)
        self._engine.SetPartialWords(True)
        self._steps.restart()
        self._partial: tuple[Word, ...] = ()

    def _recognise(self, step: Array) -> list[Hypothesis]:
        pcm = (np.clip(step, -1, 1) * 32767).astype(np.int16).tobytes()
        try:
            is_final = self._engine.AcceptWaveform(pcm)
        except Exception as error:  # vosk raises nothing more precise
            raise SourceLost("asr_lost", f"vosk stopped: {error}; restart if it stays") from error
        if is_final:
            return [self._final(self._engine.Result())]
        if not self.partials:
            return []
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


def _check(folder: Path) -> None:
    """Check a model that was fetched; of another say once that nobody knows what it is.

    Raises:
        SourceError: If a file is not what was fetched.
    """
    try:
        is_known = is_checked(folder)
    except AssetError as error:
        raise SourceError(str(error)) from error
    if not is_known and folder not in _told:
        _told.add(folder)
        logger.warning(
            "Vosk model folder %s is unchecked: no checksum of it is known; take it from its "
            "publisher alone, or by `tamulag models fetch NAME`",
            folder,
        )


def _no_model(folder: Path, fault: str) -> str:
    return f"Vosk model folder {str(folder)!r} {fault}: {FETCH}"
