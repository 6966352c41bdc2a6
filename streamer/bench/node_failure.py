"""Kill a node of a cluster while many sessions are scored, and measure the consequences.

Knows a cluster of two nodes as processes, the gateway's backend, and a session batch to compare
with. Needs no socket: sessions push their features into the backend, in real time.
"""

import asyncio
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ..cluster.autoscaler import Autoscaler
from ..cluster.backend import ClusterBackend
from ..cluster.ray_workers import START_LIMIT, ray_workers
from ..cluster.session_worker import WorkerConfig
from ..cluster.worker_pool import WorkerLost
from ..core.commands import Push
from ..core.estimate import Estimate, Timing, difference
from ..core.sample import Block, Phrase, Word
from ..service.backend import FailedStep
from .rig.ray_nodes import Nodes, two_nodes
from .rig.senders import HOP, rows
from .rig.subscribers import percentile

WORKERS = 2
ASKED = ("text", "audio", "vision")
MADE = 64
"""Hops of features; each session sends them in its own order."""

TOKEN = 384
"""Length of a token state."""

DRAIN_TIME = 60.0
"""Seconds granted to the last scores: a busy machine needs most of them to start a worker."""


class NodeFailure(NamedTuple):
    """Results, as seen by the sessions."""

    sessions: int
    on_node: int
    """Sessions on the killed node."""
    recovered: int
    """Sessions of these with scores afterwards."""
    next_p50_s: float
    """From the kill to the next score of each of these; without a kill a hop is 0.5 s."""
    next_max_s: float
    wanted: int
    """Scores of all sessions."""
    lost: int
    twice: int
    max_abs_diff: float
    """Of all numbers but attention, to one batch that has all sessions and loses nothing."""
    others_gap_s: float
    """Longest time between two scores of a session on the other node."""
    moved: int
    """Sessions that moved by snapshot to the worker that replaced the lost one."""
    again: int
    """Scores that were computed again and not published."""
    p50_ms: float
    """From sending the last input of a score to receiving it; without the node's sessions."""
    p99_ms: float
    cores: float
    """Processor cores of the gateway, sending included."""


class ReceivedScore(NamedTuple):
    """One score."""

    at: float
    """Monotonic clock."""
    estimate: Estimate
    waited: float


@dataclass
class Run:
    """Raw results of one run."""

    received: dict[str, list[ReceivedScore]] = field(default_factory=lambda: defaultdict(list))
    killed: float = 0.0
    """Monotonic clock."""
    lost: set[str] = field(default_factory=set)
    """Sessions on the killed node."""
    cores: float = 0.0
    moved: int = 0
    again: int = 0


def node_failure(sessions: int, seconds: float, report: Callable[[str], None]) -> NodeFailure:
    """Let sessions send for a time, and kill one of two nodes after a third of it.

    Args:
        sessions: At least 1.
        seconds: At least 6.
        report: Called with each stage.

    Raises:
        NodesError: If Ray does not start.
        WorkerLost: If no actor can be started.
    """
    hops = round(seconds / HOP)
    plan = WorkerConfig("default", Timing(), seats=sessions, names_words=True)
    sending = Sending()
    with two_nodes() as nodes:
        os.environ.update(nodes.environment)
        with ray_workers(nodes.address, plan, "bench", most=WORKERS) as hired:
            cluster = ClusterBackend(
                hired,
                Autoscaler(WORKERS, WORKERS),
                seats=sessions,
                hop=HOP,
                check=lambda packed: None,
            )
            gateway = Gateway(cluster, nodes, sending, sessions, hops)
            result = asyncio.run(gateway.run(report))
    report("the same features in one batch")
    return _evaluate(result, alone(plan, sending, sessions, hops), sessions, hops)


class Sending:
    """Inputs of the sessions: random features and words, always the same."""

    def __init__(self) -> None:
        self._made = [rows(0, number) for number in range(MADE)]
        rng = np.random.default_rng(0)
        self._tokens = rng.standard_normal((MADE, 2, TOKEN)).astype(np.float32)

    def hop(self, session: int, number: int) -> Iterator[Block | Phrase]:
        """Yield the inputs that a session sends at the end of a hop."""
        at, chosen = number * HOP, (31 * session + 17 * number + session * number % 7) % MADE
        voice, face = self._made[chosen]
        if number % 4 == session % 4:
            words = (Word("so", at, at + 0.1), Word("far", at + 0.1, at + 0.3))
            yield Phrase(at + 0.4, number // 4, words, self._tokens[chosen], (0, 1), final=True)
        yield Block("vision", at, face)
        yield Block("audio", at, voice)


def alone(
    plan: WorkerConfig, sending: Sending, sessions: int, hops: int
) -> dict[str, list[Estimate]]:
    """Return the estimates of one session batch for all sessions."""
    batch = plan.batch()
    estimates: dict[str, list[Estimate]] = {str(number): [] for number in range(sessions)}
    for name in estimates:
        batch.open(name, ASKED)
    for number in range(hops):
        for session in range(sessions):
            for item in sending.hop(session, number):
                batch.apply(str(session), Push(item))
        while batch.waiting:
            for scored in batch.step():
                estimates[scored.name].append(scored.estimate)
    return estimates


class Gateway:
    """A gateway's backend and its senders; for one run.

    Args:
        cluster: Without sessions.
        nodes: Nodes of its workers.
        sending: Inputs of the sessions.
        sessions: Number of sessions.
        hops: Hops of each.
    """

    def __init__(
        self, cluster: ClusterBackend, nodes: Nodes, sending: Sending, sessions: int, hops: int
    ) -> None:
        self._cluster = cluster
        self._nodes = nodes
        self._sending = sending
        self._hops = hops
        self._sent = [0] * sessions
        self._run = Run()

    async def run(self, report: Callable[[str], None]) -> Run:
        """Send, kill a node, start another one, and receive the scores to the last.

        Raises:
            WorkerLost: If no worker starts.
        """
        run, cluster = self._run, self._cluster
        try:
            await self._wait_for_workers()
            report(f"{len(self._sent)} sessions at {WORKERS} workers, one on each node")
            for session in range(len(self._sent)):
                cluster.open(str(session), ASKED)
            worked, begun = time.process_time(), time.monotonic()
            kill_at, over = (
                begun + self._hops * HOP / 3,
                begun + (self._hops + 1) * HOP + DRAIN_TIME,
            )
            while (now := time.monotonic()) < over and (
                min(self._sent) < self._hops or cluster.waiting
            ):
                self._send(now - begun)
                if not run.killed and now >= kill_at:
                    self._kill(report)
                for scored in await cluster.turn():
                    if isinstance(scored, FailedStep):
                        raise scored.error
                    received = ReceivedScore(time.monotonic(), scored.estimate, scored.waited)
                    run.received[scored.name].append(received)
            run.cores = (time.process_time() - worked) / (time.monotonic() - begun)
        finally:
            await cluster.close()
        run.moved, run.again = cluster.moved, cluster.repeated
        return run

    async def _wait_for_workers(self) -> None:
        """Wait for every worker."""
        await self._cluster.start()
        limit = time.monotonic() + START_LIMIT
        workers = self._cluster.pool.workers
        while len(workers) < WORKERS or not all(worker.process for worker in workers.values()):
            if time.monotonic() > limit:
                raise WorkerLost(
                    f"{len(workers)} of {WORKERS} workers are there: the machine is too busy"
                )
            await self._cluster.turn()

    def _send(self, passed: float) -> None:
        """Send what is due; sessions end their hops one after the other, not all at once."""
        count = len(self._sent)
        for session, sent in enumerate(self._sent):
            due = min(int(passed / HOP - session / count), self._hops)
            for number in range(sent, due):
                for item in self._sending.hop(session, number):
                    self._cluster.apply(str(session), Push(item))
            self._sent[session] = max(sent, due)

    def _kill(self, report: Callable[[str], None]) -> None:
        self._run.killed = time.monotonic()
        killed = self._nodes.kill()
        for worker in self._cluster.pool.workers.values():
            if worker.process in killed:
                self._run.lost |= worker.sessions
        report(f"a node is killed, with {len(self._run.lost)} sessions; another one is started")
        self._nodes.add()


def _evaluate(run: Run, truth: dict[str, list[Estimate]], sessions: int, hops: int) -> NodeFailure:
    waits = {name: _wait(run, name) for name in run.lost}
    found = sorted(wait for wait in waits.values() if wait is not None)
    others = [name for name in run.received if name not in run.lost]
    late = sorted(1000 * received.waited for name in others for received in run.received[name])
    gaps = [b.at - a.at for name in others for a, b in pairwise(run.received[name])]
    got = {
        name: {h.estimate.end: h.estimate for h in received}
        for name, received in run.received.items()
    }
    pairs = [
        (estimate, got[name][estimate.end])
        for name, estimates in truth.items()
        for estimate in estimates
        if estimate.end in got.get(name, {})
    ]
    return NodeFailure(
        sessions=sessions,
        on_node=len(run.lost),
        recovered=len(found),
        next_p50_s=percentile(found, 50),
        next_max_s=found[-1] if found else math.inf,
        wanted=sessions * hops,
        lost=sessions * hops - sum(len(one) for one in got.values()),
        twice=sum(len(run.received[name]) - len(one) for name, one in got.items()),
        max_abs_diff=max(
            (difference(_compared(a), _compared(b)) for a, b in pairs), default=math.inf
        ),
        others_gap_s=max(gaps, default=math.inf),
        moved=run.moved,
        again=run.again,
        p50_ms=percentile(late, 50),
        p99_ms=percentile(late, 99),
        cores=run.cores,
    )


def _wait(run: Run, name: str) -> float | None:
    """Return the seconds from the kill to a session's next score; None: there was none."""
    return next((h.at - run.killed for h in run.received[name] if h.at > run.killed), None)


def _compared(estimate: Estimate) -> dict[str, object]:
    # Of ticks that weigh the same to some digits, either may be among the heaviest.
    return asdict(replace(estimate, attention={}))
