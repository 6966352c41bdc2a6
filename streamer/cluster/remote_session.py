"""One session of a cluster, as its gateway sees it: commands sent, answered and published.

Knows a command log and the session's state on a worker. Knows no network and no clock.
"""

import math
from dataclasses import dataclass

from ..core.commands import Push
from .command_log import CommandLog
from .session_worker import Move, Pack, WorkerCommand
from .worker_pool import WorkerSlot

PACKED = 200_000
"""Approximate bytes of a snapshot."""

MANY = 256
"""Unanswered commands that count as one step, if they bring no time forward."""


@dataclass(kw_only=True, eq=False)
class RemoteSession:
    """State of one session."""

    name: str
    log: CommandLog
    snapshot_at: float
    """Session time from which the next snapshot is wanted."""
    worker: WorkerSlot | None = None
    """The worker that it runs on, or is assigned to."""
    is_started: bool = False
    """Whether that worker has received it."""
    sent: int = 0
    """Number of the newest command sent there."""
    answered: int = 0
    """Number of the newest command executed, on any worker."""
    reached: float = 0.0
    """Session time of the newest input executed."""
    pending: int = 0
    """Steps pending on the worker."""
    published: float = 0.0
    """End of the newest hop published."""
    wants_snapshot: bool = False
    """A snapshot is to be requested."""
    is_snapshot_requested: bool = False
    """A snapshot was requested."""
    moving: bool = False
    """It leaves its worker with the next snapshot."""
    has_left: bool = False
    """It has left its worker; the snapshot is under way."""
    is_late: bool = False
    """Reported as not answered."""

    @property
    def packed(self) -> bytes | None:
        """A snapshot that contains every input, all of it answered; else None."""
        return None if len(self.log) or self.pending else self.log.base.packed

    def backlog(self, hop: float) -> int:
        """Return about how many steps are pending: 0 if and only if all is answered."""
        unanswered = self.log.number - self.answered
        if unanswered <= 0:
            return self.pending
        turns = math.ceil((self.log.reached - self.reached) / hop)
        return self.pending + max(1, turns, unanswered // MANY)

    def write(self, commands: list[WorkerCommand]) -> int:
        """Append the commands to send; return their approximate size in bytes."""
        if self.has_left:
            return 0
        size = 0
        if not self.is_started:
            commands.append(WorkerCommand(self.name, self.log.start, self.log.base))
            self.is_started, self.sent = True, self.log.start
            size += len(self.log.base.packed or b"")
        for entry in self.log.after(self.sent):
            commands.append(WorkerCommand(self.name, entry.number, entry.do))
            size += _weight(entry.do)
        self.sent = self.log.number
        if self.wants_snapshot and not self.is_snapshot_requested:
            commands.append(WorkerCommand(self.name, self.sent, Move() if self.moving else Pack()))
            self.wants_snapshot, self.is_snapshot_requested, self.has_left = (
                False,
                True,
                self.moving,
            )
            size += PACKED
        return size

    def answer(self, number: int, pending: int) -> None:
        """Record what the worker has executed."""
        self.pending = pending
        entry = self.log.find(number)
        if entry is not None and number > self.answered:
            self.answered, self.reached = number, entry.reached

    def detach(self) -> None:
        """Unassign it from its worker: the state there is lost, or stored here as a snapshot.

        Steps that were pending on the worker still count until they are repeated.
        """
        self.worker, self.is_started, self.sent = None, False, self.log.start
        self.wants_snapshot = self.is_snapshot_requested = self.moving = self.has_left = False


def _weight(do: object) -> int:
    values = getattr(do.item, "values", None) if isinstance(do, Push) else None
    return 100 if values is None else 100 + int(values.nbytes)
