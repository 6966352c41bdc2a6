"""One session of the server: its names, clocks, sender and recorder.

Knows what belongs to one session. Knows neither the others nor how it is stepped.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..core.sample import Modality
from ..protocol.session_messages import SessionMessages
from ..storage.recorder import Recorder
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
