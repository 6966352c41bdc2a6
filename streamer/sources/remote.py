"""A page or program that sends, as a source: fed by its connection, lost when it leaves.

Knows checked frames, the sender's clock and a bounded queue. Knows no socket, and leaves what the
frames hold to intake.py; whoever receives calls `begin`, `feed` and `end`.
"""

import threading
from collections import deque
from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from ..core.sample import Modality, Notice
from ..core.source import Now, Put
from ..protocol.ingest import POLICY, Frame, IngestError, SenderHello, WordsHeader
from .clock_fit import ClockFit

LATEST = 5.0
"""Seconds by which a frame may lie behind the least late one: a sender's clock does not jump."""

_CHECK = 0.2
SOUNDS, PICTURES = 250, 2
"""Frames that may wait: of sound a few seconds, of pictures the newest."""

OLDEST = 5.0
"""Seconds of stream that may wait, however few frames they are."""


class SenderClock:
    """A sender's clock on the session clock: its least late frames of the last ten seconds count.

    What all frames are late by, the network's shortest way, cannot be seen and stays in.

    Args:
        now: Session clock.
    """

    def __init__(self, now: Now) -> None:
        self._now = now
        self._fit = ClockFit()

    def place(self, timestamp: float) -> float:
        """Take a timestamp that has just come and return its session time.

        Raises:
            IngestError: If it is far behind those before: the sender's clock jumped.
        """
        arrival = self._now()
        self._fit.add(timestamp, arrival)
        place = self._fit.time_at(timestamp)
        if arrival - place > LATEST:
            raise IngestError(POLICY, f"timestamp {timestamp:.3f} is {arrival - place:.1f} s late")
        return place


class _Item(NamedTuple):
    frame: Frame
    place: float  # session time of its timestamp
    span: tuple[int, int]  # of sound: samples recorded before it, and with it
    arrival: float


class _Begin(NamedTuple):
    hello: SenderHello


class _End(NamedTuple):
    detail: str


class FramePipeline(Protocol):
    """What becomes of the frames; used by one thread."""

    modalities: tuple[Modality, ...]

    def begin(self, hello: SenderHello) -> None:
        """Begin anew: another sender, or the same one again."""

    def take(self, frame: Frame, place: float, span: tuple[int, int], put: Put) -> None:
        """Put what a frame holds."""

    def end(self, put: Put) -> None:
        """Put what is still held."""

    def losses(self) -> dict[str, int]:
        """Return the lost ticks; see `Source`."""

    def gauges(self) -> dict[str, float]:
        """Return what can be measured now; see `Source`."""

    def relieve(self, steps: Collection[str]) -> None:
        """See `Source`."""


class RemoteSource:
    """A source that is fed by a connection; while nobody sends its modalities are told as lost.

    When too many frames wait the oldest is dropped and counted; when they are 5 s long, all but
    words and the newest, so that what is worked on is of now again.

    Args:
        name: For logs.
        work: Turns frames into inputs.
        now: Session clock.
        reason: Of the loss, `microphone_lost` or `camera_lost`.
        bound: Frames that may wait.
    """

    def __init__(
        self, name: str, work: FramePipeline, *, now: Now, reason: str, bound: int
    ) -> None:
        self.name = name
        self.modalities = work.modalities
        self.dropped = 0
        self._work = work
        self._now = now
        self._reason = reason
        self._bound = bound
        self._lost: tuple[Modality, ...] = ()
        self._sent: tuple[Modality, ...] = ()
        self._waiting: deque[_Item | _Begin | _End] = deque()
        self._changed = threading.Condition()

    @property
    def is_behind(self) -> bool:
        """Whether what earlier senders sent still fills the queue: no other should begin."""
        with self._changed:
            return len(self._waiting) > self._bound

    def begin(self, hello: SenderHello) -> None:
        """Take what a new sender offers; called from any thread."""
        self._add(_Begin(hello))

    def feed(self, frame: Frame, place: float, span: tuple[int, int] = (0, 0)) -> None:
        """Take a frame of session time `place`; called from any thread, never waits."""
        self._add(_Item(frame, place, span, self._now()))

    def end(self, detail: str) -> None:
        """Take note that the sender has left, and why; called from any thread."""
        self._add(_End(detail))

    def losses(self) -> dict[str, int]:
        """Return the lost ticks; see `Source`. Dropped sound is a gap, and counted as one."""
        losses = self._work.losses()
        return losses | ({"vision": losses["vision"] + self.dropped} if "vision" in losses else {})

    def gauges(self) -> dict[str, float]:
        """Return how many frames wait and the age of the oldest; see `Source`."""
        with self._changed:
            count = len(self._waiting)
            arrivals = [item.arrival for item in self._waiting if isinstance(item, _Item)]
        age = self._now() - arrivals[0] if arrivals else 0.0
        name = f"ingest_{self.modalities[-1]}"
        return self._work.gauges() | {f"{name}_waiting": float(count), f"{name}_age": age}

    def relieve(self, steps: Collection[str]) -> None:
        """Save work where that is possible; see `Source`."""
        self._work.relieve(steps)

    def open(self) -> None:
        """Do nothing: the port is the publisher's."""

    def run(self, put: Put, stop: threading.Event) -> None:
        """Put what comes until `stop` is set."""
        self._lost, self._sent = self.modalities, ()
        self._tell(self._lost, self._reason, "nobody sends yet", put)
        try:
            while not stop.is_set():
                item = self._next()
                if item is not None:
                    self._heed(item, put)
        finally:
            self._work.end(put)

    def _add(self, item: "_Item | _Begin | _End") -> None:
        with self._changed:
            self._waiting.append(item)
            frames = [one for one in self._waiting if isinstance(one, _Item)]
            if len(frames) > self._bound:
                self._drop(frames[:1])
            # Words stay: they count late too.
            timely = [one for one in frames if not isinstance(one.frame.header, WordsHeader)]
            if timely and timely[-1].place - timely[0].place > OLDEST:
                self._drop(timely[:-1])
            self._changed.notify()

    def _drop(self, frames: Sequence[_Item]) -> None:
        kept = [one for one in self._waiting if not any(one is frame for frame in frames)]
        self._waiting = deque(kept)
        self.dropped += len(frames)

    def _next(self) -> "_Item | _Begin | _End | None":
        with self._changed:
            if not self._waiting:
                self._changed.wait(_CHECK)
            return self._waiting.popleft() if self._waiting else None

    def _heed(self, item: "_Item | _Begin | _End", put: Put) -> None:
        if isinstance(item, _Item):
            self._work.take(item.frame, item.place, item.span, put)
        elif isinstance(item, _Begin):
            self._work.begin(item.hello)
            self._sent = offered(item.hello, self.modalities)
            self._tell([m for m in self._lost if m in self._sent], None, "somebody sends", put)
            self._lost = tuple(m for m in self._lost if m not in self._sent)
        else:
            self._work.end(put)
            self._tell(self._sent, self._reason, item.detail, put)
            self._lost, self._sent = (*self._lost, *self._sent), ()

    def _tell(
        self, modalities: Sequence[Modality], reason: str | None, detail: str, put: Put
    ) -> None:
        for modality in modalities:
            put(Notice(self._now(), modality, reason, detail))


def offered(hello: SenderHello, among: Sequence[Modality]) -> tuple[Modality, ...]:
    """Return which modalities a hello offers; a voice that is heard has words too."""
    is_offered = {
        "text": hello.words or hello.audio is not None,
        "audio": hello.audio is not None or "audio" in hello.features,
        "vision": hello.vision is not None or "vision" in hello.features,
    }
    return tuple(modality for modality in among if is_offered[modality])
