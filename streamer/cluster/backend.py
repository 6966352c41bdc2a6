"""Sessions on many wings: the place behind a gateway.

Knows which wing a session is at, what to tell it, and how it goes on when its wing is lost or
another one is there: from its newest snapshot, with all that came since. What was said already is
recognised by its end and not said twice. Does not know who runs the wings.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from zlib import crc32

from ..core.commands import Advance, Close, Push, SessionCommand
from ..core.sample import Block, Input
from ..core.session_batch import BatchFull
from ..server.backend import ScoredStep
from .autoscaler import Autoscaler
from .command_log import CommandLog
from .remote_session import RemoteSession
from .session_worker import Answer, Begin, Leave, WorkerCommand
from .worker_pool import WorkerFactory, WorkerLost, WorkerPool, WorkerSlot

logger = logging.getLogger("tamulag.serve")

POLL = 0.03
"""Seconds between two calls to a wing that has answered, so that many sessions share one."""

HEARTBEAT = 1.0
"""Seconds after which a wing is called that nothing is to be told: is it still there?"""

SNAPSHOT = 4.0
"""Seconds of a session between two snapshots."""

ORDERS = 512
"""Orders after which a snapshot is asked for sooner."""

CALL = 4_000_000
"""About so many bytes has a call at most."""

LATE = 2.0
"""Seconds without an answer after which a session is told that it is degraded."""

STARTING = 90.0
"""Seconds until the first wing is there."""


class ClusterBackend:
    """A `Place` whose halls are elsewhere.

    Args:
        crew: Runs the wings.
        growth: Says how many.
        seats: Sessions at most.
        hop: Seconds between two scores.
        check: Raises `HandoverError` for packed bytes that no wing will take.
    """

    def __init__(
        self,
        crew: WorkerFactory,
        growth: Autoscaler,
        *,
        seats: int,
        hop: float,
        check: Callable[[bytes], None],
    ) -> None:
        self.staff = WorkerPool(crew, growth)
        self.tell: Callable[[str, str | None], None] = lambda name, reason: None
        """Is told which session is not answered for what reason; None: it is again."""
        self.moved = 0
        """Sessions that have moved by snapshot so far."""
        self.recovered = 0
        """Sessions that went on after their wing was lost."""
        self.repeated = 0
        """Scores that were computed again and not said."""
        self.dropped = 0
        """Inputs that were dropped, as too many waited for a wing."""
        self.anew = 0
        """Sessions that could not go on and began anew."""
        self._seats: dict[str, RemoteSession] = {}
        self._waiting: dict[str, None] = {}
        self._said: list[ScoredStep] = []
        self._room = seats
        self._hop = hop
        self._check = check

    async def open_wings(self) -> None:
        """Wait until a wing is there.

        Raises:
            WingLost: If none is there within `STARTING` seconds.
        """
        try:
            async with asyncio.timeout(STARTING):
                while not self.staff.posts:
                    await self._round()
        except TimeoutError:
            raise WorkerLost(
                f"no wing within {STARTING:g} s: each needs a processor of the Ray cluster "
                "(ray start --num-cpus) and the same version of this program on every node"
            ) from None

    async def close(self) -> None:
        """Let the wings go."""
        await self.staff.close()

    def open(self, name: str, asked: Collection[str], packed: bytes | None = None) -> None:
        """Begin a session, or let one go on; see `Place`."""
        if name in self._seats:
            raise ValueError(f"session {name} is here already: end it first, or take another name")
        if len(self._seats) >= self._room:
            raise BatchFull(f"all {self._room} seats are taken: try again later")
        if packed is not None:
            self._check(packed)
        elif self.staff.is_full:
            raise BatchFull("the wings are busy: try again later")
        first = SNAPSHOT * (crc32(name.encode()) % 1000) / 1000
        seat = RemoteSession(
            name=name, trail=CommandLog(Begin(tuple(asked), packed)), packs_at=first
        )
        self._seats[name] = seat
        self._settle(seat)

    def apply(self, name: str, command: SessionCommand) -> None:
        """Give a session a command; see `SessionBackend`."""
        seat = self._seats[name]
        if isinstance(command, Push) and seat.trail.number == 0 and seat.trail.base.packed:
            seat.reached = command.item.timestamp  # it continues from elsewhere
            seat.packs_at += command.item.timestamp
        self._give(seat, command)
        if seat.trail.reached >= seat.packs_at or len(seat.trail) % ORDERS == ORDERS - 1:
            self._want_pack(seat)

    def push(self, name: str, item: Input | Block) -> None:
        """Take one input of a session."""
        self.apply(name, Push(item))

    def advance(self, name: str, now: float) -> None:
        """Close hops that ended before `now - lateness`."""
        self.apply(name, Advance(now))

    def finish(self, name: str, now: float | None = None) -> None:
        """Close all that is still held."""
        self.apply(name, Close(now))

    def leave(self, name: str) -> None:
        """Forget a session; see `Place`."""
        seat = self._seats.pop(name)
        self._waiting.pop(name, None)
        if seat.post is not None:
            seat.post.seats.discard(name)
            seat.post.ready.pop(name, None)
            if seat.begun and not seat.gone:
                seat.post.leaving.append(name)

    def backlog(self, name: str) -> int:
        """Return about how many turns wait; see `Place`."""
        return self._seats[name].backlog(self._hop)

    @property
    def waiting(self) -> int:
        """How many sessions wait for an answer."""
        return len(self._waiting)

    async def turn(self) -> list[ScoredStep]:
        """Tell the wings what is new, and return what they said; waits for a tick at most."""
        await self._round()
        said, self._said = self._said, []
        return said

    def drain(self) -> None:
        """Ask the wings for all sessions; see `Place`."""
        for seat in self._seats.values():
            if seat.packed is None:
                self._want_pack(seat)

    async def pack(self, names: Collection[str]) -> dict[str, bytes]:
        """Ask the wings for these, and return those that have come; see `Place`."""
        for seat in [self._seats[name] for name in names]:
            if seat.packed is None:
                self._want_pack(seat)
        await self._round()
        unsaid = {said.name for said in self._said}
        there = [self._seats[name] for name in names if name in self._seats.keys() - unsaid]
        return {seat.name: packed for seat in there if (packed := seat.packed) is not None}

    def where(self, name: str) -> WorkerSlot | None:
        """Return the wing that a session is at."""
        return self._seats[name].post

    async def _round(self) -> None:
        now = time.monotonic()
        if self.staff.tend(now):
            self._place_all()
        self._tell_late(now)
        for post in self.staff.all:
            if post.call is None:
                self._call(post, now)
        calls = [post.call for post in self.staff.all if post.call is not None]
        if calls:
            await asyncio.wait(calls, timeout=POLL, return_when=asyncio.FIRST_COMPLETED)
        else:
            dues = [post.due - now for post in self.staff.all if post.ready]
            await asyncio.sleep(min(max(min(dues, default=POLL), 0.0), POLL))
        for post in self.staff.all:
            if post.call is not None and post.call.done():
                self._receive(post, post.call)

    def _call(self, post: WorkerSlot, now: float) -> None:
        """Send what there is, if it is time."""
        has_more = bool(post.ready or post.leaving)
        if now < post.due or not (has_more or now >= post.due + HEARTBEAT):
            return
        orders = [WorkerCommand(name, 0, Leave()) for name in post.leaving]
        post.leaving.clear()
        post.asked, size = {}, 0
        while post.ready and size < CALL:
            name = next(iter(post.ready))
            del post.ready[name]
            size += self._seats[name].write(orders)
            post.asked[name] = self._seats[name].sent
        post.due = now + POLL
        post.call = asyncio.create_task(post.remote.ask(orders), name=f"tamulag.{post.name}.call")

    def _receive(self, post: WorkerSlot, call: asyncio.Task[Answer]) -> None:
        """Take an answer; a session that has left meanwhile is not in it any more."""
        post.call = None
        try:
            answer = call.result()
        except WorkerLost as error:
            self._lose(post, error)
            return
        post.worked, post.process = answer.worked, answer.process
        self._hear(post, answer)
        for name in {*post.asked, *answer.left, *(spoken.name for spoken in answer.said)}:
            if (seat := self._at(post, name)) is not None:
                seat.answer(post.asked.get(name, 0), answer.left.get(name, 0))
                self._note(seat)
        for packed in answer.packed:
            if (seat := self._at(post, packed.name)) is not None:
                self._keep(seat, packed.number, packed.packed)
        for name, why in answer.failed.items():
            if (seat := self._at(post, name)) is not None:
                self._begin_anew(seat, why)
        if answer.left:
            post.ready.update(dict.fromkeys(name for name in answer.left if self._at(post, name)))
            post.due = 0.0

    def _hear(self, post: WorkerSlot, answer: Answer) -> None:
        now = time.monotonic()
        for spoken in answer.said:
            seat = self._at(post, spoken.name)
            if seat is None:
                continue
            if spoken.estimate.end <= seat.said:
                self.repeated += 1
                continue
            seat.said = spoken.estimate.end
            entry = seat.trail.find(spoken.number)
            waited = 0.0 if entry is None else now - entry.at
            self._said.append(ScoredStep(seat.name, spoken.estimate, waited, spoken.spent))

    def _at(self, post: WorkerSlot, name: str) -> RemoteSession | None:
        """Return a session if it is still the one that this wing was told of."""
        seat = self._seats.get(name)
        return seat if seat is not None and seat.post is post and seat.begun else None

    def _give(self, seat: RemoteSession, do: SessionCommand) -> None:
        if not seat.trail.add(do, time.monotonic(), sent=seat.sent):
            self.dropped += 1
            return
        self._note(seat)
        if seat.post is not None:
            seat.post.ready[seat.name] = None

    def _note(self, seat: RemoteSession) -> None:
        if seat.left or seat.trail.number > seat.answered:
            self._waiting[seat.name] = None
        else:
            self._waiting.pop(seat.name, None)

    def _want_pack(self, seat: RemoteSession) -> None:
        if seat.wants_pack or seat.packing:
            return
        seat.wants_pack = True
        if seat.post is not None:
            seat.post.ready[seat.name] = None

    def _keep(self, seat: RemoteSession, number: int, packed: bytes) -> None:
        """Keep a snapshot; a session that moves goes on from it elsewhere."""
        seat.trail.rebase(number, packed)
        seat.packing = False
        seat.packs_at = seat.trail.reached + SNAPSHOT
        if seat.gone:
            self.moved += 1
            self._rise(seat)
            self._settle(seat)
        elif seat.wants_pack and seat.post is not None:
            seat.post.ready[seat.name] = None

    def _begin_anew(self, seat: RemoteSession, why: str) -> None:
        """Let a session that no wing can take begin with nothing."""
        logger.error("session %s begins anew: %s", seat.name, why)
        self.anew += 1
        old = seat.trail
        self._rise(seat)
        seat.trail = CommandLog(Begin(old.base.asked))
        seat.sent = seat.answered = seat.left = 0
        seat.reached = old.reached
        self._note(seat)
        self._settle(seat)

    def _lose(self, post: WorkerSlot, why: WorkerLost) -> None:
        self.staff.lose(post, why)
        for name in list(post.seats):
            self.recovered += 1
            self._rise(self._seats[name])
            self._settle(self._seats[name])

    def _place_all(self) -> None:
        """Let each session move to where it belongs now."""
        for seat in self._seats.values():
            wanted = self.staff.post_for(seat.name)
            if seat.post is wanted or seat.moving:
                continue
            if seat.post is None or not seat.begun:
                self._rise(seat)
                self._settle(seat)
            elif wanted is not None:
                seat.moving = seat.wants_pack = True
                seat.post.ready[seat.name] = None

    def _rise(self, seat: RemoteSession) -> None:
        if seat.post is not None:
            seat.post.seats.discard(seat.name)
            seat.post.ready.pop(seat.name, None)
        seat.rise()

    def _settle(self, seat: RemoteSession) -> None:
        seat.post = self.staff.post_for(seat.name)
        if seat.post is not None:
            seat.post.seats.add(seat.name)
            seat.post.ready[seat.name] = None

    def _tell_late(self, now: float) -> None:
        """Say once of each session that it is not answered, and once that it is."""
        for seat in [self._seats[name] for name in self._waiting]:
            first = seat.trail.find(seat.answered + 1)
            if not seat.late and first is not None and now - first.at > LATE:
                seat.late = True
                self.tell(seat.name, "cluster_lost")
        for seat in self._seats.values():
            if seat.late and seat.name not in self._waiting:
                seat.late = False
                self.tell(seat.name, None)
