"""Recognise speech: blocks of sound in, phrases of committed words out.

Knows the protocol of every recogniser. Knows no engine, no thread, no device and no sentiment; the
caller runs it where one recognition may block for some tenths of a second.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from ...core.sample import SAMPLE_RATE, Array, Phrase
from ...core.source import Now
from .transcript import Committed, Hypothesis, Transcript

MAX_GAP = 5.0
"""Seconds of missing sound that are filled with silence; a longer gap restarts the recogniser."""

Encode = Callable[[Sequence[str]], tuple[Array, tuple[int, ...]]]
"""Words -> token states (K, D) and for each token the index of its word; K <= 64."""


class Recogniser(Protocol):
    """Turns sound into hypotheses, one utterance after the other, each ended by a final."""

    partials: bool
    """False: only finals are wanted, and work that serves partials alone is skipped."""

    def accept(self, block: Array, start: int) -> list[Hypothesis]:
        """Recognise a block.

        Args:
            block: Shape (n,), float32 in [-1, 1], 16 kHz mono.
            start: Index of its first sample at 16 kHz, counted from session time 0. Missing samples
                are replaced by silence; samples before the end of the last block are skipped; after
                a gap of more than `MAX_GAP` seconds the open utterance is closed first.

        Raises:
            SourceLost: If the engine fails (`asr_lost`).
        """

    def finish(self) -> list[Hypothesis]:
        """Close the open utterance; a later block starts a new one.

        Raises:
            SourceLost: If the engine fails (`asr_lost`).
        """

    def reopen(self) -> None:
        """Rebuild the engine after a loss; what follows belongs to a new utterance.

        Raises:
            SourceError: If it cannot be built now.
        """

    def close(self) -> None:
        """Release the engine; may be called twice."""


class Steps:
    """Cuts blocks into steps of equal length, gaps filled with zeros.

    Args:
        length: Samples per step.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self.restart()

    def restart(self) -> None:
        """Discard what was pushed; the next block sets a new base."""
        self.base = 0
        """Index of the first sample received."""
        self._end: int | None = None
        self._rest = np.zeros(0, np.float32)

    def is_torn(self, start: int) -> bool:
        """Return whether more than `MAX_GAP` seconds are missing before `start`."""
        return self._end is not None and start - self._end > MAX_GAP * SAMPLE_RATE

    def push(self, block: Array, start: int) -> list[Array]:
        """Return the steps that a block starting at sample `start` completes."""
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
        """Return the samples that do not fill a step yet."""
        return self._rest


class PhraseRecogniser:
    """Turns sound into phrases: a recogniser, the transcript of its words and a text encoder.

    Args:
        recogniser: Owned by this object from here on.
        encode: Words -> token states and word indices, K <= 64.
        now: Session clock for live runs: a phrase is stamped with the time it became available.
            None: with the end of the block that produced it, in stream time, so that a replay gives
            the same numbers.
    """

    def __init__(self, recogniser: Recogniser, encode: Encode, *, now: Now | None = None) -> None:
        self._recogniser = recogniser
        self._encode = encode
        self._now = now
        self._transcript = Transcript()
        self._end = 0
        self._words: tuple[str, ...] = ()
        self._encoded = encode(())

    def push(self, block: Array, start: int) -> list[Phrase]:
        """Return the phrases that a block completes or changes; see `Recogniser.accept`.

        Args:
            block: Shape (n,), float32 in [-1, 1], 16 kHz mono.
            start: Index of its first sample at 16 kHz, counted from session time 0.

        Raises:
            SourceLost: If the engine fails (`asr_lost`).
        """
        self._end = start + len(block)
        return self._phrases(self._recogniser.accept(block, start))

    def finish(self) -> list[Phrase]:
        """Return the last phrases, all final; a later block starts a new utterance.

        Raises:
            SourceLost: If the engine fails (`asr_lost`).
        """
        return self._phrases(self._recogniser.finish())

    @property
    def partials(self) -> bool:
        """Whether words are reported before their utterance has ended."""
        return self._recogniser.partials

    @partials.setter
    def partials(self, wanted: bool) -> None:
        self._recogniser.partials = wanted

    def reopen(self) -> None:
        """Rebuild the recogniser's engine; see `Recogniser`.

        Raises:
            SourceError: If it cannot be built now.
        """
        self._recogniser.reopen()

    def close(self) -> None:
        """Release the recogniser; may be called twice."""
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
