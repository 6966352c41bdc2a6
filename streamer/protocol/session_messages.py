"""Build one session's messages: sequence numbers, times, order, and which modalities are lost.

Knows the schema and one wall clock. Knows no publisher: each line is passed to a callback.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from ..core.estimate import Estimate, Timing
from ..core.sample import Modality, Notice, Phrase
from ..core.score_events import EventDetector
from . import messages

Send = Callable[[str, str], None]
"""Called with the type of a message and its line of JSON."""


class Envelope(TypedDict):
    """Fields that every message starts with."""

    session: str
    seq: int
    time: str
    subject: messages.Subject


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """Static facts about a session, for its `hello`."""

    version: str
    checkpoint: str
    heads: dict[str, messages.Head]
    sources: list[str]
    subject: messages.Subject = messages.ANONYMOUS
    notice: str | None = None


class SessionMessages:
    """Builds the messages of one session and passes each on as a line.

    Args:
        session: Identifier of the session.
        about: Static facts for `hello`.
        wall_now: Seconds since 1970, monotonic.
        send: Called with each message.
        seq: Number of the newest message of an earlier part of the session.

    Attributes:
        seq: Number of the newest message.
    """

    def __init__(
        self,
        session: str,
        about: RunInfo,
        *,
        wall_now: Callable[[], float],
        send: Send,
        seq: int = 0,
    ) -> None:
        self.session = session
        self.about = about
        self.seq = seq
        self.lost: dict[str, str] = {}
        """Modalities whose source is lost, and outputs, with the reason."""
        self.pressure: tuple[str, ...] = ()
        """Work that is shed because the machine is too slow."""
        self._wall_now = wall_now
        self._send = send
        self._events = EventDetector()

    def envelope(self, seq: int | None = None) -> Envelope:
        """Return the envelope of the next message, or of one that repeats the number `seq`."""
        return {
            "session": self.session,
            "seq": self.seq + 1 if seq is None else seq,
            "time": messages.utc(self._wall_now()),
            "subject": self.about.subject,
        }

    def send(self, sent: messages.AnyMessage) -> None:
        """Send a message."""
        self.seq = sent.seq
        self._send(sent.type, messages.encode(sent))

    def begin(self, at: float) -> None:
        """Send the session's start and its status.

        Args:
            at: Session time, seconds.
        """
        self.send(messages.Bound(type="session_start", at=round(at, 2), **self.envelope()))
        self.status()

    def end(self, at: float, reason: str) -> None:
        """Send the session's end; `at` is session time, seconds."""
        end = messages.Bound(type="session_end", at=round(at, 2), reason=reason, **self.envelope())
        self.send(end)

    def heartbeat(self) -> None:
        """Send a heartbeat, to be called where nothing else was sent for a while."""
        self.send(messages.Heartbeat(**self.envelope(self.seq)))

    def estimate(
        self, estimate: Estimate, latency: messages.Latency, dropped: Mapping[str, int]
    ) -> None:
        """Send a score and the events that it triggers."""
        self.send(
            messages.sentiment_message(
                estimate, latency=latency, dropped=dropped, **self.envelope()
            )
        )
        for found in self._events.look(estimate):
            self.event(found.event, found.at, detail=found.detail)

    def event(
        self,
        event: str,
        at: float,
        *,
        modality: Modality | None = None,
        reason: str | None = None,
        detail: str = "",
    ) -> None:
        """Send an event at session time `at`, seconds."""
        self.send(
            messages.Event(
                event=event,
                modality=modality,
                reason=reason,
                detail=detail,
                at=at,
                **self.envelope(),
            )
        )

    def words(self, phrase: Phrase) -> None:
        """Send the recognised words of an utterance."""
        self.send(messages.text_message(phrase, **self.envelope()))

    def notice(self, notice: Notice) -> None:
        """Send the loss or return of a modality's source, then the status; or what it remarks."""
        change = "source_back" if notice.reason is None else "source_lost"
        self.event(
            notice.event or change,
            notice.timestamp,
            modality=notice.modality,
            reason=notice.reason,
            detail=notice.detail,
        )
        if not notice.event:
            self._note(notice.modality, notice.reason)
        elif notice.event.startswith("sound_"):
            self._note("sound", notice.reason)

    def output(self, name: str, reason: str | None, detail: str, at: float) -> None:
        """Send the loss or return of a publisher, through the others, then the status."""
        kind = "publisher_back" if reason is None else "publisher_lost"
        self.event(kind, round(at, 2), reason=reason, detail=detail)
        self._note(name, reason)

    def recording(self, reason: str, detail: str, at: float) -> None:
        """Send that a recording ended before its session, then the status."""
        self.event("recording_lost", round(at, 2), reason=reason, detail=detail)
        self._note("recording", reason)

    def status(self) -> None:
        """Send the session's status."""
        word: messages.StateWord = "degraded" if self.lost or self.pressure else "online"
        self.send(
            messages.State(
                state=word,
                lost=dict(self.lost),
                pressure=list(self.pressure),
                notice=self.about.notice,
                **self.envelope(),
            )
        )

    def hello(self, asked: Sequence[str], timing: Timing, *, hop: float, epoch: float) -> str:
        """Return the first line for a new subscriber.

        Args:
            asked: Modalities that were asked for.
            timing: Window and lateness.
            hop: Current seconds between two scores.
            epoch: Wall time of session time 0, seconds since 1970.
        """
        return messages.encode(
            messages.Hello(
                version=self.about.version,
                checkpoint=self.about.checkpoint,
                heads=self.about.heads,
                modalities=list(asked),
                sources=self.about.sources,
                window=timing.window,
                hop=hop,
                lateness=timing.lateness,
                epoch=messages.utc(epoch),
                **self.envelope(self.seq),
            )
        )

    def offline(self, state: str) -> str:
        """Return the retained MQTT status for the state word `online` or `offline`."""
        word: messages.StateWord = "offline" if state == "offline" else "online"
        envelope = self.envelope(self.seq)
        return messages.encode(messages.State(state=word, notice=self.about.notice, **envelope))

    def _note(self, what: str, reason: str | None) -> None:
        if reason is None:
            self.lost.pop(what, None)
        else:
            self.lost[what] = reason
        self.status()
