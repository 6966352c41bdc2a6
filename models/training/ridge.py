"""A ridge regression of what attention pooled, in two units of a modality's head.

Knows pooled vectors, labels and a head. Knows no clip and no optimiser.

It is fitted in closed form, so that nothing of it is left to chance, and transfers to corpora that
no clip of the training is of better than what is trained step by step, which knows the people of
the corpora that it has heard better. Their mean does both nearly as well.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..nn.branch import Head

UNITS = 2
"""Units of a head that hold a line: u = ReLU(u) - ReLU(-u)."""
SHARE = 0.5
"""Of the ridge in the estimate."""


class Line(NamedTuple):
    """y = weight^T x + bias."""

    weight: Tensor
    """(H,)."""
    bias: Tensor
    """()."""


def fit_ridge(context_NH: Tensor, label_N: Tensor, corpora: Sequence[str], strength: float) -> Line:
    """Return the line with the least squared error and weights; each corpus counts the same.

    mean_n v_n (y_n - w^T x_n - b)^2 + strength |s w|^2, with s the deviations of x and v_n the
    weight of a clip.

    Args:
        context_NH: Pooled vectors of clips.
        label_N: Their labels.
        corpora: Data set of each.
        strength: Of the penalty, above 0.
    """
    counts = Counter(corpora)
    share = torch.tensor([1 / counts[name] / len(counts) for name in corpora], dtype=torch.float64)
    x, y = context_NH.double(), label_N.double()
    centre, level = share @ x, share @ y
    x = x - centre
    deviation = (share @ x.square()).sqrt().clamp(min=1e-6)
    x = x / deviation
    penalty = strength * torch.eye(x.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(x.T @ (share[:, None] * x) + penalty, x.T @ (share * (y - level)))
    weight = weight / deviation
    return Line(weight.float(), (level - weight @ centre).float())


@torch.no_grad()
def reserve_units(head: Head) -> None:
    """Set two units of a head to zero: no gradient reaches them, so that they stay it."""
    first, last = _layers(head)
    first.weight[-UNITS:] = 0.0
    first.bias[-UNITS:] = 0.0
    last.weight[:, -UNITS:] = 0.0


@torch.no_grad()
def blend_line(head: Head, line: Line) -> None:
    """Make a head's estimate the mean of what it was and of a line, by its reserved units."""
    first, last = _layers(head)
    last.weight.mul_(1 - SHARE)
    last.bias.mul_(1 - SHARE)
    signs = first.weight.new_tensor([1.0, -1.0])
    first.weight[-UNITS:] = signs[:, None] * line.weight
    first.bias[-UNITS:] = signs * line.bias
    last.weight[0, -UNITS:] = SHARE * signs


def _layers(head: Head) -> tuple[nn.Linear, nn.Linear]:
    first, last = head[0], head[-1]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    return first, last
