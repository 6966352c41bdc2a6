"""One session's messages: their numbers, times and order, and what is lost.

Knows the schema and one wall clock. Knows no publisher: each line is handed on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from ..core.estimate import Estimate, Timing
from ..core.sample import Modality, Notice, Phrase
from ..core.score_events import EventDetector
from . import messages

Send = Callable[[str, str], None]
"""Takes a kind of message and its line."""


class Head(TypedDict):
    """What every message begins with."""

    session: str
    seq: int
    time: str
    subject: messages.Subject


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What a session says of itself in `hello`."""

    version: str
    checkpoint: str
    heads: dict[str, messages.Head]
    sources: list[str]
    subject: messages.Subject = messages.NOBODY_NAMED
    notice: str | None = None


class SessionMessages:
    """Say what happens in one session.

    Args:
        session: Its name.
        about: What it says of itself.
        wall_now: Seconds since 1970, steady.
        send: Takes each message.
        seq: Number of the newest message, if there were some before.
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
        """Work that was given up because the machine is too slow."""
        self._wall_now = wall_now
        self._send = send
        self._notables = EventDetector()

    def head(self, seq: int | None = None) -> Head:
        """Return the head of the next message, or of one that repeats a number."""
        return {
            "session": self.session,
            "seq": self.seq + 1 if seq is None else seq,
            "time": messages.utc(self._wall_now()),
            "subject": self.about.subject,
        }

    def say(self, sent: messages.AnyMessage) -> None:
        """Hand a message on."""
        self.seq = sent.seq
        self._send(sent.type, messages.encode(sent))

    def begin(self, at: float) -> None:
        """Say that the session begins, and how it is."""
        self.say(messages.Bound(type="session_start", at=round(at, 2), **self.head()))
        self.status()

    def end(self, at: float, reason: str) -> None:
        """Say that the session ends."""
        end = messages.Bound(type="session_end", at=round(at, 2), reason=reason, **self.head())
        self.say(end)

    def beat(self) -> None:
        """Say that all goes on, where nothing else is said."""
        self.say(messages.Heartbeat(**self.head(self.seq)))

    def estimate(
        self, estimate: Estimate, latency: messages.Latency, dropped: Mapping[str, int]
    ) -> None:
        """Say a score, and what is notable about it."""
        self.say(
            messages.sentiment_message(estimate, latency=latency, dropped=dropped, **self.head())
        )
        for found in self._notables.look(estimate):
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
        """Say that something happened."""
        self.say(
            messages.Event(
                event=event,
                modality=modality,
                reason=reason,
                detail=detail,
                at=at,
                **self.head(),
            )
        )

    def words(self, phrase: Phrase) -> None:
        """Say what was understood."""
        self.say(messages.text_message(phrase, **self.head()))

    def notice(self, notice: Notice) -> None:
        """Say that a modality's source is lost, or back."""
        self.event(
            "source_back" if notice.reason is None else "source_lost",
            notice.timestamp,
            modality=notice.modality,
            reason=notice.reason,
            detail=notice.detail,
        )
        self._note(notice.modality, notice.reason)

    def output(self, name: str, reason: str | None, detail: str, at: float) -> None:
        """Say that a publisher is lost, or back; the others carry it."""
        kind = "publisher_back" if reason is None else "publisher_lost"
        self.event(kind, round(at, 2), reason=reason, detail=detail)
        self._note(name, reason)

    def recording(self, reason: str, detail: str, at: float) -> None:
        """Say that a recording has ended before its session."""
        self.event("recording_lost", round(at, 2), reason=reason, detail=detail)
        self._note("recording", reason)

    def status(self) -> None:
        """Say how the session is."""
        word: messages.StateWord = "degraded" if self.lost or self.pressure else "online"
        self.say(
            messages.State(
                state=word,
                lost=dict(self.lost),
                pressure=list(self.pressure),
                notice=self.about.notice,
                **self.head(),
            )
        )

    def hello(self, asked: Sequence[str], timing: Timing, *, hop: float, epoch: float) -> str:
        """Return the line that a new subscriber gets first.

        Args:
            asked: Modalities.
            timing: Window and lateness.
            hop: Seconds between two scores now.
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
                **self.head(self.seq),
            )
        )

    def offline(self, state: str) -> str:
        """Return the retained status of a broker for the state word `online` or `offline`."""
        word: messages.StateWord = "offline" if state == "offline" else "online"
        head = self.head(self.seq)
        return messages.encode(messages.State(state=word, notice=self.about.notice, **head))

    def _note(self, what: str, reason: str | None) -> None:
        if reason is None:
            self.lost.pop(what, None)
        else:
            self.lost[what] = reason
        self.status()
