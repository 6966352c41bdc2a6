"""Many sessions stepped together are so many sessions alone."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from support import batch_sessions
from support.model_contract import tiny
from tamulag.models import Output, TamUlag
from tamulag.models.nn.attention import Tam
from tamulag.models.runtime.batched_sessions import TEXT_ROOM, BatchedState, padded
from tamulag.models.runtime.session_step import (
    StepInput,
    TickArrays,
    Utterance,
    advance,
    initial_session_state,
)

SEATS = 5


def opened(model: TamUlag, sizes: tuple[int, ...] = ()) -> tuple[BatchedState, list[int]]:
    seats = BatchedState(model, SEATS, hop=batch_sessions.HOP, step=model.step, sizes=sizes)
    return seats, [seats.open() for _ in range(SEATS)]


def alone(model: TamUlag, turns: list[StepInput]) -> list[Output]:
    fresh, said = model.initial_state(1), []
    seat = initial_session_state(fresh)
    with torch.inference_mode():
        for turn in turns:
            output, seat = advance(model.step, fresh, seat, turn)
            said.append(output)
    return said


def assert_equal(one: Output, row: int, other: Output) -> None:
    assert one.present[row].equal(other.present[0])
    there = other.present[0, 0]
    for name in ("sentiment", "weight"):
        torch.testing.assert_close(
            getattr(one, name)[row], getattr(other, name)[0], atol=1e-6, rtol=0
        )
    torch.testing.assert_close(
        one.heads[row, 0][there], other.heads[0, 0][there], atol=1e-6, rtol=0
    )
    for pooled, single in zip(one.attention, other.attention, strict=True):
        attended = [
            {
                int(t): round(float(w), 5)
                for t, w in zip(p.time[b], p.weight[b, 0], strict=True)
                if w
            }
            for p, b in ((pooled, row), (single, 0))
        ]
        assert attended[0] == pytest.approx(attended[1], abs=2e-5)


@pytest.mark.parametrize(
    "tam", ["softmax", "softmax_gate", "gate_sum", "gate_last", "gate_first", "none"]
)
@pytest.mark.parametrize("sizes", [(), (1, 3), tuple(range(SEATS + 1))])
def test_together_is_as_alone(model: TamUlag, tam: Tam, sizes: tuple[int, ...]) -> None:
    """Whoever has a turn when, and whatever the others bring, each hears its own scores.

    Steps of some sizes may be taken by another engine, in turn with the others.
    """
    branches = {n: replace(getattr(model.config, n), tam=tam) for n in ("text", "audio", "vision")}
    model = tiny(replace(model.config, **branches))
    seats, slots = opened(model, sizes)
    brought = [list(islice(batch_sessions.turns(model.config, seed), 30)) for seed in range(SEATS)]
    expected = [alone(model, turns) for turns in brought]
    rng, done = np.random.default_rng(0), [0] * SEATS
    while any(number < 30 for number in done):
        who = [i for i in range(SEATS) if done[i] < 30 and rng.random() < 0.6]
        if not who:
            continue
        output = seats.step([slots[i] for i in who], [brought[i][done[i]] for i in who])
        for row, i in enumerate(who):
            assert_equal(output, row, expected[i][done[i]])
            done[i] += 1


def test_who_has_no_turn_keeps_every_bit(model: TamUlag) -> None:
    """A step of the others, resets of theirs included, changes nothing of a session."""
    seats, slots = opened(model)
    several = [list(islice(batch_sessions.turns(model.config, seed), 20)) for seed in range(SEATS)]
    for number in range(10):
        seats.step(slots, [turns[number] for turns in several])
    before = seats.read(slots[2])
    others = [0, 1, 3, 4]
    for number in range(10, 20):
        seats.step([slots[i] for i in others], [several[i][number] for i in others])
    seats.close(slots[0])
    seats.open()
    after = seats.read(slots[2])
    assert all(after[name].equal(part) for name, part in before.items())
    assert len(before) > 20


def test_a_seat_is_given_out_clean(model: TamUlag) -> None:
    """Who gets the seat of one who has left hears nothing of that one."""
    first, second = (list(islice(batch_sessions.turns(model.config, seed), 8)) for seed in (1, 2))
    seats = BatchedState(model, 1, hop=batch_sessions.HOP)
    slot = seats.open()
    for turn in first:
        seats.step([slot], [turn])
    seats.close(slot)
    slot = seats.open()
    for turn, expected in zip(second, alone(model, second), strict=True):
        assert_equal(seats.step([slot], [turn]), 0, expected)


def test_no_seat_more_than_there_are(model: TamUlag) -> None:
    """The last seat is the last."""
    seats, _ = opened(model)
    with pytest.raises(IndexError):
        seats.open()


def test_goes_on_elsewhere_to_the_bit(model: TamUlag) -> None:
    """What is read from one seat and written to another of the same model goes on equally."""
    turns = list(islice(batch_sessions.turns(model.config, 3), 20))
    one, other = (
        BatchedState(model, 1, hop=batch_sessions.HOP),
        BatchedState(model, 4, hop=batch_sessions.HOP),
    )
    here, there = one.open(), other.open()
    for turn in turns[:10]:
        one.step([here], [turn])
    other.write(there, one.read(here))
    for turn in turns[10:]:
        assert one.step([here], [turn]).sentiment.equal(other.step([there], [turn]).sentiment)


def test_a_state_of_another_window_is_refused(model: TamUlag) -> None:
    """Shapes that do not fit are named, and nothing is written."""
    seats = BatchedState(model, 1, hop=batch_sessions.HOP)
    wider = BatchedState(
        TamUlag(replace(model.config, window=200)).eval(), 1, hop=batch_sessions.HOP
    )
    slot = seats.open()
    with pytest.raises(ValueError, match="another model, window or hop"):
        seats.write(slot, wider.read(wider.open()))


def test_more_tokens_than_there_is_room_for_are_refused(model: TamUlag) -> None:
    """The ring would lose what the anchor needs."""
    seats = BatchedState(model, 1, hop=batch_sessions.HOP)
    size = TEXT_ROOM + 1
    values = np.zeros((size, model.config.text.dim), np.float32)
    ones = np.ones(size, np.int64)
    said = Utterance(TickArrays(values, ones.astype(np.bool_), ones, ones), False, False)
    with pytest.raises(ValueError, match="there is room for 64"):
        seats.step([seats.open()], [StepInput(25, frozenset(), {}, [said], (True, True, True))])


def test_shorter_rows_are_filled_up(model: TamUlag) -> None:
    """What is filled up is masked."""
    long, short = (
        TickArrays(
            np.ones((n, 2), np.float32),
            np.ones(n, np.bool_),
            np.arange(n, dtype=np.int64),
            np.arange(n, dtype=np.int64),
        )
        for n in (3, 1)
    )
    assert padded([long, short]).mask.tolist() == [[True] * 3, [True, False, False]]
