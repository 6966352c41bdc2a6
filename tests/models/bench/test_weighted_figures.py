"""Figures over many draws of people."""

import numpy as np
import pytest
import torch

from tamulag.models.bench.weighted_figures import draws, figures, summary


def test_figures_are_those_of_repeated_triples() -> None:
    """A weight of 2 is the triple twice, one of 0 is no triple."""
    noise = torch.Generator().manual_seed(1)
    estimate, target = torch.randn(2, 40, generator=noise)
    times = torch.randint(0, 3, (40,), generator=noise)
    found = figures(estimate, target, torch.full((40,), 0.8), times.float().unsqueeze(0))
    x, y = (part.repeat_interleave(times).numpy() for part in (estimate, target))
    signed = np.abs(y) >= 0.5
    assert float(found["MAE"]) == pytest.approx(np.abs(x - y).mean(), rel=1e-5)
    assert float(found["Corr"]) == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-5)
    assert float(found["sign"]) == pytest.approx((x * y > 0)[signed].mean(), rel=1e-5)
    assert float(found["covered"]) == pytest.approx((np.abs(x - y) <= 0.8).mean(), rel=1e-5)


def test_people_are_drawn_whole() -> None:
    """All triples of one person come equally often, and the first draw is everybody once."""
    person = torch.tensor([[0, 5], [0, 6], [1, 7], [1, 7]])
    weight = draws(person, 300, 1)
    assert torch.equal(weight[0], torch.ones(4))
    assert torch.equal(weight[:, 2], weight[:, 3])
    # Of two people and of three, the first triple's are drawn once each on average.
    assert weight[1:, 0].mean().item() == pytest.approx(1.0, abs=0.25)
    assert set(weight[1:, 2].unique().tolist()) >= {0.0, 1.0, 4.0}


def test_few_people_are_a_wide_interval() -> None:
    """Eighty triples of two people say less than eighty of eighty."""
    estimate = torch.arange(80).float() // 40
    target, half = torch.zeros(80), torch.ones(80)
    two = draws((torch.arange(80) // 40).unsqueeze(1), 400, 1)
    many = draws(torch.arange(80).unsqueeze(1), 400, 1)
    few, much = (summary(figures(estimate, target, half, w)["MAE"]) for w in (two, many))
    assert few.value == much.value == 0.5
    assert (few.low, few.high) == (0.0, 1.0)
    assert 0.35 < much.low < much.high < 0.65
