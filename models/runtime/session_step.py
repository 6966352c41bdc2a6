"""One hop of one session as a value: what came, and what becomes of the state.

Knows arrays, state and the order of things within a hop. Knows neither words nor sources nor time
outside of ticks, and not whether the session is alone or one of many (`seats` has those).

Words come late and are revised, so the text state at the start of the utterance, the anchor, is
kept: each time the utterance changes, all of it is encoded anew from there.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..nn.branch import BranchState
from ..nn.encoder import Ticks
from ..nn.tam_ulag import Output, State


class TickArrays(NamedTuple):
    """What one modality brought to one hop of one session; `Ticks` without the batch."""

    values: npt.NDArray[np.float32]
    """(T, D); ignored where `mask` is False."""
    mask: npt.NDArray[np.bool_]
    """(T,) True = valid."""
    time: npt.NDArray[np.int64]
    """(T,) tick in which it happened."""
    ready: npt.NDArray[np.int64]
    """(T,) first tick at whose start it is known."""


class Utterance(NamedTuple):
    """All tokens of an utterance that is new or has changed."""

    rows: TickArrays
    begins: bool
    """True: it goes on from the text state of now, not from the anchor."""
    ends: bool
    """True: it does not change any more, so the state after it is the anchor."""


class StepInput(NamedTuple):
    """One hop of one session."""

    end: int
    """Tick at which it ends."""
    fresh: frozenset[str]
    """Modalities whose state starts afresh, before anything else."""
    rows: Mapping[str, TickArrays]
    """Of audio and vision."""
    utterances: Sequence[Utterance]
    """In order."""
    allowed: tuple[bool, bool, bool]
    """Text, audio, vision: False keeps it out of the fusion."""


class SessionState(NamedTuple):
    """All that is remembered of one session, B = 1."""

    state: State
    anchor: BranchState
    """Text state at the start of the utterance."""


Step = Callable[
    [Mapping[str, Ticks], Tensor, State, Tensor | None],
    tuple[Output, State],
]
"""`TamUlag.step`, or whatever computes the same."""


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
            _, state = step(said, now, state, None)
            anchor = state.text if utterance.ends else anchor
    output, state = step(ticks, now, state, torch.tensor([[turn.allowed]]))
    if turn.utterances and turn.utterances[-1].ends:
        anchor = state.text
    return output, SessionState(state, anchor)


def _ticks(rows: TickArrays) -> Ticks:
    values, mask, time, ready = (torch.from_numpy(part)[None] for part in rows)
    return Ticks(values, mask, time, ready)
