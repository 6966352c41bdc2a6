"""Run a whole agent for minutes, with subscribers, and measure memory growth and latency.

Knows the agent's process, its memory (Linux) and what its subscribers receive. Runs no model.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .rig.agent_process import Streaming, streaming
from .rig.probe import Receipt, has_score
from .rig.proc_usage import memory, spent
from .rig.processes import StageError
from .rig.subscribers import SubscriberLoad, percentile

SUBSCRIBERS = 50
WARM_UP = 60.0
"""Seconds in which memory may grow: queues, caches and heaps reach their size."""

INTERVAL = 5.0
"""Seconds between two measurements of memory."""


class Soak(NamedTuple):
    """Results; milliseconds from the end of a hop to the receipt of its score."""

    minutes: float
    rss_mb_per_min: float | None
    """Least squares after the first minute; None for a run shorter than two."""
    rss_mb: tuple[float, float]
    """After the warm-up, or at the start of a shorter run, and at the end."""
    p50_ms: float
    p95_ms: float
    p99_ms: float
    received: int
    lost: int
    """Messages that a subscriber missed."""
    dropped: dict[str, int]
    """Dropped inputs, from the last score."""
    cores: float
    load: float
    """Load of the machine, mean over the last minute, other programs included."""


def soak(
    options: Sequence[str],
    minutes: float,
    report: Callable[[str], None],
    environment: dict[str, str] | None = None,
) -> Soak:
    """Stream for some minutes to 50 subscribers in another process.

    Args:
        options: Options of `tamulag-stream` that select the inputs.
        minutes: Duration after the first score.
        report: Called with the memory, once a minute.
        environment: Environment of the agent; None: ours.

    Raises:
        StageError: If the agent does not start, or ends before the time is up.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        streaming(Path(folder) / "log", *options, environment=environment) as agent,
    ):
        agent.probe.first(has_score("audio"), since=0.0, limit=60.0)
        with SubscriberLoad(agent.port, SUBSCRIBERS) as load:
            looks, cores = _watch(agent, minutes * 60, report)
            received = load.received()
        last = [r for r in agent.probe if r.message["type"] == "sentiment"][-1]
    times, sizes = (np.array(column) for column in zip(*looks, strict=True))
    settled = times >= min(WARM_UP, times[-1] / 2)
    slope = np.polyfit(times[settled], sizes[settled], 1)[0] * 60 if minutes >= 2 else None
    return Soak(
        minutes=minutes,
        rss_mb_per_min=None if slope is None else round(float(slope), 3),
        rss_mb=(round(float(sizes[settled][0]), 1), round(float(sizes[-1]), 1)),
        p50_ms=percentile(received.hop, 50),
        p95_ms=percentile(received.hop, 95),
        p99_ms=percentile(received.hop, 99),
        received=len(received.hop),
        lost=received.lost,
        dropped=_dropped(last),
        cores=round(cores, 2),
        load=round(os.getloadavg()[0], 2),
    )


def _watch(
    agent: Streaming, seconds: float, report: Callable[[str], None]
) -> tuple[list[tuple[float, float]], float]:
    """Return time and MB of each measurement, and the processor cores used by the agent."""
    pid, begin = agent.process.pid, time.monotonic()
    before, looks = spent(pid), [(0.0, memory(pid).resident)]
    while (passed := time.monotonic() - begin) < seconds:
        time.sleep(min(INTERVAL, seconds - passed))
        if agent.process.poll() is not None:
            raise StageError(f"the agent ended after {passed:.0f} s: run it by hand, --verbose")
        looks.append((time.monotonic() - begin, memory(pid).resident))
        if int(looks[-1][0] // 60) > int(looks[-2][0] // 60):
            report(f"{looks[-1][0]:.0f} s: {looks[-1][1]:.1f} MB")
    return looks, (spent(pid) - before) / (time.monotonic() - begin)


def _dropped(score: Receipt) -> dict[str, int]:
    return dict(score.message["dropped"])
