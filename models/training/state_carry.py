"""Recurrent states that are carried from the clips of one batch to those of the next.

Training only. Knows states of encoders. Knows no clip and no loss.
"""

import numpy as np
import torch

from ..nn.encoder import EncoderState
from ..nn.tam_ulag import State

CARRIED = 0.5
"""Share of clips that go on from another clip's state."""
DROPPED = 0.1
"""Share of these, per modality, whose state of that modality alone is dropped."""


def carry_states(
    fresh: EncoderState,
    carried: EncoderState | None,
    rng: np.random.Generator,
    share: float = CARRIED,
) -> EncoderState:
    """Give a share of the rows the state of a random row of the previous batch.

    So a stream of many minutes is not outside of what the encoder was trained on. The running level
    stays fresh: it belongs to a voice, and the rows are of different speakers.

    Args:
        fresh: Initial states of the rows.
        carried: States after the previous batch; None: there was none.
        rng: Draws.
        share: Probability that a row takes over a state.
    """
    if carried is None:
        return fresh
    count = len(fresh.h)
    source = rng.integers(0, len(carried.h), count)
    chosen = rng.random(count) < share
    return take_over(fresh, carried, source, chosen)._replace(level=fresh.level)


def take_over(
    fresh: EncoderState, carried: EncoderState, source: np.ndarray, chosen: np.ndarray
) -> EncoderState:
    """Return `fresh` with the chosen rows (B,) replaced by the rows `source` (B,) of `carried`."""
    index, rows = torch.from_numpy(source), torch.from_numpy(chosen)
    return EncoderState(
        *(
            torch.where(rows.view(-1, *[1] * (new.dim() - 1)), old[index], new)
            for old, new in zip(carried, fresh, strict=True)
        )
    )


def detached(state: EncoderState) -> EncoderState:
    """Return a state without the graph that made it."""
    return EncoderState(*(part.detach() for part in state))


class StateCarry:
    """States of the previous batch, from which clips of the next one may go on.

    A live stream goes on for hours, so the recurrent state at a clip's start is that of what came
    before it, of a stream that was reset, or of one whose other modality was lost. About half of
    the clips go on from a random clip of the batch before, until `joined` clips are chained; of
    these each modality's state is dropped with a small probability.

    Only the recurrent state is carried, detached. The memory that attention pools over begins
    empty: live, the window bounds it, so that after `window` seconds it holds this clip alone,
    while the recurrent state is never bounded; and its label is not that of the clip before.

    Args:
        joined: Most clips of a chain; 1: every clip starts from the initial state.
    """

    def __init__(self, joined: int) -> None:
        self.joined = joined
        self.carried: list[EncoderState] = []
        self.ages = np.zeros(0, np.int64)
        """Clips chained up to each carried state."""
        self._started = self.ages

    def start(self, fresh: State, rng: np.random.Generator) -> State:
        """Return the state from which each clip of a batch starts.

        Args:
            fresh: Initial states of the clips.
            rng: Draws.
        """
        count = len(fresh.text.encoder.h)
        self._started = np.zeros(count, np.int64)
        if self.joined == 1 or not self.carried:
            return fresh
        source = rng.integers(0, len(self.ages), count)
        goes_on = (rng.random(count) < CARRIED) & (self.ages[source] < self.joined)
        self._started[goes_on] = self.ages[source][goes_on]
        branches = []
        for branch, carried in zip(fresh, self.carried, strict=True):
            chosen = goes_on & (rng.random(count) >= DROPPED)
            encoder = take_over(branch.encoder, carried, source, chosen)
            branches.append(branch._replace(encoder=encoder))
        return State(*branches)

    def store(self, after: State) -> None:
        """Store the states in which the clips that were started last have ended."""
        if self.joined > 1:
            self.carried = [detached(branch.encoder) for branch in after]
            self.ages = self._started + 1
