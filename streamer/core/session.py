"""A session alone: `Session` turns samples, phrases and notices into estimates.

Knows one session of a batch of one. Knows no clock, thread, socket, device or engine: times come
with the inputs, so that a live run, a file and a recording give the same numbers.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Protocol, Self

from tamulag.models.runtime.card import Card
from tamulag.models.runtime.step_engine import StepEngine

from .aligner import Aligner
from .commands import Advance, Close, Push, SessionCommand, SetHop
from .estimate import Estimate, Timing
from .sample import MODALITIES, TICK_RATE, Block, Input, Modality
from .session_batch import SessionBatch

_NAME = "session"


class SessionObserver(Protocol):
    """Gets what a session is given and what it answers, in order; must not change either."""

    def on_command(self, command: SessionCommand) -> None:
        """Called with each command, before its estimates; not with an `Advance` without any."""

    def on_estimate(self, estimate: Estimate) -> None:
        """Called with each estimate."""


class Session:
    """One person in front of one set of devices: a batch of one.

    Args:
        engine: With a free slot, which is this session's from now on.
        card: Which heads are trained, and the half widths of their intervals.
        asked: The modalities that were asked for; the others are `off`.
        timing: Window, hop and lateness.
        names_words: Whether estimates name the words that attention looks at.
        observer: Gets all that makes a replay; None: nothing does.

    Raises:
        BatchFull: If the engine has no free slot.
    """

    def __init__(
        self,
        engine: StepEngine,
        card: Card,
        asked: Collection[str],
        timing: Timing | None = None,
        *,
        names_words: bool = True,
        observer: SessionObserver | None = None,
    ) -> None:
        self._batch = SessionBatch(engine, card, timing, names_words=names_words)
        self._builder = self._batch.open(_NAME, asked)
        self.timing = self._batch.timing
        self._dims = {name: engine.dims[name] for name in self.asked}
        self.observer = observer

    @classmethod
    def open(
        cls,
        checkpoint: str | Path = "default",
        modalities: Collection[str] = MODALITIES,
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
        from tamulag.models.runtime.checkpoint import load
        from tamulag.models.runtime.torch_engine import TorchEngine

        model, card = load(checkpoint, window=round(window * TICK_RATE))
        missing = {name: min(age, window) for name, age in Timing().missing_after.items()}
        timing = Timing(window=window, hop=hop, lateness=lateness, missing_after=missing)
        engine = TorchEngine(model, hop=round(hop * TICK_RATE))
        return cls(engine, card, modalities, timing)

    @property
    def dims(self) -> dict[Modality, int]:
        """Values of each vector that a modality takes: of a token, a tick of sound, a picture."""
        return dict(self._dims)

    @property
    def asked(self) -> tuple[Modality, ...]:
        """The modalities that were asked for."""
        return self._builder.asked

    @property
    def aligner(self) -> Aligner:
        """What puts samples onto the grid of ticks."""
        return self._builder.aligner

    @property
    def revision(self) -> int:
        """Times at which words that had been scored were changed."""
        return self._builder.revision

    @property
    def late_phrases(self) -> int:
        """Phrases that were dropped: of utterances already closed, or too many at once."""
        return self._builder.late_phrases

    @property
    def now(self) -> float:
        """Session time up to which hops have been closed, in seconds."""
        return self._builder.now

    @property
    def hop(self) -> float:
        """Seconds between two estimates."""
        return self.aligner.hop / TICK_RATE

    def set_hop(self, seconds: float) -> list[Estimate]:
        """Give the next hop, and those after it, another length: a multiple of 0.1 s.

        Raises:
            ValueError: If it is none.
        """
        return self._apply(SetHop(seconds))

    def push(self, item: Input | Block) -> list[Estimate]:
        """Take one input; return the estimates of the hops that it closes, oldest first.

        Raises:
            ValueError: If it is of a modality that was not asked for, or of a wrong size.
            NotFinite: If what was given makes no finite score; the session goes on from an empty
                state of the model.
        """
        return self._apply(Push(item))

    def advance(self, now: float) -> list[Estimate]:
        """Return the estimates of hops that ended before `now - lateness` (session time)."""
        return self._apply(Advance(now))

    def close(self, now: float | None = None) -> list[Estimate]:
        """Return the estimates of everything that is still held.

        Words that came after the last sound belong to the last, unfinished hop.

        Args:
            now: Session time that is not gone beyond; None: one window after the last hop.
        """
        return self._apply(Close(now))

    def _apply(self, command: SessionCommand) -> list[Estimate]:
        pending = self._batch.apply(_NAME, command)
        if self.observer and (pending or not isinstance(command, Advance)):
            self.observer.on_command(command)
        estimates = []
        while self._batch.waiting:
            estimates += [scored.estimate for scored in self._batch.step()]
        if self.observer:
            for estimate in estimates:
                self.observer.on_estimate(estimate)
        return estimates
