"""Which part of a session a person is saying now: the turn that attention is scoped to.

Knows ticks and words. Knows no model and no clock.

- A turn of the words is an utterance of the recogniser.
- A turn of the voice begins with the first sound after a pause of `PAUSE`.
- The face has no turns: its window is all that counts.

A young turn has only a share of the context, so that the score does not jump at each beginning: it
grows with what was heard of it, and is whole as soon as the turn has ended. Recurrent state and
level go on across turns.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .sample import TICK_RATE, Phrase

PAUSE = round(0.5 * TICK_RATE)
"""Ticks without sound after which the voice begins a new turn."""

WORDS, SOUND = 4, TICK_RATE
"""Words of an utterance, and ticks of sound, from which on a turn has the whole context."""


@dataclass(slots=True)
class VoiceTurn:
    """The turn of the voice."""

    since: int = 0
    """Tick of its first sound."""
    heard: int = 0
    """Ticks of sound in it."""
    last: int = -PAUSE
    """Tick of its newest sound."""

    def add(self, ticks: npt.NDArray[np.int64]) -> None:
        """Add the ticks of valid sound of a hop, (n,), rising."""
        if not len(ticks):
            return
        pauses = np.flatnonzero(np.diff(ticks, prepend=self.last) > PAUSE)
        if len(pauses):
            self.since, self.heard = int(ticks[pauses[-1]]), 0
            ticks = ticks[pauses[-1] :]
        self.heard += len(ticks)
        self.last = int(ticks[-1])

    def share(self, end: int) -> float:
        """Return its share of the context of a hop that ends at tick `end`."""
        return 1.0 if end - self.last > PAUSE else min(1.0, self.heard / SOUND)


@dataclass(slots=True)
class TextTurn:
    """The turn of the words."""

    since: int = 0
    """Tick at which its first word began."""
    words: int = WORDS
    final: bool = True

    def set(self, phrase: Phrase, since: int) -> None:
        """Set it to the newest phrase, which has words, of which the first begins at `since`."""
        self.since, self.words, self.final = since, len(phrase.words), phrase.final

    @property
    def share(self) -> float:
        """Its share of the context."""
        return 1.0 if self.final else min(1.0, self.words / WORDS)
