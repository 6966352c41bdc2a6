"""Many sessions of remote senders: workers and registry in one task group.

Knows the order of starting and ending, and the server's own figures. Knows no protocol.
"""

import asyncio
import json
import logging
import time
from dataclasses import dataclass, field
from http import HTTPStatus

from ..core.load_shedding import LoadShedder, steps_for
from ..protocol.session_messages import SessionMessages
from ..storage.session_recorders import SessionRecorders
from ..webserver.routes import Page, Route
from .admission import Admission
from .feature_workers.pool import FeatureWorkerPool
from .server_senders import ServerSenders
from .sessions import SessionRegistry
from .snapshot_store import SnapshotStore

logger = logging.getLogger("tamulag.serve")

SWEEP = 30.0
"""Interval of the removal of expired snapshots, seconds."""

MAY_WAIT = 0.5
"""Seconds that a step or sound may wait before the machine counts as too slow."""

OBSERVE = 0.1
"""Seconds between two measurements of the load."""


@dataclass(kw_only=True)
class RemoteFeed:
    """The feed of `tamulag serve`: many sessions, each with a sender of its own.

    Args:
        registry: The sessions.
        senders: Of the sessions.
        admission: Decides whether a session may begin.
        messages: Of the server itself.
        workers: Turn sound and pictures into features; None: ready features only.
        store: Snapshots of sessions between two servers.
        recorders: Of the sessions; None: nothing is recorded.
    """

    registry: SessionRegistry
    senders: ServerSenders
    admission: Admission
    messages: SessionMessages
    workers: FeatureWorkerPool | None = None
    store: SnapshotStore | None = None
    recorders: SessionRecorders | None = None
    _epoch: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        timing = self.registry.timing
        described = ("text", "vision") if self.workers is not None else ()
        self._shedder = LoadShedder(steps_for(described, timing.hop, timing.window))

    async def prepare(self) -> None:
        """Start the workers, and create the folder of recordings.

        Raises:
            WorkerError: If one cannot be started.
            PublisherError: If nothing can be recorded in that folder.
        """
        if self.recorders is not None:
            await self.recorders.open()
        if self.workers is not None:
            await self.workers.open()

    async def open(self) -> None:
        """Do nothing: senders come through the port, which is an output; see `Feed`."""

    async def run(self, ending: asyncio.Event) -> None:
        """Serve until the end, then hand the sessions over; see `Feed`.

        What goes wrong with one session is not raised here, see `SessionRegistry`. After a failure
        of what they share, here or in an output, all are handed over before it is raised.
        """
        self.messages.status()
        tasks = [
            asyncio.create_task(self.registry.run(), name="tamulag.sessions"),
            asyncio.create_task(self._observe(), name="tamulag.admission"),
            asyncio.create_task(ending.wait(), name="tamulag.ending"),
        ]
        if self.workers is not None:
            tasks.append(asyncio.create_task(self.workers.run(), name="tamulag.workers"))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            try:
                await self.senders.drain()
            finally:
                for task in tasks:
                    task.cancel()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
        failures = [one for one in ended if isinstance(one, Exception)]
        if failures:
            raise ExceptionGroup("the server cannot go on", failures)

    async def close(self) -> None:
        """End the workers, write the last rows of recordings, let old snapshots be deleted."""
        closing = [one.close() for one in (self.workers, self.recorders) if one is not None]
        try:
            await asyncio.gather(*closing)
        finally:
            if self.store is not None:
                self.store.sweep_later()

    def hello(self) -> str:
        """Return the first line of a subscriber of all sessions."""
        timing = self.registry.timing
        return self.messages.hello([], timing, hop=timing.hop, epoch=self._epoch)

    def hello_of(self, name: str) -> str | None:
        """Return the line that a session's subscribers get first; None: there is none of it."""
        session = self.registry.open.get(name)
        return None if session is None else self.registry.hello(session)

    def output_changed(self, name: str, reason: str | None, detail: str) -> None:
        """Publish that an output is lost, or back; the others carry it."""
        self.messages.output(name, reason, detail, time.time() - self._epoch)

    def routes(self) -> dict[str, Route]:
        """Return the page of the sessions, by path; it is shown with the token alone."""
        return {"/seats": Route(make=self._sessions_page)}

    def gauges(self) -> dict[str, float]:
        """Return the server's figures by plain name; docs/reference/metrics.md lists them."""
        registry = self.registry
        delays = sorted(registry.delays)
        return {
            "sessions": float(len(registry.open)),
            "sessions_away": float(
                sum(one.away_since is not None for one in registry.open.values())
            ),
            "sessions_waiting": float(registry.backend.waiting),
            "loop_busy": self.admission.busy,
            "loop_slowest": self.admission.slow,
            "scores_total": float(registry.scores),
            "degradation_level": float(self._shedder.level),
            "delay_p50": delays[len(delays) // 2] if delays else 0.0,
            "delay_p99": delays[len(delays) * 99 // 100] if delays else 0.0,
        }

    def _sessions_page(self) -> Page:
        seats = [
            {
                "session": one.name,
                "modalities": one.asked,
                "at": round(one.now(), 2),
                "away": one.away_since is not None,
                "lost": one.messages.lost,
            }
            for one in self.registry.open.values()
        ]
        return Page(HTTPStatus.OK, json.dumps({"seats": seats}) + "\n", "application/json")

    def _shed(self, now: float, slowest: float) -> None:
        """Give up some work if the machine is too slow, or take it up again, and publish that.

        Args:
            now: Steady clock.
            slowest: Seconds of the longest round of all sessions of late.
        """
        wait = max(slowest, self.registry.take_longest_wait())
        if self.workers is not None:
            wait = max(wait, self.workers.waiting())
        if not self._shedder.observe(now, wait / MAY_WAIT):
            return
        steps = self._shedder.given_up
        logger.warning("given up because the machine is too slow: %s", ", ".join(steps) or "none")
        if self.workers is not None:
            self.workers.shed(steps)
        self.registry.shed(steps)
        self.messages.pressure = steps
        self.messages.status()

    async def _observe(self) -> None:
        """Measure the load, for admission and shedding; delete snapshots that are not resumed."""
        swept = time.monotonic()
        while True:
            await asyncio.sleep(OBSERVE)
            now, sessions = time.monotonic(), len(self.registry.open)
            slowest = self.registry.take_slowest()
            self.admission.observe(now, time.thread_time(), sessions, slowest)
            self._shed(now, slowest)
            if self.store is not None and now - swept > SWEEP:
                swept = now
                self.store.sweep()
