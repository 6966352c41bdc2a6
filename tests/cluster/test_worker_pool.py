"""Wings that are hired, lost and drained; a wing is whatever answers."""

import asyncio
from collections.abc import Sequence

from tamulag.streamer.cluster.autoscaler import Autoscaler
from tamulag.streamer.cluster.session_worker import Answer, WorkerCommand
from tamulag.streamer.cluster.worker_pool import WorkerLost, WorkerPool


class Anybody:
    """A wing that has nothing to say."""

    def __init__(self) -> None:
        self.is_there = True

    async def ask(self, orders: Sequence[WorkerCommand]) -> Answer:
        return Answer([], [], {}, {}, 0.0, 1)

    def end(self) -> None:
        self.is_there = False


class Office:
    """Hires anybody, and fails so often first."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.hired: list[Anybody] = []

    async def hire(self) -> Anybody:
        if self.failures:
            self.failures -= 1
            raise WorkerLost("none can be had")
        self.hired.append(Anybody())
        return self.hired[-1]


async def tended(staff: WorkerPool, now: float) -> bool:
    """Tend until hiring is over; return whether sessions belong elsewhere."""
    changed = False
    for _ in range(5):
        changed = staff.tend(now) or changed
        await asyncio.sleep(0)
    return changed


def test_so_many_are_hired_as_are_wanted() -> None:
    """And a lost one is replaced under its name, so that its sessions come back to it."""

    async def main() -> None:
        office = Office()
        staff = WorkerPool(office, Autoscaler(3, 3))
        assert await tended(staff, 0.0)
        assert sorted(staff.posts) == ["wing 1", "wing 2", "wing 3"]
        before = {key: staff.post_for(key) for key in "abcdefghij"}
        staff.lose(staff.posts["wing 2"], WorkerLost("killed"))
        assert {getattr(staff.post_for(key), "name", "") for key in before} == {"wing 1", "wing 3"}
        assert await tended(staff, 1.0)
        after = {key: staff.post_for(key) for key in before}
        assert [post and post.name for post in after.values()] == [
            post and post.name for post in before.values()
        ]
        assert [one.is_there for one in office.hired] == [True, False, True, True]
        await staff.close()
        assert not any(one.is_there for one in office.hired)

    asyncio.run(main())


def test_who_cannot_be_had_is_asked_for_again() -> None:
    """After a pause."""

    async def main() -> None:
        staff = WorkerPool(Office(failures=1), Autoscaler(1, 1))
        assert not await tended(staff, 10.0)
        assert staff.post_for("x") is None
        assert await tended(staff, 11.5)
        assert staff.post_for("x") is not None
        await staff.close()

    asyncio.run(main())


def test_load_adds_a_wing_and_idleness_drains_one() -> None:
    """One that is drained is let go when its last session has left."""

    async def main() -> None:
        office = Office()
        staff = WorkerPool(office, Autoscaler(1, 2))
        await tended(staff, 0.0)
        for second in range(1, 9):
            for post in staff.posts.values():
                post.worked = 0.9 * second
            await tended(staff, float(second))
        assert len(staff.posts) == 2
        next(reversed(staff.posts.values())).seats.add("x")
        for second in range(10, 140):
            await tended(staff, float(second))
        assert (len(staff.posts), len(staff.draining)) == (1, 1)
        staff.draining[0].seats.clear()
        await tended(staff, 141.0)
        assert [one.is_there for one in office.hired] == [True, False]
        await staff.close()

    asyncio.run(main())
