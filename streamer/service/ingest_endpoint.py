"""The ingest endpoint: receives one sender from its hello to its close code, within limits.

Knows a sender's connection, the order of its messages and when to close it. Who is admitted, and
what becomes of the frames, is decided by `Senders`: single_sender.py for `tamulag-stream --ingest`,
server_senders.py for `tamulag serve`. protocol/ingest.py decodes the bytes.
"""

import asyncio
import json
import logging
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from ..core.source import Now
from ..features.audio import AUDIO_DIM
from ..features.vision import VISION_DIM
from ..protocol.ingest import (
    POLICY,
    EndHeader,
    Frame,
    IngestError,
    PlacedFrame,
    SenderHello,
    SoundHeader,
    parse_frame,
    parse_hello,
)
from ..protocol.messages import Role
from ..sources.remote import SenderClock
from ..webserver.connection import Connection, TokenBucket, text_frame
from .session_faults import Fault, log_fault

DIMS = {"audio": AUDIO_DIM, "vision": VISION_DIM}
"""Numbers in a row of features."""

HELLO = 5.0
"""Seconds for the hello."""

BURST = 10.0
"""Seconds of frames and bytes that may come at once, after the network or the server stalled."""

FRAME_LIMIT = 10.0
"""Seconds without a frame after which a sender counts as lost."""

LEAP = 60.0
"""Seconds that a sender's own session time may leap: each hop in between is scored."""


@dataclass(frozen=True, kw_only=True)
class SenderLimits:
    """Limits of a sender.

    Attributes:
        message: Bytes of a frame.
        rate: Frames within a second.
        bandwidth: Bytes within a second.
        duration: Seconds until it must connect again.
    """

    message: int = 262_144
    rate: int = 100
    bandwidth: int = 2_000_000
    duration: float = 14_400.0


class Receiver(Protocol):
    """Takes the frames of one admitted sender; the endpoint calls it in the order of its methods.

    Attributes:
        name: Of the sender's session, for logs.
        ready: Fields of the `ready` message beside the limits.
        now: Session clock; with `clock: sender` the newest session time that was received.
    """

    name: str
    ready: dict[str, Any]
    now: Now

    def begin(self) -> None:
        """Start; `ready` was sent."""

    async def feed(self, placed: PlacedFrame) -> bool:
        """Take a frame, wait while the session is too far behind; return whether to read on."""

    async def finish(self) -> None:
        """Process what is pending: after the `end` frame, or when `feed` returned False."""

    def fail(self, error: Exception) -> Fault:
        """End what is received of a sender, as something unexpected went wrong; log it once."""

    def detach(self, detail: str) -> None:
        """Release the place of a sender that has left or is closed; `detail` is the reason."""


class Senders(Protocol):
    """Decides which senders are admitted.

    Attributes:
        logger: Of what happens to senders.
    """

    logger: logging.Logger

    def admit(self, hello: SenderHello, connection: Connection) -> Receiver:
        """Reserve a place for a sender.

        Args:
            hello: Its valid hello.
            connection: Takes messages for it.

        Raises:
            IngestError: If it is refused.
        """


class IngestEndpoint:
    """Receives senders, each on its own connection.

    Args:
        senders: Admits them and takes their frames.
        subject: Role of the person that is scored.
        limits: Of each sender.
    """

    def __init__(
        self, senders: Senders, *, subject: Role, limits: SenderLimits | None = None
    ) -> None:
        self._senders = senders
        self._subject: Role = subject
        self._limits = limits or SenderLimits()
        self._logger = senders.logger

    async def receive(self, connection: Connection) -> None:
        """Receive until the sender leaves, or is closed with a code and a reason.

        Whatever goes wrong with one sender closes that one, with 1011.
        """
        who = connection.peer
        receiver: Receiver | None = None
        code, reason = int(CloseCode.NORMAL_CLOSURE), "the sender has left"
        try:
            hello = parse_hello(await _next(connection, HELLO, "no hello"), self._subject)
            receiver = self._senders.admit(hello, connection)
            who = f"{connection.peer} of {receiver.name}"
            self._begin(connection, receiver)
            await self._feed(connection, hello, receiver)
            await receiver.finish()
        except IngestError as error:
            self._logger.warning("sender %s: %s", who, error)
            code, reason = error.code, str(error)
        except ConnectionClosed:
            self._logger.info("sender %s has left", who)
        except Exception as error:
            named = partial(log_fault, f"sender {who}", log=self._logger)
            fault = named(error) if receiver is None else receiver.fail(error)
            code, reason = fault.code, fault.reason
        finally:
            if receiver is not None:
                self._detach(receiver, who, reason)
        await connection.close(code, reason)

    def _detach(self, receiver: Receiver, who: str, reason: str) -> None:
        try:
            receiver.detach(reason)
        except Exception as error:  # of this sender, who leaves
            log_fault(f"sender {who}", error, self._logger)

    def _begin(self, connection: Connection, receiver: Receiver) -> None:
        limits = self._limits
        connection.allow(size=limits.message, rate=limits.rate, burst=BURST)
        ready = {"type": "ready", "v": 1, **receiver.ready, **asdict(limits)}
        connection.deliver(text_frame(json.dumps(ready)))
        receiver.begin()
        how = "is back" if ready.get("resumed") else "begins"
        self._logger.info("sender %s of %s %s", connection.peer, receiver.name, how)

    async def _feed(self, connection: Connection, hello: SenderHello, receiver: Receiver) -> None:
        """Feed a sender's frames until its `end` frame, or until no more is to be read.

        Raises:
            IngestError: If a frame is invalid, a limit is exceeded, or none comes for 10 s.
            ConnectionClosed: If it leaves.
        """
        limits, start = self._limits, time.monotonic()
        bytes_left = TokenBucket(limits.bandwidth, BURST * limits.bandwidth, start)
        clock, counted = SenderClock(receiver.now), 0
        while True:
            data = await _next(connection, FRAME_LIMIT, f"nothing came for {FRAME_LIMIT:g} s")
            now = time.monotonic()
            if now > start + limits.duration:
                raise IngestError(POLICY, f"{limits.duration:g} s are over: connect again")
            if isinstance(data, str):
                raise IngestError(CloseCode.UNSUPPORTED_DATA, "after the hello come binary frames")
            if not bytes_left.take(len(data), now):
                raise IngestError(POLICY, f"more than {limits.bandwidth} bytes in a second")
            frame = parse_frame(data, hello, DIMS)
            if isinstance(frame.header, EndHeader):
                return
            timestamp, span = frame.header.timestamp, _span_of(frame, counted)
            if hello.clock == "arrival":
                timestamp = clock.place(timestamp)
            elif (leap := timestamp - receiver.now()) > LEAP:
                raise IngestError(POLICY, f"timestamp {timestamp:.3f} leaps by {leap:.0f} s")
            if not await receiver.feed(PlacedFrame(frame, timestamp, span)):
                return
            counted = span[1]


def _span_of(frame: Frame, counted: int) -> tuple[int, int]:
    """Return how many samples were recorded before a frame, and with it; `counted` before it.

    Raises:
        IngestError: If its position lies behind what came before.
    """
    if not isinstance(frame.header, SoundHeader) or frame.sound is None:
        return counted, counted
    before = counted if frame.header.position is None else frame.header.position
    if before < counted:
        raise IngestError(POLICY, f"position {before} is behind {counted}")
    return before, before + len(frame.sound)


async def _next(connection: Connection, limit: float, reason: str) -> str | bytes:
    """Return a sender's next message.

    Raises:
        IngestError: With `reason`, if none comes within `limit` seconds.
    """
    try:
        async with asyncio.timeout(limit):
            return await connection.recv()
    except TimeoutError:
        raise IngestError(POLICY, reason) from None
