"""A ridge regression in two units of a head."""

import pytest
import torch
from torch import nn

from tamulag.models.nn.branch import regressor
from tamulag.models.training.ridge import SHARE, UNITS, blend_line, fit_ridge, reserve_units


def test_line_is_found_and_a_penalty_makes_it_flatter() -> None:
    """Scale and place of a feature do not matter: the penalty is on what a deviation of it does."""
    torch.manual_seed(0)
    x = torch.randn(400, 3) * torch.tensor([1.0, 100.0, 0.01]) + torch.tensor([0.0, 50.0, -3.0])
    y = x @ torch.tensor([0.5, 0.01, -20.0]) + 0.25
    line = fit_ridge(x, y, ["a"] * 400, 1e-9)
    torch.testing.assert_close(x @ line.weight + line.bias, y, atol=1e-3, rtol=1e-3)
    flat = fit_ridge(x, y, ["a"] * 400, 1.0)
    halved = (x - x.mean(dim=0)) @ line.weight / 2 + y.mean()
    torch.testing.assert_close(x @ flat.weight + flat.bias, halved, atol=0.1, rtol=0.05)


def test_each_corpus_counts_the_same() -> None:
    """Where two disagree, the mean is between them, however many clips one has."""
    x = torch.zeros(100, 1)
    y = torch.tensor([1.0] * 99 + [-1.0])
    line = fit_ridge(x, y, ["large"] * 99 + ["small"], 0.1)
    assert float(line.bias) == pytest.approx(0.0, abs=1e-6)
    assert fit_ridge(x, y, ["one"] * 100, 0.1).bias.item() == pytest.approx(0.98, abs=1e-6)


def test_reserved_units_stay_at_zero_in_training() -> None:
    """No gradient reaches them; the others learn."""
    torch.manual_seed(0)
    head = regressor(3, 8, 0.0)
    reserve_units(head)
    first, last = head[0], head[-1]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    before = first.weight.clone()
    optimiser = torch.optim.AdamW(head.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(5):
        loss = (head(torch.randn(16, 3)) - 1).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert not first.weight[-UNITS:].any()
    assert not last.weight[:, -UNITS:].any()
    assert not torch.equal(first.weight[:-UNITS], before[:-UNITS])


def test_blended_head_is_the_mean_of_both() -> None:
    """For every input, on either side of the line's zero."""
    torch.manual_seed(0)
    head = regressor(3, 8, 0.5).eval()
    reserve_units(head)
    x = torch.randn(50, 3)
    before = head(x)[:, 0]
    line = fit_ridge(x, 2 * x[:, 0] - 0.3, ["a"] * 50, 0.01)
    blend_line(head, line)
    expected = (1 - SHARE) * before + SHARE * (x @ line.weight + line.bias)
    torch.testing.assert_close(head(x)[:, 0], expected, atol=1e-5, rtol=1e-5)
