"""Where sessions sit: what the server asks of it, and the one in this process.

Knows a hall and the weights' name. Knows no connection; `cluster` has the place on many machines.
"""

from collections.abc import Collection
from typing import Protocol

from .estimate import Estimate
from .hall import Hall
from .handover import pack, unpack
from .sample import Block, Input


class Place(Protocol):
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

    async def turn(self) -> list[tuple[str, Estimate]]:
        """Give a turn to each of those who wait; return what was said."""

    async def pack(self, name: str) -> bytes:
        """Return a session as bytes; no turn of it may wait."""

    @property
    def waiting(self) -> int:
        """How many sessions wait for a turn."""


class Here:
    """The hall of this process.

    Args:
        hall: Has the sessions.
        checkpoint: What identifies the weights.
    """

    def __init__(self, hall: Hall, checkpoint: str) -> None:
        self._hall = hall
        self._checkpoint = checkpoint
        self.push, self.advance, self.finish = hall.push, hall.advance, hall.finish
        self.leave, self.backlog = hall.leave, hall.backlog

    def open(self, name: str, asked: Collection[str], packed: bytes | None = None) -> None:
        """Begin a session, or let one go on; see `Place`."""
        if packed is None:
            self._hall.open(name, asked)
        else:
            unpack(self._hall, name, packed, self._checkpoint)

    async def turn(self) -> list[tuple[str, Estimate]]:
        """Step; see `Place`."""
        return self._hall.step()

    async def pack(self, name: str) -> bytes:
        """Return a session as bytes; see `Place`."""
        return pack(self._hall, name, self._checkpoint)

    @property
    def waiting(self) -> int:
        """How many sessions wait for a turn."""
        return self._hall.waiting
