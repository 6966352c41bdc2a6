"""A hall in a process of its own: does what it is told, in order, and answers each call once.

Knows orders and a hall. Does not know who tells it, on which machine it is, nor how orders come.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import torch

from tamulag.models.nn.tam_ulag import TICK_RATE
from tamulag.models.runtime.checkpoint import load

from ..core.errors import TamulagError
from ..core.estimate import Estimate, Timing
from ..core.sample import Block, Input, Notice
from ..core.session_batch import SessionBatch
from ..core.snapshot import dump, restore
from ..server import malloc


class Begin(NamedTuple):
    """A session begins, or goes on from what was packed."""

    asked: tuple[str, ...]
    packed: bytes | None = None


class Push(NamedTuple):
    """See `Hall.push`."""

    item: Input | Block


class Advance(NamedTuple):
    """See `Hall.advance`."""

    now: float


class Finish(NamedTuple):
    """See `Hall.finish`."""

    now: float | None


class Pack(NamedTuple):
    """Return the session as bytes, as soon as none of its turns waits."""


class Move(NamedTuple):
    """Give its turns to the session, return it as bytes and forget it."""


class Leave(NamedTuple):
    """Forget the session, and its turns that wait."""


class Command(NamedTuple):
    """What is to be done for one session."""

    name: str
    number: int
    """Rises within a session."""
    do: Begin | Push | Advance | Finish | Pack | Move | Leave


class WorkerScore(NamedTuple):
    """What was said of a session in a turn."""

    name: str
    estimate: Estimate
    number: int
    """Of the order that brought the last of what the turn needed."""
    spent: float
    """Seconds of the model, its share of the step."""


class Packed(NamedTuple):
    """A session as bytes, as it was after the order of that number."""

    name: str
    number: int
    packed: bytes


class Answer(NamedTuple):
    """What came of one call."""

    said: list[WorkerScore]
    packed: list[Packed]
    left: dict[str, int]
    """Turns that wait, of those sessions that have some."""
    failed: dict[str, str]
    """Sessions that could not go on and were forgotten, with the reason."""
    worked: float
    """Seconds spent in calls so far."""
    process: int
    """Identifier of the process."""


class WorkerConfig(NamedTuple):
    """What every wing of a cluster is made from; the checkpoint is read where it runs."""

    checkpoint: str
    timing: Timing
    seats: int
    names_words: bool

    def hall(self) -> SessionBatch:
        """Load the model into this process, for one thread.

        Raises:
            CheckpointError: If the checkpoint cannot be used here.
        """
        torch.set_num_threads(1)
        malloc.disable_trim()
        model, card = load(self.checkpoint, window=round(self.timing.window * TICK_RATE))
        return SessionBatch(
            model, card, self.timing, seats=self.seats, names_words=self.names_words
        )


@dataclass
class _WorkerSession:
    """One session of a wing."""

    due: deque[int] = field(default_factory=deque)
    """Number of the order that made each turn due that waits."""
    newest: int = 0
    """Number of the newest order."""
    wants_pack: bool = False


class SessionWorker:
    """Does orders.

    Args:
        make: Makes the hall, here.
        checkpoint: What identifies the weights.
    """

    def __init__(self, make: Callable[[], SessionBatch], checkpoint: str) -> None:
        self._hall = make()
        self._checkpoint = checkpoint
        self._guests: dict[str, _WorkerSession] = {}
        self._answer = self._blank(0.0)

    def do(self, orders: Sequence[Command]) -> Answer:
        """Do the orders, then give one turn to each session that waits, up to a batch.

        Who is to be packed is packed when none of its turns waits. A session whose order cannot be
        done is forgotten and told of; the others go on.
        """
        began = time.monotonic()
        for order in orders:
            self._obey(order)
        self._step()
        for name, guest in self._guests.items():
            if guest.wants_pack and not guest.due:
                self._pack(name, guest)
        left = {name: len(guest.due) for name, guest in self._guests.items() if guest.due}
        worked = self._answer.worked + time.monotonic() - began
        answer = self._answer._replace(left=left, worked=worked)
        self._answer = self._blank(worked)
        return answer

    def _obey(self, order: Command) -> None:
        name, number, do = order
        try:
            if isinstance(do, Begin):
                self._begin(name, number, do)
            elif name in self._guests:  # else it has failed, and who sent this did not know yet
                self._follow(name, number, do)
        except (ValueError, TamulagError) as error:
            self._answer.failed[name] = str(error)
            self._forget(name)

    def _begin(self, name: str, number: int, how: Begin) -> None:
        if how.packed is None:
            self._hall.open(name, how.asked)
        else:
            restore(self._hall, name, how.packed, self._checkpoint)
        self._guests[name] = _WorkerSession(newest=number)

    def _follow(
        self, name: str, number: int, do: Push | Advance | Finish | Pack | Move | Leave
    ) -> None:
        match do:
            case Push(item):
                self._give(name, number, partial(self._hall.push, name, owned(item)))
            case Advance(now):
                self._give(name, number, partial(self._hall.advance, name, now))
            case Finish(end):
                self._give(name, number, partial(self._hall.finish, name, end))
            case Pack():
                self._guests[name].wants_pack = True
            case Move():
                self._move(name, self._guests[name])
            case Leave():
                self._forget(name)

    def _give(self, name: str, number: int, give: Callable[[], None]) -> None:
        guest, before = self._guests[name], self._hall.backlog(name)
        give()
        guest.newest = number
        guest.due.extend([number] * (self._hall.backlog(name) - before))

    def _move(self, name: str, guest: _WorkerSession) -> None:
        while guest.due:
            self._step()
        self._pack(name, guest)
        self._forget(name)

    def _pack(self, name: str, guest: _WorkerSession) -> None:
        packed = dump(self._hall, name, self._checkpoint)
        self._answer.packed.append(Packed(name, guest.newest, packed))
        guest.wants_pack = False

    def _step(self) -> None:
        before = time.monotonic()
        said = self._hall.step()
        spent = (time.monotonic() - before) / max(1, len(said))
        self._answer.said.extend(
            WorkerScore(name, estimate, self._guests[name].due.popleft(), spent)
            for name, estimate in said
        )

    def _forget(self, name: str) -> None:
        if self._guests.pop(name, None) is not None:
            self._hall.leave(name)

    def _blank(self, worked: float) -> Answer:
        return Answer([], [], {}, {}, worked, os.getpid())


def owned(item: Input | Block) -> Input | Block:
    """Return an input whose array is its own.

    Those of a call lie in memory that many processes share, and one that a session still looks at
    would keep all of the call there.
    """
    if isinstance(item, Notice) or item.values is None:
        return item
    return replace(item, values=item.values.copy())
