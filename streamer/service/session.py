"""One session of the server: its names, clocks, sender and recorder.

Knows what belongs to one session. Knows neither the others nor how it is stepped.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ..core.sample import Block, Input, Modality, Notice, Phrase
from ..protocol.messages import Latency
from ..protocol.session_messages import SessionMessages
from ..storage.recorder import Recorder
from .backend import ScoredStep
from .session_faults import Fault
from .snapshot_store import StoredSnapshot


@dataclass(kw_only=True)
class ServerSession:
    """One session of the server.

    Attributes:
        name: Public.
        key: Secret: a sender that has it resumes the session.
        asked: The modalities.
        by_sender: True: the sender's timestamps are the session's time; nothing waits for a clock.
        start: Steady clock at session time 0.
        messages: Makes its messages.
        hop: Seconds between two scores now.
        described: Modalities that the feature workers describe; the others come as features.
        send: Takes lines for the sender; None: it is away.
    """

    name: str
    key: str
    asked: tuple[Modality, ...]
    by_sender: bool
    start: float
    messages: SessionMessages
    hop: float
    described: tuple[Modality, ...] = ()
    send: Callable[[str], None] | None = None
    reject: Callable[[int, str], None] | None = None
    """Closes the sender with a code and a reason; None: it is away."""
    peer: str = ""
    """Address of its newest sender."""
    is_new: bool = True
    """No sender has been there yet."""
    fault: Fault | None = None
    """What went wrong with it; while set nothing more is sent."""
    input_at: float = 0.0
    """Steady clock at the newest input."""
    reached: float = 0.0
    """Session time of the newest input."""
    away_since: float | None = None
    """Steady clock at which the sender left; None: it is there."""
    utterances: tuple[int, int] = (0, 0)
    """Number at which the sender's utterances begin, and the one after the newest."""
    dropped: dict[str, int] = field(default_factory=dict)
    has_room: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while no more than `sessions.BACKLOG` steps wait."""
    closing: str | None = None
    """Reason for closing; while set, input is ignored and pending hops are flushed."""
    closing_since: float = 0.0
    """Steady clock."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the last message was sent."""
    recorder: Recorder | None = None

    def now(self) -> float:
        """Return the session time in seconds."""
        return self.reached if self.by_sender else time.monotonic() - self.start

    def saw(self, item: Input | Block) -> None:
        """Note when the newest input came, and how far it reaches."""
        self.input_at = time.monotonic()
        if not isinstance(item, Notice):
            self.reached = max(self.reached, item.timestamp)

    def numbered(self, phrase: Phrase) -> Phrase:
        """Return a phrase with the number of its utterance in the session."""
        first, newest = self.utterances
        phrase = replace(phrase, utterance=phrase.utterance + first)
        self.utterances = (first, max(newest, phrase.utterance + 1))
        return phrase

    def renumber(self) -> None:
        """Let utterances begin at 0 again, as those of a new recogniser or sender do."""
        self.utterances = (self.utterances[1], self.utterances[1])

    def latency(self, step: ScoredStep) -> Latency:
        """Return the times of a step that is sent now; a sender's own clock measures none."""
        total = max(0.0, time.monotonic() - self.start - step.estimate.end)
        return Latency(
            align=None if self.by_sender else round(max(0.0, total - step.waited), 4),
            features=None,
            model=round(step.spent, 5),
            total=None if self.by_sender else round(total, 4),
        )

    def snapshot(self, state: bytes) -> StoredSnapshot:
        """Return what another server needs to resume the session once `session_end` was sent."""
        return StoredSnapshot(
            name=self.name,
            key=self.key,
            seq=self.messages.seq + 1,
            now=self.now(),
            reached=self.reached,
            utterance=self.utterances[1],
            hop=self.hop,
            asked=self.asked,
            by_sender=self.by_sender,
            state=state,
        )
