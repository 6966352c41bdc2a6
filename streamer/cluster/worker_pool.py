"""The wings of a cluster: hired, watched, drained and dismissed.

Knows how many there are, how busy, and which one a session belongs to. Knows no session's orders,
and not who runs the wings.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from ..core.errors import TamulagError
from .autoscaler import Autoscaler
from .hash_ring import HashRing
from .session_worker import Answer, WorkerCommand

logger = logging.getLogger("tamulag.serve")

MEASURED = 1.0
"""Seconds over which it is measured how busy a wing is."""

FULL = 0.85
"""Share of the time that all wings may work: beyond it nobody is let in."""

AGAIN = 1.0
"""Seconds until a wing is asked for again that could not be had."""


class WorkerLost(TamulagError):
    """A wing does not answer any more, or cannot be had; its sessions' states are gone."""


class Remote(Protocol):
    """A wing somewhere else."""

    async def ask(self, orders: Sequence[WorkerCommand]) -> Answer:
        """Return what came of the orders; one call at a time.

        Raises:
            WingLost: If it is gone.
        """

    def end(self) -> None:
        """Let it go; never waits."""


class WorkerFactory(Protocol):
    """Whoever runs wings."""

    async def hire(self) -> Remote:
        """Return a new wing that answers.

        Raises:
            WingLost: If none can be had now.
        """


@dataclass(kw_only=True, eq=False)
class WorkerSlot:
    """One wing, as its gateway sees it."""

    name: str
    remote: Remote
    seats: set[str] = field(default_factory=set)
    """Sessions that are there."""
    ready: dict[str, None] = field(default_factory=dict)
    """Those that have orders to be sent, in the order in which they came."""
    leaving: list[str] = field(default_factory=list)
    """Sessions that it is to forget."""
    call: asyncio.Task[Answer] | None = None
    """The call under way."""
    asked: dict[str, int] = field(default_factory=dict)
    """Number of each session's last order in that call."""
    due: float = 0.0
    """Steady clock before which the next call is not made."""
    worked: float = 0.0
    """Seconds that it has worked, as of its last answer."""
    busy: float = 0.0
    """Share of the time that it worked of late."""
    process: int = 0
    """Of the wing, on its node."""
    measured: float = 0.0
    """Steady clock of the newest look at how busy it is; 0: there was none."""
    worked_before: float = 0.0
    """Seconds that it had worked then."""


class WorkerPool:
    """All wings.

    Args:
        crew: Runs them.
        growth: Says how many there should be.
    """

    def __init__(self, crew: WorkerFactory, growth: Autoscaler) -> None:
        self.posts: dict[str, WorkerSlot] = {}
        """Those on which sessions are placed."""
        self.draining: list[WorkerSlot] = []
        """Those whose sessions move away."""
        self.lost = 0
        """Wings that were lost so far."""
        self._crew = crew
        self._growth = growth
        self._ring = HashRing()
        self._hiring: dict[str, asyncio.Task[Remote]] = {}
        self._next_hire = 0.0

    @property
    def all(self) -> list[WorkerSlot]:
        """Return every wing that is there."""
        return [*self.posts.values(), *self.draining]

    def post_for(self, session: str) -> WorkerSlot | None:
        """Return where a session belongs; None: no wing is there."""
        return self.posts[self._ring.place(session)] if self.posts else None

    def tend(self, now: float) -> bool:
        """Hire, measure, drain and dismiss; return whether sessions belong elsewhere than before.

        Args:
            now: Steady clock, seconds.
        """
        has_changed = self._join(now)
        self._measure(now)
        missing = self._growth.wanted - len(self.posts) - len(self._hiring)
        if missing > 0 and now >= self._next_hire:
            self._hire(missing)
        if len(self.posts) > self._growth.wanted:
            self._drain()
            has_changed = True
        for post in [post for post in self.draining if not post.seats and post.call is None]:
            self.draining.remove(post)
            post.remote.end()
        return has_changed

    def lose(self, post: WorkerSlot, why: WorkerLost) -> None:
        """Take note that a wing is gone; a new one is hired."""
        logger.warning("%s is lost, its %d sessions move: %s", post.name, len(post.seats), why)
        self.lost += 1
        if post in self.draining:
            self.draining.remove(post)
        else:
            del self.posts[post.name]
            self._ring.remove(post.name)
        post.remote.end()

    async def close(self) -> None:
        """Let all go."""
        calls = [post.call for post in self.all if post.call is not None]
        for task in (*self._hiring.values(), *calls):
            task.cancel()
        hired = await asyncio.gather(*self._hiring.values(), return_exceptions=True)
        await asyncio.gather(*calls, return_exceptions=True)
        there = [one for one in hired if not isinstance(one, BaseException)]
        for remote in (*there, *(post.remote for post in self.all)):
            remote.end()
        self._hiring.clear()
        self.posts.clear()
        self.draining.clear()

    def _join(self, now: float) -> bool:
        """Take in those who have been hired."""
        done = {name: task for name, task in self._hiring.items() if task.done()}
        for name, task in done.items():
            del self._hiring[name]
            try:
                remote = task.result()
            except WorkerLost as error:
                logger.warning("%s cannot be had, it is tried again: %s", name, error)
                self._next_hire = now + AGAIN
                continue
            self.posts[name] = WorkerSlot(name=name, remote=remote)
            self._ring.add(name)
            logger.info("%s is there", name)
        return any(name in self.posts for name in done)

    def _hire(self, missing: int) -> None:
        taken = {post.name for post in self.all} | self._hiring.keys()
        names = (name for name in (f"wing {number}" for number in count(1)) if name not in taken)
        for _, name in zip(range(missing), names, strict=False):
            self._hiring[name] = asyncio.create_task(self._crew.hire(), name=f"tamulag.{name}")

    def _measure(self, now: float) -> None:
        old = [post for post in self.posts.values() if now - post.measured >= MEASURED]
        for post in old:
            spent = post.worked - post.worked_before
            post.busy = spent / (now - post.measured) if post.measured else 0.0
            post.measured, post.worked_before = now, post.worked
        # While one is still awaited, the load of the others says nothing new.
        if old and len(self.posts) == self._growth.wanted:
            self._growth.observe(now, self.busy)

    @property
    def busy(self) -> float:
        """Return the mean share of the time that the wings worked of late."""
        return sum(post.busy for post in self.posts.values()) / max(1, len(self.posts))

    @property
    def is_full(self) -> bool:
        """Return whether the wings are too busy for one more session, and no more may be hired."""
        return len(self.posts) >= self._growth.most and self.busy > FULL

    def _drain(self) -> None:
        """Take the newest out of the ring."""
        name, post = self.posts.popitem()
        self._ring.remove(name)
        self.draining.append(post)
        logger.info("%s is drained of %d sessions", name, len(post.seats))
