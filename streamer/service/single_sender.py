"""Receive the frames of one sender at a time, within limits, and feed them to the sources.

Knows the WebSocket connection of a sender and when to close it. Knows neither pictures nor sound;
protocol/ingest.py decodes the bytes.
"""

import json
import logging
from contextlib import aclosing
from dataclasses import asdict

from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from ..core.source import Now, Source
from ..protocol.ingest import IngestError, PictureHeader, PlacedFrame, SenderHello, parse_hello
from ..protocol.messages import Role
from ..sources.remote import PICTURES, SOUNDS, FramePipeline, RemoteSource, SenderClock
from ..webserver.connection import Connection, text_frame
from .receiving import HELLO, PATIENCE, SenderLimits, frames, span_of, within

logger = logging.getLogger("tamulag.ingest")


class SingleSender:
    """Endpoint of one sender at a time.

    Args:
        voice: Processes sound, words and feature rows of the voice.
        face: Processes pictures and feature rows of the face.
        subject: Role of the scored person.
        takes_words: Whether a sender may send words; else they are recognised here.
        now: Session clock.
        limits: For each sender.
    """

    def __init__(
        self,
        *,
        voice: FramePipeline,
        face: FramePipeline,
        subject: Role,
        takes_words: bool,
        now: Now,
        limits: SenderLimits | None = None,
    ) -> None:
        self._voice = RemoteSource(
            "sender's voice", voice, now=now, reason="microphone_lost", bound=SOUNDS
        )
        self._face = RemoteSource(
            "sender's face", face, now=now, reason="camera_lost", bound=PICTURES
        )
        self._subject: Role = subject
        self._takes_words = takes_words
        self._now = now
        self._limits = limits or SenderLimits()
        self._sender: Connection | None = None

    @property
    def sources(self) -> list[Source]:
        """Return what the agent runs: the voice's source and the face's."""
        return [self._voice, self._face]

    async def receive(self, connection: Connection) -> None:
        """Receive frames until the sender leaves, or is closed with a code and a reason."""
        if self._sender is not None or self._voice.is_behind or self._face.is_behind:
            await connection.close(CloseCode.TRY_AGAIN_LATER, "somebody else is sending")
            return
        self._sender = connection
        try:
            await self._serve(connection)
        except IngestError as error:
            logger.warning("sender %s: %s", connection.peer, error)
            await connection.close(error.code, str(error))
        except ConnectionClosed:
            logger.info("sender %s has left", connection.peer)
        finally:
            self._sender = None

    async def _serve(self, connection: Connection) -> None:
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
        connection.allow(size=limits.message, rate=limits.rate, burst=PATIENCE)
        connection.deliver(text_frame(json.dumps({"type": "ready", "v": 1} | asdict(limits))))
        for source in (self._voice, self._face):
            source.begin(hello)
        logger.info("sender %s begins", connection.peer)
        try:
            await self._receive_frames(connection, hello)
        finally:
            for source in (self._voice, self._face):
                source.end("nobody sends any more")

    async def _receive_frames(self, connection: Connection, hello: SenderHello) -> None:
        clock, counted = SenderClock(self._now), 0
        async with aclosing(frames(connection, hello, self._limits)) as received:
            async for frame in received:
                span = span_of(frame, counted)
                self._feed(PlacedFrame(frame, clock.place(frame.header.timestamp), span))
                counted = span[1]

    def _feed(self, placed: PlacedFrame) -> None:
        """Feed a frame to its source."""
        header = placed.frame.header
        is_vision = isinstance(header, PictureHeader) or getattr(header, "modality", "") == "vision"
        (self._face if is_vision else self._voice).feed(placed)
