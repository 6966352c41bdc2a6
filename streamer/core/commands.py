"""What a session can be given, as values: one union for recordings, logs, workers and comparisons.

Knows the four commands. Knows neither what they do nor how they travel.
"""

from dataclasses import dataclass
from typing import Protocol, TypeVar

from .sample import Block, Input


@dataclass(frozen=True, slots=True)
class Push:
    """One input: a sample, a phrase, a notice, or rows of samples."""

    item: Input | Block


@dataclass(frozen=True, slots=True)
class Advance:
    """Close hops that ended before `now - lateness`."""

    now: float
    """Session time, seconds."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close everything that is still held."""

    now: float | None = None
    """Session time that is not gone beyond; None: one window after the last hop."""


@dataclass(frozen=True, slots=True)
class SetHop:
    """Give the next hop, and those after it, another length."""

    seconds: float
    """A multiple of 0.1."""


SessionCommand = Push | Advance | Close | SetHop

Result_co = TypeVar("Result_co", covariant=True)


class Commanded(Protocol[Result_co]):
    """What the commands can be applied to, e.g. a `Session`."""

    def push(self, item: Input | Block) -> Result_co:
        """See `Push`."""

    def advance(self, now: float) -> Result_co:
        """See `Advance`."""

    def close(self, now: float | None = None) -> Result_co:
        """See `Close`."""

    def set_hop(self, seconds: float) -> Result_co:
        """See `SetHop`."""


def apply(session: Commanded[Result_co], command: SessionCommand) -> Result_co:
    """Call the method that a command stands for and return what it returns.

    Raises:
        ValueError: If the input does not fit the session, or the hop is no multiple of 0.1 s.
    """
    match command:
        case Push(item):
            return session.push(item)
        case Advance(now):
            return session.advance(now)
        case Close(end):
            return session.close(end)
        case SetHop(seconds):
            return session.set_hop(seconds)
