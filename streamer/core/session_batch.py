"""Many sessions of one engine, each with its own state, stepped together.

Knows pending steps, slots and the order of turns. Knows no clock, no connection and no sender: as a
`Session` does, it gets what came and what time it is.
"""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tamulag.models.runtime.card import Card
from tamulag.models.runtime.step_engine import StepEngine

from .commands import SessionCommand, apply
from .errors import TamulagError
from .estimate import Estimate, StepOutput, Timing, check_finite, step_outputs
from .step_builder import PendingStep, StepBuilder

BATCH = 256
"""Most sessions of one step: beyond that a step takes longer without gain."""


class BatchFull(TamulagError):
    """No slot is free; the message has their number."""


class Scored(NamedTuple):
    """One session's estimate of one step."""

    name: str
    estimate: Estimate
    tag: float
    """Of the command that completed the hop, as it was given to `SessionBatch.apply`."""


@dataclass
class _Slot:
    """One session."""

    builder: StepBuilder
    slot: int
    pending: deque[tuple[PendingStep, float]] = field(default_factory=deque)
    """Steps that wait, oldest first, each with the tag of the command that completed it."""


class SessionBatch:
    """Sessions that share one model.

    The session that waits longest has the next turn, and none has two in one step: a sender that
    catches up does not hold up the others.

    Args:
        engine: Has the sessions' states.
        card: Which heads are trained, and the half widths of their intervals.
        timing: Of every session.
        batch: Most sessions of one step.
        names_words: Whether estimates name the words that attention looks at.
    """

    def __init__(
        self,
        engine: StepEngine,
        card: Card,
        timing: Timing | None = None,
        *,
        batch: int = BATCH,
        names_words: bool = True,
    ) -> None:
        self.timing = timing or Timing()
        self._engine = engine
        self._card = card
        self._batch = batch
        self._names_words = names_words
        self._sessions: dict[str, _Slot] = {}
        self._rotates = True
        self._ready: dict[str, None] = {}
        """Names of sessions with pending steps, in the order of their turns."""

    @property
    def names(self) -> tuple[str, ...]:
        """The sessions that are here."""
        return tuple(self._sessions)

    @property
    def free(self) -> int:
        """How many more sessions have room."""
        return self._engine.free

    @property
    def waiting(self) -> int:
        """How many sessions wait for a step."""
        return len(self._ready)

    def backlog(self, name: str) -> int:
        """Return how many steps of a session are pending."""
        return len(self._sessions[name].pending)

    def builder(self, name: str) -> StepBuilder:
        """Return the bookkeeping of a session."""
        return self._sessions[name].builder

    def open(self, name: str, asked: Collection[str]) -> StepBuilder:
        """Start a session; return its bookkeeping.

        Raises:
            BatchFull: If no slot is free.
            ValueError: If there is one of that name.
        """
        if name in self._sessions:
            raise ValueError(f"session {name} is here already: end it first, or take another name")
        if not self._engine.free:
            raise BatchFull(f"all {len(self._sessions)} seats are taken: try again later")
        builder = StepBuilder(
            self._engine.dims, self._card, asked, self.timing, names_words=self._names_words
        )
        self._sessions[name] = _Slot(builder, self._engine.open())
        return builder

    def apply(self, name: str, command: SessionCommand, tag: float = 0.0) -> int:
        """Give a session a command; return how many steps became pending by it.

        Args:
            name: Of the session.
            command: See `Session`, whose methods have the same names.
            tag: Comes back with the estimates of these steps, e.g. the time at which it was due.

        Raises:
            ValueError: See `Session`.
        """
        session = self._sessions[name]
        pending = apply(session.builder, command)
        if pending:
            session.pending.extend((step, tag) for step in pending)
            self._ready.setdefault(name)
        return len(pending)

    def drain(self) -> None:
        """From now on finish one session before the next, the shortest backlog first."""
        self._rotates = False
        self._ready = dict.fromkeys(sorted(self._ready, key=self.backlog))

    def remove(self, name: str) -> None:
        """Forget a session, and its pending steps."""
        self._ready.pop(name, None)
        self._engine.close(self._sessions.pop(name).slot)

    def step(self, failed: dict[str, Exception] | None = None) -> list[Scored]:
        """Run one step for each waiting session, up to the size of a batch.

        Whatever goes wrong with the step of one session costs that session its step, and the
        state of its model, which is empty afterwards; the others have theirs.

        Args:
            failed: Gets the sessions whose step failed, with the reason; None: it is raised.

        Returns:
            The estimates, in the order in which the sessions waited.

        Raises:
            Exception: Whatever went wrong, without `failed`.
        """
        names = list(islice(self._ready, self._batch))
        if not names:
            return []
        faults: dict[str, Exception] = {}
        outputs = self._outputs(names, faults)
        taken = {name: self._take(name) for name in names}
        scored = []
        for name, output in outputs.items():
            step, tag = taken[name]
            try:
                estimate = self._sessions[name].builder.estimate(step, output)
                check_finite(estimate)
            except Exception as error:  # one session's; the others have their estimates
                faults[name] = error
            else:
                scored.append(Scored(name, estimate, tag))
        for name in faults:
            self._empty(name)
        if failed is None and faults:
            raise next(iter(faults.values()))
        if failed is not None:
            failed.update(faults)
        return scored

    def _outputs(self, names: Sequence[str], faults: dict[str, Exception]) -> dict[str, StepOutput]:
        """Advance sessions together; if that fails halves of them, until the faulty ones are found.

        A step that fails has changed no state, see `StepEngine`.
        """
        sessions = [self._sessions[name] for name in names]
        try:
            arrays = self._engine.step(
                [session.slot for session in sessions],
                [session.pending[0][0].inputs for session in sessions],
            )
            return dict(zip(names, step_outputs(arrays), strict=True))
        except Exception as error:  # of some of them, maybe of all
            if len(names) == 1:
                faults[names[0]] = error
                return {}
        half = len(names) // 2
        return self._outputs(names[:half], faults) | self._outputs(names[half:], faults)

    def _take(self, name: str) -> tuple[PendingStep, float]:
        """Remove the oldest pending step of a session whose turn this is, and return it."""
        session = self._sessions[name]
        taken = session.pending.popleft()
        if self._rotates or not session.pending:
            del self._ready[name]
        if session.pending:
            self._ready[name] = None
        return taken

    def _empty(self, name: str) -> None:
        """Empty a session's model state: what is not finite would stay in it for ever."""
        session = self._sessions[name]
        self._engine.close(session.slot)
        session.slot = self._engine.open()

    def read(self, name: str) -> dict[str, npt.NDArray[np.generic]]:
        """Return a copy of the model's state of a session.

        Raises:
            ValueError: If steps of it are pending: step first.
        """
        session = self._sessions[name]
        if session.pending:
            raise ValueError(f"session {name} has {len(session.pending)} steps pending: step first")
        return self._engine.read(session.slot)

    def write(self, name: str, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Let a session continue from the state that `read` has returned.

        Raises:
            ValueError: If it is of another model, window or hop.
        """
        self._engine.write(self._sessions[name].slot, state)
