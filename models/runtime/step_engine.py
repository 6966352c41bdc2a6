"""The border of a step engine: what one hop of a session brings, and what the model makes of it.

Knows numpy arrays and ticks of 20 ms. Knows neither torch nor onnxruntime, no words and no clock.

Words come late and are revised, so an engine saves the text state at the start of the current
utterance, the anchor: each time the utterance changes, all of it is encoded again from there.

Shapes: B sessions in a step, T ticks, D features, S attended ticks.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


class TickArrays(NamedTuple):
    """What one modality brought to one hop of one session; `Ticks` without the batch."""

    values: Floats
    """(T, D); ignored where `mask` is False."""
    mask: Flags
    """(T,) True = valid."""
    time: Integers
    """(T,) tick in which it happened."""
    ready: Integers
    """(T,) first tick at whose start it is known."""


class Utterance(NamedTuple):
    """All tokens of an utterance that is new or has changed."""

    rows: TickArrays
    begins: bool
    """True if a new utterance starts: encode from the current text state, not from the anchor."""
    ends: bool
    """True: it does not change any more, so the state after it is the anchor."""


class StepInput(NamedTuple):
    """One hop of one session."""

    end: int
    """Tick at which it ends."""
    fresh: frozenset[str]
    """Modalities whose state is reset, before anything else."""
    rows: Mapping[str, TickArrays]
    """Of audio and vision."""
    utterances: Sequence[Utterance]
    """In order."""
    allowed: tuple[bool, bool, bool]
    """Text, audio, vision: False keeps it out of the fusion."""
    since: tuple[int, int] = (0, 0)
    """Text, audio: tick at which the turn began that attention is on; see `Turn`."""
    share: tuple[float, float] = (1.0, 1.0)
    """Text, audio: share of that turn in the context, in [0, 1]."""


class Attention(NamedTuple):
    """Where one modality of B sessions was attended; see `Pooled`."""

    weight: Floats
    """(B, S), never negative; 0 outside of the window."""
    time: Integers
    """(B, S), the ticks that the weights belong to."""


class StepArrays(NamedTuple):
    """The model's output of one hop of B sessions; see `Output`."""

    sentiment: Floats
    """(B,), in [-3, 3]."""
    heads: Floats
    """(B, 3) of text, audio and vision, in [-3, 3]; meaningless where absent."""
    present: Flags
    """(B, 3)."""
    weight: Floats
    """(B, 3), share of each modality in the fusion; sums to 1 or is all 0."""
    scale: Floats | None
    """(B, 3) of each head's error, in units of sentiment; meaningless where absent. None: the model
    has none."""
    attention: tuple[Attention, Attention, Attention]


class StepEngine(Protocol):
    """States of many sessions, and their steps; every array at this border is numpy's.

    A step touches the states of its own sessions alone: all others keep their bits.
    """

    @property
    def dims(self) -> Mapping[str, int]:
        """Features of each vector by modality."""

    @property
    def free(self) -> int:
        """How many more sessions fit in."""

    def open(self) -> int:
        """Return the slot of a new session with an empty state.

        Raises:
            IndexError: If none is free.
        """

    def close(self, slot: int) -> None:
        """Free a slot."""

    def step(self, slots: Sequence[int], inputs: Sequence[StepInput]) -> StepArrays:
        """Advance different sessions by one hop each; the output is in the order of `slots`.

        A step that fails, for whatever reason, leaves every state as it was: it can be made again
        without the session that it failed for.

        Raises:
            ValueError: If a hop brings more than there can be room for.
        """

    def read(self, slot: int) -> dict[str, npt.NDArray[np.generic]]:
        """Return a copy of a session's state by name."""

    def write(self, slot: int, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Let a session continue from what `read` returned, here or in another process.

        Raises:
            ValueError: If it is of another model or window.
        """
