"""Figures of estimates over many draws of people at once, each draw a weight for every triple.

Knows numbers. Knows no model.

Shapes: B triples, M modalities, R draws; the first draw is everybody once.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

SIDE = 0.5
"""A target further from 0 has a sign; nearer it is called neutral, as in a message's `label`."""


class Figure(NamedTuple):
    """One figure and the central 95 % over the draws."""

    value: float
    low: float
    high: float


def draws(person_BM: Tensor, count: int, seed: int) -> Tensor:
    """Return weights (R, B) for `count` draws of people with replacement, after everybody once.

    The people of each modality are drawn apart, and a triple counts as often as all of its people
    together (the pigeonhole bootstrap: Owen 2007), as each is in many triples with others.

    Args:
        person_BM: Who each clip is of.
        count: Draws.
        seed: Of the draws.
    """
    noise = torch.Generator().manual_seed(seed)
    weight = torch.ones(count + 1, len(person_BM))
    for person in person_BM.unbind(dim=1):
        people, who = person.unique(return_inverse=True)
        chosen = torch.randint(len(people), (count, len(people)), generator=noise)
        times = torch.zeros(count, len(people)).scatter_add_(1, chosen, torch.ones(chosen.shape))
        weight[1:] *= times[:, who]
    return weight


def figures(estimate: Tensor, target: Tensor, half: Tensor, weight_RB: Tensor) -> dict[str, Tensor]:
    """Return MAE, Corr, sign (see `SIDE`) and covered, each (R,); NaN where there is nothing.

    Args:
        estimate: (B,).
        target: (B,).
        half: (B,) half width of the interval.
        weight_RB: From `draws`.
    """
    error = (estimate - target).abs()
    signed = (target.abs() >= SIDE).float()
    right = signed * (estimate * target > 0)
    total = weight_RB.sum(dim=1)
    x, y = (part - part.mean() for part in (estimate, target))
    inside = (error <= half).float()
    columns = torch.stack([error, inside, right, signed, x, y, x * x, y * y, x * y])
    sums = (weight_RB.double() @ columns.double().T).T
    mae, covered, _, _, mx, my, xx, yy, xy = sums / total
    spread = ((xx - mx * mx) * (yy - my * my)).clamp(min=0.0).sqrt()
    return {
        "MAE": mae,
        "Corr": (xy - mx * my) / spread,
        "sign": sums[2] / sums[3],
        "covered": covered,
    }


def summary(found_R: Tensor) -> Figure:
    """Return the figure of everybody, and the interval over the draws."""
    finite = found_R[1:][found_R[1:].isfinite()].double()
    if not len(finite):
        return Figure(float(found_R[0]), math.nan, math.nan)
    low, high = torch.quantile(finite, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Figure(float(found_R[0]), low, high)
