"""A remote sender as a source: fed by its connection, lost while nobody sends.

Knows checked frames, the sender's clock and a bounded queue. Knows no socket and no content of
frames (see remote_features.py); the connection calls `begin`, `feed` and `end`.
"""

import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, Protocol

from ..core.sample import Modality, Notice
from ..core.source import Now, Put, SourceLost
from ..protocol.ingest import POLICY, IngestError, PlacedFrame, SenderHello, WordsHeader
from .clock_fit import ClockFit

MAX_DELAY = 5.0
"""Seconds by which a frame may be later than the least late one: a sender's clock does not jump."""

_CHECK = 0.2
SOUNDS, PICTURES = 250, 2
"""Frames that may be queued: a few seconds of sound, the newest pictures."""

OLDEST = 5.0
"""Seconds of stream that may be queued, however few frames they are."""


class SenderClock:
    """Maps a sender's clock to the session clock, by its least late frames of the last 10 s.

    The delay common to all frames, the network's shortest way, cannot be measured and remains.

    Args:
        now: Session clock.
    """

    def __init__(self, now: Now) -> None:
        self._now = now
        self._fit = ClockFit()

    def place(self, timestamp: float) -> float:
        """Return the session time of a timestamp that has just arrived.

        Raises:
            IngestError: If it is far behind those before: the sender's clock jumped.
        """
        arrival = self._now()
        self._fit.add(timestamp, arrival)
        place = self._fit.time_at(timestamp)
        if arrival - place > MAX_DELAY:
            raise IngestError(POLICY, f"timestamp {timestamp:.3f} is {arrival - place:.1f} s late")
        return place


class _Item(NamedTuple):
    placed: PlacedFrame
    arrival: float


class _Begin(NamedTuple):
    hello: SenderHello


class _End(NamedTuple):
    detail: str


class FramePipeline(Protocol):
    """Turns a sender's frames into inputs; used by one thread."""

    modalities: tuple[Modality, ...]

    def begin(self, hello: SenderHello) -> None:
        """Reset for a new sender, or for the same one after a reconnection."""

    def push(self, placed: PlacedFrame, put: Put) -> None:
        """Put the inputs that a frame contains.

        Args:
            placed: Checked frame.
            put: Receives the inputs.
        """

    def end(self, put: Put) -> None:
        """Flush: put what is still buffered."""

    def losses(self) -> dict[str, int]:
        """Return the lost ticks; see `Source`."""

    def gauges(self) -> dict[str, float]:
        """Return what can be measured now; see `Source`."""

    def shed(self, steps: Collection[str]) -> None:
        """Save work or stop saving; see `Source`."""


class RemoteSource:
    """A source that a connection feeds; while nobody sends its modalities are reported as lost.

    When more than `bound` frames are queued the oldest is dropped and counted; when they span more
    than 5 s, all but words and the newest are dropped, so that processing is current again.

    Whatever goes wrong with a sender's frame is that sender's: its further frames are ignored.

    Args:
        name: For logs.
        pipeline: Turns frames into inputs.
        now: Session clock.
        reason: Reason of the loss, `microphone_lost` or `camera_lost`.
        bound: Frames that may be queued.
        on_fault: Called from the source's thread with the hello of a sender whose frame failed,
            and the error.

    Attributes:
        dropped: Frames dropped so far.
    """

    def __init__(
        self,
        name: str,
        pipeline: FramePipeline,
        *,
        now: Now,
        reason: str,
        bound: int,
        on_fault: Callable[[SenderHello | None, Exception], None] = lambda hello, error: None,
    ) -> None:
        self.name = name
        self.modalities = pipeline.modalities
        self.dropped = 0
        self._pipeline = pipeline
        self._now = now
        self._reason = reason
        self._bound = bound
        self._on_fault = on_fault
        self._hello: SenderHello | None = None
        self._has_failed = False
        self._lost: tuple[Modality, ...] = ()
        self._sent: tuple[Modality, ...] = ()
        self._waiting: deque[_Item | _Begin | _End] = deque()
        self._changed = threading.Condition()

    @property
    def is_behind(self) -> bool:
        """Whether frames of earlier senders still fill the queue: no other should begin."""
        with self._changed:
            return len(self._waiting) > self._bound

    def begin(self, hello: SenderHello) -> None:
        """Queue the start of a new sender; called from any thread."""
        self._add(_Begin(hello))

    def feed(self, placed: PlacedFrame) -> None:
        """Queue a frame; called from any thread, never waits."""
        self._add(_Item(placed, self._now()))

    def end(self, detail: str) -> None:
        """Queue the sender's departure and its reason; called from any thread."""
        self._add(_End(detail))

    def losses(self) -> dict[str, int]:
        """Return the lost ticks; see `Source`. Dropped sound is a gap, and counted as such."""
        losses = self._pipeline.losses()
        return losses | ({"vision": losses["vision"] + self.dropped} if "vision" in losses else {})

    def gauges(self) -> dict[str, float]:
        """Return the number of queued frames and the age of the oldest; see `Source`."""
        with self._changed:
            count = len(self._waiting)
            arrivals = [item.arrival for item in self._waiting if isinstance(item, _Item)]
        age = self._now() - arrivals[0] if arrivals else 0.0
        name = f"ingest_{self.modalities[-1]}"
        return self._pipeline.gauges() | {f"{name}_waiting": float(count), f"{name}_age": age}

    def shed(self, steps: Collection[str]) -> None:
        """Save work where that is possible; see `Source`."""
        self._pipeline.shed(steps)

    def open(self) -> None:
        """Do nothing: the connection belongs to the server."""

    def run(self, put: Put, stop: threading.Event) -> None:
        """Process the queue until `stop` is set."""
        self._lost, self._sent = self.modalities, ()
        self._put_notices(self._lost, self._reason, "nobody sends yet", put)
        try:
            while not stop.is_set():
                item = self._next()
                if item is not None:
                    self._contain(item, put)
        finally:
            self._pipeline.end(put)

    def _contain(self, item: "_Item | _Begin | _End", put: Put) -> None:
        """Handle an item; what goes wrong with it is reported, and no more of that sender taken."""
        if isinstance(item, _Begin):
            self._hello, self._has_failed = item.hello, False
        elif isinstance(item, _Item) and self._has_failed:
            return
        try:
            self._handle(item, put)
        except SourceLost:
            raise
        except Exception as error:
            self._has_failed = True
            self._on_fault(self._hello, error)

    def _add(self, item: "_Item | _Begin | _End") -> None:
        with self._changed:
            self._waiting.append(item)
            frames = [one for one in self._waiting if isinstance(one, _Item)]
            if len(frames) > self._bound:
                self._drop(frames[:1])
            # Words are not dropped: they count even when they are late.
            timely = [one for one in frames if not isinstance(one.placed.frame.header, WordsHeader)]
            if timely and timely[-1].placed.place - timely[0].placed.place > OLDEST:
                self._drop(timely[:-1])
            self._changed.notify()

    def _drop(self, frames: Sequence[_Item]) -> None:
        remaining = [one for one in self._waiting if not any(one is frame for frame in frames)]
        self._waiting = deque(remaining)
        self.dropped += len(frames)

    def _next(self) -> "_Item | _Begin | _End | None":
        with self._changed:
            if not self._waiting:
                self._changed.wait(_CHECK)
            return self._waiting.popleft() if self._waiting else None

    def _handle(self, item: "_Item | _Begin | _End", put: Put) -> None:
        if isinstance(item, _Item):
            self._pipeline.push(item.placed, put)
        elif isinstance(item, _Begin):
            self._pipeline.begin(item.hello)
            self._sent = offered_modalities(item.hello, self.modalities)
            self._put_notices(
                [m for m in self._lost if m in self._sent], None, "somebody sends", put
            )
            self._lost = tuple(m for m in self._lost if m not in self._sent)
        else:
            try:
                self._pipeline.end(put)
            finally:
                self._put_notices(self._sent, self._reason, item.detail, put)
                self._lost, self._sent = (*self._lost, *self._sent), ()

    def _put_notices(
        self, modalities: Sequence[Modality], reason: str | None, detail: str, put: Put
    ) -> None:
        for modality in modalities:
            put(Notice(self._now(), modality, reason, detail))


def offered_modalities(hello: SenderHello, among: Sequence[Modality]) -> tuple[Modality, ...]:
    """Return the modalities that a hello offers; sound implies recognised words."""
    is_offered = {
        "text": hello.words or hello.audio is not None,
        "audio": hello.audio is not None or "audio" in hello.features,
        "vision": hello.vision is not None or "vision" in hello.features,
    }
    return tuple(modality for modality in among if is_offered[modality])
