"""Material with labels becomes clips, through the front end that runs live.

Knows the feature extractors, media files and texts. Knows no model, no training and no feature
file.
"""

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from tamulag.models.data.clips import Clip, MediaRow, TextRow, text_clips
from tamulag.models.text.text_encoder import encoder_for

from ..core.sample import TICK_RATE, VISION_TICKS, Array, Input, Phrase, Sample, Word, tick_of
from ..features.asr.open import open_recogniser
from ..features.asr.recogniser import Encode, PhraseRecogniser
from ..features.asr.transcript import MAX_WORDS, spread
from ..features.audio import AudioFeatures
from ..features.audio_pipeline import AudioPipeline
from ..features.vision import VisionFeatures
from ..sources.media_file import MediaSource
from .corpora import Picture

Progress = Callable[[int], None]
"""Called with the number of rows that are done."""

Speech = Literal["none", "moonshine"]
"""Who recognises words where no text is given."""

BATCH = 256


@dataclass(frozen=True)
class Part:
    """What the front end found in one media file."""

    values: dict[str, Array]
    """Audio and vision, (T, D) float32; what was masked live is left out."""
    ticks: dict[str, npt.NDArray[np.int64]]
    """Audio and vision, (T,)."""
    utterances: tuple[tuple[Word, ...], ...] = ()
    """Recognised words."""
    length: int = 0
    """Ticks from the file's start to the end of what was looked at, masked or not."""


def texts(rows: Sequence[TextRow], progress: Progress) -> list[Clip]:
    """Encode the rows of a CSV of texts as token states."""
    encoder = encoder_for()
    states = []
    for first in range(0, len(rows), BATCH):
        states += encoder.encode_batch([row.text for row in rows[first : first + BATCH]])
        progress(len(states))
    return text_clips(rows, states)


def pictures(rows: Iterable[Picture], progress: Progress) -> list[Clip]:
    """Describe single pictures; one without a face is left out."""
    clips = []
    with VisionFeatures(still=True) as vision:
        for done, row in enumerate(rows, 1):
            values = vision.push(row.image, done / 10).values
            if values is not None:
                ticks = np.zeros(1, np.int64)
                clips.append(
                    Clip(row.label, row.group, {"vision": values[None]}, {"vision": ticks})
                )
            progress(done)
    return clips


def play(path: Path, speech: Speech = "none") -> list[Input]:
    """Play a media file through the live path at full speed and return what it gives.

    Args:
        path: File with sound, picture or both.
        speech: With a recogniser there are phrases too; their words are not encoded here.

    Raises:
        SourceError: If the file cannot be read, or has neither sound nor picture.
        SourceLost: If nothing of it can be decoded.
    """
    found: list[Input] = []
    recogniser = open_recogniser(speech, None)
    listener = PhraseRecogniser(recogniser, _unencoded) if recogniser else None
    sound = AudioPipeline(AudioFeatures(), listener, threaded=False)
    try:
        with VisionFeatures() as vision:
            source = MediaSource(str(path), sound=sound, vision=vision, now=None, speed="max")
            source.open()
            source.run(found.append, threading.Event())
    finally:
        if listener:
            listener.close()
    return found


def _unencoded(_: Sequence[str]) -> tuple[Array, tuple[int, ...]]:
    return np.zeros((0, 0), np.float32), ()


def part_of(found: Iterable[Input]) -> Part:
    """Stack what was measured and keep the last words of each utterance."""
    rows: dict[str, list[tuple[int, Array]]] = {"audio": [], "vision": []}
    spoken: dict[int, tuple[Word, ...]] = {}
    length = 0
    for item in found:
        if isinstance(item, Phrase):
            spoken[item.utterance] = item.words
        elif isinstance(item, Sample):
            tick = tick_of(item.timestamp)
            length = max(length, tick + (VISION_TICKS if item.modality == "vision" else 1))
            if item.values is not None:
                rows[item.modality].append((tick, item.values))
    return Part(
        {name: np.stack([v for _, v in pairs]) for name, pairs in rows.items() if pairs},
        {name: np.array([t for t, _ in pairs], np.int64) for name, pairs in rows.items() if pairs},
        tuple(words for words in spoken.values() if words),
        length,
    )


def joined(row: MediaRow, part: Part, encode: Encode, heard: float = 1.0) -> Clip:
    """Return a row's clip of everything that is known of it.

    Args:
        row: Its text, if it has one, is spread over the file's length and wins over the words
            that were recognised.
        part: Of the row's file.
        encode: Words -> token states and word indices; gets an utterance of at most `MAX_WORDS`
            words at a time, as live.
        heard: Share of the file's length that has been heard, in (0, 1]. Of the words only those
            that have ended by then are encoded, so that nothing of the future is in their states.
    """
    end = math.ceil(heard * part.length - 1e-9)
    until = math.inf if heard == 1 else end / TICK_RATE
    spoken = part.utterances
    if row.text.split():
        spoken = (spread(row.text, 0.0, part.length / TICK_RATE),)
    values, ticks = {}, {}
    for name, time in part.ticks.items():
        count = int((time < end).sum())
        if count:
            values[name], ticks[name] = part.values[name][:count], time[:count]
    sentences = [
        tuple(word for word in words[first : first + MAX_WORDS] if word.end <= until)
        for words in spoken
        for first in range(0, len(words), MAX_WORDS)
    ]
    text = [_tokens(words, encode) for words in sentences if words]
    if text and sum(len(states) for states, _ in text):
        values["text"] = np.concatenate([states for states, _ in text])
        ticks["text"] = np.concatenate([time for _, time in text])
    return Clip(row.label, row.group, values, ticks)


def _tokens(words: Sequence[Word], encode: Encode) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return token states (K, D) and the tick (K,) at which the word of each began."""
    states, word_of_token = encode([word.text for word in words])
    starts = [tick_of(words[index].start) for index in word_of_token]
    return states, np.array(starts, np.int64)
