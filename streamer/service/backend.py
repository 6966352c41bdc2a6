"""Where the sessions' states are: what the server asks of it, and the one in this process.

Knows a batch of sessions and the weights' name. Knows no connection; `cluster.backend` has the one
on many machines.
"""

import time
from collections.abc import Collection
from itertools import islice
from typing import NamedTuple, Protocol

from ..core.commands import SessionCommand
from ..core.estimate import Estimate
from ..core.session_batch import SessionBatch
from ..core.snapshot import dump, restore

SNAPSHOTS = 16
"""Sessions that are dumped at a time: some 6 ms, in which nothing else is done."""


class ScoredStep(NamedTuple):
    """One session's estimate of one step."""

    name: str
    estimate: Estimate
    waited: float
    """Seconds since all that the step needs was there."""
    spent: float
    """Seconds of the model, its share of the step."""


class FailedStep(NamedTuple):
    """A session that cannot go on, and why; the others do."""

    name: str
    error: Exception


class SessionBackend(Protocol):
    """Sessions, wherever their state is.

    All is called on the event loop, and nothing but `turn` and `pack` waits.
    """

    def open(self, name: str, asked: Collection[str], packed: bytes | None = None) -> None:
        """Start a session, or continue one that `pack` has returned.

        Raises:
            BatchFull: If no slot is free.
            SnapshotError: If it cannot continue; then it has not started either.
        """

    def apply(self, name: str, command: SessionCommand) -> None:
        """Give a session a command; its estimates come out of `turn`."""

    def leave(self, name: str) -> None:
        """Forget a session."""

    def backlog(self, name: str) -> int:
        """Return how many steps of a session are pending."""

    async def turn(self) -> list[ScoredStep | FailedStep]:
        """Run one step for each waiting session; return the estimates, in order per session.

        A session whose step failed is to `leave`.
        """

    def drain(self) -> None:
        """Prepare to pack all sessions: from now on finish one before the next."""

    async def pack(self, names: Collection[str]) -> dict[str, bytes | Exception]:
        """Return some of these sessions as bytes, by name; ask again for the others.

        A session with pending steps or unpublished estimates is not among them. One that cannot
        be packed is there as the reason.
        """

    @property
    def waiting(self) -> int:
        """How many sessions wait for a step."""


class LocalBackend:
    """The sessions of this process.

    Args:
        batch: Has the sessions.
        checkpoint: What identifies the weights.
    """

    def __init__(self, batch: SessionBatch, checkpoint: str) -> None:
        self._batch = batch
        self._checkpoint = checkpoint
        self.backlog = batch.backlog
        self.drain = batch.drain
        self.leave = batch.remove

    def open(self, name: str, asked: Collection[str], packed: bytes | None = None) -> None:
        """Start a session, or continue one; see `SessionBackend`."""
        if packed is None:
            self._batch.open(name, asked)
        else:
            restore(self._batch, name, packed, self._checkpoint)

    def apply(self, name: str, command: SessionCommand) -> None:
        """Give a session a command; see `SessionBackend`."""
        self._batch.apply(name, command, tag=time.monotonic())

    async def turn(self) -> list[ScoredStep | FailedStep]:
        """Step; see `SessionBackend`."""
        before = time.monotonic()
        failed: dict[str, Exception] = {}
        scored = self._batch.step(failed)
        now = time.monotonic()
        spent = (now - before) / max(1, len(scored))
        steps = [ScoredStep(one.name, one.estimate, now - one.tag, spent) for one in scored]
        return [*steps, *(FailedStep(name, error) for name, error in failed.items())]

    async def pack(self, names: Collection[str]) -> dict[str, bytes | Exception]:
        """Return `SNAPSHOTS` sessions at most as bytes; see `SessionBackend`."""
        ready = islice((name for name in names if not self.backlog(name)), SNAPSHOTS)
        return {name: self._packed(name) for name in ready}

    def _packed(self, name: str) -> bytes | Exception:
        try:
            return dump(self._batch, name, self._checkpoint)
        except Exception as error:  # one session's; the others are packed
            return error

    @property
    def waiting(self) -> int:
        """How many sessions wait for a step."""
        return self._batch.waiting
