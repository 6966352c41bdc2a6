"""Sessions on many workers: the session backend of a gateway.

Knows each session's worker, its pending commands, and how it continues when its worker is lost or
another one is added: from its newest snapshot, with all later commands. Scores that were published
already are recognised by their end and dropped. Does not know what runs the workers.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from zlib import crc32

from ..core.commands import Push, SessionCommand
from ..core.session_batch import BatchFull
from ..service.backend import FailedStep, ScoredStep
from ..service.session_faults import SessionFault
from .autoscaler import Autoscaler
from .command_log import CommandLog
from .remote_session import RemoteSession
from .session_worker import Answer, Begin, Leave, WorkerCommand
from .worker_pool import WorkerFactory, WorkerLost, WorkerPool, WorkerSlot

logger = logging.getLogger("tamulag.serve")

POLL = 0.03
"""Least seconds between two calls to a worker, so that many sessions share one call."""

HEARTBEAT = 1.0
"""Heartbeat interval of an idle worker, seconds."""

SNAPSHOT = 4.0
"""Seconds of a session between two snapshots."""

MOST_COMMANDS = 512
"""Commands after which a snapshot is requested early."""

CALL_SIZE = 4_000_000
"""Approximate limit of a call, bytes."""

LATE = 2.0
"""Seconds without an answer after which a session is reported as degraded."""

STARTING = 90.0
"""Seconds granted to the first worker to start."""


class ClusterBackend:
    """A `SessionBackend` whose session batches run on workers.

    Args:
        factory: Starts the workers.
        autoscaler: Decides how many.
        seats: Most sessions.
        hop: Seconds between two scores.
        check: Raises `SnapshotError` for a snapshot that no worker would accept.
    """

    def __init__(
        self,
        factory: WorkerFactory,
        autoscaler: Autoscaler,
        *,
        seats: int,
        hop: float,
        check: Callable[[bytes], None],
    ) -> None:
        self.pool = WorkerPool(factory, autoscaler)
        self.report: Callable[[str, str | None], None] = lambda name, reason: None
        """Callback(session, reason): its worker stopped responding; None: it responds again."""
        self.moved = 0
        """Sessions that moved by snapshot so far."""
        self.recovered = 0
        """Sessions that continued after the loss of their worker."""
        self.repeated = 0
        """Scores that were computed again and not published."""
        self.dropped = 0
        """Inputs that were dropped because too many waited for a worker."""
        self.restarted = 0
        """Sessions that could not continue and were restarted without their state."""
        self._sessions: dict[str, RemoteSession] = {}
        self._waiting: dict[str, None] = {}
        self._scores: list[ScoredStep | FailedStep] = []
        self._capacity = seats
        self._hop = hop
        self._check = check

    async def start(self) -> None:
        """Wait for the first worker.

        Raises:
            WorkerLost: If none starts within `STARTING` seconds.
        """
        try:
            async with asyncio.timeout(STARTING):
                while not self.pool.workers:
                    await self._exchange()
        except TimeoutError:
            raise WorkerLost(
                f"no worker within {STARTING:g} s: each needs a processor of the Ray cluster "
                "(ray start --num-cpus) and the same version of this program on every node"
            ) from None

    async def close(self) -> None:
        """Release the workers."""
        await self.pool.close()

    def open(self, name: str, asked: Collection[str], packed: bytes | None = None) -> None:
        """Open or restore a session; see `SessionBackend`."""
        if name in self._sessions:
            raise ValueError(f"session {name} is here already: end it first, or take another name")
        if len(self._sessions) >= self._capacity:
            raise BatchFull(f"all {self._capacity} seats are taken: try again later")
        if packed is not None:
            self._check(packed)
        elif self.pool.is_full:
            raise BatchFull("the workers are busy: try again later")
        first = SNAPSHOT * (crc32(name.encode()) % 1000) / 1000
        session = RemoteSession(
            name=name, log=CommandLog(Begin(tuple(asked), packed)), snapshot_at=first
        )
        self._sessions[name] = session
        self._assign(session)

    def apply(self, name: str, command: SessionCommand) -> None:
        """Queue a command of a session; see `SessionBackend`."""
        session = self._sessions[name]
        if isinstance(command, Push) and session.log.number == 0 and session.log.base.packed:
            session.reached = command.item.timestamp  # it continues from elsewhere
            session.snapshot_at += command.item.timestamp
        self._queue(session, command)
        if (
            session.log.reached >= session.snapshot_at
            or len(session.log) % MOST_COMMANDS == MOST_COMMANDS - 1
        ):
            self._request_snapshot(session)

    def leave(self, name: str) -> None:
        """Drop a session; see `SessionBackend`."""
        session = self._sessions.pop(name)
        self._waiting.pop(name, None)
        if session.worker is not None:
            session.worker.sessions.discard(name)
            session.worker.ready.pop(name, None)
            if session.is_started and not session.has_left:
                session.worker.leaving.append(name)

    def backlog(self, name: str) -> int:
        """Return about how many steps are pending; see `SessionBackend`."""
        return self._sessions[name].backlog(self._hop)

    @property
    def waiting(self) -> int:
        """Number of sessions that wait for an answer."""
        return len(self._waiting)

    async def turn(self) -> list[ScoredStep | FailedStep]:
        """Exchange commands and answers with the workers; return new scores; waits for `POLL`."""
        await self._exchange()
        scores, self._scores = self._scores, []
        return scores

    def drain(self) -> None:
        """Request snapshots of all sessions; see `SessionBackend`."""
        for session in self._sessions.values():
            if session.packed is None:
                self._request_snapshot(session)

    async def pack(self, names: Collection[str]) -> dict[str, bytes | Exception]:
        """Request snapshots of these, and return those that are ready; see `SessionBackend`."""
        for session in [self._sessions[name] for name in names]:
            if session.packed is None:
                self._request_snapshot(session)
        await self._exchange()
        unpublished = {score.name for score in self._scores}
        there = [
            self._sessions[name] for name in names if name in self._sessions.keys() - unpublished
        ]
        return {session.name: packed for session in there if (packed := session.packed) is not None}

    def where(self, name: str) -> WorkerSlot | None:
        """Return the worker of a session."""
        return self._sessions[name].worker

    async def _exchange(self) -> None:
        now = time.monotonic()
        if self.pool.tend(now):
            self._reassign()
        self._report_late(now)
        for worker in self.pool.all:
            if worker.call is None:
                self._call(worker, now)
        calls = [worker.call for worker in self.pool.all if worker.call is not None]
        if calls:
            await asyncio.wait(calls, timeout=POLL, return_when=asyncio.FIRST_COMPLETED)
        else:
            dues = [worker.due - now for worker in self.pool.all if worker.ready]
            await asyncio.sleep(min(max(min(dues, default=POLL), 0.0), POLL))
        for worker in self.pool.all:
            if worker.call is not None and worker.call.done():
                self._receive(worker, worker.call)

    def _call(self, worker: WorkerSlot, now: float) -> None:
        """Send what is pending, if it is due."""
        has_more = bool(worker.ready or worker.leaving)
        if now < worker.due or not (has_more or now >= worker.due + HEARTBEAT):
            return
        commands = [WorkerCommand(name, 0, Leave()) for name in worker.leaving]
        worker.leaving.clear()
        worker.asked, size = {}, 0
        while worker.ready and size < CALL_SIZE:
            name = next(iter(worker.ready))
            del worker.ready[name]
            size += self._sessions[name].write(commands)
            worker.asked[name] = self._sessions[name].sent
        worker.due = now + POLL
        worker.call = asyncio.create_task(
            worker.remote.ask(commands), name=f"tamulag.{worker.name}.call"
        )

    def _receive(self, worker: WorkerSlot, call: asyncio.Task[Answer]) -> None:
        """Process an answer; sessions that have left meanwhile are skipped."""
        worker.call = None
        try:
            answer = call.result()
        except WorkerLost as error:
            self._lose(worker, error)
            return
        worker.worked, worker.process = answer.worked, answer.process
        self._add_scores(worker, answer)
        for name in {*worker.asked, *answer.pending, *(score.name for score in answer.scores)}:
            if (session := self._session_on(worker, name)) is not None:
                session.answer(worker.asked.get(name, 0), answer.pending.get(name, 0))
                self._update_waiting(session)
        for packed in answer.packed:
            if (session := self._session_on(worker, packed.name)) is not None:
                self._store_snapshot(session, packed.number, packed.packed)
        ended = dict(answer.ended)
        for name, why in answer.failed.items():
            if (session := self._session_on(worker, name)) is None:
                continue
            if name in ended:
                self._scores.append(FailedStep(name, SessionFault(why, ended[name])))
            else:
                self._restart(session, why)
        if answer.pending:
            worker.ready.update(
                dict.fromkeys(name for name in answer.pending if self._session_on(worker, name))
            )
            worker.due = 0.0

    def _add_scores(self, worker: WorkerSlot, answer: Answer) -> None:
        now = time.monotonic()
        for score in answer.scores:
            session = self._session_on(worker, score.name)
            if session is None:
                continue
            if score.estimate.end <= session.published:
                self.repeated += 1
                continue
            session.published = score.estimate.end
            entry = session.log.find(score.number)
            waited = 0.0 if entry is None else now - entry.at
            self._scores.append(ScoredStep(session.name, score.estimate, waited, score.spent))

    def _session_on(self, worker: WorkerSlot, name: str) -> RemoteSession | None:
        """Return a session if it is still the one that this worker runs."""
        session = self._sessions.get(name)
        return (
            session
            if session is not None and session.worker is worker and session.is_started
            else None
        )

    def _queue(self, session: RemoteSession, do: SessionCommand) -> None:
        if not session.log.add(do, time.monotonic(), sent=session.sent):
            self.dropped += 1
            return
        self._update_waiting(session)
        if session.worker is not None:
            session.worker.ready[session.name] = None

    def _update_waiting(self, session: RemoteSession) -> None:
        if session.pending or session.log.number > session.answered:
            self._waiting[session.name] = None
        else:
            self._waiting.pop(session.name, None)

    def _request_snapshot(self, session: RemoteSession) -> None:
        if session.wants_snapshot or session.is_snapshot_requested:
            return
        session.wants_snapshot = True
        if session.worker is not None:
            session.worker.ready[session.name] = None

    def _store_snapshot(self, session: RemoteSession, number: int, packed: bytes) -> None:
        """Store a snapshot; a moving session is assigned to its next worker."""
        session.log.rebase(number, packed)
        session.is_snapshot_requested = False
        session.snapshot_at = session.log.reached + SNAPSHOT
        if session.has_left:
            self.moved += 1
            self._detach(session)
            self._assign(session)
        elif session.wants_snapshot and session.worker is not None:
            session.worker.ready[session.name] = None

    def _restart(self, session: RemoteSession, why: str) -> None:
        """Restart a session that no worker can continue, without its state."""
        logger.error("session %s restarts without its state: %s", session.name, why)
        self.restarted += 1
        old = session.log
        self._detach(session)
        session.log = CommandLog(Begin(old.base.asked))
        session.sent = session.answered = session.pending = 0
        session.reached = old.reached
        self._update_waiting(session)
        self._assign(session)

    def _lose(self, worker: WorkerSlot, why: WorkerLost) -> None:
        self.pool.lose(worker, why)
        for name in list(worker.sessions):
            self.recovered += 1
            self._detach(self._sessions[name])
            self._assign(self._sessions[name])

    def _reassign(self) -> None:
        """Start to move each session whose assignment has changed."""
        for session in self._sessions.values():
            wanted = self.pool.worker_for(session.name)
            if session.worker is wanted or session.moving:
                continue
            if session.worker is None or not session.is_started:
                self._detach(session)
                self._assign(session)
            elif wanted is not None:
                session.moving = session.wants_snapshot = True
                session.worker.ready[session.name] = None

    def _detach(self, session: RemoteSession) -> None:
        if session.worker is not None:
            session.worker.sessions.discard(session.name)
            session.worker.ready.pop(session.name, None)
        session.detach()

    def _assign(self, session: RemoteSession) -> None:
        session.worker = self.pool.worker_for(session.name)
        if session.worker is not None:
            session.worker.sessions.add(session.name)
            session.worker.ready[session.name] = None

    def _report_late(self, now: float) -> None:
        """Report each session once when it is not answered, and once when it is again."""
        for session in [self._sessions[name] for name in self._waiting]:
            first = session.log.find(session.answered + 1)
            if not session.is_late and first is not None and now - first.at > LATE:
                session.is_late = True
                self.report(session.name, "cluster_lost")
        for session in self._sessions.values():
            if session.is_late and session.name not in self._waiting:
                session.is_late = False
                self.report(session.name, None)
