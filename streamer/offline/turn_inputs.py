"""Sentences of a video, or clips of a person, as what each brings to a session when it is said.

Knows rows of texts and of media files, the text encoder and the front end. Knows no session.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np

from tamulag.models.data.clips import MediaRow, TextRow
from tamulag.models.text.text_encoder import TextEncoder

from ..core.sample import TICK_RATE, Input, Phrase, Sample, Word
from ..core.source import SourceError, SourceLost
from ..features.asr.recogniser import Encode
from ..features.asr.transcript import MAX_WORDS
from .extract import Progress, Speech, play, stack_inputs

WORD_RATE = 2.5
"""Words per second of English speech, where only the text is known."""


@dataclass(frozen=True)
class TurnInputs:
    """What one turn brings to a session: all that one person says in one piece."""

    inputs: Sequence[Input]
    """By the time at which each is known, in seconds from the turn's begin."""
    length: float
    """Seconds."""
    label: float
    """In the range of the data set."""


def text_streams(
    rows: Sequence[TextRow], encoder: TextEncoder, step: float, progress: Progress
) -> list[list[TurnInputs]]:
    """Return the sentences of each video, in the order of their places.

    Args:
        rows: As `read_labelled` returns them; one without words is a turn in which nothing is said.
        encoder: Of the checkpoint.
        step: Seconds from one phrase to the next.
        progress: Called with the number of rows that are done.
    """
    streams = defaultdict(list)
    for done, row in enumerate(sorted(rows, key=attrgetter("place")), 1):
        words = encoder.split(row.text)
        seconds = max(len(words) / WORD_RATE, step)
        inputs = phrases(words, encoder.encode, seconds=seconds, step=step)
        streams[row.group].append(TurnInputs(inputs, seconds, row.label))
        progress(done)
    return [*streams.values()]


def media_streams(
    rows: Sequence[MediaRow],
    encoder: TextEncoder,
    step: float,
    progress: Progress,
    *,
    speech: Speech = "none",
    failed: Callable[[str], None],
) -> list[list[TurnInputs]]:
    """Return the clips of each person, in the order of the rows.

    A row's text is spread over its file; without one the words are those that are recognised.

    Args:
        rows: As `read_media` returns them.
        encoder: Of the checkpoint.
        step: Seconds from one phrase of a given text to the next.
        progress: Called with the number of rows that are done.
        speech: Recogniser of the words of a file without text.
        failed: Called with what is wrong with a file that cannot be read: of it only the text
            counts, said at `WORD_RATE`.
    """
    streams = defaultdict(list)
    for done, row in enumerate(rows, 1):
        words = encoder.split(row.text)
        inputs = _played(row.file, "none" if words else speech, encoder.encode, failed)
        length = stack_inputs(inputs).length / TICK_RATE or max(len(words) / WORD_RATE, step)
        if words:
            inputs += phrases(words, encoder.encode, seconds=length, step=step)
        inputs.sort(key=attrgetter("timestamp"))
        streams[row.group].append(TurnInputs(inputs, length, row.label))
        progress(done)
    return [*streams.values()]


def _played(
    file: Path, speech: Speech, encode: Encode, failed: Callable[[str], None]
) -> list[Input]:
    try:
        found = play(file, speech, encode)
    except (SourceError, SourceLost) as error:
        failed(str(error))
        return []
    return [item for item in found if isinstance(item, Sample | Phrase)]


def phrases(words: Sequence[str], encode: Encode, *, seconds: float, step: float) -> list[Phrase]:
    """Return a sentence whose words come evenly spread over its length, as a recogniser gives them.

    Args:
        words: Any number; more than `MAX_WORDS` are several utterances, as live.
        encode: Words -> token states (K, D) and word indices.
        seconds: Length of the sentence.
        step: Seconds from one phrase to the next; the last is final.
    """
    each = seconds / max(1, len(words))
    spoken = [Word(word, k * each, (k + 1) * each) for k, word in enumerate(words)]
    found: list[Phrase] = []

    def add(time: float, first: int, count: int, *, final: bool) -> None:
        values, index = encode([*words[first:count]])
        of, number = tuple(spoken[first:count]), first // MAX_WORDS
        found.append(Phrase(float(time), number, of, values, index, final))

    first = 0
    for time in [*np.arange(step, seconds - 1e-6, step), seconds]:
        count = len(words) if time == seconds else int(time / each + 1e-6)
        while count - first > MAX_WORDS:
            add(time, first, first + MAX_WORDS, final=True)
            first += MAX_WORDS
        if count > first:
            add(time, first, count, final=time == seconds)
    return found


def sizes(streams: Sequence[Sequence[TurnInputs]]) -> dict[str, set[int]]:
    """Return the lengths of the vectors that turns bring, per modality."""
    found: dict[str, set[int]] = defaultdict(set)
    for item in (item for turns in streams for turn in turns for item in turn.inputs):
        if isinstance(item, Phrase):
            found["text"] |= {item.values.shape[1]} if len(item.values) else set()
        elif isinstance(item, Sample) and item.values is not None:
            found[item.modality].add(len(item.values))
    return found
