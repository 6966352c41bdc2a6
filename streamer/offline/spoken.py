"""Speak written sentences and recognise them again, for training on a recogniser's mistakes.

Knows espeak-ng and a recogniser. Knows no corpus, no model and no training.
"""

import io
import shutil
import subprocess
import wave
from collections.abc import Iterator, Sequence

import numpy as np

from tamulag.models.data.clips import DataError, TextRow

from ..core.sample import SAMPLE_RATE, Array
from ..features.asr.open import open_recogniser
from ..features.asr.recogniser import Recogniser
from ..features.asr.transcript import Hypothesis
from ..features.audio_pipeline import Resampler
from .extract import Progress

SPEAKER = "espeak-ng"
VOICES = ("en-us", "en-us+f3", "en-gb", "en-gb+f4", "en-us+m7", "en-gb-scotland")
"""Each sentence has the next one, and the next of the paces."""
PACES = (150, 175, 200, 165, 185)
"""Words per minute; their number and that of the voices have no common factor."""
LONGEST = 60.0
"""Seconds that espeak-ng may take for a sentence."""
BLOCK = SAMPLE_RATE // 10
SILENCE = np.zeros(SAMPLE_RATE, np.float32)
"""Behind each sentence, so that its last word ends."""


def spoken(rows: Sequence[TextRow], progress: Progress) -> Iterator[tuple[str, float]]:
    """Yield what is recognised of each sentence, with its sentiment; nothing is no sentence.

    Args:
        rows: English sentences.
        progress: Called with the number of sentences that are done.

    Raises:
        DataError: If espeak-ng is missing or fails.
        SourceError: If the recogniser cannot be opened.
        SourceLost: If the recogniser fails.
    """
    if shutil.which(SPEAKER) is None:
        raise DataError(f"{SPEAKER} is missing, which speaks the sentences: apt install {SPEAKER}")
    recogniser = open_recogniser("moonshine", None)
    assert recogniser is not None
    recogniser.partials = False
    start = 0
    try:
        for place, row in enumerate(rows):
            sound = np.concatenate([speak(row.text, place), SILENCE])
            words = _recognised(recogniser, sound, start)
            start += len(sound)
            if words:
                yield " ".join(words), row.label
            progress(place + 1)
    finally:
        recogniser.close()


def speak(text: str, place: int) -> Array:
    """Return a sentence as sound, (n,) float32 in [-1, 1], 16 kHz mono; n is 0 without a word.

    Args:
        text: The sentence.
        place: Of the sentence among others: voice and pace change with it.

    Raises:
        DataError: If espeak-ng fails.
    """
    how = ["-v", VOICES[place % len(VOICES)], "-s", str(PACES[place % len(PACES)])]
    try:
        done = subprocess.run(
            [SPEAKER, *how, "--stdin", "--stdout"],
            input=text.encode(),
            capture_output=True,
            timeout=LONGEST,
            check=True,
        )
        if not done.stdout:
            return SILENCE[:0]
        with wave.open(io.BytesIO(done.stdout)) as file:
            rate, pcm = file.getframerate(), np.frombuffer(file.readframes(1 << 30), np.int16)
    except (OSError, subprocess.SubprocessError, wave.Error, EOFError) as error:
        raise DataError(f"{SPEAKER} does not speak {text!r}: {error}") from error
    resampler = Resampler(rate)
    return np.concatenate([resampler.push(pcm), resampler.finish()])


def _recognised(recogniser: Recogniser, sound: Array, start: int) -> list[str]:
    """Return the words of one sentence whose sound begins at a sample of the session."""
    found: list[Hypothesis] = []
    for first in range(0, len(sound), BLOCK):
        found += recogniser.accept(sound[first : first + BLOCK], start + first)
    found += recogniser.finish()
    return [word.text for one in found if one.final for word in one.words]
