"""One hop of one session as a value."""

from itertools import islice

import torch

from support import batch_sessions
from tamulag.models import TamUlag
from tamulag.models.runtime.session_step import StepInput, Utterance, advance, initial_session_state


def said(turn: StepInput, *utterances: Utterance) -> StepInput:
    return turn._replace(fresh=frozenset(), utterances=utterances)


def test_a_turn_changes_no_argument(model: TamUlag) -> None:
    """The seat before can be used again."""
    fresh = model.initial_state(1)
    first, second = islice(batch_sessions.turns(model.config, 0), 2)
    with torch.inference_mode():
        _, seat = advance(model.step, fresh, initial_session_state(fresh), first)
        once, _ = advance(model.step, fresh, seat, second)
        again, _ = advance(model.step, fresh, seat, second)
    assert once.sentiment.equal(again.sentiment)


def test_a_revised_utterance_replaces_the_one_before(model: TamUlag) -> None:
    """Said wrongly and then mended is the same as said rightly at once."""
    fresh = model.initial_state(1)
    one, two = islice(batch_sessions.turns(model.config, 1), 2)
    wrong, right = (
        next(t.utterances[0] for t in batch_sessions.turns(model.config, seed) if t.utterances)
        for seed in (5, 6)
    )
    wrong = wrong._replace(begins=False, ends=False)
    right = right._replace(begins=False, ends=False)
    with torch.inference_mode():
        _, mended = advance(model.step, fresh, initial_session_state(fresh), said(one, wrong))
        _, silent = advance(model.step, fresh, initial_session_state(fresh), said(one))
        a, _ = advance(model.step, fresh, mended, said(two, right))
        b, _ = advance(model.step, fresh, silent, said(two, right))
    assert a.sentiment.equal(b.sentiment)


def test_an_ended_utterance_stays(model: TamUlag) -> None:
    """What comes after it goes on from it; it is not taken back."""
    fresh = model.initial_state(1)
    one, two = islice(batch_sessions.turns(model.config, 1), 2)
    word = next(t.utterances[0] for t in batch_sessions.turns(model.config, 5) if t.utterances)
    with torch.inference_mode():
        _, ended = advance(
            model.step, fresh, initial_session_state(fresh), said(one, word._replace(ends=True))
        )
        _, seat = advance(model.step, fresh, ended, said(two, word._replace(begins=False)))
    both = 2 * int(word.rows.mask.sum())
    assert int(seat.state.text.memory.mask.sum()) == both
