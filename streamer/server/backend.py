"""Where sessions sit: what the server asks of it, and the one in this process.

Knows a hall and the weights' name. Knows no connection; `cluster` has the place on many machines.
"""

import time
from collections import deque
from collections.abc import Callable, Collection
from functools import partial
from itertools import islice
from typing import NamedTuple, Protocol

from ..core.estimate import Estimate
from ..core.sample import Block, Input
from ..core.session_batch import SessionBatch
from ..core.snapshot import dump, restore

SNAPSHOTS = 16
"""Sessions that are packed at a time: some 6 ms, in which nothing else is done."""


class ScoredStep(NamedTuple):
    """What was said of a session in a turn."""

    name: str
    estimate: Estimate
    waited: float
    """Seconds since all that the turn needs was there."""
    spent: float
    """Seconds of the model, its share of the step."""


class SessionBackend(Protocol):
    """Sessions, wherever their state is.

    All is called on the event loop, and nothing but `turn` and `pack` waits.
    """

    def open(self, name: str, asked: Collection[str], packed: bytes | None = None) -> None:
        """Begin a session, or let one go on that `pack` has returned.

        Raises:
            HallFull: If no seat is free.
            HandoverError: If it cannot go on; then it has not begun either.
        """

    def push(self, name: str, item: Input | Block) -> None:
        """Take one input of a session."""

    def advance(self, name: str, now: float) -> None:
        """Close hops that ended before `now - lateness`."""

    def finish(self, name: str, now: float | None = None) -> None:
        """Close all that is still held."""

    def leave(self, name: str) -> None:
        """Forget a session."""

    def backlog(self, name: str) -> int:
        """Return how many turns of a session wait."""

    async def turn(self) -> list[ScoredStep]:
        """Give a turn to each of those who wait; return what was said, each session's in order."""

    def drain(self) -> None:
        """Take note that all are to be packed: some that are done count more than all in turn."""

    async def pack(self, names: Collection[str]) -> dict[str, bytes]:
        """Return some of these sessions as bytes, by name; for the others ask again.

        None is among them of which a turn waits or something is to be said.
        """

    @property
    def waiting(self) -> int:
        """How many sessions wait for a turn."""


class LocalBackend:
    """The hall of this process.

    Args:
        hall: Has the sessions.
        checkpoint: What identifies the weights.
    """

    def __init__(self, hall: SessionBatch, checkpoint: str) -> None:
        self._hall = hall
        self._checkpoint = checkpoint
        self._due: dict[str, deque[float]] = {}
        """Steady clock at which each turn that waits became due."""
        self.backlog = hall.backlog
        self.drain = hall.drain

    def open(self, name: str, asked: Collection[str], packed: bytes | None = None) -> None:
        """Begin a session, or let one go on; see `Place`."""
        if packed is None:
            self._hall.open(name, asked)
        else:
            restore(self._hall, name, packed, self._checkpoint)
        self._due[name] = deque()

    def push(self, name: str, item: Input | Block) -> None:
        """Take one input of a session; see `Place`."""
        self._give(name, partial(self._hall.push, name, item))

    def advance(self, name: str, now: float) -> None:
        """Close hops; see `Place`."""
        self._give(name, partial(self._hall.advance, name, now))

    def finish(self, name: str, now: float | None = None) -> None:
        """Close all that is still held; see `Place`."""
        self._give(name, partial(self._hall.finish, name, now))

    def leave(self, name: str) -> None:
        """Forget a session; see `Place`."""
        self._due.pop(name, None)
        self._hall.leave(name)

    async def turn(self) -> list[ScoredStep]:
        """Step; see `Place`."""
        before = time.monotonic()
        said = self._hall.step()
        now = time.monotonic()
        spent = (now - before) / max(1, len(said))
        return [ScoredStep(name, e, now - self._due[name].popleft(), spent) for name, e in said]

    def _give(self, name: str, give: Callable[[], None]) -> None:
        before = self._hall.backlog(name)
        give()
        more = self._hall.backlog(name) - before
        self._due[name].extend([time.monotonic()] * more)

    async def pack(self, names: Collection[str]) -> dict[str, bytes]:
        """Return `PACKS` sessions at most as bytes; see `Place`."""
        ready = islice((name for name in names if not self.backlog(name)), SNAPSHOTS)
        return {name: dump(self._hall, name, self._checkpoint) for name in ready}

    @property
    def waiting(self) -> int:
        """How many sessions wait for a turn."""
        return self._hall.waiting
