"""The agent: sources in, session, publishers out, in one task group.

Knows the order of starting and ending. Knows no device, no protocol and no network address.
"""

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from ..aio.threads import in_thread
from ..core.estimate import Estimate
from ..core.load_shedding import LoadShedder, steps_for
from ..core.sample import Input, Notice, Phrase, Sample
from ..core.session import Session
from ..core.source import Put, Source
from ..core.source_watchdog import SourceWatchdog
from ..protocol import messages
from ..protocol.session_messages import RunInfo, SessionMessages
from ..publishers.publisher import Publisher, wait_for_backlog
from ..storage.recorder import Recorder
from . import gauges
from .clock import SessionClock
from .inbox import Inbox
from .supervisor import STOP_LIMIT, keep_alive, keep_publishing

logger = logging.getLogger("tamulag.agent")

SILENCE = 0.5
"""Seconds beyond `lateness` after which hops close without any sample: everything is silent."""

POLL = 0.1
"""Seconds that the agent waits for input before it looks at the clock."""


@dataclass(kw_only=True)
class Agent:
    """One run from open devices to the last message.

    Args:
        session: The pure core.
        sources: Not yet open.
        publishers: Not yet open.
        about: For `hello`.
        clock: Session clock; live sources stamp with it.
        paced: False: a file at full speed; then nothing is dropped, nothing waits for the clock,
            and latencies are not measured.
        duration: Seconds of stream time after which it ends; None: when the sources end.
        heartbeat: Seconds without any message after which a heartbeat is sent.
        recorder: Also among `publishers`; here so that its end is told. None: nothing is recorded.
        sends_words: False: no text message leaves the agent (`--privacy strict`).
    """

    session: Session
    sources: Sequence[Source]
    publishers: list[Publisher]
    about: RunInfo
    clock: SessionClock
    paced: bool = True
    duration: float | None = None
    heartbeat: float = 5.0
    recorder: Recorder | None = None
    sends_words: bool = True
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    inbox: Inbox = field(default_factory=Inbox)
    _ending: asyncio.Event = field(default_factory=asyncio.Event)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _sent: float = 0.0
    _wait: float = 0.0
    _latest: messages.Latency | None = None

    def __post_init__(self) -> None:
        timing, asked = self.session.timing, self.session.asked
        self._pressure = LoadShedder(steps_for(asked, timing.hop, timing.window))
        self.teller = SessionMessages(
            self.name, self.about, wall_now=self.clock.wall_now, send=self._publish
        )
        self._watch = SourceWatchdog([name for name in ("audio", "vision") if name in asked])

    @property
    def is_hanging(self) -> bool:
        """Whether a source's thread did not end: then what it uses must not be freed."""
        return any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """End the run in order; may be called from a signal handler of the event loop."""
        self._ending.set()

    async def run(self) -> None:
        """Open everything, run until the sources end, `stop` is called or time is up, close.

        Raises:
            SourceError: If a source cannot be opened.
            PublisherError: If a publisher cannot be opened.
            Exception: Whatever went wrong unexpectedly; everything is closed all the same.
        """
        try:
            for publisher in self.publishers:
                await publisher.open()
            for source in self.sources:
                await in_thread(source.name, source.open, threads=self._threads)
            self.clock.begin()
            async with asyncio.TaskGroup() as group:
                running = [
                    group.create_task(
                        keep_publishing(publisher, partial(self.tell_output, publisher.name)),
                        name=f"tamulag.{publisher.name}",
                    )
                    for publisher in self.publishers
                ]
                await self._stream()
                for task in running:
                    task.cancel()
        finally:
            self._stop.set()
            await in_thread("end", self._join)
            # Together, so that one slow goodbye does not add to another.
            closed = await asyncio.gather(
                *(publisher.close() for publisher in self.publishers), return_exceptions=True
            )
            for error in closed:
                if isinstance(error, BaseException):
                    raise error

    async def _stream(self) -> None:
        """Feed the session until the end, then send what it still holds."""
        self.teller.begin(0.0)
        async with asyncio.TaskGroup() as group:
            keepers = [
                group.create_task(
                    keep_alive(
                        source,
                        put=self._put(),
                        now=self.clock.now,
                        stop=self._stop,
                        threads=self._threads,
                    ),
                    name=f"tamulag.{source.name}",
                )
                for source in self.sources
            ]
            await self._consume(keepers)
            self._stop.set()
            await self._leave(keepers)
        for item in await self.inbox.get(timeout=0):
            self._take(item)
        self._score(partial(self.session.close, self.clock.now() if self.paced else None))
        reason = "duration" if self._is_over() else "stopped" if self._ending.is_set() else "end"
        self.teller.end(max(self._time(), self.session.now), reason)
        if not self.paced:
            await wait_for_backlog(self.publishers, self._ending, most=0)

    async def _consume(self, keepers: Sequence[asyncio.Task[None]]) -> None:
        while not (self._ending.is_set() or self._is_over() or all(k.done() for k in keepers)):
            items = await self.inbox.get(timeout=POLL)
            got = self.clock.now()
            for item in items:
                self._take(item)
                self._relieve(got)
            self._check_recording()
            now = self.clock.now()
            if self.paced:
                # Not by `now`: what came while the others were worked on is not late.
                self._score(partial(self.session.advance, got - SILENCE))
                self._relieve(now)
                for notice in self._watch.look(got, self.teller.lost):
                    self._take(notice)
            else:
                await wait_for_backlog(self.publishers, self._ending)
            if now - self._sent > self.heartbeat:
                self.teller.heartbeat()

    async def _leave(self, keepers: Sequence[asyncio.Task[None]]) -> None:
        """Give the sources a moment to end; one that hangs in its driver is left behind."""
        _, hanging = await asyncio.wait(keepers, timeout=STOP_LIMIT) if keepers else (0, ())
        for keeper in hanging:
            logger.warning(
                "%s does not end within %s s: left behind", keeper.get_name(), STOP_LIMIT
            )
            keeper.cancel()

    def _join(self) -> None:
        """Wait for the sources' threads, also after a failure: what they use is freed next."""
        end = time.monotonic() + STOP_LIMIT
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _put(self) -> Put:
        if self.paced:
            return self.inbox.put
        return lambda item: self.inbox.put_blocking(item, self._stop)

    def _time(self) -> float:
        """Return the stream time: the clock's, or of a file at full speed what was scored."""
        return self.clock.now() if self.paced else self.session.now

    def _is_over(self) -> bool:
        return self.duration is not None and self._time() >= self.duration

    def _take(self, item: Input) -> None:
        if isinstance(item, Phrase) and self.sends_words:
            self.teller.words(item)
        if isinstance(item, Notice):
            self.teller.notice(item)
        if isinstance(item, Sample):
            now = self.clock.now()
            self._watch.saw(item.modality, now)
            self._wait = max(self._wait, now - item.timestamp)
        self._score(partial(self.session.push, item))

    def tell_output(self, name: str, reason: str | None, detail: str) -> None:
        """Say that a publisher is lost, or back; the others carry it."""
        self.teller.output(name, reason, detail, self._time())

    def _relieve(self, got: float) -> None:
        """Give up some work if the machine is too slow, or take it up again, and say so.

        Args:
            got: When the inputs that are being worked on were taken out of the inbox.
        """
        now = self.clock.now()
        strain = gauges.strain(self.inbox, self.sources, working=now - got)
        if not (self.paced and self._pressure.observe(now, strain)):
            return
        steps = self.teller.pressure = tuple(self._pressure.given_up)
        logger.warning("given up because the machine is too slow: %s", ", ".join(steps) or "none")
        for source in self.sources:
            source.shed(steps)
        hop = self.session.timing.hop * (2 if "hop" in steps else 1)
        if hop != self.session.hop:
            self.session.set_hop(hop)
        self.teller.status()

    def _check_recording(self) -> None:
        """Tell once that a recording has ended before its session."""
        lost = self.recorder.lost if self.recorder else None
        if lost is not None and "recording" not in self.teller.lost:
            self.teller.recording(*lost, self._time())

    def _score(self, step: Callable[[], list[Estimate]]) -> None:
        """Publish what a step of the session says, with the time that it took."""
        before = self.clock.now()
        estimates = step()
        spent = self.clock.now() - before
        for estimate in estimates:
            if self.duration is not None and estimate.end > self.duration + 1e-9:
                return
            latency = self._latency(estimate.end, before, spent / len(estimates))
            dropped = gauges.dropped(self.inbox, self.session, self.sources)
            self.teller.estimate(estimate, latency, dropped)

    def _latency(self, end: float, before: float, model: float) -> messages.Latency:
        if not self.paced:
            return messages.Latency(align=None, features=None, model=round(model, 4), total=None)
        wait, self._wait = self._wait, 0.0
        self._latest = messages.Latency(
            align=round(max(0.0, before - end), 4),
            features=round(wait, 4),
            model=round(model, 4),
            total=round(max(0.0, self.clock.now() - end), 4),
        )
        return self._latest

    def gauges(self) -> dict[str, float]:
        """Return what can be measured now, by plain name: clocks, queues, drops, latencies.

        Names end in what they count; times are seconds. docs/reference/metrics.md lists them.
        """
        figures = gauges.gauges(self.inbox, self.session, self.sources, self.publishers)
        figures["degradation_level"] = self._pressure.level
        if self._latest is not None:
            parts = self._latest.model_dump()
            figures |= {f"hop_{part}_latency": value for part, value in parts.items()}
        return figures

    def hello(self) -> str:
        """Return the line that a new subscriber gets first."""
        session = self.session
        return self.teller.hello(
            session.asked, session.timing, hop=session.hop, epoch=self.clock.epoch
        )

    def offline(self, state: str) -> str:
        """Return the retained status of a broker for the state word `online` or `offline`."""
        return self.teller.offline(state)

    def _publish(self, kind: str, line: str) -> None:
        self._sent = self.clock.now()
        for publisher in self.publishers:
            publisher.publish(kind, line)
