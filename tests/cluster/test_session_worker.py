"""A worker applies its commands in order."""

import numpy as np
import pytest

from tamulag.models import TamUlag
from tamulag.streamer.cluster.session_worker import (
    Answer,
    Begin,
    Leave,
    Move,
    Pack,
    SessionWorker,
    WorkerCommand,
    WorkerConfig,
    owned,
)
from tamulag.streamer.core.commands import Close, Push
from tamulag.streamer.core.estimate import Timing
from tamulag.streamer.core.sample import Block, Input
from tamulag.streamer.core.session_batch import SessionBatch

from ..core.test_session_batch import ASKED, alone, assert_same, person, small_batch


def worker(model: TamUlag, seats: int = 8) -> SessionWorker:
    return SessionWorker(lambda: small_batch(model, seats=seats), "w")


def pushes(name: str, items: list[Input], first: int = 1) -> list[WorkerCommand]:
    return [WorkerCommand(name, first + k, Push(item)) for k, item in enumerate(items)]


def answers(some: SessionWorker, commands: list[WorkerCommand]) -> list[Answer]:
    """Return what comes of commands and of the turns that wait then."""
    found = [some.do(commands)]
    while found[-1].pending:
        found.append(some.do([]))
    return found


def test_each_call_gives_one_turn_and_tells_what_is_left(model: TamUlag) -> None:
    """So that a session that is far behind does not hold up a call."""
    items = person(1)
    some = worker(model)
    commands = [
        WorkerCommand("x", 0, Begin(ASKED)),
        *pushes("x", items),
        WorkerCommand("x", 999, Close()),
    ]
    found = answers(some, commands)
    assert [len(answer.scores) for answer in found] == [1] * len(found)
    assert [answer.pending.get("x", 0) for answer in found] == list(range(len(found)))[::-1]
    assert_same([answer.scores[0].estimate for answer in found], alone(model, items))
    assert found[-1].worked > found[0].worked > 0


def test_a_score_names_the_order_that_made_it_due(model: TamUlag) -> None:
    """By it the gateway knows how long it took."""
    block = Block("audio", 0.0, np.ones((50, 4), np.float32))
    late = Block("audio", 1.0, np.ones((25, 4), np.float32))
    commands = [
        WorkerCommand("x", 0, Begin(("audio",))),
        WorkerCommand("x", 4, Push(block)),
        WorkerCommand("x", 7, Push(late)),
    ]
    said = [
        spoken.number for answer in answers(worker(model), commands) for spoken in answer.scores
    ]
    assert said == [4, 4, 7]


def test_a_snapshot_waits_for_the_turns(model: TamUlag) -> None:
    """It has the number of the newest order that is in it, and another worker goes on from it."""
    items = person(2)
    one, other = worker(model), worker(model)
    begun = [
        WorkerCommand("x", 0, Begin(ASKED)),
        *pushes("x", items[:100]),
        WorkerCommand("x", 100, Pack()),
    ]
    first = answers(one, begun)
    assert [len(answer.packed) for answer in first] == [0] * (len(first) - 1) + [1]
    (packed,) = first[-1].packed
    assert packed.number == 100
    again = [WorkerCommand("x", 100, Begin(ASKED, packed.packed)), *pushes("x", items[100:], 101)]
    second = answers(other, [*again, WorkerCommand("x", 999, Close())])
    said = [spoken.estimate for answer in [*first, *second] for spoken in answer.scores]
    assert_same(said, alone(model, items))


def test_who_moves_has_all_its_turns_before(model: TamUlag) -> None:
    """In the same call: nothing of it is left behind."""
    items = person(2)
    some = worker(model, seats=1)
    begun = [
        WorkerCommand("x", 0, Begin(ASKED)),
        *pushes("x", items[:150]),
        WorkerCommand("x", 150, Move()),
    ]
    answer = some.do(begun)
    assert (len(answer.packed), answer.pending, len(answer.scores)) == (1, {}, 5)
    assert some.do([WorkerCommand("y", 0, Begin(ASKED))]).failed == {}


def test_who_leaves_is_forgotten_at_once(model: TamUlag) -> None:
    """Its name may be used again in the same call; nothing of it is said any more."""
    items = person(1)
    some = worker(model)
    some.do([WorkerCommand("x", 0, Begin(ASKED)), *pushes("x", items[:100])])
    some.do([*pushes("x", items[100:150]), WorkerCommand("x", 150, Pack())])
    again = [
        WorkerCommand("x", 0, Leave()),
        WorkerCommand("x", 0, Begin(ASKED)),
        *pushes("x", items),
    ]
    found = answers(some, [*again, WorkerCommand("x", 999, Close())])
    said = [spoken.estimate for answer in found for spoken in answer.scores]
    assert_same(said, alone(model, items))
    assert not any(answer.packed for answer in found)


def test_what_cannot_be_done_costs_its_session_alone(model: TamUlag) -> None:
    """It is reported, with the reason, and its slot is free again."""
    some = worker(model, seats=1)
    wrong = Block("audio", 0.0, np.ones((25, 7), np.float32))
    answer = some.do([WorkerCommand("x", 0, Begin(("audio",))), WorkerCommand("x", 1, Push(wrong))])
    assert "takes 4" in answer.failed["x"]
    answer = some.do([WorkerCommand("x", 2, Close()), WorkerCommand("y", 0, Begin(("audio",)))])
    assert answer.failed == {}
    assert "seats are taken" in some.do([WorkerCommand("z", 0, Begin(("audio",)))]).failed["z"]
    assert "damaged" in some.do([WorkerCommand("v", 0, Begin(("audio",), b"x"))]).failed["v"]


def test_what_is_kept_of_a_call_is_a_copy() -> None:
    """The memory of a call is shared with others and must become free."""
    rows = np.ones((25, 4), np.float32)
    rows.flags.writeable = False
    kept = owned(Push(Block("audio", 0.0, rows)))
    assert isinstance(kept, Push)
    assert isinstance(kept.item, Block)
    assert not np.shares_memory(kept.item.values, rows)


def test_a_plan_makes_the_hall_of_the_checkpoint() -> None:
    """Where the worker runs; the number of seats is the plan's."""
    made = WorkerConfig("default", Timing(), seats=3, names_words=False).batch()
    assert isinstance(made, SessionBatch)
    assert made.free == 3


@pytest.mark.parametrize("count", [0, 1])
def test_a_call_without_orders_is_an_answer(model: TamUlag, count: int) -> None:
    """It says that the worker is there."""
    answer = worker(model).do([WorkerCommand("x", 0, Begin(ASKED))] * count)
    assert answer.process > 0
    assert (answer.scores, answer.pending) == ([], {})
