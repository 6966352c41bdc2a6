"""Carried states: those of other rows, in chains of bounded length, without their graph."""

import numpy as np
import pytest
import torch

from support.learnable_data import recipe, write
from tamulag.models.data.batches import collate
from tamulag.models.nn.encoder import EncoderState
from tamulag.models.nn.tam_ulag import State
from tamulag.models.training.state_carry import StateCarry, carry_states
from tamulag.models.training.train_joint import Task, build, load_splits


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    chosen = recipe(write(tmp_path_factory.mktemp("net")))
    return build(chosen, load_splits(chosen)["train"], 1)


def after(task: Task, rows: np.ndarray, start: State | None = None) -> State:
    batch = collate(task.corpus, rows)
    with torch.no_grad():
        state: State = task.net.eval()(batch, start)[1]
    return state


def test_carried_states_are_those_of_other_rows() -> None:
    """With share 1 every row starts with some row of the previous batch, but its own level."""
    fresh = EncoderState(torch.zeros(4, 1, 2), torch.zeros(4, 1, 2), torch.zeros(4, 1))
    before = EncoderState(torch.ones(3, 1, 2), 2 * torch.ones(3, 1, 2), torch.ones(3, 1))
    state = carry_states(fresh, before, np.random.default_rng(0), share=1.0)
    assert (state.h == 1).all()
    assert (state.c == 2).all()
    assert (state.level == 0).all()
    assert (carry_states(fresh, before, np.random.default_rng(0), share=0.0).h == 0).all()


def test_states_are_carried_reset_and_dropped(task: Task) -> None:
    """Of many clips some go on, some start afresh, some go on without one modality."""
    chain, rng = StateCarry(joined=3), np.random.default_rng(1)
    fresh = task.net.start(70)
    chain.start(fresh, rng)
    chain.store(after(task, np.arange(70)))
    state = chain.start(fresh, rng)
    audio, vision = ((b.encoder.h != 0).any(dim=(1, 2)) for b in (state.audio, state.vision))
    assert 0.2 < audio.float().mean() < 0.7
    assert (audio & vision).any()
    assert (~audio & ~vision).any()
    assert (audio ^ vision).any()


def test_memory_of_the_clip_before_is_emptied(task: Task) -> None:
    """Attention sees this clip alone, as a window does that has moved on."""
    chain, rng = StateCarry(joined=3), np.random.default_rng(1)
    fresh = task.net.start(20)
    chain.start(fresh, rng)
    chain.store(after(task, np.arange(20)))
    assert all(not branch.memory.mask.any() for branch in chain.start(fresh, rng))


def test_chains_are_no_longer_than_asked(task: Task) -> None:
    """No state of `joined` clips is handed on; with 1 none is at all."""
    rng, fresh = np.random.default_rng(1), task.net.start(20)
    chain, alone = StateCarry(joined=3), StateCarry(joined=1)
    for _ in range(12):
        alone.start(fresh, rng)
        state = chain.start(fresh, rng)
        chain.store(after(task, np.arange(20), state))
        alone.store(state)
        assert chain.ages.max() <= 3
    assert chain.ages.max() == 3
    assert not alone.carried


def test_carried_state_has_no_graph(task: Task) -> None:
    """A batch's graph ends with the batch."""
    rows = np.arange(4)
    chain = StateCarry(joined=2)
    chain.start(task.net.start(4), np.random.default_rng(1))
    _, state = task.net.train()(collate(task.corpus, rows))
    assert state.audio.encoder.h.requires_grad
    chain.store(state)
    assert not any(part.requires_grad for parts in chain.carried for part in parts)
