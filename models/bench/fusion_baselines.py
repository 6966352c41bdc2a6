"""Other ways to fuse the scores of modalities: means, a product of experts, people's own law.

For comparisons with what ships. Knows scores, scales and labels. Knows no network.

Shapes: B clips, M = 3 modalities (text, audio, vision).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..nn.tam_ulag import LIMIT, MODALITIES, weighed
from .judgement import Law
from .triples import Triples

Way = Callable[[Triples], Tensor]
"""Triples of clips -> estimates (B,)."""
FIT_STEPS, FIT_RATE = 150, 0.05


class Experts(NamedTuple):
    """How the heads err, learned from clips that no head was trained on.

    Each score is taken as x_s = a_s + b_s y + noise of deviation d_s, and y as normal.
    """

    offset: Tensor
    """(M,) a."""
    slope: Tensor
    """(M,) b."""
    deviation: Tensor
    """(M,) d."""
    error: Tensor
    """(M,) root of the mean square of x_s - y, the scores as they are."""
    mean: Tensor
    """() of y."""
    spread: Tensor
    """() deviation of y."""


def fit(scores_BM: Tensor, label_B: Tensor) -> Experts:
    """Learn how the heads err, by least squares."""
    centred = label_B - label_B.mean()
    slope = (centred @ scores_BM) / (centred @ centred)
    offset = scores_BM.mean(dim=0) - slope * label_B.mean()
    noise = scores_BM - offset - slope * label_B.unsqueeze(-1)
    error = scores_BM - label_B.unsqueeze(-1)
    return Experts(
        offset,
        slope,
        noise.square().mean(dim=0).sqrt(),
        error.square().mean(dim=0).sqrt(),
        label_B.mean(),
        label_B.std(),
    )


def product(experts: Experts, scores_BM: Tensor, present_M: Tensor) -> Tensor:
    """Return the mean of y (B,) given the scores of the present modalities: a product of normals.

    y^ = (m / t^2 + sum_s b_s (x_s - a_s) / d_s^2) / (1 / t^2 + sum_s b_s^2 / d_s^2), with the mean
    m and the deviation t of y. Right where the modalities err independently of each other given y,
    which pairs of different people do by construction and one person's modalities need not.
    """
    votes = experts.slope * (scores_BM - experts.offset) / experts.deviation.square()
    weight = experts.slope.square() / experts.deviation.square()
    prior = 1 / experts.spread.square()
    total = (votes * present_M).sum(dim=-1) + experts.mean * prior
    return total / ((weight * present_M).sum() + prior)


def weighted(scores_BM: Tensor, weight_BM: Tensor, present_M: Tensor) -> Tensor:
    """Return the mean (B,) of the present scores; `weight_BM` may be (M,)."""
    there = torch.where(present_M, weight_BM, 0.0)
    return (scores_BM * there).sum(dim=-1) / there.sum(dim=-1)


def regression(scores_BM: Tensor, target_B: Tensor, present_M: Tensor) -> Tensor:
    """Return factors (M,) and a constant, (M + 1,), by least squares; 0 where absent."""
    inputs = torch.cat([scores_BM * present_M, torch.ones(len(scores_BM), 1)], dim=1)
    found = torch.linalg.lstsq(inputs, target_B.unsqueeze(-1), driver="gelsd").solution[:, 0]
    return torch.where(torch.cat([present_M, torch.ones(1, dtype=torch.bool)]), found, 0.0)


def fitted_shares(
    triples: Triples, law: Law, subsets: Sequence[Tensor], start: Sequence[float]
) -> Tensor:
    """Return shares (M,), which sum to 1, by the mean absolute error of all sets together.

    Args:
        triples: To learn from.
        law: Makes the targets.
        subsets: Sets of present modalities, each (M,) bool.
        start: Shares to begin at.
    """
    targets = [law.of(triples.label, present) for present in subsets]
    free = torch.tensor([*start]).log().requires_grad_()
    optimiser = torch.optim.Adam([free], lr=FIT_RATE)
    for _ in range(FIT_STEPS):
        optimiser.zero_grad()
        weight = free.exp() / (1 + triples.scale.square())
        errors = [
            (weighted(triples.score, weight, present) - target).abs().mean()
            for present, target in zip(subsets, targets, strict=True)
        ]
        torch.stack(errors).mean().backward()
        optimiser.step()
    return free.detach().softmax(dim=0)


def other_ways(
    seen: Triples, law: Law, present: Tensor, shares: Sequence[float], fitted: Tensor
) -> dict[str, Way]:
    """Return every way but the one that ships, those that learn having learned from `seen`.

    Args:
        seen: Triples to learn from.
        law: Makes their targets.
        present: (M,) bool; what is learned holds for this set alone.
        shares: Of the checkpoint.
        fitted: Shares from `fitted_shares`.
    """
    target = law.of(seen.label, present)
    experts = fit(seen.score, target)
    error = (seen.score - seen.label).square().mean(dim=0)
    linear = regression(seen.score, target, present)
    alike = torch.ones(len(MODALITIES))

    def alone(place: int) -> Way:
        return lambda triples: triples.score[:, place]

    ways = {name: alone(place) for place, name in enumerate(MODALITIES) if present[place]}
    return ways | {
        "mean": lambda triples: weighted(triples.score, alike, present),
        "shares": lambda triples: weighed(triples.score, present, shares)[0],
        # A head that is very sure takes all of the score.
        "divided": lambda triples: weighted(
            triples.score, torch.tensor([*shares]) / triples.scale, present
        ),
        "precision": lambda triples: weighted(triples.score, 1 / error, present),
        "scales": lambda triples: weighted(triples.score, triples.scale**-2, present),
        "product": lambda triples: product(experts, triples.score, present),
        "law": lambda triples: law.of(triples.score, present),
        "regression": lambda triples: (triples.score @ linear[:-1] + linear[-1]).clamp(
            -LIMIT, LIMIT
        ),
        "fitted": lambda triples: weighted(
            triples.score, fitted / (1 + triples.scale.square()), present
        ),
    }
