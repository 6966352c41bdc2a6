"""Ways to fuse the scores of modalities without a trained head: means, and a product of experts.

For comparisons with the fused head. Knows scores and labels. Knows no network.

Shapes: B clips, M = 3 modalities (text, audio, vision).
"""

from typing import NamedTuple

import torch
from torch import Tensor

AGREEMENT = (0.455, 0.690)
"""Share of CREMA-D's votes that name the intended emotion, of voice alone and face alone; with both
together 74.8 % do."""
CHANCE = 1 / 6
"""Of six emotions."""


class Experts(NamedTuple):
    """How the heads err, learned from pairings that no head was trained on.

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


def by_precision(experts: Experts) -> Tensor:
    """Return weights (M,) 1 / e_s^2 of the scores as they are."""
    return 1 / experts.error.square()


def by_agreement() -> Tensor:
    """Return weights (M,) by how far people agree on voice and face above chance.

    CREMA-D has no words to speak of; text gets the mean of the two, an assumption.
    """
    voice, face = (share - CHANCE for share in AGREEMENT)
    return torch.tensor([(voice + face) / 2, voice, face])
