"""One life cycle for all runs: a feed, its outputs and a heartbeat, opened and closed in order.

Knows the order of starting and ending. Knows no device, no protocol and no session.
"""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Protocol

from ..protocol.session_messages import SessionMessages
from .outputs import Outputs


class Feed(Protocol):
    """What a service publishes, and where its inputs come from: devices, senders, a recording."""

    async def prepare(self) -> None:
        """Start what takes long, before any output is open; may be cancelled."""

    async def open(self) -> None:
        """Open the inputs; the outputs are open already.

        Raises:
            SourceError: If an input cannot be opened.
        """

    async def run(self, ending: asyncio.Event) -> None:
        """Publish until the inputs end or `ending` is set; then what is still held.

        Raises:
            Exception: Whatever went wrong; `close` comes next.
        """

    async def close(self) -> None:
        """Release everything, within some 2 seconds; also comes after a failed `open`."""

    def hello(self) -> str:
        """Return the line that a new subscriber gets first."""

    def gauges(self) -> dict[str, float]:
        """Return what can be measured now, by plain name; times are seconds."""

    def output_changed(self, name: str, reason: str | None, detail: str) -> None:
        """Publish that an output is lost, or with None that it is back."""


@dataclass(kw_only=True)
class Service:
    """One run of `tamulag-stream`, `tamulag serve` or `tamulag replay`.

    Args:
        feed: Not yet open.
        outputs: Not yet open.
        messages: Of the service itself; its lines go to `outputs`.
        heartbeat: Seconds without any message after which a heartbeat is sent.
    """

    feed: Feed
    outputs: Outputs
    messages: SessionMessages
    heartbeat: float = 5.0
    _ending: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        """Name of the service in its own messages."""
        return self.messages.session

    def stop(self) -> None:
        """End the run in order; may be called from a signal handler of the event loop."""
        self._ending.set()

    async def run(self) -> None:
        """Open everything, run until the feed ends or `stop` is called, close everything.

        Raises:
            SourceError: If a source cannot be opened.
            PublisherError: If an output cannot be opened.
            WorkerError: If a worker process cannot be started.
            Exception: Whatever went wrong unexpectedly; everything is closed all the same.
        """
        try:
            await self._or_stopped(self.feed.prepare())
            await self.outputs.open()
            await self.feed.open()
            async with asyncio.TaskGroup() as group:
                running = [
                    group.create_task(
                        self.outputs.run(self.feed.output_changed), name="tamulag.outputs"
                    ),
                    group.create_task(self._beat(), name="tamulag.heartbeat"),
                ]
                await self.feed.run(self._ending)
                for task in running:
                    task.cancel()
        finally:
            closing = (self.feed.close(), self.outputs.close())
            for error in await asyncio.gather(*closing, return_exceptions=True):
                if isinstance(error, BaseException):
                    raise error

    def hello(self) -> str:
        """Return the line that a new subscriber gets first."""
        return self.feed.hello()

    def offline(self, state: str) -> str:
        """Return the retained status of a broker for the state word `online` or `offline`."""
        return self.messages.offline(state)

    def gauges(self) -> dict[str, float]:
        """Return what can be measured now, by plain name: clocks, queues, drops, latencies.

        Names end in what they count; times are seconds. docs/reference/metrics.md lists them.
        """
        return self.feed.gauges() | self.outputs.gauges()

    async def _beat(self) -> None:
        """Send a heartbeat whenever nothing else was sent for a while."""
        while True:
            quiet = time.monotonic() - self.outputs.newest
            if quiet >= self.heartbeat:
                self.messages.heartbeat()
                quiet = 0.0
            await asyncio.sleep(self.heartbeat - quiet)

    async def _or_stopped(self, preparing: Coroutine[None, None, None]) -> None:
        """Wait until something is prepared, or until `stop`."""
        tasks = [asyncio.create_task(preparing), asyncio.create_task(self._ending.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                tasks[0].result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
