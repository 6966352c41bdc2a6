"""The reference of a step: one hop of one session by value, in the order in which it is defined.

The engine does the same in place for many sessions; the contract tests compare the two.
"""

from typing import NamedTuple

import torch

from tamulag.models.nn.branch import BranchState
from tamulag.models.nn.encoder import Ticks
from tamulag.models.nn.tam_ulag import Output, State, Turns
from tamulag.models.runtime.step_engine import StepInput, TickArrays
from tamulag.models.runtime.torch_engine import Step


class SessionState(NamedTuple):
    """All that is remembered of one session, B = 1."""

    state: State
    anchor: BranchState
    """Text state at the start of the utterance."""


def initial_session_state(state: State) -> SessionState:
    """Return the seat of a session that has heard no word yet."""
    return SessionState(state, state.text)


def advance(
    step: Step, fresh: State, seat: SessionState, turn: StepInput
) -> tuple[Output, SessionState]:
    """Give one session its turn.

    Args:
        step: Of the model.
        fresh: `initial_state(1)`.
        seat: From `seat_of` or the turn before; not changed.
        turn: The hop.

    Returns:
        The estimate with B = N = 1, and the next seat.
    """
    state, anchor = seat
    state = state._replace(**{name: getattr(fresh, name) for name in turn.fresh})
    anchor = fresh.text if "text" in turn.fresh else anchor
    now = torch.tensor([[turn.end]])
    ticks = {name: _ticks(rows) for name, rows in turn.rows.items()}
    last = len(turn.utterances) - 1
    for number, utterance in enumerate(turn.utterances):
        anchor = state.text if utterance.begins else anchor
        state = state._replace(text=anchor)
        said = {"text": _ticks(utterance.rows)}
        if number == last:
            ticks |= said
        else:
            _, state = step(said, now, state, None, None)
            anchor = state.text if utterance.ends else anchor
    turns = Turns(torch.tensor([[turn.since]]), torch.tensor([[turn.share]]))
    output, state = step(ticks, now, state, torch.tensor([[turn.allowed]]), turns)
    if turn.utterances and turn.utterances[-1].ends:
        anchor = state.text
    return output, SessionState(state, anchor)


def _ticks(rows: TickArrays) -> Ticks:
    values, mask, time, ready = (torch.from_numpy(part)[None] for part in rows)
    return Ticks(values, mask, time, ready)
