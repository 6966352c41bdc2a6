"""Front ends in worker processes: who sits at which worker, and who begins again after a crash.

Knows sessions by name, workers and their loss. Knows no picture, no sound and no process from
inside; all of it is used by the event loop's thread alone.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ...aio.backoff import FIRST_PAUSE, LONGEST_PAUSE
from ...core.errors import TamulagError
from ...core.sample import Input
from ...protocol.ingest import PlacedFrame, SenderHello
from .frame_queue import FrameQueue, QueuedSession
from .ipc import Answer, Begin, Begun, End, Ended, Processed, Recognised, SessionFailed, Shed
from .pipeline import PipelineConfig
from .process import STARTING, WorkerError, WorkerProcess

logger = logging.getLogger("tamulag.front")

LOST = "front_end_lost"

LAST = 4.0
"""Seconds that the last frames of a session may take, and its last words."""

SEATS = 16
"""Sessions of a worker that send sound or pictures; those of words alone are few as its load says.
"""

SHOWN = 5.0
"""Seconds until a session shows in a worker's load."""

COST, WORDS = 0.25, 0.03
"""Share of a worker's time that a session of sound or pictures takes, and one of words alone."""

STEADY = 10.0
"""Seconds after which whoever began again counts as well, and needs no pause the next time."""

Deliver = Callable[[str, list[Input]], None]
Tell = Callable[[str, str | None, str], None]


class PoolFull(TamulagError):
    """No worker may take another session."""


@dataclass(eq=False)
class _WorkerSlot:
    """A worker, and who sits there."""

    child: WorkerProcess
    desk: FrameQueue
    is_up: bool = False

    @property
    def heavy(self) -> int:
        """How many of them send sound or pictures, without those whose last words are awaited."""
        return sum(is_heavy(seat.hello) and not seat.is_ended for seat in self.desk.seats)


class FeatureWorkerPool:
    """Worker processes that turn the frames of sessions into inputs.

    Args:
        workers: Processes.
        front: What each of them builds.
        deliver: Called with a session's name and new inputs.
        tell: Called with a session's name, `front_end_lost` and why; with None when it is well
            again.
        seats: Sessions of a worker that send sound or pictures.
    """

    def __init__(
        self,
        *,
        workers: int,
        front: PipelineConfig,
        deliver: Deliver,
        tell: Tell,
        seats: int = SEATS,
    ) -> None:
        self._deliver = deliver
        self._tell = tell
        self._limit = seats
        children = [WorkerProcess(f"front end {number}", front) for number in range(workers)]
        self._posts = [_WorkerSlot(child, FrameQueue(child.send)) for child in children]
        self._seats: dict[str, tuple[QueuedSession, _WorkerSlot]] = {}
        self._numbers = itertools.count()
        self._shed: tuple[str, ...] = ()

    @property
    def pids(self) -> list[int]:
        """Return the process ids of the workers that are there."""
        return [post.child.pid for post in self._posts if post.child.pid is not None]

    async def open(self) -> None:
        """Start the workers; they have 60 s.

        Raises:
            WorkerError: If one cannot be started; then none is left.
        """
        starts = [post.child.start() for post in self._posts]
        problems = await asyncio.gather(*starts, return_exceptions=True)
        for problem in filter(None, problems):
            await self.close()
            raise problem
        for post in self._posts:
            post.is_up = True

    async def run(self) -> None:
        """Hear the workers until cancelled; start again whichever is gone, with its sessions.

        Raises:
            ExceptionGroup: What `deliver` or `tell` raised.
        """
        async with asyncio.TaskGroup() as group:
            for post in self._posts:
                group.create_task(self._keep(post))

    async def close(self) -> None:
        """End the workers, within some 2 s, busy or not; `run` was cancelled before."""
        for seat, _ in self._seats.values():
            seat.stop()
        await asyncio.gather(*(post.child.stop() for post in self._posts))

    def begin(self, session: str, hello: SenderHello) -> None:
        """Open front ends for what a hello offers, at the worker with the fewest sessions.

        Where no worker is up `tell` is called at once.

        Args:
            session: A name that is not in use.
            hello: Of its sender; ready feature rows are not the pool's.

        Raises:
            PoolFull: If no worker may take another session of sound or pictures.
            ValueError: If the name is in use.
        """
        if session in self._seats:
            raise ValueError(f"session {session!r} has begun already: end it first")
        free = self._free(hello)
        if not free:
            full = f"{len(self._posts)} workers with {self._limit} sessions each"
            raise PoolFull(f"no front end is free, {full}: try again later, or start more workers")
        post = min(free, key=lambda post: (not post.is_up, len(post.desk.seats)))
        seat = QueuedSession(session, hello)
        self._seats[session] = (seat, post)
        post.desk.seats.append(seat)
        if post.is_up:
            self._enter(seat, post)
        else:
            self._lose(seat, f"{post.child.name} is being started again")

    def feed(self, session: str, placed: PlacedFrame) -> None:
        """Take a frame; never waits. When too many wait the oldest is dropped and counted.

        Of what waited for the front ends themselves the last second of sound is kept.

        Args:
            session: It has begun; KeyError if not.
            placed: Sound or words, of which 250 or 5 s may wait, or a picture, of which 2 may.
        """
        seat, post = self._seats[session]
        post.desk.feed(seat, placed)

    def end(self, session: str) -> None:
        """Close the front ends of a session; what still waits is dropped.

        Its last words may be delivered within the next 3 s, unless the name is used again.
        """
        seat, post = self._seats.pop(session)
        seat.is_ended = True
        if seat.number in post.desk.numbers:
            post.desk.stop(seat)
            post.child.send(End(seat.number))
        else:
            post.desk.leave(seat)

    async def finish(self, session: str) -> None:
        """End a session once all that waits has been worked on and its last words have come.

        Waits for some seconds at most; then it is as with `end`.
        """
        seat, post = self._seats[session]
        await _until(lambda: seat.is_lost or not post.desk.has_work(seat))
        self.end(session)
        await _until(lambda: seat not in post.desk.seats)

    def losses(self, session: str) -> dict[str, int]:
        """Return what was lost so far: phrases of `text`, ticks of `audio` and `asr`, `vision`."""
        return self._seats[session][0].lost()

    def shed(self, steps: tuple[str, ...]) -> None:
        """Give up work in all sessions; workers that start later do too."""
        self._shed = steps
        for post in self._posts:
            if post.is_up:
                post.child.send(Shed(steps))

    def waiting(self) -> float:
        """Return the longest seconds of sound of one session that wait for a worker."""
        return max((seat.waiting() for seat, _ in self._seats.values()), default=0.0)

    def load(self) -> float:
        """Return the share of time in which the busiest worker is busy, 0..1; 1: none is up.

        Who has just begun does not show in it yet, and is counted with what one is known to cost.
        """
        return max((self._load(post) for post in self._posts if post.is_up), default=1.0)

    def _load(self, post: _WorkerSlot) -> float:
        new = [seat for seat in post.desk.seats if _now() - seat.since < SHOWN]
        costs = [COST if is_heavy(seat.hello) else WORDS for seat in new]
        return min(1.0, post.child.load + sum(costs))

    def has_room(self, hello: SenderHello) -> bool:
        """Return whether a worker may take a session with that hello."""
        return bool(self._free(hello))

    def _free(self, hello: SenderHello) -> list[_WorkerSlot]:
        if not is_heavy(hello):
            return self._posts
        return [post for post in self._posts if post.heavy < self._limit]

    async def _keep(self, post: _WorkerSlot) -> None:
        pause = 0.0
        while True:
            since = _now()
            why = await post.child.run(partial(self._heed, post))
            post.is_up = False
            self._lose_all(post, why)
            pause = _grown(pause, since)
            while not await self._starts(post, pause):
                pause = _grown(pause, _now())
            for seat in post.desk.seats:
                self._enter_after(seat, post, seat.pause)

    async def _starts(self, post: _WorkerSlot, pause: float) -> bool:
        await asyncio.sleep(pause)
        try:
            await post.child.start()
        except WorkerError as error:
            logger.warning("%s; tried again in some seconds", error)
            return False
        post.is_up = True
        post.child.send(Shed(self._shed))
        logger.info("%s is back", post.child.name)
        return True

    def _heed(self, post: _WorkerSlot, answer: Answer) -> None:
        """Do what an answer asks for."""
        if isinstance(answer, Processed):
            post.desk.taken(answer)
            self._hand_over(post.desk.numbers.get(answer.number), answer.inputs)
        elif isinstance(answer, Recognised):
            self._hand_over(post.desk.numbers.get(answer.number), [answer.phrase])
        elif isinstance(answer, Begun):
            self._begun(post, answer.number)
        elif isinstance(answer, SessionFailed):
            self._broken(post, answer)
        elif isinstance(answer, Ended):
            self._ended(post, answer)

    def _hand_over(self, seat: QueuedSession | None, inputs: list[Input]) -> None:
        # Of a session that has ended, the name may stand for another one by now.
        if seat and inputs and not (seat.is_ended and seat.name in self._seats):
            self._deliver(seat.name, inputs)

    def _begun(self, post: _WorkerSlot, number: int) -> None:
        seat = post.desk.numbers[number]
        if seat.is_ended:
            return
        if seat.timer:
            seat.timer.cancel()
        if seat.is_lost:
            seat.is_lost = False
            self._tell(seat.name, None, f"{post.child.name} is back")
        post.desk.open(seat)

    def _broken(self, post: _WorkerSlot, answer: SessionFailed) -> None:
        logger.error("%s: %s", post.child.name, answer.trace)
        seat = post.desk.numbers.pop(answer.number, None)
        if seat and seat.is_ended:
            post.desk.leave(seat)
        elif seat:
            post.desk.stop(seat)
            seat.pause = max(_grown(seat.pause, seat.since), FIRST_PAUSE)
            self._lose(seat, answer.detail)
            self._enter_after(seat, post, seat.pause)

    def _ended(self, post: _WorkerSlot, answer: Ended) -> None:
        if answer.problem:
            logger.error("%s: at the end of a session: %s", post.child.name, answer.problem)
        seat = post.desk.numbers.get(answer.number)
        if seat:
            post.desk.leave(seat)

    def _lose_all(self, post: _WorkerSlot, why: str) -> None:
        logger.error("%s; %d sessions are without it", why, len(post.desk.seats))
        suspect = post.desk.at_work
        post.desk.clear()
        for seat in post.desk.seats:
            # Whoever's frame it was may do it again: its neighbours get a longer peace each time.
            seat.pause = _grown(seat.pause, seat.since) if seat is suspect else 0.0
            self._lose(seat, why)

    def _lose(self, seat: QueuedSession, detail: str) -> None:
        seat.is_lost = True
        self._tell(seat.name, LOST, detail)

    def _enter_after(self, seat: QueuedSession, post: _WorkerSlot, pause: float) -> None:
        loop = asyncio.get_running_loop()
        seat.timer = loop.call_later(pause, self._enter, seat, post)

    def _enter(self, seat: QueuedSession, post: _WorkerSlot) -> None:
        """Ask the worker for a session's front ends; a worker that takes too long is ended."""
        seat.number = next(self._numbers)
        seat.since = _now()
        post.desk.numbers[seat.number] = seat
        seat.timer = asyncio.get_running_loop().call_later(STARTING, post.child.kill)
        post.child.send(Begin(seat.number, seat.hello))


def is_heavy(hello: SenderHello) -> bool:
    """Return whether a session sends sound or pictures, not words alone."""
    return hello.audio is not None or hello.vision is not None


async def _until(is_so: Callable[[], bool]) -> None:
    """Wait for `LAST` seconds at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST):
            while not is_so():  # noqa: ASYNC110 (bounded by the timeout)
                await asyncio.sleep(0.02)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _grown(pause: float, since: float) -> float:
    """Return the next pause: none after ten good seconds, else twice the last one, up to 4 s."""
    return 0.0 if _now() - since > STEADY else min(max(2 * pause, FIRST_PAUSE), LONGEST_PAUSE)
