"""What every publisher promises a service, and the bounded outbox behind each of them.

Knows lines of JSON and their kind. Knows no socket, no broker and no file.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, Protocol, TypeVar, runtime_checkable

from ..core.errors import TamulagError

T = TypeVar("T")

Tell = Callable[[str | None, str], None]
"""Told `publisher_lost` and why, and None when the publisher is back."""

BACKLOG = 250
"""Lines that may wait at full speed before the next input is taken."""

AGAIN = 0.02
"""Seconds after which a backlog is looked at again."""


def tell_nobody(reason: str | None, detail: str) -> None:
    """Keep it to ourselves."""


class PublisherError(TamulagError):
    """A publisher cannot be opened: port in use, broker away, file not writable.

    The text names the value and the remedy, in one or two lines.
    """


class Publisher(Protocol):
    """An output for messages: opened, fed, run and closed by a service."""

    @property
    def name(self) -> str:
        """For logs and task names, e.g. `websocket`."""

    @property
    def dropped(self) -> int:
        """Messages that were not delivered because an outbox was full or a subscriber was slow."""

    async def open(self) -> None:
        """Bind, connect or open the file; may be called again after `close`.

        Raises:
            PublisherError: If that is not possible; nothing stays open then.
        """

    def publish(self, kind: str, payload: str) -> None:
        """Hand over one message; called on the event loop, after `open`.

        Never raises because of a slow or lost peer; `run` reports what cannot be mended.

        Args:
            kind: The message type: `hello, session_start, sentiment, text, event, status,
                heartbeat, error` or `session_end`.
            payload: One line of JSON without its newline.
        """

    async def run(self) -> None:
        """Deliver until cancelled; never returns by itself."""

    async def close(self) -> None:
        """Flush what is waiting and release sockets and files, within 2 seconds.

        Comes after `run` was cancelled; may be called twice and after a failed `open`.
        """


@runtime_checkable
class Patient(Protocol):
    """A publisher that loses nothing as long as it is waited for."""

    @property
    def backlog(self) -> int:
        """Messages that are not delivered yet; none if waiting does not help."""


async def caught_up(
    publishers: Iterable[Publisher], ending: asyncio.Event, most: int = BACKLOG
) -> None:
    """Wait until no publisher that can be waited for is behind, or until the run is to end.

    Args:
        publishers: Open and running.
        ending: Ends the waiting: a reader that never reads cannot keep the run from ending.
        most: Messages that may wait.
    """
    patient = [publisher for publisher in publishers if isinstance(publisher, Patient)]
    while not ending.is_set() and any(one.backlog > most for one in patient):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), AGAIN)


class ServiceStatus(Protocol):
    """What publishers ask of the service that they publish."""

    def hello(self) -> str:
        """Return the line that a new subscriber gets first."""

    def gauges(self) -> Mapping[str, float]:
        """Return what can be measured now, by plain name."""

    def offline(self, state: str) -> str:
        """Return the retained status of a broker for the state word `online` or `offline`."""


class Outbox(Generic[T]):
    """Messages that wait for one slow reader; iterate over it to take them out.

    Bounded: a message that does not fit drops the oldest one that waits, and `dropped` counts it.

    Args:
        size: How many messages may wait, at least 1.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"an outbox of {size} messages holds nothing: give at least 1")
        self.dropped = 0
        self._items: deque[T] = deque(maxlen=size)
        self._changed = asyncio.Event()
        self._ended = False

    def __len__(self) -> int:
        """Return how many messages wait."""
        return len(self._items)

    def put(self, item: T) -> int:
        """Add the newest message and return how many were dropped for it, 0 or 1."""
        dropped = int(len(self._items) == self._items.maxlen)
        self._items.append(item)
        self._changed.set()
        self.dropped += dropped
        return dropped

    def put_back(self, item: T) -> int:
        """Return the oldest message undelivered; in a full outbox it is the one dropped."""
        dropped = int(len(self._items) == self._items.maxlen)
        if not dropped:
            self._items.appendleft(item)
            self._changed.set()
        self.dropped += dropped
        return dropped

    def keep_newest(self, is_meant: Callable[[T], bool]) -> int:
        """Drop what waits of a kind, all but the newest, and return how many that were."""
        old = [item for item in self._items if is_meant(item)][:-1]
        for item in old:
            self._items.remove(item)
        self.dropped += len(old)
        return len(old)

    def end(self) -> None:
        """Let the iteration stop once nothing waits any more."""
        self._ended = True
        self._changed.set()

    def __aiter__(self) -> "Outbox[T]":
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._items.popleft()
