"""One session's messages: their numbers, times and order, and what is lost.

Knows the schema and one wall clock. Knows no publisher: each line is handed on.
"""

from collections.abc import Callable, Mapping
from typing import TypedDict

from . import message
from .estimate import Estimate
from .notable import Notables
from .sample import Notice, Phrase

Send = Callable[[str, str], None]
"""Takes a kind of message and its line."""


class Head(TypedDict):
    """What every message begins with."""

    session: str
    seq: int
    time: str
    subject: message.Subject


class Teller:
    """Say what happens in one session.

    Args:
        session: Its name.
        subject: Whom it is about.
        wall_now: Seconds since 1970, steady.
        send: Takes each message.
        seq: Number of the newest message, if there were some before.
    """

    def __init__(
        self,
        session: str,
        *,
        subject: message.Subject,
        wall_now: Callable[[], float],
        send: Send,
        seq: int = 0,
    ) -> None:
        self.session = session
        self.seq = seq
        self.lost: dict[str, str] = {}
        """Modalities whose source is lost, and outputs, with the reason."""
        self._subject = subject
        self._wall_now = wall_now
        self._send = send
        self._notables = Notables()

    def head(self, seq: int | None = None) -> Head:
        """Return the head of the next message, or of one that repeats a number."""
        return {
            "session": self.session,
            "seq": self.seq + 1 if seq is None else seq,
            "time": message.utc(self._wall_now()),
            "subject": self._subject,
        }

    def say(self, sent: message.AnyMessage) -> None:
        """Hand a message on."""
        self.seq = sent.seq
        self._send(sent.type, message.encode(sent))

    def begin(self, at: float) -> None:
        """Say that the session begins, and how it is."""
        self.say(message.Bound(type="session_start", at=round(at, 2), **self.head()))
        self.say(self.status())

    def end(self, at: float, reason: str) -> None:
        """Say that the session ends."""
        self.say(message.Bound(type="session_end", at=round(at, 2), reason=reason, **self.head()))

    def estimate(
        self, estimate: Estimate, latency: message.Latency, dropped: Mapping[str, int]
    ) -> None:
        """Say a score, and what is notable about it."""
        self.say(
            message.sentiment_message(estimate, latency=latency, dropped=dropped, **self.head())
        )
        for found in self._notables.look(estimate):
            self.say(
                message.Event(event=found.event, detail=found.detail, at=found.at, **self.head())
            )

    def words(self, phrase: Phrase) -> None:
        """Say what was understood."""
        self.say(message.text_message(phrase, **self.head()))

    def notice(self, notice: Notice) -> None:
        """Say that a modality's source is lost, or back."""
        self.say(
            message.Event(
                event="source_back" if notice.reason is None else "source_lost",
                modality=notice.modality,
                reason=notice.reason,
                detail=notice.detail,
                at=notice.timestamp,
                **self.head(),
            )
        )
        if notice.reason is None:
            self.lost.pop(notice.modality, None)
        else:
            self.lost[notice.modality] = notice.reason
        self.say(self.status())

    def status(self) -> message.State:
        """Return how the session is."""
        word: message.StateWord = "degraded" if self.lost else "online"
        return message.State(state=word, lost=dict(self.lost), **self.head())
