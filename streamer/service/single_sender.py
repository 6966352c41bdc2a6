"""The sender of `tamulag-stream --ingest`: one at a time, its frames feed two local sources.

Knows who may send and which source takes which frame. Knows no pictures, no sound and no socket:
ingest_endpoint.py receives.
"""

import logging
from typing import Any

from websockets.frames import CloseCode

from ..core.source import Now, Source
from ..protocol.ingest import POLICY, IngestError, PictureHeader, PlacedFrame, SenderHello
from ..sources.remote import PICTURES, SOUNDS, FramePipeline, RemoteSource
from ..webserver.connection import Connection
from .session_faults import Fault, log_fault


class SingleSender:
    """Admits one sender at a time to a session that runs without it too.

    It is the `Senders` of an endpoint, and the `Receiver` of the one that it admits.

    Args:
        voice: Processes sound, words and feature rows of the voice.
        face: Processes pictures and feature rows of the face.
        takes_words: Whether a sender may send words; else they are recognised here.
        now: Session clock.
    """

    logger = logging.getLogger("tamulag.ingest")
    name = "the local session"

    def __init__(
        self, *, voice: FramePipeline, face: FramePipeline, takes_words: bool, now: Now
    ) -> None:
        self.now = now
        self.ready: dict[str, Any] = {}
        self._voice = RemoteSource(
            "sender's voice",
            voice,
            now=now,
            reason="microphone_lost",
            bound=SOUNDS,
            on_fault=self._frame_failed,
        )
        self._face = RemoteSource(
            "sender's face",
            face,
            now=now,
            reason="camera_lost",
            bound=PICTURES,
            on_fault=self._frame_failed,
        )
        self._takes_words = takes_words
        self._hello: SenderHello | None = None  # of the admitted sender
        self._connection: Connection | None = None

    @property
    def sources(self) -> list[Source]:
        """Return what the agent runs: the voice's source and the face's."""
        return [self._voice, self._face]

    def admit(self, hello: SenderHello, connection: Connection) -> "SingleSender":
        """Reserve the only place; see `Senders`."""
        if self._hello is not None or self._voice.is_behind or self._face.is_behind:
            raise IngestError(CloseCode.TRY_AGAIN_LATER, "somebody else is sending")
        if hello.clock == "sender" or hello.session or hello.resume:
            raise IngestError(POLICY, "clock, session and resume are for `tamulag serve`")
        if hello.words and not self._takes_words:
            raise IngestError(POLICY, "words are recognised here: start it with --asr none")
        self._hello, self._connection = hello, connection
        return self

    def fail(self, error: Exception) -> Fault:
        """Close the sender, as something went wrong with what it sent; see `Receiver`."""
        fault = log_fault("the sender", error, self.logger)
        if self._connection is not None:
            self._connection.reject(fault.reason, fault.code)
        return fault

    def blame(self, error: Exception) -> bool:
        """Close the sender for an error of the session; False: nobody sends."""
        if self._connection is None:
            return False
        self.fail(error)
        return True

    def _frame_failed(self, hello: SenderHello | None, error: Exception) -> None:
        """Close the sender of that hello, if it is still there; called from a source's thread."""
        connection = self._connection
        if connection is None or hello is not self._hello:
            log_fault("a sender that has left", error, self.logger)
        else:
            connection.loop.call_soon_threadsafe(self.fail, error)

    def begin(self) -> None:
        """Start the sources; see `Receiver`."""
        assert self._hello is not None, "admit() comes first"
        for source in (self._voice, self._face):
            source.begin(self._hello)

    async def feed(self, placed: PlacedFrame) -> bool:
        """Queue a frame for its source, never waits; see `Receiver`."""
        header = placed.frame.header
        is_vision = isinstance(header, PictureHeader) or getattr(header, "modality", "") == "vision"
        (self._face if is_vision else self._voice).feed(placed)
        return True

    async def finish(self) -> None:
        """Do nothing: `detach` flushes the sources, and the session goes on; see `Receiver`."""

    def detach(self, detail: str) -> None:
        """Report what the sender offered as lost; see `Receiver`."""
        self._hello = self._connection = None
        for source in (self._voice, self._face):
            source.end("nobody sends any more")
