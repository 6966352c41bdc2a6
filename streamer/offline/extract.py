"""Turn labelled material into clips, with the feature extractors of the live path.

Knows the feature extractors, media files and texts. Knows no model, no training and no feature
file.
"""

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from tamulag.models.data.clips import Clip, MediaRow, TextRow
from tamulag.models.data.text_csv import text_clips

from ..core.sample import TICK_RATE, VISION_TICKS, Array, Input, Phrase, Sample, Word, tick_of
from ..core.source import SourceError
from ..features.asr.open import open_recogniser
from ..features.asr.recogniser import Encode, PhraseRecogniser
from ..features.asr.transcript import MAX_WORDS, spread
from ..features.audio import AudioFeatures
from ..features.audio_pipeline import AudioPipeline
from ..features.vision import VisionFeatures
from ..sources.media_file import MediaSource
from .corpora import Picture

Progress = Callable[[int], None]
"""Called with the number of processed rows."""

Speech = Literal["none", "moonshine"]
"""Recogniser of the words where no text is given."""

BATCH = 256

APART = 1.0
"""Seconds between the ends of sound and picture beyond which jumped stamps are not believed."""


@dataclass(frozen=True)
class MediaFeatures:
    """Features and words of one media file."""

    values: dict[str, Array]
    """Audio and vision, (T, D) float32; rows masked in the live path are absent."""
    ticks: dict[str, npt.NDArray[np.int64]]
    """Audio and vision, (T,)."""
    utterances: tuple[tuple[Word, ...], ...] = ()
    """Recognised words."""
    length: int = 0
    """Ticks from the file's start to the end of the last sample, masked or not."""


def texts(rows: Sequence[TextRow], progress: Progress) -> list[Clip]:
    """Encode the rows of a CSV of texts as token states."""
    from tamulag.models.text.text_encoder import encoder_for

    encoder = encoder_for()
    states = []
    for first in range(0, len(rows), BATCH):
        states += encoder.encode_batch([row.text for row in rows[first : first + BATCH]])
        progress(len(states))
    return text_clips(rows, states)


def pictures(rows: Iterable[Picture], progress: Progress) -> list[Clip]:
    """Describe single pictures; one without a face is skipped."""
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


def _unencoded(_: Sequence[str]) -> tuple[Array, tuple[int, ...]]:
    return np.zeros((0, 0), np.float32), ()


def play(path: Path, speech: Speech = "none", encode: Encode = _unencoded) -> list[Input]:
    """Play a media file through the live path at full speed and return its inputs.

    Args:
        path: File with sound, picture or both.
        speech: With a recogniser there are phrases too.
        encode: Words -> token states and word indices; by default phrases have none.

    Raises:
        SourceError: If the file cannot be read, has neither sound nor picture, or has stamps by
            which its sound and pictures cannot be placed: such a clip would spoil a training.
        SourceLost: If nothing in it can be decoded.
    """
    found: list[Input] = []
    recogniser = open_recogniser(speech, None)
    listener = PhraseRecogniser(recogniser, encode) if recogniser else None
    sound = AudioPipeline(AudioFeatures(), listener, threaded=False)
    try:
        with VisionFeatures() as vision:
            source = MediaSource(str(path), sound=sound, vision=vision, now=None, speed="max")
            source.open()
            source.run(found.append, threading.Event())
            _check_places(found, source)
    finally:
        if listener:
            listener.close()
    return found


def _check_places(found: Iterable[Input], source: MediaSource) -> None:
    """Refuse inputs whose times do not rise, or whose sound and pictures cover other times."""
    ticks: dict[str, list[int]] = {}
    for item in found:
        if isinstance(item, Sample):
            ticks.setdefault(item.modality, []).append(tick_of(item.timestamp))
    for name, times in ticks.items():
        if any(after <= before for before, after in pairwise(times)):
            raise SourceError(f"{source.name} has {name} out of order: convert it with ffmpeg")
    ends = [times[-1] / TICK_RATE for times in ticks.values()]
    if source.jumps and max(ends) - min(ends) > APART:
        raise SourceError(
            f"{source.name} has stamps that jump, after which sound and picture end "
            f"{max(ends) - min(ends):.1f} s apart: convert it with ffmpeg"
        )


def stack_inputs(found: Iterable[Input]) -> MediaFeatures:
    """Stack the samples, and take the final words of each utterance."""
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
    return MediaFeatures(
        {name: np.stack([v for _, v in pairs]) for name, pairs in rows.items() if pairs},
        {name: np.array([t for t, _ in pairs], np.int64) for name, pairs in rows.items() if pairs},
        tuple(words for words in spoken.values() if words),
        length,
    )


def clip_of(row: MediaRow, part: MediaFeatures, encode: Encode, share: float = 1.0) -> Clip:
    """Return a row's clip.

    Args:
        row: Label and text; a text is spread over the file's length and replaces the recognised
            words.
        part: Features and words of the row's file.
        encode: Words -> token states and word indices; called with at most `MAX_WORDS` words of an
            utterance at a time, as in the live path.
        share: Share of the file's length to use, in (0, 1]. Only words that have ended by then are
            encoded, so that their states contain nothing of the future.
    """
    end = math.ceil(share * part.length - 1e-9)
    until = math.inf if share == 1 else end / TICK_RATE
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
    return Clip(row.label, row.group, values, ticks, corpus=row.corpus, mode=row.mode)


def _tokens(words: Sequence[Word], encode: Encode) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return token states (K, D) and the tick (K,) at which each token's word starts."""
    states, word_of_token = encode([word.text for word in words])
    starts = [tick_of(words[index].start) for index in word_of_token]
    return states, np.array(starts, np.int64)
