"""The protocol of every publisher, and the bounded outbox that each of them may use.

Knows lines of JSON and their type. Knows no socket, no broker and no file.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, Protocol, TypeVar, runtime_checkable

from ..core.errors import TamulagError

T = TypeVar("T")

LossCallback = Callable[[str | None, str], None]
"""Called with `publisher_lost` and a detail, and with None when the publisher is back."""

MAX_BACKLOG = 250
"""Undelivered lines at full speed above which the next input waits."""

BACKLOG_POLL = 0.02
"""Seconds between two checks of a backlog."""


def ignore_loss(reason: str | None, detail: str) -> None:
    """Ignore the report."""


class PublisherError(TamulagError):
    """A publisher cannot be opened: port in use, broker away, file not writable.

    The text names the value and the remedy, in one or two lines.
    """


class Publisher(Protocol):
    """An output for messages; its owner opens it, feeds it, runs it and closes it."""

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

        Never raises because of a slow or lost peer; `run` reports what cannot be repaired.

        Args:
            kind: The message type: `hello, session_start, sentiment, text, event, status,
                heartbeat, error` or `session_end`.
            payload: One line of JSON without its newline.
        """

    async def run(self) -> None:
        """Deliver until cancelled; never returns by itself."""

    async def close(self) -> None:
        """Flush the queue, say goodbye and release sockets and files, within 2 seconds.

        Called after `run` was cancelled; may be called twice and after a failed `open`.
        """


@runtime_checkable
class BacklogPublisher(Protocol):
    """A publisher that loses nothing as long as its backlog is waited for."""

    @property
    def backlog(self) -> int:
        """Messages not delivered yet; 0 if waiting does not help."""


async def wait_for_backlog(
    publishers: Iterable[Publisher], ending: asyncio.Event, most: int = MAX_BACKLOG
) -> None:
    """Wait until no publisher with a backlog is behind, or until the run is to end.

    Args:
        publishers: Open and running.
        ending: Ends the waiting, so that a reader that never reads cannot block the end.
        most: Messages that may stay undelivered.
    """
    waited = [publisher for publisher in publishers if isinstance(publisher, BacklogPublisher)]
    while not ending.is_set() and any(one.backlog > most for one in waited):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), BACKLOG_POLL)


class ServiceStatus(Protocol):
    """What publishers ask of the service that they publish."""

    def hello(self) -> str:
        """Return the first line for a new subscriber."""

    def gauges(self) -> Mapping[str, float]:
        """Return the current measurements, by plain name."""

    def offline(self, state: str) -> str:
        """Return the retained MQTT status for the state word `online` or `offline`."""


class Outbox(Generic[T]):
    """A bounded queue of messages for one slow reader; iterate over it to take them out.

    A message that does not fit drops the oldest one, and `dropped` counts it.

    Args:
        size: Most queued messages, at least 1.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"an outbox of {size} messages holds nothing: give at least 1")
        self.dropped = 0
        self._items: deque[T] = deque(maxlen=size)
        self._changed = asyncio.Event()
        self._ended = False

    def __len__(self) -> int:
        """Return the number of queued messages."""
        return len(self._items)

    def put(self, item: T) -> int:
        """Add the newest message and return how many were dropped for it, 0 or 1."""
        dropped = int(len(self._items) == self._items.maxlen)
        self._items.append(item)
        self._changed.set()
        self.dropped += dropped
        return dropped

    def put_back(self, item: T) -> int:
        """Return an undelivered message to the front; in a full outbox it is dropped."""
        dropped = int(len(self._items) == self._items.maxlen)
        if not dropped:
            self._items.appendleft(item)
            self._changed.set()
        self.dropped += dropped
        return dropped

    def keep_newest(self, is_meant: Callable[[T], bool]) -> int:
        """Drop all but the newest of the queued messages of a kind; return how many."""
        old = [item for item in self._items if is_meant(item)][:-1]
        for item in old:
            self._items.remove(item)
        self.dropped += len(old)
        return len(old)

    def end(self) -> None:
        """End the iteration once the queue is empty."""
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
