"""What a session needs to go on elsewhere: its newest snapshot, and every order since.

Knows orders and the steady clock's readings that it is given. Knows no wing and no network.
"""

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from ..core.sample import TICK_RATE, VISION_TICKS, Block, Input, Phrase, Sample
from .session_worker import Advance, Begin, Finish, Push

LIMIT = 4096
"""Orders that are kept of one session."""

PERIOD = {"audio": 1 / TICK_RATE, "vision": VISION_TICKS / TICK_RATE}
"""Seconds that one row stands for."""


class Entry(NamedTuple):
    """One order."""

    number: int
    at: float
    """Steady clock when it was given."""
    reached: float
    """Session time of the newest input, this one included."""
    do: Push | Advance | Finish


class CommandLog:
    """Orders of a session in the order in which they were given, numbered from 1.

    Args:
        base: How the session began.
    """

    def __init__(self, base: Begin) -> None:
        self.base = base
        self.start = 0
        """Number of the newest order that is in `base`."""
        self.number = 0
        """Of the newest order."""
        self.reached = 0.0
        """Session time of the newest input."""
        self._entries: deque[Entry] = deque()

    def __len__(self) -> int:
        """Return how many orders are kept."""
        return len(self._entries)

    def add(self, do: Push | Advance | Finish, at: float, *, sent: int) -> bool:
        """Keep an order; return False if it was dropped, as there are too many.

        Args:
            do: The order.
            at: Steady clock, seconds.
            sent: Number of the newest that has been sent: a later `Advance` takes the place of one
                that has not, so that silence without a wing does not fill the trail.
        """
        if isinstance(do, Advance) and self.number > sent and self._entries:
            last = self._entries[-1]
            if isinstance(last.do, Advance):
                self._entries[-1] = last._replace(do=do)
                return True
        if len(self._entries) == LIMIT:
            return False
        self.number += 1
        if isinstance(do, Push):
            self.reached = max(self.reached, reach(do.item))
        self._entries.append(Entry(self.number, at, self.reached, do))
        return True

    def find(self, number: int) -> Entry | None:
        """Return an order by its number; None: it is not kept."""
        place = number - self.start - 1
        return self._entries[place] if 0 <= place < len(self._entries) else None

    def after(self, number: int) -> Iterator[Entry]:
        """Yield the orders that came after that number."""
        return islice(self._entries, max(0, number - self.start), None)

    def rebase(self, number: int, packed: bytes) -> None:
        """Begin from the session as it was after the order of that number."""
        self.base = self.base._replace(packed=packed)
        while self._entries and self._entries[0].number <= number:
            self._entries.popleft()
        self.start = number


def reach(item: Input | Block) -> float:
    """Return the session time at which an input ends, in seconds; 0 for one without a length."""
    if isinstance(item, Block):
        return item.timestamp + len(item.values) * PERIOD[item.modality]
    if isinstance(item, Sample):
        return item.timestamp + PERIOD[item.modality]
    return item.timestamp if isinstance(item, Phrase) else 0.0
