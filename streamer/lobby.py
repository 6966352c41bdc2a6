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
from typing import Protocol

from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from .admission import LATER, RETRY, Admission
from .browser import Clock, offered
from .calls import Call, Calls
from .hall import HallFull
from .handover import HandoverError
from .ingest import (
    FeaturesHeader,
    Frame,
    IngestError,
    SenderHello,
    parse_hello,
)
from .kept import Found, Kept
from .message import Role
from .reception import HELLO, PATIENCE, SenderLimits, frames, span_of, within
from .sample import MODALITIES, Block, Modality, Sample
from .subscriber import Subscriber, text_frame

logger = logging.getLogger("tamulag.serve")

LEAP = 60.0
"""Seconds that a sender's own session time may leap: each hop in between is scored."""

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

    @property
    def is_full(self) -> bool:
        """Whether no session may begin."""


@dataclass(frozen=True, kw_only=True)
class Terms:
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


class Lobby:
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
        calls: Calls,
        front: FrontEnds | None,
        admission: Admission,
        terms: Terms,
        *,
        greet: Callable[[Call], str],
        kept: Kept | None = None,
    ) -> None:
        self._calls = calls
        self._front = front
        self._admission = admission
        self._terms = terms
        self._greet = greet
        self._kept = kept
        self._senders: dict[str, Subscriber] = {}
        self._fronted: set[str] = set()  # sessions that the front ends know
        self._draining = False

    async def receive(self, connection: Subscriber) -> None:
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

    async def drain(self) -> None:
        """Let nobody in any more, keep what can go on elsewhere, and close every sender."""
        self._draining = True
        senders = list(self._senders.values())
        for call, about, packed in await self._calls.hand_over(kept=self._kept is not None):
            if self._kept is not None and call.ending is None:
                try:
                    self._kept.put(call.key, about, packed)
                except OSError as error:
                    logger.warning("session %s is not kept: %s", call.name, error)
        detail = "restart: connect again, with your resume key" if self._kept else "restart"
        closing = [one.close(RESTART, detail) for one in senders]
        for problem in await asyncio.gather(*closing, return_exceptions=True):
            if problem is not None:
                logger.warning("a sender was not told of the restart: %r", problem)

    def _admit(self, connection: Subscriber, hello: SenderHello) -> tuple[Call, bool]:
        """Return the session of a sender, and whether it goes on with an earlier one.

        Raises:
            IngestError: If it may not begin.
        """
        if self._draining:
            raise IngestError(RESTART, f"restart: try again in {RETRY:g} s")
        asked, by_sender = self._asked(hello), hello.clock == "sender"
        needs_front = bool(hello.audio or hello.vision or hello.words)
        if needs_front and self._front is None:
            raise IngestError(POLICY, "this server takes ready features only")
        if needs_front and self._front is not None and self._front.is_full:
            raise IngestError(CloseCode.TRY_AGAIN_LATER, f"the front ends are full: {LATER}")
        back = self._known(hello.resume) if hello.resume else None
        if back is not None:
            if (back.asked, back.by_sender) != (asked, by_sender):
                raise IngestError(POLICY, ANOTHER)
            self._take_over(back)
            return back, True
        load = self._front.load() if self._front is not None and needs_front else 0.0
        why = self._admission.admit(len(self._calls.open), load)
        if why is not None:
            raise IngestError(CloseCode.TRY_AGAIN_LATER, why)
        return self._new(hello, asked)

    def _known(self, key: str) -> Call | None:
        """Return the session of a key if it is here."""
        for call in self._calls.open.values():
            if call.ending is None and secrets.compare_digest(call.key.encode(), key.encode()):
                return call
        return None

    def _take_over(self, call: Call) -> None:
        """Send away whoever sends to a session whose key another connection has shown."""
        before = self._senders.get(call.name)
        if before is not None:
            self._left(before, call, "another connection has its key")
            before.throw_out("another connection has the key of this session")

    def _new(self, hello: SenderHello, asked: tuple[Modality, ...]) -> tuple[Call, bool]:
        by_sender = hello.clock == "sender"
        if hello.session == self._terms.server:
            raise IngestError(POLICY, f"session {hello.session} is the server's own name")
        before = self._kept.look(hello.resume) if self._kept and hello.resume else None
        try:
            call, resumed = self._begun(hello, asked, by_sender=by_sender, before=before)
        except HallFull as error:
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
        before: Found | None,
    ) -> tuple[Call, bool]:
        if before is not None:
            if (before[0].get("asked"), before[0].get("by_sender")) != (list(asked), by_sender):
                raise IngestError(POLICY, ANOTHER)
            try:
                return self._calls.begin(asked, by_sender=by_sender, before=before), True
            except HandoverError as error:
                logger.warning("a session begins anew: %s", error)
        return self._calls.begin(asked, by_sender=by_sender, name=hello.session), False

    def _asked(self, hello: SenderHello) -> tuple[Modality, ...]:
        asked = offered(hello, MODALITIES)
        if not self._terms.listens and not hello.words:
            asked = tuple(name for name in asked if name != "text")
        return asked

    def _begin(
        self, connection: Subscriber, call: Call, hello: SenderHello, *, resumed: bool
    ) -> None:
        limits = self._terms.limits
        connection.allow(size=limits.message, rate=limits.rate, patience=PATIENCE)
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

    async def _listen(self, connection: Subscriber, call: Call, hello: SenderHello) -> None:
        clock, counted = Clock(call.now), 0
        async with aclosing(frames(connection, hello, self._terms.limits)) as said:
            async for frame in said:
                span = span_of(frame, counted)
                self._hand_over(call, frame, self._place(call, clock, frame.header.timestamp), span)
                counted = span[1]
                await call.has_room.wait()

    def _place(self, call: Call, clock: Clock, timestamp: float) -> float:
        if not call.by_sender:
            return clock.place(timestamp)
        if timestamp > call.reached + LEAP:
            leap = timestamp - call.reached
            raise IngestError(POLICY, f"timestamp {timestamp:.3f} leaps by {leap:.0f} s")
        return timestamp

    def _hand_over(self, call: Call, frame: Frame, place: float, span: tuple[int, int]) -> None:
        """Give a frame to whoever knows it."""
        if isinstance(frame.header, FeaturesHeader):
            self._take_rows(call, frame.header, frame, place)
            return
        assert self._front is not None, "a hello that offers this was refused"
        self._front.feed(call.name, frame, place, span)
        call.dropped = self._front.losses(call.name)
        call.heard = time.monotonic()

    def _take_rows(self, call: Call, header: FeaturesHeader, frame: Frame, place: float) -> None:
        if place < 0:  # recorded before the session began
            return
        if header.reason is not None or frame.rows is None:
            self._calls.take(call.name, Sample(header.modality, place, None, header.reason))
        else:
            self._calls.take(call.name, Block(header.modality, place, frame.rows))

    async def _end(self, call: Call) -> None:
        """End a session whose sender has said that nothing more comes."""
        if self._front is not None and call.name in self._fronted:
            self._fronted.discard(call.name)
            await self._front.finish(call.name)
        await self._calls.end(call, "end")

    def _left(self, connection: Subscriber, call: Call, detail: str) -> None:
        if self._senders.get(call.name) is not connection:
            return  # another one has taken over, or it never came in
        del self._senders[call.name]
        if self._front is not None and call.name in self._fronted:
            self._fronted.discard(call.name)
            self._front.end(call.name)
        if call.name in self._calls.open:
            self._calls.left(call, detail)


def _deliver(connection: Subscriber, line: str) -> None:
    connection.deliver(text_frame(line))
