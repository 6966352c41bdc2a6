"""Low-rank adapters: a trained difference of a linear layer in a hundredth of its size.

Knows linear layers and names of weights. Knows no network and no training.

    y = W x + b + U D x        (Hu et al. 2022, LoRA; its factor alpha / r is in U)

with D (R, in) and U (out, R). In a checkpoint they stand for the linear layer NAME under
`NAME.adapter.down` and `NAME.adapter.up`; `merged` adds U D to W, so that inference costs nothing.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

DOWN = ".adapter.down"
UP = ".adapter.up"


class Adapter(nn.Module):
    """The two maps of an adapter.

    Args:
        down: D, (R, in).
        up: U, (out, R).
    """

    def __init__(self, down: Tensor, up: Tensor) -> None:
        super().__init__()
        self.down, self.up = nn.Parameter(down), nn.Parameter(up)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the difference (..., out) of inputs (..., in)."""
        return functional.linear(functional.linear(inputs, self.down), self.up)


class AdaptedLinear(nn.Linear):
    """A linear layer with an adapter; its own weights keep their names.

    Args:
        layer: Its weights are shared, not copied.
        adapter: Of it.
    """

    def __init__(self, layer: nn.Linear, adapter: Adapter) -> None:
        super().__init__(layer.in_features, layer.out_features, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.adapter = adapter

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (..., out) of inputs (..., in)."""
        difference: Tensor = self.adapter(inputs)
        return super().forward(inputs) + difference


def is_adapter(name: str) -> bool:
    """Return whether a tensor of this name belongs to an adapter."""
    return name.endswith((DOWN, UP))


def changed_weight(name: str) -> str:
    """Return the weight that a tuned tensor replaces, or that its adapter changes."""
    if not is_adapter(name):
        return name
    return f"{name.removesuffix(DOWN).removesuffix(UP)}.weight"


def rank_of(tuned: Mapping[str, Tensor]) -> int:
    """Return the rank of the adapters among tensors, 0 where there are none.

    Raises:
        ValueError: If they differ.
    """
    ranks = {len(tensor) for name, tensor in tuned.items() if name.endswith(DOWN)}
    if len(ranks) > 1:
        raise ValueError(f"adapters have the ranks {sorted(ranks)}: one is wanted")
    return ranks.pop() if ranks else 0


def merged(weights: Mapping[str, Tensor], tuned: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights as tuned tensors replace them and adapters change them; nothing is modified.

    Raises:
        ValueError: If half of an adapter is missing, or a shape does not fit.
    """
    whole = {name: tensor for name, tensor in tuned.items() if not is_adapter(name)}
    out = {**weights, **whole}
    for name in {changed_weight(name) for name in tuned.keys() - whole.keys()}:
        stem = name.removesuffix(".weight")
        down, up = tuned.get(f"{stem}{DOWN}"), tuned.get(f"{stem}{UP}")
        if down is None or up is None:
            raise ValueError(f"the adapter of {stem} is not whole")
        shapes = (up.shape[0], down.shape[1]), (up.shape[1], down.shape[0])
        if shapes[0] != out[name].shape or shapes[1][0] != shapes[1][1]:
            raise ValueError(
                f"the adapter {tuple(up.shape)} x {tuple(down.shape)} does not fit {name} "
                f"{tuple(out[name].shape)}"
            )
        out[name] = torch.addmm(out[name], up, down)
    return out


def adapt(module: nn.Module, rank: int) -> None:
    """Give each linear layer inside a module an adapter that changes nothing yet, in place.

    One that has an adapter keeps it.
    """
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear:
                down = torch.randn(rank, layer.in_features) / math.sqrt(layer.in_features)
                adapter = Adapter(down, torch.zeros(layer.out_features, rank))
                setattr(parent, name, AdaptedLinear(layer, adapter))


def adapt_as(network: nn.Module, tuned: Mapping[str, Tensor]) -> None:
    """Give a network's linear layers the adapters that are among tensors, in place."""
    for name in [name.removesuffix(DOWN) for name in tuned if name.endswith(DOWN)]:
        layer = network.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        parent, _, last = name.rpartition(".")
        adapter = Adapter(tuned[f"{name}{DOWN}"].clone(), tuned[f"{name}{UP}"].clone())
        setattr(network.get_submodule(parent), last, AdaptedLinear(layer, adapter))
