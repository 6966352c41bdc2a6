"""Receive what one page or program sends, within limits, and hand it to the sources.

Knows the WebSocket connection of a sender and when to close it. Knows neither pictures nor sound;
what the bytes mean is known to ingest.py.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, dataclass

from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from .audio import AUDIO_DIM
from .browser import PICTURES, SOUNDS, BrowserSource, Clock, Work
from .ingest import (
    EndHeader,
    Frame,
    IngestError,
    PictureHeader,
    SenderHello,
    SoundHeader,
    parse_frame,
    parse_hello,
)
from .message import Role
from .source import Now, Source
from .subscriber import Bucket, Subscriber, text_frame
from .vision import VISION_DIM

logger = logging.getLogger("tamulag.ingest")

DIMS = {"audio": AUDIO_DIM, "vision": VISION_DIM}
"""Numbers in a row of features."""

HELLO = 5.0
"""Seconds for the hello."""

PATIENCE = 10.0
"""Seconds of frames and bytes that may come at once, after the network or we stood still."""

SILENCE = 10.0
"""Seconds without a frame after which a sender counts as gone."""


@dataclass(frozen=True, kw_only=True)
class SenderLimits:
    """What a sender may cost.

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


class Reception:
    """Take one sender at a time.

    Args:
        voice: What becomes of sound, words and rows of the voice.
        face: What becomes of pictures and rows of the face.
        subject: Whom the session scores.
        takes_words: Whether words may come; no: a recogniser of ours listens.
        now: Session clock.
        limits: For each sender.
    """

    def __init__(
        self,
        *,
        voice: Work,
        face: Work,
        subject: Role,
        takes_words: bool,
        now: Now,
        limits: SenderLimits | None = None,
    ) -> None:
        self._voice = BrowserSource(
            "sender's voice", voice, now=now, reason="microphone_lost", bound=SOUNDS
        )
        self._face = BrowserSource(
            "sender's face", face, now=now, reason="camera_lost", bound=PICTURES
        )
        self._subject: Role = subject
        self._takes_words = takes_words
        self._now = now
        self._limits = limits or SenderLimits()
        self._sender: Subscriber | None = None

    @property
    def sources(self) -> list[Source]:
        """Return what the agent runs: the voice's source and the face's."""
        return [self._voice, self._face]

    async def receive(self, connection: Subscriber) -> None:
        """Receive until the sender leaves, or is closed with a code and a reason."""
        if self._sender is not None or self._voice.is_behind or self._face.is_behind:
            await connection.close(CloseCode.TRY_AGAIN_LATER, "somebody else is sending")
            return
        self._sender = connection
        try:
            await self._converse(connection)
        except IngestError as error:
            logger.warning("sender %s: %s", connection.peer, error)
            await connection.close(error.code, str(error))
        except ConnectionClosed:
            logger.info("sender %s has left", connection.peer)
        finally:
            self._sender = None

    async def _converse(self, connection: Subscriber) -> None:
        first = await within(HELLO, connection, "no hello")
        hello = parse_hello(first, self._subject)
        if hello.clock == "sender" or hello.session or hello.resume:
            raise IngestError(
                CloseCode.POLICY_VIOLATION, "clock, session and resume are for `tamulag serve`"
            )
        if hello.words and not self._takes_words:
            raise IngestError(
                CloseCode.POLICY_VIOLATION, "words are recognised here: start it with --asr none"
            )
        limits = self._limits
        connection.allow(size=limits.message, rate=limits.rate, patience=PATIENCE)
        connection.deliver(text_frame(json.dumps({"type": "ready", "v": 1} | asdict(limits))))
        for source in (self._voice, self._face):
            source.begin(hello)
        logger.info("sender %s begins", connection.peer)
        try:
            await self._listen(connection, hello)
        finally:
            for source in (self._voice, self._face):
                source.end("nobody sends any more")

    async def _listen(self, connection: Subscriber, hello: SenderHello) -> None:
        clock, counted = Clock(self._now), 0
        async with aclosing(frames(connection, hello, self._limits)) as said:
            async for frame in said:
                span = span_of(frame, counted)
                self._hand_over(frame, clock.place(frame.header.timestamp), span)
                counted = span[1]

    def _hand_over(self, frame: Frame, place: float, span: tuple[int, int]) -> None:
        """Give a frame to its source."""
        header = frame.header
        is_seen = isinstance(header, PictureHeader) or getattr(header, "modality", "") == "vision"
        (self._face if is_seen else self._voice).feed(frame, place, span)


async def frames(
    connection: Subscriber, hello: SenderHello, limits: SenderLimits
) -> AsyncGenerator[Frame, None]:
    """Yield what a sender sends, checked, until it says that nothing more comes.

    Args:
        connection: Of the sender.
        hello: What it promised.
        limits: What it may cost.

    Raises:
        IngestError: If a frame is wrong, one more than is allowed, or none comes.
        ConnectionClosed: If it leaves.
    """
    begun = time.monotonic()
    bytes_left = Bucket(limits.bandwidth, PATIENCE * limits.bandwidth, begun)
    while True:
        data = await within(SILENCE, connection, f"nothing came for {SILENCE:g} s")
        now = time.monotonic()
        if now > begun + limits.duration:
            limit = f"{limits.duration:g} s are over: connect again"
            raise IngestError(CloseCode.POLICY_VIOLATION, limit)
        if isinstance(data, str):
            raise IngestError(CloseCode.UNSUPPORTED_DATA, "after the hello come binary frames")
        if not bytes_left.take(len(data), now):
            limit = f"more than {limits.bandwidth} bytes in a second"
            raise IngestError(CloseCode.POLICY_VIOLATION, limit)
        frame = parse_frame(data, hello, DIMS)
        if isinstance(frame.header, EndHeader):
            return
        yield frame


def span_of(frame: Frame, counted: int) -> tuple[int, int]:
    """Return how many samples were recorded before a frame, and with it; `counted` before it.

    Raises:
        IngestError: If its position lies behind what came before.
    """
    if not isinstance(frame.header, SoundHeader) or frame.sound is None:
        return counted, counted
    before = counted if frame.header.position is None else frame.header.position
    if before < counted:
        raise IngestError(CloseCode.POLICY_VIOLATION, f"position {before} is behind {counted}")
    return before, before + len(frame.sound)


async def within(seconds: float, connection: Subscriber, missing: str) -> str | bytes:
    """Return what a sender says next.

    Raises:
        IngestError: If it says nothing; `missing` is the reason.
    """
    try:
        async with asyncio.timeout(seconds):
            return await connection.recv()
    except TimeoutError:
        raise IngestError(CloseCode.POLICY_VIOLATION, missing) from None
