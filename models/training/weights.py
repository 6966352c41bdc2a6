"""Weights by name: copied, averaged, and put into a network for a moment.

Knows tensors and modules. Knows no loss and no data.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]


def copied(weights: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> Weights:
    """Return a copy that later training steps do not change."""
    return {name: tensor.detach().clone() for name, tensor in dict(weights).items()}


@torch.no_grad()
def update_average(average: Weights, current: Iterable[tuple[str, Tensor]], decay: float) -> None:
    """Move an average towards the current weights by 1 - `decay`, in place; others are skipped."""
    for name, tensor in current:
        if name in average:
            average[name].lerp_(tensor, 1 - decay)


def mean_weights(of: Sequence[Weights]) -> Weights:
    """Return the mean of each tensor over networks of one shape."""
    return {name: torch.stack([weights[name] for weights in of]).mean(dim=0) for name in of[0]}


@contextmanager
def replaced(net: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Give a network other weights inside the block, and its own again after it."""
    own = copied(net.state_dict())
    net.load_state_dict(own | dict(weights))
    try:
        yield
    finally:
        net.load_state_dict(own)
