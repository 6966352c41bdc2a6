"""Sessions on many workers that come, go and are lost: real session batches, all in this process.

`test_outage.py` and `test_gateway.py` do the same with Ray and real processes.
"""

import asyncio
import json
import pickle
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
import pytest

from support.recordings import ABOUT
from support.waiting import until
from tamulag.models import TamUlag
from tamulag.streamer.cluster import backend as place
from tamulag.streamer.cluster import worker_pool
from tamulag.streamer.cluster.autoscaler import Autoscaler
from tamulag.streamer.cluster.backend import ClusterBackend
from tamulag.streamer.cluster.session_worker import Answer, SessionWorker, WorkerCommand
from tamulag.streamer.cluster.worker_pool import WorkerLost
from tamulag.streamer.core.commands import Close, Push
from tamulag.streamer.core.estimate import Estimate, Timing
from tamulag.streamer.core.sample import Block, Input
from tamulag.streamer.core.session_batch import BatchFull, SessionBatch
from tamulag.streamer.core.snapshot import SnapshotError
from tamulag.streamer.service.backend import FailedStep
from tamulag.streamer.service.sessions import SessionRegistry

from ..core.test_session_batch import ASKED, alone, assert_same, person, small_batch


class Near:
    """A worker in this process; what goes in and out is pickled as on a way to another."""

    def __init__(self, make: Callable[[], SessionBatch]) -> None:
        self.is_there = True
        self._wing = SessionWorker(make, "w")

    async def ask(self, commands: Sequence[WorkerCommand]) -> Answer:
        await asyncio.sleep(0)
        answer = self._wing.do(pickle.loads(pickle.dumps(list(commands))))
        await asyncio.sleep(0)
        if not self.is_there:  # what it has done by now is lost as well
            raise WorkerLost("killed")
        sent: Answer = pickle.loads(pickle.dumps(answer))
        return sent

    def end(self) -> None:
        self.is_there = False


class Nearby:
    """Hires workers in this process, while there are some to be had."""

    def __init__(self, make: Callable[[], SessionBatch]) -> None:
        self.has_some = True
        self.workers: list[Near] = []
        self._make = make

    async def start(self) -> Near:
        if not self.has_some:
            raise WorkerLost("no processor")
        self.workers.append(Near(self._make))
        return self.workers[-1]

    def kill(self, number: int = 0) -> None:
        there = [worker for worker in self.workers if worker.is_there]
        if there:  # the pool may not have noticed the last loss yet
            there[number % len(there)].is_there = False


class Stage:
    """A cluster of workers with the small model, quick for tests."""

    def __init__(self, model: TamUlag, workers: int = 2, seats: int = 8) -> None:
        self.factory = Nearby(lambda: small_batch(model))
        self.growth = Autoscaler(1, 5)
        self.growth.wanted = workers
        self.cluster = ClusterBackend(
            self.factory, self.growth, seats=seats, hop=0.5, check=lambda packed: None
        )
        self.said: dict[str, list[Estimate]] = {}
        self.failed: dict[str, Exception] = {}

    async def turns(self, count: int = 1) -> None:
        for _ in range(count):
            for said in await self.cluster.turn():
                if isinstance(said, FailedStep):
                    self.cluster.leave(said.name)
                    self.failed[said.name] = said.error
                    continue
                self.said.setdefault(said.name, []).append(said.estimate)

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not is_so():
                await self.turns()

    async def settled(self) -> None:
        await self.until(lambda: not self.cluster.waiting)

    async def packed(self, name: str) -> bytes:
        async with asyncio.timeout(10):
            while not (packed := await self.cluster.pack([name])):
                await self.turns()
        state = packed[name]
        assert isinstance(state, bytes)
        return state

    def push(self, name: str, items: list[Input]) -> None:
        for item in items:
            self.cluster.apply(name, Push(item))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a second of a session be long, and a second of the clock short."""
    monkeypatch.setattr(place, "POLL", 0.002)
    monkeypatch.setattr(place, "SNAPSHOT", 1.0)
    monkeypatch.setattr(worker_pool, "RETRY_DELAY", 0.01)


def play(stage: Stage, what: Coroutine[Any, Any, None]) -> None:
    async def main() -> None:
        try:
            await what
        finally:
            await stage.cluster.close()

    asyncio.run(main())


@pytest.mark.parametrize("seed", range(8))
def test_scores_are_those_of_a_session_alone(model: TamUlag, seed: int) -> None:
    """Whatever is lost, hired or drained meanwhile: none is missing, none is said twice."""
    people = {f"p{number}": person(number) for number in range(6)}
    stage, rng = Stage(model), np.random.default_rng(seed)

    def happen() -> None:
        chance = rng.random()
        if chance < 0.06 and len(stage.cluster.pool.workers) > 0:
            stage.factory.kill(int(rng.integers(10)))
        elif chance < 0.12:
            stage.growth.wanted = int(rng.integers(1, 5))
        stage.factory.has_some = bool(rng.random() < 0.8)

    async def run() -> None:
        for name in people:
            stage.cluster.open(name, ASKED)
        rest = {name: list(items) for name, items in people.items()}
        while any(rest.values()):
            name = rng.choice([n for n, items in rest.items() if items])
            size = int(rng.integers(1, 60))
            stage.push(name, rest[name][:size])
            del rest[name][:size]
            happen()
            await stage.turns(int(rng.integers(0, 3)))
        stage.factory.has_some = True
        for name in people:
            stage.cluster.apply(name, Close())
        await stage.settled()

    play(stage, run())
    for name, items in people.items():
        assert_same(stage.said[name], alone(model, items))
    assert stage.cluster.pool.lost + stage.cluster.moved > 0
    assert stage.cluster.restarted == 0


def test_a_lost_worker_costs_its_sessions_nothing(model: TamUlag) -> None:
    """They go on at the others from their snapshots; only what came since is done again."""
    stage, items = Stage(model), person(1)

    async def run() -> None:
        await stage.until(lambda: len(stage.cluster.pool.workers) == 2)
        for name in "abcdef":
            stage.cluster.open(name, ASKED)
            stage.push(name, items[:150])
        await stage.settled()
        lost = stage.cluster.where("a")
        assert lost is not None
        hit = len(lost.sessions)
        stage.factory.workers[0 if lost is stage.cluster.pool.workers["worker 1"] else 1].end()
        for name in "abcdef":
            stage.push(name, items[150:])
            stage.cluster.apply(name, Close())
        await stage.settled()
        assert stage.cluster.recovered == hit
        # Six of its hops had been said; none is older than the snapshot.
        assert stage.cluster.repeated <= 3 * hit

    play(stage, run())
    for name in "abcdef":
        assert_same(stage.said[name], alone(model, items))


def test_a_new_worker_takes_its_share_and_gives_it_back(model: TamUlag) -> None:
    """Sessions move by snapshot, without a gap, and the drained worker is let go."""
    stage, items = Stage(model, workers=1), person(2)

    async def run() -> None:
        for name in "abcdef":
            stage.cluster.open(name, ASKED)
            stage.push(name, items[:120])
        await stage.until(lambda: len(stage.said) == 6)
        stage.growth.wanted = 3
        await stage.until(lambda: stage.cluster.moved > 0)
        for name in "abcdef":
            stage.push(name, items[120:])
        stage.growth.wanted = 1
        await stage.until(
            lambda: [w.is_there for w in stage.factory.workers] == [True, False, False]
        )
        for name in "abcdef":
            stage.cluster.apply(name, Close())
        await stage.settled()

    play(stage, run())
    for name in "abcdef":
        assert_same(stage.said[name], alone(model, items))
    assert stage.cluster.pool.lost == 0


def test_without_any_worker_sessions_are_degraded_and_go_on(
    model: TamUlag, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server lives, each session is told why nothing is said, and nothing is lost."""
    monkeypatch.setattr(place, "LATE", 0.05)
    stage, lines = Stage(model), list[dict[str, Any]]()
    calls = SessionRegistry(stage.cluster, ABOUT, Timing())
    stage.cluster.report = calls.set_backend_lost
    voice = np.ones((200, 4), np.float32)

    def states() -> list[tuple[str, dict[str, str]]]:
        return [(line["state"], line["lost"]) for line in lines if line["type"] == "status"]

    async def run() -> None:
        call = calls.begin(("audio",), by_sender=True)
        calls.attach_sender(call, lambda line: lines.append(json.loads(line)))
        running = asyncio.create_task(calls.run())
        async with asyncio.timeout(10):
            calls.push(call.name, Block("audio", 0.0, voice[:50]))
            await until(lambda: calls.scores == 2)
            stage.factory.has_some = False
            for worker in stage.factory.workers:
                worker.end()
            calls.push(call.name, Block("audio", 1.0, voice))
            await until(lambda: len(states()) == 1)
            stage.factory.has_some = True
            await until(lambda: len(states()) == 2)
            await calls.end(call, "end")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    play(stage, run())
    assert states() == [("degraded", {"scores": "cluster_lost"}), ("online", {})]
    ends = [line["window"]["end"] for line in lines if line["type"] == "sentiment"]
    assert ends == [0.5 * number for number in range(1, 11)]


def test_a_session_goes_on_at_another_gateway(model: TamUlag) -> None:
    """What is packed holds all that came, and the other cluster takes it."""
    one, other, items = Stage(model), Stage(model), person(3)

    async def first() -> None:
        one.cluster.open("x", ASKED)
        one.push("x", items[:130])
        await one.settled()
        packed = await one.packed("x")
        other.cluster.open("y", ASKED, packed)

    async def second() -> None:
        other.push("y", items[130:])
        other.cluster.apply("y", Close())
        await other.settled()

    play(one, first())
    play(other, second())
    assert_same(one.said["x"] + other.said["y"], alone(model, items))


def test_what_no_worker_can_take_restarts(model: TamUlag) -> None:
    """It is counted; a session that is damaged neither ends the others nor loops."""
    stage, items = Stage(model), person(1)

    async def run() -> None:
        stage.cluster.open("x", ASKED, b"damaged")
        stage.cluster.open("y", ASKED)
        await stage.until(lambda: stage.cluster.restarted == 1)
        for name in "xy":
            stage.push(name, items)
            stage.cluster.apply(name, Close())
        await stage.settled()

    play(stage, run())
    assert stage.cluster.restarted == 1
    assert_same(stage.said["x"], alone(model, items))
    assert_same(stage.said["y"], alone(model, items))


def test_who_may_not_begin_is_reported_at_once(model: TamUlag) -> None:
    """A full house, a name that is taken, and bytes that no worker would take."""

    def refuse(packed: bytes) -> None:
        raise SnapshotError("begin anew")

    stage = Stage(model, seats=1)
    some = ClusterBackend(stage.factory, stage.growth, seats=1, hop=0.5, check=refuse)
    with pytest.raises(SnapshotError):
        some.open("a", ASKED, b"packed")
    some.open("a", ASKED)
    with pytest.raises(ValueError, match="a is here already"):
        some.open("a", ASKED)
    with pytest.raises(BatchFull, match="all 1 seats"):
        some.open("b", ASKED)
    some.leave("a")
    some.open("b", ASKED)


def test_busy_workers_take_nobody_but_those_who_go_on(model: TamUlag) -> None:
    """Before the others have to wait; if one more may be hired, that is done instead."""
    stage = Stage(model, workers=5)

    async def run() -> None:
        await stage.until(lambda: len(stage.cluster.pool.workers) == 5)
        stage.cluster.open("a", ASKED)
        await stage.settled()
        packed = await stage.packed("a")
        for worker in stage.cluster.pool.workers.values():
            worker.busy = 0.9
        with pytest.raises(BatchFull, match="workers are busy"):
            stage.cluster.open("b", ASKED)
        stage.cluster.open("b", ASKED, packed)
        stage.growth.most = 6
        stage.cluster.open("c", ASKED)

    play(stage, run())


def test_a_name_can_be_used_again(model: TamUlag) -> None:
    """Nothing that was said of the first is taken for the second."""
    stage, items = Stage(model), person(2)

    async def run() -> None:
        stage.cluster.open("x", ASKED)
        stage.push("x", items[:100])
        await stage.until(lambda: "x" in stage.said)
        stage.push("x", items[100:150])
        await stage.turns()
        stage.cluster.leave("x")
        stage.said.clear()
        stage.cluster.open("x", ASKED)
        stage.push("x", items)
        stage.cluster.apply("x", Close())
        await stage.settled()

    play(stage, run())
    assert_same(stage.said["x"], alone(model, items))


def test_backlog_counts_what_is_not_answered(model: TamUlag) -> None:
    """In turns, so that the server stops reading a sender that is too fast."""
    stage = Stage(model)

    async def run() -> None:
        stage.cluster.open("x", ("audio",))
        assert stage.cluster.backlog("x") == 0
        stage.cluster.apply("x", Push(Block("audio", 0.0, np.ones((500, 4), np.float32))))
        assert stage.cluster.backlog("x") == 20
        await stage.settled()
        assert stage.cluster.backlog("x") == 0

    play(stage, run())
    assert len(stage.said["x"]) == 20


def test_no_worker_at_the_start_is_reported_with_the_remedy(
    model: TamUlag, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a limit."""
    monkeypatch.setattr(place, "STARTING", 0.1)
    stage, began = Stage(model), time.monotonic()
    stage.factory.has_some = False
    with pytest.raises(WorkerLost, match="ray start --num-cpus"):
        play(stage, stage.cluster.start())
    assert time.monotonic() - began < 5
