"""Messages between a server and its feature workers; orders are pickled, length-prefixed in a pipe.

Knows the messages, the pickled form of orders and a blocking file to read them from. Knows no
process and no session but its number. A worker may unpickle what its server has written; the other
way, where a stranger's picture was decoded before, answers.py is what is read.
"""

import pickle
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

from ...core.sample import Input, Phrase
from ...protocol.ingest import PlacedFrame, SenderHello

HEAD = 4
"""Bytes before each message that hold its length, big-endian."""


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Open a session's feature pipeline; answered by `SessionOpened` or `SessionFailed`."""

    number: int
    hello: SenderHello


@dataclass(frozen=True, slots=True)
class ProcessFrame:
    """Process a frame; answered by `FrameProcessed`, in the order of the frames."""

    number: int
    placed: PlacedFrame


@dataclass(frozen=True, slots=True)
class CloseSession:
    """Close a session's feature pipeline; answered by `SessionClosed`."""

    number: int


@dataclass(frozen=True, slots=True)
class Ping:
    """Answer with `Pong`, after the frames that were sent before."""


@dataclass(frozen=True, slots=True)
class Shed:
    """Reduce the work of all sessions, open and future ones; see `LoadShedder`."""

    steps: tuple[str, ...]


Order: TypeAlias = OpenSession | ProcessFrame | CloseSession | Ping | Shed


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker is loaded."""


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """The worker could not be loaded, and exits."""

    detail: str


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A session's feature pipeline is open: its frames may be sent."""

    number: int


@dataclass(frozen=True, slots=True)
class FrameProcessed:
    """A frame was processed, or ignored since its session is not open any more (no losses then)."""

    number: int
    inputs: list[Input]
    losses: dict[str, int]
    """Of the session since it was opened; see `Source.losses`."""


@dataclass(frozen=True, slots=True)
class PhraseRecognised:
    """A recogniser has a phrase, partial or final."""

    number: int
    phrase: Phrase


@dataclass(frozen=True, slots=True)
class SessionFailed:
    """A session's feature pipeline could not be opened, or failed and is closed."""

    number: int
    detail: str
    trace: str
    """Traceback, for the log."""
    is_by_frame: bool = False
    """A frame of its sender caused it: another attempt would fail as well."""


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """A session's feature pipeline is closed."""

    number: int
    problem: str = ""
    """Error while closing; "" = none."""


@dataclass(frozen=True, slots=True)
class Pong:
    """The worker is alive."""

    load: float
    """Busy share of the time since the last ping, 0..1."""


Answer: TypeAlias = (
    Ready
    | WorkerFailed
    | SessionOpened
    | FrameProcessed
    | PhraseRecognised
    | SessionFailed
    | SessionClosed
    | Pong
)


def pack(order: Order) -> bytes:
    """Return an order's bytes in the pipe."""
    data = pickle.dumps(order, pickle.HIGHEST_PROTOCOL)
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
