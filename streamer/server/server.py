"""The server of many sessions: its parts in one task group, from the open port to the last session.

Knows the order of starting and ending, and the server's own figures. Knows no protocol.
"""

import asyncio
import json
import logging
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Protocol

from ..agent.supervisor import keep_publishing
from ..core.estimate import Timing
from ..protocol.session_messages import SessionMessages
from ..publishers.publisher import Publisher
from ..webserver.routes import Page, Route
from .admission import Admission
from .ingest_endpoint import IngestEndpoint
from .sessions import ServerSession, SessionRegistry
from .snapshot_store import SnapshotStore

logger = logging.getLogger("tamulag.serve")

SWEEP = 30.0
"""Seconds between two looks for sessions that nobody has taken."""


class Runs(Protocol):
    """The pool of front ends, as the server sees it."""

    async def open(self) -> None:
        """Start."""

    async def run(self) -> None:
        """Supervise until cancelled."""

    async def close(self) -> None:
        """End."""


@dataclass(kw_only=True)
class Server:
    """One run of `tamulag serve`.

    Args:
        calls: The sessions.
        admission: Who may begin.
        timing: Of each session.
        name: Of the server, in its own messages.
        front: The pool of front ends; None: features only.
        kept: Sessions between two servers.
        heartbeat: Seconds without any message of its own after which a heartbeat is sent.
    """

    calls: SessionRegistry
    admission: Admission
    timing: Timing
    name: str
    front: Runs | None = None
    kept: SnapshotStore | None = None
    heartbeat: float = 5.0
    publishers: list[Publisher] = field(default_factory=list)
    lobby: IngestEndpoint | None = None
    _ending: asyncio.Event = field(default_factory=asyncio.Event)
    _epoch: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self._teller = SessionMessages(
            self.name, self.calls.about, wall_now=time.time, send=self._publish
        )
        self.calls.looked = self._look
        self._said = self._swept = time.monotonic()

    def stop(self) -> None:
        """End in order; may be called from a signal handler of the event loop."""
        self._ending.set()

    async def run(self) -> None:
        """Open everything, serve until `stop`, hand the sessions over, close.

        Raises:
            PublisherError: If a publisher cannot be opened.
            WorkerError: If a front end cannot be started.
        """
        try:
            if self.front is not None:
                await self._or_stopped(self.front.open())
            for publisher in self.publishers:
                await publisher.open()
            async with asyncio.TaskGroup() as group:
                self._teller.status()
                tasks = [group.create_task(self.calls.run(), name="tamulag.calls")]
                if self.front is not None:
                    tasks.append(group.create_task(self.front.run(), name="tamulag.front"))
                tasks += [
                    group.create_task(
                        keep_publishing(publisher, partial(self.tell_output, publisher.name)),
                        name=f"tamulag.{publisher.name}",
                    )
                    for publisher in self.publishers
                ]
                await self._ending.wait()
                assert self.lobby is not None, "the lobby is made before the server runs"
                await self.lobby.drain()
                for task in tasks:
                    task.cancel()
        finally:
            closing = [publisher.close() for publisher in self.publishers]
            closing += [] if self.front is None else [self.front.close()]
            for error in await asyncio.gather(*closing, return_exceptions=True):
                if isinstance(error, BaseException):
                    raise error

    def hello(self) -> str:
        """Return the line that a subscriber gets first who follows no session."""
        return self._teller.hello([], self.timing, hop=self.timing.hop, epoch=self._epoch)

    def greet(self, call: ServerSession) -> str:
        """Return the line that a session's sender and its followers get first."""
        epoch = time.time() - call.now()
        return call.teller.hello(call.asked, self.timing, hop=self.timing.hop, epoch=epoch)

    def greet_named(self, name: str) -> str | None:
        """Return that line by the session's name; None: there is none of it."""
        call = self.calls.open.get(name)
        return None if call is None else self.greet(call)

    def offline(self, state: str) -> str:
        """Return the retained status of a broker for the state word `online` or `offline`."""
        return self._teller.offline(state)

    def routes(self) -> dict[str, Route]:
        """Return the page of the sessions, by path; it is shown with the token alone."""
        return {"/seats": Route(make=self._seats)}

    def _seats(self) -> Page:
        seats = [
            {
                "session": call.name,
                "modalities": call.asked,
                "at": round(call.now(), 2),
                "away": call.left is not None,
                "lost": call.teller.lost,
            }
            for call in self.calls.open.values()
        ]
        return Page(HTTPStatus.OK, json.dumps({"seats": seats}) + "\n", "application/json")

    def gauges(self) -> Mapping[str, float]:
        """Return the server's figures by plain name; docs/reference/metrics.md lists them."""
        delays = sorted(self.calls.delays)
        return {
            "sessions": float(len(self.calls.open)),
            "sessions_away": float(sum(c.left is not None for c in self.calls.open.values())),
            "sessions_waiting": float(self.calls.place.waiting),
            "loop_busy": self.admission.busy,
            "loop_slowest": self.admission.slow,
            "scores_total": float(self.calls.scores),
            "delay_p50": delays[len(delays) // 2] if delays else 0.0,
            "delay_p99": delays[len(delays) * 99 // 100] if delays else 0.0,
            **{f"publisher_dropped_{one.name}": float(one.dropped) for one in self.publishers},
        }

    async def _or_stopped(self, opening: Coroutine[None, None, None]) -> None:
        """Wait until something is open, or until `stop`."""
        tasks = [asyncio.create_task(opening), asyncio.create_task(self._ending.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                tasks[0].result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._said > self.heartbeat:
            self._teller.heartbeat()
        if self.kept is not None and now - self._swept > SWEEP:
            self._swept = now
            self.kept.sweep()
        slowest, self.calls.slowest = self.calls.slowest, 0.0
        self.admission.observe(time.monotonic(), time.thread_time(), len(self.calls.open), slowest)

    def tell_output(self, name: str, reason: str | None, detail: str) -> None:
        """Say that a publisher is lost, or back; the others carry it."""
        self._teller.output(name, reason, detail, time.time() - self._epoch)

    def _publish(self, kind: str, line: str) -> None:
        self._said = time.monotonic()
        for publisher in self.publishers:
            publisher.publish(kind, line)
