"""The outputs of a service: opened, run, opened again when lost, and closed together.

Knows publishers and their loss. Knows no session, no source and no message but its kind.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol, runtime_checkable

from ..aio.backoff import Backoff
from ..publishers.publisher import Publisher, PublisherError, wait_for_backlog

logger = logging.getLogger("tamulag.source")

OutputChanged = Callable[[str, str | None, str], None]
"""Called with an output's name, `publisher_lost` and the reason; with None when it is back."""


@runtime_checkable
class SessionOutput(Protocol):
    """An output that takes the messages of many sessions."""

    def publish_of(self, session: str, kind: str, payload: str) -> None:
        """Take one message of a session; never waits."""


class Outputs:
    """All publishers of a service, with one life.

    Args:
        publishers: Not yet open; `add` takes more until `open`.
        waits: Whether a broker that is away at the start is joined when it comes.
    """

    def __init__(self, publishers: Iterable[Publisher] = (), *, waits: bool = False) -> None:
        self.publishers: list[Publisher] = []
        self.newest = time.monotonic()
        """Steady clock at the newest message of the service itself."""
        self._of_sessions: list[SessionOutput] = []
        self._waits = waits
        for publisher in publishers:
            self.add(publisher)

    def add(self, publisher: Publisher) -> None:
        """Add one more; comes before `open`."""
        self.publishers.append(publisher)
        if isinstance(publisher, SessionOutput):
            self._of_sessions.append(publisher)

    async def open(self) -> None:
        """Open all, one after the other.

        Raises:
            PublisherError: If one cannot be opened; `close` comes next.
        """
        self.newest = time.monotonic()
        for publisher in self.publishers:
            if not self._is_joined(publisher):
                await publisher.open()

    async def run(self, changed: OutputChanged) -> None:
        """Run all until cancelled; whatever is lost is closed and opened again.

        Raises:
            ExceptionGroup: What a publisher raised that is not a `PublisherError`.
        """
        async with asyncio.TaskGroup() as group:
            for publisher in self.publishers:
                group.create_task(
                    keep_publishing(
                        publisher,
                        partial(changed, publisher.name),
                        is_open=not self._is_joined(publisher),
                    ),
                    name=f"tamulag.{publisher.name}",
                )

    async def close(self) -> None:
        """Close all together, so that one slow goodbye does not add to another.

        Raises:
            Exception: The first that a publisher raised; all are closed nevertheless.
        """
        closing = (publisher.close() for publisher in self.publishers)
        for error in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(error, BaseException):
                raise error

    def _is_joined(self, publisher: Publisher) -> bool:
        """Return whether an output is opened in `run`: only of a broker the fault is passing."""
        return self._waits and publisher.name == "mqtt"

    def publish(self, kind: str, line: str) -> None:
        """Hand one message of the service to every output."""
        self.newest = time.monotonic()
        for publisher in self.publishers:
            publisher.publish(kind, line)

    def publish_of(self, session: str, kind: str, line: str) -> None:
        """Hand one message of one of many sessions to the outputs that take those."""
        for output in self._of_sessions:
            output.publish_of(session, kind, line)

    async def wait_for_backlog(self, ending: asyncio.Event, *, is_all: bool = False) -> None:
        """Wait until no output that can be waited for is behind, or until the end.

        Args:
            ending: Ends the waiting.
            is_all: Whether every message must be delivered, not only most of them.
        """
        await wait_for_backlog(self.publishers, ending, **({"most": 0} if is_all else {}))

    def gauges(self) -> dict[str, float]:
        """Return the messages that were not delivered, by the plain name of the figure."""
        dropped = Counter[str]()
        for publisher in self.publishers:
            dropped[f"publisher_dropped_{publisher.name}"] += publisher.dropped
        return {name: float(count) for name, count in dropped.items()}


async def keep_publishing(
    publisher: Publisher, notify: Callable[[str | None, str], None], *, is_open: bool = True
) -> None:
    """Run a publisher until cancelled; whenever it is lost, close it and open it again.

    Args:
        publisher: Already open, unless it is to be joined when it comes.
        notify: Called with `publisher_lost` and the reason, and with None when it is back.
        is_open: Whether it is open.

    Raises:
        Exception: Whatever the publisher raised that is not a `PublisherError`.
    """
    backoff = Backoff()
    if not is_open:
        notify("publisher_lost", f"{publisher.name} is joined when it comes")
    while True:
        if is_open:
            backoff.opened()
            try:
                await publisher.run()
            except PublisherError as lost:
                logger.warning("%s: %s", publisher.name, lost)
                notify("publisher_lost", str(lost))
            await publisher.close()
        is_open = False
        while not is_open:
            await asyncio.sleep(backoff.next())
            is_open = await _opens(publisher)
        notify(None, f"{publisher.name} is back")


async def _opens(publisher: Publisher) -> bool:
    try:
        await publisher.open()
    except PublisherError as error:
        logger.info("%s is still away: %s", publisher.name, error)
        return False
    return True
