"""Bounded queues of frames for a worker process, round robin over its sessions.

Knows sessions, their queues and the frames in flight. Knows no process and no time.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ...core.sample import TICK_RATE
from ...protocol.ingest import PictureHeader, PlacedFrame, SenderHello
from ...sources.remote import OLDEST, PICTURES, SOUNDS
from .answers import BadAnswer
from .ipc import FrameProcessed, Order, ProcessFrame

AHEAD = 8
"""Frames in flight to a worker; the others wait here, where they can be dropped."""


FRESH = 1.0
"""Seconds of queued sound that a newly opened pipeline gets; with more it would stay late."""


@dataclass(eq=False)
class QueuedSession:
    """A worker's session: its queued frames, its state and its losses."""

    name: str
    hello: SenderHello
    number: int = -1
    """Of the current attempt to open a pipeline; answers to earlier attempts are ignored."""
    is_open: bool = False
    """The pipeline is open: frames may be sent."""
    is_lost: bool = False
    """Loss was reported; recovery not yet."""
    is_ended: bool = False
    """No more frames; its last words may be in flight."""
    since: float = 0.0
    """Start of the current attempt, loop time."""
    pause: float = 0.0
    """Seconds before the next attempt."""
    timer: asyncio.TimerHandle | None = None
    """Starts the next attempt, or kills the worker when the current one takes too long."""
    sounds: deque[PlacedFrame] = field(default_factory=deque)
    pictures: deque[PlacedFrame] = field(default_factory=deque)
    has_had_sound: bool = False
    """The pipeline has received sound, and from then on counts gaps itself."""
    losses: dict[str, int] = field(default_factory=dict)
    """Of the current attempt, as counted by its pipeline."""
    earlier: Counter[str] = field(default_factory=Counter)
    """Of earlier attempts, and of frames dropped before the pipeline."""

    def enqueue(self, item: PlacedFrame) -> deque[PlacedFrame]:
        """Queue a frame, drop the oldest beyond the bounds, and return its queue."""
        is_picture = isinstance(item.frame.header, PictureHeader)
        frames, bound = (self.pictures, PICTURES) if is_picture else (self.sounds, SOUNDS)
        frames.append(item)
        while len(frames) > bound or item.place - frames[0].place > OLDEST:
            dropped = frames.popleft()
            if dropped.frame.sound is None or not self.has_had_sound:
                self.count_loss(dropped)
        return frames

    def waiting(self) -> float:
        """Return the seconds of queued sound; 0 while the pipeline is not open."""
        if not (self.is_open and self.sounds):
            return 0.0
        return self.sounds[-1].place - self.sounds[0].place

    def drop_stale_sound(self) -> None:
        """Drop queued sound older than `FRESH`; words stay, they are useful late too."""
        waiting, self.sounds = self.sounds, deque()
        for item in waiting:
            if item.frame.sound is None or waiting[-1].place - item.place <= FRESH:
                self.sounds.append(item)
            else:
                self.count_loss(item)

    def count_loss(self, item: PlacedFrame) -> None:
        """Count a frame that no pipeline will process."""
        if item.frame.sound is not None and self.hello.audio:
            samples = item.span[1] - item.span[0]
            self.earlier["audio"] += round(samples / self.hello.audio.rate * TICK_RATE)
        else:
            is_picture = isinstance(item.frame.header, PictureHeader)
            self.earlier["vision" if is_picture else "text"] += 1

    def stop(self) -> None:
        """End the current attempt."""
        if self.timer is not None:
            self.timer.cancel()
        self.is_open = self.has_had_sound = False
        self.earlier.update(self.losses)
        self.losses = {}

    def lost(self) -> dict[str, int]:
        """Return the losses of all attempts."""
        total = Counter(self.earlier)
        total.update(self.losses)
        return dict(total)


class FrameQueue:
    """A worker's sessions, served round robin, one frame at a time.

    Args:
        send: Called with each order; never waits.
    """

    def __init__(self, send: Callable[[Order], None]) -> None:
        self.sessions: list[QueuedSession] = []
        """The worker's sessions, including ended ones whose last words are pending."""
        self.numbers: dict[int, QueuedSession] = {}
        """Attempts that the worker was sent, by number."""
        self._send = send
        self._turns: deque[tuple[QueuedSession, deque[PlacedFrame]]] = (
            deque()
        )  # open sessions with frames
        self._sent: deque[tuple[QueuedSession, PlacedFrame]] = deque()  # in flight, oldest first

    @property
    def in_progress(self) -> QueuedSession | None:
        """Return the session whose frame the worker is processing."""
        return self._sent[0][0] if self._sent else None

    def has_work(self, session: QueuedSession) -> bool:
        """Return whether frames of a session are queued or in flight."""
        return bool(session.sounds or session.pictures) or any(
            one is session for one, _ in self._sent
        )

    def push(self, session: QueuedSession, item: PlacedFrame) -> None:
        """Queue a frame; send it when it is its session's turn."""
        frames = session.enqueue(item)
        if session.is_open and len(frames) == 1:
            self._turns.append((session, frames))
            self._pump()

    def open(self, session: QueuedSession) -> None:
        """Start sending the frames of a session, without stale sound."""
        session.drop_stale_sound()
        session.is_open = True
        self._turns.extend(
            (session, frames) for frames in (session.sounds, session.pictures) if frames
        )
        self._pump()

    def mark_processed(self, answer: FrameProcessed) -> None:
        """Remove the oldest frame in flight, update its session's losses, and send the next.

        Raises:
            BadAnswer: If no frame is in flight.
        """
        if not self._sent:
            raise BadAnswer("no frame was to be processed")
        session, item = self._sent.popleft()
        if not answer.losses:
            session.count_loss(item)
        elif session.number == answer.number:
            session.losses = answer.losses
        self._pump()

    def stop(self, session: QueuedSession) -> None:
        """End the current attempt of a session; its queued frames stay."""
        self._turns = deque(turn for turn in self._turns if turn[0] is not session)
        session.stop()

    def remove(self, session: QueuedSession) -> None:
        """Remove a session."""
        self.stop(session)
        self.numbers.pop(session.number, None)
        self.sessions.remove(session)

    def clear(self) -> None:
        """Handle the worker's end: count the frames in flight as lost, and stop all sessions."""
        for session, item in self._sent:
            session.count_loss(item)
        self._sent.clear()
        self.numbers.clear()
        for session in tuple(self.sessions):
            self.stop(session)
            if session.is_ended:
                self.remove(session)

    def _pump(self) -> None:
        while self._turns and len(self._sent) < AHEAD:
            session, frames = self._turns.popleft()
            item = frames.popleft()
            if frames:
                self._turns.append((session, frames))
            session.has_had_sound |= item.frame.sound is not None
            self._sent.append((session, item))
            self._send(ProcessFrame(session.number, item))
