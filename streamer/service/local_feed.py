"""One session from the devices or the file of this machine: sources in, estimates out.

Knows the order in which sources start and end. Knows no device, no protocol and no address.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from ..aio.threads import in_thread
from ..core.estimate import Estimate
from ..core.load_shedding import LoadShedder, steps_for
from ..core.sample import Input, Notice, Phrase, Sample
from ..core.session import Session
from ..core.source import Put, Source, SourceError, SourceLost
from ..core.source_watchdog import SourceWatchdog
from ..protocol.messages import Latency
from ..protocol.session_messages import SessionMessages
from ..storage.recorder import Recorder
from . import gauges
from .clock import SILENCE, SessionClock
from .inbox import Inbox
from .outputs import Outputs
from .supervisor import STOP_LIMIT, keep_alive

logger = logging.getLogger("tamulag.agent")

Keeper = asyncio.Task[SourceLost | None]
"""Keeps a source alive; its result is the permanent fault that ended it."""

POLL = 0.1
"""Seconds to wait for input before the clock is looked at."""


@dataclass(kw_only=True)
class LocalFeed:
    """The feed of `tamulag-stream`: one session, stepped as soon as its inputs come.

    Args:
        session: The pure core.
        sources: Not yet open.
        outputs: A file at full speed waits for them.
        messages: Of the session.
        clock: Session clock; live sources stamp with it.
        paced: False: a file at full speed; then nothing is dropped, nothing waits for the clock,
            and latencies are not measured.
        duration: Seconds of stream time after which it ends; None: when the sources end.
        recorder: Also among `outputs`; here so that its end is published. None: no recording.
        sends_words: False: no text message is sent (`--privacy strict`).
        blame: Called with what went wrong with an input or a step; returns whether a remote sender
            was closed for it. Else, and without it, that is a bug, which ends the run.
        waits: Whether a source that is away at the start is joined when it comes (`--wait`).
    """

    session: Session
    sources: Sequence[Source]
    outputs: Outputs
    messages: SessionMessages
    clock: SessionClock
    paced: bool = True
    duration: float | None = None
    recorder: Recorder | None = None
    sends_words: bool = True
    blame: Callable[[Exception], bool] | None = None
    waits: bool = False
    inbox: Inbox = field(default_factory=Inbox)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _away: dict[str, SourceError] = field(default_factory=dict)
    _wait: float = 0.0
    _latest: Latency | None = None

    def __post_init__(self) -> None:
        timing, asked = self.session.timing, self.session.asked
        self._shedder = LoadShedder(steps_for(asked, timing.hop, timing.window))
        self._watchdog = SourceWatchdog([name for name in ("audio", "vision") if name in asked])

    @property
    def is_hanging(self) -> bool:
        """Whether a source's thread did not end: then what it uses must not be freed."""
        return any(thread.is_alive() for thread in self._threads)

    async def prepare(self) -> None:
        """Do nothing: sources are opened after the outputs; see `Feed`."""

    async def open(self) -> None:
        """Open the sources, and let the session clock begin.

        With `waits` they are opened in `run`, so that nothing waits for one that is away.

        Raises:
            SourceError: If a source cannot be opened.
        """
        for source in self.sources:
            if self.waits:
                self._away[source.name] = SourceError(f"{source.name} is joined when it comes")
            else:
                await in_thread(source.name, source.open, threads=self._threads)
        self.clock.begin()

    async def run(self, ending: asyncio.Event) -> None:
        """Feed the session until the end, then publish what it still holds; see `Feed`.

        Raises:
            SourceLost: If it ends because permanent faults left no source.
        """
        self.messages.begin(0.0)
        async with asyncio.TaskGroup() as group:
            keepers = [
                group.create_task(
                    keep_alive(
                        source,
                        put=self._put(),
                        now=self.clock.now,
                        stop=self._stop,
                        threads=self._threads,
                        away=self._away.get(source.name),
                    ),
                    name=f"tamulag.{source.name}",
                )
                for source in self.sources
            ]
            for keeper in keepers:
                keeper.add_done_callback(partial(_log_fault, keepers))
            await self._consume(keepers, ending)
            self._stop.set()
            await self._abandon(keepers)
        for item in await self.inbox.get(timeout=0):
            with self._contained():
                self._push(item)
        self._score(partial(self.session.close, self.clock.now() if self.paced else None))
        reason = "duration" if self._is_over() else "stopped" if ending.is_set() else "end"
        self.messages.end(max(self._now(), self.session.now), reason)
        if not self.paced:
            await self.outputs.wait_for_backlog(ending, is_all=True)
        if reason == "end":
            _raise_fault(keepers)

    async def close(self) -> None:
        """Wait for the sources' threads, also after a failure: what they use is freed next."""
        self._stop.set()
        await in_thread("end", self._join)

    def hello(self) -> str:
        """Return the line that a new subscriber gets first."""
        session = self.session
        return self.messages.hello(
            session.asked, session.timing, hop=session.hop, epoch=self.clock.epoch
        )

    def gauges(self) -> dict[str, float]:
        """Return what can be measured now; see `Feed`."""
        figures = gauges.gauges(self.inbox, self.session, self.sources)
        figures["degradation_level"] = self._shedder.level
        if self._latest is not None:
            parts = self._latest.model_dump()
            figures |= {f"hop_{part}_latency": value for part, value in parts.items()}
        return figures

    def output_changed(self, name: str, reason: str | None, detail: str) -> None:
        """Publish that an output is lost, or back; the others carry it."""
        self.messages.output(name, reason, detail, self._now())

    async def _consume(self, keepers: Sequence[Keeper], ending: asyncio.Event) -> None:
        while not (ending.is_set() or self._is_over() or all(k.done() for k in keepers)):
            items = await self.inbox.get(timeout=POLL)
            got = self.clock.now()
            for item in items:
                with self._contained():
                    self._push(item)
                self._shed(got)
            self._check_recording()
            now = self.clock.now()
            if self.paced:
                # Not by the present time: what came while the others were worked on is not late.
                with self._contained():
                    self._score(partial(self.session.advance, got - SILENCE))
                self._shed(now)
                for notice in self._watchdog.poll(got, self.messages.lost):
                    self._push(notice)
            else:
                await self.outputs.wait_for_backlog(ending)

    @contextmanager
    def _contained(self) -> Iterator[None]:
        """Let what goes wrong within close the remote sender, if there is one."""
        try:
            yield
        except Exception as error:
            if self.blame is None or not self.blame(error):
                raise

    async def _abandon(self, keepers: Sequence[Keeper]) -> None:
        """Give the sources a moment to end; abandon one that hangs in its driver."""
        _, hanging = await asyncio.wait(keepers, timeout=STOP_LIMIT) if keepers else (0, ())
        for keeper in hanging:
            logger.warning(
                "%s does not end within %s s: left behind", keeper.get_name(), STOP_LIMIT
            )
            keeper.cancel()

    def _join(self) -> None:
        end = time.monotonic() + STOP_LIMIT
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _put(self) -> Put:
        if self.paced:
            return self.inbox.put
        return lambda item: self.inbox.put_blocking(item, self._stop)

    def _now(self) -> float:
        """Return the stream time: the clock's, or of a file at full speed what was scored."""
        return self.clock.now() if self.paced else self.session.now

    def _is_over(self) -> bool:
        return self.duration is not None and self._now() >= self.duration

    def _push(self, item: Input) -> None:
        if isinstance(item, Phrase) and self.sends_words:
            self.messages.words(item)
        if isinstance(item, Notice):
            self.messages.notice(item)
            if item.event:
                return
        if isinstance(item, Sample):
            now = self.clock.now()
            self._watchdog.saw(item.modality, now)
            self._wait = max(self._wait, now - item.timestamp)
        self._score(partial(self.session.push, item))

    def _shed(self, got: float) -> None:
        """Give up some work if the machine is too slow, or take it up again, and publish that.

        Args:
            got: When the inputs that are being worked on were taken out of the inbox.
        """
        now = self.clock.now()
        strain = gauges.strain(self.inbox, self.sources, working=now - got)
        if not (self.paced and self._shedder.observe(now, strain)):
            return
        steps = self.messages.pressure = tuple(self._shedder.given_up)
        logger.warning("given up because the machine is too slow: %s", ", ".join(steps) or "none")
        for source in self.sources:
            source.shed(steps)
        hop = self.session.timing.hop * (2 if "hop" in steps else 1)
        if hop != self.session.hop:
            self.session.set_hop(hop)
        self.messages.status()

    def _check_recording(self) -> None:
        """Publish once that a recording has ended before its session."""
        lost = self.recorder.lost if self.recorder else None
        if lost is not None and "recording" not in self.messages.lost:
            self.messages.recording(*lost, self._now())

    def _score(self, step: Callable[[], list[Estimate]]) -> None:
        """Run a step of the session and publish its estimates, with the time that it took."""
        before = self.clock.now()
        estimates = step()
        spent = self.clock.now() - before
        for estimate in estimates:
            if self.duration is not None and estimate.end > self.duration + 1e-9:
                return
            latency = self._latency(estimate.end, before, spent / len(estimates))
            dropped = gauges.dropped(self.inbox, self.session, self.sources)
            self.messages.estimate(estimate, latency, dropped)

    def _latency(self, end: float, before: float, model: float) -> Latency:
        if not self.paced:
            return Latency(align=None, features=None, model=round(model, 4), total=None)
        wait, self._wait = self._wait, 0.0
        self._latest = Latency(
            align=round(max(0.0, before - end), 4),
            features=round(wait, 4),
            model=round(model, 4),
            total=round(max(0.0, self.clock.now() - end), 4),
        )
        return self._latest


def _log_fault(keepers: Sequence[Keeper], ended: Keeper) -> None:
    """Log the permanent fault of a source while others go on."""
    fault = None if ended.cancelled() or ended.exception() else ended.result()
    if fault and not all(keeper.done() for keeper in keepers):
        logger.warning("%s", fault)


def _raise_fault(keepers: Sequence[Keeper]) -> None:
    """Raise the first permanent fault of those that have ended, if there is one."""
    for keeper in keepers:
        if fault := keeper.result():
            raise fault
