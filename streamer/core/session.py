"""Rooms 3 and 4: `Session` turns samples, phrases and notices into estimates.

Knows the turns of one session, the model and its state. Knows no clock, thread, socket or device:
times come with the inputs, so that a live run, a file and a recording give the same numbers.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Protocol, Self

import torch

from tamulag.models import TamUlag
from tamulag.models.runtime.checkpoint import Card, load
from tamulag.models.runtime.session_step import Step, advance, initial_session_state

from .aligner import Aligner
from .estimate import Estimate, Timing, step_outputs
from .sample import MODALITIES, TICK_RATE, Block, Call, Input, Modality
from .step_builder import PendingStep, StepBuilder


class SessionJournal(Protocol):
    """Is told what a session is given and what it answers, in order; must not change either."""

    def took(self, item: Input) -> None:
        """Note an input, before the session works on it."""

    def called(self, name: Call, now: float | None) -> None:
        """Note a call of that name that closes hops, before their estimates; `hop`: new length."""

    def said(self, estimate: Estimate) -> None:
        """Note an estimate."""


class Session:
    """One person in front of one set of devices.

    Args:
        model: Shared by any number of sessions; its state is kept here.
        card: Which heads are trained, and the half widths of their intervals.
        asked: The modalities that were asked for; the others are `off`.
        timing: Window, hop and lateness.
        names_words: Whether estimates name the words that attention looks at.
        step: Computes what `model.step` does; None: that.
    """

    def __init__(
        self,
        model: TamUlag,
        card: Card,
        asked: Collection[str],
        timing: Timing | None = None,
        *,
        names_words: bool = True,
        step: Step | None = None,
    ) -> None:
        self.timing = timing or Timing()
        dims = {name: getattr(model.config, name).dim for name in ("audio", "vision")}
        self._dims = {name: getattr(model.config, name).dim for name in MODALITIES if name in asked}
        self.turns = StepBuilder(dims, card, asked, self.timing, names_words=names_words)
        self.journal: SessionJournal | None = None
        """Is told all that makes a replay; None: nobody is."""
        self._step: Step = step or model.step
        self._fresh = model.initial_state(1)
        self.seat = initial_session_state(self._fresh)
        """What the model remembers."""

    @classmethod
    def open(
        cls,
        checkpoint: str | Path = "default",
        modalities: Collection[Modality] = MODALITIES,
        *,
        window: float = 5.0,
        hop: float = 0.5,
        lateness: float = 0.3,
    ) -> Self:
        """Load a checkpoint for one person whose features are made elsewhere.

        Args:
            checkpoint: Name of a shipped checkpoint, or path of a `.safetensors` file.
            modalities: Those that will be pushed; the others are `off`.
            window: Seconds that an estimate is about, a multiple of `hop`.
            hop: Seconds between two estimates, a multiple of 0.1.
            lateness: Seconds that a hop waits for inputs that come late.

        Raises:
            CheckpointError: If the checkpoint is missing, damaged or of another version.
            ValueError: If a modality is unknown, or `hop` is no multiple of 0.1.
        """
        if unknown := sorted(set(modalities) - set(MODALITIES)):
            raise ValueError(f"modalities {unknown} are unknown: use {', '.join(MODALITIES)}")
        model, card = load(checkpoint, window=round(window * TICK_RATE))
        missing = {name: min(age, window) for name, age in Timing().missing_after.items()}
        timing = Timing(window=window, hop=hop, lateness=lateness, missing_after=missing)
        return cls(model, card, modalities, timing)

    @property
    def dims(self) -> dict[Modality, int]:
        """Values of each vector that a modality takes: of a token, a tick of sound, a picture."""
        return dict(self._dims)

    @property
    def asked(self) -> tuple[Modality, ...]:
        """The modalities that were asked for."""
        return self.turns.asked

    @property
    def aligner(self) -> Aligner:
        """Room 3."""
        return self.turns.aligner

    @property
    def revision(self) -> int:
        """Times at which words that had been scored were changed."""
        return self.turns.revision

    @property
    def late_phrases(self) -> int:
        """Phrases that were dropped: of utterances already closed, or too many at once."""
        return self.turns.late_phrases

    @property
    def now(self) -> float:
        """Session time up to which hops have been closed, in seconds."""
        return self.turns.now

    @property
    def hop(self) -> float:
        """Seconds between two estimates."""
        return self.aligner.hop / TICK_RATE

    def set_hop(self, seconds: float) -> None:
        """Give the next hop, and those after it, another length: a multiple of 0.1 s."""
        if self.journal:
            self.journal.called("hop", seconds)
        self.aligner.set_hop(round(seconds * TICK_RATE))

    def push(self, item: Input | Block) -> list[Estimate]:
        """Take one input; return the estimates of the hops that it closes, oldest first.

        Raises:
            ValueError: If it is of a modality that was not asked for, or of a wrong size.
        """
        if self.journal:
            self.journal.took(item)  # type: ignore[arg-type]
        return self._estimates(self.turns.push(item))

    def advance(self, now: float) -> list[Estimate]:
        """Return the estimates of hops that ended before `now - lateness` (session time)."""
        due = self.turns.advance(now)
        if due and self.journal:
            self.journal.called("advance", now)
        return self._estimates(due)

    def close(self, now: float | None = None) -> list[Estimate]:
        """Return the estimates of everything that is still held.

        Words that came after the last sound belong to the last, unfinished hop.

        Args:
            now: Session time that is not gone beyond; None: one window after the last hop.
        """
        if self.journal:
            self.journal.called("close", now)
        return self._estimates(self.turns.close(now))

    @torch.inference_mode()
    def _estimates(self, due: list[PendingStep]) -> list[Estimate]:
        estimates = []
        for one in due:
            output, self.seat = advance(self._step, self._fresh, self.seat, one.turn)
            estimates.append(self.turns.estimate(one, step_outputs(output)[0]))
        if self.journal:
            for estimate in estimates:
                self.journal.said(estimate)
        return estimates
