"""The workers of a cluster: started, measured, drained and stopped.

Knows their number, load and the assignment of sessions. Knows no session's commands and not what
runs the workers.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import count
from typing import Protocol

from ..core.errors import TamulagError
from .autoscaler import Autoscaler
from .session_worker import Answer, WorkerCommand

logger = logging.getLogger("tamulag.serve")

MEASURE_INTERVAL = 1.0
"""Seconds over which a worker's load is measured."""

FULL_LOAD = 0.85
"""Mean load of all workers above which new sessions are refused."""

RETRY_DELAY = 1.0
"""Seconds until another attempt to start a worker."""


class WorkerLost(TamulagError):
    """A worker does not answer any more, or cannot be started; its sessions' states are lost."""


class Remote(Protocol):
    """Handle of a worker in another process."""

    async def ask(self, commands: Sequence[WorkerCommand]) -> Answer:
        """Execute commands and return their results; one call at a time.

        Raises:
            WorkerLost: If it is gone.
        """

    def end(self) -> None:
        """Release it; never waits."""


class WorkerFactory(Protocol):
    """Starts workers."""

    async def start(self) -> Remote:
        """Return a new worker that answers.

        Raises:
            WorkerLost: If none can be started now.
        """


@dataclass(kw_only=True, eq=False)
class WorkerSlot:
    """One worker, as its gateway sees it."""

    name: str
    remote: Remote
    sessions: set[str] = field(default_factory=set)
    """Sessions assigned to it."""
    ready: dict[str, None] = field(default_factory=dict)
    """Sessions with commands to send, in order of arrival."""
    leaving: list[str] = field(default_factory=list)
    """Sessions that it is to drop."""
    call: asyncio.Task[Answer] | None = None
    """The call in flight."""
    asked: dict[str, int] = field(default_factory=dict)
    """Number of each session's last command in that call."""
    due: float = 0.0
    """Monotonic clock before which no further call is made."""
    worked: float = 0.0
    """Seconds spent in calls, as of its last answer."""
    busy: float = 0.0
    """Recent share of the time spent in calls."""
    process: int = 0
    """Process id on its node."""
    measured: float = 0.0
    """Monotonic clock of the newest load measurement; 0: none yet."""
    worked_before: float = 0.0
    """`worked` at that time."""


class WorkerPool:
    """All workers.

    Args:
        factory: Starts them.
        autoscaler: Decides how many are wanted.
    """

    def __init__(self, factory: WorkerFactory, autoscaler: Autoscaler) -> None:
        self.workers: dict[str, WorkerSlot] = {}
        """Workers that sessions are assigned to."""
        self.draining: list[WorkerSlot] = []
        """Workers whose sessions are moving away."""
        self.lost = 0
        """Number of workers lost so far."""
        self._factory = factory
        self._autoscaler = autoscaler
        self._starting: dict[str, asyncio.Task[Remote]] = {}
        self._next_start = 0.0

    @property
    def all(self) -> list[WorkerSlot]:
        """Every worker, draining ones included."""
        return [*self.workers.values(), *self.draining]

    def worker_for(self, session: str) -> WorkerSlot | None:
        """Return the worker that a session is assigned to; None: there is none."""
        return self.workers[assigned(session, self.workers)] if self.workers else None

    def tend(self, now: float) -> bool:
        """Start, measure, drain and stop workers; return whether assignments have changed.

        Args:
            now: Monotonic clock, seconds.
        """
        has_changed = self._add_started(now)
        self._measure(now)
        missing = self._autoscaler.wanted - len(self.workers) - len(self._starting)
        if missing > 0 and now >= self._next_start:
            self._start(missing)
        if len(self.workers) > self._autoscaler.wanted:
            self._drain()
            has_changed = True
        for worker in [
            worker for worker in self.draining if not worker.sessions and worker.call is None
        ]:
            self.draining.remove(worker)
            worker.remote.end()
        return has_changed

    def lose(self, worker: WorkerSlot, why: WorkerLost) -> None:
        """Remove a lost worker; `tend` starts a new one."""
        logger.warning(
            "%s is lost, its %d sessions move: %s", worker.name, len(worker.sessions), why
        )
        self.lost += 1
        if worker in self.draining:
            self.draining.remove(worker)
        else:
            del self.workers[worker.name]
        worker.remote.end()

    async def close(self) -> None:
        """Release all workers."""
        calls = [worker.call for worker in self.all if worker.call is not None]
        for task in (*self._starting.values(), *calls):
            task.cancel()
        hired = await asyncio.gather(*self._starting.values(), return_exceptions=True)
        await asyncio.gather(*calls, return_exceptions=True)
        there = [one for one in hired if not isinstance(one, BaseException)]
        for remote in (*there, *(worker.remote for worker in self.all)):
            remote.end()
        self._starting.clear()
        self.workers.clear()
        self.draining.clear()

    def _add_started(self, now: float) -> bool:
        """Add the workers that have started."""
        done = {name: task for name, task in self._starting.items() if task.done()}
        for name, task in done.items():
            del self._starting[name]
            try:
                remote = task.result()
            except WorkerLost as error:
                logger.warning("%s did not start, it is tried again: %s", name, error)
                self._next_start = now + RETRY_DELAY
                continue
            self.workers[name] = WorkerSlot(name=name, remote=remote)
            logger.info("%s has started", name)
        return any(name in self.workers for name in done)

    def _start(self, missing: int) -> None:
        taken = {worker.name for worker in self.all} | self._starting.keys()
        names = (name for name in (f"worker {number}" for number in count(1)) if name not in taken)
        for _, name in zip(range(missing), names, strict=False):
            self._starting[name] = asyncio.create_task(
                self._factory.start(), name=f"tamulag.{name}"
            )

    def _measure(self, now: float) -> None:
        old = [
            worker for worker in self.workers.values() if now - worker.measured >= MEASURE_INTERVAL
        ]
        for worker in old:
            spent = worker.worked - worker.worked_before
            worker.busy = spent / (now - worker.measured) if worker.measured else 0.0
            worker.measured, worker.worked_before = now, worker.worked
        # While a worker is still starting, the load of the others gives no new information.
        if old and len(self.workers) == self._autoscaler.wanted:
            self._autoscaler.observe(now, self.busy)

    @property
    def busy(self) -> float:
        """Mean recent load of the workers, 0 to 1."""
        return sum(worker.busy for worker in self.workers.values()) / max(1, len(self.workers))

    @property
    def is_full(self) -> bool:
        """Whether the workers are too busy for one more session, and no more may be started."""
        return len(self.workers) >= self._autoscaler.most and self.busy > FULL_LOAD

    def _drain(self) -> None:
        """Take the newest worker out of service."""
        name, worker = self.workers.popitem()
        self.draining.append(worker)
        logger.info("%s is drained of %d sessions", name, len(worker.sessions))


def assigned(key: str, names: Iterable[str]) -> str:
    """Return the name that a key is assigned to, the same in every process.

    Rendezvous hashing (Thaler and Ravishankar 1998): when a name comes or goes, only the keys
    assigned to it move.

    Raises:
        ValueError: If there is no name.
    """
    return max(names, key=lambda name: blake2b(f"{name} {key}".encode(), digest_size=8).digest())
