"""Pool of feature workers: assigns sessions to worker processes and reopens them after a crash.

Knows sessions by name, workers and their loss. Knows no picture, no sound and not what a process
runs; used by the event loop's thread alone.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ...aio.backoff import FIRST_PAUSE, longer
from ...core.errors import TamulagError
from ...core.sample import Input
from ...protocol.ingest import PlacedFrame, SenderHello
from ..session_faults import SessionFault
from .answers import BadAnswer
from .frame_queue import FrameQueue, QueuedSession
from .ipc import (
    Answer,
    CloseSession,
    FrameProcessed,
    OpenSession,
    PhraseRecognised,
    SessionClosed,
    SessionFailed,
    SessionOpened,
    Shed,
)
from .pipeline import PipelineConfig
from .process import STARTING, WorkerError, WorkerProcess

logger = logging.getLogger("tamulag.front")

LOST = "front_end_lost"

LAST = 4.0
"""Limit for a session's last frames, and for its last words, seconds."""

HEAVY_SESSIONS = 16
"""Most sessions of sound or pictures per worker; sessions of words alone are limited by load."""

SHOWN = 5.0
"""Seconds until a new session shows in a worker's measured load."""

COST, WORDS = 0.25, 0.03
"""Busy share of a worker per session of sound or pictures, and per session of words alone."""

STEADY = 10.0
"""Seconds of running after which the next restart needs no pause."""

Deliver = Callable[[str, list[Input]], None]
Notify = Callable[[str, str | None, str], None]
Fail = Callable[[str, Exception], None]


class PoolFull(TamulagError):
    """No worker has room for another session."""


@dataclass(eq=False)
class _WorkerSlot:
    """A worker and its sessions."""

    process: WorkerProcess
    queue: FrameQueue
    is_up: bool = False

    @property
    def heavy(self) -> int:
        """Number of its running sessions that send sound or pictures."""
        return sum(
            is_heavy(session.hello) and not session.is_ended for session in self.queue.sessions
        )


class FeatureWorkerPool:
    """Worker processes that turn the frames of sessions into inputs.

    Args:
        workers: Number of processes.
        config: Settings of their feature pipelines.
        deliver: Called with a session's name and new inputs.
        notify: Called with a session's name, a reason and a detail: `front_end_lost`, or None when
            its pipeline is open again.
        heavy_sessions: Most sessions per worker that send sound or pictures.
        fail: Called with a session whose frame broke its pipeline, or its worker, and the reason;
            must `end` it. None: it is tried again after a pause, as one that cannot be opened.
    """

    def __init__(
        self,
        *,
        workers: int,
        config: PipelineConfig,
        deliver: Deliver,
        notify: Notify,
        heavy_sessions: int = HEAVY_SESSIONS,
        fail: Fail | None = None,
    ) -> None:
        self._deliver = deliver
        self._notify = notify
        self._fail = fail
        self._limit = heavy_sessions
        processes = [WorkerProcess(f"front end {number}", config) for number in range(workers)]
        self._slots = [_WorkerSlot(process, FrameQueue(process.send)) for process in processes]
        self._sessions: dict[str, tuple[QueuedSession, _WorkerSlot]] = {}
        self._numbers = itertools.count()
        self._shed: tuple[str, ...] = ()

    @property
    def pids(self) -> list[int]:
        """Return the process ids of the running workers."""
        return [slot.process.pid for slot in self._slots if slot.process.pid is not None]

    async def open(self) -> None:
        """Start the workers, within 60 s.

        Raises:
            WorkerError: If one cannot be started; then none is left.
        """
        starts = [slot.process.start() for slot in self._slots]
        problems = await asyncio.gather(*starts, return_exceptions=True)
        for problem in filter(None, problems):
            await self.close()
            raise problem
        for slot in self._slots:
            slot.is_up = True

    async def run(self) -> None:
        """Read the workers' answers until cancelled; restart workers that end, and their sessions.

        Raises:
            ExceptionGroup: What `deliver` or `notify` raised.
        """
        async with asyncio.TaskGroup() as group:
            for slot in self._slots:
                group.create_task(self._supervise(slot))

    async def close(self) -> None:
        """End the workers, within some 2 s, busy or not; cancel `run` before."""
        for session, _ in self._sessions.values():
            session.stop()
        await asyncio.gather(*(slot.process.stop() for slot in self._slots))

    def begin(self, name: str, hello: SenderHello) -> None:
        """Open a session's pipeline at the worker with the fewest sessions.

        Without a running worker `notify` is called at once.

        Args:
            name: Of the session; not in use.
            hello: Of its sender; finished feature rows do not go through the pool.

        Raises:
            PoolFull: If no worker has room for another session of sound or pictures.
            ValueError: If the name is in use.
        """
        if name in self._sessions:
            raise ValueError(f"session {name!r} has begun already: end it first")
        free = self._free(hello)
        if not free:
            full = f"{len(self._slots)} workers with {self._limit} sessions each"
            raise PoolFull(f"no front end is free, {full}: try again later, or start more workers")
        slot = min(free, key=lambda slot: (not slot.is_up, len(slot.queue.sessions)))
        session = QueuedSession(name, hello)
        self._sessions[name] = (session, slot)
        slot.queue.sessions.append(session)
        if slot.is_up:
            self._open_pipeline(session, slot)
        else:
            self._lose(session, f"{slot.process.name} is being started again")

    def feed(self, name: str, placed: PlacedFrame) -> None:
        """Queue a frame; never waits. Beyond the bounds the oldest is dropped and counted.

        Of the sound queued before the pipeline is open only the last second is processed.

        Args:
            name: Of a session that was begun.
            placed: Sound or words (250 or 5 s are queued at most), or a picture (2 at most).

        Raises:
            KeyError: If the session was not begun.
        """
        session, slot = self._sessions[name]
        slot.queue.push(session, placed)

    def end(self, name: str) -> None:
        """Close a session's pipeline; queued frames are dropped.

        Its last words may be delivered within the next 3 s, unless the name is used again.
        """
        session, slot = self._sessions.pop(name)
        session.is_ended = True
        if session.number in slot.queue.numbers:
            slot.queue.stop(session)
            slot.process.send(CloseSession(session.number))
        else:
            slot.queue.remove(session)

    async def finish(self, name: str) -> None:
        """End a session after its queued frames are processed; wait for its last words.

        Each wait takes 4 s at most; then it is as with `end`.
        """
        session, slot = self._sessions[name]
        await _until(lambda: session.is_lost or not slot.queue.has_work(session))
        self.end(name)
        await _until(lambda: session not in slot.queue.sessions)

    def losses(self, name: str) -> dict[str, int]:
        """Return the losses so far: `text` phrases, `audio` and `asr` ticks, `vision` pictures."""
        return self._sessions[name][0].lost()

    def shed(self, steps: tuple[str, ...]) -> None:
        """Reduce the work of all sessions, also in workers that start later."""
        self._shed = steps
        for slot in self._slots:
            if slot.is_up:
                slot.process.send(Shed(steps))

    def waiting(self) -> float:
        """Return the largest queue of sound of a session, seconds."""
        return max((session.waiting() for session, _ in self._sessions.values()), default=0.0)

    def load(self) -> float:
        """Return the busy share of the busiest worker, 0..1; 1 if none is running.

        New sessions do not show in the measurement yet: their known cost is added.
        """
        return max((self._load(slot) for slot in self._slots if slot.is_up), default=1.0)

    def _load(self, slot: _WorkerSlot) -> float:
        new = [session for session in slot.queue.sessions if _now() - session.since < SHOWN]
        costs = [COST if is_heavy(session.hello) else WORDS for session in new]
        return min(1.0, slot.process.load + sum(costs))

    def has_room(self, hello: SenderHello) -> bool:
        """Return whether a worker has room for a session with that hello."""
        return bool(self._free(hello))

    def _free(self, hello: SenderHello) -> list[_WorkerSlot]:
        if not is_heavy(hello):
            return self._slots
        return [slot for slot in self._slots if slot.heavy < self._limit]

    async def _supervise(self, slot: _WorkerSlot) -> None:
        pause = 0.0
        while True:
            since = _now()
            why = await slot.process.run(partial(self._handle_message, slot))
            slot.is_up = False
            self._lose_all(slot, why)
            pause = _grown(pause, since)
            while not await self._restarted(slot, pause):
                pause = _grown(pause, _now())
            for session in [*slot.queue.sessions]:
                self._open_after(session, slot, session.pause)

    async def _restarted(self, slot: _WorkerSlot, pause: float) -> bool:
        await asyncio.sleep(pause)
        try:
            await slot.process.start()
        except WorkerError as error:
            logger.warning("%s; tried again in some seconds", error)
            return False
        slot.is_up = True
        slot.process.send(Shed(self._shed))
        logger.info("%s is back", slot.process.name)
        return True

    def _handle_message(self, slot: _WorkerSlot, answer: Answer) -> None:
        """Dispatch a worker's answer.

        Raises:
            BadAnswer: If it answers nothing that the worker was asked.
        """
        if isinstance(answer, FrameProcessed):
            slot.queue.mark_processed(answer)
            self._deliver_inputs(slot.queue.numbers.get(answer.number), answer.inputs)
        elif isinstance(answer, PhraseRecognised):
            self._deliver_inputs(slot.queue.numbers.get(answer.number), [answer.phrase])
        elif isinstance(answer, SessionOpened):
            self._opened(slot, answer.number)
        elif isinstance(answer, SessionFailed):
            self._failed(slot, answer)
        elif isinstance(answer, SessionClosed):
            self._closed(slot, answer)

    def _deliver_inputs(self, session: QueuedSession | None, inputs: list[Input]) -> None:
        # The name of an ended session may belong to a new one by now.
        if session and inputs and not (session.is_ended and session.name in self._sessions):
            self._deliver(session.name, inputs)

    def _opened(self, slot: _WorkerSlot, number: int) -> None:
        session = slot.queue.numbers.get(number)
        if session is None or session.is_open:
            raise BadAnswer(f"no session {number} is to be opened")
        if session.is_ended:
            return
        if session.timer:
            session.timer.cancel()
        if session.is_lost:
            session.is_lost = False
            self._notify(session.name, None, f"{slot.process.name} takes its frames")
        slot.queue.open(session)

    def _failed(self, slot: _WorkerSlot, answer: SessionFailed) -> None:
        session = slot.queue.numbers.pop(answer.number, None)
        if session and not session.is_ended and answer.is_by_frame and self._fail:
            slot.queue.stop(session)
            self._fail(session.name, SessionFault(answer.detail, answer.trace))
            return
        logger.error("%s: %s", slot.process.name, answer.trace)
        if session and session.is_ended:
            slot.queue.remove(session)
        elif session:
            slot.queue.stop(session)
            session.pause = max(_grown(session.pause, session.since), FIRST_PAUSE)
            self._lose(session, answer.detail)
            if not session.is_ended:  # by `notify`
                self._open_after(session, slot, session.pause)

    def _closed(self, slot: _WorkerSlot, answer: SessionClosed) -> None:
        if answer.problem:
            logger.error("%s: at the end of a session: %s", slot.process.name, answer.problem)
        session = slot.queue.numbers.get(answer.number)
        if session and not session.is_ended:
            raise BadAnswer(f"session {answer.number} was not to be closed")
        if session:
            slot.queue.remove(session)

    def _lose_all(self, slot: _WorkerSlot, why: str) -> None:
        logger.error("%s; %d sessions are without it", why, len(slot.queue.sessions))
        suspect = slot.queue.in_progress
        slot.queue.clear()
        for session in [*slot.queue.sessions]:
            if session is suspect and slot.process.ended_by_work and self._fail:
                self._fail(session.name, SessionFault(f"{why}, at a frame of this session", why))
                continue
            # The frame in progress may have caused it: its session restarts later each time.
            session.pause = _grown(session.pause, session.since) if session is suspect else 0.0
            self._lose(session, why)
            if session is not suspect and not session.is_ended:  # by `notify`
                self._move(session, slot)

    def _move(self, session: QueuedSession, slot: _WorkerSlot) -> None:
        """Let another worker go on with a session; without one it waits for its own."""
        others = [one for one in self._free(session.hello) if one.is_up and one is not slot]
        if others:
            target = min(others, key=lambda one: len(one.queue.sessions))
            slot.queue.remove(session)
            target.queue.sessions.append(session)
            self._sessions[session.name] = (session, target)
            self._open_pipeline(session, target)

    def _lose(self, session: QueuedSession, detail: str) -> None:
        session.is_lost = True
        self._notify(session.name, LOST, detail)

    def _open_after(self, session: QueuedSession, slot: _WorkerSlot, pause: float) -> None:
        loop = asyncio.get_running_loop()
        session.timer = loop.call_later(pause, self._open_pipeline, session, slot)

    def _open_pipeline(self, session: QueuedSession, slot: _WorkerSlot) -> None:
        """Send the order to open a session's pipeline; kill the worker if that takes too long."""
        session.number = next(self._numbers)
        session.since = _now()
        slot.queue.numbers[session.number] = session
        session.timer = asyncio.get_running_loop().call_later(STARTING, slot.process.kill)
        slot.process.send(OpenSession(session.number, session.hello))


def is_heavy(hello: SenderHello) -> bool:
    """Return whether a session sends sound or pictures, not only words."""
    return hello.audio is not None or hello.vision is not None


async def _until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, `LAST` seconds at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST):
            while not condition():  # noqa: ASYNC110 (bounded by the timeout)
                await asyncio.sleep(0.02)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _grown(pause: float, since: float) -> float:
    """Return the next pause: none after `STEADY` seconds of running, else a longer one."""
    return 0.0 if _now() - since > STEADY else longer(pause)
