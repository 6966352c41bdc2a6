"""How far each head's score may be from the truth: a scale that comes with it.

Knows what attention pooled of each modality. Does not know the scores.

Shapes: B sessions, N hops, M modalities, H_m units of modality m, H all of them.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

SMALLEST, LARGEST = 0.05, 3.0
"""Range of a scale, in units of sentiment."""


class Measures(NamedTuple):
    """What a scale depends on, each (..., M)."""

    unlike: Tensor
    """t."""
    heard: Tensor
    """u."""
    lean: Tensor
    """w z / (1 + d)."""


class Scales(nn.Module):
    """The scale s of each head, so that its error has the density exp(-|y - score| / s) / (2 s).

    s = exp(b + w z / (1 + d) + a t + max(0, t - limit) - c u), within [SMALLEST, LARGEST] and with
    a, c >= 0:

    - z = context - mean of the contexts of training;
    - d = z^T C^-1 z / H_m with their covariance C, which is 1 on average over them (Mahalanobis
      1936), and t = log(1 + d): how unlike those of training a context is. Beyond `limit`, which
      hardly any clip of the fit reached, the scale grows although no error was seen there; what
      the direction w has learned counts the less the farther out;
    - u = log n, n the states that the context is of: of a turn that has begun how much was heard.

    All of it is of this hop alone, so a scale is as causal as the context. A modality does not see
    the others. They stand side by side, because a step costs by its operators.

    Args:
        sizes: H_m of each modality.
    """

    mean: Tensor
    """(H,)."""
    whitening: Tensor
    """(H, H), a block for each modality: |z W|^2 = d."""
    limit: Tensor
    """(M,)."""
    member: Tensor
    """(H, M), 1 where a unit is of a modality: sums over its units."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = list(sizes)
        total, count = sum(sizes), len(self.sizes)
        self.register_buffer("mean", torch.zeros(total))
        blocks = [torch.eye(size) / math.sqrt(size) for size in sizes]
        self.register_buffer("whitening", torch.block_diag(*blocks))
        self.register_buffer("limit", torch.full((count,), torch.inf))
        member = torch.block_diag(*(torch.ones(size, 1) for size in sizes))
        self.register_buffer("member", member, persistent=False)
        self.bias = nn.Parameter(torch.zeros(count))
        """b."""
        self.direction = nn.Parameter(torch.zeros(total))
        """w of each modality."""
        self.unlike = nn.Parameter(torch.zeros(count))
        """a."""
        self.heard = nn.Parameter(torch.zeros(count))
        """c."""

    def forward(self, contexts: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
        """Return the scales (B, N, M); of a modality that is absent it has no meaning.

        Args:
            contexts: Per modality (B, N, H_m).
            weights: Per modality (B, N, S), share of each state in the context, never negative.
        """
        z = torch.cat(list(contexts), dim=-1) - self.mean
        far = (z @ self.whitening).square() @ self.member + 1
        # The sign counts: a state has a share above 0 or none.
        steps = torch.cat([weight.sign().sum(dim=-1, keepdim=True) for weight in weights], dim=-1)
        lean = (z * self.direction) @ self.member / far
        found = Measures(torch.log(far), torch.log(steps.clamp(min=1.0)), lean)
        return scale_of(found, self.bias, self.unlike, self.heard, self.limit)


def scale_of(found: Measures, bias: Tensor, unlike: Tensor, heard: Tensor, limit: Tensor) -> Tensor:
    """Return the scales (..., M) with the numbers (M,) of each modality; see `Scales`."""
    z = torch.addcmul(bias + found.lean, unlike, found.unlike)
    z = torch.addcmul(z, heard, found.heard, value=-1)
    return torch.exp(z + (found.unlike - limit).relu()).clamp(SMALLEST, LARGEST)
