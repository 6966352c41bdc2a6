"""What a server and its worker processes say to each other, and how it lies in the pipe.

Knows the messages, their pickled form and a blocking file to read them from. Knows no process and
no session but its number. Both ends are ours: whatever comes from outside was checked before.
"""

import pickle
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

from ...core.sample import Input, Phrase
from ...protocol.ingest import PlacedFrame, SenderHello

HEAD = 4
"""Bytes before each message that hold its length, big-endian."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Open the front ends of a session."""

    number: int
    hello: SenderHello


@dataclass(frozen=True, slots=True)
class Take:
    """Work on a frame; answered by `Taken`, in the order of the frames."""

    number: int
    placed: PlacedFrame


@dataclass(frozen=True, slots=True)
class End:
    """Close the front ends of a session; answered by `Ended`."""

    number: int


@dataclass(frozen=True, slots=True)
class Ping:
    """Answer with `Pong`, behind the frames that came before."""


@dataclass(frozen=True, slots=True)
class Shed:
    """Give up work in all sessions, the present ones and new ones; see `LoadShedder`."""

    steps: tuple[str, ...]


Order: TypeAlias = Begin | Take | End | Ping | Shed


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker is loaded."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker cannot be loaded, and ends."""

    detail: str


@dataclass(frozen=True, slots=True)
class Begun:
    """The front ends of a session are open: its frames may come."""

    number: int


@dataclass(frozen=True, slots=True)
class Processed:
    """A frame is done, also one of a session that is not open any more."""

    number: int
    inputs: list[Input]
    losses: dict[str, int]
    """Of the session since it began; see `Source.losses`."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """A recogniser has heard something."""

    number: int
    phrase: Phrase


@dataclass(frozen=True, slots=True)
class SessionFailed:
    """The front ends of a session could not be opened, or failed and are closed."""

    number: int
    detail: str
    trace: str
    """For the log."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The front ends of a session are closed."""

    number: int
    problem: str = ""
    """What went wrong with it; "" = nothing."""


@dataclass(frozen=True, slots=True)
class Pong:
    """The worker is alive."""

    load: float
    """Share of the time since the last one in which it was busy, 0..1."""


Answer: TypeAlias = Ready | Failed | Begun | Processed | Recognised | SessionFailed | Ended | Pong


def pack(message: Order | Answer) -> bytes:
    """Return a message as it lies in the pipe."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return len(data).to_bytes(HEAD, "big") + data


def read(file: BinaryIO) -> Order:
    """Read the next order; blocks.

    Raises:
        EOFError: If the other end is closed.
    """
    head = file.read(HEAD)
    data = file.read(int.from_bytes(head, "big"))
    if len(head) < HEAD or not data:
        raise EOFError("the server has closed the pipe")
    order: Order = pickle.loads(data)
    return order
