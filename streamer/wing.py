"""A hall in a process of its own: does what it is told, in order, and answers each call once.

Knows orders and a hall. Does not know who tells it, on which machine it is, nor how orders come.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch

from tamulag.models.checkpoint import load
from tamulag.models.tam_ulag import TICK_RATE

from . import heap
from .estimate import Estimate, Timing
from .hall import Hall, HallFull
from .handover import pack, unpack
from .sample import Block, Input


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
    """Return the session as bytes; its turns are taken before."""


class Leave(NamedTuple):
    """Forget the session."""


class Order(NamedTuple):
    """What is to be done for one session."""

    name: str
    number: int
    """Rises within a session."""
    do: Begin | Push | Advance | Finish | Pack | Leave


class Spoken(NamedTuple):
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

    said: list[Spoken]
    packed: list[Packed]
    left: dict[str, int]
    """Turns that wait, of those sessions that have some."""
    failed: dict[str, str]
    """Sessions that could not go on and were forgotten, with the reason."""
    worked: float
    """Seconds spent in calls so far."""
    process: int
    """Identifier of the process."""


class Plan(NamedTuple):
    """What every wing of a cluster is made from; the checkpoint is read where it runs."""

    checkpoint: str
    timing: Timing
    seats: int
    names_words: bool

    def hall(self) -> Hall:
        """Load the model into this process, for one thread.

        Raises:
            CheckpointError: If the checkpoint cannot be used here.
        """
        torch.set_num_threads(1)
        heap.keep()
        model, card = load(self.checkpoint, window=round(self.timing.window * TICK_RATE))
        return Hall(model, card, self.timing, seats=self.seats, names_words=self.names_words)


class Wing:
    """Does orders.

    Args:
        make: Makes the hall, here.
        checkpoint: What identifies the weights.
    """

    def __init__(self, make: Callable[[], Hall], checkpoint: str) -> None:
        self._hall = make()
        self._checkpoint = checkpoint
        self._due: dict[str, deque[int]] = {}
        """Number of the order that made each turn due that waits."""
        self._answer = self._blank(0.0)

    def do(self, orders: Sequence[Order]) -> Answer:
        """Do the orders, then give one turn to each session that waits, up to a batch.

        A session whose order cannot be done is forgotten and told of; the others go on.
        """
        began = time.monotonic()
        for order in orders:
            self._obey(order)
        self._step()
        left = {name: len(due) for name, due in self._due.items() if due}
        worked = self._answer.worked + time.monotonic() - began
        answer = self._answer._replace(left=left, worked=worked)
        self._answer = self._blank(worked)
        return answer

    def _obey(self, order: Order) -> None:
        if order.name not in self._due and not isinstance(order.do, Begin):
            return  # it has failed, and whoever sent this did not know yet
        try:
            self._follow(order.name, order.number, order)
        except (ValueError, HallFull) as error:
            self._answer.failed[order.name] = str(error)
            self._forget(order.name)

    def _follow(self, name: str, number: int, order: Order) -> None:
        match order.do:
            case Begin(asked, packed):
                self._begin(name, asked, packed)
            case Push(item):
                self._give(name, number, partial(self._hall.push, name, item))
            case Advance(now):
                self._give(name, number, partial(self._hall.advance, name, now))
            case Finish(end):
                self._give(name, number, partial(self._hall.finish, name, end))
            case Pack():
                while self._hall.backlog(name):
                    self._step()
                packed = pack(self._hall, name, self._checkpoint)
                self._answer.packed.append(Packed(name, number, packed))
            case Leave():
                self._forget(name)

    def _begin(self, name: str, asked: tuple[str, ...], packed: bytes | None) -> None:
        if packed is None:
            self._hall.open(name, asked)
        else:
            unpack(self._hall, name, packed, self._checkpoint)
        self._due[name] = deque()

    def _give(self, name: str, number: int, give: Callable[[], None]) -> None:
        before = self._hall.backlog(name)
        give()
        self._due[name].extend([number] * (self._hall.backlog(name) - before))

    def _step(self) -> None:
        before = time.monotonic()
        said = self._hall.step()
        spent = (time.monotonic() - before) / max(1, len(said))
        self._answer.said.extend(
            Spoken(name, estimate, self._due[name].popleft(), spent) for name, estimate in said
        )

    def _forget(self, name: str) -> None:
        if self._due.pop(name, None) is not None:
            self._hall.leave(name)

    def _blank(self, worked: float) -> Answer:
        return Answer([], [], {}, {}, worked, os.getpid())
