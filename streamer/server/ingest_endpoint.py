"""Who comes to the server, is let in, and is listened to until it leaves.

Knows the WebSocket connections of many senders and when to close each. What they send is known to
ingest.py, and what becomes of it to calls.py and the pool of front ends.
"""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from ..core.sample import MODALITIES, Block, Modality, Sample
from ..core.session_batch import BatchFull
from ..core.snapshot import SnapshotError
from ..protocol.ingest import FeaturesHeader, Frame, IngestError, SenderHello, parse_hello
from ..protocol.messages import Role
from ..sources.remote import SenderClock, offered_modalities
from ..webserver.connection import Connection, text_frame
from .admission import LATER, RETRY, Admission
from .receiving import HELLO, PATIENCE, SenderLimits, frames, span_of, within
from .sessions import POLL, ServerSession, SessionRegistry
from .snapshot_store import SnapshotStore, StoredSnapshot

logger = logging.getLogger("tamulag.serve")

LEAP = 60.0
"""Seconds that a sender's own session time may leap: each hop in between is scored."""

HAND_OVER, CLOSING = 1.8, 0.5
"""Seconds in which sessions are handed over, and in which senders answer the close frame."""

ANOTHER = "resume with the hello that the session began with"

POLICY, RESTART = CloseCode.POLICY_VIOLATION, CloseCode.SERVICE_RESTART


class FrontEnds(Protocol):
    """What describes sound and pictures; see `Pool`."""

    def begin(self, session: str, hello: SenderHello) -> None:
        """Take a session in."""

    def feed(self, session: str, frame: Frame, place: float, span: tuple[int, int]) -> None:
        """Take a frame; never waits."""

    def end(self, session: str) -> None:
        """Let a session go."""

    async def finish(self, session: str) -> None:
        """Let a session go when all of it has been worked on."""

    def losses(self, session: str) -> dict[str, int]:
        """Return what was lost."""

    def load(self) -> float:
        """Return how busy the busiest is, 0 to 1."""

    def has_room(self, hello: SenderHello) -> bool:
        """Return whether a session with that hello may begin."""


@dataclass(frozen=True, kw_only=True)
class ServerPolicy:
    """On which senders are served.

    Attributes:
        subject: Whom the sessions are about.
        server: Name of the server itself, which no session may have.
        listens: Whether a recogniser of ours makes words of sound.
        limits: For each sender.
        timing: What `ready` tells: window and hop, in seconds.
    """

    subject: Role
    server: str
    listens: bool
    limits: SenderLimits
    timing: dict[str, float]


class IngestEndpoint:
    """Take many senders at a time.

    Args:
        calls: The sessions.
        front: Describes sound, pictures and words; None: only ready features are taken.
        admission: Decides whether one more has room.
        terms: For each sender.
        greet: Returns the hello message of a session.
        kept: Sessions of a server before this one; None: nothing is kept.
    """

    def __init__(
        self,
        calls: SessionRegistry,
        front: FrontEnds | None,
        admission: Admission,
        terms: ServerPolicy,
        *,
        greet: Callable[[ServerSession], str],
        kept: SnapshotStore | None = None,
    ) -> None:
        self._calls = calls
        self._front = front
        self._admission = admission
        self._terms = terms
        self._greet = greet
        self._kept = kept
        self._senders: dict[str, Connection] = {}
        self._fronted: set[str] = set()  # sessions that the front ends know
        self._draining = False
        self._closing: set[asyncio.Task[None]] = set()

    async def receive(self, connection: Connection) -> None:
        """Receive until the sender leaves, or is closed with a code and a reason."""
        try:
            hello = parse_hello(await within(HELLO, connection, "no hello"), self._terms.subject)
            call, resumed = self._admit(connection, hello)
        except IngestError as error:
            logger.warning("sender %s: %s", connection.peer, error)
            await connection.close(error.code, str(error))
            return
        except ConnectionClosed:
            return
        code, detail = CloseCode.NORMAL_CLOSURE, "the sender has left"
        try:
            self._begin(connection, call, hello, resumed=resumed)
            await self._listen(connection, call, hello)
            await self._end(call)
        except IngestError as error:
            logger.warning("sender %s of %s: %s", connection.peer, call.name, error)
            code, detail = CloseCode(error.code), str(error)
        except ConnectionClosed:
            logger.info("sender %s of %s has left", connection.peer, call.name)
        finally:
            self._left(connection, call, detail)
        await connection.close(code, detail)

    async def drain(self, limit: float = HAND_OVER) -> None:
        """Let nobody in any more, keep what can go on elsewhere, and close every sender.

        Nothing more is read of the senders meanwhile. Each is closed with 1012 as soon as its
        session is kept; after the limit all the others are, and who does not answer is cut.

        Args:
            limit: Seconds; sessions that are not kept by then begin anew elsewhere.
        """
        self._draining, self._calls.takes = True, False
        for sender in self._senders.values():
            sender.transport.pause_reading()
        try:
            async with asyncio.timeout(limit):
                await self._hand_over_all()
        except TimeoutError:
            left = len(self._calls.open)
            logger.warning("%d sessions begin anew: not handed over within %g s", left, limit)
        finally:
            for call in self._calls.let_go():
                if call.name in self._senders:
                    _dismiss(self._senders[call.name], "restart: your session begins anew")
        if self._closing:
            await asyncio.wait(self._closing, timeout=CLOSING)

    async def _hand_over_all(self) -> None:
        if self._kept is None:
            while self._calls.place.waiting:  # noqa: ASYNC110 (`drain` has a limit)
                await asyncio.sleep(POLL)
            return
        async with aclosing(self._calls.hand_over(partial(_keep, self._kept))) as ended:
            async for call, goes_on in ended:
                how = "connect again, with your resume key" if goes_on else "not handed over"
                self._send_away(call, f"restart: {how}")

    def _send_away(self, call: ServerSession, reason: str) -> None:
        """Close the sender of a session that has ended."""
        sender = self._senders.get(call.name)
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
        front = self._front_for(hello)
        back = self._known(hello.resume) if hello.resume else None
        if back is not None and (back.asked, back.by_sender) != (asked, by_sender):
            raise IngestError(POLICY, ANOTHER)
        has_place = back is not None and back.name in self._fronted
        if front is not None and not (has_place or front.has_room(hello)):
            raise IngestError(CloseCode.TRY_AGAIN_LATER, f"the front ends are full: {LATER}")
        if back is not None:
            self._take_over(back)
            return back, True
        load = 0.0 if front is None else front.load()
        why = self._admission.admit(len(self._calls.open), load)
        if why is not None:
            raise IngestError(CloseCode.TRY_AGAIN_LATER, why)
        return self._new(hello, asked)

    def _front_for(self, hello: SenderHello) -> FrontEnds | None:
        """Return what describes the sender's sound, pictures or words; None: it sends none."""
        if not (hello.audio or hello.vision or hello.words):
            return None
        if self._front is None:
            raise IngestError(POLICY, "this server takes ready features only")
        return self._front

    def _known(self, key: str) -> ServerSession | None:
        """Return the session of a key if it is here."""
        for call in self._calls.open.values():
            if call.ending is None and secrets.compare_digest(call.key.encode(), key.encode()):
                return call
        return None

    def _take_over(self, call: ServerSession) -> None:
        """Send away whoever sends to a session whose key another connection has shown."""
        before = self._senders.get(call.name)
        if before is not None:
            self._left(before, call, "another connection has its key")
            before.reject("another connection has the key of this session")

    def _new(self, hello: SenderHello, asked: tuple[Modality, ...]) -> tuple[ServerSession, bool]:
        by_sender = hello.clock == "sender"
        if hello.session == self._terms.server:
            raise IngestError(POLICY, f"session {hello.session} is the server's own name")
        before = self._kept.look(hello.resume) if self._kept and hello.resume else None
        try:
            call, resumed = self._begun(hello, asked, by_sender=by_sender, before=before)
        except BatchFull as error:
            raise IngestError(CloseCode.TRY_AGAIN_LATER, str(error)) from None
        except ValueError as error:
            raise IngestError(POLICY, str(error)) from None
        if self._kept and hello.resume:
            self._kept.drop(hello.resume)
        return call, resumed

    def _begun(
        self,
        hello: SenderHello,
        asked: tuple[Modality, ...],
        *,
        by_sender: bool,
        before: StoredSnapshot | None,
    ) -> tuple[ServerSession, bool]:
        if before is not None:
            if (before[0].get("asked"), before[0].get("by_sender")) != (list(asked), by_sender):
                raise IngestError(POLICY, ANOTHER)
            try:
                return self._calls.begin(asked, by_sender=by_sender, before=before), True
            except SnapshotError as error:
                logger.warning("a session begins anew: %s", error)
        return self._calls.begin(asked, by_sender=by_sender, name=hello.session), False

    def _asked(self, hello: SenderHello) -> tuple[Modality, ...]:
        asked = offered_modalities(hello, MODALITIES)
        if not self._terms.listens and not hello.words:
            asked = tuple(name for name in asked if name != "text")
        return asked

    def _begin(
        self, connection: Connection, call: ServerSession, hello: SenderHello, *, resumed: bool
    ) -> None:
        limits = self._terms.limits
        connection.allow(size=limits.message, rate=limits.rate, burst=PATIENCE)
        ready = {
            "type": "ready",
            "v": 1,
            "session": call.name,
            "resume": call.key,
            "resumed": resumed,
            "modalities": call.asked,
            **self._terms.timing,
            **asdict(limits),
        }
        connection.deliver(text_frame(json.dumps(ready)))
        connection.deliver(text_frame(self._greet(call)))
        self._senders[call.name] = connection
        self._calls.came_back(call, lambda line: _deliver(connection, line))
        if resumed:
            call.teller.status()
        else:
            call.teller.begin(call.now())
        call.described = tuple(name for name in call.asked if name not in hello.features)
        if self._front is not None and call.described:
            self._fronted.add(call.name)
            self._front.begin(call.name, hello)
        logger.info("sender %s of %s %s", connection.peer, call.name, "is back" * resumed)

    async def _listen(
        self, connection: Connection, call: ServerSession, hello: SenderHello
    ) -> None:
        clock, counted = SenderClock(call.now), 0
        async with aclosing(frames(connection, hello, self._terms.limits)) as said:
            async for frame in said:
                span = span_of(frame, counted)
                self._hand_over(call, frame, self._place(call, clock, frame.header.timestamp), span)
                counted = span[1]
                await call.has_room.wait()
                if not self._calls.takes:  # what comes now is too late; `drain` closes it
                    await connection.wait_closed()
                    return

    def _place(self, call: ServerSession, clock: SenderClock, timestamp: float) -> float:
        if not call.by_sender:
            return clock.place(timestamp)
        if timestamp > call.reached + LEAP:
            leap = timestamp - call.reached
            raise IngestError(POLICY, f"timestamp {timestamp:.3f} leaps by {leap:.0f} s")
        return timestamp

    def _hand_over(
        self, call: ServerSession, frame: Frame, place: float, span: tuple[int, int]
    ) -> None:
        """Give a frame to whoever knows it."""
        if isinstance(frame.header, FeaturesHeader):
            self._take_rows(call, frame.header, frame, place)
            return
        assert self._front is not None, "a hello that offers this was refused"
        self._front.feed(call.name, frame, place, span)
        call.dropped = self._front.losses(call.name)
        call.heard = time.monotonic()

    def _take_rows(
        self, call: ServerSession, header: FeaturesHeader, frame: Frame, place: float
    ) -> None:
        if place < 0:  # recorded before the session began
            return
        if header.reason is not None or frame.rows is None:
            self._calls.take(call.name, Sample(header.modality, place, None, header.reason))
        else:
            self._calls.take(call.name, Block(header.modality, place, frame.rows))

    async def _end(self, call: ServerSession) -> None:
        """End a session whose sender has said that nothing more comes; a drained one has ended."""
        if call.ended.is_set():
            return
        if self._front is not None and call.name in self._fronted:
            self._fronted.discard(call.name)
            await self._front.finish(call.name)
        await self._calls.end(call, "end")

    def _left(self, connection: Connection, call: ServerSession, detail: str) -> None:
        if self._senders.get(call.name) is not connection:
            return  # another one has taken over, or it never came in
        del self._senders[call.name]
        if self._front is not None and call.name in self._fronted:
            self._fronted.discard(call.name)
            self._front.end(call.name)
        if call.name in self._calls.open:
            self._calls.left(call, detail)


def _keep(kept: SnapshotStore, call: ServerSession, about: dict[str, Any], packed: bytes) -> bool:
    try:
        kept.put(call.key, about, packed)
    except OSError as error:
        logger.warning("session %s is not kept: %s", call.name, error)
        return False
    return True


def _dismiss(sender: Connection, reason: str) -> None:
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
