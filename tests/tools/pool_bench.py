"""Measure the feature workers: `python -m tests.tools.pool_bench`, some two minutes.

What the hop into a process costs beside the same work in this one, in turns, so that what else the
machine does disturbs both; memory with one to four sessions of sound and pictures; and how long the
sessions of a killed worker are without it. Each session sends ten frames of sound and ten pictures
a second, in real time.
"""

import asyncio
import os
import signal
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from tamulag.streamer.core.sample import Input, Sample
from tamulag.streamer.protocol.ingest import PlacedFrame
from tamulag.streamer.service.feature_workers.pipeline import FeaturePipeline, PipelineConfig, load
from tamulag.streamer.service.feature_workers.pool import FeatureWorkerPool

from ..support.senders import BOTH, picture, sound

ROUND = 5.0
ROUNDS = 4
MOST = 4

Feed = Callable[[str, PlacedFrame], None]


@dataclass
class Ways:
    """How long it took from a frame to what came of it, seconds, by modality."""

    took: dict[str, list[float]] = field(default_factory=lambda: {"audio": [], "vision": []})
    sent: dict[tuple[str, str, float], float] = field(default_factory=dict)

    def send(self, session: str, fed: PlacedFrame) -> None:
        kind = "vision" if fed.frame.picture else "audio"
        self.sent[session, kind, round(fed.place, 1)] = time.perf_counter()

    def find(self, session: str, inputs: Iterable[Input]) -> None:
        """Note samples. Of sound the last tick of a frame comes with the next one."""
        now = time.perf_counter()
        for item in inputs:
            if isinstance(item, Sample):
                lag = 0.02 if item.modality == "audio" else 0.0
                key = (session, item.modality, round(item.timestamp + lag, 3))
                if key in self.sent:
                    self.took[item.modality].append(now - self.sent[key])

    def text(self) -> str:
        high = {kind: sorted(took)[-len(took) // 20] for kind, took in self.took.items()}
        return ", ".join(
            f"{kind} {1e3 * statistics.median(took):.1f} ({1e3 * high[kind]:.1f}) ms"
            for kind, took in self.took.items()
        )


async def stream(names: Iterable[str], feed: Feed, first: int, seconds: float) -> None:
    """Send in real time: sound at each tenth of a second, a picture in the middle of it."""
    began = time.perf_counter()
    for count in range(round(10 * seconds)):
        for fed, shift in ((sound(first + count), 0.0), (picture(first + count), 0.05)):
            await asyncio.sleep(max(began + count / 10 + shift - time.perf_counter(), 0.0))
            for name in names:
                feed(name, fed)


class Bench:
    """One worker and some sessions, all of which send sound and pictures."""

    def __init__(self, count: int) -> None:
        self.names = [f"s{number}" for number in range(count)]
        self.ways = Ways()
        self.reports: list[tuple[float, str | None]] = []
        self.pool = FeatureWorkerPool(
            workers=1, config=PipelineConfig(), deliver=self.ways.find, notify=self._report
        )
        self.count = 0

    async def __aenter__(self) -> "Bench":
        began = time.perf_counter()
        await self.pool.open()
        self.started = time.perf_counter() - began
        self.empty = self.memory()
        self._run = asyncio.create_task(self.pool.run())
        for name in self.names:
            self.pool.begin(name, BOTH)
        await self.stream(5.0)
        self.ways.took = Ways().took  # without the beginning
        return self

    async def __aexit__(self, *_: object) -> None:
        self._run.cancel()
        with suppress(asyncio.CancelledError):
            await self._run
        await self.pool.close()

    async def stream(self, seconds: float) -> None:
        await stream(self.names, self._feed, self.count, seconds)
        self.count += round(10 * seconds)

    def memory(self) -> float:
        """Return what of the worker's memory is no other process's, MB."""
        return float(psutil.Process(self.pool.pids[0]).memory_full_info().uss) / 1e6

    def worked(self) -> float:
        """Return the processor time of the worker and of this process."""
        return cpu(self.pool.pids[0]) + cpu(os.getpid())

    def _feed(self, name: str, fed: PlacedFrame) -> None:
        self.ways.send(name, fed)
        self.pool.feed(name, fed)

    def _report(self, session: str, reason: str | None, detail: str) -> None:
        self.reports.append((time.perf_counter(), reason))


def cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


async def cores(work: Awaitable[None], worked: Callable[[], float]) -> float:
    """Return how many cores are busy while something runs."""
    before, began = worked(), time.perf_counter()
    await work
    return (worked() - before) / (time.perf_counter() - began)


async def hop() -> None:
    """Print what the way through a process costs, beside the same in this process."""
    pipeline, ways, here, there, server = (
        FeaturePipeline(PipelineConfig(), load(PipelineConfig()), BOTH),
        Ways(),
        [],
        [],
        [],
    )

    def take(name: str, fed: PlacedFrame) -> None:
        ways.send(name, fed)
        found: list[Input] = []
        pipeline.push(fed, found.append)
        ways.find(name, found)

    async with Bench(1) as bench:
        for number in range(ROUNDS):
            before = cpu(os.getpid())
            there.append(await cores(bench.stream(ROUND), bench.worked))
            server.append((cpu(os.getpid()) - before) / ROUND)
            first = round(10 * ROUND) * number
            own = stream(["own"], take, first, ROUND)
            here.append(await cores(own, lambda: cpu(os.getpid())))
        print(f"one process:  {statistics.median(here):.2f} cores; p50 (p95) {ways.text()}")
        print(
            f"with a worker: {statistics.median(there):.2f} cores, of which "
            f"{statistics.median(server):.3f} are the server's; p50 (p95) {bench.ways.text()}"
        )
    pipeline.close(lambda _: None)


async def loaded(count: int) -> None:
    """Print memory and load with some sessions, and what a kill costs them."""
    async with Bench(count) as bench:
        busy = await cores(bench.stream(2 * ROUND), bench.worked)
        print(
            f"{count} sessions: worker's own memory {bench.memory():.0f} MB, {bench.empty:.0f} MB "
            f"of it before the first; {busy:.2f} cores, load {bench.pool.load():.2f}; p50 (p95) "
            f"{bench.ways.text()}; lost {bench.pool.losses(bench.names[0])}"
        )
        killed = time.perf_counter()
        os.kill(bench.pool.pids[0], signal.SIGKILL)
        await bench.stream(10.0)
        lost = [at - killed for at, reason in bench.reports if reason]
        back = [at - killed for at, reason in bench.reports if reason is None]
        print(
            f"  kill -9: lost after {max(lost):.2f} s, all well again after {max(back):.2f} s "
            f"(a worker starts in {bench.started:.1f} s)"
        )


if __name__ == "__main__":
    asyncio.run(hop())
    for sessions in range(1, MOST + 1):
        asyncio.run(loaded(sessions))
