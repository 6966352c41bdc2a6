"""The senders of `tamulag serve`: each has a session of its own, and resumes it with its key.

Knows sessions, their keys and the connection that feeds each; decides who is admitted, and hands
the sessions over at a restart. Reads no connection: ingest_endpoint.py receives.
"""

import asyncio
import logging
import secrets
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from websockets.frames import CloseCode

from ..core.sample import MODALITIES, Block, Modality, Sample
from ..core.session_batch import BatchFull
from ..core.snapshot import SnapshotError
from ..protocol.ingest import POLICY, FeaturesHeader, IngestError, PlacedFrame, SenderHello
from ..sources.remote import offered_modalities
from ..webserver.connection import Connection, text_frame
from .admission import LATER, RETRY, Admission
from .feature_workers.pool import FeatureWorkerPool
from .session import ServerSession
from .session_faults import Fault, log_fault
from .session_handover import hand_over
from .sessions import POLL, SessionRegistry
from .snapshot_store import SnapshotStore, StoredSnapshot

logger = logging.getLogger("tamulag.serve")

HAND_OVER, CLOSING = 1.8, 0.5
"""Seconds in which sessions are handed over, and in which senders answer the close frame."""

FULL, RESTART = CloseCode.TRY_AGAIN_LATER, CloseCode.SERVICE_RESTART


class ServerSenders:
    """Admits the senders of many sessions; see `Senders`.

    Args:
        registry: The sessions.
        workers: Describe sound, pictures and words; None: only ready features are accepted.
        admission: Decides whether one more has room.
        server: Name of the server itself, which no session may have.
        listens: Whether the server recognises words in sound.
        store: Snapshots of an earlier server's sessions; None: sessions are not handed over.
        per_address: Sessions of one address, those whose sender has vanished included; None: as
            many as there are seats.
    """

    logger = logger

    def __init__(
        self,
        registry: SessionRegistry,
        workers: FeatureWorkerPool | None,
        admission: Admission,
        *,
        server: str,
        listens: bool,
        store: SnapshotStore | None = None,
        per_address: int | None = None,
    ) -> None:
        self._registry = registry
        self._workers = workers
        self._admission = admission
        self._server = server
        self._listens = listens
        self._store = store
        self._per_address = per_address
        self._attached: dict[str, SessionReceiver] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def admit(self, hello: SenderHello, connection: Connection) -> "SessionReceiver":
        """Begin a session for a sender, or resume the one that its key names; see `Senders`."""
        if self._registry.is_draining:
            raise IngestError(RESTART, f"restart: try again in {RETRY:g} s")
        asked, workers = self._asked(hello), self._workers_for(hello)
        session = self._open_session_of(hello.resume) if hello.resume else None
        resumed = session is not None
        before = None if session is None else self._attached.get(session.name)
        if session is not None:
            _check_same(session, hello, asked)
        has_workers = before is not None and before.has_workers
        if workers is not None and not (has_workers or workers.has_room(hello)):
            raise IngestError(FULL, f"the front ends are full: {LATER}")
        if session is None:
            self._make_room_of(connection.peer)
            load = 0.0 if workers is None else workers.load()
            reason = self._admission.admit(len(self._registry.open), load)
            if reason is not None:
                raise IngestError(FULL, reason)
            session, resumed = self._begin_session(hello, asked)
        session.peer = connection.peer
        if before is not None:
            before.detach("another connection has its key")
            before.connection.reject("another connection has the key of this session")
        return SessionReceiver(
            connection, hello, session, self._registry, workers, self._attached, resumed=resumed
        )

    async def drain(self, limit: float = HAND_OVER) -> None:
        """Refuse new senders, store the sessions for the next server, and close every sender.

        Senders are not read meanwhile. Each is closed with 1012 as soon as its session is stored;
        after the limit all the others are, and those that do not answer are cut.

        Args:
            limit: Seconds; sessions that are not stored by then start fresh elsewhere.
        """
        self._registry.is_draining = True
        for one in self._attached.values():
            one.connection.transport.pause_reading()
        try:
            async with asyncio.timeout(limit):
                await self._hand_over_all()
        except TimeoutError:
            left = len(self._registry.open)
            logger.warning("%d sessions start fresh: not handed over within %g s", left, limit)
        finally:
            for session in self._registry.close_all():
                sender = self._attached.get(session.name)
                if sender is not None:
                    _cut(sender.connection, "restart: your session begins anew")
        if self._closing:
            await asyncio.wait(self._closing, timeout=CLOSING)

    async def _hand_over_all(self) -> None:
        if self._store is None:
            while self._registry.backend.waiting:  # noqa: ASYNC110 (`drain` has a limit)
                await asyncio.sleep(POLL)
            return
        async with aclosing(hand_over(self._registry, partial(_save, self._store))) as ended:
            async for session, is_stored in ended:
                how = "connect again, with your resume key" if is_stored else "not handed over"
                sender = self._attached.get(session.name)
                if sender is not None:
                    closing = _close(sender.connection, f"restart: {how}")
                    task = asyncio.create_task(closing, name="tamulag.restart")
                    self._closing.add(task)
                    task.add_done_callback(self._closing.discard)

    def _make_room_of(self, peer: str) -> None:
        """End the session of an address whose sender vanished first, if the address has its share.

        Connections of one address are bounded by the port; sessions that wait for theirs are not.
        """
        same = [one for one in self._registry.open.values() if one.peer == peer and not one.closing]
        away = sorted((one.away_since, one.name) for one in same if one.away_since is not None)
        if self._per_address is not None and away and len(same) >= self._per_address:
            self._registry.finish(self._registry.open[away[0][1]], "stopped")

    def _workers_for(self, hello: SenderHello) -> FeatureWorkerPool | None:
        """Return the workers for the sender's sound, pictures or words; None: it sends none."""
        if not (hello.audio or hello.vision or hello.words):
            return None
        if self._workers is None:
            raise IngestError(POLICY, "this server takes ready features only")
        return self._workers

    def _asked(self, hello: SenderHello) -> tuple[Modality, ...]:
        asked = offered_modalities(hello, MODALITIES)
        if not self._listens and not hello.words:
            asked = tuple(name for name in asked if name != "text")
        return asked

    def _open_session_of(self, key: str) -> ServerSession | None:
        """Return the open session of a key; None: there is none, or it is ending."""
        for session in self._registry.open.values():
            sender = self._attached.get(session.name)
            is_ending = session.closing is not None or (sender is not None and sender.is_ending)
            if not is_ending and secrets.compare_digest(session.key.encode(), key.encode()):
                return session
        return None

    def _begin_session(
        self, hello: SenderHello, asked: tuple[Modality, ...]
    ) -> tuple[ServerSession, bool]:
        """Return a new session or one of an earlier server, and whether it is the latter."""
        if hello.session == self._server:
            raise IngestError(POLICY, f"session {hello.session} is the server's own name")
        stored = self._store.look(hello.resume) if self._store and hello.resume else None
        if stored is not None:
            _check_same(stored, hello, asked)
        try:
            session = self._resume(stored) if stored is not None else None
            resumed = session is not None
            session = session or self._registry.begin(
                asked, by_sender=hello.clock == "sender", name=hello.session
            )
        except BatchFull as error:
            raise IngestError(FULL, str(error)) from None
        except ValueError as error:
            raise IngestError(POLICY, str(error)) from None
        if self._store and hello.resume:
            self._store.drop(hello.resume)
        return session, resumed

    def _resume(self, stored: StoredSnapshot) -> ServerSession | None:
        """Return the session of a snapshot; None: this server cannot read it."""
        try:
            return self._registry.begin(stored.asked, by_sender=stored.by_sender, before=stored)
        except SnapshotError as error:
            logger.warning("a session starts fresh: %s", error)
            return None


@dataclass(eq=False)
class SessionReceiver:
    """Feeds the frames of one connection to a session of the registry; see `Receiver`.

    Attributes:
        connection: Of the sender; takes the session's messages.
        hello: Of the sender.
        session: Its session.
        registry: Of the session.
        workers: Describe its sound, pictures or words; None: it sends ready features alone.
        attached: The connections that feed sessions, by session.
        resumed: Whether the session goes on from an earlier connection.
        has_workers: Whether the workers know the session.
        is_ending: Whether the sender sends nothing more.
    """

    connection: Connection
    hello: SenderHello
    session: ServerSession
    registry: SessionRegistry
    workers: FeatureWorkerPool | None
    attached: "dict[str, SessionReceiver]"
    resumed: bool = field(kw_only=True)
    has_workers: bool = field(default=False, init=False)
    is_ending: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        session, timing = self.session, self.registry.timing
        self.name, self.now = session.name, session.now
        self.ready: dict[str, Any] = {
            "session": session.name,
            "resume": session.key,
            "resumed": self.resumed,
            "modalities": session.asked,
            "window": timing.window,
            "hop": timing.hop,
        }

    @property
    def is_attached(self) -> bool:
        """Whether the connection feeds its session: it has begun, and no other took over."""
        return self.attached.get(self.name) is self

    def begin(self) -> None:
        """Attach the connection to its session; see `Receiver`."""
        session = self.session
        self._deliver(self.registry.hello(session))
        self.attached[self.name] = self
        self.registry.attach_sender(session, self._deliver, self._reject)
        if self.resumed:
            session.messages.status()
        else:
            session.messages.begin(session.now())
        session.described = tuple(m for m in session.asked if m not in self.hello.features)
        if self.workers is not None:
            self.has_workers = True
            self.workers.begin(self.name, self.hello)

    async def feed(self, placed: PlacedFrame) -> bool:
        """Feed the registry or the workers; wait while too many steps wait; see `Receiver`."""
        header = placed.frame.header
        if not self.is_attached:  # received before another connection took over
            return False
        if isinstance(header, FeaturesHeader):
            self._push_rows(header, placed)
        else:
            assert self.workers is not None, "a hello that offers this was refused"
            self.workers.feed(self.name, placed)
            self.session.dropped = self.workers.losses(self.name)
            self.session.input_at = time.monotonic()
        await self.session.has_room.wait()
        if self.registry.is_draining:  # what comes now is too late; `drain` closes the connection
            await self.connection.wait_closed()
        return not self.registry.is_draining

    async def finish(self) -> None:
        """End the session, unless it has ended or another connection has it; see `Receiver`."""
        if self.session.ended.is_set() or not self.is_attached:
            return
        self.is_ending = True
        if self.workers is not None and self.has_workers:
            self.has_workers = False
            await self.workers.finish(self.name)
        await self.registry.end(self.session, "end")

    def fail(self, error: Exception) -> Fault:
        """End the session, unless another connection has it; see `Receiver`."""
        if self.attached.get(self.name) in (None, self):
            self.registry.fail(self.session, error)
        return self.session.fault or log_fault(f"sender of {self.name}", error)

    def detach(self, detail: str) -> None:
        """Let the session wait for its sender, unless another connection has it; see `Receiver`."""
        if not self.is_attached:
            return
        del self.attached[self.name]
        if self.workers is not None and self.has_workers:
            self.has_workers = False
            self.workers.end(self.name)
        if self.name in self.registry.open:
            self.registry.detach_sender(self.session, detail)

    def _deliver(self, line: str) -> None:
        self.connection.deliver(text_frame(line))

    def _reject(self, code: int, reason: str) -> None:
        """Close the connection of a session that has failed; the name may be used again at once."""
        self.detach(reason)
        self.connection.reject(reason, code)

    def _push_rows(self, header: FeaturesHeader, placed: PlacedFrame) -> None:
        place, rows = placed.place, placed.frame.rows
        if place < 0:  # recorded before the session began
            return
        if header.reason is not None or rows is None:
            self.registry.push(self.name, Sample(header.modality, place, None, header.reason))
        else:
            self.registry.push(self.name, Block(header.modality, place, rows))


def _check_same(
    before: ServerSession | StoredSnapshot, hello: SenderHello, asked: tuple[Modality, ...]
) -> None:
    """Refuse to resume a session with other modalities or another clock."""
    if (before.asked, before.by_sender) != (asked, hello.clock == "sender"):
        raise IngestError(POLICY, "resume with the hello that the session began with")


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
