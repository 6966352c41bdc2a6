"""What a session needs to continue elsewhere: its newest snapshot, and every command since.

Knows commands and the steady clock's readings that it is given. Knows no worker and no network.
"""

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from ..core.commands import Advance, Push, SessionCommand
from ..core.sample import PERIOD, TICK_RATE, Block, Input, Phrase, Sample
from .session_worker import Begin

MOST_COMMANDS = 4096
"""Commands that are stored of one session."""


class Entry(NamedTuple):
    """One command."""

    number: int
    at: float
    """Monotonic clock when it was issued."""
    reached: float
    """Session time of the newest input, this one included."""
    do: SessionCommand


class CommandLog:
    """Commands of a session in the order in which they were given, numbered from 1.

    Args:
        base: How the session started.
    """

    def __init__(self, base: Begin) -> None:
        self.base = base
        self.start = 0
        """Number of the newest command that is in `base`."""
        self.number = 0
        """Of the newest command."""
        self.reached = 0.0
        """Session time of the newest input."""
        self._entries: deque[Entry] = deque()

    def __len__(self) -> int:
        """Return how many commands are stored."""
        return len(self._entries)

    def add(self, do: SessionCommand, at: float, *, sent: int) -> bool:
        """Store a command; return False if it was dropped, as there are too many.

        Args:
            do: The command.
            at: Steady clock, seconds.
            sent: Number of the newest that has been sent: a later `Advance` takes the place of one
                that has not, so that silence without a worker does not fill the log.
        """
        if isinstance(do, Advance) and self.number > sent and self._entries:
            last = self._entries[-1]
            if isinstance(last.do, Advance):
                self._entries[-1] = last._replace(do=do)
                return True
        if len(self._entries) == MOST_COMMANDS:
            return False
        self.number += 1
        if isinstance(do, Push):
            self.reached = max(self.reached, reach(do.item))
        self._entries.append(Entry(self.number, at, self.reached, do))
        return True

    def find(self, number: int) -> Entry | None:
        """Return a command by its number; None: it is not stored."""
        place = number - self.start - 1
        return self._entries[place] if 0 <= place < len(self._entries) else None

    def after(self, number: int) -> Iterator[Entry]:
        """Yield the commands that came after that number."""
        return islice(self._entries, max(0, number - self.start), None)

    def rebase(self, number: int, packed: bytes) -> None:
        """Start from the session as it was after the command of that number."""
        self.base = self.base._replace(packed=packed)
        while self._entries and self._entries[0].number <= number:
            self._entries.popleft()
        self.start = number


def reach(item: Input | Block) -> float:
    """Return the session time at which an input ends, in seconds; 0 for one without a length."""
    if isinstance(item, Block):
        return item.timestamp + len(item.values) * PERIOD[item.modality] / TICK_RATE
    if isinstance(item, Sample):
        return item.timestamp + PERIOD[item.modality] / TICK_RATE
    return item.timestamp if isinstance(item, Phrase) else 0.0
