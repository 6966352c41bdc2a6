"""Many sessions stepped together are so many sessions alone."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from support import batch_sessions
from support.model_contract import tiny
from support.reference_step import advance, initial_session_state
from tamulag.models import MODALITIES, Output, TamUlag
from tamulag.models.nn.attention import Tam
from tamulag.models.runtime.step_engine import StepArrays, StepInput, TickArrays, Utterance
from tamulag.models.runtime.torch_engine import (
    LONGEST_HOP,
    MOST_TOKENS,
    TOKENS,
    TorchEngine,
    padded,
)

SESSIONS = 5


def opened(model: TamUlag, sizes: tuple[int, ...] = ()) -> tuple[TorchEngine, list[int]]:
    engine = TorchEngine(model, SESSIONS, hop=batch_sessions.HOP, step=model.step, sizes=sizes)
    return engine, [engine.open() for _ in range(SESSIONS)]


def alone(model: TamUlag, turns: list[StepInput]) -> list[Output]:
    fresh, said = model.initial_state(1), []
    seat = initial_session_state(fresh)
    with torch.inference_mode():
        for turn in turns:
            output, seat = advance(model.step, fresh, seat, turn)
            said.append(output)
    return said


def assert_equal(one: StepArrays, row: int, other: Output) -> None:
    assert one.present[row].tolist() == other.present[0, 0].tolist()
    there = one.present[row]
    sentiment, heads, weight = (
        part[0, 0].numpy() for part in (other.sentiment, other.heads, other.weight)
    )
    np.testing.assert_allclose(one.sentiment[row], sentiment, atol=1e-6, rtol=0)
    np.testing.assert_allclose(one.weight[row], weight, atol=1e-6, rtol=0)
    np.testing.assert_allclose(one.heads[row][there], heads[there], atol=1e-6, rtol=0)
    for attention, pooled in zip(one.attention, other.attention, strict=True):
        mine = attended(attention.time[row], attention.weight[row])
        alone = attended(pooled.time[0].numpy(), pooled.weight[0, 0].numpy())
        assert mine == pytest.approx(alone, abs=2e-5)


def attended(time: np.ndarray, weight: np.ndarray) -> dict[int, float]:
    return {int(t): round(float(w), 5) for t, w in zip(time, weight, strict=True) if w}


@pytest.mark.parametrize(
    "tams", [("softmax", "softmax_gate", "gate_sum"), ("gate_last", "gate_first", "none")]
)
@pytest.mark.parametrize("sizes", [(), (1, 3), tuple(range(SESSIONS + 1))])
def test_together_is_as_alone(
    model: TamUlag, tams: tuple[Tam, Tam, Tam], sizes: tuple[int, ...]
) -> None:
    """Each session gets its own scores, whatever sessions share a step and whatever their inputs.

    Each branch attends in its own way. Steps of some sizes may be taken by another engine, in turn
    with the others.
    """
    branches = {
        name: replace(getattr(model.config, name), tam=tam)
        for name, tam in zip(MODALITIES, tams, strict=True)
    }
    model = tiny(replace(model.config, **branches))
    engine, slots = opened(model, sizes)
    brought = [
        list(islice(batch_sessions.turns(model.config, seed), 30)) for seed in range(SESSIONS)
    ]
    expected = [alone(model, turns) for turns in brought]
    rng, done = np.random.default_rng(0), [0] * SESSIONS
    while any(number < 30 for number in done):
        who = [i for i in range(SESSIONS) if done[i] < 30 and rng.random() < 0.6]
        if not who:
            continue
        output = engine.step([slots[i] for i in who], [brought[i][done[i]] for i in who])
        for row, i in enumerate(who):
            assert_equal(output, row, expected[i][done[i]])
            done[i] += 1


def test_who_has_no_turn_keeps_every_bit(model: TamUlag) -> None:
    """A step of the others, resets of theirs included, changes nothing of a session."""
    engine, slots = opened(model)
    several = [
        list(islice(batch_sessions.turns(model.config, seed), 20)) for seed in range(SESSIONS)
    ]
    for number in range(10):
        engine.step(slots, [turns[number] for turns in several])
    before = engine.read(slots[2])
    others = [0, 1, 3, 4]
    for number in range(10, 20):
        engine.step([slots[i] for i in others], [several[i][number] for i in others])
    engine.close(slots[0])
    engine.open()
    after = engine.read(slots[2])
    assert all(np.array_equal(after[name], part) for name, part in before.items())
    assert len(before) > 20


def test_a_seat_is_given_out_clean(model: TamUlag) -> None:
    """Who gets the seat of one who has left hears nothing of that one."""
    first, second = (list(islice(batch_sessions.turns(model.config, seed), 8)) for seed in (1, 2))
    engine = TorchEngine(model, 1, hop=batch_sessions.HOP)
    slot = engine.open()
    for turn in first:
        engine.step([slot], [turn])
    engine.close(slot)
    slot = engine.open()
    for turn, expected in zip(second, alone(model, second), strict=True):
        assert_equal(engine.step([slot], [turn]), 0, expected)


def test_no_seat_more_than_there_are(model: TamUlag) -> None:
    """The last seat is the last."""
    engine, _ = opened(model)
    with pytest.raises(IndexError):
        engine.open()


def test_goes_on_elsewhere_to_the_bit(model: TamUlag) -> None:
    """What is read from one seat and written to another of the same model goes on equally."""
    turns = list(islice(batch_sessions.turns(model.config, 3), 20))
    one, other = (
        TorchEngine(model, 1, hop=batch_sessions.HOP),
        TorchEngine(model, 4, hop=batch_sessions.HOP),
    )
    here, there = one.open(), other.open()
    for turn in turns[:10]:
        one.step([here], [turn])
    other.write(there, one.read(here))
    for turn in turns[10:]:
        assert one.step([here], [turn]).sentiment == other.step([there], [turn]).sentiment


def test_a_state_of_another_window_is_refused(model: TamUlag) -> None:
    """Shapes that do not fit are named, and nothing is written."""
    engine = TorchEngine(model, 1, hop=batch_sessions.HOP)
    wider = TorchEngine(
        TamUlag(replace(model.config, window=200)).eval(), 1, hop=batch_sessions.HOP
    )
    slot = engine.open()
    with pytest.raises(ValueError, match="another model, window or hop"):
        engine.write(slot, wider.read(wider.open()))


def spoken(model: TamUlag, number: int, *, begins: bool, ends: bool) -> Utterance:
    rng = np.random.default_rng(number)
    values = rng.standard_normal((number, model.config.text.dim)).astype(np.float32)
    time = np.arange(number, dtype=np.int64)
    return Utterance(
        TickArrays(values, np.ones(number, np.bool_), time, np.full(number, number)), begins, ends
    )


def test_more_tokens_than_there_was_room_for_make_room(model: TamUlag) -> None:
    """And what came before keeps its place: the scores are those of one alone, by value."""
    several = [list(islice(batch_sessions.turns(model.config, seed), 30)) for seed in range(2)]
    for turns in several:
        long = spoken(model, TOKENS + 20, begins=True, ends=False)
        turns[15] = turns[15]._replace(utterances=[long])
        turns[16] = turns[16]._replace(utterances=[long._replace(begins=False, ends=True)])
    engine, slots = opened(model)
    expected = [alone(model, turns) for turns in several]
    for number in range(30):
        output = engine.step(slots[:2], [turns[number] for turns in several])
        for row in (0, 1):
            assert_equal(output, row, expected[row][number])


def test_a_longer_hop_makes_room(model: TamUlag) -> None:
    """In a batch as alone; a session with room for less takes over the state of one with more."""
    small = TorchEngine(model, 1, hop=5)
    engine, slots = opened(model)
    slot, turns = small.open(), list(islice(batch_sessions.turns(model.config, 4), 12))
    expected = alone(model, turns)
    for turn, output in zip(turns[:6], expected, strict=False):
        assert_equal(small.step([slot], [turn]), 0, output)
        engine.step(slots, [turn] * SESSIONS)
    state = small.read(slot)
    again = TorchEngine(model, 1, hop=5)
    here = again.open()
    again.write(here, state)
    for turn, output in zip(turns[6:], expected[6:], strict=True):
        assert_equal(again.step([here], [turn]), 0, output)
        assert_equal(engine.step(slots, [turn] * SESSIONS), 3, output)


def test_room_is_bounded(model: TamUlag) -> None:
    """What cannot have been meant is refused before it takes memory."""
    engine = TorchEngine(model)
    slot = engine.open()
    long = spoken(model, MOST_TOKENS + 1, begins=False, ends=False)
    with pytest.raises(ValueError, match="at most 1024"):
        engine.step([slot], [StepInput(25, frozenset(), {}, [long], (True, True, True))])
    rows = batch_sessions.rows(
        np.random.default_rng(0), model.config.audio.dim, *[np.arange(2 * LONGEST_HOP)] * 2
    )
    with pytest.raises(ValueError, match="at most 3000"):
        engine.step([slot], [StepInput(6000, frozenset(), {"audio": rows}, (), (True,) * 3)])


def test_an_utterance_that_outgrew_its_room_is_read_whole(model: TamUlag) -> None:
    """It may still be taken back to what was before it."""
    turns = list(islice(batch_sessions.turns(model.config, 6), 12))
    turns[6] = turns[6]._replace(
        fresh=frozenset(), utterances=[spoken(model, TOKENS + 9, begins=True, ends=False)]
    )
    turns[7] = turns[7]._replace(
        fresh=frozenset(), utterances=[spoken(model, 3, begins=False, ends=True)]
    )
    one, other = TorchEngine(model), TorchEngine(model)
    here, there = one.open(), other.open()
    for turn in turns[:7]:
        one.step([here], [turn])
    other.write(there, one.read(here))
    for turn in turns[7:]:
        assert one.step([here], [turn]).sentiment == other.step([there], [turn]).sentiment


def test_a_revised_utterance_replaces_the_one_before(model: TamUlag) -> None:
    """Wrong at first and then corrected is the same as right at once."""
    one, two = islice(batch_sessions.turns(model.config, 1), 2)
    wrong, right = (spoken(model, size, begins=False, ends=False) for size in (5, 6))
    found = []
    for first in ([wrong], []):
        engine = TorchEngine(model)
        slot = engine.open()
        engine.step([slot], [one._replace(fresh=frozenset(), utterances=first)])
        found.append(engine.step([slot], [two._replace(fresh=frozenset(), utterances=[right])]))
    assert found[0].sentiment == found[1].sentiment


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
