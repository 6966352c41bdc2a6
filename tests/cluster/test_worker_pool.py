"""Workers that are started, lost and drained, and the keys that are assigned to them."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamulag.streamer.cluster.autoscaler import Autoscaler
from tamulag.streamer.cluster.session_worker import Answer, WorkerCommand
from tamulag.streamer.cluster.worker_pool import WorkerLost, WorkerPool, assigned

KEYS = [f"session {number}" for number in range(10_000)]

names = st.text(min_size=1, max_size=12)
workers = st.sets(names, min_size=2, max_size=10)


class IdleWorker:
    """A worker whose answers are empty."""

    def __init__(self) -> None:
        self.is_there = True

    async def ask(self, commands: Sequence[WorkerCommand]) -> Answer:
        return Answer([], [], {}, {}, 0.0, 1)

    def end(self) -> None:
        self.is_there = False


class Factory:
    """Starts idle workers after a number of failures."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.started: list[IdleWorker] = []

    async def start(self) -> IdleWorker:
        if self.failures:
            self.failures -= 1
            raise WorkerLost("no processor")
        self.started.append(IdleWorker())
        return self.started[-1]


async def tended(pool: WorkerPool, now: float) -> bool:
    """Tend until the starts are over; return whether assignments changed."""
    changed = False
    for _ in range(5):
        changed = pool.tend(now) or changed
        await asyncio.sleep(0)
    return changed


def test_as_many_workers_start_as_are_wanted() -> None:
    """A lost one is replaced under its name, so that its sessions return to it."""

    async def main() -> None:
        factory = Factory()
        pool = WorkerPool(factory, Autoscaler(3, 3))
        assert await tended(pool, 0.0)
        assert sorted(pool.workers) == ["worker 1", "worker 2", "worker 3"]
        before = {key: pool.worker_for(key) for key in "abcdefghij"}
        pool.lose(pool.workers["worker 2"], WorkerLost("killed"))
        assert {getattr(pool.worker_for(key), "name", "") for key in before} == {
            "worker 1",
            "worker 3",
        }
        assert await tended(pool, 1.0)
        after = {key: pool.worker_for(key) for key in before}
        assert [worker and worker.name for worker in after.values()] == [
            worker and worker.name for worker in before.values()
        ]
        assert [one.is_there for one in factory.started] == [True, False, True, True]
        await pool.close()
        assert not any(one.is_there for one in factory.started)

    asyncio.run(main())


def test_a_failed_start_is_repeated_after_a_pause() -> None:
    """Until then no session is assigned."""

    async def main() -> None:
        pool = WorkerPool(Factory(failures=1), Autoscaler(1, 1))
        assert not await tended(pool, 10.0)
        assert pool.worker_for("x") is None
        assert await tended(pool, 11.5)
        assert pool.worker_for("x") is not None
        await pool.close()

    asyncio.run(main())


def test_load_adds_a_worker_and_idleness_drains_one() -> None:
    """A drained worker is released when its last session has left."""

    async def main() -> None:
        factory = Factory()
        pool = WorkerPool(factory, Autoscaler(1, 2))
        await tended(pool, 0.0)
        for second in range(1, 9):
            for worker in pool.workers.values():
                worker.worked = 0.9 * second
            await tended(pool, float(second))
        assert len(pool.workers) == 2
        next(reversed(pool.workers.values())).sessions.add("x")
        for second in range(10, 140):
            await tended(pool, float(second))
        assert (len(pool.workers), len(pool.draining)) == (1, 1)
        pool.draining[0].sessions.clear()
        await tended(pool, 141.0)
        assert [one.is_there for one in factory.started] == [True, False]
        await pool.close()

    asyncio.run(main())


def assignment(members: set[str]) -> dict[str, str]:
    return {key: assigned(key, members) for key in KEYS}


@settings(max_examples=10, deadline=None)
@given(workers)
def test_no_worker_has_much_more_than_its_share(members: set[str]) -> None:
    """Each has its fair share of ten thousand keys to 20 %, whatever the names."""
    counts = Counter(assignment(members).values())
    fair = len(KEYS) / len(members)
    assert all(0.8 * fair < counts[name] < 1.2 * fair for name in members)


@settings(max_examples=10, deadline=None)
@given(workers, names)
def test_only_the_keys_of_a_worker_that_comes_or_goes_move(members: set[str], new: str) -> None:
    """Of n workers about one key in n moves, and to or from that worker only."""
    before, after = assignment(members - {new}), assignment(members | {new})
    moved = {key for key in KEYS if before[key] != after[key]}
    assert {after[key] for key in moved} == {new}
    assert len(moved) == pytest.approx(len(KEYS) / len(members | {new}), rel=0.2)


def test_another_process_gives_the_same_assignment() -> None:
    """Whatever the seed of Python's own hash; the expected names were computed once."""
    program = (
        "from tamulag.streamer.cluster.worker_pool import assigned\n"
        "print(*(assigned(f'session {n}', 'cab') for n in range(16)), sep='')"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout.strip() == "abbccbaacbaacbab"


def test_without_a_worker_nothing_is_assigned() -> None:
    """The pool returns None before it asks."""
    with pytest.raises(ValueError, match="empty"):
        assigned("k7", ())
