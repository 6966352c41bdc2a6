"""Play a recording through a fresh session and publish the same messages once more.

Knows the rows of a recording, a session and outputs. Knows no device and no model.

Estimates are computed again from what went into the session; everything else that was sent, such
as words, events and status, is sent as it was. New are the session's name, the wall times, and the
latencies, which are not measured.
"""

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field

from pydantic import ValidationError

from ..core.commands import apply
from ..core.estimate import Estimate
from ..core.session import Session
from ..protocol.messages import Latency, SentimentMessage, State, decode, sentiment_message
from ..protocol.session_messages import SessionMessages
from ..storage.arrow_file import Recording
from ..storage.recording import RecordingError, Row, command_of
from .clock import SessionClock
from .outputs import Outputs

GAP = 3600.0
"""Seconds by which one row may advance a session: each second costs its hops."""

BREATH = 64
"""Rows at full speed after which the publishers get their turn."""


def feed(session: Session, row: Row) -> list[Estimate]:
    """Push a recorded row's inputs into a session; return the estimates of the hops it closes.

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
class ReplayFeed:
    """The feed of `tamulag replay`: one recording through a fresh session.

    Args:
        recording: Of the session.
        session: Fresh, of the recording's configuration.
        outputs: At full speed they are waited for.
        messages: Of the replay; its name and clock replace the recorded ones.
        clock: For wall times and pace.
        paced: True: each message leaves as long after the start as it did; False: at full speed.
    """

    recording: Recording
    session: Session
    outputs: Outputs
    messages: SessionMessages
    clock: SessionClock
    paced: bool
    hops: int = 0
    """Estimates that were sent."""
    _estimates: deque[Estimate] = field(default_factory=deque)
    _lost: dict[str, str] = field(default_factory=dict)
    """Outputs of this replay that are lost, with the reason."""
    _inserted: int = 0
    """Messages that were not recorded; the recorded ones after them get larger numbers."""
    _is_ended: bool = False

    async def prepare(self) -> None:
        """Do nothing: a recording is open already; see `Feed`."""

    async def open(self) -> None:
        """Let the session clock begin."""
        self.clock.begin()

    async def run(self, ending: asyncio.Event) -> None:
        """Play the recording.

        Raises:
            RecordingError: If it is damaged.
        """
        for count, row in enumerate(self.recording.rows(), 1):
            if self.paced:
                await self._wait_until(row.arrived, ending)
            elif count % BREATH == 0:
                await asyncio.sleep(0)
                await self.outputs.wait_for_backlog(ending)
            if ending.is_set():
                break
            if row.kind == "message":
                self._send(row.text or "")
            else:
                self._estimates.extend(feed(self.session, row))
        if not self._is_ended:
            # What was cut: the recording by a kill, or this replay by a signal.
            reason = "stopped" if ending.is_set() else "recording_cut"
            self.messages.end(max(0.0, self.session.now), reason)
        if not self.paced:
            await self.outputs.wait_for_backlog(ending, is_all=True)

    async def close(self) -> None:
        """Do nothing: a recording holds nothing open; see `Feed`."""

    def hello(self) -> str:
        """Return the line that a new subscriber gets first."""
        header = self.recording.header
        return self.messages.hello(header.asked, header.timing, hop=header.hop, epoch=header.epoch)

    def gauges(self) -> dict[str, float]:
        """Return nothing: a replay has no devices, queues or clocks to measure."""
        return {}

    def output_changed(self, name: str, reason: str | None, detail: str) -> None:
        """Publish that an output is lost, or back, between the recorded messages."""
        before = self.messages.seq
        self.messages.output(name, reason, detail, self.session.now)
        self._inserted += self.messages.seq - before
        if reason is None:
            self._lost.pop(name, None)
        else:
            self._lost[name] = reason

    async def _wait_until(self, time: float, ending: asyncio.Event) -> None:
        """Wait for the session clock, or until the end."""
        ahead = time - self.clock.now()
        if ahead > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), ahead)

    def _send(self, line: str) -> None:
        """Send a recorded message; of a score everything that the session computes again."""
        try:
            recorded = decode(line)
        except ValidationError as error:
            problem = error.errors()[0]["type"]  # its text may quote words
            raise RecordingError(f"recording holds a damaged message ({problem})") from error
        if isinstance(recorded, SentimentMessage):
            recorded = self._scored(recorded)
        if isinstance(recorded, State):
            recorded = self._with_own_losses(recorded)
        self._is_ended = recorded.type == "session_end"
        head = self.messages.envelope(recorded.seq + self._inserted)
        fresh = {name: value for name, value in head.items() if name != "subject"}
        self.messages.send(recorded.model_copy(update=fresh))

    def _with_own_losses(self, recorded: State) -> State:
        """Return a recorded status with the outputs that are lost now."""
        self.messages.lost = recorded.lost | self._lost
        self.messages.pressure = tuple(recorded.pressure)
        if not self._lost:
            return recorded
        return recorded.model_copy(update={"state": "degraded", "lost": dict(self.messages.lost)})

    def _scored(self, recorded: SentimentMessage) -> SentimentMessage:
        if not self._estimates:
            at = recorded.window.end
            raise RecordingError(f"recording holds a score at {at} s that nothing led to: damaged")
        self.hops += 1
        fresh = sentiment_message(
            self._estimates.popleft(),
            session=self.messages.session,
            seq=recorded.seq,
            time=recorded.time,
            latency=Latency(align=None, features=None, model=0.0, total=None),
            dropped=recorded.dropped,
        )
        # What an estimate does not know, such as the subject, stays as it was sent.
        computed = {name: getattr(fresh, name) for name in (*ESTIMATED, "latency")}
        return recorded.model_copy(update=computed)


ESTIMATED = (
    *("window", "sentiment", "interval", "valence", "trend", "label"),
    *("modalities", "conflict", "attention"),
)
"""Keys of a score that come of its estimate alone."""
