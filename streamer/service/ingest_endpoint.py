"""Admit the senders of a server and receive what each sends until it leaves.

Knows the WebSocket connections of many senders and when to close each. What frames hold is known to
protocol/ingest.py, and what becomes of them to the registry and the feature workers.
"""

import asyncio
import json
import logging
import secrets
import time
from contextlib import aclosing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Protocol

from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from ..core.sample import MODALITIES, Block, Modality, Sample
from ..core.session_batch import BatchFull
from ..core.snapshot import SnapshotError
from ..protocol.ingest import FeaturesHeader, IngestError, PlacedFrame, SenderHello, parse_hello
from ..protocol.messages import Role
from ..sources.remote import SenderClock, offered_modalities
from ..webserver.connection import Connection, text_frame
from .admission import LATER, RETRY, Admission
from .receiving import HELLO, PATIENCE, SenderLimits, frames, span_of, within
from .session import ServerSession
from .sessions import POLL, SessionRegistry
from .snapshot_store import SnapshotStore, StoredSnapshot

logger = logging.getLogger("tamulag.serve")

LEAP = 60.0
"""Seconds that a sender's own session time may leap: each hop in between is scored."""

HAND_OVER, CLOSING = 1.8, 0.5
"""Seconds in which sessions are handed over, and in which senders answer the close frame."""

ANOTHER = "resume with the hello that the session began with"

POLICY, RESTART = CloseCode.POLICY_VIOLATION, CloseCode.SERVICE_RESTART


class FeatureWorkers(Protocol):
    """What turns sound and pictures into features; see `FeatureWorkerPool`."""

    def begin(self, session: str, hello: SenderHello) -> None:
        """Begin a session."""

    def feed(self, session: str, placed: PlacedFrame) -> None:
        """Take a frame; never waits."""

    def end(self, session: str) -> None:
        """End a session."""

    async def finish(self, session: str) -> None:
        """End a session when all of its frames are processed."""

    def losses(self, session: str) -> dict[str, int]:
        """Return what was lost."""

    def load(self) -> float:
        """Return how busy the busiest worker is, 0 to 1."""

    def has_room(self, hello: SenderHello) -> bool:
        """Return whether a session with that hello may begin."""


@dataclass(frozen=True, kw_only=True)
class ServerPolicy:
    """The terms on which senders are served.

    Attributes:
        subject: Role of the person that the sessions are about.
        server: Name of the server itself, which no session may have.
        listens: Whether a recogniser of ours makes words of sound.
        limits: For each sender.
        timing: For `ready`: window and hop, in seconds.
    """

    subject: Role
    server: str
    listens: bool
    limits: SenderLimits
    timing: dict[str, float]


class IngestEndpoint:
    """Receive many senders at a time.

    Args:
        registry: The sessions.
        workers: Describe sound, pictures and words; None: only ready features are accepted.
        admission: Decides whether one more has room.
        policy: For each sender.
        store: Snapshots of an earlier server's sessions; None: sessions are not handed over.
    """

    def __init__(
        self,
        registry: SessionRegistry,
        workers: FeatureWorkers | None,
        admission: Admission,
        policy: ServerPolicy,
        *,
        store: SnapshotStore | None = None,
    ) -> None:
        self._registry = registry
        self._workers = workers
        self._admission = admission
        self._policy = policy
        self._store = store
        self._senders: dict[str, Connection] = {}
        self._with_workers: set[str] = set()  # sessions that the workers know
        self._ending: set[str] = set()  # sessions whose sender sends nothing more
        self._draining = False
        self._closing: set[asyncio.Task[None]] = set()

    async def receive(self, connection: Connection) -> None:
        """Receive until the sender leaves, or is closed with a code and a reason."""
        try:
            hello = parse_hello(await within(HELLO, connection, "no hello"), self._policy.subject)
            session, resumed = self._admit(connection, hello)
        except IngestError as error:
            logger.warning("sender %s: %s", connection.peer, error)
            await connection.close(error.code, str(error))
            return
        except ConnectionClosed:
            return
        code, detail = CloseCode.NORMAL_CLOSURE, "the sender has left"
        try:
            self._begin(connection, session, hello, resumed=resumed)
            await self._listen(connection, session, hello)
            await self._end(session)
        except IngestError as error:
            logger.warning("sender %s of %s: %s", connection.peer, session.name, error)
            code, detail = CloseCode(error.code), str(error)
        except ConnectionClosed:
            logger.info("sender %s of %s has left", connection.peer, session.name)
        finally:
            self._detach(connection, session, detail)
        await connection.close(code, detail)

    async def drain(self, limit: float = HAND_OVER) -> None:
        """Refuse new senders, store the sessions for the next server, and close every sender.

        Senders are not read meanwhile. Each is closed with 1012 as soon as its session is stored;
        after the limit all the others are, and those that do not answer are cut.

        Args:
            limit: Seconds; sessions that are not stored by then start fresh elsewhere.
        """
        self._draining = self._registry.is_draining = True
        for sender in self._senders.values():
            sender.transport.pause_reading()
        try:
            async with asyncio.timeout(limit):
                await self._hand_over_all()
        except TimeoutError:
            left = len(self._registry.open)
            logger.warning("%d sessions start fresh: not handed over within %g s", left, limit)
        finally:
            for session in self._registry.close_all():
                if session.name in self._senders:
                    _cut(self._senders[session.name], "restart: your session begins anew")
        if self._closing:
            await asyncio.wait(self._closing, timeout=CLOSING)

    async def _hand_over_all(self) -> None:
        if self._store is None:
            while self._registry.backend.waiting:  # noqa: ASYNC110 (`drain` has a limit)
                await asyncio.sleep(POLL)
            return
        async with aclosing(self._registry.hand_over(partial(_save, self._store))) as ended:
            async for session, goes_on in ended:
                how = "connect again, with your resume key" if goes_on else "not handed over"
                self._close_sender(session, f"restart: {how}")

    def _close_sender(self, session: ServerSession, reason: str) -> None:
        """Close the sender of a session that has ended."""
        sender = self._senders.get(session.name)
        if sender is not None:
            task = asyncio.create_task(_close(sender, reason), name="tamulag.restart")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _admit(self, connection: Connection, hello: SenderHello) -> tuple[ServerSession, bool]:
        """Return the session of a sender, and whether it goes on with an earlier one.

        Raises:
            IngestError: If it may not begin.
        """
        if self._draining:
            raise IngestError(RESTART, f"restart: try again in {RETRY:g} s")
        asked, by_sender = self._asked(hello), hello.clock == "sender"
        workers = self._workers_for(hello)
        back = self._known(hello.resume) if hello.resume else None
        if back is not None and (back.asked, back.by_sender) != (asked, by_sender):
            raise IngestError(POLICY, ANOTHER)
        has_workers = back is not None and back.name in self._with_workers
        if workers is not None and not (has_workers or workers.has_room(hello)):
            raise IngestError(CloseCode.TRY_AGAIN_LATER, f"the front ends are full: {LATER}")
        if back is not None:
            self._take_over(back)
            return back, True
        load = 0.0 if workers is None else workers.load()
        why = self._admission.admit(len(self._registry.open), load)
        if why is not None:
            raise IngestError(CloseCode.TRY_AGAIN_LATER, why)
        return self._new(hello, asked)

    def _workers_for(self, hello: SenderHello) -> FeatureWorkers | None:
        """Return the workers for the sender's sound, pictures or words; None: it sends none."""
        if not (hello.audio or hello.vision or hello.words):
            return None
        if self._workers is None:
            raise IngestError(POLICY, "this server takes ready features only")
        return self._workers

    def _known(self, key: str) -> ServerSession | None:
        """Return the open session of a key."""
        for session in self._registry.open.values():
            is_open = session.closing is None and session.name not in self._ending
            if is_open and secrets.compare_digest(session.key.encode(), key.encode()):
                return session
        return None

    def _take_over(self, session: ServerSession) -> None:
        """Close the sender of a session whose key another connection has shown."""
        before = self._senders.get(session.name)
        if before is not None:
            self._detach(before, session, "another connection has its key")
            before.reject("another connection has the key of this session")

    def _new(self, hello: SenderHello, asked: tuple[Modality, ...]) -> tuple[ServerSession, bool]:
        by_sender = hello.clock == "sender"
        if hello.session == self._policy.server:
            raise IngestError(POLICY, f"session {hello.session} is the server's own name")
        before = self._store.look(hello.resume) if self._store and hello.resume else None
        try:
            session, resumed = self._open_session(hello, asked, by_sender=by_sender, before=before)
        except BatchFull as error:
            raise IngestError(CloseCode.TRY_AGAIN_LATER, str(error)) from None
        except ValueError as error:
            raise IngestError(POLICY, str(error)) from None
        if self._store and hello.resume:
            self._store.drop(hello.resume)
        return session, resumed

    def _open_session(
        self,
        hello: SenderHello,
        asked: tuple[Modality, ...],
        *,
        by_sender: bool,
        before: StoredSnapshot | None,
    ) -> tuple[ServerSession, bool]:
        if before is not None:
            if (before.asked, before.by_sender) != (asked, by_sender):
                raise IngestError(POLICY, ANOTHER)
            try:
                return self._registry.begin(asked, by_sender=by_sender, before=before), True
            except SnapshotError as error:
                logger.warning("a session starts fresh: %s", error)
        return self._registry.begin(asked, by_sender=by_sender, name=hello.session), False

    def _asked(self, hello: SenderHello) -> tuple[Modality, ...]:
        asked = offered_modalities(hello, MODALITIES)
        if not self._policy.listens and not hello.words:
            asked = tuple(name for name in asked if name != "text")
        return asked

    def _begin(
        self, connection: Connection, session: ServerSession, hello: SenderHello, *, resumed: bool
    ) -> None:
        limits = self._policy.limits
        connection.allow(size=limits.message, rate=limits.rate, burst=PATIENCE)
        ready = {
            "type": "ready",
            "v": 1,
            "session": session.name,
            "resume": session.key,
            "resumed": resumed,
            "modalities": session.asked,
            **self._policy.timing,
            **asdict(limits),
        }
        connection.deliver(text_frame(json.dumps(ready)))
        connection.deliver(text_frame(self._registry.hello(session)))
        self._senders[session.name] = connection
        self._registry.attach_sender(session, lambda line: _deliver(connection, line))
        if resumed:
            session.messages.status()
        else:
            session.messages.begin(session.now())
        session.described = tuple(name for name in session.asked if name not in hello.features)
        if self._workers is not None and session.described:
            self._with_workers.add(session.name)
            self._workers.begin(session.name, hello)
        logger.info("sender %s of %s %s", connection.peer, session.name, "is back" * resumed)

    async def _listen(
        self, connection: Connection, session: ServerSession, hello: SenderHello
    ) -> None:
        clock, counted = SenderClock(session.now), 0
        async with aclosing(frames(connection, hello, self._policy.limits)) as received:
            async for frame in received:
                span = span_of(frame, counted)
                place = self._place(session, clock, frame.header.timestamp)
                self._hand_over(session, PlacedFrame(frame, place, span))
                counted = span[1]
                await session.has_room.wait()
                if self._registry.is_draining:  # what comes now is too late; `drain` closes it
                    await connection.wait_closed()
                    return

    def _place(self, session: ServerSession, clock: SenderClock, timestamp: float) -> float:
        if not session.by_sender:
            return clock.place(timestamp)
        if timestamp > session.reached + LEAP:
            leap = timestamp - session.reached
            raise IngestError(POLICY, f"timestamp {timestamp:.3f} leaps by {leap:.0f} s")
        return timestamp

    def _hand_over(self, session: ServerSession, placed: PlacedFrame) -> None:
        """Hand a frame to the registry, or to the workers that describe it."""
        if isinstance(placed.frame.header, FeaturesHeader):
            self._take_rows(session, placed.frame.header, placed)
            return
        assert self._workers is not None, "a hello that offers this was refused"
        self._workers.feed(session.name, placed)
        session.dropped = self._workers.losses(session.name)
        session.input_at = time.monotonic()

    def _take_rows(
        self, session: ServerSession, header: FeaturesHeader, placed: PlacedFrame
    ) -> None:
        place, rows = placed.place, placed.frame.rows
        if place < 0:  # recorded before the session began
            return
        if header.reason is not None or rows is None:
            self._registry.push(session.name, Sample(header.modality, place, None, header.reason))
        else:
            self._registry.push(session.name, Block(header.modality, place, rows))

    async def _end(self, session: ServerSession) -> None:
        """End a session whose sender sends nothing more; a drained one has ended already."""
        if session.ended.is_set():
            return
        self._ending.add(session.name)
        try:
            if self._workers is not None and session.name in self._with_workers:
                self._with_workers.discard(session.name)
                await self._workers.finish(session.name)
            await self._registry.end(session, "end")
        finally:
            self._ending.discard(session.name)

    def _detach(self, connection: Connection, session: ServerSession, detail: str) -> None:
        if self._senders.get(session.name) is not connection:
            return  # another one has taken over, or it never came in
        del self._senders[session.name]
        if self._workers is not None and session.name in self._with_workers:
            self._with_workers.discard(session.name)
            self._workers.end(session.name)
        if session.name in self._registry.open:
            self._registry.detach_sender(session, detail)


def _save(store: SnapshotStore, snapshot: StoredSnapshot) -> bool:
    try:
        store.put(snapshot)
    except OSError as error:
        logger.warning("session %s is not stored: %s", snapshot.name, error)
        return False
    return True


def _cut(sender: Connection, reason: str) -> None:
    """Close a sender without waiting for its answer: the time is over."""
    sender.protocol.fail(RESTART, reason)
    sender.send_data()
    sender.transport.close()


async def _close(sender: Connection, reason: str) -> None:
    """Close a sender of which nothing was read any more; cut it if it does not answer."""
    sender.transport.resume_reading()
    try:
        async with asyncio.timeout(CLOSING):
            await sender.close(RESTART, reason)
    except TimeoutError:
        sender.transport.abort()


def _deliver(connection: Connection, line: str) -> None:
    connection.deliver(text_frame(line))
