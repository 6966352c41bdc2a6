"""Plays a recording through a fresh session and sends the same messages out again.

Knows the rows of a recording, a session and publishers. Knows no device and no model.

Estimates are computed anew from what went into the session; everything else that was sent, such as
words, events and status, is sent as it was. New are the session's name, the wall times, and the
latencies, which are not measured.
"""

import asyncio
import contextlib
import uuid
from collections import deque
from dataclasses import dataclass, field

from pydantic import ValidationError

from ..core.commands import apply
from ..core.estimate import Estimate
from ..core.session import Session
from ..protocol import messages
from ..protocol.session_messages import RunInfo
from ..publishers.publisher import Publisher, caught_up
from ..storage.arrow_file import Recording
from ..storage.recording import RecordingError, Row, command_of
from .clock import SessionClock

GAP = 3600.0
"""Seconds by which one row may advance a session: each second costs its hops."""

BREATH = 64
"""Rows at full speed after which the publishers get their turn."""


def feed(session: Session, row: Row) -> list[Estimate]:
    """Give a session what a row says that went in; return the estimates of the hops it closes.

    Raises:
        RecordingError: If the row does not fit the session or cannot have been recorded.
    """
    if row.kind in ("estimate", "message"):
        return []
    if row.at is not None and not row.at - session.now < GAP:
        raise RecordingError(
            f"recording jumps from {session.now} s to {row.at} s: at most {GAP:g} s are believed"
        )
    try:
        return apply(session, command_of(row))
    except ValueError as error:
        line = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise RecordingError(
            f"recording cannot be played at {row.arrived:.2f} s: {line}"
        ) from error


@dataclass(kw_only=True)
class Replay:
    """One replay from open publishers to the last message.

    Args:
        recording: Of the session.
        session: Fresh, of the recording's configuration.
        publishers: Not yet open.
        about: For `hello`.
        clock: For wall times and pace.
        paced: True: each message leaves as long after the start as it did; False: at full speed.
    """

    recording: Recording
    session: Session
    publishers: list[Publisher]
    about: RunInfo
    clock: SessionClock
    paced: bool
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    seq: int = 0
    hops: int = 0
    """Estimates that were sent."""
    _estimates: deque[Estimate] = field(default_factory=deque)
    _ending: asyncio.Event = field(default_factory=asyncio.Event)
    _is_ended: bool = False

    def stop(self) -> None:
        """End the run in order; may be called from a signal handler of the event loop."""
        self._ending.set()

    async def run(self) -> None:
        """Open the publishers, play, close them.

        Raises:
            RecordingError: If the recording is damaged.
            PublisherError: If a publisher cannot be opened.
        """
        try:
            for publisher in self.publishers:
                await publisher.open()
            self.clock.begin()
            async with asyncio.TaskGroup() as group:
                running = [
                    group.create_task(publisher.run(), name=f"tamulag.{publisher.name}")
                    for publisher in self.publishers
                ]
                await self._play()
                for task in running:
                    task.cancel()
        finally:
            closed = await asyncio.gather(
                *(publisher.close() for publisher in self.publishers), return_exceptions=True
            )
        for error in closed:
            if isinstance(error, BaseException):
                raise error

    def hello(self) -> str:
        """Return the line that a new subscriber gets first."""
        header = self.recording.header
        hello = messages.Hello(
            session=self.name,
            seq=self.seq,
            time=messages.utc(self.clock.wall_now()),
            subject=self.about.subject,
            version=self.about.version,
            checkpoint=self.about.checkpoint,
            heads=self.about.heads,
            modalities=list(header.asked),
            sources=self.about.sources,
            window=header.window,
            hop=header.hop,
            lateness=header.lateness,
            epoch=messages.utc(header.epoch),
        )
        return messages.encode(hello)

    def gauges(self) -> dict[str, float]:
        """Return nothing: a replay has no devices, queues or clocks to measure."""
        return {}

    def offline(self, state: str) -> str:
        """Return the retained status of a broker for the state word `online` or `offline`."""
        word: messages.StateWord = "offline" if state == "offline" else "online"
        time = messages.utc(self.clock.wall_now())
        return messages.encode(
            messages.State(session=self.name, seq=self.seq, time=time, state=word)
        )

    async def _play(self) -> None:
        for count, row in enumerate(self.recording.rows(), 1):
            if self.paced:
                await self._wait_until(row.arrived)
            elif count % BREATH == 0:
                await asyncio.sleep(0)
                await caught_up(self.publishers, self._ending)
            if self._ending.is_set():
                break
            if row.kind == "message":
                self._send(row.text or "")
            else:
                self._estimates.extend(feed(self.session, row))
        if not self._is_ended:
            self._say_end()
        if not self.paced:
            await caught_up(self.publishers, self._ending, most=0)

    async def _wait_until(self, time: float) -> None:
        """Wait for the session clock, or until `stop`."""
        ahead = time - self.clock.now()
        if ahead > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), ahead)

    def _send(self, line: str) -> None:
        """Send a recorded message; of a score everything that the session says anew."""
        try:
            recorded = messages.decode(line)
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise RecordingError(f"recording holds a damaged message ({problem})") from error
        if isinstance(recorded, messages.SentimentMessage):
            recorded = self._scored(recorded)
        self._is_ended = recorded.type == "session_end"
        time = messages.utc(self.clock.wall_now())
        self._publish(recorded.model_copy(update={"session": self.name, "time": time}))

    def _scored(self, recorded: messages.SentimentMessage) -> messages.SentimentMessage:
        if not self._estimates:
            at = recorded.window.end
            raise RecordingError(f"recording holds a score at {at} s that nothing led to: damaged")
        self.hops += 1
        fresh = messages.sentiment_message(
            self._estimates.popleft(),
            session=self.name,
            seq=recorded.seq,
            time=recorded.time,
            latency=messages.Latency(align=None, features=None, model=0.0, total=None),
            dropped=recorded.dropped,
        )
        # What an estimate does not know, such as the subject, stays as it was sent.
        anew = {name: getattr(fresh, name) for name in (*ESTIMATED, "latency")}
        return recorded.model_copy(update=anew)

    def _say_end(self) -> None:
        """End what was cut: the recording by a kill, or this replay by a signal."""
        reason = "stopped" if self._ending.is_set() else "recording_cut"
        self._publish(
            messages.Bound(
                type="session_end",
                at=round(max(0.0, self.session.now), 2),
                reason=reason,
                session=self.name,
                seq=self.seq + 1,
                time=messages.utc(self.clock.wall_now()),
            )
        )

    def _publish(self, sent: messages.AnyMessage) -> None:
        self.seq = sent.seq
        line = messages.encode(sent)
        for publisher in self.publishers:
            publisher.publish(sent.type, line)


ESTIMATED = (
    *("window", "sentiment", "interval", "valence", "label"),
    *("modalities", "conflict", "attention"),
)
"""Keys of a score that come of its estimate alone."""
