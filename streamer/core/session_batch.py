"""Many sessions in one place, each with its own state, stepped together.

Knows turns, seats and whose turn it is. Knows no clock, no connection and no sender: like a
`Session`, it is told what came and what time it is.
"""

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice

from torch import Tensor

from tamulag.models import TamUlag
from tamulag.models.runtime.batched_sessions import BatchedState
from tamulag.models.runtime.checkpoint import Card
from tamulag.models.runtime.session_step import Step

from .errors import TamulagError
from .estimate import Estimate, Timing, step_outputs
from .sample import TICK_RATE, Block, Input
from .step_builder import PendingStep, StepBuilder

BATCH = 256
"""Most sessions of one step: beyond that a step takes longer and nobody gains."""


class BatchFull(TamulagError):
    """No seat is free; the text says how many there are."""


@dataclass
class _Slot:
    """One session."""

    turns: StepBuilder
    slot: int
    due: deque[PendingStep] = field(default_factory=deque)
    """Turns that wait, oldest first."""


class SessionBatch:
    """Sessions that share one model.

    Who waits longest has the next turn, and nobody has two in one step: a sender that catches up
    does not hold up the others.

    Args:
        model: In evaluation mode.
        card: Which heads are trained, and the half widths of their intervals.
        timing: Of every session.
        seats: Sessions that have room.
        batch: Most sessions of one step.
        names_words: Whether estimates name the words that attention looks at.
        step: Computes what `model.step` does.
        sizes: Numbers of sessions whose step is left to `step`.
    """

    def __init__(
        self,
        model: TamUlag,
        card: Card,
        timing: Timing | None = None,
        *,
        seats: int,
        batch: int = BATCH,
        names_words: bool = True,
        step: Step | None = None,
        sizes: Collection[int] = (),
    ) -> None:
        self.timing = timing or Timing()
        self.guests: dict[str, _Slot] = {}
        self._card = card
        self._batch = batch
        self._names_words = names_words
        self._dims = {name: getattr(model.config, name).dim for name in ("audio", "vision")}
        hop = round(self.timing.hop * TICK_RATE)
        self._seats = BatchedState(model, seats, hop=hop, step=step, sizes=sizes)
        self._rotates = True
        self._ready: dict[str, None] = {}
        """Names of those with turns that wait, in the order in which theirs comes."""

    @property
    def free(self) -> int:
        """How many more sessions have room."""
        return len(self._seats.free)

    @property
    def waiting(self) -> int:
        """How many sessions wait for a turn."""
        return len(self._ready)

    def backlog(self, name: str) -> int:
        """Return how many turns of a session wait."""
        return len(self.guests[name].due)

    def open(self, name: str, asked: Collection[str]) -> None:
        """Begin a session.

        Raises:
            HallFull: If no seat is free.
            ValueError: If there is one of that name.
        """
        if name in self.guests:
            raise ValueError(f"session {name} is here already: end it first, or take another name")
        if not self._seats.free:
            raise BatchFull(f"all {len(self.guests)} seats are taken: try again later")
        turns = StepBuilder(
            self._dims, self._card, asked, self.timing, names_words=self._names_words
        )
        self.guests[name] = _Slot(turns, self._seats.open())

    def push(self, name: str, item: Input | Block) -> None:
        """Take one input of a session; see `Session.push`."""
        self._wait(name, self.guests[name].turns.push(item))

    def advance(self, name: str, now: float) -> None:
        """Close hops that ended before `now - lateness`; see `Session.advance`."""
        self._wait(name, self.guests[name].turns.advance(now))

    def finish(self, name: str, now: float | None = None) -> None:
        """Close all that is still held of a session; see `Session.close`."""
        self._wait(name, self.guests[name].turns.close(now))

    def drain(self) -> None:
        """From now on let one be done before the next begins, the nearest to its end first."""
        self._rotates = False
        self._ready = dict.fromkeys(sorted(self._ready, key=self.backlog))

    def leave(self, name: str) -> None:
        """Forget a session, and what waits of it."""
        self._ready.pop(name, None)
        self._seats.close(self.guests.pop(name).slot)

    def step(self) -> list[tuple[str, Estimate]]:
        """Give one turn to each of those who wait, up to the size of a batch.

        Returns:
            Names with what was said of them, in the order in which they waited.
        """
        names = list(islice(self._ready, self._batch))
        if not names:
            return []
        guests = [self.guests[name] for name in names]
        turns = [guest.due[0].turn for guest in guests]
        heard = step_outputs(self._seats.step([guest.slot for guest in guests], turns))
        said = []
        for name, guest, hearing in zip(names, guests, heard, strict=True):
            due = guest.due.popleft()
            said.append((name, guest.turns.estimate(due, hearing)))
            if self._rotates or not guest.due:
                del self._ready[name]
            if guest.due:
                self._ready[name] = None
        return said

    def read(self, name: str) -> dict[str, Tensor]:
        """Return a copy of what the model remembers of a session.

        Raises:
            ValueError: If turns of it wait: step first.
        """
        guest = self.guests[name]
        if guest.due:
            raise ValueError(f"session {name} has {len(guest.due)} turns that wait: step first")
        return self._seats.read(guest.slot)

    def write(self, name: str, remembered: Mapping[str, Tensor]) -> None:
        """Let the model remember of a session what `read` has returned.

        Raises:
            ValueError: If it is of another model, window or hop.
        """
        self._seats.write(self.guests[name].slot, remembered)

    def _wait(self, name: str, due: list[PendingStep]) -> None:
        if due:
            self.guests[name].due.extend(due)
            self._ready.setdefault(name)
