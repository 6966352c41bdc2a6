"""Recognise speech: blocks of sound in, phrases of committed words out.

Knows what every recogniser promises and chooses one. Knows no thread, no device and no sentiment;
the caller runs it where a step of recognition may block for some tenths of a second.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from ...core.sample import Array, Phrase
from ...core.source import Now
from .transcript import Committed, Hypothesis, Transcript

SAMPLE_RATE = 16000
MAX_GAP = 5.0
"""Seconds of missing sound that are filled with silence; after more the recogniser starts anew."""

Encode = Callable[[Sequence[str]], tuple[Array, tuple[int, ...]]]
"""Words -> token states (K, D) and for each token the index of its word; K <= 64."""


class Recogniser(Protocol):
    """Turns sound into hypotheses, one utterance after the other, each closed by a final."""

    partials: bool
    """False: only finals are wanted, and work that serves nothing else is left out."""

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

    def reopen(self) -> None:
        """Build the engine anew after a loss; what was heard before is of another utterance.

        Raises:
            SourceError: If it cannot be built now.
        """

    def close(self) -> None:
        """Free the engine; may be called twice."""


class Steps:
    """Cuts blocks, gaps filled with zeros, into equal steps, whatever the size of the blocks.

    Args:
        length: Samples per step.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self.restart()

    def restart(self) -> None:
        """Forget what was pushed; the next block sets a new base."""
        self.base = 0
        """Place of the first sample heard."""
        self._end: int | None = None
        self._rest = np.zeros(0, np.float32)

    def is_torn(self, start: int) -> bool:
        """Return True if more than `MAX_GAP` seconds are missing before `start`."""
        return self._end is not None and start - self._end > MAX_GAP * SAMPLE_RATE

    def push(self, block: Array, start: int) -> list[Array]:
        """Take a block that begins at sample `start` and return the steps it fills."""
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

    @property
    def partials(self) -> bool:
        """Whether words are given out before their utterance is over."""
        return self._recogniser.partials

    @partials.setter
    def partials(self, wanted: bool) -> None:
        self._recogniser.partials = wanted

    def reopen(self) -> None:
        """Build the recogniser's engine anew; see `Recogniser`.

        Raises:
            SourceError: If it cannot be built now.
        """
        self._recogniser.reopen()

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
