"""A node is lost while many sessions are scored: what that costs them.

Knows a cluster of two nodes as processes, the place behind a gateway, and one hall to compare with.
Needs no socket: sessions send their features into the place, in real time.
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
from ..cluster.ray_workers import HIRE_LIMIT, ray_workers
from ..cluster.session_worker import WorkerConfig
from ..cluster.worker_pool import WorkerLost
from ..core.commands import Push
from ..core.estimate import Estimate, Timing, difference
from ..core.sample import Block, Phrase, Word
from .rig.ray_nodes import Nodes, two_nodes
from .rig.senders import HOP, rows
from .rig.subscribers import percentile

WORKERS = 2
ASKED = ("text", "audio", "vision")
MADE = 64
"""Hops of features; each session sends them in an order of its own."""

TOKEN = 384
"""Features of a token."""

LAST = 15.0
"""Seconds that the last scores may take."""


class NodeFailure(NamedTuple):
    """What the sessions saw."""

    sessions: int
    on_node: int
    """That were on the node which was killed."""
    recovered: int
    """Of those: had scores afterwards."""
    next_p50_s: float
    """From the kill to the next score of each of those; a hop is 0.5 s without any kill."""
    next_max_s: float
    wanted: int
    """Scores of all."""
    lost: int
    twice: int
    max_abs_diff: float
    """Of all numbers but attention, to one batch that has all sessions and loses nothing."""
    others_gap_s: float
    """Longest time between two scores of a session that was on the other node."""
    moved: int
    """Sessions that moved by snapshot to the wing that was hired in place of the lost one."""
    again: int
    """Scores that were computed again and not said."""
    p50_ms: float
    """From when all that a score needs was sent to its being here; without the node's sessions."""
    p99_ms: float
    cores: float
    """Processor time of the gateway, the sending included."""


class Heard(NamedTuple):
    """One score."""

    at: float
    """Steady clock."""
    estimate: Estimate
    waited: float


@dataclass
class Run:
    """One run, as it went."""

    heard: dict[str, list[Heard]] = field(default_factory=lambda: defaultdict(list))
    killed: float = 0.0
    """Steady clock."""
    lost: set[str] = field(default_factory=set)
    """Sessions on the node which was killed."""
    cores: float = 0.0
    moved: int = 0
    again: int = 0


def node_failure(sessions: int, seconds: float, tell: Callable[[str], None]) -> NodeFailure:
    """Let sessions send for so long, and kill one of two nodes after a third of it.

    Args:
        sessions: At least 1.
        seconds: At least 6.
        tell: Is told what happens.

    Raises:
        NodesError: If Ray does not start.
        WingLost: If no actor can be had.
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
            run = asyncio.run(gateway.play(tell))
    tell("the same features in one hall")
    return _judged(run, alone(plan, sending, sessions, hops), sessions, hops)


class Sending:
    """What sessions send: random features and words, always the same."""

    def __init__(self) -> None:
        self._made = [rows(0, number) for number in range(MADE)]
        rng = np.random.default_rng(0)
        self._tokens = rng.standard_normal((MADE, 2, TOKEN)).astype(np.float32)

    def hop(self, session: int, number: int) -> Iterator[Block | Phrase]:
        """Yield what a session sends at the end of a hop."""
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
    """Return what one hall says of all sessions."""
    hall = plan.batch()
    said: dict[str, list[Estimate]] = {str(number): [] for number in range(sessions)}
    for name in said:
        hall.open(name, ASKED)
    for number in range(hops):
        for session in range(sessions):
            for item in sending.hop(session, number):
                hall.apply(str(session), Push(item))
        while hall.waiting:
            for scored in hall.step():
                said[scored.name].append(scored.estimate)
    return said


class Gateway:
    """The place, and whoever sends into it; one run.

    Args:
        cluster: Empty.
        nodes: On which its wings are.
        sending: What sessions send.
        sessions: How many.
        hops: Of each.
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

    async def play(self, tell: Callable[[str], None]) -> Run:
        """Send, kill a node, start another one, and hear the scores to the last.

        Raises:
            WingLost: If there are no wings.
        """
        run, cluster = self._run, self._cluster
        try:
            await self._staffed()
            tell(f"{len(self._sent)} sessions at {WORKERS} wings, one on each node")
            for session in range(len(self._sent)):
                cluster.open(str(session), ASKED)
            worked, begun = time.process_time(), time.monotonic()
            kill_at, over = begun + self._hops * HOP / 3, begun + (self._hops + 1) * HOP + LAST
            while (now := time.monotonic()) < over and (
                min(self._sent) < self._hops or cluster.waiting
            ):
                self._send(now - begun)
                if not run.killed and now >= kill_at:
                    self._kill(tell)
                for said in await cluster.turn():
                    heard = Heard(time.monotonic(), said.estimate, said.waited)
                    run.heard[said.name].append(heard)
            run.cores = (time.process_time() - worked) / (time.monotonic() - begun)
        finally:
            await cluster.close()
        run.moved, run.again = cluster.moved, cluster.repeated
        return run

    async def _staffed(self) -> None:
        """Wait for every wing."""
        await self._cluster.open_wings()
        limit = time.monotonic() + HIRE_LIMIT
        posts = self._cluster.staff.posts
        while len(posts) < WORKERS or not all(post.process for post in posts.values()):
            if time.monotonic() > limit:
                raise WorkerLost(
                    f"{len(posts)} of {WORKERS} wings are there: the machine is too busy"
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

    def _kill(self, tell: Callable[[str], None]) -> None:
        self._run.killed = time.monotonic()
        killed = self._nodes.kill()
        for post in self._cluster.staff.posts.values():
            if post.process in killed:
                self._run.lost |= post.seats
        tell(f"a node is killed, with {len(self._run.lost)} sessions; another one is started")
        self._nodes.add()


def _judged(run: Run, truth: dict[str, list[Estimate]], sessions: int, hops: int) -> NodeFailure:
    waits = {name: _wait(run, name) for name in run.lost}
    found = sorted(wait for wait in waits.values() if wait is not None)
    others = [name for name in run.heard if name not in run.lost]
    late = sorted(1000 * heard.waited for name in others for heard in run.heard[name])
    gaps = [b.at - a.at for name in others for a, b in pairwise(run.heard[name])]
    got = {name: {h.estimate.end: h.estimate for h in heard} for name, heard in run.heard.items()}
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
        twice=sum(len(run.heard[name]) - len(one) for name, one in got.items()),
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
    return next((h.at - run.killed for h in run.heard[name] if h.at > run.killed), None)


def _compared(estimate: Estimate) -> dict[str, object]:
    # Of ticks that weigh the same to some digits, either may be among the heaviest.
    return asdict(replace(estimate, attention={}))
