"""Frames that wait for a worker process: bounded, in turn, a few of them under way.

Knows sessions, their queues and whose turn it is. Knows no process and no time.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ...core.sample import TICK_RATE
from ...protocol.ingest import PictureHeader, PlacedFrame, SenderHello
from ...sources.remote import OLDEST, PICTURES, SOUNDS
from .ipc import Order, Processed, Take

AHEAD = 8
"""Frames of a worker that are under way; what waits longer waits here, where it can be dropped."""


FRESH = 1.0
"""Seconds of sound that front ends begin with, of what waited for them: they would only be late
with more."""


@dataclass(eq=False)
class QueuedSession:
    """A session: what waits for its front ends, and what was lost."""

    name: str
    hello: SenderHello
    number: int = -1
    """Of the present attempt to have front ends; answers to earlier ones are ignored."""
    is_open: bool = False
    """Frames may go to the worker."""
    is_lost: bool = False
    """Its loss was told, its return not yet."""
    is_ended: bool = False
    """Nothing more comes; its last words may be under way."""
    since: float = 0.0
    """When the present attempt began, loop time."""
    pause: float = 0.0
    """Seconds before the next attempt."""
    timer: asyncio.TimerHandle | None = None
    """Of the next attempt, or of the end of patience with the present one."""
    sounds: deque[PlacedFrame] = field(default_factory=deque)
    pictures: deque[PlacedFrame] = field(default_factory=deque)
    is_heard: bool = False
    """The front end has had sound, and counts itself what is missing after it."""
    losses: dict[str, int] = field(default_factory=dict)
    """Of the present attempt, as its front ends count."""
    past: Counter[str] = field(default_factory=Counter)
    """Of earlier attempts, and what was dropped or lost on the way."""

    def wait(self, item: PlacedFrame) -> deque[PlacedFrame]:
        """Let a frame wait, drop what is too much or too old, and return its queue."""
        is_picture = isinstance(item.frame.header, PictureHeader)
        lane, bound = (self.pictures, PICTURES) if is_picture else (self.sounds, SOUNDS)
        lane.append(item)
        while len(lane) > bound or item.place - lane[0].place > OLDEST:
            dropped = lane.popleft()
            if dropped.frame.sound is None or not self.is_heard:
                self.lose(dropped)
        return lane

    def waiting(self) -> float:
        """Return the seconds of sound that wait while its worker is there."""
        if not (self.is_open and self.sounds):
            return 0.0
        return self.sounds[-1].place - self.sounds[0].place

    def freshen(self) -> None:
        """Drop sound that waited too long to count; words stay, they count late too."""
        waiting, self.sounds = self.sounds, deque()
        for item in waiting:
            if item.frame.sound is None or waiting[-1].place - item.place <= FRESH:
                self.sounds.append(item)
            else:
                self.lose(item)

    def lose(self, item: PlacedFrame) -> None:
        """Count a frame that no front end will see."""
        if item.frame.sound is not None and self.hello.audio:
            samples = item.span[1] - item.span[0]
            self.past["audio"] += round(samples / self.hello.audio.rate * TICK_RATE)
        else:
            is_picture = isinstance(item.frame.header, PictureHeader)
            self.past["vision" if is_picture else "text"] += 1

    def stop(self) -> None:
        """End the present attempt."""
        if self.timer is not None:
            self.timer.cancel()
        self.is_open = self.is_heard = False
        self.past.update(self.losses)
        self.losses = {}

    def lost(self) -> dict[str, int]:
        """Return the losses of all attempts."""
        total = Counter(self.past)
        total.update(self.losses)
        return dict(total)


class FrameQueue:
    """A worker's sessions; each gets its turn, with one frame, however many it has waiting.

    Args:
        send: Takes the orders; never waits.
    """

    def __init__(self, send: Callable[[Order], None]) -> None:
        self.seats: list[QueuedSession] = []
        """Who sits here, those whose last words are awaited too."""
        self.numbers: dict[int, QueuedSession] = {}
        """Attempts that the worker knows of."""
        self._send = send
        self._turns: deque[tuple[QueuedSession, deque[PlacedFrame]]] = (
            deque()
        )  # of open seats with frames
        self._sent: deque[tuple[QueuedSession, PlacedFrame]] = deque()  # not answered yet

    @property
    def at_work(self) -> QueuedSession | None:
        """Return whose frame the worker has before it."""
        return self._sent[0][0] if self._sent else None

    def has_work(self, seat: QueuedSession) -> bool:
        """Return whether frames of a session wait or are under way."""
        return bool(seat.sounds or seat.pictures) or any(one is seat for one, _ in self._sent)

    def feed(self, seat: QueuedSession, item: PlacedFrame) -> None:
        """Let a frame go, or wait for its turn."""
        lane = seat.wait(item)
        if seat.is_open and len(lane) == 1:
            self._turns.append((seat, lane))
            self._pump()

    def open(self, seat: QueuedSession) -> None:
        """Let the frames of a session go from now on, old sound left out."""
        seat.freshen()
        seat.is_open = True
        self._turns.extend((seat, lane) for lane in (seat.sounds, seat.pictures) if lane)
        self._pump()

    def taken(self, answer: Processed) -> None:
        """Note that the oldest frame under way is done."""
        seat, item = self._sent.popleft()
        if not answer.losses:
            seat.lose(item)
        elif seat.number == answer.number:
            seat.losses = answer.losses
        self._pump()

    def stop(self, seat: QueuedSession) -> None:
        """End the present attempt of a session; what waits goes on waiting."""
        self._turns = deque(turn for turn in self._turns if turn[0] is not seat)
        seat.stop()

    def leave(self, seat: QueuedSession) -> None:
        """Forget a session."""
        self.stop(seat)
        self.numbers.pop(seat.number, None)
        self.seats.remove(seat)

    def clear(self) -> None:
        """Note that the worker is gone, with the frames that were under way."""
        for seat, item in self._sent:
            seat.lose(item)
        self._sent.clear()
        self.numbers.clear()
        for seat in tuple(self.seats):
            self.stop(seat)
            if seat.is_ended:
                self.leave(seat)

    def _pump(self) -> None:
        while self._turns and len(self._sent) < AHEAD:
            seat, lane = self._turns.popleft()
            item = lane.popleft()
            if lane:
                self._turns.append((seat, lane))
            seat.is_heard |= item.frame.sound is not None
            self._sent.append((seat, item))
            self._send(Take(seat.number, item))
