"""Batches and carried states: each row once, and states that belong to others."""

import numpy as np
import torch

from tamulag.models.nn.encoder import EncoderState
from tamulag.models.training.sampling import batches, carry_states


def test_batches_hold_each_row_once() -> None:
    """Nothing is dropped, nothing is repeated, and lengths inside a batch are similar."""
    lengths = np.random.default_rng(1).integers(1, 60, 500)
    found = list(batches(lengths.tolist(), 16, np.random.default_rng(0)))
    assert sorted(np.concatenate(found)) == list(range(500))
    spread = np.mean([np.ptp(lengths[rows]) for rows in found])
    assert spread < 0.25 * np.ptp(lengths)


def test_batches_come_in_another_order_each_time() -> None:
    """The draw is random, and the same for the same stream of random numbers."""
    lengths = list(range(100))
    streams = (np.random.default_rng(seed) for seed in (0, 0, 1))
    draw = [next(batches(lengths, 10, rng)).tolist() for rng in streams]
    assert draw[0] == draw[1] != draw[2]


def test_carried_states_are_those_of_other_rows() -> None:
    """With share 1 every row begins with some row of the batch before, but its own level."""
    fresh = EncoderState(torch.zeros(4, 1, 2), torch.zeros(4, 1, 2), torch.zeros(4, 1))
    before = EncoderState(torch.ones(3, 1, 2), 2 * torch.ones(3, 1, 2), torch.ones(3, 1))
    state = carry_states(fresh, before, 1.0, np.random.default_rng(0))
    assert (state.h == 1).all()
    assert (state.c == 2).all()
    assert (state.level == 0).all()
    assert (carry_states(fresh, before, 0.0, np.random.default_rng(0)).h == 0).all()
