"""One session of a cluster, as its gateway sees it: what was sent, answered and said.

Knows a trail and the state of its way to a wing. Knows no network and no clock.
"""

import math
from dataclasses import dataclass

from ..core.commands import Push
from .command_log import CommandLog
from .session_worker import Move, Pack, WorkerCommand
from .worker_pool import WorkerSlot

PACKED = 200_000
"""About so many bytes has a session that is packed."""

MANY = 256
"""Orders that have not been answered count as a turn, if they bring no time forward."""


@dataclass(kw_only=True, eq=False)
class RemoteSession:
    """One session."""

    name: str
    trail: CommandLog
    packs_at: float
    """Session time from which the next snapshot is wanted."""
    post: WorkerSlot | None = None
    """The wing that it is at, or is sent to."""
    begun: bool = False
    """Whether that wing was told of it."""
    sent: int = 0
    """Number of the newest order that was sent there."""
    answered: int = 0
    """Number of the newest order that was done, at any wing."""
    reached: float = 0.0
    """Session time of the newest input that was done."""
    left: int = 0
    """Turns that wait at the wing."""
    said: float = 0.0
    """End of the newest hop that was said."""
    wants_pack: bool = False
    """A snapshot is to be asked for."""
    packing: bool = False
    """It was asked for."""
    moving: bool = False
    """It leaves its wing with the next snapshot."""
    gone: bool = False
    """It has left it; the snapshot is under way."""
    late: bool = False
    """It was told that it is not answered."""

    @property
    def packed(self) -> bytes | None:
        """The session as bytes, if they hold all that came and all of it was answered."""
        return None if len(self.trail) or self.left else self.trail.base.packed

    def backlog(self, hop: float) -> int:
        """Return about how many turns wait: 0 if and only if all is answered and said."""
        unanswered = self.trail.number - self.answered
        if unanswered <= 0:
            return self.left
        turns = math.ceil((self.trail.reached - self.reached) / hop)
        return self.left + max(1, turns, unanswered // MANY)

    def write(self, orders: list[WorkerCommand]) -> int:
        """Add what is to be sent; return about how many bytes that are."""
        if self.gone:
            return 0
        size = 0
        if not self.begun:
            orders.append(WorkerCommand(self.name, self.trail.start, self.trail.base))
            self.begun, self.sent = True, self.trail.start
            size += len(self.trail.base.packed or b"")
        for entry in self.trail.after(self.sent):
            orders.append(WorkerCommand(self.name, entry.number, entry.do))
            size += _weight(entry.do)
        self.sent = self.trail.number
        if self.wants_pack and not self.packing:
            orders.append(WorkerCommand(self.name, self.sent, Move() if self.moving else Pack()))
            self.wants_pack, self.packing, self.gone = False, True, self.moving
            size += PACKED
        return size

    def answer(self, number: int, left: int) -> None:
        """Take note of what the wing has done."""
        self.left = left
        entry = self.trail.find(number)
        if entry is not None and number > self.answered:
            self.answered, self.reached = number, entry.reached

    def rise(self) -> None:
        """Be at no wing: the state there is gone, or is here as a snapshot.

        Turns that waited at the wing still count until they are made again.
        """
        self.post, self.begun, self.sent = None, False, self.trail.start
        self.wants_pack = self.packing = self.moving = self.gone = False


def _weight(do: object) -> int:
    values = getattr(do.item, "values", None) if isinstance(do, Push) else None
    return 100 if values is None else 100 + int(values.nbytes)
